//! A prefetch limit that all consumers of a channel share (`basic.qos` with `global`): they take turns, and the client never
//! has more than the limit.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::internals::wire::properties::PropertiesWriter;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::test_runner::{Config, TestRunner};
use std::collections::BTreeMap;
use std::time::Duration;
use support::client::Incoming;
use support::{Broker, Client};

const CASES: u32 = 12;
/// Deliveries in which every consumer's share is looked at, at least; and for each consumer.
const WINDOW_MIN: usize = 300;
const WINDOW_EACH: usize = 30;
const WINDOWS: usize = 3;
/// How long a delivery that must not come is waited for.
const SILENCE: Duration = Duration::from_millis(5);

fn start() -> (tempfile::TempDir, Broker) {
    let data = tempfile::tempdir().expect("a directory can be made");
    let broker = Broker::start(&data.path().join("data"));
    (data, broker)
}

fn write_limit(client: &mut Client, limit: u16) {
    client.write(1, (60, 10), |fields| {
        fields.extend_from_slice(&[0; 4]);
        fields.extend_from_slice(&limit.to_be_bytes());
        fields.push(1);
    });
}

fn set_limit(client: &mut Client, limit: u16) {
    write_limit(client, limit);
    assert!(matches!(client.next(), Ok(Incoming::Method { class_id: 60, method_id: 11, .. })));
}

fn fill(client: &mut Client, queue: &str, messages: usize) {
    for _ in 0..messages {
        client.publish("", queue, &PropertiesWriter::new(), b"m");
    }
}

fn run<S: Strategy>(strategy: S, test: impl Fn(S::Value)) {
    let config = Config { failure_persistence: None, ..Config::with_cases(CASES) };
    let mut runner = TestRunner::new(config);
    runner
        .run(&strategy, |value| {
            test(value);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// Takes deliveries until there are so many, and whatever comes at once behind them.
fn collect(client: &mut Client, count: usize, unacked: &mut Vec<u64>) {
    loop {
        let incoming = if unacked.len() < count { Some(client.next()) } else { client.next_within(SILENCE) };
        match incoming {
            Some(Ok(Incoming::Delivery(delivery))) => unacked.push(delivery.delivery_tag),
            Some(incoming) => drop(incoming.expect("the connection lives")),
            None => return,
        }
    }
}

#[derive(Clone, Debug)]
struct Sharing {
    queues: usize,
    /// Of each queue, all of the same priority.
    consumers: usize,
    /// Whether each queue has a consumer of a lower priority as well.
    has_lower: bool,
    limit: u16,
    /// How many deliveries are acknowledged at once.
    ack_every: u16,
}

fn sharing() -> impl Strategy<Value = Sharing> {
    let limit = (1..80u16).prop_flat_map(|limit| (Just(limit), 1..=limit));
    (1..7usize, 1..5usize, any::<bool>(), limit).prop_map(|(queues, consumers, has_lower, (limit, ack_every))| {
        Sharing { queues, consumers, has_lower, limit, ack_every }
    })
}

#[test]
fn queues_and_consumers_get_equal_shares_of_a_channels_prefetch() {
    let (_data, broker) = start();
    run(sharing(), |sharing| {
        let mut client = Client::connect(broker.amqp);
        let tags: Vec<String> = (0..sharing.queues * sharing.consumers).map(|tag| format!("c{tag}")).collect();
        let window = WINDOW_MIN.max(WINDOW_EACH * tags.len());
        let names: Vec<String> = (0..sharing.queues).map(|queue| format!("q{queue}")).collect();
        for name in &names {
            client.queue(name, &[], &[]);
            client.try_purge_queue(name).expect("it is there");
            fill(&mut client, name, usize::from(sharing.limit) + WINDOWS * window);
        }
        set_limit(&mut client, sharing.limit);
        for (at, tag) in tags.iter().enumerate() {
            client.consume(&names[at % sharing.queues], tag);
        }
        for (at, name) in names.iter().enumerate().filter(|_| sharing.has_lower) {
            client.consume_with_priority(name, &format!("lower{at}"), -1);
        }
        let mut taken = 0;
        let mut take = |client: &mut Client| {
            let delivery = client.delivery();
            taken += 1;
            if taken % sharing.ack_every == 0 {
                client.ack(delivery.delivery_tag, true);
            }
            delivery.consumer_tag
        };
        // What was there when the first consumers came went to them alone.
        for _ in 0..sharing.limit {
            take(&mut client);
        }
        for _ in 0..WINDOWS {
            let mut shares: BTreeMap<String, usize> = tags.iter().map(|tag| (tag.clone(), 0)).collect();
            for _ in 0..window {
                *shares.get_mut(&take(&mut client)).expect("those of lower priority have to wait") += 1;
            }
            let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
            assert!(*most <= 2 * least, "{sharing:?}: {shares:?}");
        }
        client.close();
    });
}

/// One write of a client: so many of its deliveries are acknowledged, and then perhaps the limit changes.
#[derive(Clone, Debug)]
struct Move {
    acks: u8,
    limit: Option<u16>,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let limit = proptest::option::of(1..12u16);
    vec((any::<u8>(), limit).prop_map(|(acks, limit)| Move { acks, limit }), 40)
}

#[test]
fn no_client_has_more_than_its_channels_prefetch_however_it_is_changed() {
    let (_data, broker) = start();
    run((1..12u16, moves()), |(first, moves)| {
        let mut client = Client::connect(broker.amqp);
        let names = ["a", "b"];
        for name in names {
            client.queue(name, &[], &[]);
            client.try_purge_queue(name).expect("it is there");
            fill(&mut client, name, 2000);
        }
        let mut limit = first;
        set_limit(&mut client, limit);
        names.iter().for_each(|name| client.consume(name, name));
        let mut unacked = Vec::new();
        // What may be out, however late it arrives: a limit that falls takes nothing back.
        let mut bound = usize::from(limit);
        for step in moves {
            let acks = usize::from(step.acks) % (unacked.len() + 1);
            for tag in unacked.drain(..acks) {
                client.ack(tag, false);
            }
            bound = (bound - acks).max(usize::from(limit));
            if let Some(next) = step.limit {
                bound = bound.max(usize::from(next));
                limit = next;
                write_limit(&mut client, limit);
            }
            collect(&mut client, usize::from(limit), &mut unacked);
            assert!(unacked.len() <= bound, "{} unacknowledged of {bound}", unacked.len());
        }
        client.close();
    });
}

#[test]
fn a_limit_that_begins_counts_what_is_on_its_way() {
    let (_data, broker) = start();
    let mut client = Client::connect(broker.amqp);
    client.queue("q", &[], &[]);
    fill(&mut client, "q", 100);
    client.qos(5);
    client.consume("q", "c");
    let first = (0..5).map(|_| client.delivery()).last().expect("five came");
    // The next five are on their way while the limit is read.
    client.ack(first.delivery_tag, true);
    write_limit(&mut client, 3);
    let mut unacked = Vec::new();
    collect(&mut client, 5, &mut unacked);
    for _ in 0..2 {
        client.ack(unacked.remove(0), false);
    }
    collect(&mut client, 3, &mut unacked);
    assert_eq!(unacked.len(), 3, "they count");
    client.ack(unacked.remove(0), false);
    collect(&mut client, 3, &mut unacked);
    assert_eq!(unacked.len(), 3, "each gives way to one");
    client.close();
}
