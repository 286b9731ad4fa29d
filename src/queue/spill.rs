//! Transient messages beyond their budget: the tails of long queues wait in the scratch store, which is emptied at every
//! start.

use super::effect::Pulled;
use super::entry::{Entries, Storage};
use super::event::Ticket;
use super::level::Level;
use super::ready::Ready;
use crate::model::stored::{LaneChange, LaneState, OrderKey, Row};
use crate::model::{Lane, Message, QueueId};

/// The state of a queue's messages in the scratch store, and of those that are to go there.
#[derive(Debug, Default)]
pub(super) struct Spill {
    /// Memory of transient messages without their entries.
    transient_bytes: u64,
    /// Transient messages of the broker exceed their memory budget.
    is_pressed: bool,
    /// The queue has handed messages to the scratch store.
    is_used: bool,
    /// The scratch store refused rows for good: messages in memory stay there.
    has_failed: bool,
    ticket: Ticket,
    flushed: Ticket,
}

/// Limits of one contribution to the scratch store.
#[derive(Clone, Copy, Debug)]
struct Budget {
    rows_max: usize,
    bytes_max: usize,
}

impl Spill {
    /// Sets whether transient messages exceed their memory budget.
    pub(super) fn set_memory_pressure(&mut self, is_pressed: bool) {
        self.is_pressed = is_pressed && !self.has_failed;
    }

    pub(super) fn is_pressed(&self) -> bool {
        self.is_pressed
    }

    /// Memory of transient messages without their entries, in bytes.
    pub(super) fn transient_bytes(&self) -> u64 {
        self.transient_bytes
    }

    /// Adds a transient message in memory.
    #[inline]
    pub(super) fn add(&mut self, message: &Message) {
        self.transient_bytes += message.allocated_bytes() as u64;
    }

    /// Removes a transient message that left the queue.
    #[inline]
    pub(super) fn remove(&mut self, message: &Message) {
        self.left_memory(message.allocated_bytes() as u64);
    }

    /// Subtracts transient messages that left memory.
    #[inline]
    pub(super) fn left_memory(&mut self, bytes: u64) {
        self.transient_bytes = self.transient_bytes.saturating_sub(bytes);
    }

    /// Whether rows or removals are due for the scratch store.
    pub(super) fn wants_pull(&self, ready: &Ready) -> bool {
        (self.is_pressed || self.is_used)
            && ready
                .levels()
                .any(|level| self.is_pressed && level.scratch.waiting() > 0 || level.scratch.has_waste(self.flushed))
    }

    /// How many messages may go to the scratch store and are not submitted yet.
    pub(super) fn waiting_rows(&self, ready: &Ready) -> usize {
        if self.has_failed { 0 } else { ready.levels().map(|level| level.scratch.waiting()).sum() }
    }

    /// Hands the scratch store the waiting messages of the tails, and the removals of dead rows.
    pub(super) fn pull(
        &mut self,
        queue: QueueId,
        rows_max: usize,
        bytes_max: usize,
        entries: &mut Entries,
        ready: &mut Ready,
    ) -> Pulled {
        let budget = Budget { rows_max, bytes_max };
        let mut pulled = Pulled { ticket: Ticket(self.ticket.0 + 1), ..Pulled::default() };
        for (number, level) in ready.levels_mut() {
            if let Some(generation) = level.scratch.renew(self.flushed) {
                pulled.drop_lanes.push(Lane { queue, level: number, generation });
            }
            let inserts = self.take_waiting(level, entries, budget, &mut pulled);
            let erased = level.scratch.erase(self.flushed);
            if inserts.is_empty() && erased.is_none() {
                continue;
            }
            let remove_below = erased.map(|(below, count)| {
                pulled.removed += usize::try_from(count).unwrap_or(usize::MAX);
                below
            });
            let (remove_ranges, removes, state) = (Vec::new(), Vec::new(), LaneState::default());
            let lane = Lane { queue, level: number, generation: level.scratch.generation() };
            pulled.lanes.push(LaneChange { lane, inserts, remove_below, remove_ranges, removes, state });
        }
        if !pulled.lanes.is_empty() || !pulled.drop_lanes.is_empty() {
            self.ticket = pulled.ticket;
            self.is_used = true;
        }
        pulled
    }

    fn take_waiting(&self, level: &mut Level, entries: &mut Entries, budget: Budget, pulled: &mut Pulled) -> Vec<Row> {
        let mut inserts = Vec::new();
        while self.is_pressed && pulled.rows < budget.rows_max && pulled.bytes < budget.bytes_max {
            let Some(slot) = level.next_to_spill() else { break };
            let entry = entries.at(slot);
            if entry.storage != Storage::Transient {
                continue;
            }
            let (ticket, position) = (pulled.ticket, level.scratch.submit(pulled.ticket));
            pulled.rows += 1;
            pulled.bytes += entry.message.allocated_bytes();
            inserts.push(Row {
                position,
                redelivered: entry.redelivered,
                expires_at: entry.expires_at,
                place: Some(OrderKey { behind: entry.order.position, nth: entry.order.sub }),
                message: entry.message.clone(),
            });
            entries.set_storage(slot, Storage::Spilling { ticket, position });
        }
        pulled.more |= self.is_pressed && level.scratch.waiting() > 0;
        inserts
    }

    /// The scratch store has stored the rows of a ticket, or refused them for good. Returns whether they may leave memory.
    pub(super) fn stored(&mut self, ticket: Ticket, durable: bool) -> bool {
        self.has_failed |= !durable;
        if !self.has_failed {
            self.flushed = self.flushed.max(ticket);
        }
        !self.has_failed
    }

    /// The scratch store has all rows up to this ticket.
    pub(super) fn flushed(&self) -> Ticket {
        self.flushed
    }

    /// The queue has ended: nothing is left.
    pub(super) fn end(&mut self) {
        self.transient_bytes = 0;
    }

    /// Checks that the bytes are those of the transient entries in memory. O(entries): for short tables.
    pub(super) fn assert_bytes(&self, entries: &Entries) {
        let transient = entries.iter().filter(|(_, entry)| !entry.is_durable());
        let bytes: usize = transient.map(|(_, entry)| entry.message.allocated_bytes()).sum();
        debug_assert_eq!(self.transient_bytes, bytes as u64, "transient bytes are those of the entries");
    }

    /// Checks what must hold after every input.
    pub(super) fn assert_invariants(&self) {
        debug_assert!(self.flushed <= self.ticket, "only what was handed over is there");
        debug_assert!(self.is_used || self.ticket == Ticket(0), "a ticket was given out with something in it");
    }
}
