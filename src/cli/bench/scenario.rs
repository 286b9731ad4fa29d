//! Loads, and the scenarios, which are loads with names.

use super::message::Distribution;
use clap::ValueEnum;

/// A load: the messages that are published, and how they are consumed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    pub(super) queues: u16,
    pub(super) publishers: u16,
    /// Additional connections that stay idle.
    pub(super) idle_connections: u16,
    /// Channels of each connection.
    pub(super) channels: u16,
    /// Body bytes.
    pub(super) size: Size,
    /// Number of priorities that messages have in turn; with 1 they have none.
    pub(super) priorities: u16,
    /// Whether messages are persistent, in durable queues.
    pub(super) persistent: bool,
    /// Most unconfirmed publishes of each publisher; `None` without confirms.
    pub(super) confirms_in_flight: Option<u64>,
    /// The consumers, if any.
    pub(super) consume: Option<Consume>,
    pub(super) route: Route,
    pub(super) workflow: Workflow,
    /// Number of messages that are published first.
    pub(super) standing: u64,
    /// Messages per second of all publishers together.
    pub(super) rate: Option<f64>,
    /// Whether each message is written by itself, as most client libraries do.
    pub(super) one_write_each: bool,
    /// How many messages publishers may be ahead of the consumers; `None` without a limit.
    pub(super) ahead_max: Option<u64>,
}

impl Load {
    /// How publishers distribute their numbers.
    pub(super) fn distribution(&self) -> Distribution {
        let queues = if self.route.is_fanout() { 1 } else { self.queues.into() };
        Distribution { queues, priorities: self.priorities.into() }
    }

    /// How many more messages may be published, given the numbers of published messages and consumed copies.
    pub(super) fn room(&self, published: u64, consumed: u64) -> u64 {
        self.ahead_max.map_or(u64::MAX, |most| (consumed / self.copies() + most).saturating_sub(published))
    }

    /// Number of copies of each message.
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

/// How messages are consumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Consume {
    pub(super) consumers: u16,
    /// Most unacknowledged deliveries; `None` means no-ack.
    pub(super) prefetch: Option<u16>,
    /// Number of deliveries that one acknowledgement covers.
    pub(super) ack_every: u32,
}

/// How messages are routed to queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// By queue name through the default exchange, to each queue in turn.
    Queue,
    /// Through an exchange. The bindings are distributed among the queues, by default one per queue. Each message's key
    /// matches one binding, in turn.
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

    /// The key that only this binding matches; a fanout exchange ignores it.
    pub(super) fn routing_key(self, binding: u32) -> String {
        format!("bench.{binding}.key")
    }
}

/// The sequence of publishing and consuming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Workflow {
    /// Publishers and consumers work at the same time, while the standing messages stay in the queues.
    Flow,
    /// Only the standing messages are consumed.
    Drain,
    /// As `Flow`, with a new connection for each message.
    Connect,
    /// Each publisher waits for a consumer's reply to one message before the next.
    Call,
    /// As `Flow`, with a worker between publisher and consumer: it takes messages from the publisher's queue and
    /// publishes them to the consumer's.
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
    /// as B, 10 publishers, 10 consumers and 10 queues, 100 confirms in flight each, prefetch 100
    #[value(name = "10x10x10")]
    TenPairs,
    /// publish only, 16 B, transient
    #[value(name = "C")]
    C,
    /// drain a million standing messages, 16 B, transient, no-ack
    #[value(name = "D")]
    D,
    /// as D, persistent and beyond what a queue keeps in memory
    #[value(name = "D2")]
    D2,
    /// one publish in flight, 16 B, transient
    #[value(name = "E")]
    E,
    /// one publish in flight, 1 KiB, persistent
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
    /// as B, through a worker that takes messages, publishes them to a second queue, and acknowledges them once that is
    /// confirmed, all on one channel; the consumer takes from the second queue, and publishers are at most 10,000
    /// messages ahead of it
    Relay,
}

/// Scenarios that are run one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ScenarioSet {
    /// A, B, 10x10x10 and F, each message written by itself, as most client libraries do
    OneWriteEach,
}

impl ScenarioSet {
    pub(super) fn scenarios(self) -> &'static [Scenario] {
        match self {
            Self::OneWriteEach => &[Scenario::A, Scenario::B, Scenario::TenPairs, Scenario::F],
        }
    }

    /// Whether each message is written by itself.
    pub(super) fn writes_each(self) -> bool {
        self == Self::OneWriteEach
    }
}

/// The standing messages of D and D2.
const STANDING: u64 = 1_000_000;

/// Enough messages to keep the workers of relay busy, and few enough that the load is not measured on a growing queue.
const RELAY_AHEAD: u64 = 10_000;

impl Scenario {
    pub(super) fn name(self) -> String {
        self.to_possible_value().expect("none is skipped").get_name().to_owned()
    }

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
            workflow: Workflow::Flow,
            standing: 0,
            rate: None,
            one_write_each: false,
            ahead_max: None,
        };
        let b =
            Load { size: Size::of(1024), persistent: true, confirms_in_flight: Some(1000), consume: acks(1000), ..a };
        let drain = Load { workflow: Workflow::Drain, standing: STANDING, ..a };
        let through = |kind, bindings| Route::Exchange { kind, bindings };
        match self {
            Self::A => a,
            Self::B => b,
            Self::TenPairs => Load {
                queues: 10,
                publishers: 10,
                confirms_in_flight: Some(100),
                consume: Some(Consume { consumers: 10, prefetch: Some(100), ack_every: 1 }),
                ..b
            },
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
            Self::Connections => Load { workflow: Workflow::Connect, ..a },
            Self::Rpc => Load { workflow: Workflow::Call, ..a },
            Self::Relay => Load { workflow: Workflow::Relay, ahead_max: Some(RELAY_AHEAD), ..b },
        }
    }
}
