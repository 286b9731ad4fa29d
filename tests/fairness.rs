//! Nobody is starved: not by a client that never reads, not by a slow consumer, not by one that floods.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::wire::properties::PropertiesWriter;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::broker::serve;
use support::client::{Flag, Incoming, persistent};
use support::{Broker, Client, tell};

/// Within this time, whatever others do, a client has its answer.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);
const ROUND_TRIPS: u64 = 150;
/// What a flood has on its way at a time.
const FLOOD_AHEAD: u64 = 10_000;

/// The slowest of many round trips of one client: declares, publishes with a confirm, and gets.
fn slowest_round_trip(address: SocketAddr, queue: &str) -> Duration {
    let mut client = Client::connect(address);
    client.queue(queue, &[Flag::Durable], &[]);
    client.confirm_select();
    let mut slowest = Duration::ZERO;
    let mut began = Instant::now();
    let mut done = || {
        slowest = slowest.max(began.elapsed());
        began = Instant::now();
    };
    for sequence in 1..=ROUND_TRIPS / 3 {
        client.queue(queue, &[Flag::Passive], &[]);
        done();
        client.publish("", queue, &persistent(), &sequence.to_be_bytes());
        client.wait_for_confirms(sequence, sequence);
        done();
        let delivery = client.get(queue).expect("it was confirmed");
        done();
        assert_eq!(delivery.number(), sequence);
        client.ack(delivery.delivery_tag, false);
    }
    client.close();
    slowest
}

fn transient<'a>() -> PropertiesWriter<'a> {
    PropertiesWriter::new().delivery_mode(1)
}

/// Publishes without a pause, and reads what comes back of it, until it is told to stop; how many it was.
fn flood(address: SocketAddr, queue: &str, begun: &AtomicU64, done: &AtomicBool) -> u64 {
    let mut client = Client::connect(address);
    client.queue(queue, &[], &[]);
    client.consume_no_ack(queue, "flood");
    let (mut published, mut delivered) = (0, 0);
    while !done.load(Ordering::Relaxed) {
        // What is on its way is bounded, so that the broker's memory is.
        while !client.has_gathered() && published - delivered < FLOOD_AHEAD {
            client.publish("", queue, &transient(), &[0; 16]);
            published += 1;
        }
        client.delivery();
        delivered += 1;
        if delivered == FLOOD_AHEAD {
            begun.fetch_add(1, Ordering::Release);
        }
    }
    published
}

#[test]
fn a_client_that_floods_does_not_starve_another() {
    const FLOODS: u64 = 2;
    let data = tempfile::tempdir().expect("there is room");
    let broker = Broker::start(&data.path().join("data"));
    let address = broker.amqp;
    let (begun, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let (slowest, flooded) = thread::scope(|scope| {
        let (begun, done) = (&begun, &done);
        let flood = move |at: u64| flood(address, &format!("flooded-{at}"), begun, done);
        let floods: Vec<_> = (0..FLOODS).map(|at| scope.spawn(move || flood(at))).collect();
        let began = Instant::now();
        while begun.load(Ordering::Acquire) < FLOODS {
            assert!(began.elapsed() < support::PATIENCE, "the floods do not begin");
            thread::yield_now();
        }
        let slowest = slowest_round_trip(address, "others");
        done.store(true, Ordering::Relaxed);
        let flooded: u64 = floods.into_iter().map(|flood| flood.join().expect("it floods to the end")).sum();
        (slowest, flooded)
    });
    tell(&format!("slowest of {ROUND_TRIPS} round trips: {slowest:?}, while {flooded} messages flooded in"));
    assert!(slowest < ROUND_TRIP_MAX, "{slowest:?}");
    assert!(flooded > 50_000, "that was no flood: {flooded}");
}

#[test]
fn a_client_that_publishes_and_never_reads_is_read_on_and_freezes_nobody() {
    const PUBLISHES: u64 = 100_000;
    const BODY: [u8; 1024] = [7; 1024];
    let data = tempfile::tempdir().expect("there is room");
    let broker = Broker::start(&data.path().join("data"));
    let mut deaf = Client::connect(broker.amqp);
    deaf.queue("echo", &[], &[]);
    deaf.queue("kept", &[], &[]);
    deaf.confirm_select();
    // It is sent its own messages and their confirms, far more than its socket takes.
    deaf.consume_no_ack("echo", "deaf");
    for number in 0..PUBLISHES {
        deaf.publish("", if number % 2 == 0 { "echo" } else { "kept" }, &transient(), &BODY);
        if deaf.has_gathered() {
            deaf.flush().expect("the broker goes on reading");
        }
    }
    deaf.flush().expect("the broker goes on reading");
    let slowest = slowest_round_trip(broker.amqp, "others");
    tell(&format!("slowest of {ROUND_TRIPS} round trips beside a deaf publisher: {slowest:?}"));
    assert!(slowest < ROUND_TRIP_MAX, "{slowest:?}");

    // All that it published has arrived, and what it was to be sent is still its own.
    let mut other = Client::connect(broker.amqp);
    let began = Instant::now();
    while u64::from(other.message_count("kept")) < PUBLISHES / 2 {
        assert!(began.elapsed() < support::PATIENCE, "the broker does not go on reading");
    }
    let mut unconfirmed: BTreeSet<u64> = (1..=PUBLISHES).collect();
    let mut delivered = 0;
    while !unconfirmed.is_empty() || delivered < PUBLISHES / 2 {
        match deaf.next().expect("the connection lives") {
            Incoming::Delivery(_) => delivered += 1,
            Incoming::Confirm { delivery_tag, multiple: false, kept: true } => _ = unconfirmed.remove(&delivery_tag),
            Incoming::Confirm { delivery_tag, multiple: true, kept: true } => {
                unconfirmed = unconfirmed.split_off(&(delivery_tag + 1));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_slow_consumers_outbox_stays_bounded_and_the_queue_keeps_the_rest() {
    const MESSAGES: u64 = 1_000;
    const BODY_BYTES: usize = 64 * 1024;
    const CONSUMERS: usize = 2;
    const OUTBOX_BYTES: u64 = 256 * 1024;
    /// What the two ends of a socket may swallow, by Linux's usual settings (`tcp_rmem`, `tcp_wmem`).
    const SOCKET_BYTES: u64 = 10 * 1024 * 1024;
    let data = tempfile::tempdir().expect("there is room");
    let data = data.path().join("data");
    let mut command = serve(&data);
    command.env("PRONTOMQ_LIMITS_OUTBOX_BYTES_MAX", OUTBOX_BYTES.to_string());
    let broker = Broker::run(command, &data);
    let mut publisher = Client::connect(broker.amqp);
    publisher.queue("slow", &[], &[]);
    publisher.confirm_select();
    let mut slow = [(); CONSUMERS].map(|()| Client::connect(broker.amqp));
    for client in &mut slow {
        client.consume_no_ack("slow", "slow");
    }
    let body = vec![1; BODY_BYTES];
    for sequence in 1..=MESSAGES {
        publisher.publish("", "slow", &transient(), &body);
        publisher.wait_for_confirms(sequence, sequence);
    }
    let left = u64::from(publisher.message_count("slow"));
    let sent = MESSAGES - left;
    tell(&format!(
        "{MESSAGES} messages of {BODY_BYTES} bytes: {left} stay in the queue, {sent} were given to {CONSUMERS} deaf consumers"
    ));
    let most = (SOCKET_BYTES + 2 * OUTBOX_BYTES) * CONSUMERS as u64 / BODY_BYTES as u64;
    assert!(sent <= most, "{sent} messages were given to those who do not read, more than {most}");
    let slowest = slowest_round_trip(broker.amqp, "others");
    assert!(slowest < ROUND_TRIP_MAX, "{slowest:?}");

    // Whoever reads again gets on: everything arrives once.
    let mut taken = 0;
    while taken < MESSAGES {
        for client in &mut slow {
            while let Some(incoming) = client.next_within(Duration::from_millis(1)) {
                incoming.expect("the connection lives");
                taken += 1;
            }
        }
    }
    assert_eq!(publisher.message_count("slow"), 0);
    assert_eq!(taken, MESSAGES);
}
