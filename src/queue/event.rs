//! Local events: changes on the node of the queue, in its stores, of its timers and of its life.
//!
//! A local event never travels between nodes. Tickets, groups and loads are numbers of one store and of one process, and
//! timers and shutdown concern only the node that runs the queue.

use super::settings::ChangeableSettings;
use crate::model::Promise;
use crate::model::stored::{Group, Row};

/// The number of one submission of a queue to the store; rises per queue.
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
    /// The writer asks for rows. Local: rows go to the store of the queue's own node.
    Pull {
        /// Most rows to hand over, about.
        rows_max: usize,
        /// Most bytes to hand over, about.
        bytes_max: usize,
    },
    /// Everything that the queue has for the store is submitted now, as one part of a group. Local: one writer collects the
    /// parts of a group for one transaction of one store.
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
    /// The rows of a ticket are flushed, or refused for good. Local: the ticket is a number of this process.
    Stored {
        /// The ticket.
        ticket: Ticket,
        /// Whether they are flushed; if not, they were refused for good.
        durable: bool,
    },
    /// The scratch store asks for rows. Local: the scratch store belongs to the process.
    Spill {
        /// Most rows to hand over, about.
        rows_max: usize,
        /// Most bytes to hand over, about.
        bytes_max: usize,
    },
    /// The scratch store has stored the rows of a ticket, or refused them for good.
    Spilled {
        /// The ticket.
        ticket: Ticket,
        /// Whether they are stored; if not, they were refused for good.
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
    /// Whether heads may be longer than their windows afterwards: rows were loaded, or written rows may leave memory now.
    pub(super) fn may_exceed_heads(&self) -> bool {
        matches!(self, Self::Replaced { .. } | Self::Stored { .. } | Self::Loaded { .. })
    }
}
