//! Local events: what happens to a queue on its own node: in its stores, by its timers, in its life.
//!
//! A local event never travels between nodes. Tickets, groups and loads are numbers of one store and of one process, and
//! timers and shutdown concern only the node that runs the queue.

use super::settings::ChangeableSettings;
use crate::model::Promise;
use crate::model::stored::{Group, Row};

/// Numbers what a queue submitted to the store; rises per queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Rows of a level that were read back, by rising position.
#[derive(Clone, Debug, Default)]
pub struct LoadedRows {
    /// Rows of the store, if the load asked it.
    pub durable: Option<Vec<Row>>,
    /// Rows of the scratch store, if the load asked it.
    pub scratch: Option<Vec<Row>>,
}

/// An event on the node of the queue.
#[derive(Clone, Debug)]
pub enum LocalEvent {
    /// The writer is free for rows. Local: rows go to the store of the queue's own node.
    Pull {
        /// At most about so many rows.
        rows_max: usize,
        /// At most about so many bytes.
        bytes_max: usize,
    },
    /// All that the queue has for the store goes there now, as one part of a group. Local: the parts of a group are held
    /// together by one writer, for one transaction of one store.
    Seal {
        /// The group.
        group: Group,
        /// The promise to keep once the group is flushed.
        promise: Option<Promise>,
    },
    /// Copies of dead letters are on their way to the store, and with them every copy of these originals is safe: the
    /// originals leave in the same group. Local, as `Seal` is: one transaction of one store. Between stores
    /// `QueueCommand::CopySettled` reports each copy.
    Replaced {
        /// The originals' numbers.
        leaving: Vec<u64>,
        /// The group.
        group: Group,
    },
    /// What was submitted under a ticket is flushed, or never will be. Local: the ticket is a number of this process.
    Stored {
        /// The ticket.
        ticket: Ticket,
        /// Whether it is flushed; if not, it was refused for good.
        durable: bool,
    },
    /// The scratch store is free for rows. Local: the scratch store belongs to the process.
    Spill {
        /// At most about so many rows.
        rows_max: usize,
        /// At most about so many bytes.
        bytes_max: usize,
    },
    /// The scratch store has the rows of a ticket, or never will have them.
    Spilled {
        /// The ticket.
        ticket: Ticket,
        /// Whether it has them; if not, it refused them for good.
        durable: bool,
    },
    /// Rows of the stored middle were read. Local: the level's load number lives in this process.
    Loaded {
        /// The level that asked.
        level: u8,
        /// The number of the load.
        load: u64,
        /// The rows; none when the read failed.
        rows: Option<LoadedRows>,
    },
    /// A deadline passed: the node that runs the queue has its timers.
    Tick,
    /// The topology does not have the queue any more. Local: every node learns of the deletion from the topology, not from
    /// the queue.
    End,
    /// The node stops: the ceilings that the store keeps become exact. Local: only this node stops.
    Quiesce,
    /// The settings that may change have changed. Local, as `End` is: every node learns of policies from the topology. Boxed,
    /// since it is rare and larger than the other inputs.
    ///
    /// The new settings apply at once, as RabbitMQ's policies do:
    ///
    /// - A shorter length with `drop-head` drops or dead-letters from the head in this input. With `reject-publish` nothing
    ///   that is in the queue leaves; new messages are refused until the queue is within the limit.
    /// - A new time to live applies to messages published from now on, and messages in the queue keep the expiry that they
    ///   got when they were published, as RabbitMQ's classic queues do.
    /// - A new dead letter exchange or key applies to messages that die from now on.
    /// - `expires` counts from this input on, as RabbitMQ starts its timer anew when a policy changes.
    Configure(Box<ChangeableSettings>),
}

impl LocalEvent {
    /// Whether heads may be longer than their windows afterwards: by rows that came, or because what was written may leave
    /// memory now.
    pub(super) fn may_exceed_heads(&self) -> bool {
        matches!(self, Self::Replaced { .. } | Self::Stored { .. } | Self::Loaded { .. })
    }
}
