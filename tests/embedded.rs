//! The broker inside a program: its URL works at once, and to drop it is to stop it.

#[allow(dead_code, unused_imports, reason = "each test takes from the support what it needs")]
mod support;

use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use prontomq::{Server, Settings, StartError, UserEntry};
use std::net::SocketAddr;
use std::path::Path;
use support::Client;
use support::client::{Failure, Flag, Incoming, persistent};
use tokio::runtime::{Builder, Runtime};
use tokio::task::spawn_blocking;

const MESSAGES: u64 = 20;

fn runtimes() -> [Runtime; 2] {
    let (mut alone, mut several) = (Builder::new_current_thread(), Builder::new_multi_thread());
    [alone.enable_all().build(), several.worker_threads(2).enable_all().build()]
        .map(|runtime| runtime.expect("a runtime"))
}

async fn start(data_dir: &Path) -> Server {
    Server::start(Settings::in_directory(data_dir)).await.expect("the directory is free")
}

/// A client that has put confirmed messages into the queue `kept`.
fn publisher(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.queue("kept", &[Flag::Durable], &[]);
    client.confirm_select();
    for body in 0..MESSAGES {
        client.publish("", "kept", &persistent(), &body.to_be_bytes());
    }
    client.wait_for_confirms(1, MESSAGES);
    client
}

fn assert_kept(address: SocketAddr) {
    let mut client = Client::connect(address);
    for body in 0..MESSAGES {
        assert_eq!(client.get("kept").expect("it was confirmed").number(), body);
    }
    assert_eq!(client.get("kept"), None);
    client.close();
}

/// Reads what the broker sends until it closes the socket; whether it sent connection.close.
fn was_closed(mut client: Client) -> bool {
    let mut is_close = false;
    loop {
        match client.next() {
            Ok(Incoming::Method { class_id: 10, method_id: 50, .. }) | Err(Failure::Connection(..)) => is_close = true,
            Ok(_) => {}
            Err(_) => return is_close,
        }
    }
}

#[test]
fn a_dropped_server_has_closed_its_store_and_closes_its_connections() {
    for runtime in runtimes() {
        let data = tempfile::tempdir().expect("a directory can be made");
        runtime.block_on(async {
            let server = start(data.path()).await;
            let address = server.amqp_addresses()[0];
            let client = spawn_blocking(move || publisher(address)).await.expect("it publishes");
            drop(server);
            let next = start(data.path()).await;
            assert!(spawn_blocking(move || was_closed(client)).await.expect("it ends"), "without connection.close");
            let address = next.amqp_addresses()[0];
            spawn_blocking(move || assert_kept(address)).await.expect("all is there");
            next.stop().await.expect("it stops");
        });
    }
}

#[test]
fn a_server_that_outlives_its_runtime_closes_its_store_when_it_is_dropped() {
    for (runtime, next) in runtimes().into_iter().zip(runtimes()) {
        let data = tempfile::tempdir().expect("a directory can be made");
        let server = runtime.block_on(async {
            let server = start(data.path()).await;
            let address = server.amqp_addresses()[0];
            drop(spawn_blocking(move || publisher(address)).await.expect("it publishes"));
            server
        });
        drop(runtime);
        drop(server);
        next.block_on(async {
            let server = start(data.path()).await;
            let address = server.amqp_addresses()[0];
            spawn_blocking(move || assert_kept(address)).await.expect("all is there");
        });
    }
}

#[tokio::test]
async fn a_client_connects_with_the_servers_url_and_nothing_else() {
    let mut with_user = Settings::in_memory();
    with_user.users = vec![UserEntry::new("till", "p@ss/w:rd")];
    for settings in [Settings::in_memory(), with_user] {
        let server = Server::start(settings).await.expect("it starts");
        let connection =
            Connection::connect(&server.url(), ConnectionProperties::default()).await.expect("it connects");
        let channel = connection.create_channel().await.expect("a channel");
        let queue = QueueDeclareOptions::default();
        channel.queue_declare("letters".into(), queue, FieldTable::default()).await.expect("a queue");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let options = BasicPublishOptions::default();
        let properties = BasicProperties::default();
        let confirm = channel.basic_publish("".into(), "letters".into(), options, b"Dear all", properties).await;
        assert!(confirm.expect("it is sent").await.expect("it is answered").is_ack());
        let got = channel.basic_get("letters".into(), BasicGetOptions { no_ack: true }).await.expect("an answer");
        assert_eq!(got.expect("it was sent").data, b"Dear all");
        assert_eq!(server.metrics_address(), None);
        server.stop().await.expect("it stops");
    }
}

#[tokio::test]
async fn a_server_without_an_address_is_refused() {
    let mut settings = Settings::in_memory();
    settings.amqp.clear();
    let error = Server::start(settings).await.expect_err("clients could not connect");
    assert_eq!(error.to_string(), "amqp: there is no address to listen on");
}

#[tokio::test]
async fn a_start_that_fails_leaves_the_directory_to_the_next() {
    let data = tempfile::tempdir().expect("a directory can be made");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let mut settings = Settings::in_directory(data.path());
    settings.amqp = vec![taken.local_addr().expect("it is bound")];
    let error = Server::start(settings).await.expect_err("the port is taken");
    assert!(matches!(error, StartError::Listen { setting: "amqp", .. }), "{error}");
    start(data.path()).await.stop().await.expect("it stops");
}
