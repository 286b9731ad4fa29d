//! Commands: requests of clients and other queues to a queue.
//!
//! A command is plain data. It names connections, channels, consumers and lendings, never a store, a ticket or a lane, so it
//! means the same on the node of the connection and on the node of the queue.

use crate::model::{
    ChannelKey, ConnectionId, ConsumerKey, Holder, LendId, LimitId, LimitKey, Message, Name, Promise, QueueId,
    RequestNo, SettleOutcome,
};

/// Who made a request, and where the answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The connection that made the request.
    pub connection: ConnectionId,
    /// The channel of the connection.
    pub channel: ChannelKey,
    /// The channel's number for the request.
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
    /// The promise that the queue owes to the publisher.
    pub promise: Option<Promise>,
}

/// Where a dead-lettered copy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The queue that keeps the original.
    pub queue: QueueId,
    /// The queue's number for the original.
    pub leaving: u64,
}

/// A consumer to register.
#[derive(Clone, Debug)]
pub struct Consume {
    /// Who made the request.
    pub requester: Requester,
    /// The consumer's key.
    pub key: ConsumerKey,
    /// The consumer's tag, for listings.
    pub tag: Name,
    /// Whether deliveries count as acknowledged when they are handed over.
    pub no_ack: bool,
    /// Whether the consumer refuses other consumers.
    pub exclusive: bool,
    /// Consumers of a higher priority are served first.
    pub priority: i64,
    /// How many unacknowledged deliveries the consumer may hold; 0 is no limit.
    pub prefetch: u32,
    /// The prefetch limit of the consumer's channel, if the channel has one.
    pub channel_limit: Option<LimitId>,
}

/// A command to a queue. Each may come from another node; see each variant for the sender.
#[derive(Clone, Debug)]
pub enum QueueCommand {
    /// Messages, in order, from a connection or from a queue that dead-letters them.
    Publish(Vec<Enqueue>),
    /// Lent messages are settled. The connection that holds them sends it.
    Settle {
        /// The lendings; those that are not current are ignored.
        lends: Vec<LendId>,
        /// How they are settled.
        outcome: SettleOutcome,
    },
    /// A delivery that the session could not take goes back unchanged. The connection sends it.
    Bounce {
        /// The lending.
        lend: LendId,
    },
    /// Deliveries were written to the socket. The connection reports it to open the consumer's window again.
    Written {
        /// The consumer.
        consumer: ConsumerKey,
        /// How many deliveries.
        count: u32,
        /// Their body bytes.
        bytes: u64,
    },
    /// Registers a consumer.
    Consume(Consume),
    /// Removes a consumer; its deliveries stay lent.
    Cancel {
        /// Who made the request.
        requester: Requester,
        /// The consumer.
        key: ConsumerKey,
    },
    /// Gets one message.
    Get {
        /// Who made the request.
        requester: Requester,
        /// Whether the message counts as acknowledged when it is handed over.
        no_ack: bool,
    },
    /// Asks for the counts (a declaration of an existing queue).
    Status {
        /// Who made the request.
        requester: Requester,
    },
    /// Removes all ready messages.
    Purge {
        /// Who made the request.
        requester: Requester,
    },
    /// Deletes the queue at a client's request. The queue itself checks the conditions, so the command travels to the queue.
    Delete {
        /// Who made the request.
        requester: Requester,
        /// Only without consumers.
        if_unused: bool,
        /// Only without ready messages.
        if_empty: bool,
    },
    /// A channel has ended: its consumers leave, and its deliveries go back. The connection sends it to each queue it used.
    Detach {
        /// The channel.
        holder: Holder,
    },
    /// A channel's own prefetch limit came or went. A new limit is answered with `Notice::Limited`.
    ChannelLimit {
        /// The channel.
        holder: Holder,
        /// The channel's limit, if it has one now.
        limit: Option<LimitId>,
    },
    /// Permits of a channel for which the queue asked: limits live with the connection. Unused permits are given back
    /// (`Permits::end_grant`).
    Grant {
        /// The limit.
        limit: LimitKey,
        /// How many permits.
        permits: u32,
    },
    /// How many copies of a dead letter were made. The node that routes dead letters may be another one.
    Copies {
        /// The original's number.
        leaving: u64,
        /// How many queues took a copy.
        copies: u32,
    },
    /// A copy is safe (stored, or consumed). The queue of the copy sends it.
    CopySettled {
        /// The original's number.
        leaving: u64,
    },
}

impl QueueCommand {
    /// Whether heads may be longer than their windows afterwards, because entries came back or left.
    pub(super) fn may_exceed_heads(&self) -> bool {
        matches!(
            self,
            Self::Settle { .. }
                | Self::Bounce { .. }
                | Self::Detach { .. }
                | Self::Copies { .. }
                | Self::CopySettled { .. }
        )
    }
}
