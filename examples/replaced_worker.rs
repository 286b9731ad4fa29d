//! A worker is killed while it holds work, and another worker gets that work at once, in its old order.
//!
//! `cargo run --example replaced_worker`

#![expect(clippy::print_stdout, reason = "an example prints what happens")]

mod common;

use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer};
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use tokio_stream::StreamExt;

const QUEUE: &str = "example.orders";
const ORDERS: [&str; 5] = ["soup", "bread", "cheese", "salad", "coffee"];
/// How many orders Ada takes before she is killed.
const IN_HAND: usize = 3;

#[tokio::main]
async fn main() -> ExitCode {
    common::exit_code(run().await)
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let connection = common::connect().await?;
    let channel = connection.create_channel().await?;
    if std::env::args().nth(2).as_deref() == Some("--as-ada") {
        return Ok(take_orders_and_never_finish(&channel).await?);
    }

    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
    for order in ORDERS {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish("".into(), QUEUE.into(), options, order.as_bytes(), properties).await?;
    }

    // Ada is another process of this program.
    let mut ada = Command::new(std::env::current_exe()?)
        .args([common::url().as_str(), "--as-ada"])
        .stdout(Stdio::piped())
        .spawn()?;
    let words = BufReader::new(ada.stdout.take().ok_or("Ada has no voice")?).lines();
    for line in words.take(IN_HAND) {
        println!("{}", line?);
    }

    // Grace gets the orders that Ada does not hold, and no others while Ada lives.
    let mut orders = consume(&channel).await?;
    serve(&mut orders, ORDERS.len() - IN_HAND).await?;

    ada.kill()?;
    ada.wait()?;
    println!("      Ada is killed");
    serve(&mut orders, IN_HAND).await?;

    let left = channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await?;
    println!("{left} orders are left");
    Ok(common::close(&connection).await?)
}

/// Grace's part.
async fn serve(orders: &mut Consumer, count: usize) -> lapin::Result<()> {
    let mut orders = orders.take(count);
    while let Some(order) = orders.next().await {
        let order = order?;
        let again = if order.redelivered { ", which somebody had before" } else { "" };
        println!("Grace serves {}{again}", common::text(&order));
        order.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

/// Ada's part: takes orders, and acknowledges none of them.
async fn take_orders_and_never_finish(channel: &Channel) -> lapin::Result<()> {
    channel.basic_qos(IN_HAND as u16, BasicQosOptions::default()).await?;
    let mut orders = consume(channel).await?;
    let mut in_hand = Vec::new();
    while let Some(order) = orders.next().await {
        let order = order?;
        println!("  Ada takes on {}", common::text(&order));
        in_hand.push(order);
    }
    Ok(())
}

async fn consume(channel: &Channel) -> lapin::Result<Consumer> {
    channel.basic_consume(QUEUE.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default()).await
}
