//! Commands of a session to the broker and its queues, as plain data.

use super::arguments::Arguments;
use super::ids::{ConsumerSlot, QueueId};
use super::names::Name;

/// A method that the broker or one of its queues answers. Queue names are already expanded (never "the last one").
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// `exchange.declare`.
    ExchangeDeclare(ExchangeDeclare),
    /// `exchange.delete`.
    ExchangeDelete {
        /// The exchange.
        exchange: Name,
        /// Refuse when it has outgoing bindings.
        if_unused: bool,
    },
    /// `exchange.bind`.
    ExchangeBind(BindTo),
    /// `exchange.unbind`.
    ExchangeUnbind(BindTo),
    /// `queue.declare`.
    QueueDeclare(QueueDeclare),
    /// `queue.bind`.
    QueueBind(BindTo),
    /// `queue.unbind`.
    QueueUnbind(BindTo),
    /// `queue.purge`.
    QueuePurge {
        /// The queue.
        queue: Name,
    },
    /// `queue.delete`.
    QueueDelete(QueueDelete),
    /// `basic.consume`.
    BasicConsume(BasicConsume),
    /// `basic.cancel` of a consumer that the session knows.
    BasicCancel {
        /// The queue it consumes from.
        queue: QueueId,
        /// The consumer.
        consumer: ConsumerSlot,
    },
    /// `basic.get`.
    BasicGet {
        /// The queue.
        queue: Name,
        /// Whether the message counts as acknowledged when it is handed over.
        no_ack: bool,
    },
}

/// `exchange.declare`.
#[derive(Clone, Debug, PartialEq)]
pub struct ExchangeDeclare {
    /// The name of the exchange.
    pub exchange: Name,
    /// The type of the exchange as the client wrote it.
    pub kind: Name,
    /// Only check whether it exists.
    pub passive: bool,
    /// Survives a restart.
    pub durable: bool,
    /// Deleted with its last outgoing binding.
    pub auto_delete: bool,
    /// Not for publishing by clients.
    pub internal: bool,
    /// Its arguments.
    pub arguments: Arguments,
}

/// `queue.declare`.
#[derive(Clone, Debug, PartialEq)]
pub struct QueueDeclare {
    /// Its name; empty for a name that the broker makes.
    pub queue: Name,
    /// Only check whether it exists.
    pub passive: bool,
    /// Survives a restart.
    pub durable: bool,
    /// Only for this connection, and deleted with it.
    pub exclusive: bool,
    /// Deleted with its last consumer.
    pub auto_delete: bool,
    /// Its arguments.
    pub arguments: Arguments,
}

/// `queue.delete`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDelete {
    /// The queue.
    pub queue: Name,
    /// Refuse when it has consumers.
    pub if_unused: bool,
    /// Refuse when it has ready messages.
    pub if_empty: bool,
}

/// A binding of a queue or an exchange that is added or removed.
#[derive(Clone, Debug, PartialEq)]
pub struct BindTo {
    /// The exchange that routes.
    pub source: Name,
    /// The queue or exchange that receives.
    pub destination: Name,
    /// The binding key.
    pub routing_key: Name,
    /// The binding's arguments.
    pub arguments: Arguments,
}

/// `basic.consume`.
#[derive(Clone, Debug, PartialEq)]
pub struct BasicConsume {
    /// The queue.
    pub queue: Name,
    /// The session's number for the consumer.
    pub consumer: ConsumerSlot,
    /// The consumer tag, for listings.
    pub consumer_tag: Name,
    /// Whether deliveries count as acknowledged when they are handed over.
    pub no_ack: bool,
    /// Refuse other consumers.
    pub exclusive: bool,
    /// How many unacknowledged deliveries it may hold; 0 is no limit.
    pub prefetch: u32,
    /// The consumer's arguments.
    pub arguments: Arguments,
}
