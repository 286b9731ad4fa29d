//! Work moves on when a worker dies, stalled or killed, and only then.
//!
//! `PRONTOMQ_TEST_HEARTBEAT=4 cargo test --test heartbeat -- --nocapture` takes a heartbeat of 4 s instead of 1 s; it
//! prints how long the work took to move.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use support::broker::signal_process;
use support::client::{Flag, Incoming, Login, persistent};
use support::{Broker, Client, count_from_environment, tell};

const QUEUE: &str = "work";
const HELD: u64 = 100;
/// Address, heartbeat in seconds and prefetch: the test executable started with this variable is a worker.
const WORKER: &str = "WORKER_OF_THE_TEST";
const HOLDING: &str = "holds what it was given";
const CUT_OFF: &str = "was cut off";

/// A consumer in a process of its own: this executable once more, running the named test as a worker.
struct Worker {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a worker and waits until it holds `HELD` messages.
    fn holding(test: &str, broker: &Broker, heartbeat_seconds: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this test is a file"));
        command.args(["--exact", test, "--nocapture"]);
        command.env(WORKER, format!("{} {heartbeat_seconds} {HELD}", broker.amqp));
        let mut child = command.stdout(Stdio::piped()).spawn().expect("this test can be started again");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut worker = Self { child, stdout };
        worker.wait_for(HOLDING);
        worker
    }

    fn wait_for(&mut self, words: &str) {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            let read = self.stdout.read_line(&mut line).expect("the worker's stdout can be read");
            assert!(read > 0, "the worker ended before it said that it {words}");
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a worker's process: works until it is cut off, and returns true. In the test's own process: false.
fn worked_as_worker() -> bool {
    let Ok(order) = std::env::var(WORKER) else { return false };
    let order: Vec<&str> = order.split(' ').collect();
    let [address, heartbeat, prefetch] = order[..] else { panic!("{order:?}") };
    let address: SocketAddr = address.parse().expect("an address");
    let heartbeat_seconds = heartbeat.parse().expect("seconds");
    let prefetch = prefetch.parse().expect("a count");
    let login = Login { heartbeat_seconds, ..Login::default() };
    let mut client = Client::open(address, login).expect("the worker may connect");
    client.channel(1);
    client.qos(prefetch);
    client.consume(QUEUE, "worker");
    let heartbeat = Duration::from_secs(u64::from(heartbeat_seconds));
    let mut last_tag = 0;
    loop {
        match client.next_within(heartbeat / 4) {
            Some(Ok(Incoming::Delivery(delivery))) => {
                last_tag = delivery.delivery_tag;
                assert!(last_tag <= u64::from(prefetch), "more than the prefetch");
                if last_tag == u64::from(prefetch) {
                    tell(HOLDING);
                }
            }
            Some(Ok(Incoming::Heartbeat)) | None => {}
            Some(Ok(other)) => panic!("{other:?}"),
            Some(Err(_)) => break,
        }
        if client.last_written.elapsed() >= heartbeat / 2 {
            client.heartbeat();
            if client.flush().is_err() {
                break;
            }
        }
    }
    // Too late; nobody hears it.
    client.ack(last_tag, true);
    let _ = client.flush();
    tell(CUT_OFF);
    true
}

/// A broker with a queue of numbered messages for workers, and a standby that takes whatever they leave.
struct Scene {
    broker: Broker,
    standby: Client,
    publisher: Client,
    published: u64,
    _data: tempfile::TempDir,
}

impl Scene {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("there is room");
        let broker = Broker::start(&data.path().join("data"));
        let mut publisher = Client::connect(broker.amqp);
        publisher.queue(QUEUE, &[Flag::Durable], &[]);
        publisher.confirm_select();
        let standby = Client::connect(broker.amqp);
        Self { broker, standby, publisher, published: 0, _data: data }
    }

    fn publish(&mut self, count: u64) {
        let first = self.published + 1;
        for _ in 0..count {
            self.publisher.publish("", QUEUE, &persistent(), &self.published.to_be_bytes());
            self.published += 1;
        }
        self.publisher.wait_for_confirms(first, self.published);
    }

    /// The standby gets exactly these, in this order.
    fn standby_gets(&mut self, numbers: impl Iterator<Item = u64>, redelivered: bool) {
        for number in numbers {
            let delivery = self.standby.delivery();
            assert_eq!((delivery.number(), delivery.redelivered), (number, redelivered));
        }
    }

    /// Nothing has come to the standby before a message that is published now.
    fn standby_got_nothing_else(&mut self) {
        let marker = self.published;
        self.publish(1);
        self.standby_gets(marker..=marker, false);
    }
}

#[test]
fn a_stalled_consumers_messages_move_after_its_heartbeats_stop_and_a_live_ones_never() {
    if worked_as_worker() {
        return;
    }
    let this = "a_stalled_consumers_messages_move_after_its_heartbeats_stop_and_a_live_ones_never";
    let seconds = count_from_environment("PRONTOMQ_TEST_HEARTBEAT", 1);
    let heartbeat = Duration::from_secs(seconds as u64);
    let mut scene = Scene::start();
    scene.publish(HELD);
    let mut stalled = Worker::holding(this, &scene.broker, seconds);
    scene.publish(HELD);
    let live = Worker::holding(this, &scene.broker, seconds);
    scene.standby.consume(QUEUE, "standby");
    scene.standby_got_nothing_else();

    signal_process(&stalled.child, Signal::STOP);
    let began = Instant::now();
    scene.standby_gets(0..1, true);
    let first = began.elapsed();
    scene.standby_gets(1..HELD, true);
    let took = began.elapsed();
    tell(&format!(
        "heartbeat {seconds} s: {HELD} messages of a stopped consumer moved in {took:?}, the first in {first:?}"
    ));
    // Its last byte left it at most half an interval before it was stopped.
    assert!(first >= heartbeat * 3 / 2, "the first moved after only {first:?}");
    assert!(took <= heartbeat * 5 / 2 + Duration::from_secs(1), "they took {took:?}");
    scene.standby_got_nothing_else();

    signal_process(&stalled.child, Signal::CONT);
    stalled.wait_for(CUT_OFF);
    scene.standby_got_nothing_else();
    drop(live);
    scene.standby_gets(HELD..2 * HELD, true);
}

#[test]
fn a_killed_consumers_messages_move_within_a_second_in_order() {
    if worked_as_worker() {
        return;
    }
    let this = "a_killed_consumers_messages_move_within_a_second_in_order";
    let mut scene = Scene::start();
    scene.publish(HELD);
    let killed = Worker::holding(this, &scene.broker, 60);
    scene.publish(HELD);
    let _live = Worker::holding(this, &scene.broker, 60);
    scene.standby.consume(QUEUE, "standby");
    scene.standby_got_nothing_else();

    signal_process(&killed.child, Signal::KILL);
    let began = Instant::now();
    scene.standby_gets(0..HELD, true);
    let took = began.elapsed();
    tell(&format!("{HELD} messages of a killed consumer moved in {took:?}"));
    assert!(took <= Duration::from_secs(1), "they took {took:?}");
    scene.standby_got_nothing_else();
}
