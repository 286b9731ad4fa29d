//! Faults of a file, in words.

use std::fmt::{self, Display, Formatter};

/// The queue and level of a lane, as far as they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LaneName {
    pub(super) queue: Option<(String, String)>,
    pub(super) level: u8,
    pub(super) number: i64,
}

impl Display for LaneName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.queue {
            Some((vhost, queue)) => write!(f, "queue {queue:?} of vhost {vhost:?}, level {}", self.level),
            None => write!(f, "lane {} of no queue", self.number),
        }
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// SQLite's own check complains.
    Damaged(String),
    /// A range of keys of a table cannot be read.
    Unreadable { what: String, from: i64, to: i64 },
    /// A row that is no message.
    NoMessage { lane: LaneName, position: i64, why: &'static str },
    /// A lane's counters differ from its rows.
    Counters { lane: LaneName, counter: &'static str, noted: i64, found: i64 },
    /// Rows that belong to no lane.
    UnknownLane { number: i64, rows: u64 },
    /// A lane that belongs to no queue.
    UnknownQueue { lane: LaneName, rows: u64 },
    /// A body's count of references is wrong.
    BodyRefs { body: i64, noted: i64, found: i64 },
    /// A body that no row refers to.
    OrphanBody { body: i64 },
    /// Chunks without a body.
    OrphanChunks { body: i64, chunks: u64 },
    /// A binding to a queue that does not exist.
    Binding { vhost: String, source: String, queue: String },
}

/// Kinds of faults, by their repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Remedy {
    Salvage,
    RemoveRows,
    Count,
    RemoveLane,
    RemoveBodies,
    RemoveBindings,
}

impl Finding {
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Damaged(_) | Self::Unreadable { .. } => Remedy::Salvage,
            Self::NoMessage { .. } | Self::UnknownLane { .. } => Remedy::RemoveRows,
            Self::Counters { .. } | Self::BodyRefs { .. } => Remedy::Count,
            Self::UnknownQueue { .. } => Remedy::RemoveLane,
            Self::OrphanBody { .. } | Self::OrphanChunks { .. } => Remedy::RemoveBodies,
            Self::Binding { .. } => Remedy::RemoveBindings,
        }
    }
}

impl Display for Remedy {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Salvage => "copy what can be read into a new file, which takes the old one's place",
            Self::RemoveRows => "remove rows that are no messages or belong to nobody",
            Self::Count => "count anew",
            Self::RemoveLane => "erase what belongs to no queue",
            Self::RemoveBodies => "remove bodies and chunks that nobody names",
            Self::RemoveBindings => "remove bindings to queues that do not exist",
        })
    }
}

impl Display for Finding {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(text) => write!(f, "SQLite: {text}"),
            Self::Unreadable { what, from, to } if from == to => write!(f, "{what}: {from} cannot be read"),
            Self::Unreadable { what, from, to } => write!(f, "{what}: {from} to {to} cannot be read"),
            Self::NoMessage { lane, position, why } => write!(f, "{lane}: the row at position {position} {why}"),
            Self::Counters { lane, counter, noted, found } => {
                write!(f, "{lane}: {counter} is noted as {noted}, and is {found}")
            }
            Self::UnknownLane { number, rows } => {
                write!(f, "{rows} rows belong to the lane {number}, which is not there")
            }
            Self::UnknownQueue { lane, rows } => write!(f, "{lane}: {rows} rows"),
            Self::BodyRefs { body, noted, found } => {
                write!(f, "body {body}: {noted} rows are noted to share it, and {found} do")
            }
            Self::OrphanBody { body } => write!(f, "body {body}: no row names it"),
            Self::OrphanChunks { body, chunks } => {
                write!(f, "{chunks} chunks belong to the body {body}, which is not there")
            }
            Self::Binding { vhost, source, queue } => {
                write!(
                    f,
                    "vhost {vhost:?}: the exchange {source:?} has a binding to the queue {queue:?}, which is not there"
                )
            }
        }
    }
}
