//! Named loads, and what a load is.

use super::message::Deal;
use clap::ValueEnum;

/// What is published and how it is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    pub(super) queues: u16,
    pub(super) publishers: u16,
    /// Connections beside those of publishers and consumers, which do nothing.
    pub(super) idle_connections: u16,
    /// Channels of each connection.
    pub(super) channels: u16,
    /// Body bytes.
    pub(super) size: Size,
    /// Priorities that messages bear in turn; with 1 they have none.
    pub(super) priorities: u16,
    /// Persistent messages in durable queues.
    pub(super) persistent: bool,
    /// Publishes that may be unconfirmed on each channel; none without confirms.
    pub(super) confirms_in_flight: Option<u64>,
    /// Who takes them.
    pub(super) consume: Option<Consume>,
    pub(super) route: Route,
    pub(super) course: Course,
    /// Messages that are published first.
    pub(super) standing: u64,
    /// Messages per second of all publishers together.
    pub(super) rate: Option<f64>,
    /// A write for each message, as most client libraries do.
    pub(super) one_write_each: bool,
    /// How many messages publishers may be ahead of the consumers; none without a limit.
    pub(super) ahead_max: Option<u64>,
}

impl Load {
    /// How publishers deal out their numbers.
    pub(super) fn deal(&self) -> Deal {
        let queues = if self.route.is_fanout() { 1 } else { self.queues.into() };
        Deal { queues, priorities: self.priorities.into() }
    }

    /// How many messages may be published when so many are, and so many copies are consumed.
    pub(super) fn room(&self, published: u64, consumed: u64) -> u64 {
        self.ahead_max.map_or(u64::MAX, |most| (consumed / self.copies() + most).saturating_sub(published))
    }

    /// Copies that each message makes.
    pub(super) fn copies(&self) -> u64 {
        if self.route.is_fanout() { self.queues.into() } else { 1 }
    }
}

/// The limits of uniformly distributed sizes, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) least: usize,
    pub(super) most: usize,
}

impl Size {
    pub(super) const fn of(bytes: usize) -> Self {
        Self { least: bytes, most: bytes }
    }

    pub(super) fn mean(self) -> usize {
        self.least.midpoint(self.most)
    }
}

/// How they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Consume {
    pub(super) consumers: u16,
    /// Unacknowledged deliveries; none means no-ack.
    pub(super) prefetch: Option<u16>,
    /// Deliveries that one acknowledgement covers.
    pub(super) ack_every: u32,
}

/// How messages find their queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// By the queue's name, each queue in turn.
    Queue,
    /// Through an exchange. Bindings are dealt out to the queues, one for each unless said otherwise; the messages' keys
    /// match one binding each, in turn.
    Exchange { kind: Kind, bindings: Option<u32> },
}

impl Route {
    fn is_fanout(self) -> bool {
        matches!(self, Self::Exchange { kind: Kind::Fanout, .. })
    }
}

/// A kind of exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Kind {
    Direct,
    /// Each message to all queues.
    Fanout,
    Topic,
    Headers,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
        }
    }

    pub(super) fn binding_key(self, binding: u32) -> String {
        if self == Self::Topic { format!("bench.{binding}.*") } else { self.routing_key(binding) }
    }

    /// What this binding matches, and no other, but for a fanout exchange.
    pub(super) fn routing_key(self, binding: u32) -> String {
        format!("bench.{binding}.key")
    }
}

/// What happens when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Publishers and consumers at once, while the standing messages stay in the queues.
    Flow,
    /// The standing messages are taken, and no other.
    Drain,
    /// As flow, with a connection for each message.
    Connect,
    /// Each publisher waits for a consumer's reply to one message before the next.
    Call,
    /// As flow, with a worker between publisher and consumer: it takes a message from the publisher's queue and publishes it
    /// to the consumer's.
    Relay,
}

/// A named load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Scenario {
    /// 1 publisher, 1 consumer, 16 B, transient, no-ack
    #[value(name = "A")]
    A,
    /// 1 KiB persistent, 1,000 confirms in flight, prefetch 1,000, every message acknowledged
    #[value(name = "B")]
    B,
    /// publish only, 16 B, transient
    #[value(name = "C")]
    C,
    /// drain a million standing messages, 16 B, transient, no-ack
    #[value(name = "D")]
    D,
    /// as D, persistent and beyond what a queue keeps in memory
    #[value(name = "D2")]
    D2,
    /// confirm one by one, 16 B, transient
    #[value(name = "E")]
    E,
    /// confirm one by one, 1 KiB, persistent
    #[value(name = "F")]
    F,
    /// as B, without consumers
    Backlog,
    /// as B, while 100,000 messages stand in the queue
    Churn,
    /// as A, through a fanout exchange to 100 queues
    Fanout,
    /// as A, over 1,000 queues
    Queues,
    /// as A, through a topic exchange with 10,000 bindings
    Topic,
    /// as B, bodies of 1 MiB, 10 in flight
    Large,
    /// as B, priorities 0 to 9
    Priorities,
    /// as A, a connection opened and closed for each message; latency from connect to close-ok
    Connections,
    /// requests that a consumer answers, 16 B, transient, one in flight; latency of the round trip
    Rpc,
    /// as B, through a worker that on one channel takes, publishes to a second queue, and acknowledges once that is confirmed;
    /// the consumer takes from the second queue, and publishers are at most 10,000 messages ahead of it
    Relay,
}

/// The standing messages of D and D2.
const STANDING: u64 = 1_000_000;

/// Enough to keep the workers of relay busy, and so few that what is measured is no growing queue.
const RELAY_AHEAD: u64 = 10_000;

impl Scenario {
    pub(super) fn load(self) -> Load {
        let no_ack = Some(Consume { consumers: 1, prefetch: None, ack_every: 1 });
        let acks = |prefetch| Some(Consume { consumers: 1, prefetch: Some(prefetch), ack_every: 1 });
        let a = Load {
            queues: 1,
            publishers: 1,
            idle_connections: 0,
            channels: 1,
            size: Size::of(16),
            priorities: 1,
            persistent: false,
            confirms_in_flight: None,
            consume: no_ack,
            route: Route::Queue,
            course: Course::Flow,
            standing: 0,
            rate: None,
            one_write_each: false,
            ahead_max: None,
        };
        let b =
            Load { size: Size::of(1024), persistent: true, confirms_in_flight: Some(1000), consume: acks(1000), ..a };
        let drain = Load { course: Course::Drain, standing: STANDING, ..a };
        let through = |kind, bindings| Route::Exchange { kind, bindings };
        match self {
            Self::A => a,
            Self::B => b,
            Self::C => Load { consume: None, ..a },
            Self::D => drain,
            Self::D2 => Load { persistent: true, confirms_in_flight: Some(10_000), ..drain },
            Self::E => Load { confirms_in_flight: Some(1), consume: None, ..a },
            Self::F => Load { confirms_in_flight: Some(1), consume: None, ..b },
            Self::Backlog => Load { consume: None, ..b },
            Self::Churn => Load { standing: 100_000, ..b },
            Self::Fanout => Load { queues: 100, route: through(Kind::Fanout, None), ..a },
            Self::Queues => Load { queues: 1000, ..a },
            Self::Topic => Load { route: through(Kind::Topic, Some(10_000)), ..a },
            Self::Large => Load { size: Size::of(1 << 20), confirms_in_flight: Some(10), consume: acks(10), ..b },
            Self::Priorities => Load { priorities: 10, ..b },
            Self::Connections => Load { course: Course::Connect, ..a },
            Self::Rpc => Load { course: Course::Call, ..a },
            Self::Relay => Load { course: Course::Relay, ahead_max: Some(RELAY_AHEAD), ..b },
        }
    }
}
