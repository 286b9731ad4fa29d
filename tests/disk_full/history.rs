//! Random histories of a full disk: its size, the size of messages, which process takes the last free bytes, and how the
//! broker ends. After consumers have drained the queues, publishers are confirmed again, and no acknowledged message comes back.

use crate::support::client::{Flag, Incoming, persistent};
use crate::support::{Client, PATIENCE, count_from_environment, tell};
use crate::{Disk, wait_until};
use prontomq::internals::model::random::Random;
use prontomq::internals::wire::table::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::support::Broker;

/// Without a confirm for so long the disk is full.
const SILENCE: Duration = Duration::from_secs(1);

/// Messages on their way at a time have about so many bytes.
const WINDOW_BYTES: usize = 1 << 20;

/// Messages of the second publisher have greater numbers.
const AGAIN: u64 = 1 << 32;

/// How the broker ends while the disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It goes on.
    None,
    /// Killed so long after the first refusal.
    Killed(Duration),
    Terminated,
}

/// Who has the last of the space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Broker,
    /// Another program takes what is left.
    Taken,
    /// And what the broker keeps for itself, while it does not run.
    ReservesTaken,
}

#[derive(Clone, Debug)]
struct History {
    disk_mib: u64,
    /// From the smallest body to the largest.
    bodies: (u64, u64),
    queues: u64,
    levels: u8,
    redo_bytes: u64,
    rest: Rest,
    end: End,
    /// Acknowledged at once.
    acks: u64,
}

impl History {
    fn drawn(random: &mut Random) -> Self {
        let mut dice = |sides: u64| random.next_u64() % sides;
        // Sizes of 1 KiB to 4 MiB.
        let largest = 1 << (10 + dice(13));
        let end = match dice(4) {
            0 => End::None,
            1 => End::Terminated,
            _ => End::Killed(Duration::from_millis(dice(300))),
        };
        let rest = match dice(3) {
            0 => Rest::Broker,
            1 => Rest::Taken,
            _ if end == End::None => Rest::Taken,
            _ => Rest::ReservesTaken,
        };
        Self {
            disk_mib: 40 + dice(57),
            bodies: (if dice(2) == 0 { largest } else { 1 << 10 }, largest),
            queues: 1 + dice(4),
            levels: if dice(3) == 0 { 5 } else { 0 },
            redo_bytes: if dice(3) == 0 { 0 } else { 1 << 20 },
            rest,
            end,
            acks: 1 + dice(20),
        }
    }

    /// A megabyte each on 96 MiB, drained by the broker that filled it.
    fn of_large_bodies() -> Self {
        let mib = 1 << 20;
        Self {
            disk_mib: 96,
            bodies: (mib, mib),
            queues: 1,
            levels: 0,
            redo_bytes: mib,
            rest: Rest::Broker,
            end: End::None,
            acks: 1,
        }
    }

    fn broker(&self, disk: &Disk) -> Broker {
        let mut command = crate::support::broker::serve(&disk.data());
        command.env("PRONTOMQ_LIMITS_DISK_FREE_BYTES", "0 B");
        command.env("PRONTOMQ_STORE_REDO_BYTES", format!("{} B", self.redo_bytes));
        Broker::run(command, &disk.log_base())
    }

    /// Fills the disk, drains it, fills it to the half again; and kills the broker in the end.
    fn run(&self, random: &mut Random) -> Option<String> {
        let disk = Disk::mount(self.disk_mib)?;
        let began = Instant::now();
        let mut broker = self.broker(&disk);
        let mut publisher = Publisher::connect(&broker, self);
        let kill_after = if let End::Killed(after) = self.end { after } else { SILENCE };
        publisher.fill(self, random, kill_after);
        let filled = began.elapsed();
        if self.rest != Rest::Broker {
            disk.take_the_rest();
        }
        match self.end {
            End::None => {}
            End::Killed(_) => broker = self.restarted(&disk, |broker| broker.kill(), broker),
            End::Terminated => broker = self.restarted(&disk, |broker| _ = broker.terminate(), broker),
        }
        let began = Instant::now();
        let drained = self.drain(&broker, &publisher.confirmed);
        let took = began.elapsed();
        if self.rest == Rest::ReservesTaken {
            // Without a byte of its own the broker serves consumers; to write that down takes some.
            fs::remove_file(disk.ballast()).unwrap();
        }
        // Behind the acknowledgements, in their order: once these are confirmed, those are stored.
        let mut again = Publisher::connect(&broker, self);
        again.offset = AGAIN;
        let count = (publisher.confirmed.len() as u64 / 2).max(self.queues);
        for _ in 0..count {
            again.publish(self, random);
            again.wait_for_all(&broker);
        }
        broker.kill();
        let broker = self.broker(&disk);
        let left = self.drain(&broker, &again.confirmed);
        assert_eq!(left.intersection(&drained).count(), 0, "acknowledged messages are back");
        // What waited in the first publisher's socket may have come meanwhile.
        let late = left.iter().filter(|number| **number < AGAIN).count();
        assert!(late <= publisher.waiting.len(), "{late} come from nowhere");
        wait_until("it is healthy", || broker.http_get("/healthz").0.contains("200"));
        assert!(broker.terminate().0.success());
        let confirmed = publisher.confirmed.len();
        let (drained, left) = (drained.len(), left.len() - late);
        Some(format!(
            "{confirmed} messages confirmed until full ({filled:.1?}), {drained} drained ({took:.1?}), {count} stored \
             again, after a kill {left} there and none of the acknowledged"
        ))
    }

    fn restarted(&self, disk: &Disk, end: impl FnOnce(Broker), broker: Broker) -> Broker {
        end(broker);
        if self.rest == Rest::ReservesTaken {
            disk.take_the_reserves();
        }
        if self.rest != Rest::Broker {
            disk.take_the_rest();
        }
        if !disk.data().join("prontomq.redo").exists() && self.rest == Rest::ReservesTaken {
            // The broker has nothing left to give: what deliveries write down needs a few pages.
            tell("without a redo log");
            disk.give_some_back();
        }
        self.broker(disk)
    }

    fn queue(&self, number: u64) -> String {
        format!("q{}", number % self.queues)
    }

    fn declare(&self, client: &mut Client) {
        for number in 0..self.queues {
            let arguments = [("x-max-priority", Value::I32(self.levels.into()))];
            let arguments = if self.levels > 0 { &arguments[..] } else { &[] };
            client.queue(&self.queue(number), &[Flag::Durable], arguments);
        }
    }

    /// Takes and acknowledges everything: what was confirmed is among it. All that was taken.
    fn drain(&self, broker: &Broker, confirmed: &BTreeSet<u64>) -> BTreeSet<u64> {
        let mut missing = confirmed.clone();
        let mut client = Client::connect(broker.amqp);
        client.qos(50);
        for number in 0..self.queues {
            client.consume(&self.queue(number), &format!("drain-{number}"));
        }
        let mut taken = BTreeSet::new();
        let mut since_ack = 0;
        loop {
            // What was not confirmed may be there or not.
            let patience = if missing.is_empty() { SILENCE } else { PATIENCE };
            match client.next_within(patience) {
                Some(Ok(Incoming::Delivery(delivery))) => {
                    missing.remove(&delivery.number());
                    taken.insert(delivery.number());
                    since_ack += 1;
                    if since_ack == self.acks || missing.is_empty() {
                        client.ack(delivery.delivery_tag, true);
                        since_ack = 0;
                    }
                }
                Some(Ok(Incoming::Heartbeat)) => {}
                Some(other) => panic!("{other:?} instead of a delivery"),
                None => break,
            }
        }
        assert!(missing.is_empty(), "{} of {} are lost: {}", missing.len(), confirmed.len(), broker.log());
        client.close();
        taken
    }
}

/// A publisher that knows which of its messages are confirmed.
struct Publisher {
    client: Client,
    sent: u64,
    waiting: BTreeSet<u64>,
    /// The number of the first, less one: confirms count from 1.
    offset: u64,
    bytes_each: usize,
    confirmed: BTreeSet<u64>,
}

impl Publisher {
    fn connect(broker: &Broker, history: &History) -> Self {
        let mut client = Client::connect(broker.amqp);
        history.declare(&mut client);
        client.confirm_select();
        let bytes_each = history.bodies.1 as usize;
        Self { client, sent: 0, waiting: BTreeSet::new(), offset: 0, bytes_each, confirmed: BTreeSet::new() }
    }

    fn publish(&mut self, history: &History, random: &mut Random) {
        self.sent += 1;
        let (least, most) = history.bodies;
        let mut body = (self.offset + self.sent).to_be_bytes().to_vec();
        body.resize((least + random.next_u64() % (most - least + 1)) as usize, b'.');
        let priority = (random.next_u64() % (u64::from(history.levels) + 1)) as u8;
        let properties = persistent().priority(priority);
        self.client.publish("", &history.queue(self.sent), &properties, &body);
        self.waiting.insert(self.sent);
    }

    /// Takes one thing that the broker says; `false` when it stays silent, or does not read.
    fn hear(&mut self, patience: Duration) -> bool {
        match self.client.next_within(patience) {
            Some(Ok(Incoming::Confirm { delivery_tag, multiple, kept })) => {
                assert!(kept, "nothing is refused for good");
                let behind = self.waiting.split_off(&(delivery_tag + 1));
                let confirmed: BTreeSet<u64> =
                    if multiple { std::mem::take(&mut self.waiting) } else { [delivery_tag].into() };
                self.waiting.retain(|tag| *tag != delivery_tag);
                self.waiting.extend(behind);
                self.confirmed.extend(confirmed.iter().map(|sequence| self.offset + sequence));
                true
            }
            // Blocked, or not any more.
            Some(Ok(Incoming::Method { class_id: 10, method_id: 60 | 61, .. })) => true,
            Some(Ok(other)) => panic!("{other:?}"),
            Some(Err(_)) | None => false,
        }
    }

    /// Publishes until no confirm comes for so long.
    fn fill(&mut self, history: &History, random: &mut Random, silence: Duration) {
        let window = (WINDOW_BYTES / self.bytes_each).clamp(1, 200);
        let silence = silence.max(Duration::from_millis(100));
        self.client.write_within(silence);
        loop {
            while self.waiting.len() < window {
                self.publish(history, random);
            }
            if !self.hear(silence) {
                return;
            }
        }
    }

    fn wait_for_all(&mut self, broker: &Broker) {
        while !self.waiting.is_empty() {
            assert!(self.hear(PATIENCE), "{} are not confirmed: {}", self.waiting.len(), broker.log());
        }
    }
}

impl Disk {
    /// Another program takes what is left, to the last byte.
    fn take_the_rest(&self) {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(self.ballast()).unwrap();
        while file.write(&[b'x'; 4_096]).is_ok_and(|written| written > 0) {}
    }

    /// The other program gives a little back.
    fn give_some_back(&self) {
        let file = fs::OpenOptions::new().write(true).open(self.ballast()).unwrap();
        let bytes = file.metadata().unwrap().len();
        file.set_len(bytes.saturating_sub(256 << 10)).unwrap();
    }

    /// The files in which the broker keeps space for itself are gone.
    fn take_the_reserves(&self) {
        for entry in fs::read_dir(self.data()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension.to_string_lossy().contains("reserve")) {
                fs::remove_file(path).unwrap();
            }
        }
    }
}

#[test]
fn a_disk_that_the_broker_has_filled_with_large_messages_is_drained_and_filled_again() {
    if let Some(figures) = History::of_large_bodies().run(&mut Random::new(1)) {
        tell(&figures);
    }
}

#[test]
fn any_full_disk_is_drained_and_filled_again_and_nothing_acknowledged_comes_back() {
    let seed = count_from_environment("PRONTOMQ_DISK_SEED", getrandom::u64().unwrap() as usize >> 16);
    for at in 0..count_from_environment("PRONTOMQ_DISK_HISTORIES", 3) {
        let mut random = Random::new((seed + at) as u64);
        let history = History::drawn(&mut random);
        tell(&format!("PRONTOMQ_DISK_SEED={} {history:?}", seed + at));
        let Some(figures) = history.run(&mut random) else { return };
        tell(&figures);
    }
}
