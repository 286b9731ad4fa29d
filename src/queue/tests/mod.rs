//! One queue on a bench: inputs by hand, effects read back. One file per group of rules.

mod configuring;
mod ending;
mod expiry;
mod leaving;
mod lending;
mod limits;
mod returning;
mod storing;
mod windows;

use super::{
    Consume, ConsumerLimits, Effects, Enqueue, HoldLimits, LoadedRows, LocalEvent, Permits, Pulled, QueueCommand,
    QueueEffect, QueueInput, QueueLimits, QueueSettings, QueueState, Requester, Ticket, WindowLimits,
};
use crate::model::{
    Answer, ChannelKey, ConnectionId, ConsumerKey, ConsumerSlot, Holder, LendId, LimitId, LimitKey, Message, Monotonic,
    Name, Notice, Now, Promise, PromiseOwner, QueueId, RequestNo, SettleOutcome, WallMillis,
};
use crate::wire::properties::{Properties, PropertiesWriter, Property};
use std::collections::BTreeMap;
use std::time::Duration;

/// Windows small enough to page at once.
const SMALL: WindowLimits =
    WindowLimits { head_entries: 4, head_entries_min: 2, tail_entries: 6, tail_bytes: 1 << 20, head_bytes: 1 << 20 };

/// The prefetch limit of channels that have one.
const LIMIT: LimitId = LimitId(1);

/// A message that a consumer or a get received.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Received {
    connection: u64,
    slot: u32,
    body: String,
    redelivered: bool,
    lend: Option<LendId>,
}

/// Limits of channels, by connection; those that are not listed have none.
#[derive(Debug, Default)]
struct ChannelLimits {
    free: BTreeMap<ConnectionId, u32>,
    /// How often a queue requested permits.
    requests: u32,
    refused: Vec<ConnectionId>,
}

impl Permits for ChannelLimits {
    fn request(&mut self, limit: LimitKey) -> u32 {
        self.requests += 1;
        let free = self.free.get_mut(&limit.holder.connection).expect("only limited channels are asked");
        if *free == 0 {
            self.refused.push(limit.holder.connection);
        }
        std::mem::take(free)
    }

    fn end_grant(&mut self, limit: LimitKey, unused: u32) {
        *self.free.entry(limit.holder.connection).or_default() += unused;
    }

    fn withdraw(&mut self, limit: LimitKey) -> bool {
        self.refused.retain(|refused| *refused != limit.holder.connection);
        true
    }
}

struct Bench {
    queue: QueueState,
    now: Now,
    permits: ChannelLimits,
    out: Effects,
    requests: u32,
}

fn holder(connection: u64) -> Holder {
    Holder { connection: ConnectionId(connection), channel: ChannelKey { number: 1, incarnation: 1 } }
}

fn key(connection: u64, slot: u32) -> ConsumerKey {
    ConsumerKey { holder: holder(connection), slot: ConsumerSlot(slot) }
}

fn settings() -> QueueSettings {
    QueueSettings { durable: true, ..QueueSettings::plain(QueueId(1), Name::from("/"), Name::from("q")) }
}

fn limits() -> QueueLimits {
    QueueLimits {
        hold: HoldLimits::default(),
        window: WindowLimits::default(),
        consumer: ConsumerLimits { messages: 64, messages_max: 4096, bytes_max: 1 << 18, unacked_max: u32::MAX },
    }
}

/// A message that may be persistent, urgent and short-lived.
struct Draft<'a> {
    body: &'a str,
    persistent: bool,
    priority: u8,
    expiration_ms: Option<u64>,
    sequence: Option<u64>,
}

fn draft(body: &str) -> Draft<'_> {
    Draft { body, persistent: false, priority: 0, expiration_ms: None, sequence: None }
}

impl Draft<'_> {
    fn persistent(self) -> Self {
        Self { persistent: true, ..self }
    }

    fn priority(self, priority: u8) -> Self {
        Self { priority, ..self }
    }

    fn expiration(self, ms: u64) -> Self {
        Self { expiration_ms: Some(ms), ..self }
    }

    fn confirmed(self, sequence: u64) -> Self {
        Self { sequence: Some(sequence), ..self }
    }

    fn enqueue(&self) -> Enqueue {
        let expiration = self.expiration_ms.map(|ms| ms.to_string());
        let mut writer = PropertiesWriter::new().delivery_mode(1 + u8::from(self.persistent)).priority(self.priority);
        if let Some(expiration) = &expiration {
            writer = writer.shortstr(Property::Expiration, expiration.as_bytes());
        }
        let raw = writer.to_vec();
        let properties = Properties::check(&raw).expect("just written");
        let message = Message::new(b"", b"q", &properties, self.body.as_bytes());
        let owner = PromiseOwner::Channel(holder(99));
        let promise = self.sequence.map(|sequence| Promise { owner, sequence });
        Enqueue { message, promise }
    }
}

fn body(message: &Message) -> String {
    String::from_utf8_lossy(message.body()).into_owned()
}

impl Bench {
    fn new() -> Self {
        Self::with(settings(), limits())
    }

    fn with(settings: QueueSettings, limits: QueueLimits) -> Self {
        let now = Now { monotonic: Monotonic(1_000_000), wall: WallMillis(1_000_000) };
        let queue = QueueState::new(settings, limits, now);
        Self { queue, now, permits: ChannelLimits::default(), out: Effects::default(), requests: 0 }
    }

    fn apply(&mut self, input: impl Into<QueueInput>) {
        self.queue.apply(input.into(), self.now, &mut self.permits, &mut self.out);
    }

    /// Permits for which the queue stood in line.
    fn grant(&mut self, connection: u64, permits: u32) {
        self.permits.refused.retain(|refused| *refused != ConnectionId(connection));
        let limit = LimitKey { holder: holder(connection), id: LIMIT };
        self.apply(QueueCommand::Grant { limit, permits });
    }

    fn requester(&mut self, connection: u64) -> Requester {
        self.requests += 1;
        let Holder { connection, channel } = holder(connection);
        Requester { connection, channel, request: RequestNo(self.requests) }
    }

    fn publish(&mut self, draft: &Draft<'_>) {
        self.apply(QueueCommand::Publish(vec![draft.enqueue()]));
    }

    fn publish_all(&mut self, bodies: &[&str]) {
        self.apply(QueueCommand::Publish(bodies.iter().map(|body| draft(body).enqueue()).collect()));
    }

    fn consumer(&mut self, connection: u64, slot: u32) -> Consume {
        Consume {
            requester: self.requester(connection),
            key: key(connection, slot),
            tag: Name::from("tag"),
            no_ack: false,
            exclusive: false,
            priority: 0,
            prefetch: 0,
            channel_limit: None,
        }
    }

    fn consume(&mut self, connection: u64, prefetch: u32) {
        let consume = Consume { prefetch, ..self.consumer(connection, 1) };
        self.apply(QueueCommand::Consume(consume));
    }

    fn get(&mut self, connection: u64, no_ack: bool) {
        let requester = self.requester(connection);
        self.apply(QueueCommand::Get { requester, no_ack });
    }

    fn settle(&mut self, given: &[Received], outcome: SettleOutcome) {
        let lends = given.iter().filter_map(|given| given.lend).collect();
        self.apply(QueueCommand::Settle { lends, outcome });
    }

    fn after(&mut self, time: Duration) {
        self.now.monotonic = self.now.monotonic.plus(time);
        self.now.wall = self.now.wall.plus_millis(time.as_millis() as u64);
    }

    fn tick_after(&mut self, ms: u64) {
        self.after(Duration::from_millis(ms));
        self.apply(LocalEvent::Tick);
    }

    /// The messages received since the last call; other notices stay.
    fn given(&mut self) -> Vec<Received> {
        let mut given = Vec::new();
        self.out.notices.retain(|(connection, notice)| {
            let (Notice::Deliver(delivery) | Notice::Answer { answer: Answer::Got { delivery, .. }, .. }) = notice
            else {
                return true;
            };
            given.push(Received {
                connection: connection.0,
                slot: delivery.consumer.0,
                body: body(&delivery.message),
                redelivered: delivery.redelivered,
                lend: delivery.lend,
            });
            false
        });
        given
    }

    fn bodies(&mut self) -> Vec<String> {
        self.given().into_iter().map(|given| given.body).collect()
    }

    /// The answers since the last call.
    fn answers(&mut self) -> Vec<Answer> {
        let mut answers = Vec::new();
        self.out.notices.retain(|(_, notice)| match notice {
            Notice::Answer { answer, .. } => {
                answers.push(answer.clone());
                false
            }
            _ => true,
        });
        answers
    }

    /// Promises kept or refused since the last call: first, last, kept.
    fn promised(&mut self) -> Vec<(u64, u64, bool)> {
        let mut promised = Vec::new();
        self.out.notices.retain(|(_, notice)| match notice {
            Notice::Promised { first, last, kept, .. } => {
                promised.push((*first, *last, *kept));
                false
            }
            _ => true,
        });
        promised
    }

    fn effects(&mut self) -> Vec<QueueEffect> {
        std::mem::take(&mut self.out.effects)
    }

    fn pull(&mut self) -> Pulled {
        self.pull_some(1000, 1 << 20)
    }

    fn pull_some(&mut self, rows_max: usize, bytes_max: usize) -> Pulled {
        self.apply(LocalEvent::Pull { rows_max, bytes_max });
        self.out.pulled.pop().expect("every pull is answered")
    }

    fn stored(&mut self, ticket: Ticket) {
        self.apply(LocalEvent::Stored { ticket, durable: true });
    }

    /// Pulls and flushes.
    fn write(&mut self) -> Pulled {
        let pulled = self.pull();
        self.stored(pulled.ticket);
        pulled
    }
}

/// The bodies of the rows that a pull inserts.
fn inserted(pulled: &Pulled) -> Vec<String> {
    pulled.lanes.iter().flat_map(|change| &change.inserts).map(|row| body(&row.message)).collect()
}
