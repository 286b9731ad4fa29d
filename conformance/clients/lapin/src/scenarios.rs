//! The twenty scenarios.

use std::collections::BTreeMap;
use std::env::current_exe;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{
    BasicNackOptions, BasicPublishOptions, BasicRecoverOptions, BasicRejectOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::AMQPUri;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ExchangeKind};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::bench::{
    Bench, Outcome, ack, bind, body, cancel, code, connect, consume, declare_exclusive, look_up, next, numbers,
    prefetch, publish, pull, rest, send, table, take, text, unique,
};

pub struct Scenario {
    pub name: &'static str,
    pub run: fn(Arc<Bench>) -> Running,
}

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

macro_rules! scenarios {
    ($($name:ident)*) => {
        /// In the order of the table in the README.
        pub fn all() -> Vec<Scenario> {
            vec![$(Scenario { name: stringify!($name), run: |bench| Box::pin($name(bench)) }),*]
        }
    };
}

scenarios! {
    hello work_queue priorities pubsub routing topics headers rpc confirms returns get nack_requeue reject recover tx
    exclusive_autodelete big_message consumer_cancel bad_credentials worker_killed
}

async fn hello(bench: Arc<Bench>) -> Outcome {
    let channel = bench.channel().await?;
    let queue = bench.queue(&channel, FieldTable::default()).await?;
    let headers = table([
        ("answer", AMQPValue::LongInt(42)),
        ("nested", AMQPValue::FieldTable(table([("yes", AMQPValue::Boolean(true))]))),
    ]);
    let sent = BasicProperties::default().with_content_type("text/plain".into()).with_headers(headers);
    publish(&channel, &"".into(), queue.as_str(), sent.clone(), b"Hello, world!").await?;
    let message = take(&channel, &queue, 1).await?.remove(0);
    assert_eq!((body(&message), &message.properties), ("Hello, world!".into(), &sent));
    assert_eq!((message.exchange.as_str(), &message.routing_key, message.redelivered), ("", &queue, false));
    Ok(())
}

/// With one message at a time each, the slow worker keeps its first and the quick one does all others.
async fn work_queue(bench: Arc<Bench>) -> Outcome {
    let (channel, slow, quick) = (bench.channel().await?, bench.channel().await?, bench.channel().await?);
    let queue = bench.queue(&channel, FieldTable::default()).await?;
    send(&channel, &queue, numbers(0..10)).await?;

    prefetch(&slow, 1).await?;
    let mut slow_work = consume(&slow, &queue, false).await?;
    let first = next(&mut slow_work).await?;
    prefetch(&quick, 1).await?;
    let mut quick_work = consume(&quick, &queue, false).await?;
    for expected in numbers(1..10) {
        let message = next(&mut quick_work).await?;
        assert_eq!(body(&message), expected);
        ack(&message).await?;
    }
    assert_eq!(body(&first), "0");
    ack(&first).await?;
    cancel(&slow, &slow_work).await?;
    assert!(slow_work.next().await.is_none(), "the slow worker got more than one");
    assert!(rest(&channel, &queue).await?.is_empty());
    Ok(())
}

async fn priorities(bench: Arc<Bench>) -> Outcome {
    let channel = bench.channel().await?;
    let queue = bench.queue(&channel, table([("x-max-priority", AMQPValue::LongInt(10))])).await?;
    let mut sent: Vec<(u8, String)> = (0u8..110).map(|number| (number % 11 * 7 % 11, number.to_string())).collect();
    for (priority, body) in &sent {
        let properties = BasicProperties::default().with_priority(*priority);
        publish(&channel, &"".into(), queue.as_str(), properties, body.as_bytes()).await?;
    }
    let got: Vec<_> = take(&channel, &queue, 110)
        .await?
        .iter()
        .map(|message| (message.properties.priority().expect("every message has one"), body(message)))
        .collect();
    sent.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    assert_eq!(got, sent);
    Ok(())
}

async fn pubsub(bench: Arc<Bench>) -> Outcome {
    let channel = bench.channel().await?;
    let fanout = bench.exchange(&channel, ExchangeKind::Fanout).await?;
    let mut queues = Vec::new();
    for _ in 0..3 {
        let queue = declare_exclusive(&channel).await?;
        bind(&channel, &queue, &fanout, "", FieldTable::default()).await?;
        queues.push(queue);
    }
    for body in [b"first".as_slice(), b"second"] {
        publish(&channel, &fanout, "ignored", BasicProperties::default(), body).await?;
    }
    for queue in queues {
        let got: Vec<String> = take(&channel, &queue, 2).await?.iter().map(body).collect();
        assert_eq!(got, ["first", "second"]);
        assert!(rest(&channel, &queue).await?.is_empty());
    }
    Ok(())
}

/// What arrives in one queue per list of binding keys, when a message is published to each routing key.
async fn routed(bench: &Bench, kind: ExchangeKind, bindings: &[&[&str]], keys: &[&str]) -> Outcome<Vec<Vec<String>>> {
    let channel = bench.channel().await?;
    let exchange = bench.exchange(&channel, kind).await?;
    let mut queues = Vec::new();
    for binding_keys in bindings {
        let queue = bench.queue(&channel, FieldTable::default()).await?;
        for key in *binding_keys {
            bind(&channel, &queue, &exchange, key, FieldTable::default()).await?;
        }
        queues.push(queue);
    }
    for key in keys {
        publish(&channel, &exchange, key, BasicProperties::default(), key.as_bytes()).await?;
    }
    let mut arrived = Vec::new();
    for queue in queues {
        arrived.push(rest(&channel, &queue).await?);
    }
    Ok(arrived)
}

async fn routing(bench: Arc<Bench>) -> Outcome {
    let keys = ["info", "error", "debug", "error"];
    let got = routed(&bench, ExchangeKind::Direct, &[&["error"], &["info", "error"]], &keys).await?;
    assert_eq!(got, [vec!["error", "error"], vec!["info", "error", "error"]]);
    Ok(())
}

async fn topics(bench: Arc<Bench>) -> Outcome {
    let keys = ["quick.orange.rabbit", "lazy.orange.elephant", "quick.brown.fox", "lazy", "lazy.a.b.rabbit", "orange"];
    let got = routed(&bench, ExchangeKind::Topic, &[&["*.orange.*"], &["*.*.rabbit", "lazy.#"]], &keys).await?;
    assert_eq!(got, [vec![keys[0], keys[1]], vec![keys[0], keys[1], keys[3], keys[4]]]);
    Ok(())
}

async fn headers(bench: Arc<Bench>) -> Outcome {
    let channel = bench.channel().await?;
    let exchange = bench.exchange(&channel, ExchangeKind::Headers).await?;
    let pdf_report = table([("format", text("pdf")), ("type", text("report"))]);
    let pdf = table([("format", text("pdf"))]);
    let zip_log = table([("format", text("zip")), ("type", text("log"))]);
    let long_report = table([("type", text("report")), ("pages", AMQPValue::LongInt(3))]);
    let expected = [("all", vec![&pdf_report]), ("any", vec![&pdf_report, &pdf, &long_report])];
    let mut queues = Vec::new();
    for (x_match, _) in &expected {
        let queue = bench.queue(&channel, FieldTable::default()).await?;
        let wanted = table([("x-match", text(x_match)), ("format", text("pdf")), ("type", text("report"))]);
        bind(&channel, &queue, &exchange, "", wanted).await?;
        queues.push(queue);
    }
    for headers in [&pdf_report, &pdf, &zip_log, &long_report] {
        publish(&channel, &exchange, "", BasicProperties::default().with_headers(headers.clone()), b"").await?;
    }
    for (queue, (_, expected)) in queues.iter().zip(&expected) {
        let messages = take(&channel, queue, expected.len().try_into()?).await?;
        let got: Vec<_> = messages.iter().filter_map(|message| message.properties.headers().as_ref()).collect();
        assert_eq!(&got, expected);
        assert!(rest(&channel, queue).await?.is_empty());
    }
    Ok(())
}

async fn rpc(bench: Arc<Bench>) -> Outcome {
    let (server, client) = (bench.channel().await?, bench.channel().await?);
    let requests = bench.queue(&server, FieldTable::default()).await?;
    let mut calls = consume(&server, &requests, false).await?;
    let serving = tokio::spawn(async move {
        for _ in 0..10 {
            let call = next(&mut calls).await?;
            let (Some(reply_to), Some(id)) = (call.properties.reply_to(), call.properties.correlation_id()) else {
                return Err("a call without reply-to or correlation-id".into());
            };
            let answer = body(&call).parse::<u32>()?.pow(2).to_string();
            let properties = BasicProperties::default().with_correlation_id(id.clone());
            publish(&server, &"".into(), reply_to.as_str(), properties, answer.as_bytes()).await?;
            ack(&call).await?;
        }
        Outcome::Ok(())
    });

    let reply_to = declare_exclusive(&client).await?;
    let mut replies = consume(&client, &reply_to, true).await?;
    let mut expected = BTreeMap::new();
    for n in 0..10u32 {
        let id: ShortString = format!("call-{n}").into();
        let properties = BasicProperties::default().with_reply_to(reply_to.clone()).with_correlation_id(id.clone());
        publish(&client, &"".into(), requests.as_str(), properties, n.to_string().as_bytes()).await?;
        expected.insert(Some(id), n.pow(2).to_string());
    }
    serving.await??;
    let mut answers = BTreeMap::new();
    for _ in 0..10 {
        let reply = next(&mut replies).await?;
        answers.insert(reply.properties.correlation_id().clone(), body(&reply));
    }
    assert_eq!(answers, expected);
    Ok(())
}

async fn confirms(bench: Arc<Bench>) -> Outcome {
    let channel = bench.channel().await?;
    let queue = bench.queue(&channel, FieldTable::default()).await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let all = numbers(0..100);
    let publish = async |body: &String| {
        let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
        channel.basic_publish("".into(), queue.clone(), options, body.as_bytes(), properties).await
    };

    for body in &all[..20] {
        assert_eq!(publish(body).await?.await?, Confirmation::Ack(None)); // one by one
    }
    let mut open = Vec::new();
    for body in &all {
        open.push(publish(body).await?); // as they come: each is a future of its own
    }
    for confirm in open {
        assert_eq!(confirm.await?, Confirmation::Ack(None));
    }
    for batch in all.chunks(20) {
        let mut open = Vec::new();
        for body in batch {
            open.push(publish(body).await?);
        }
        assert!(channel.wait_for_confirms().await?.is_empty()); // batch by batch
        for confirm in open {
            assert_eq!(confirm.await?, Confirmation::Ack(None));
        }
    }
    assert_eq!(rest(&channel, &queue).await?, [&all[..20], &all, &all].concat());
    Ok(())
}

async fn returns(bench: Arc<Bench>) -> Outcome {
    let channel = bench.channel().await?;
    let queue = bench.queue(&channel, FieldTable::default()).await?;
    let nowhere = unique("nowhere");
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let publish = async |key: &ShortString, body: &[u8]| {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        channel.basic_publish("".into(), key.clone(), options, body, BasicProperties::default()).await?.await
    };
    let confirmation = publish(&nowhere, b"lost").await?;
    assert!(confirmation.is_ack());
    let returned = confirmation.take_message().ok_or("nothing was returned")?;
    assert_eq!((returned.reply_code, returned.reply_text.as_str()), (312, "NO_ROUTE"));
    assert_eq!((returned.exchange.as_str(), &returned.routing_key), ("", &nowhere));
    assert_eq!(body(&returned), "lost");
    assert_eq!(publish(&queue, b"found").await?, Confirmation::Ack(None));
    assert_eq!(rest(&channel, &queue).await?, ["found"]);
    Ok(())
}

async fn get(bench: Arc<Bench>) -> Outcome {
    let channel = bench.channel().await?;
    let queue = bench.queue(&channel, FieldTable::default()).await?;
    assert!(rest(&channel, &queue).await?.is_empty());
    send(&channel, &queue, ["a", "b", "c"]).await?;
    for expected in [("a", 2, false), ("b", 1, false), ("c", 0, false)] {
        let message = pull(&channel, &queue).await?;
        assert_eq!((body(&message).as_str(), message.message_count, message.redelivered), expected);
        ack(&message).await?;
    }
    assert!(rest(&channel, &queue).await?.is_empty());
    Ok(())
}

async fn nack_requeue(bench: Arc<Bench>) -> Outcome {
    let channel = bench.channel().await?;
    let queue = bench.queue(&channel, FieldTable::default()).await?;
    send(&channel, &queue, ["a", "b", "c"]).await?;
    for redelivered in [false, true] {
        for expected in ["a", "b", "c"] {
            let message = pull(&channel, &queue).await?;
            assert_eq!((body(&message).as_str(), message.redelivered), (expected, redelivered));
            if expected == "c" {
                message.nack(BasicNackOptions { multiple: true, requeue: true }).await?;
            }
        }
    }
    assert_eq!(rest(&channel, &queue).await?, ["a", "b", "c"]);
    Ok(())
}

async fn reject(bench: Arc<Bench>) -> Outcome {
    let channel = bench.channel().await?;
    let dead_letters = bench.exchange(&channel, ExchangeKind::Fanout).await?;
    let graveyard = bench.queue(&channel, FieldTable::default()).await?;
    bind(&channel, &graveyard, &dead_letters, "", FieldTable::default()).await?;
    let forgetful = bench.queue(&channel, FieldTable::default()).await?;
    let remembering = table([("x-dead-letter-exchange", text(dead_letters.as_str()))]);
    let queue = bench.queue(&channel, remembering).await?;
    for queue in [&forgetful, &queue] {
        send(&channel, queue, ["unwanted"]).await?;
        pull(&channel, queue).await?.reject(BasicRejectOptions { requeue: false }).await?;
        assert!(rest(&channel, queue).await?.is_empty());
    }

    let message = take(&channel, &graveyard, 1).await?.remove(0);
    assert_eq!((&message.exchange, &message.routing_key, body(&message)), (&dead_letters, &queue, "unwanted".into()));
    let headers = message.properties.headers().as_ref().ok_or("no headers")?;
    let Some(AMQPValue::FieldArray(deaths)) = headers.inner().get("x-death") else { panic!("no x-death: {headers:?}") };
    let [AMQPValue::FieldTable(death)] = deaths.as_slice() else { panic!("not one death: {deaths:?}") };
    for (field, expected) in [
        ("reason", text("rejected")),
        ("queue", text(queue.as_str())),
        ("count", AMQPValue::LongLongInt(1)),
        ("exchange", text("")),
        ("routing-keys", AMQPValue::FieldArray(vec![text(queue.as_str())].into())),
    ] {
        assert_eq!(death.inner().get(field), Some(&expected), "{field}");
    }
    assert!(rest(&channel, &graveyard).await?.is_empty());
    Ok(())
}

/// The next deliveries must have these bodies and this flag; what they were, for acknowledging.
async fn expect(consumer: &mut Consumer, bodies: &[String], redelivered: bool) -> Outcome<Vec<Delivery>> {
    let mut messages = Vec::new();
    for expected in bodies {
        let message = next(consumer).await?;
        assert_eq!((&body(&message), message.redelivered), (expected, redelivered));
        messages.push(message);
    }
    Ok(messages)
}

async fn recover(bench: Arc<Bench>) -> Outcome {
    let channel = bench.channel().await?;
    let queue = bench.queue(&channel, FieldTable::default()).await?;
    send(&channel, &queue, numbers(0..3)).await?;
    let mut consumer = consume(&channel, &queue, false).await?;
    let messages = expect(&mut consumer, &numbers(0..3), false).await?;
    ack(&messages[0]).await?;
    channel.basic_recover(BasicRecoverOptions { requeue: true }).await?;
    expect(&mut consumer, &numbers(1..3), true).await?;
    Ok(())
}

async fn tx(bench: Arc<Bench>) -> Outcome {
    let channel = bench.channel().await?;
    let queue = bench.queue(&channel, FieldTable::default()).await?;
    channel.tx_select().await?;
    send(&channel, &queue, ["undone"]).await?;
    channel.tx_rollback().await?;
    send(&channel, &queue, ["done"]).await?;
    assert!(rest(&channel, &queue).await?.is_empty());
    channel.tx_commit().await?;
    for commit in [false, true] {
        let worker = bench.channel().await?;
        worker.tx_select().await?;
        let message = pull(&worker, &queue).await?;
        assert_eq!((body(&message).as_str(), message.redelivered), ("done", commit));
        ack(&message).await?;
        if commit {
            worker.tx_commit().await?;
        } else {
            worker.tx_rollback().await?;
        }
        worker.close(200, "".into()).await?;
    }
    assert!(rest(&channel, &queue).await?.is_empty());
    Ok(())
}

async fn exclusive_autodelete(bench: Arc<Bench>) -> Outcome {
    let owner = connect(&bench.url).await?;
    let owners_channel = owner.create_channel().await?;
    let owned = declare_exclusive(&owners_channel).await?;
    let refused = look_up(&bench.channel().await?, &owned).await.expect_err("another connection's queue");
    assert_eq!(code(&refused), 405);
    owner.close(200, "".into()).await?;
    bench.wait_until_gone(&owned).await?;

    let channel = bench.channel().await?;
    let queue = unique("queue");
    let options = QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.clone(), options, FieldTable::default()).await?;
    bench.delete_later(queue.clone());
    let (first, second) = (consume(&channel, &queue, false).await?, consume(&channel, &queue, false).await?);
    cancel(&channel, &first).await?;
    look_up(&channel, &queue).await?;
    cancel(&channel, &second).await?;
    bench.wait_until_gone(&queue).await
}

async fn big_message(bench: Arc<Bench>) -> Outcome {
    let channel = bench.channel().await?;
    let queue = bench.queue(&channel, FieldTable::default()).await?;
    let mut state = 1u32;
    let random_byte = || {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        (state >> 16) as u8
    };
    let sent: Vec<u8> = std::iter::repeat_with(random_byte).take(10 * 1024 * 1024).collect();
    send(&channel, &queue, [&sent]).await?;
    let message = take(&channel, &queue, 1).await?.remove(0);
    assert_eq!(message.data.len(), sent.len());
    assert!(message.data == sent, "the bytes differ");
    Ok(())
}

async fn consumer_cancel(bench: Arc<Bench>) -> Outcome {
    let (channel, other) = (bench.channel().await?, bench.channel().await?);
    let queue = bench.queue(&channel, FieldTable::default()).await?;
    let mut consumer = consume(&channel, &queue, true).await?;
    send(&channel, &queue, ["before"]).await?;
    assert_eq!(body(&next(&mut consumer).await?), "before");
    cancel(&channel, &consumer).await?;
    send(&channel, &queue, ["after"]).await?;
    assert_eq!(rest(&channel, &queue).await?, ["after"]);
    assert!(consumer.next().await.is_none(), "a delivery after cancel");

    let mut consumer = consume(&channel, &queue, true).await?;
    send(&channel, &queue, ["again"]).await?;
    assert_eq!(body(&next(&mut consumer).await?), "again");
    other.queue_delete(queue, QueueDeleteOptions::default()).await?;
    assert!(consumer.next().await.is_none(), "a delivery after the queue is gone"); // the end tells of the cancel
    Ok(())
}

async fn bad_credentials(bench: Arc<Bench>) -> Outcome {
    let mut uri: AMQPUri = bench.url.parse()?;
    uri.authority.userinfo.password = "wrong".into();
    let refused = Connection::connect_uri(uri, ConnectionProperties::default()).await.expect_err("a wrong password");
    assert_eq!(code(&refused), 403);
    Ok(connect(&bench.url).await?.close(200, "".into()).await?)
}

async fn worker_killed(bench: Arc<Bench>) -> Outcome {
    let channel = bench.channel().await?;
    let queue = bench.queue(&channel, FieldTable::default()).await?;
    send(&channel, &queue, numbers(0..12)).await?;
    let mut victim = Command::new(current_exe()?)
        .args(["--url", &bench.url, "--worker", queue.as_str()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(victim.stdout.take().expect("it is piped")).lines();
    for expected in numbers(0..8) {
        assert_eq!(lines.next_line().await?, Some(expected));
    }

    let mut consumer = consume(&channel, &queue, false).await?;
    for message in expect(&mut consumer, &numbers(8..12), false).await? {
        ack(&message).await?;
    }
    victim.kill().await?;
    for message in expect(&mut consumer, &numbers(2..8), true).await? {
        ack(&message).await?;
    }
    cancel(&channel, &consumer).await?;
    assert!(consumer.next().await.is_none(), "something arrived twice");
    channel.close(200, "".into()).await?;
    assert!(rest(&bench.channel().await?, &queue).await?.is_empty());
    Ok(())
}

/// The victim of `worker_killed`: holds up to six messages, acknowledges only the first two, says what it has.
pub async fn worker(url: &str, queue: &str) -> Outcome {
    let connection = connect(url).await?;
    let channel: Channel = connection.create_channel().await?;
    prefetch(&channel, 6).await?;
    let mut consumer = consume(&channel, &queue.into(), false).await?;
    while let Some(message) = consumer.next().await {
        let message = message?;
        if message.delivery_tag <= 2 {
            ack(&message).await?;
        }
        println!("{}", body(&message));
    }
    Ok(())
}
