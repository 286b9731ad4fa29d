//! What a queue is told.

use crate::model::stored::{Group, Row};
use crate::model::{
    ChannelKey, ConnectionId, ConsumerKey, Holder, LendId, LimitId, LimitKey, Message, Name, Promise, QueueId,
    RequestNo,
};

/// Numbers what a queue submitted to the store; rises per queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Who asked, and where the answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The connection.
    pub connection: ConnectionId,
    /// Its channel.
    pub channel: ChannelKey,
    /// Which request of the channel.
    pub request: RequestNo,
}

impl Requester {
    /// The channel as a holder of deliveries.
    pub fn holder(&self) -> Holder {
        Holder { connection: self.connection, channel: self.channel }
    }
}

/// A message for the queue.
#[derive(Clone, Debug)]
pub struct Enqueue {
    /// The message.
    pub message: Message,
    /// What is owed to its publisher.
    pub promise: Option<Promise>,
}

/// Rows of a level that were read back, by rising position.
#[derive(Clone, Debug, Default)]
pub struct LoadedRows {
    /// Of the store, if it was asked.
    pub durable: Option<Vec<Row>>,
    /// Of the scratch store, if it was asked.
    pub scratch: Option<Vec<Row>>,
}

/// Where a dead-lettered copy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The queue that keeps the original.
    pub queue: QueueId,
    /// The queue's number for it.
    pub leaving: u64,
}

/// A consumer to register.
#[derive(Clone, Debug)]
pub struct Consume {
    /// Who asked.
    pub requester: Requester,
    /// The consumer.
    pub key: ConsumerKey,
    /// Its tag, for listings.
    pub tag: Name,
    /// Deliveries count as acknowledged when handed over.
    pub no_ack: bool,
    /// Refuses other consumers.
    pub exclusive: bool,
    /// Higher goes first.
    pub priority: i64,
    /// How many unacknowledged deliveries it may hold; 0 is no limit.
    pub prefetch: u32,
    /// The prefetch limit of its channel, if there is one.
    pub channel_limit: Option<LimitId>,
}

/// What became of lent messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done with.
    Acknowledged,
    /// Back to its place.
    Requeued,
    /// Dead-lettered or discarded.
    Rejected,
}

/// One input of the machine.
#[derive(Clone, Debug)]
pub enum QueueInput {
    /// Messages, in order.
    Publish(Vec<Enqueue>),
    /// Lent messages are settled.
    Settle {
        /// Which lendings; those that are not current are ignored.
        lends: Vec<LendId>,
        /// How.
        outcome: Outcome,
    },
    /// A delivery the session could not take: back untouched.
    Bounce {
        /// Which lending.
        lend: LendId,
    },
    /// Deliveries reached the socket.
    Written {
        /// Of which consumer.
        consumer: ConsumerKey,
        /// How many.
        count: u32,
        /// Their bytes.
        bytes: u64,
    },
    /// A consumer comes.
    Consume(Consume),
    /// A consumer goes; what it holds stays lent.
    Cancel {
        /// Who asked.
        requester: Requester,
        /// Which consumer.
        key: ConsumerKey,
    },
    /// A message is asked for.
    Get {
        /// Who asked.
        requester: Requester,
        /// Counts as acknowledged when handed over.
        no_ack: bool,
    },
    /// The counts are asked for (a declaration of an existing queue).
    Status {
        /// Who asked.
        requester: Requester,
    },
    /// All ready messages go.
    Purge {
        /// Who asked.
        requester: Requester,
    },
    /// The queue is to be deleted.
    Delete {
        /// Who asked.
        requester: Requester,
        /// Only without consumers.
        if_unused: bool,
        /// Only without ready messages.
        if_empty: bool,
    },
    /// The queue is gone from the topology: end it.
    End,
    /// A channel has ended: all it holds goes back.
    Detach {
        /// The channel.
        holder: Holder,
    },
    /// A channel's own prefetch limit came or went. One that came is answered with `Notice::Limited`.
    ChannelLimit {
        /// The channel.
        holder: Holder,
        /// Its limit, if it has one now.
        limit: Option<LimitId>,
    },
    /// Permits of a channel for which the queue asked. What it does not use it gives back (`Permits::end_grant`).
    Grant {
        /// Of which limit.
        limit: LimitKey,
        /// How many.
        permits: u32,
    },
    /// How many copies of a dead letter were made.
    Copies {
        /// Which original.
        leaving: u64,
        /// How many queues took one.
        copies: u32,
    },
    /// A copy is safe (stored, or gone the right way).
    CopySettled {
        /// Which original.
        leaving: u64,
    },
    /// The writer is free for rows.
    Pull {
        /// At most about so many rows.
        rows_max: usize,
        /// At most about so many bytes.
        bytes_max: usize,
    },
    /// All that the queue has for the store goes there now, as one part of a group; who is told of it, if anybody.
    Seal {
        /// The group.
        group: Group,
        /// Kept once the group is flushed.
        promise: Option<Promise>,
    },
    /// The only copies of dead letters that are not safe yet, or the last of several, are on their way to the store: the
    /// originals go with them, in the same group.
    Replaced {
        /// Which originals.
        leaving: Vec<u64>,
        /// The group.
        group: Group,
    },
    /// What was submitted under a ticket is flushed, or never will be.
    Stored {
        /// The ticket.
        ticket: Ticket,
        /// Flushed, or refused for good.
        durable: bool,
    },
    /// The scratch store is free for rows.
    Spill {
        /// At most about so many rows.
        rows_max: usize,
        /// At most about so many bytes.
        bytes_max: usize,
    },
    /// What was handed to the scratch store under a ticket is there, or never will be.
    Spilled {
        /// The ticket.
        ticket: Ticket,
        /// There, or refused for good.
        durable: bool,
    },
    /// Rows of the stored middle were read.
    Loaded {
        /// Which level asked.
        level: u8,
        /// Which of its loads.
        load: u64,
        /// The rows; none when the read failed.
        rows: Option<LoadedRows>,
    },
    /// A deadline passed.
    Tick,
    /// The broker stops: leave exact words for the next start.
    Quiesce,
}

impl QueueInput {
    /// Whether heads may be longer than their windows after it: by what came back, or by a load that was asked for before
    /// that; or whether what lay behind a lent message may leave memory now.
    pub(super) fn may_exceed_heads(&self) -> bool {
        matches!(
            self,
            Self::Settle { .. }
                | Self::Bounce { .. }
                | Self::Detach { .. }
                | Self::Copies { .. }
                | Self::CopySettled { .. }
                | Self::Replaced { .. }
                | Self::Stored { .. }
                | Self::Loaded { .. }
        )
    }
}
