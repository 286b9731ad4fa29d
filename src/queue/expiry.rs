//! Expiry: at the head of the highest level only, as RabbitMQ's classic queues do it.

use super::dead_letter::DeadLetterReason;
use super::effect::{Effects, QueueEffect};
use super::entry::Slot;
use super::level::Asked;
use super::state::{Expired, QueueState, REMOVE_WAIT};
use crate::model::{Lane, Message, Now, WallMillis};

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

    /// The head whose time may be up. Where nobody waits for it only its first row is read from the store, if need be: a start
    /// must not read every queue.
    fn head_to_expire(&mut self, out: &mut Effects) -> Option<Slot> {
        if self.is_wanted() {
            return self.front(out);
        }
        self.peek(out);
        self.head_in_memory()
    }

    fn peek(&mut self, out: &mut Effects) {
        let Some(level) = self.top_level() else { return };
        let (queue, bytes_max) = (self.settings.id, self.window.head_bytes);
        let lane = self.level_mut(level);
        let generation = lane.generation;
        if let Some(Asked { load, durable, scratch, rows_max }) = lane.begin_peek() {
            let lane = Lane { queue, level, generation };
            out.effects.push(QueueEffect::Load { lane, load, durable, scratch, rows_max, bytes_max });
        }
    }

    /// Ends at once, unread, what the store keeps of the highest level, if all of it has expired and need not be dead-lettered.
    fn expire_middle(&mut self, now: Now, which: Expired, out: &mut Effects) -> bool {
        if self.settings.dead_letter_exchange.is_some() {
            return false;
        }
        let Some(level) = self.top_level() else { return false };
        let lane = self.level_mut(level);
        let Some(taken) = lane.take_expired_middle(|by| which.covers(by, now.wall)) else { return false };
        if let Some(middle) = taken.durable {
            self.middle_removed(level, &middle);
            self.due_by(now.monotonic.plus(REMOVE_WAIT));
        }
        for middle in [taken.durable, taken.scratch].into_iter().flatten() {
            self.ready_count = self.ready_count.saturating_sub(middle.count);
            self.ready_bytes = self.ready_bytes.saturating_sub(middle.body_bytes);
            out.counts.expired += middle.count;
        }
        self.note_ready(level);
        true
    }

    /// Ends expired messages at the head.
    pub(super) fn expire_head(&mut self, now: Now, which: Expired, out: &mut Effects) {
        loop {
            if self.expire_middle(now, which, out) {
                continue;
            }
            let Some(slot) = self.head_to_expire(out) else { return };
            if !self.entries.at(slot).expires_at.is_some_and(|at| which.covers(at, now.wall)) {
                return;
            }
            // Those behind it may have to go as well.
            self.front(out);
            self.take_front(slot);
            out.counts.expired += 1;
            self.die(slot, DeadLetterReason::Expired, now, out);
        }
    }
}
