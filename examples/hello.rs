//! The smallest example: a message goes into a queue and comes out again.
//!
//! `cargo run --example hello`

#![expect(clippy::print_stdout, reason = "an example prints what happens")]

mod common;

use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    common::exit_code(run().await)
}

async fn run() -> lapin::Result<()> {
    let connection = common::connect().await?;
    let channel = connection.create_channel().await?;

    // A queue keeps messages until a consumer takes them. The broker names this queue, and deletes it when the
    // connection ends.
    let queue = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default()).await?;
    let name = queue.name();

    // The exchange without a name routes a message to the queue that its routing key names.
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    channel.basic_publish("".into(), name.clone(), options, b"Hello, world!", properties).await?;
    println!("sent      Hello, world!");

    // With `no_ack` the broker removes the message from the queue as soon as it sends it.
    let message = channel.basic_get(name.clone(), BasicGetOptions { no_ack: true }).await?;
    println!("received  {}", common::text(&message.expect("the queue has one message")));

    common::close(&connection).await
}
