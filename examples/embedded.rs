//! The broker inside a program: first in memory, for tests, then with a data directory that keeps its messages.
//!
//! `cargo run --example embedded`

#![expect(clippy::print_stdout, reason = "an example prints what happens")]

mod common;

use lapin::options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use prontomq::{Server, Settings};
use std::error::Error;
use std::process::ExitCode;

const QUEUE: &str = "letters";
const PERSISTENT: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    common::exit_code(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    in_memory().await?;
    in_a_file().await
}

async fn in_memory() -> Result<(), Box<dyn Error>> {
    let server = Server::start(Settings::in_memory()).await?;
    send(&server, "a letter").await?;
    println!("in memory: received {:?}", receive(&server).await?);
    Ok(server.stop().await?)
}

async fn in_a_file() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let settings = Settings::in_directory(folder.path());

    let server = Server::start(settings.clone()).await?;
    send(&server, "a letter to be kept").await?;
    server.stop().await?;
    println!("in a file: stored, and the broker has stopped");

    let server = Server::start(settings).await?;
    println!("in a file: received {:?} from the next one", receive(&server).await?);
    Ok(server.stop().await?)
}

async fn connect(server: &Server) -> lapin::Result<Connection> {
    Connection::connect(&server.url(), ConnectionProperties::default()).await
}

async fn send(server: &Server, letter: &str) -> lapin::Result<()> {
    let connection = connect(server).await?;
    let channel = connection.create_channel().await?;
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let (options, properties) =
        (BasicPublishOptions::default(), BasicProperties::default().with_delivery_mode(PERSISTENT));
    let confirm = channel.basic_publish("".into(), QUEUE.into(), options, letter.as_bytes(), properties).await?;
    assert!(confirm.await?.is_ack(), "the broker has the letter");
    common::close(&connection).await
}

async fn receive(server: &Server) -> lapin::Result<Option<String>> {
    let connection = connect(server).await?;
    let channel = connection.create_channel().await?;
    let letter = channel.basic_get(QUEUE.into(), BasicGetOptions { no_ack: true }).await?;
    common::close(&connection).await?;
    Ok(letter.map(|letter| common::text(&letter)))
}
