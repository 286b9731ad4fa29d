//! Expiry: at the head of the highest level only, as RabbitMQ's classic queues do it.

use super::dead_letter::DeadLetterReason;
use super::effect::Effects;
use super::entry::Slot;
use super::state::{Expired, QueueState};
use crate::model::{Message, Now, WallMillis};

impl QueueState {
    /// When a message arriving now expires: the shorter of its own and the queue's time to live.
    pub(super) fn expiry_of(&self, message: &Message, now: WallMillis) -> Option<WallMillis> {
        let ttl = match (self.settings.message_ttl_ms, message.expiration().map(|own| own.as_millis() as u64)) {
            (Some(queue), Some(own)) => Some(queue.min(own)),
            (queue, own) => queue.or(own),
        };
        ttl.map(|ttl| now.plus_millis(ttl))
    }

    /// When the head expires, if it does and is in memory.
    pub(super) fn head_expiry(&mut self) -> Option<WallMillis> {
        let slot = self.head_in_memory()?;
        self.entries.at(slot).expires_at
    }

    fn head_in_memory(&mut self) -> Option<Slot> {
        let level = self.top_level()?;
        self.level_mut(level).front()
    }

    /// The head whose time may be up. Where all messages have a time to live it is read from the store if need be; where only
    /// some may have one, those in the store wait until somebody wants them, so that a start need not read every queue.
    fn head_to_expire(&mut self, out: &mut Effects) -> Option<Slot> {
        if self.settings.message_ttl_ms.is_some() { self.front(out) } else { self.head_in_memory() }
    }

    /// Ends expired messages at the head.
    pub(super) fn expire_head(&mut self, now: Now, which: Expired, out: &mut Effects) {
        while let Some(slot) = self.head_to_expire(out) {
            if !self.entries.at(slot).expires_at.is_some_and(|at| which.covers(at, now.wall)) {
                return;
            }
            self.take_front(slot);
            out.counts.expired += 1;
            self.die(slot, DeadLetterReason::Expired, now, out);
        }
    }
}
