//! What a queue was declared to be, parsed and checked elsewhere.

use super::level::WindowLimits;
use crate::model::{Name, QueueId};
use std::time::Duration;

/// What happens to a message beyond the queue's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest ready message of the highest level goes.
    #[default]
    DropHead,
    /// The new one is refused.
    RejectPublish,
    /// The new one is refused, and dead-lettered.
    RejectPublishDeadLetter,
}

/// The settings of one queue.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Its incarnation.
    pub id: QueueId,
    /// Its name, for answers and `x-death`.
    pub name: Name,
    /// Its vhost, for error texts.
    pub vhost: Name,
    /// Whether persistent messages are stored.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// The highest priority; 0 without priorities.
    pub priority_max: u8,
    /// Milliseconds that a message may wait.
    pub message_ttl_ms: Option<u64>,
    /// How long the queue lives unused.
    pub expires: Option<Duration>,
    /// How many ready messages it holds.
    pub length_max: Option<u64>,
    /// How many body bytes of ready messages it holds.
    pub length_bytes_max: Option<u64>,
    /// What happens beyond these.
    pub overflow: Overflow,
    /// Where dead messages go.
    pub dead_letter_exchange: Option<Name>,
    /// Under which key; their own when none.
    pub dead_letter_routing_key: Option<Name>,
}

impl QueueSettings {
    /// A queue declared with nothing but its name: transient, and without limits.
    pub fn plain(id: QueueId, vhost: Name, name: Name) -> Self {
        Self {
            id,
            name,
            vhost,
            durable: false,
            auto_delete: false,
            priority_max: 0,
            message_ttl_ms: None,
            expires: None,
            length_max: None,
            length_bytes_max: None,
            overflow: Overflow::DropHead,
            dead_letter_exchange: None,
            dead_letter_routing_key: None,
        }
    }
}

/// Limits that all queues share.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// How long rows may wait for an acknowledgement.
    pub hold: HoldLimits,
    /// How much of a level is kept in memory.
    pub window: WindowLimits,
    /// How much is on its way to a consumer.
    pub consumer: ConsumerLimits,
}

/// What may be on its way to a consumer's socket, beside its prefetch: it bounds outboxes, and spreads work.
#[derive(Clone, Copy, Debug)]
pub struct ConsumerLimits {
    /// Messages at first.
    pub messages: u32,
    /// Messages once the consumer has shown that it keeps up.
    pub messages_max: u32,
    /// Body bytes; one message is always let through.
    pub bytes_max: u64,
    /// Unacknowledged messages, whatever the consumer's prefetch.
    pub unacked_max: u32,
}

/// How long a persistent message in a consumer's hands may wait for its acknowledgement before it is written.
///
/// What is acknowledged in time is never written. The time allowed is twice the queue's smoothed ack time, and none at
/// all where consumers are slow: there the wait would only delay confirms.
#[derive(Clone, Copy, Debug)]
pub struct HoldLimits {
    /// The longest wait. Zero turns the hold off.
    pub hold_max: Duration,
    /// The smoothed ack time above which nothing waits.
    pub ack_time_max: Duration,
}

impl Default for HoldLimits {
    fn default() -> Self {
        Self { hold_max: Duration::from_millis(4), ack_time_max: Duration::from_millis(2) }
    }
}
