//! Length limits: what a full queue does with one more message, or with its head.

use super::contents::Contents;
use super::context::Context;
use super::deaths::DeadLetterReason;
use super::effect::QueueEffect;
use super::expiry::Expired;
use super::settings::{Overflow, QueueSettings};
use crate::model::{Message, Promise};

impl Contents {
    /// Whether the queue refuses a message of this size.
    #[inline]
    pub(super) fn refuses(&self, body_bytes: u64, settings: &QueueSettings) -> bool {
        settings.overflow != Overflow::DropHead
            && (settings.length_max.is_some_and(|max| self.ready.count() + 1 > max)
                || settings.length_bytes_max.is_some_and(|max| self.ready.body_bytes() + body_bytes > max))
    }

    #[inline]
    fn overflows(&self, settings: &QueueSettings) -> bool {
        self.ready.count() > 0
            && (settings.length_max.is_some_and(|max| self.ready.count() > max)
                || settings.length_bytes_max.is_some_and(|max| self.ready.body_bytes() > max))
    }

    /// Drops from the head of the highest level until the queue is within its limits.
    #[inline]
    pub(super) fn enforce_limits(&mut self, is_wanted: bool, cx: &mut Context<'_>) {
        if cx.settings.overflow != Overflow::DropHead {
            return;
        }
        while self.overflows(cx.settings) {
            let Some(slot) = self.front(cx) else { return };
            self.take_front(slot);
            cx.out.counts.overflowed += 1;
            self.die(slot, DeadLetterReason::MaxLength, cx);
            // The new head may have waited longer than the one that was dropped.
            self.expire_head(Expired::AtOrBefore, is_wanted, cx);
        }
    }
}

/// Refuses a message; with `reject-publish-dlx` it is dead-lettered.
pub(super) fn refuse(message: Message, promise: Option<Promise>, cx: &mut Context<'_>) {
    let settings = cx.settings;
    if settings.overflow == Overflow::RejectPublishDeadLetter && settings.dead_letter_exchange.is_some() {
        cx.out.counts.overflowed += 1;
        cx.out.effects.push(QueueEffect::DeadLetter { message, reason: DeadLetterReason::MaxLength, leaving: None });
    }
    if let Some(promise) = promise {
        cx.out.promise(promise, false);
    }
}
