//! Requests and replies: a request names the queue for its reply, and an id that the reply repeats.
//!
//! `cargo run --example rpc`

#![expect(clippy::print_stdout, reason = "an example prints what happens")]

mod common;

use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Connection, Consumer};
use std::process::ExitCode;
use tokio_stream::StreamExt;

#[tokio::main]
async fn main() -> ExitCode {
    common::exit_code(run().await)
}

async fn run() -> lapin::Result<()> {
    // Two connections, as if they were two programs: they share only the name of a queue.
    let server = common::connect().await?;
    let questions = open_for_questions(&server).await?;
    let server_queue = questions.queue();
    let serving = tokio::spawn(serve(questions, server));

    let connection = common::connect().await?;
    ask(&connection, server_queue, &[7, 12, 90]).await?;
    common::close(&connection).await?;

    serving.abort();
    Ok(())
}

async fn open_for_questions(connection: &Connection) -> lapin::Result<Consumer> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions::durable().auto_delete();
    let queue = channel.queue_declare("example.fibonacci".into(), options, FieldTable::default()).await?;
    let options = BasicConsumeOptions::default();
    channel.basic_consume(queue.name().clone(), "".into(), options, FieldTable::default()).await
}

/// Answers requests while its connection is open.
async fn serve(mut questions: Consumer, connection: Connection) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    while let Some(question) = questions.next().await {
        let question = question?;
        let asked = common::text(&question).parse().unwrap_or(0);
        let answer = fibonacci(asked).to_string();
        if let (Some(reply_to), Some(id)) = (question.properties.reply_to(), question.properties.correlation_id()) {
            let properties = BasicProperties::default().with_correlation_id(id.clone());
            let options = BasicPublishOptions::default();
            channel.basic_publish("".into(), reply_to.clone(), options, answer.as_bytes(), properties).await?;
        }
        question.ack(BasicAckOptions::default()).await?;
    }
    Ok(())
}

/// Sends all requests at once; the correlation id says which reply belongs to which request.
async fn ask(connection: &Connection, server_queue: ShortString, numbers: &[u32]) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    let replies = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default()).await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let answers = channel.basic_consume(replies.name().clone(), "".into(), options, FieldTable::default()).await?;

    for (id, number) in numbers.iter().enumerate() {
        let properties =
            BasicProperties::default().with_reply_to(replies.name().clone()).with_correlation_id(id.to_string().into());
        let (options, question) = (BasicPublishOptions::default(), number.to_string());
        channel.basic_publish("".into(), server_queue.clone(), options, question.as_bytes(), properties).await?;
    }

    let mut answers = answers.take(numbers.len());
    while let Some(answer) = answers.next().await {
        let answer = answer?;
        let id = answer.properties.correlation_id().as_ref().map_or("", ShortString::as_str);
        let asked = id.parse().ok().and_then(|id: usize| numbers.get(id)).expect("an answer to one of our questions");
        println!("fibonacci({asked}) = {}", common::text(&answer));
    }
    Ok(())
}

fn fibonacci(n: u32) -> u64 {
    (0..n).fold((0, 1), |(a, b): (u64, u64), _| (b, a.wrapping_add(b))).0
}
