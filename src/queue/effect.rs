//! What a queue asks of its driver.

use super::command::{Origin, Requester};
use super::deaths::DeadLetterReason;
use super::event::Ticket;
use crate::model::stored::{Group, LaneChange, PositionRange};
use crate::model::{Answer, ConnectionId, Lane, Message, Notice, Promise, PromiseOwner, QueueId};

/// Rows and removals for the store, in answer to a pull.
#[derive(Clone, Debug, Default)]
pub struct Pulled {
    /// Comes back with `Stored`.
    pub ticket: Ticket,
    /// Changes of lanes; empty when there was nothing.
    pub lanes: Vec<LaneChange>,
    /// Lanes left behind by a purge.
    pub drop_lanes: Vec<Lane>,
    /// Rows inserted.
    pub rows: usize,
    /// Rows removed.
    pub removed: usize,
    /// Bytes of the rows inserted.
    pub bytes: usize,
    /// Whether more could be pulled right away.
    pub more: bool,
    /// The group that it is part of.
    pub group: Option<Group>,
    /// Originals of dead letters whose copies are among the rows: their queues are to let them go in the same transaction.
    pub replaces: Vec<Origin>,
}

/// Something only the driver can do.
#[derive(Clone, Debug)]
pub enum QueueEffect {
    /// Publish a dead message to the exchange of the queue's settings.
    DeadLetter {
        /// The message as it was.
        message: Message,
        /// Why it died.
        reason: DeadLetterReason,
        /// The original, when the queue keeps it until the copies are safe.
        leaving: Option<Origin>,
    },
    /// A copy that another queue waits for is safe.
    CopySettled {
        /// The queue that keeps the original.
        queue: QueueId,
        /// Its number for it.
        leaving: u64,
    },
    /// Read rows of the stored middle.
    Load {
        /// The lane.
        lane: Lane,
        /// Comes back with `Loaded`.
        load: u64,
        /// What to read of the store.
        durable: Option<PositionRange>,
        /// What to read of the scratch store, and from which generation of the lane.
        scratch: Option<(u32, PositionRange)>,
        /// At most so many rows.
        rows_max: usize,
        /// At most about so many bytes.
        bytes_max: usize,
    },
    /// A lane held more rows (or fewer, when negative) than its numbers: the store is damaged. The queue's counts are
    /// right again.
    Miscounted {
        /// The lane.
        lane: Lane,
        /// Rows found beyond those expected.
        rows: i64,
        /// Body bytes found beyond those expected.
        body_bytes: i64,
    },
    /// A lane has given out all its positions, and something in it lives: persistent messages are refused until nothing does.
    NoPositions {
        /// The lane.
        lane: Lane,
    },
    /// The queue agreed to be deleted at a client's wish: take it out of the topology and answer.
    Deleted {
        /// Whom to answer.
        requester: Requester,
        /// Ready messages that went with it.
        message_count: u64,
    },
    /// The queue has outlived its use (auto-delete or expiry): take it out of the topology.
    Unused,
}

/// Counters of one turn, folded into the broker's by the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages that came in.
    pub published: u64,
    /// Delivered to consumers that acknowledge.
    pub delivered_manual_ack: u64,
    /// Delivered to consumers that do not.
    pub delivered_auto_ack: u64,
    /// Got, to be acknowledged.
    pub got_manual_ack: u64,
    /// Got without acknowledgement.
    pub got_auto_ack: u64,
    /// Gets that found nothing.
    pub get_empty: u64,
    /// Delivered again.
    pub redelivered: u64,
    /// Acknowledged.
    pub acknowledged: u64,
    /// Dead or dropped beyond the limits.
    pub overflowed: u64,
    /// Expired.
    pub expired: u64,
    /// Rejected without requeue.
    pub rejected: u64,
    /// Persistent messages taken in by durable queues.
    pub durable_in: u64,
    /// Of these, those that left before they were written.
    pub never_written: u64,
}

/// All effects of a turn. Notices and promises keep their order; one vector each, reused by the driver.
#[derive(Debug, Default)]
pub struct Effects {
    /// For connections, in order.
    pub notices: Vec<(ConnectionId, Notice)>,
    /// For the driver, in order.
    pub effects: Vec<QueueEffect>,
    /// For the writer.
    pub pulled: Vec<Pulled>,
    /// For the scratch store's writer.
    pub spilled: Vec<Pulled>,
    /// Counters.
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
