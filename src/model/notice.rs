//! Notices of the broker and its queues to a connection, as plain data, in the order in which they are to be written.

use super::error::AmqpError;
use super::ids::{ChannelKey, ConsumerSlot, LendId, QueueId, RequestNo};
use super::limit::LimitId;
use super::message::Message;
use super::names::Name;

/// One notice to a connection.
#[derive(Clone, Debug)]
pub enum Notice {
    /// A message for a consumer.
    Deliver(Delivery),
    /// The answer to a command.
    Answer {
        /// The channel that made the request.
        channel: ChannelKey,
        /// The number of the channel's request.
        request: RequestNo,
        /// The answer.
        answer: Answer,
    },
    /// A queue has kept or refused promises.
    Promised {
        /// The channel that published.
        channel: ChannelKey,
        /// First publish sequence number.
        first: u64,
        /// Last publish sequence number, inclusive.
        last: u64,
        /// Whether the promises are kept; if not, the queue has refused them.
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
    /// A resource runs short, with the text for clients; or none does any more.
    Alarm(Option<String>),
    /// The broker closes the connection.
    Close(AmqpError),
    /// Everything that ends with the connection has ended. No notice follows.
    Ended,
}

impl Notice {
    /// The memory that the notice takes, in bytes. The body of a message that is to be acknowledged counts for its queue.
    pub fn held_bytes(&self) -> usize {
        let delivery = match self {
            Self::Deliver(delivery) | Self::Answer { answer: Answer::Got { delivery, .. }, .. } => Some(delivery),
            _ => None,
        };
        let given = delivery.filter(|delivery| delivery.lend.is_none());
        size_of::<Self>() + given.map_or(0, |delivery| delivery.message.allocated_bytes())
    }
}

/// A message that is lent, or given without acknowledgement, to a consumer or a `basic.get`.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The channel that gets the message.
    pub channel: ChannelKey,
    /// The consumer; without meaning for a `basic.get`.
    pub consumer: ConsumerSlot,
    /// The queue of the message.
    pub queue: QueueId,
    /// The lending to settle; none if the delivery needs no acknowledgement.
    pub lend: Option<LendId>,
    /// Whether the message was delivered before.
    pub redelivered: bool,
    /// The channel's prefetch limit of which the delivery holds a permit.
    pub permit: Option<LimitId>,
    /// The message.
    pub message: Message,
}

/// The answer to a `Command`.
#[derive(Clone, Debug)]
pub enum Answer {
    /// An exchange was declared, deleted, bound or unbound, or a queue bound or unbound.
    Done,
    /// A queue exists.
    QueueDeclared {
        /// The queue's name, generated if the client gave none.
        queue: Name,
        /// Ready messages.
        message_count: u64,
        /// Consumers.
        consumer_count: u32,
    },
    /// A queue was purged or deleted.
    Removed {
        /// How many ready messages were removed.
        message_count: u64,
    },
    /// The consumer is registered.
    Consuming {
        /// The queue.
        queue: QueueId,
    },
    /// The consumer is removed.
    Cancelled,
    /// A message for `basic.get`.
    Got {
        /// The message.
        delivery: Delivery,
        /// Ready messages left in the queue.
        message_count: u64,
    },
    /// The queue of a `basic.get` is empty.
    GetEmpty,
    /// The command failed.
    Refused(AmqpError),
}
