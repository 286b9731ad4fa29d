//! Named loads, and what a load is.

use clap::ValueEnum;

/// What is published and how it is taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    pub(super) queues: u16,
    pub(super) publishers: u16,
    /// Body bytes.
    pub(super) size: usize,
    /// Persistent messages in durable queues.
    pub(super) persistent: bool,
    /// Publishes that may be unconfirmed on each channel; none without confirms.
    pub(super) confirms_in_flight: Option<u64>,
    /// Who takes them.
    pub(super) consume: Option<Consume>,
    pub(super) route: Route,
    pub(super) course: Course,
    /// Messages per second of all publishers together.
    pub(super) rate: Option<f64>,
    /// A write for each message, as most client libraries do.
    pub(super) one_write_each: bool,
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
    /// Each message to all queues.
    Fanout,
    /// Through a topic exchange with so many bindings.
    Topic { bindings: u32 },
}

/// What happens when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Course {
    /// Publishers and consumers at once, while so many messages stand in the queues.
    Flow { standing: u64 },
    /// So many are published before the clock starts, and then taken.
    Drain { standing: u64 },
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
}

/// The standing messages of D and D2.
const STANDING: u64 = 1_000_000;

impl Scenario {
    pub(super) fn load(self) -> Load {
        let no_ack = Some(Consume { consumers: 1, prefetch: None, ack_every: 1 });
        let acks = |prefetch| Some(Consume { consumers: 1, prefetch: Some(prefetch), ack_every: 1 });
        let a = Load {
            queues: 1,
            publishers: 1,
            size: 16,
            persistent: false,
            confirms_in_flight: None,
            consume: no_ack,
            route: Route::Queue,
            course: Course::Flow { standing: 0 },
            rate: None,
            one_write_each: false,
        };
        let b = Load { size: 1024, persistent: true, confirms_in_flight: Some(1000), consume: acks(1000), ..a };
        let drain = Course::Drain { standing: STANDING };
        match self {
            Self::A => a,
            Self::B => b,
            Self::C => Load { consume: None, ..a },
            Self::D => Load { course: drain, ..a },
            Self::D2 => Load { course: drain, persistent: true, confirms_in_flight: Some(10_000), ..a },
            Self::E => Load { confirms_in_flight: Some(1), consume: None, ..a },
            Self::F => Load { confirms_in_flight: Some(1), consume: None, ..b },
            Self::Backlog => Load { consume: None, ..b },
            Self::Churn => Load { course: Course::Flow { standing: 100_000 }, ..b },
            Self::Fanout => Load { queues: 100, route: Route::Fanout, ..a },
            Self::Queues => Load { queues: 1000, ..a },
            Self::Topic => Load { route: Route::Topic { bindings: 10_000 }, ..a },
            Self::Large => Load { size: 1 << 20, confirms_in_flight: Some(10), consume: acks(10), ..b },
        }
    }
}
