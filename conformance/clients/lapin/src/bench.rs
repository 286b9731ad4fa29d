//! What the scenarios say often: one connection with the names made on it, and short forms of lapin's calls.

use std::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Mutex;
use std::time::Duration;

use futures_lite::StreamExt;
use lapin::message::{BasicGetMessage, Delivery};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions, BasicQosOptions,
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, ErrorKind, ExchangeKind};
use tokio::time::sleep;

pub type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// The connection of a scenario, and the names it makes.
pub struct Bench {
    pub url: String,
    pub connection: Connection,
    /// Kept to the end: a channel closes when its last handle is dropped, and lapin's connection.close may
    /// fail or hang while one is closing.
    channels: Mutex<Vec<Channel>>,
    queues: Mutex<Vec<ShortString>>,
    exchanges: Mutex<Vec<ShortString>>,
}

impl Bench {
    pub async fn open(url: &str) -> Outcome<Self> {
        let connection = connect(url).await?;
        Ok(Self {
            url: url.into(),
            connection,
            channels: Mutex::default(),
            queues: Mutex::default(),
            exchanges: Mutex::default(),
        })
    }

    pub async fn channel(&self) -> lapin::Result<Channel> {
        let channel = self.connection.create_channel().await?;
        self.channels.lock().expect("no panic while held").push(channel.clone());
        Ok(channel)
    }

    /// Declares a queue of a new name.
    pub async fn queue(&self, channel: &Channel, arguments: FieldTable) -> lapin::Result<ShortString> {
        let name = unique("queue");
        channel.queue_declare(name.clone(), QueueDeclareOptions::default(), arguments).await?;
        self.delete_later(name.clone());
        Ok(name)
    }

    pub fn delete_later(&self, queue: ShortString) {
        self.queues.lock().expect("no panic while held").push(queue);
    }

    /// Declares an exchange of a new name.
    pub async fn exchange(&self, channel: &Channel, kind: ExchangeKind) -> lapin::Result<ShortString> {
        let name = unique("exchange");
        channel.exchange_declare(name.clone(), kind, ExchangeDeclareOptions::default(), FieldTable::default()).await?;
        self.exchanges.lock().expect("no panic while held").push(name.clone());
        Ok(name)
    }

    /// Asks for the queue until the broker answers 404.
    pub async fn wait_until_gone(&self, queue: &ShortString) -> Outcome {
        loop {
            let channel = self.channel().await?;
            match look_up(&channel, queue).await {
                Ok(()) => channel.close(200, "".into()).await?,
                Err(error) => {
                    assert_eq!(code(&error), 404);
                    return Ok(());
                }
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Closes the connection and deletes the names.
    pub async fn delete(&self) -> Outcome {
        if self.connection.status().connected() {
            match self.connection.close(200, "".into()).await {
                // A consumer that was just dropped cancels itself, on a channel that is closing by now.
                Err(error) if matches!(error.kind(), ErrorKind::InvalidChannelState(..)) => {}
                closed => closed?,
            }
        }
        let connection = connect(&self.url).await?;
        let channel = connection.create_channel().await?;
        let queues = std::mem::take(&mut *self.queues.lock().expect("no panic while held"));
        for queue in queues {
            channel.queue_delete(queue, QueueDeleteOptions::default()).await?;
        }
        let exchanges = std::mem::take(&mut *self.exchanges.lock().expect("no panic while held"));
        for exchange in exchanges {
            channel.exchange_delete(exchange, ExchangeDeleteOptions::default()).await?;
        }
        Ok(connection.close(200, "".into()).await?)
    }
}

pub async fn connect(url: &str) -> lapin::Result<Connection> {
    Connection::connect(url, ConnectionProperties::default()).await
}

/// A queue or exchange name that no other run uses.
pub fn unique(name: &str) -> ShortString {
    format!("conformance-{name}-{:016x}", RandomState::new().build_hasher().finish()).into()
}

/// The reply code with which the broker refused.
pub fn code(error: &lapin::Error) -> u16 {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => refusal.get_id(),
        other => panic!("{other:?} is not an answer of the broker"),
    }
}

pub fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

pub fn table<const N: usize>(entries: [(&str, AMQPValue); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in entries {
        table.insert(key.into(), value);
    }
    table
}

pub fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

pub fn body(message: &Delivery) -> String {
    String::from_utf8_lossy(&message.data).into_owned()
}

pub async fn publish(
    channel: &Channel,
    exchange: &ShortString,
    key: &str,
    properties: BasicProperties,
    body: &[u8],
) -> lapin::Result<()> {
    channel.basic_publish(exchange.clone(), key.into(), BasicPublishOptions::default(), body, properties).await?;
    Ok(())
}

/// Publishes to a queue through the default exchange.
pub async fn send<B: AsRef<[u8]>>(
    channel: &Channel,
    queue: &ShortString,
    bodies: impl IntoIterator<Item = B>,
) -> lapin::Result<()> {
    for body in bodies {
        publish(channel, &"".into(), queue.as_str(), BasicProperties::default(), body.as_ref()).await?;
    }
    Ok(())
}

pub async fn declare_exclusive(channel: &Channel) -> lapin::Result<ShortString> {
    let options = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    Ok(channel.queue_declare("".into(), options, FieldTable::default()).await?.name().clone())
}

pub async fn look_up(channel: &Channel, queue: &ShortString) -> lapin::Result<()> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.clone(), options, FieldTable::default()).await?;
    Ok(())
}

pub async fn bind(
    channel: &Channel,
    queue: &ShortString,
    exchange: &ShortString,
    key: &str,
    arguments: FieldTable,
) -> lapin::Result<()> {
    channel.queue_bind(queue.clone(), exchange.clone(), key.into(), QueueBindOptions::default(), arguments).await
}

pub async fn prefetch(channel: &Channel, count: u16) -> lapin::Result<()> {
    channel.basic_qos(count, BasicQosOptions::default()).await
}

pub async fn consume(channel: &Channel, queue: &ShortString, no_ack: bool) -> lapin::Result<Consumer> {
    let options = BasicConsumeOptions { no_ack, ..BasicConsumeOptions::default() };
    channel.basic_consume(queue.clone(), unique("consumer"), options, FieldTable::default()).await
}

pub async fn cancel(channel: &Channel, consumer: &Consumer) -> lapin::Result<()> {
    channel.basic_cancel(consumer.tag(), BasicCancelOptions::default()).await
}

pub async fn next(consumer: &mut Consumer) -> Outcome<Delivery> {
    Ok(consumer.next().await.ok_or("the consumer ended")??)
}

pub async fn ack(message: &Delivery) -> lapin::Result<()> {
    message.ack(BasicAckOptions::default()).await?;
    Ok(())
}

/// The next messages of a queue, acknowledged; prefetch and a late ack leave all others in the queue.
pub async fn take(channel: &Channel, queue: &ShortString, count: u16) -> Outcome<Vec<Delivery>> {
    prefetch(channel, count).await?;
    let mut consumer = consume(channel, queue, false).await?;
    let mut messages = Vec::new();
    for _ in 0..count {
        messages.push(next(&mut consumer).await?);
    }
    cancel(channel, &consumer).await?;
    if let Some(last) = messages.last() {
        last.ack(BasicAckOptions { multiple: true }).await?;
    }
    Ok(messages)
}

/// One message by basic.get, to be acknowledged.
pub async fn pull(channel: &Channel, queue: &ShortString) -> Outcome<BasicGetMessage> {
    Ok(channel.basic_get(queue.clone(), BasicGetOptions::default()).await?.ok_or("the queue is empty")?)
}

/// What the queue still has, taken out by basic.get (which comes after all this channel did before).
pub async fn rest(channel: &Channel, queue: &ShortString) -> lapin::Result<Vec<String>> {
    let mut bodies = Vec::new();
    while let Some(message) = channel.basic_get(queue.clone(), BasicGetOptions { no_ack: true }).await? {
        bodies.push(body(&message.delivery));
    }
    Ok(bodies)
}
