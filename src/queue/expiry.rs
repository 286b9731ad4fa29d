//! Expiry: at the head of the highest level only, as in RabbitMQ's classic queues.

use super::contents::Contents;
use super::context::Context;
use super::deaths::DeadLetterReason;
use super::entry::Slot;
use super::settings::QueueSettings;
use crate::model::{Message, WallMillis};

/// Which messages count as expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// Those whose time was up before now: with a time to live of zero a waiting consumer still gets the message.
    Before,
    /// Those whose time is up by now.
    AtOrBefore,
}

impl Expired {
    #[inline]
    fn covers(self, at: WallMillis, now: WallMillis) -> bool {
        match self {
            Self::Before => at < now,
            Self::AtOrBefore => at <= now,
        }
    }
}

/// When a message that arrives now expires: the shorter of its own and the queue's time to live counts.
pub(super) fn expiry_of(message: &Message, settings: &QueueSettings, now: WallMillis) -> Option<WallMillis> {
    let ttl = match (settings.message_ttl_ms, message.expiration().map(|own| own.as_millis() as u64)) {
        (Some(queue), Some(own)) => Some(queue.min(own)),
        (queue, own) => queue.or(own),
    };
    ttl.map(|ttl| now.plus_millis(ttl))
}

impl Contents {
    /// When the head expires; none if it does not, or is not in memory.
    pub(super) fn head_expiry(&mut self) -> Option<WallMillis> {
        let slot = self.ready.front_in_memory()?;
        self.entries.at(slot).expires_at
    }

    /// Ends expired messages at the head. `is_wanted`: a consumer or a get waits for a message. Only then more than the first
    /// row of the head is loaded.
    #[inline]
    pub(super) fn expire_head(&mut self, which: Expired, is_wanted: bool, cx: &mut Context<'_>) {
        loop {
            if self.expire_middle(which, cx) {
                continue;
            }
            let Some(slot) = self.head_to_expire(is_wanted, cx) else { return };
            if !self.entries.at(slot).expires_at.is_some_and(|at| which.covers(at, cx.now.wall)) {
                return;
            }
            // The messages behind it may have expired as well.
            self.front(cx);
            self.take_front(slot);
            cx.out.counts.expired += 1;
            self.die(slot, DeadLetterReason::Expired, cx);
        }
    }

    #[inline]
    fn head_to_expire(&mut self, is_wanted: bool, cx: &mut Context<'_>) -> Option<Slot> {
        if is_wanted { self.front(cx) } else { self.ready.peek(cx) }
    }

    /// Ends the stored middle of the highest level without reading it, if all of it has expired and need not be dead-lettered.
    #[inline]
    fn expire_middle(&mut self, which: Expired, cx: &mut Context<'_>) -> bool {
        if cx.settings.dead_letter_exchange.is_some() {
            return false;
        }
        let Some(number) = self.ready.top_level() else { return false };
        let taken = self.ready.level(number).take_expired_middle(|by| which.covers(by, cx.now.wall));
        let Some(taken) = taken else { return false };
        if let Some(middle) = taken.durable {
            self.remove_middle(number, &middle);
            self.durable.removal_due(cx.now.monotonic);
        }
        for middle in [taken.durable, taken.scratch].into_iter().flatten() {
            self.ready.remove_middle(number, &middle);
            cx.out.counts.expired += middle.count;
        }
        true
    }
}
