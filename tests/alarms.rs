//! A resource runs short: publishers wait, consumers go on, and nothing is lost.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::wire::properties::PropertiesWriter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;
use support::client::{Flag, Incoming, persistent};
use support::{Broker, Client, PATIENCE};

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
        thread::sleep(std::time::Duration::from_millis(20));
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
