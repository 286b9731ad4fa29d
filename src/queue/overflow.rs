//! Length limits: what a full queue does with one more message, or with its head.

use super::dead_letter::DeadLetterReason;
use super::effect::{Effects, QueueEffect};
use super::settings::Overflow;
use super::state::{Expired, QueueState};
use crate::model::{Message, Now, Promise};

impl QueueState {
    /// Whether one more message of `bytes` body bytes would be beyond the limits.
    pub(super) fn would_overflow(&self, bytes: u64) -> bool {
        self.settings.length_max.is_some_and(|max| self.ready_count + 1 > max)
            || self.settings.length_bytes_max.is_some_and(|max| self.ready_bytes + bytes > max)
    }

    fn overflows(&self) -> bool {
        self.ready_count > 0
            && (self.settings.length_max.is_some_and(|max| self.ready_count > max)
                || self.settings.length_bytes_max.is_some_and(|max| self.ready_bytes > max))
    }

    /// Messages ready for delivery, for clients and listings: those that are to be dropped as soon as their row is read do not
    /// count. What a limit of bytes will drop is not known before.
    pub fn shown_ready_count(&self) -> u64 {
        match (self.settings.overflow, self.settings.length_max) {
            (Overflow::DropHead, Some(max)) => self.ready_count.min(max),
            _ => self.ready_count,
        }
    }

    /// Refuses a message; with `reject-publish-dlx` it is dead-lettered.
    pub(super) fn refuse(&mut self, message: Message, promise: Option<Promise>, out: &mut Effects) {
        if self.settings.overflow == Overflow::RejectPublishDeadLetter && self.settings.dead_letter_exchange.is_some() {
            out.counts.overflowed += 1;
            out.effects.push(QueueEffect::DeadLetter { message, reason: DeadLetterReason::MaxLength, leaving: None });
        }
        if let Some(promise) = promise {
            out.promise(promise, false);
        }
    }

    /// Drops from the head of the highest level until the queue is within its limits.
    pub(super) fn enforce_limits(&mut self, now: Now, out: &mut Effects) {
        if self.settings.overflow != Overflow::DropHead || !self.overflows() {
            return;
        }
        while self.overflows() {
            let Some(slot) = self.front(out) else { return };
            self.take_front(slot);
            out.counts.overflowed += 1;
            self.die(slot, DeadLetterReason::MaxLength, now, out);
            // The new head may have waited longer than the one that was dropped.
            self.expire_head(now, Expired::AtOrBefore, out);
        }
    }
}
