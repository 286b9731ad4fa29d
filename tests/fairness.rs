//! A client that does not read is nobody else's trouble, and not the broker's memory's either. For floods see `flood`.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::internals::wire::properties::PropertiesWriter;
use std::time::{Duration, Instant};
use support::client::{Flag, Incoming, persistent};
use support::{Broker, Client, tell};

const LARGE_BYTES: usize = 16 * 1024;
const LARGE_MESSAGES: u64 = 3000;
/// A round trip takes no longer, whatever others do.
const ROUND_TRIP_MAX: Duration = Duration::from_secs(1);
/// What may be on its way to a consumer that does not read: both sockets' buffers, its window and its outbox. The
/// kernel takes up to 6 MiB in each direction.
const ON_ITS_WAY_BYTES: u64 = 16 << 20;

fn start() -> (tempfile::TempDir, Broker) {
    let data = tempfile::tempdir().expect("a directory can be made");
    let broker = Broker::start(&data.path().join("data"));
    (data, broker)
}

fn body(number: u64, bytes: usize) -> Vec<u8> {
    let mut body = number.to_be_bytes().to_vec();
    body.resize(bytes, b'.');
    body
}

#[test]
fn a_client_that_publishes_and_does_not_read_freezes_neither_others_nor_itself() {
    let (_data, broker) = start();
    let mut deaf = Client::connect(broker.amqp);
    deaf.queue("echo", &[], &[]);
    deaf.confirm_select();
    deaf.consume_no_ack("echo", "echo");
    let mut other = Client::connect(broker.amqp);
    other.queue("other", &[], &[]);

    let mut longest = Duration::ZERO;
    for number in 0..LARGE_MESSAGES {
        // 48 MiB of deliveries and confirms wait to be read; the publishes are taken all the same.
        deaf.publish("", "echo", &PropertiesWriter::new(), &body(number, LARGE_BYTES));
        deaf.flush().expect("the broker goes on reading");
        if number % 10 == 0 {
            let began = Instant::now();
            other.message_count("other");
            longest = longest.max(began.elapsed());
        }
    }
    tell(&format!("longest round trip beside a client that does not read: {longest:?}"));
    assert!(longest < ROUND_TRIP_MAX, "{longest:?}");

    let (mut delivered, mut confirmed) = (0, 0);
    while delivered < LARGE_MESSAGES || confirmed < LARGE_MESSAGES {
        match deaf.next().unwrap() {
            Incoming::Delivery(delivery) => {
                assert_eq!(delivery.number(), delivered, "all of it is there, in order");
                delivered += 1;
            }
            Incoming::Confirm { delivery_tag, kept: true, .. } => confirmed = confirmed.max(delivery_tag),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_waits_for_a_consumer_that_does_not_read_is_bounded() {
    for (queue, flags, properties) in
        [("transient", &[][..], PropertiesWriter::new()), ("durable", &[Flag::Durable][..], persistent())]
    {
        let (_data, broker) = start();
        let mut publisher = Client::connect(broker.amqp);
        publisher.queue(queue, flags, &[]);
        publisher.confirm_select();
        let mut slow = Client::connect(broker.amqp);
        slow.consume_no_ack(queue, "slow");
        let before = broker.metric("rabbitmq_process_resident_memory_bytes");
        for number in 0..LARGE_MESSAGES {
            publisher.publish("", queue, &properties, &body(number, LARGE_BYTES));
            if number % 100 == 99 {
                publisher.wait_for_confirms(number - 98, number + 1);
            }
        }
        let ready = u64::from(publisher.message_count(queue));
        let on_its_way = (LARGE_MESSAGES - ready) * LARGE_BYTES as u64;
        let grown = broker.metric("rabbitmq_process_resident_memory_bytes") - before;
        tell(&format!(
            "{queue}: {} MiB published, {} KiB on their way to a consumer that does not read, memory grew by {:.0} MiB",
            (LARGE_MESSAGES * LARGE_BYTES as u64) >> 20,
            on_its_way >> 10,
            grown / f64::from(1 << 20)
        ));
        assert!(on_its_way < ON_ITS_WAY_BYTES, "{queue}: {on_its_way} bytes");
        for number in 0..LARGE_MESSAGES {
            assert_eq!(slow.delivery().number(), number, "{queue}: it gets all once it reads");
        }
    }
}

#[test]
fn a_consumer_that_does_not_read_keeps_nothing_from_the_one_beside_it() {
    let (_data, broker) = start();
    let mut publisher = Client::connect(broker.amqp);
    publisher.queue("shared", &[], &[]);
    publisher.confirm_select();
    let mut slow = Client::connect(broker.amqp);
    slow.qos(10);
    slow.consume("shared", "slow");
    let mut quick = Client::connect(broker.amqp);
    quick.consume("shared", "quick");
    for number in 0..LARGE_MESSAGES {
        publisher.publish("", "shared", &PropertiesWriter::new(), &body(number, 64));
    }
    publisher.wait_for_confirms(1, LARGE_MESSAGES);
    let mut last = None;
    for _ in 0..LARGE_MESSAGES - 10 {
        let delivery = quick.delivery();
        assert!(last < Some(delivery.number()), "in order");
        last = Some(delivery.number());
        quick.ack(delivery.delivery_tag, false);
    }
    assert_eq!(publisher.message_count("shared"), 0, "the slow one holds its ten, the quick one had the rest");
}
