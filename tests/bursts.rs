//! A consumer that waits is there for a whole burst: RabbitMQ counts one as blocked by its prefetch, its channel's limit, or
//! 200 deliveries that are not written.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::internals::model::random::Random;
use prontomq::internals::wire::properties::PropertiesWriter;
use prontomq::internals::wire::table::Value;
use support::client::{Incoming, persistent};
use support::{Broker, Client};

/// Beyond it RabbitMQ may count a waiting consumer as blocked.
const BURST_MAX: u64 = 200;
const ROUNDS: u64 = 12;

/// What the broker has delivered to a client, up to the answer to a method that it sends now: it lies in front of the confirms.
fn delivered(client: &mut Client) -> u64 {
    client.message_count("other");
    let mut count = 0;
    while let Some(incoming) = client.next_within(std::time::Duration::from_millis(10)) {
        count += u64::from(matches!(incoming, Ok(Incoming::Delivery(_))));
    }
    count
}

/// So many messages in one segment, from a publisher of its own, which must get a confirm for each.
fn burst(broker: &Broker, queue: &str, count: u64, properties: &PropertiesWriter) {
    let mut publisher = Client::connect(broker.amqp);
    publisher.confirm_select();
    for _ in 0..count {
        publisher.publish("", queue, properties, b"x");
    }
    publisher.wait_for_confirms(1, count);
    publisher.close();
}

#[test]
fn limits_of_length_and_time_do_not_touch_what_a_waiting_consumer_is_there_for() {
    let data = tempfile::tempdir().expect("there is room");
    let broker = Broker::start(&data.path().join("data"));
    let mut random = Random::new(7);
    let reject = [("x-max-length", Value::I32(10)), ("x-overflow", Value::LongString(b"reject-publish"))];
    let kinds: [&[(&str, Value<'_>)]; 4] = [
        &[("x-message-ttl", Value::I32(0))],
        &[("x-max-length", Value::I32(0))],
        &[("x-max-length", Value::I32(10))],
        &reject,
    ];
    for round in 0..ROUNDS {
        let mut client = Client::connect(broker.amqp);
        client.queue("other", &[], &[]);
        let queue = format!("limited-{round}");
        client.queue(&queue, &[], kinds[round as usize % kinds.len()]);
        let no_ack = random.next_u64().is_multiple_of(2);
        if no_ack {
            client.consume_no_ack(&queue, "c");
        } else {
            client.consume(&queue, "c");
        }
        let count = 65 + random.next_u64() % (BURST_MAX - 64);
        let properties = if random.next_u64().is_multiple_of(2) { persistent() } else { PropertiesWriter::new() };
        burst(&broker, &queue, count, &properties);
        assert_eq!(delivered(&mut client), count, "round {round}");
        client.close();
    }
}

#[test]
fn the_consumer_of_the_highest_priority_takes_a_whole_burst() {
    let data = tempfile::tempdir().expect("there is room");
    let broker = Broker::start(&data.path().join("data"));
    let mut random = Random::new(8);
    for round in 0..ROUNDS {
        let (mut high, mut low) = (Client::connect(broker.amqp), Client::connect(broker.amqp));
        let queue = format!("prioritised-{round}");
        high.queue("other", &[], &[]);
        high.queue(&queue, &[], &[]);
        low.consume_with_priority(&queue, "low", 0);
        high.consume_with_priority(&queue, "high", 10);
        let count = 65 + random.next_u64() % (BURST_MAX - 64);
        burst(&broker, &queue, count, &PropertiesWriter::new());
        assert_eq!((delivered(&mut high), delivered(&mut low)), (count, 0), "round {round}");
        high.close();
        low.close();
    }
}
