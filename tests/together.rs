//! What belongs together survives a kill together, or not at all: a dead letter is in one queue or the other, and a
//! transaction's publishes and acknowledgements are both there or both not.
//!
//! `PRONTOMQ_KILL_ROUNDS=20 cargo test --test together -- --nocapture` is the long run.

#![allow(clippy::unwrap_used, reason = "a test")]

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::internals::model::random::Random;
use prontomq::internals::wire::table::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;
use support::client::{Flag, Incoming, persistent};
use support::{Broker, Client, count_from_environment, tell};

const ROUNDS: usize = 2;
const MESSAGES: u64 = 20_000;
const TX_SELECT: (u16, u16) = (90, 10);
const TX_COMMIT: (u16, u16) = (90, 20);
/// Messages of one transaction.
const TOGETHER: u64 = 5;

/// Both queues, the first one full.
fn fill(address: SocketAddr) {
    let mut client = Client::connect(address);
    let letters =
        [("x-dead-letter-exchange", Value::LongString(b"")), ("x-dead-letter-routing-key", Value::LongString(b"to"))];
    client.queue("from", &[Flag::Durable], &letters);
    client.queue("to", &[Flag::Durable], &[]);
    client.confirm_select();
    for number in 0..MESSAGES {
        client.publish("", "from", &persistent(), &number.to_be_bytes());
    }
    client.wait_for_confirms(1, MESSAGES);
}

fn drain(client: &mut Client, queue: &str) -> Vec<u64> {
    let count = client.message_count(queue);
    client.consume_no_ack(queue, queue);
    (0..count).map(|_| client.delivery().number()).collect()
}

/// Fills a queue, lets `work` empty it into another until a kill at a random moment, and checks that every message is in
/// one of the two. `prepare` is answered before the moment begins, so that only `work` meets the kill. Returns how many
/// got to the other one.
fn round(path: &Path, life: Duration, prepare: impl Fn(&mut Client), work: impl FnOnce(Client) + Send) -> usize {
    let broker = Broker::start(path);
    fill(broker.amqp);
    let mut client = Client::connect(broker.amqp);
    prepare(&mut client);
    thread::scope(|scope| {
        scope.spawn(|| work(client));
        // Not to wait for anything: the random moment itself.
        thread::sleep(life);
        broker.kill();
    });
    let broker = Broker::start(path);
    let mut client = Client::connect(broker.amqp);
    let (left, moved) = (drain(&mut client, "from"), drain(&mut client, "to"));
    let each: BTreeSet<_> = left.iter().chain(&moved).copied().collect();
    assert_eq!(each.len() as u64, MESSAGES, "nothing is lost");
    assert_eq!(left.len() + moved.len(), each.len(), "nothing is in both queues");
    assert!(drain_is_empty(&mut client), "the counts after the start were right");
    client.close();
    broker.terminate();
    moved.len()
}

fn drain_is_empty(client: &mut Client) -> bool {
    ["from", "to"].iter().all(|queue| client.message_count(queue) == 0)
}

fn rounds(together: u64, prepare: impl Fn(&mut Client), work: impl Fn(Client) + Send + Sync) {
    let data = tempfile::tempdir().unwrap();
    let seed = getrandom::u64().unwrap();
    tell(&format!("seed {seed}"));
    let mut random = Random::new(seed);
    for round_number in 0..count_from_environment("PRONTOMQ_KILL_ROUNDS", ROUNDS) {
        let life = Duration::from_micros(1_000 + random.next_u64() % 60_000);
        let moved = round(&data.path().join(round_number.to_string()), life, &prepare, &work);
        assert_eq!(moved as u64 % together, 0, "{moved} have moved, {together} at a time");
        tell(&format!("round {round_number}: killed after {life:?}, {moved} of {MESSAGES} had moved"));
    }
}

#[test]
fn a_dead_letter_is_in_one_queue_or_the_other() {
    let prepare = |client: &mut Client| {
        client.qos(500);
        client.consume("from", "rejecting");
    };
    rounds(1, prepare, |mut client| {
        while let Ok(incoming) = client.next() {
            if let Incoming::Delivery(delivery) = incoming {
                client.nack(delivery.delivery_tag, false);
                if client.flush().is_err() {
                    return;
                }
            }
        }
    });
}

#[test]
fn a_transaction_moves_all_of_its_messages_or_none() {
    let prepare = |client: &mut Client| {
        client.qos(500);
        client.call(1, TX_SELECT, |_| {}).unwrap();
        client.consume("from", "moving");
    };
    rounds(TOGETHER, prepare, |mut client| {
        let mut count = 0;
        while let Ok(incoming) = client.next() {
            let Incoming::Delivery(delivery) = incoming else { continue };
            client.publish("", "to", &persistent(), &delivery.body);
            client.ack(delivery.delivery_tag, false);
            count += 1;
            if count % TOGETHER == 0 && client.call(1, TX_COMMIT, |_| {}).is_err() {
                return;
            }
        }
    });
}
