//! A broker on a disk of 50 MB that runs full: publishers wait, nothing is confirmed falsely, consumers get everything that
//! was confirmed, and with space come confirms again. The disk is a tmpfs; without the right to mount one, nothing is tested.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[path = "disk_full/history.rs"]
mod history;
#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::client::{Flag, Incoming, persistent};
use support::{Broker, Client, PATIENCE, tell};
use tempfile::TempDir;

const MIB: u64 = 50;

/// A full disk is noticed within it.
const SILENCE: Duration = Duration::from_secs(2);
const BODY_BYTES: usize = 4_000;

struct Disk(TempDir);

impl Disk {
    /// What can be deleted to make room.
    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }

    /// A broker without a watermark, and a publisher that has filled the disk.
    fn fill(&self) -> (Broker, Publisher) {
        fs::write(self.ballast(), vec![b'x'; 20 << 20]).unwrap();
        let broker = self.broker("0 B");
        let mut publisher = Publisher::connect(&broker);
        publisher.fill();
        (broker, publisher)
    }

    /// None when this machine does not let us.
    fn mount(mib: u64) -> Option<Self> {
        let place = TempDir::new().unwrap();
        let size = CString::new(format!("size={mib}m")).unwrap();
        match mount("tmpfs", place.path(), "tmpfs", MountFlags::empty(), Some(&*size)) {
            Ok(()) => Some(Self(place)),
            Err(error) => {
                tell(&format!("not tested: mounting a tmpfs is refused ({error})"));
                None
            }
        }
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn broker(&self, disk_free_bytes: &str) -> Broker {
        let mut command = support::broker::serve(&self.data());
        command.env("PRONTOMQ_LIMITS_DISK_FREE_BYTES", disk_free_bytes);
        Broker::run(command, &self.log_base())
    }

    /// The log goes elsewhere: it takes no space of this disk.
    fn log_base(&self) -> PathBuf {
        self.0.path().with_extension("data")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The broker may still be ending.
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
        let _ = fs::remove_file(self.log_base().with_extension("log"));
    }
}

/// A publisher that knows which of its messages are confirmed.
struct Publisher {
    client: Client,
    body_bytes: usize,
    unconfirmed_max: usize,
    /// Its messages bear the numbers behind it.
    first: u64,
    sent: u64,
    waiting: BTreeSet<u64>,
    is_blocked: bool,
}

impl Publisher {
    fn connect(broker: &Broker) -> Self {
        let mut client = Client::connect(broker.amqp);
        client.queue("q", &[Flag::Durable], &[]);
        client.confirm_select();
        let (body_bytes, unconfirmed_max) = (BODY_BYTES, 200);
        Self { client, body_bytes, unconfirmed_max, first: 0, sent: 0, waiting: BTreeSet::new(), is_blocked: false }
    }

    fn publish(&mut self) {
        self.sent += 1;
        let mut body = (self.first + self.sent).to_be_bytes().to_vec();
        body.resize(self.body_bytes, b'.');
        self.client.publish("", "q", &persistent(), &body);
        self.waiting.insert(self.sent);
    }

    /// Takes one thing that the broker says; `false` when it stays silent.
    fn hear(&mut self, patience: Duration) -> bool {
        match self.client.next_within(patience) {
            None => return false,
            Some(Ok(Incoming::Confirm { delivery_tag, multiple, kept })) => {
                assert!(kept, "nothing is refused for good");
                if multiple {
                    self.waiting = self.waiting.split_off(&(delivery_tag + 1));
                } else {
                    assert!(self.waiting.remove(&delivery_tag), "confirmed twice");
                }
            }
            Some(Ok(Incoming::Method { class_id: 10, method_id: 60, fields, .. })) => {
                assert!(String::from_utf8_lossy(&fields).contains("low on disk"), "{fields:?}");
                self.is_blocked = true;
            }
            Some(Ok(Incoming::Method { class_id: 10, method_id: 61, .. })) => self.is_blocked = false,
            Some(other) => panic!("{other:?}"),
        }
        true
    }

    /// Publishes until no confirm comes any more.
    fn fill(&mut self) {
        loop {
            while self.waiting.len() < self.unconfirmed_max && !self.is_blocked {
                self.publish();
            }
            self.client.flush().unwrap();
            if !self.hear(SILENCE) {
                return;
            }
        }
    }

    fn confirmed(&self) -> u64 {
        self.sent - self.waiting.len() as u64
    }

    fn wait_for_all(&mut self) {
        self.client.flush().unwrap();
        while !self.waiting.is_empty() {
            assert!(self.hear(PATIENCE), "{} are not confirmed", self.waiting.len());
        }
    }
}

/// Takes all messages that there are, in order.
fn drain(broker: &Broker, count: u64) {
    let mut client = Client::connect(broker.amqp);
    client.qos(1_000);
    client.consume("q", "drain");
    for number in 1..=count {
        let delivery = client.delivery();
        assert_eq!(delivery.number(), number);
        client.ack(delivery.delivery_tag, false);
    }
    client.flush().unwrap();
    client.close();
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "{what}");
    }
}

#[test]
fn publishers_are_blocked_before_the_disk_is_full_and_go_on_once_it_is_drained() {
    let Some(disk) = Disk::mount(MIB) else { return };
    let broker = disk.broker("20 MiB");
    let mut publisher = Publisher::connect(&broker);
    publisher.fill();
    assert!(publisher.is_blocked, "it was told why");
    let confirmed = publisher.confirmed();
    assert!(confirmed > 1_000, "{confirmed}");
    // What waits in the socket may follow as soon as there is space.
    drain(&broker, confirmed);
    wait_until("it is unblocked", || {
        publisher.hear(SILENCE);
        !publisher.is_blocked
    });
    publisher.publish();
    publisher.wait_for_all();
    tell(&format!("{confirmed} messages of {BODY_BYTES} bytes until blocked; {} in all", publisher.sent));
    assert!(broker.terminate().0.success());
}

#[test]
fn a_disk_that_is_full_confirms_nothing_and_what_was_confirmed_is_there() {
    let Some(disk) = Disk::mount(MIB) else { return };
    let (broker, mut publisher) = disk.fill();
    let confirmed = publisher.confirmed();
    assert!(!publisher.waiting.is_empty() && confirmed > 1_000, "{confirmed}");
    // Either a batch is refused, or the alarm keeps the publisher from sending one.
    let (status, why) = broker.http_get("/healthz");
    let is_refused = status.contains("503") && why.contains("full");
    assert!(is_refused || publisher.is_blocked, "{status} {why}");
    assert!(broker.log().contains("the disk is full"), "{}", broker.log());
    tell(&format!("{confirmed} confirmed when it was full; /healthz: {}", why.trim()));

    fs::remove_file(disk.ballast()).unwrap();
    publisher.wait_for_all();
    wait_until("it is healthy", || broker.http_get("/healthz").0.contains("200"));
    drain(&broker, publisher.sent);
    assert!(broker.terminate().0.success());
}

#[test]
fn what_was_confirmed_survives_a_kill_while_the_disk_is_full() {
    let Some(disk) = Disk::mount(MIB) else { return };
    let (broker, publisher) = disk.fill();
    let confirmed = publisher.confirmed();
    broker.kill();
    fs::remove_file(disk.ballast()).unwrap();
    let broker = disk.broker("0 B");
    drain(&broker, confirmed);
    assert!(broker.terminate().0.success());
}

#[test]
fn a_full_disk_that_consumers_drain_has_room_again() {
    let Some(disk) = Disk::mount(MIB) else { return };
    let (broker, mut publisher) = disk.fill();
    let confirmed = publisher.confirmed();
    assert!(!publisher.waiting.is_empty() && confirmed > 1_000, "{confirmed}");
    // Nobody frees space but those who consume; what waits for its confirm is delivered as well.
    let drained = publisher.sent;
    drain(&broker, drained);
    publisher.wait_for_all();
    wait_until("it is healthy", || broker.http_get("/healthz").0.contains("200"));
    for _ in 0..drained / 4 {
        publisher.publish();
    }
    publisher.wait_for_all();
    tell(&format!("{confirmed} confirmed when it was full, {drained} drained, {} confirmed in all", publisher.sent));
    assert!(broker.terminate().0.success());
}

/// Acknowledgements need next to no space, and give some back: messages that do not fit must not keep them out of the store.
#[test]
fn what_is_acknowledged_while_larger_messages_wait_for_space_does_not_come_back() {
    const PUBLISHERS: u64 = 6;
    for (body_bytes, tenths, is_killed) in
        [(1 << 20, 1, true), (1 << 20, 5, false), (300_000, 2, true), (1 << 20, 10, true)]
    {
        let Some(disk) = Disk::mount(MIB) else { return };
        let broker = disk.broker("0 B");
        let mut publishers: Vec<_> = (1..=PUBLISHERS)
            .map(|id| {
                // So few that they fit into the buffers of a socket that is not read; all of them together exceed the reserve.
                let (first, unconfirmed_max) = (id << 32, 3);
                Publisher { body_bytes, unconfirmed_max, first, ..Publisher::connect(&broker) }
            })
            .collect();
        std::thread::scope(|scope| {
            publishers.iter_mut().for_each(|publisher| drop(scope.spawn(|| publisher.fill())));
        });
        let confirmed: u64 = publishers.iter().map(Publisher::confirmed).sum();
        assert!(confirmed > 10 && publishers.iter().all(|publisher| !publisher.waiting.is_empty()), "{confirmed}");
        let count = (confirmed * tenths / 10).max(1);
        let mut consumer = Client::connect(broker.amqp);
        consumer.qos(u16::try_from(count).unwrap());
        consumer.consume("q", "acknowledges");
        let mut acknowledged = BTreeSet::new();
        for _ in 0..count {
            let delivery = consumer.delivery();
            acknowledged.insert(delivery.number());
            consumer.ack(delivery.delivery_tag, false);
        }
        consumer.flush().unwrap();
        // What is acknowledged within the last second before a kill may come back.
        std::thread::sleep(Duration::from_millis(1500));
        let mut expected = BTreeSet::new();
        for publisher in &mut publishers {
            while publisher.hear(Duration::from_millis(20)) {}
            expected.extend((1..=publisher.confirmed()).map(|number| publisher.first + number));
        }
        let expected: BTreeSet<u64> = expected.difference(&acknowledged).copied().collect();
        if is_killed {
            broker.kill();
        } else {
            broker.terminate();
        }
        let broker = disk.broker("0 B");
        let mut client = Client::connect(broker.amqp);
        let left = client.message_count("q");
        client.consume("q", "drain");
        let came: BTreeSet<u64> = (0..left).map(|_| client.delivery().number()).collect();
        let back = came.intersection(&acknowledged).count();
        tell(&format!("bodies of {body_bytes}: {confirmed} confirmed, {count} acknowledged, {back} of them came back"));
        assert_eq!(back, 0, "of {count} acknowledged");
        assert!(came.is_superset(&expected), "lost: {:?}", expected.difference(&came));
        broker.kill();
    }
}
