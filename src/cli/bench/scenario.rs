//! Named loads: one queue, one connection per side.

use std::str::FromStr;

/// What is published and how it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Queues, published to in turn.
    pub(super) queues: u32,
    /// Body bytes.
    pub(super) size: usize,
    /// Persistent messages in a durable queue.
    pub(super) persistent: bool,
    /// Publishes that may be unconfirmed; none without confirms.
    pub(super) confirms_in_flight: Option<u64>,
    /// Who takes them.
    pub(super) consumer: Option<Consume>,
    /// Messages published before the clock starts; publishing ends there.
    pub(super) standing: u64,
}

/// How they are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Consume {
    /// Unacknowledged deliveries; none means no-ack.
    pub(super) prefetch: Option<u16>,
}

/// A named load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scenario {
    /// 1 publisher, 1 consumer, 16 B, transient, no-ack.
    A,
    /// 1 KiB persistent, 1,000 confirms in flight, prefetch 1,000, every message acknowledged.
    B,
    /// Publish only, 16 B, transient.
    C,
    /// Drain a million standing messages, 16 B, transient, no-ack.
    D,
    /// As D, persistent and beyond what a queue keeps in memory.
    D2,
    /// Confirm one by one, 16 B, transient.
    E,
    /// Confirm one by one, 1 KiB, persistent.
    F,
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "A" => Self::A,
            "B" => Self::B,
            "C" => Self::C,
            "D" => Self::D,
            "D2" => Self::D2,
            "E" => Self::E,
            "F" => Self::F,
            _ => return Err(format!("no scenario {text}; there are A, B, C, D, D2, E, F")),
        })
    }
}

/// The standing messages of D and D2.
const STANDING: u64 = 1_000_000;

impl Scenario {
    pub(super) fn load(self) -> Load {
        let transient =
            Load { queues: 1, size: 16, persistent: false, confirms_in_flight: None, consumer: None, standing: 0 };
        let no_ack = Some(Consume { prefetch: None });
        match self {
            Self::A => Load { consumer: no_ack, ..transient },
            Self::B => Load {
                queues: 1,
                size: 1024,
                persistent: true,
                confirms_in_flight: Some(1000),
                consumer: Some(Consume { prefetch: Some(1000) }),
                standing: 0,
            },
            Self::C => transient,
            Self::D => Load { consumer: no_ack, standing: STANDING, ..transient },
            Self::D2 => Load {
                consumer: no_ack,
                standing: STANDING,
                persistent: true,
                confirms_in_flight: Some(10_000),
                ..transient
            },
            Self::E => Load { confirms_in_flight: Some(1), ..transient },
            Self::F => Load { size: 1024, persistent: true, confirms_in_flight: Some(1), ..transient },
        }
    }
}
