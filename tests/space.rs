//! The store's files: the log stays short, whoever reads, and the file follows what is in it.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use support::client::{Flag, Incoming, persistent};
use support::{Broker, Client, PATIENCE, tell};

fn size(data: &Path, suffix: &str) -> u64 {
    fs::metadata(data.join(format!("prontomq.sqlite3{suffix}"))).map_or(0, |file| file.len())
}

/// Publishes and waits for all confirms.
fn fill(client: &mut Client, queue: &str, messages: usize, body: &[u8]) {
    let (mut sent, mut confirmed) = (0, 0);
    while confirmed < messages {
        while sent < messages && sent < confirmed + 5_000 {
            client.publish("", queue, &persistent(), body);
            sent += 1;
        }
        match client.next().expect("the broker lives") {
            Incoming::Confirm { delivery_tag, kept: true, .. } => confirmed = confirmed.max(delivery_tag as usize),
            other => panic!("{other:?} instead of a confirm"),
        }
    }
}

#[test]
fn a_log_that_a_foreign_reader_pins_stops_publishers_and_is_emptied_when_it_is_gone() {
    const LIMIT: u64 = 4 << 20;
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let mut command = support::broker::serve(&data);
    command.env("PRONTOMQ_STORE_WAL_BYTES_MAX", LIMIT.to_string());
    let broker = Broker::run(command, &data);
    let mut publisher = Client::connect(broker.amqp);
    publisher.queue("q", &[Flag::Durable], &[]);
    publisher.confirm_select();
    fill(&mut publisher, "q", 100, &[b'x'; 1_000]);

    let reader = rusqlite::Connection::open(data.join("prontomq.sqlite3")).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM message").unwrap();
    // Until it is told to stop: connection.blocked.
    let began = Instant::now();
    let (mut sent, mut is_blocked) = (0_u64, false);
    while !is_blocked {
        assert!(began.elapsed() < PATIENCE, "never blocked, with a log of {} bytes", size(&data, "-wal"));
        (0..50).for_each(|_| publisher.publish("", "q", &persistent(), &[b'x'; 4_000]));
        sent += 50;
        publisher.flush().unwrap();
        let mut left = 50;
        while left > 0 && !is_blocked {
            match publisher.next().expect("the broker lives") {
                Incoming::Confirm { delivery_tag, kept: true, .. } => left = (100 + sent).saturating_sub(delivery_tag),
                Incoming::Method { class_id: 10, method_id: 60, .. } => is_blocked = true,
                other => panic!("{other:?}"),
            }
        }
    }
    broker.wait_for_metric("prontomq_store_wal_pinned", |pinned| pinned == 1.0);
    let pinned = size(&data, "-wal");
    assert!(pinned > LIMIT, "{pinned}");
    assert!(broker.metric("prontomq_store_wal_bytes") > LIMIT as f64);
    let log = broker.log();
    assert!(log.contains("cannot be emptied"), "{log}");
    assert!(log.contains(&std::process::id().to_string()), "it names the reader: {log}");

    reader.execute_batch("COMMIT").unwrap();
    broker.wait_for_metric("prontomq_store_wal_pinned", |pinned| pinned == 0.0);
    let began = Instant::now();
    while size(&data, "-wal") > LIMIT {
        assert!(began.elapsed() < PATIENCE, "the log stays long");
    }
    broker.wait_for_metric("rabbitmq_alarms_free_disk_space_watermark", |alarm| alarm == 0.0);
    tell(&format!("a log of {pinned} bytes while pinned, {} after", size(&data, "-wal")));
    let mut consumer = Client::connect(broker.amqp);
    consumer.queue("other", &[Flag::Durable], &[]);
    consumer.confirm_select();
    fill(&mut consumer, "other", 10, b"publishing goes on");
    broker.kill();
}

#[test]
fn the_file_shrinks_to_nearly_nothing_after_a_drained_backlog() {
    let messages = support::count_from_environment("PRONTOMQ_SPACE_MESSAGES", 100_000);
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("data");
    let broker = Broker::start(&data);
    let mut client = Client::connect(broker.amqp);
    client.queue("q", &[Flag::Durable], &[]);
    client.confirm_select();
    fill(&mut client, "q", messages, &[b'x'; 1_024]);
    let full = size(&data, "");
    let mut consumer = Client::connect(broker.amqp);
    consumer.consume_no_ack("q", "drain");
    (0..messages).for_each(|_| _ = consumer.delivery());
    let began = Instant::now();
    while size(&data, "") + size(&data, "-wal") > 8 << 20 {
        assert!(began.elapsed() < PATIENCE, "{} and {} bytes are left", size(&data, ""), size(&data, "-wal"));
        std::thread::yield_now();
    }
    let took: Duration = began.elapsed();
    tell(&format!("{full} bytes with the backlog, {} {took:?} after it was drained", size(&data, "")));
    assert!(full > 50 << 20);
    broker.kill();
}
