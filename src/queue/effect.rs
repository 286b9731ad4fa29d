//! The requests of a queue to its driver.

use super::command::{Origin, Requester};
use super::deaths::DeadLetterReason;
use super::event::Ticket;
use crate::model::stored::{Group, LaneChange, PositionRange};
use crate::model::{Answer, ConnectionId, Lane, Message, Notice, Promise, PromiseOwner, QueueId};

/// Rows and removals for the store, in answer to a pull.
#[derive(Clone, Debug, Default)]
pub struct Pulled {
    /// The ticket, which comes back with `Stored`.
    pub ticket: Ticket,
    /// Changes of lanes, possibly none.
    pub lanes: Vec<LaneChange>,
    /// Lanes that the queue has abandoned.
    pub drop_lanes: Vec<Lane>,
    /// Number of inserted rows.
    pub rows: usize,
    /// Number of removed rows.
    pub removed: usize,
    /// Bytes of the inserted rows.
    pub bytes: usize,
    /// Whether more could be pulled right away.
    pub more: bool,
    /// The group that the contribution is part of.
    pub group: Option<Group>,
    /// Originals of dead letters whose copies are among the rows: their queues remove them in the same transaction.
    pub replaces: Vec<Origin>,
}

/// One request to the driver.
#[derive(Clone, Debug)]
pub enum QueueEffect {
    /// Publish a dead message to the exchange of the queue's settings.
    DeadLetter {
        /// The original message.
        message: Message,
        /// Why the message died.
        reason: DeadLetterReason,
        /// The original, if the queue keeps it until the copies are safe.
        leaving: Option<Origin>,
    },
    /// A copy that another queue waits for is safe.
    CopySettled {
        /// The queue that keeps the original.
        queue: QueueId,
        /// The queue's number for the original.
        leaving: u64,
    },
    /// Read rows of the stored middle.
    Load {
        /// The lane.
        lane: Lane,
        /// The number of the load, which comes back with `Loaded`.
        load: u64,
        /// The range to read from the store.
        durable: Option<PositionRange>,
        /// The range to read from the scratch store, and the generation of the lane.
        scratch: Option<(u32, PositionRange)>,
        /// Most rows to read.
        rows_max: usize,
        /// Most bytes to read, about.
        bytes_max: usize,
    },
    /// A lane held more rows (or fewer, if negative) than its numbers: the store is damaged. The queue has corrected its counts.
    Miscounted {
        /// The lane.
        lane: Lane,
        /// Rows found beyond those expected.
        rows: i64,
        /// Body bytes found beyond those expected.
        body_bytes: i64,
    },
    /// A lane has given out all its positions, and some of its rows live: persistent messages are refused until none does.
    NoPositions {
        /// The lane.
        lane: Lane,
    },
    /// The queue agrees to a client's deletion: remove it from the topology and answer.
    Deleted {
        /// The request to answer.
        requester: Requester,
        /// Ready messages that were deleted with the queue.
        message_count: u64,
    },
    /// The queue is unused (auto-delete or expiry): remove it from the topology.
    Unused,
}

/// Counters of one turn, folded into the broker's by the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages published to the queue.
    pub published: u64,
    /// Messages delivered to consumers that acknowledge.
    pub delivered_manual_ack: u64,
    /// Messages delivered to consumers that do not acknowledge.
    pub delivered_auto_ack: u64,
    /// Messages got with acknowledgement.
    pub got_manual_ack: u64,
    /// Messages got without acknowledgement.
    pub got_auto_ack: u64,
    /// Gets of an empty queue.
    pub get_empty: u64,
    /// Messages delivered again.
    pub redelivered: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Messages dropped or dead-lettered because of a length limit.
    pub overflowed: u64,
    /// Messages expired.
    pub expired: u64,
    /// Messages rejected without requeue.
    pub rejected: u64,
    /// Persistent messages published to durable queues.
    pub durable_in: u64,
    /// Persistent messages that left a durable queue before they were written.
    pub never_written: u64,
}

/// All effects of a turn. Notices and promises keep their order; one vector each, reused by the driver.
#[derive(Debug, Default)]
pub struct Effects {
    /// Notices to connections, in order.
    pub notices: Vec<(ConnectionId, Notice)>,
    /// Requests to the driver, in order.
    pub effects: Vec<QueueEffect>,
    /// Contributions to the writer.
    pub pulled: Vec<Pulled>,
    /// Contributions to the scratch store's writer.
    pub spilled: Vec<Pulled>,
    /// Counters of the turn.
    pub counts: Counts,
}

impl Effects {
    /// Answers a request.
    pub(super) fn answer(&mut self, requester: Requester, answer: Answer) {
        let notice = Notice::Answer { channel: requester.channel, request: requester.request, answer };
        self.notices.push((requester.connection, notice));
    }

    /// Keeps or refuses a promise; neighbours in sequence become one notice.
    pub fn promise(&mut self, promise: Promise, kept: bool) {
        match promise.owner {
            PromiseOwner::Queue(queue) => {
                self.effects.push(QueueEffect::CopySettled { queue, leaving: promise.sequence });
            }
            PromiseOwner::Channel(holder) => {
                if let Some((connection, Notice::Promised { channel, last, kept: also, .. })) = self.notices.last_mut()
                    && *connection == holder.connection
                    && *channel == holder.channel
                    && *also == kept
                    && *last + 1 == promise.sequence
                {
                    *last = promise.sequence;
                    return;
                }
                let (first, last) = (promise.sequence, promise.sequence);
                self.notices.push((holder.connection, Notice::Promised { channel: holder.channel, first, last, kept }));
            }
        }
    }
}
