//! A flood without any bound on one connection, and what it does to the answers that another one waits for.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::internals::wire::properties::PropertiesWriter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::{Broker, Client, tell};

const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);
const ROUND_TRIPS: usize = 1000;
/// So many messages were published before the round trips begin.
const UNDER_WAY: u64 = 100_000;

/// The longest and the middle one of many round trips through a queue.
fn round_trips(client: &mut Client, queue: &str) -> (Duration, Duration) {
    let mut times: Vec<_> = (0..ROUND_TRIPS)
        .map(|_| {
            let began = Instant::now();
            client.message_count(queue);
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    (times[ROUND_TRIPS - 1], times[ROUND_TRIPS / 2])
}

#[test]
fn connections_that_never_have_to_wait_let_others_have_their_turn() {
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(&data.path().join("data"));
    let mut calm = Client::connect(broker.amqp);
    calm.queue("calm", &[], &[]);
    calm.queue("flood", &[], &[]);
    let (stop, flooded) = (AtomicBool::new(false), AtomicU64::new(0));
    let (longest, middle, longest_through, middle_through) = thread::scope(|scope| {
        // One connection whose socket is always readable, and one whose inlet is never empty.
        scope.spawn(|| {
            let mut client = Client::connect(broker.amqp);
            while !stop.load(Ordering::Relaxed) {
                while !client.has_gathered() {
                    client.publish("", "flood", &PropertiesWriter::new(), b"sixteen bytes...");
                    flooded.fetch_add(1, Ordering::Relaxed);
                }
                client.flush().expect("the broker reads");
            }
        });
        scope.spawn(|| {
            let mut client = Client::connect(broker.amqp);
            client.consume_no_ack("flood", "drain");
            while !stop.load(Ordering::Relaxed) {
                client.next_within(Duration::from_millis(100));
            }
        });
        while flooded.load(Ordering::Relaxed) < UNDER_WAY {
            thread::yield_now();
        }
        let (longest, middle) = round_trips(&mut calm, "calm");
        let (longest_through, middle_through) = round_trips(&mut calm, "flood");
        stop.store(true, Ordering::Relaxed);
        (longest, middle, longest_through, middle_through)
    });
    tell(&format!(
        "{} messages flooded; round trips beside it: longest {longest:?}, middle {middle:?}; through the flooded queue: \
         longest {longest_through:?}, middle {middle_through:?}",
        flooded.load(Ordering::Relaxed)
    ));
    assert!(longest < ROUND_TRIP_MAX, "{longest:?}");
    assert!(longest_through < ROUND_TRIP_MAX, "{longest_through:?}");
}
