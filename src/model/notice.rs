//! What comes up to a connection from the broker and its queues, as plain data, in the order in which it is to be written.

use super::error::AmqpError;
use super::ids::{ChannelKey, ConsumerSlot, LendId, QueueId, RequestNo};
use super::limit::LimitId;
use super::message::Message;
use super::names::Name;

/// One thing a connection is told.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A message for a consumer.
    Deliver(Delivery),
    /// The answer to a command.
    Answer {
        /// The channel that asked.
        channel: ChannelKey,
        /// Which of its requests.
        request: RequestNo,
        /// What came of it.
        answer: Answer,
    },
    /// A queue kept (or refused) its part of some promises.
    Promised {
        /// The channel that published.
        channel: ChannelKey,
        /// First publish sequence number.
        first: u64,
        /// Last publish sequence number, inclusive.
        last: u64,
        /// Kept, or refused by the queue.
        kept: bool,
    },
    /// A consumer ended because its queue did.
    ConsumerCancelled {
        /// The channel of the consumer.
        channel: ChannelKey,
        /// The consumer.
        consumer: ConsumerSlot,
    },
    /// A queue applies a channel's prefetch limit: all it delivers from here on holds a permit.
    Limited {
        /// The channel.
        channel: ChannelKey,
        /// The queue.
        queue: QueueId,
        /// The limit.
        limit: LimitId,
    },
    /// A resource runs short, in the words that clients are told; or none does any more.
    Alarm(Option<String>),
    /// The broker closes the connection.
    Close(AmqpError),
    /// What ends with the connection is gone, at last. Nothing follows.
    Ended,
}

impl Notice {
    /// What it takes of memory. The body of a message that is to be acknowledged is its queue's.
    pub fn held_bytes(&self) -> usize {
        let delivery = match self {
            Self::Deliver(delivery) | Self::Answer { answer: Answer::Got { delivery, .. }, .. } => Some(delivery),
            _ => None,
        };
        let given = delivery.filter(|delivery| delivery.lend.is_none());
        size_of::<Self>() + given.map_or(0, |delivery| delivery.message.allocated_bytes())
    }
}

/// A message lent, or given for good, to a consumer or to a `basic.get`.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The channel it goes to.
    pub channel: ChannelKey,
    /// The consumer, when one asked.
    pub consumer: ConsumerSlot,
    /// The queue it comes from.
    pub queue: QueueId,
    /// The lending to settle; none when it needs no acknowledgement.
    pub lend: Option<LendId>,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// The prefetch limit of the channel of which it holds a permit.
    pub permit: Option<LimitId>,
    /// The message.
    pub message: Message,
}

/// The answer to a `Command`.
#[derive(Clone, Debug)]
pub enum Answer {
    /// An exchange was declared, deleted, bound or unbound, or a queue bound or unbound.
    Done,
    /// A queue is there.
    QueueDeclared {
        /// Its name, generated when none was given.
        queue: Name,
        /// Ready messages.
        message_count: u64,
        /// Consumers.
        consumer_count: u32,
    },
    /// A queue was purged or deleted.
    Removed {
        /// Ready messages that went.
        message_count: u64,
    },
    /// The consumer is registered.
    Consuming {
        /// With which queue.
        queue: QueueId,
    },
    /// The consumer is gone.
    Cancelled,
    /// A message for `basic.get`.
    Got {
        /// The message.
        delivery: Delivery,
        /// Ready messages left behind it.
        message_count: u64,
    },
    /// Nothing for `basic.get`.
    GetEmpty,
    /// The command failed.
    Refused(AmqpError),
}
