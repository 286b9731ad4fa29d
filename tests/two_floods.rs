//! As many floods as the machine has cores, each with a bounded number of messages on their way, and a client that waits
//! for commits beside them. For a flood without bound see `flood`.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::internals::wire::properties::PropertiesWriter;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::client::{Flag, persistent};
use support::{Broker, Client, tell};

/// Within this time, whatever others do, a client has its answer.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);
const ROUND_TRIPS: u64 = 60;
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
fn floods_on_every_core_do_not_starve_a_client_that_publishes_and_gets() {
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
