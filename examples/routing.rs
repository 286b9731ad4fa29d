//! Routing by exact keys: a direct exchange compares a message's routing key with the key of each binding.
//!
//! `cargo run --example routing`

#![expect(clippy::print_stdout, reason = "an example prints what happens")]

mod common;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, ExchangeKind};
use std::process::ExitCode;

const EXCHANGE: &str = "example.log";
const LINES: [(&str, &str); 4] =
    [("info", "started"), ("warning", "disk is nearly full"), ("error", "disk is full"), ("info", "cleaned up")];

#[tokio::main]
async fn main() -> ExitCode {
    common::exit_code(run().await)
}

async fn run() -> lapin::Result<()> {
    let connection = common::connect().await?;
    let channel = connection.create_channel().await?;

    let options = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Direct, options, FieldTable::default()).await?;

    // A queue may be bound with several keys. A message that matches several queues goes to each of them.
    let pager = queue_for(&channel, &["error"]).await?;
    let archive = queue_for(&channel, &["info", "warning", "error"]).await?;

    for (severity, line) in LINES {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish(EXCHANGE.into(), severity.into(), options, line.as_bytes(), properties).await?;
    }
    print_all("pager  ", &channel, pager).await?;
    print_all("archive", &channel, archive).await?;

    common::close(&connection).await
}

async fn queue_for(channel: &Channel, severities: &[&str]) -> lapin::Result<ShortString> {
    let queue = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default()).await?;
    let name = queue.name().clone();
    for severity in severities {
        let (key, bind) = ((*severity).into(), QueueBindOptions::default());
        channel.queue_bind(name.clone(), EXCHANGE.into(), key, bind, FieldTable::default()).await?;
    }
    Ok(name)
}

async fn print_all(reader: &str, channel: &Channel, queue: ShortString) -> lapin::Result<()> {
    while let Some(line) = channel.basic_get(queue.clone(), BasicGetOptions { no_ack: true }).await? {
        println!("{reader}  {}: {}", line.routing_key, common::text(&line));
    }
    Ok(())
}
