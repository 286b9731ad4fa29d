//! A queue of jobs that two workers share: the most urgent job is always next, and each worker has one at a time.
//!
//! `cargo run --example work_queue`

#![expect(clippy::print_stdout, reason = "an example tells what happens")]

mod common;

use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection};
use std::time::Duration;
use tokio::time::sleep;
use tokio_stream::StreamExt;

const QUEUE: &str = "example.jobs";
const PERSISTENT: u8 = 2;
const JOBS: [(u8, &str); 8] = [
    (0, "sweep the floor"),
    (3, "answer the letters"),
    (9, "put out the fire"),
    (3, "feed the cat"),
    (5, "mend the roof"),
    (9, "save the cat"),
    (1, "water the plants"),
    (5, "bake the bread"),
];

#[tokio::main]
async fn main() -> lapin::Result<()> {
    let connection = common::connect().await?;
    publish_all(&connection.create_channel().await?).await?;

    let (first, second) = tokio::join!(work("Ada", &connection), work("Bob", &connection));
    let (first, second) = (first?, second?);
    println!("Ada did {first} jobs, Bob did {second}");

    let channel = connection.create_channel().await?;
    channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await?;
    connection.close(200, "bye".into()).await
}

/// Jobs that outlive the broker: the queue is durable, the messages persistent, and each is confirmed once it is stored.
async fn publish_all(channel: &Channel) -> lapin::Result<()> {
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-priority".into(), 9.into());
    channel.queue_declare(QUEUE.into(), QueueDeclareOptions::durable(), arguments).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;

    let mut confirms = Vec::new();
    for (priority, job) in JOBS {
        let properties = BasicProperties::default().with_delivery_mode(PERSISTENT).with_priority(priority);
        let options = BasicPublishOptions::default();
        confirms.push(channel.basic_publish("".into(), QUEUE.into(), options, job.as_bytes(), properties).await?);
    }
    for confirm in confirms {
        assert!(confirm.await?.is_ack(), "the broker has stored the job");
    }
    println!("{} jobs are safe with the broker", JOBS.len());
    Ok(())
}

/// Takes jobs until none has come for a while; returns how many were done.
async fn work(name: &str, connection: &Connection) -> lapin::Result<u32> {
    let channel = connection.create_channel().await?;
    // One unacknowledged job at a time: whoever is free takes the next one.
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut jobs = channel.basic_consume(QUEUE.into(), name.into(), options, FieldTable::default()).await?;

    let mut done = 0;
    while let Ok(Some(job)) = tokio::time::timeout(Duration::from_millis(500), jobs.next()).await {
        let job = job?;
        let priority = job.properties.priority().unwrap_or_default();
        println!("{name}  priority {priority}  {}", common::text(&job));
        sleep(Duration::from_millis(50)).await;
        // Only now may the broker forget the job. Had we died before, another worker would have been given it.
        job.ack(BasicAckOptions::default()).await?;
        done += 1;
    }
    Ok(done)
}
