//! Two workers share a queue of jobs: the most urgent job is always next, and each worker has one job at a time.
//!
//! `cargo run --example work_queue`

#![expect(clippy::print_stdout, reason = "an example prints what happens")]

mod common;

use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, Consumer};
use std::process::ExitCode;
use std::time::Duration;
use tokio::sync::mpsc;
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
async fn main() -> ExitCode {
    common::exit_code(run().await)
}

async fn run() -> lapin::Result<()> {
    let connection = common::connect().await?;
    let channel = connection.create_channel().await?;
    publish_all(&channel).await?;

    let (ada, bob) = (hire("Ada", &connection).await?, hire("Bob", &connection).await?);
    let (done, mut reports) = mpsc::channel(JOBS.len());
    let close_shop = async {
        for _ in JOBS {
            reports.recv().await;
        }
        // When the queue is deleted, the broker cancels its consumers, and that ends the workers.
        channel.queue_delete(QUEUE.into(), QueueDeleteOptions::default()).await
    };
    let (first, second, left) = tokio::join!(work("Ada", ada, done.clone()), work("Bob", bob, done), close_shop);
    println!("Ada did {} jobs, Bob did {}, {} are left", first?, second?, left?);
    common::close(&connection).await
}

/// Sends jobs that survive a restart of the broker: the queue is durable, the messages are persistent, and the broker
/// confirms each one when it is stored.
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

/// One unacknowledged job at a time: a free worker takes the next one.
async fn hire(name: &str, connection: &Connection) -> lapin::Result<Consumer> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(1, BasicQosOptions::default()).await?;
    channel.basic_consume(QUEUE.into(), name.into(), BasicConsumeOptions::default(), FieldTable::default()).await
}

/// Does jobs until the consumer is cancelled; returns how many were done.
async fn work(name: &str, mut jobs: Consumer, done: mpsc::Sender<()>) -> lapin::Result<u32> {
    let mut count = 0;
    while let Some(job) = jobs.next().await {
        let job = job?;
        let priority = job.properties.priority().unwrap_or_default();
        println!("{name}  priority {priority}  {}", common::text(&job));
        sleep(Duration::from_millis(50)).await;
        // Only now may the broker remove the job. If this worker had died before, another one would have got the job.
        job.ack(BasicAckOptions::default()).await?;
        count += 1;
        done.send(()).await.expect("reports are read to the last");
    }
    Ok(count)
}
