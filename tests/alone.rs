//! One publisher that waits for each confirm has its messages written by its own connection's thread, as long as it is alone.

#[allow(dead_code, unused_imports, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::Server;
use prontomq::Settings;
use std::net::SocketAddr;
use std::thread;
use std::time::Instant;
use support::client::{Flag, persistent};
use support::{Client, PATIENCE};
use tokio::runtime::{Builder, Runtime};

/// More than any one run of commits that are made in that way.
const COMMITS_HERE: u64 = 100;
const MESSAGES_IN_COMPANY: u64 = 300;

struct Embedded {
    _data: tempfile::TempDir,
    runtime: Runtime,
    server: Server,
    address: SocketAddr,
}

impl Embedded {
    fn start() -> Self {
        let data = tempfile::tempdir().expect("a directory can be made");
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let mut settings = Settings::default();
        settings.amqp = vec![([127, 0, 0, 1], 0).into()];
        settings.metrics.address = None;
        settings.data_dir = data.path().join("data");
        let server = runtime.block_on(Server::start(settings)).expect("it starts");
        let address = server.amqp_addresses()[0];
        Self { _data: data, runtime, server, address }
    }

    fn commits_here(&self) -> u64 {
        self.server.broker().writer().stats().batches_inline
    }
}

/// Publishes persistent messages, each when the one before is confirmed, while `goes_on`; how many.
fn publish_one_by_one(address: SocketAddr, queue: &str, mut goes_on: impl FnMut(u64) -> bool) -> u64 {
    let mut client = Client::connect(address);
    client.queue(queue, &[Flag::Durable], &[]);
    client.confirm_select();
    let mut published = 0;
    while goes_on(published) {
        published += 1;
        client.publish("", queue, &persistent(), &[b'.'; 1024]);
        client.wait_for_confirms(published, published);
    }
    assert_eq!(u64::from(client.message_count(queue)), published);
    client.close();
    published
}

#[test]
fn a_lone_publisher_is_served_by_its_own_thread_and_nothing_is_lost_when_others_come() {
    let embedded = Embedded::start();
    let (address, began) = (embedded.address, Instant::now());
    let alone = publish_one_by_one(address, "alone", |_| {
        assert!(began.elapsed() < PATIENCE, "{} commits were made by connections' threads", embedded.commits_here());
        embedded.commits_here() < COMMITS_HERE
    });
    thread::scope(|scope| {
        for queue in ["one", "two", "three"] {
            scope.spawn(move || publish_one_by_one(address, queue, |count| count < MESSAGES_IN_COMPANY));
        }
        // Consumed by another connection, which acknowledges while the next one is written.
        scope.spawn(move || {
            let mut consumer = Client::connect(address);
            consumer.consume("alone", "consumer");
            for _ in 0..alone {
                let delivery = consumer.delivery();
                consumer.ack(delivery.delivery_tag, false);
            }
            assert_eq!(consumer.message_count("alone"), 0);
            consumer.close();
        });
    });
    let stats = embedded.server.broker().writer().stats();
    assert!(stats.batches > stats.batches_inline, "{stats:?}");
    assert_eq!(stats.retries, 0);
    embedded.runtime.block_on(embedded.server.stop()).expect("it stops in good order");
}
