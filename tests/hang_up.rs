//! What a client sent before it closed a channel, or its end of the socket, is carried out.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::internals::model::random::Random;
use prontomq::internals::wire::properties::PropertiesWriter;
use std::net::Shutdown;
use std::time::Instant;
use support::client::{Flag, Incoming, persistent};
use support::{Broker, Client, PATIENCE};

const HISTORIES: u64 = 40;
const CHANNEL_CLOSE_OK: (u16, u16) = (20, 41);
const TX_COMMIT_OK: (u16, u16) = (90, 21);

/// The fields of a queue.declare that waits for the store.
fn declare_durable(client: &mut Client, queue: &str) {
    client.write(1, (50, 10), |fields| {
        fields.extend_from_slice(&[0, 0, queue.len() as u8]);
        fields.extend_from_slice(queue.as_bytes());
        fields.extend_from_slice(&[2, 0, 0, 0, 0]);
    });
}

fn close_channel(client: &mut Client) {
    client.write(1, (20, 40), |fields| fields.extend_from_slice(&[0, 200, 0, 0, 0, 0, 0]));
}

/// The methods, by class and number, that the broker sends until it closes the socket.
fn methods_to_the_end(client: &mut Client) -> Vec<(u16, u16)> {
    let mut methods = Vec::new();
    while let Ok(incoming) = client.next() {
        if let Incoming::Method { class_id, method_id, .. } = incoming {
            methods.push((class_id, method_id));
        }
    }
    methods
}

#[test]
fn what_a_client_sent_before_it_hung_up_is_carried_out() {
    let data = tempfile::tempdir().expect("there is room");
    let broker = Broker::start(&data.path().join("data"));
    let mut watcher = Client::connect(broker.amqp);
    let mut random = Random::new(11);
    for history in 0..HISTORIES {
        let queue = format!("hung-up-{history}");
        let (is_transaction, closes) = (random.next_u64().is_multiple_of(3), random.next_u64().is_multiple_of(3));
        let count = [1, 2, 10, 500][random.next_u64() as usize % 4];
        let mut client = Client::connect(broker.amqp);
        declare_durable(&mut client, &queue);
        if is_transaction {
            client.write(1, (90, 10), |_| {});
        }
        for number in 0..count {
            let properties = if number % 2 == 0 { persistent() } else { PropertiesWriter::new() };
            client.publish("", &queue, &properties, b"work");
        }
        if is_transaction {
            client.write(1, (90, 20), |_| {});
        }
        if closes {
            close_channel(&mut client);
        }
        client.flush().expect("the broker reads");
        client.stream().shutdown(Shutdown::Write).expect("the socket is open");
        let methods = methods_to_the_end(&mut client);
        assert_eq!(methods.contains(&CHANNEL_CLOSE_OK), closes, "history {history}: {methods:?}");
        assert_eq!(methods.contains(&TX_COMMIT_OK), is_transaction, "history {history}: {methods:?}");
        let began = Instant::now();
        while watcher.message_count(&queue) != count {
            assert!(began.elapsed() < PATIENCE, "history {history}: {} of {count}", watcher.message_count(&queue));
        }
    }
}

#[test]
fn a_channel_that_is_closed_behind_a_commit_closes_once_it_is_committed() {
    let data = tempfile::tempdir().expect("there is room");
    let broker = Broker::start(&data.path().join("data"));
    for count in [1, 20] {
        let mut client = Client::connect(broker.amqp);
        client.queue("q", &[Flag::Durable], &[]);
        client.write(1, (90, 10), |_| {});
        for _ in 0..count {
            client.publish("", "q", &persistent(), b"work");
        }
        client.write(1, (90, 20), |_| {});
        close_channel(&mut client);
        client.flush().expect("the broker reads");
        let mut methods = Vec::new();
        while methods.last() != Some(&CHANNEL_CLOSE_OK) {
            match client.next().expect("the connection goes on") {
                Incoming::Method { class_id, method_id, .. } => methods.push((class_id, method_id)),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(methods, [(90, 11), TX_COMMIT_OK, CHANNEL_CLOSE_OK]);
        client.channel(1);
        assert_eq!(client.message_count("q"), count);
        client.delete_queue("q");
    }
}
