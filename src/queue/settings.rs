//! The settings and limits of a queue. Others parse and check them.

use crate::model::{Name, QueueId};
use std::time::Duration;

/// What happens to a message beyond the queue's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The oldest ready message of the highest level is dropped.
    #[default]
    DropHead,
    /// The new message is refused.
    RejectPublish,
    /// The new message is refused, and dead-lettered.
    RejectPublishDeadLetter,
}

/// The settings of one queue.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// The queue's incarnation.
    pub id: QueueId,
    /// The queue's name, for answers and `x-death`.
    pub name: Name,
    /// The queue's vhost, for error texts.
    pub vhost: Name,
    /// Whether persistent messages are stored.
    pub durable: bool,
    /// Whether the queue is deleted with its last consumer.
    pub auto_delete: bool,
    /// The highest priority; 0 without priorities.
    pub priority_max: u8,
    /// Milliseconds that a message may wait.
    pub message_ttl_ms: Option<u64>,
    /// How long the queue lives unused.
    pub expires: Option<Duration>,
    /// How many ready messages the queue holds.
    pub length_max: Option<u64>,
    /// How many body bytes of ready messages the queue holds.
    pub length_bytes_max: Option<u64>,
    /// What happens to messages beyond these.
    pub overflow: Overflow,
    /// The exchange for dead messages.
    pub dead_letter_exchange: Option<Name>,
    /// The routing key of dead messages; their own when none.
    pub dead_letter_routing_key: Option<Name>,
}

/// The settings of a queue that may change while it lives, as policies do it. Each is the effective value: the shorter of
/// argument and policy for times and lengths, so none of them exceeds what the queue was declared with.
#[derive(Clone, Debug)]
pub struct ChangeableSettings {
    /// Milliseconds that a message may wait.
    pub message_ttl_ms: Option<u64>,
    /// How long the queue lives unused.
    pub expires: Option<Duration>,
    /// How many ready messages the queue holds.
    pub length_max: Option<u64>,
    /// How many body bytes of ready messages the queue holds.
    pub length_bytes_max: Option<u64>,
    /// What happens to messages beyond these.
    pub overflow: Overflow,
    /// The exchange for dead messages.
    pub dead_letter_exchange: Option<Name>,
    /// The routing key of dead messages; their own when none.
    pub dead_letter_routing_key: Option<Name>,
}

impl QueueSettings {
    /// Replaces the settings that may change.
    pub(super) fn change(&mut self, changed: &ChangeableSettings) {
        self.message_ttl_ms = changed.message_ttl_ms;
        self.expires = changed.expires;
        self.length_max = changed.length_max;
        self.length_bytes_max = changed.length_bytes_max;
        self.overflow = changed.overflow;
        self.dead_letter_exchange.clone_from(&changed.dead_letter_exchange);
        self.dead_letter_routing_key.clone_from(&changed.dead_letter_routing_key);
    }

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
    /// How many deliveries are on their way to a consumer.
    pub consumer: ConsumerLimits,
}

/// How much of a level is kept in memory.
#[derive(Clone, Copy, Debug)]
pub struct WindowLimits {
    /// Entries in the head.
    pub head_entries: usize,
    /// Entries in the head when memory is shortest.
    pub head_entries_min: usize,
    /// Entries of the tail. Above it, stored entries leave memory.
    pub tail_entries: usize,
    /// Bytes of the tail. Above it, stored entries leave memory.
    pub tail_bytes: usize,
    /// Bytes of the head, and what one load brings at most; a single larger entry exceeds it.
    pub head_bytes: usize,
}

impl Default for WindowLimits {
    fn default() -> Self {
        Self { head_entries: 1024, head_entries_min: 64, tail_entries: 4096, tail_bytes: 2 << 20, head_bytes: 1 << 20 }
    }
}

/// When memory is shortest, a queue without consumers keeps this part of `head_entries_min`.
const UNCONSUMED_DIVISOR: usize = 8;

impl WindowLimits {
    /// The limits halved `steps` times, for use while memory for windows is short. At the last step no stored entry stays in the
    /// tail, and the head shrinks to the size of one load, or to a few entries without consumers.
    #[must_use]
    pub fn shrunk(self, steps: u32, is_consumed: bool) -> Self {
        if steps == 0 {
            return self;
        }
        let is_last = steps == Self::SHRINK_STEPS_MAX;
        let least = self.head_entries_min.min(self.head_entries);
        let head_entries = (self.head_entries >> steps).max(least);
        Self {
            head_entries: if is_last && !is_consumed { least.div_ceil(UNCONSUMED_DIVISOR) } else { head_entries },
            head_bytes: self.head_bytes >> steps,
            tail_entries: if is_last { 0 } else { self.tail_entries >> steps },
            tail_bytes: if is_last { 0 } else { self.tail_bytes >> steps },
            ..self
        }
    }

    /// Whether a head of this size is to be filled from the store.
    pub(super) fn is_half_empty(&self, entries: usize, bytes: usize) -> bool {
        entries <= self.head_entries / 2 && bytes <= self.head_bytes / 2
    }

    /// The most steps that windows shrink by.
    pub const SHRINK_STEPS_MAX: u32 = 4;
}

/// Limits of deliveries on their way to a consumer's socket, beside its prefetch: they bound outboxes, and spread work among
/// consumers.
#[derive(Clone, Copy, Debug)]
pub struct ConsumerLimits {
    /// Messages, for a new consumer.
    pub messages: u32,
    /// Messages, for a consumer that keeps up.
    pub messages_max: u32,
    /// Body bytes; one message is always allowed.
    pub bytes_max: u64,
    /// Unacknowledged messages, for any prefetch.
    pub unacked_max: u32,
}

/// How long a lent persistent message may wait for its acknowledgement before it is written.
///
/// A message that is acknowledged in time is never written. The time allowed is twice the queue's smoothed ack time, and zero
/// if consumers are slow: then the wait would only delay confirms.
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
