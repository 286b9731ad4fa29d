//! Priorities at length: strictly by priority, first in first out within each.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::internals::wire::properties::PropertiesWriter;
use prontomq::internals::wire::table::Value;
use std::time::Instant;
use support::client::Flag;
use support::{Broker, Client, tell};

const MESSAGES: u64 = 100_000;
const PRIORITIES: u64 = 10;
/// Publishes between two looks at the confirms, so that neither side's buffers run full.
const PUBLISHES_AHEAD: u64 = 5_000;
const ACK_EVERY: u64 = 500;

fn published_then_drained(queue: &str, flags: &[Flag], delivery_mode: u8) {
    let data = tempfile::tempdir().expect("there is room");
    let broker = Broker::start(&data.path().join("data"));
    let mut client = Client::connect(broker.amqp);
    client.queue(queue, flags, &[("x-max-priority", Value::I32(PRIORITIES as i32))]);
    client.confirm_select();

    let began = Instant::now();
    // A step that is coprime to the number of priorities visits them all in a mixed order.
    let priority_of = |number: u64| (number * 7 + number / PRIORITIES) % PRIORITIES;
    for number in 0..MESSAGES {
        let priority = u8::try_from(priority_of(number)).expect("it is small");
        let properties = PropertiesWriter::new().delivery_mode(delivery_mode).priority(priority);
        client.publish("", queue, &properties, &number.to_be_bytes());
        if client.has_gathered() {
            client.flush().expect("the broker reads");
        }
        if (number + 1) % PUBLISHES_AHEAD == 0 {
            client.wait_for_confirms(number + 2 - PUBLISHES_AHEAD, number + 1);
        }
    }
    let published = began.elapsed();
    assert_eq!(u64::from(client.message_count(queue)), MESSAGES);

    let began = Instant::now();
    client.qos(1000);
    client.consume(queue, "drain");
    let expected =
        (0..PRIORITIES).rev().flat_map(|priority| (0..MESSAGES).filter(move |n| priority_of(*n) == priority));
    for (count, number) in (1..).zip(expected) {
        let delivery = client.delivery();
        assert_eq!(delivery.number(), number, "delivery {count}");
        assert_eq!(delivery.properties().priority().map(u64::from), Some(priority_of(number)));
        assert!(!delivery.redelivered);
        if count % ACK_EVERY == 0 {
            client.ack(delivery.delivery_tag, true);
        }
    }
    tell(&format!("{queue}: {MESSAGES} messages published in {published:?}, drained in {:?}", began.elapsed()));
    client.close();
}

#[test]
fn stored_messages_are_drained_strictly_by_priority_and_in_order_within() {
    published_then_drained("stored", &[Flag::Durable], 2);
}

#[test]
fn transient_messages_are_drained_strictly_by_priority_and_in_order_within() {
    published_then_drained("transient", &[], 1);
}
