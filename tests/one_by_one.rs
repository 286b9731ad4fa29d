//! Clients that write each message on its own, many at a time: what a quick one sends is gathered in its socket. Nobody waits
//! for that, neither others nor the client itself once it stops.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::internals::wire::properties::PropertiesWriter;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::client::Flag;
use support::{Broker, Client, tell};

const HOT: usize = 64;
/// Unconfirmed publishes of a hot client: without a limit it would test how much the kernel takes in.
const IN_FLIGHT: u64 = 100;
const ROUND_TRIPS: usize = 300;
/// A round trip takes no longer, whatever others do.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);
/// An answer that waits for a gathered request comes long before anything else would wake the broker.
const BURST_END_MAX: Duration = Duration::from_millis(500);
const BODY: &[u8] = b"sixteen bytes...";

fn start() -> (tempfile::TempDir, Broker) {
    let data = tempfile::tempdir().expect("a directory can be made");
    let broker = Broker::start(&data.path().join("data"));
    (data, broker)
}

fn publish_one(client: &mut Client, queue: &str) {
    client.publish("", queue, &PropertiesWriter::new(), BODY);
    client.flush().expect("the broker reads");
}

#[test]
fn the_end_of_a_burst_is_read_soon() {
    let (_data, broker) = start();
    let mut client = Client::connect(broker.amqp);
    let limit = [("x-max-length", prontomq::internals::wire::table::Value::I32(10))];
    client.queue("burst", &[], &limit);
    let mut longest = Duration::ZERO;
    for length in (0..30).map(|round| 2_000 + round * 7) {
        for _ in 0..length {
            publish_one(&mut client, "burst");
        }
        let began = Instant::now();
        client.message_count("burst");
        longest = longest.max(began.elapsed());
    }
    tell(&format!("longest answer after a burst: {longest:?}"));
    assert!(longest < BURST_END_MAX, "{longest:?}");
}

#[test]
fn confirms_of_a_burst_arrive_without_another_message() {
    let (_data, broker) = start();
    let mut client = Client::connect(broker.amqp);
    client.queue("burst", &[Flag::Durable], &[]);
    client.confirm_select();
    let mut confirmed = 0;
    let mut longest = Duration::ZERO;
    for _ in 0..20 {
        for _ in 0..1_000 {
            publish_one(&mut client, "burst");
        }
        let began = Instant::now();
        client.wait_for_confirms(confirmed + 1, confirmed + 1_000);
        confirmed += 1_000;
        longest = longest.max(began.elapsed());
    }
    tell(&format!("longest wait for the confirms of a burst: {longest:?}"));
    assert!(longest < BURST_END_MAX * 4, "{longest:?}");
}

#[test]
fn a_slow_client_has_its_turn_beside_many_hot_ones() {
    let (_data, broker) = start();
    let mut slow = Client::connect(broker.amqp);
    slow.queue("slow", &[], &[]);
    let limit = [("x-max-length", prontomq::internals::wire::table::Value::I32(10))];
    slow.queue("hot", &[], &limit);
    let (stop, hot) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (longest, middle, ends) = thread::scope(|scope| {
        let work = || {
            let mut client = Client::connect(broker.amqp);
            client.confirm_select();
            for published in 1.. {
                publish_one(&mut client, "hot");
                if published == IN_FLIGHT {
                    hot.fetch_add(1, Ordering::Relaxed);
                }
                if published % IN_FLIGHT == 0 {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    client.wait_for_confirms(published - IN_FLIGHT + 1, published);
                }
            }
            let began = Instant::now();
            client.message_count("hot");
            began.elapsed()
        };
        let threads: Vec<_> = (0..HOT).map(|_| scope.spawn(work)).collect();
        while hot.load(Ordering::Relaxed) < HOT {
            thread::yield_now();
        }
        let mut times: Vec<_> = (0..ROUND_TRIPS)
            .map(|_| {
                let began = Instant::now();
                slow.message_count("slow");
                began.elapsed()
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        times.sort_unstable();
        let ends =
            threads.into_iter().map(|thread| thread.join().expect("no client fails")).max().expect("there are some");
        (times[ROUND_TRIPS - 1], times[ROUND_TRIPS / 2], ends)
    });
    tell(&format!(
        "round trips beside {HOT} hot clients: longest {longest:?}, middle {middle:?}; their own last: {ends:?}"
    ));
    assert!(longest < ROUND_TRIP_MAX && ends < ROUND_TRIP_MAX, "{longest:?}, {ends:?}");
}
