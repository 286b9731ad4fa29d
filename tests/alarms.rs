//! A resource runs short: publishers wait, consumers go on, and nothing is lost.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::internals::wire::properties::PropertiesWriter;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use support::client::{Flag, Incoming, persistent};
use support::{Broker, Client, PATIENCE, tell};

const MEMORY_MIB: u64 = 16;
const BODY: [u8; 1000] = [b'x'; 1000];
/// Well beyond the limit and the buffers of two sockets.
const MESSAGES: u64 = 60_000;

#[test]
fn a_flood_is_held_back_at_the_memory_limit_until_its_queue_is_drained() {
    let data = tempfile::tempdir().unwrap();
    let mut command = support::broker::serve(&data.path().join("data"));
    command.env("PRONTOMQ_LIMITS_MEMORY_BYTES", format!("{MEMORY_MIB} MiB"));
    // None of it goes to the scratch store.
    command.env("PRONTOMQ_LIMITS_TRANSIENT_BYTES", "1 GiB");
    let broker = Broker::run(command, &data.path().join("data"));
    let mut calm = Client::connect(broker.amqp);
    calm.queue("flood", &[], &[]);
    let sent = AtomicU64::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::connect(broker.amqp);
            for _ in 0..MESSAGES {
                client.publish("", "flood", &PropertiesWriter::new(), &BODY);
                if client.has_gathered() {
                    client.flush().expect("a blocked publisher waits, it does not fail");
                }
                sent.fetch_add(1, Ordering::Relaxed);
            }
            client.flush().expect("a blocked publisher waits, it does not fail");
            client.message_count("flood");
        });
        broker.wait_for_metric("rabbitmq_alarms_memory_used_watermark", |alarm| alarm > 0.0);
        let held = broker.metric("rabbitmq_queue_messages_ready_bytes");
        assert!(held < 4.0 * (MEMORY_MIB << 20) as f64, "{held} bytes are held");
        assert!(sent.load(Ordering::Relaxed) < MESSAGES, "the publisher waits");

        let mut consumer = Client::connect(broker.amqp);
        consumer.consume_no_ack("flood", "drain");
        let (mut taken, began) = (0, Instant::now());
        while taken < MESSAGES {
            consumer.delivery();
            taken += 1;
            assert!(began.elapsed() < PATIENCE, "{taken} of {MESSAGES} have come");
        }
    });
    broker.wait_for_metric("rabbitmq_alarms_memory_used_watermark", |alarm| alarm == 0.0);
    let (status, _) = broker.terminate();
    assert!(status.success());
}

#[test]
fn transient_messages_beyond_their_budget_wait_in_the_scratch_store() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("data");
    let mut command = support::broker::serve(&path);
    command.env("PRONTOMQ_LIMITS_TRANSIENT_BYTES", "2 MiB");
    let broker = Broker::run(command, &path);
    let mut client = Client::connect(broker.amqp);
    client.queue("flood", &[], &[]);
    client.queue("mixed", &[Flag::Durable], &[]);
    for number in 0..MESSAGES {
        let mut body = BODY;
        body[..8].copy_from_slice(&number.to_be_bytes());
        client.publish("", "flood", &PropertiesWriter::new(), &body);
        if number % 4 == 0 {
            let properties = if number % 3 == 0 { persistent() } else { PropertiesWriter::new() };
            client.publish("", "mixed", &properties, &body);
        }
    }
    assert_eq!(u64::from(client.message_count("flood")), MESSAGES);
    let scratch = path.join("scratch");
    let files = || std::fs::read_dir(&scratch).into_iter().flatten().flatten();
    let bytes = || files().map(|file| file.metadata().map_or(0, |file| file.len())).sum::<u64>();
    let began = Instant::now();
    while bytes() < 40_000_000 {
        assert!(began.elapsed() < PATIENCE, "60 MB of messages go to the scratch store");
        thread::sleep(Duration::from_millis(20));
    }
    let mut consumer = Client::connect(broker.amqp);
    for (queue, step) in [("mixed", 4), ("flood", 1)] {
        consumer.consume_no_ack(queue, queue);
        for number in (0..MESSAGES).step_by(step) {
            assert_eq!(consumer.delivery().number(), number, "in order, whatever store they waited in");
        }
    }
    broker.kill();
    let broker = Broker::start(&path);
    assert!(!scratch.exists(), "nothing of it outlives the process");
    broker.kill();
}

/// What queues hold while a client publishes transient messages as fast as it can and nobody takes any: (bytes at most, settings).
#[test]
fn a_flood_of_transient_messages_waits_for_the_scratch_store() {
    for (size, budget_mib) in [(16, 8), (1000, 4), (20_000, 8)] {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join("data");
        let mut command = support::broker::serve(&path);
        command.env("PRONTOMQ_LIMITS_TRANSIENT_BYTES", format!("{budget_mib} MiB"));
        command.env("PRONTOMQ_STORE_UNWRITTEN_BYTES_MAX", "1 MiB");
        let broker = Broker::run(command, &path);
        let mut client = Client::connect(broker.amqp);
        client.queue("flood", &[], &[]);
        let (bytes, body) = (150_u64 << 20, vec![b'x'; size]);
        let count = bytes / (size as u64 + 250);
        let is_sent = AtomicBool::new(false);
        let most = thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..count {
                    client.publish("", "flood", &PropertiesWriter::new(), &body);
                    if client.has_gathered() {
                        client.flush().expect("a publisher that waits does not fail");
                    }
                }
                assert_eq!(u64::from(client.message_count("flood")), count);
                is_sent.store(true, Ordering::Relaxed);
            });
            let mut most = 0;
            while !is_sent.load(Ordering::Relaxed) {
                most = most.max(broker.labelled("prontomq_memory_bytes", "queues"));
                thread::sleep(Duration::from_millis(5));
            }
            most
        });
        tell(&format!("bodies of {size} bytes, {budget_mib} MiB for transient messages: {} MiB at most", most >> 20));
        // One batch is on its way to the scratch store, one read of the publisher has come, and the table of entries has gaps.
        let limit = (budget_mib + 1 + 12) << 20;
        assert!(most < limit, "bodies of {size}: {most} bytes were held, {limit} may be");
        let mut consumer = Client::connect(broker.amqp);
        consumer.consume_no_ack("flood", "drain");
        (0..count).for_each(|_| drop(consumer.delivery()));
        broker.kill();
    }
}

#[test]
fn queues_that_nobody_uses_hand_their_transient_messages_over_too() {
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("data");
    let mut command = support::broker::serve(&path);
    command.env("PRONTOMQ_LIMITS_TRANSIENT_BYTES", "16 MiB");
    let broker = Broker::run(command, &path);
    let mut client = Client::connect(broker.amqp);
    for queue in ["idle", "held"] {
        client.queue(queue, &[], &[]);
    }
    for _ in 0..10_000 {
        client.publish("", "idle", &PropertiesWriter::new(), &BODY);
    }
    assert_eq!(client.message_count("idle"), 10_000);
    let held = || broker.labelled("prontomq_memory_bytes", "queues");
    let idle = held();
    assert!(idle > 10_000_000, "they are within the budget: {idle} bytes");
    // These stay in memory: a consumer has them.
    let mut consumer = Client::connect(broker.amqp);
    consumer.consume("held", "holds");
    for _ in 0..20_000 {
        client.publish("", "held", &PropertiesWriter::new(), &BODY);
    }
    client.flush().expect("the broker takes it");
    (0..20_000).for_each(|_| drop(consumer.delivery()));
    let began = Instant::now();
    while held() > 20_000 * 1400 {
        assert!(began.elapsed() < PATIENCE, "{} bytes are held", held());
        thread::sleep(Duration::from_millis(20));
    }
    // Publishers go on: what is left is in a consumer's hands.
    client.publish("", "held", &PropertiesWriter::new(), &BODY);
    client.flush().expect("the broker takes it");
    consumer.delivery();
    let mut drains = Client::connect(broker.amqp);
    drains.consume_no_ack("idle", "drain");
    (0..10_000).for_each(|_| drop(drains.delivery()));
}

#[test]
fn publishers_wait_while_the_disk_is_low() {
    let data = tempfile::tempdir().unwrap();
    let mut command = support::broker::serve(&data.path().join("data"));
    command.env("PRONTOMQ_LIMITS_DISK_FREE_BYTES", "1000 GiB");
    let broker = Broker::run(command, &data.path().join("data"));
    broker.wait_for_metric("rabbitmq_alarms_free_disk_space_watermark", |alarm| alarm > 0.0);
    let mut publisher = Client::connect(broker.amqp);
    publisher.queue("q", &[], &[]);
    publisher.publish("", "q", &PropertiesWriter::new(), b"one");
    publisher.flush().expect("the socket takes it");
    let mut calm = Client::connect(broker.amqp);
    let began = Instant::now();
    while calm.message_count("q") == 0 {
        assert!(began.elapsed() < PATIENCE, "what was published before the block arrives");
    }
    publisher.publish("", "q", &PropertiesWriter::new(), b"two");
    publisher.flush().expect("the socket takes it");
    let told = publisher.next().expect("the connection lives");
    assert!(matches!(told, Incoming::Method { channel: 0, class_id: 10, method_id: 60, .. }), "connection.blocked");
    assert_eq!(calm.message_count("q"), 1, "the second one waits in the socket");
    broker.kill();
}
