//! Expiry: at the head of the highest level only, as RabbitMQ's classic queues do it.

use super::dead_letter::DeadLetterReason;
use super::effect::Effects;
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
        let level = self.top_level()?;
        let slot = self.level_mut(level).front()?;
        self.entries.at(slot).expires_at
    }

    /// Ends expired messages at the head.
    pub(super) fn expire_head(&mut self, now: Now, which: Expired, out: &mut Effects) {
        while let Some(at) = self.head_expiry() {
            if !which.covers(at, now.wall) {
                return;
            }
            let Some(slot) = self.front(out) else { return };
            self.take_front(slot);
            out.counts.expired += 1;
            self.die(slot, DeadLetterReason::Expired, now, out);
        }
    }
}
