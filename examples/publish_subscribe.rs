//! News for everybody: a fanout exchange gives each subscriber a copy.
//!
//! `cargo run --example publish_subscribe`

#![expect(clippy::print_stdout, reason = "an example prints what happens")]

mod common;

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer, ExchangeKind};
use std::process::ExitCode;
use tokio_stream::StreamExt;

const EXCHANGE: &str = "example.news";
const NEWS: [&str; 3] = ["It has stopped raining", "The bakery is open", "The ferry is late"];

#[tokio::main]
async fn main() -> ExitCode {
    common::exit_code(run().await)
}

async fn run() -> lapin::Result<()> {
    let connection = common::connect().await?;
    let channel = connection.create_channel().await?;

    // The broker deletes the exchange when the last queue that is bound to it is gone.
    let options = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Fanout, options, FieldTable::default()).await?;

    let kitchen = subscribe(&channel).await?;
    let office = subscribe(&channel).await?;

    for text in NEWS {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish(EXCHANGE.into(), "".into(), options, text.as_bytes(), properties).await?;
        println!("published  {text}");
    }
    read("kitchen", kitchen).await?;
    read("office ", office).await?;

    common::close(&connection).await
}

/// Each subscriber has its own queue, which the broker deletes when the connection ends.
async fn subscribe(channel: &Channel) -> lapin::Result<Consumer> {
    let queue = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default()).await?;
    let (name, bind) = (queue.name(), QueueBindOptions::default());
    channel.queue_bind(name.clone(), EXCHANGE.into(), "".into(), bind, FieldTable::default()).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    channel.basic_consume(name.clone(), "".into(), options, FieldTable::default()).await
}

async fn read(reader: &str, news: Consumer) -> lapin::Result<()> {
    let mut news = news.take(NEWS.len());
    while let Some(message) = news.next().await {
        println!("{reader}    {}", common::text(&message?));
    }
    Ok(())
}
