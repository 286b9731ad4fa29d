//! Routing by patterns: in the bindings of a topic exchange `*` matches one word and `#` any number of words.
//!
//! `cargo run --example topics`

#![expect(clippy::print_stdout, reason = "an example prints what happens")]

mod common;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, ExchangeKind};
use std::process::ExitCode;

const EXCHANGE: &str = "example.weather";
const PATTERNS: [&str; 4] = ["europe.#", "*.*.rain", "europe.berlin.rain", "#"];
const REPORTS: [(&str, &str); 4] = [
    ("europe.berlin.rain", "2 mm"),
    ("europe.rome.sun", "31 degrees"),
    ("asia.osaka.rain", "14 mm"),
    ("europe", "mostly dry"),
];

#[tokio::main]
async fn main() -> ExitCode {
    common::exit_code(run().await)
}

async fn run() -> lapin::Result<()> {
    let connection = common::connect().await?;
    let channel = connection.create_channel().await?;

    let options = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, options, FieldTable::default()).await?;

    let mut queues = Vec::new();
    for pattern in PATTERNS {
        let queue = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default()).await?;
        let (name, bind) = (queue.name().clone(), QueueBindOptions::default());
        channel.queue_bind(name.clone(), EXCHANGE.into(), pattern.into(), bind, FieldTable::default()).await?;
        queues.push((pattern, name));
    }

    for (place, report) in REPORTS {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish(EXCHANGE.into(), place.into(), options, report.as_bytes(), properties).await?;
    }

    for (pattern, queue) in queues {
        println!("{pattern}");
        while let Some(report) = channel.basic_get(queue.clone(), BasicGetOptions { no_ack: true }).await? {
            println!("    {}: {}", report.routing_key, common::text(&report));
        }
    }
    common::close(&connection).await
}
