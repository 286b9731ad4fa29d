//! A disk that answers a running broker with I/O errors, as a client sees it: confirms come later, none is false, and what was
//! confirmed is there after a kill. `strace` makes the system's calls fail; without it nothing is tested.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::client::{Flag, persistent};
use support::{Broker, Client, tell};
use tempfile::TempDir;

/// Lets calls of one thread of a broker fail with EIO, so many.
struct Failing(Child);

impl Failing {
    /// None when this machine does not let us.
    fn attach(broker: &Broker, thread: &str, calls: &str, count: u32) -> Option<Self> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", broker.pid())).unwrap();
        let is_it = |task: &PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread);
        let task = tasks.map(|task| task.unwrap().path()).find(is_it).unwrap();
        let mut command = Command::new("strace");
        command.arg("-p").arg(task.file_name().unwrap()).args(["-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={calls}:error=EIO:when=1..{count}")]);
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let Ok(mut child) = spawned else {
            tell("not tested: there is no strace");
            return None;
        };
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        // What it tells has to be taken, or it waits for that.
        std::thread::spawn(move || said.lines().for_each(drop));
        let failing = Self(child);
        if line.contains("attached") {
            return Some(failing);
        }
        tell(&format!("not tested: {}", line.trim()));
        None
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
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

/// Publishes through a disk that fails so many times, kills the broker, and looks for everything.
fn publish_through(calls: &str, count: u32, says: &str) {
    let place = TempDir::new().unwrap();
    let data = place.path().join("data");
    let broker = Broker::start(&data);
    let mut client = Client::connect(broker.amqp);
    client.queue("q", &[Flag::Durable], &[]);
    client.confirm_select();
    publish(&mut client, 1..=100);
    client.wait_for_confirms(1, 100);
    let Some(failing) = Failing::attach(&broker, "pronto-writer", calls, count) else { return };
    let mut longest = Duration::ZERO;
    for first in (101..=300).step_by(50) {
        let began = Instant::now();
        publish(&mut client, first..=first + 49);
        client.wait_for_confirms(first, first + 49);
        longest = longest.max(began.elapsed());
    }
    assert!(broker.log().contains(says), "{}", broker.log());
    assert!(broker.http_get("/healthz").0.contains("200"), "it is well again");
    drop(failing);
    broker.kill();
    let broker = Broker::start(&data);
    let mut client = Client::connect(broker.amqp);
    client.consume_no_ack("q", "all");
    assert!((1..=300).all(|number| client.delivery().number() == number));
    tell(&format!("{calls} fails {count} times: all 300 confirmed, {longest:?} at most, all there after a kill"));
}

#[test]
fn a_flush_that_fails_delays_confirms_and_loses_nothing() {
    publish_through("fsync,fdatasync", 1, "reopening the store");
    publish_through("fsync,fdatasync", 3, "reopening the store");
}

#[test]
fn a_write_that_fails_delays_confirms_and_loses_nothing() {
    publish_through("pwrite64", 3, "disk I/O error");
}

#[test]
fn reads_that_fail_delay_deliveries_and_show_in_healthz() {
    const BACKLOG: u64 = 20_000;
    let place = TempDir::new().unwrap();
    let broker = Broker::start(&place.path().join("data"));
    let mut client = Client::connect(broker.amqp);
    client.queue("q", &[Flag::Durable], &[]);
    client.confirm_select();
    for first in (1..=BACKLOG).step_by(1_000) {
        publish(&mut client, first..=first + 999);
        client.wait_for_confirms(first, first + 999);
    }
    let Some(_failing) = Failing::attach(&broker, "pronto-reader", "pread64", 2) else { return };
    client.qos(500);
    client.consume("q", "c");
    let began = Instant::now();
    for number in 1..=BACKLOG {
        let delivery = client.delivery();
        assert_eq!((delivery.number(), delivery.redelivered), (number, false));
        client.ack(delivery.delivery_tag, false);
    }
    client.flush().unwrap();
    let failures = broker.metric("prontomq_store_read_failures_total");
    let (status, why) = broker.http_get("/healthz");
    assert!(failures >= 1.0 && status.contains("503") && why.contains("a read failed:"), "{failures} {status} {why}");
    tell(&format!(
        "pread64 fails {failures} times: all {BACKLOG} delivered once, in order, in {:?}; /healthz 503: {}",
        began.elapsed(),
        why.trim()
    ));
}
