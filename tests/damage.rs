//! What a client sees of files that were damaged while the broker was down, or is running: what it is given, what it is
//! told, and that nothing is confirmed that is not there.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;
use support::client::{Flag, Incoming, persistent};
use support::{Broker, Client, tell};
use tempfile::TempDir;

/// Few enough that the log is not moved into the file while they come.
const MESSAGES: u64 = 250;
const PAGE_BYTES: usize = 16_384;
const SILENCE: Duration = Duration::from_secs(2);

struct Place(TempDir);

impl Place {
    /// With confirmed messages in one queue, and the broker killed: they are in the log.
    fn killed() -> Self {
        let place = Self(TempDir::new().unwrap());
        let broker = Broker::start(&place.data());
        let mut client = Client::connect(broker.amqp);
        client.queue("q", &[Flag::Durable], &[]);
        client.confirm_select();
        // In several batches.
        for first in (1..=MESSAGES).step_by(50) {
            publish(&mut client, first..=first + 49);
            client.wait_for_confirms(first, first + 49);
        }
        broker.kill();
        place
    }

    /// With the broker stopped in good order: they are in the file.
    fn stopped() -> Self {
        let place = Self::killed();
        assert!(Broker::start(&place.data()).terminate().0.success());
        place
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.data().join("prontomq.sqlite3-wal")
    }
}

fn publish(client: &mut Client, numbers: impl Iterator<Item = u64>) {
    for number in numbers {
        let mut body = number.to_be_bytes().to_vec();
        body.resize(1_000, b'.');
        client.publish("", "q", &persistent(), &body);
    }
    client.flush().unwrap();
}

/// What there is, in order; and the broker works on.
fn take_all_and_go_on(broker: &Broker) -> Vec<u64> {
    let mut client = Client::connect(broker.amqp);
    let count = client.queue("q", &[Flag::Durable], &[]).message_count;
    client.consume_no_ack("q", "all");
    let numbers = (0..count).map(|_| client.delivery().number()).collect();
    client.close();
    let mut client = Client::connect(broker.amqp);
    client.confirm_select();
    publish(&mut client, 1..=1);
    client.wait_for_confirms(1, 1);
    numbers
}

#[test]
fn behind_a_torn_end_of_the_log_all_batches_before_it_are_there_in_order() {
    let place = Place::killed();
    let log = OpenOptions::new().write(true).open(place.log()).unwrap();
    let len = log.metadata().unwrap().len();
    log.set_len(len / 3 * 2 + 100).unwrap();
    let broker = Broker::start(&place.data());
    let numbers = take_all_and_go_on(&broker);
    assert!(!numbers.is_empty() && numbers.len() < MESSAGES as usize);
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");
    tell(&format!("torn end of the log: the first {} of {MESSAGES} messages, in order", numbers.len()));
}

#[test]
fn without_the_log_the_broker_starts_with_what_the_file_holds() {
    let place = Place::killed();
    fs::remove_file(place.log()).unwrap();
    let broker = Broker::start(&place.data());
    let numbers = take_all_and_go_on(&broker);
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{numbers:?}");
    tell(&format!("missing log: the first {} of {MESSAGES} messages, in order", numbers.len()));
}

#[test]
fn a_zeroed_page_under_a_running_broker_is_told_and_nothing_is_confirmed_falsely() {
    let place = Place::stopped();
    let connection = rusqlite::Connection::open(place.data().join("prontomq.sqlite3")).unwrap();
    let number = |statement: &str| connection.query_row(statement, [], |row| row.get::<_, i64>(0)).unwrap();
    let pages = "FROM dbstat WHERE name = 'message' AND pagetype = 'leaf'";
    // In the middle of the queue.
    let page = number(&format!("SELECT pageno {pages} ORDER BY path LIMIT 1 OFFSET (SELECT count(*) / 2 {pages})"));
    drop(connection);
    let file = OpenOptions::new().write(true).open(place.data().join("prontomq.sqlite3")).unwrap();
    file.write_all_at(&[0; PAGE_BYTES], (page as u64 - 1) * PAGE_BYTES as u64).unwrap();

    let broker = Broker::start(&place.data());
    let mut client = Client::connect(broker.amqp);
    client.qos(1_000);
    client.consume("q", "c");
    let mut given = 0;
    while let Some(incoming) = client.next_within(SILENCE) {
        let Incoming::Delivery(delivery) = incoming.unwrap() else { panic!("no delivery") };
        given += 1;
        assert_eq!(delivery.number(), given, "up to the damage, in order");
    }
    assert!((1..MESSAGES).contains(&given), "{given}");
    let (status, why) = broker.http_get("/healthz");
    assert!(status.contains("503") && why.contains("malformed"), "{status} {why}");
    assert!(broker.metric("prontomq_store_read_failures_total") >= 1.0);
    assert!(broker.log().contains("malformed"), "{}", broker.log());

    // Another connection, since this one waits for the rest of the queue.
    let mut publisher = Client::connect(broker.amqp);
    publisher.confirm_select();
    publish(&mut publisher, MESSAGES + 1..=MESSAGES + 50);
    let (mut kept, mut refused) = (0, 0);
    while let Some(incoming) = publisher.next_within(SILENCE) {
        match incoming.unwrap() {
            Incoming::Confirm { delivery_tag, kept: true, .. } => kept = kept.max(delivery_tag),
            Incoming::Confirm { delivery_tag, kept: false, .. } => refused = refused.max(delivery_tag),
            other => panic!("{other:?}"),
        }
    }
    tell(&format!(
        "zeroed page: {given} of {MESSAGES} given, then none; /healthz 503: {}; of 50 published then {kept} confirmed, \
         {refused} refused",
        why.trim()
    ));
    broker.kill();

    // What was confirmed meanwhile is there once the doctor has saved what can be read.
    let mut doctor = support::broker::program();
    let output = support::broker::run_to_end(doctor.arg("doctor").arg("--data-dir").arg(place.data()).arg("--repair"));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let numbers = take_all_and_go_on(&Broker::start(&place.data()));
    assert!(numbers.is_sorted());
    let confirmed = MESSAGES + 1..=MESSAGES + kept;
    assert!(confirmed.clone().all(|number| numbers.contains(&number)), "{confirmed:?} in {numbers:?}");
}
