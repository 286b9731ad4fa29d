//! The messages of a queue: the table of those in memory, and the parts that count them. A change that concerns several parts,
//! such as the arrival of a message, is made here. Consumers are not known here.

use super::context::Context;
use super::durable::Durable;
use super::effect::{Effects, QueueEffect};
use super::entry::{Entries, Entry, EntryState, Slot, Storage};
use super::event::Ticket;
use super::level::{Level, NextPosition};
use super::middle::Middle;
use super::ready::Ready;
use super::settings::{Overflow, QueueLimits, QueueSettings};
use super::spill::Spill;
use crate::model::stored::{Group, LaneState};
use crate::model::{Lane, Message, Monotonic, Position, Promise, WallMillis};

/// All messages of a queue.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) entries: Entries,
    pub(super) ready: Ready,
    pub(super) durable: Durable,
    pub(super) spill: Spill,
}

/// A message that enters the queue, with its promise and its expiry.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) message: Message,
    pub(super) promise: Option<Promise>,
    pub(super) level: u8,
    pub(super) is_durable: bool,
    pub(super) expires_at: Option<WallMillis>,
}

/// A reference to an entry that stays valid when the slot is reused: it names the position as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryRef {
    slot: Slot,
    level: u8,
    position: Position,
}

/// An entry that has left the queue.
pub(super) struct RemovedEntry {
    /// The promise that the queue still owes for it.
    pub(super) promise: Option<Promise>,
    /// Whether the store has its row.
    has_row: bool,
    message: Message,
}

impl Contents {
    pub(super) fn new(limits: &QueueLimits) -> Self {
        Self {
            entries: Entries::new(),
            ready: Ready::new(limits.window),
            durable: Durable::new(limits.hold),
            spill: Spill::default(),
        }
    }

    /// Adds a lane that the store remembers.
    pub(super) fn recover_lane(&mut self, lane: Lane, state: LaneState, expires_by: Option<WallMillis>) {
        self.ready.recover(lane, Level::recovered(lane.generation, state, expires_by), state.body_bytes);
        self.durable.recover(state.count, state.body_bytes);
    }

    /// Messages ready for delivery, for clients and listings, without those that the length limit drops as soon as their rows are
    /// read. How many a limit of bytes drops is not known before the read.
    pub(super) fn shown_ready_count(&self, settings: &QueueSettings) -> u64 {
        match (settings.overflow, settings.length_max) {
            (Overflow::DropHead, Some(max)) => self.ready.count().min(max),
            _ => self.ready.count(),
        }
    }

    // ---- messages come -----------------------------------------------------------------------------------------

    /// Whether a lane has a position for one more durable entry; `nothing_is_lent`: no message of the queue is lent.
    pub(super) fn has_position(&mut self, level: u8, nothing_is_lent: bool, cx: &mut Context<'_>) -> bool {
        let found = self.ready.level_or_new(level);
        match found.next_position(nothing_is_lent) {
            NextPosition::Free => true,
            NextPosition::Renewed(generation) => {
                self.durable.drop_lane(cx.lane(level, generation));
                true
            }
            NextPosition::Exhausted { is_news } => {
                if is_news {
                    let lane = cx.lane(level, found.generation());
                    cx.out.effects.push(QueueEffect::NoPositions { lane });
                }
                false
            }
        }
    }

    /// Adds a message to the ready ones.
    #[inline]
    pub(super) fn enter(&mut self, arrival: Arrival) -> EntryRef {
        let Arrival { message, promise, level, is_durable, expires_at } = arrival;
        let order = self.ready.level_or_new(level).next_order(is_durable);
        let storage = if is_durable { Storage::Young } else { Storage::Transient };
        let (redelivered, state) = (false, EntryState::Ready);
        if is_durable {
            self.durable.add(&message);
        } else {
            self.spill.add(&message);
        }
        let (size, body_bytes) = (message.allocated_bytes(), message.body_len() as u64);
        let entry = Entry { message, order, expires_at, promise, storage, level, redelivered, state };
        let slot = self.entries.insert(entry);
        self.ready.append(slot, level, is_durable, size, body_bytes);
        if is_durable {
            self.durable.add_young(slot, level, order.position);
        }
        EntryRef { slot, level, position: order.position }
    }

    /// Makes a durable message due for the writer at once, because no consumer took it.
    #[inline]
    pub(super) fn make_due(&mut self, arrived: EntryRef) {
        let EntryRef { slot, level, position } = arrived;
        let still_ready = self.entries.find(slot).is_some_and(|entry| {
            entry.is_durable()
                && entry.order.position == position
                && entry.level == level
                && entry.state == EntryState::Ready
        });
        self.durable.set_due_if(still_ready);
    }

    // ---- messages are lent -------------------------------------------------------------------------------------

    /// The front entry; none while it is being loaded.
    #[inline]
    pub(super) fn front(&mut self, cx: &mut Context<'_>) -> Option<Slot> {
        self.ready.front(cx)
    }

    /// Takes the front entry out of the ready ones.
    #[inline]
    pub(super) fn take_front(&mut self, slot: Slot) {
        self.ready.take_front(self.entries.at(slot));
    }

    /// Whether a restart after a kill would know that the entry was handed over. If not, a higher ceiling is due for the store,
    /// and the entry waits for it. A row that is not written yet carries the mark itself.
    #[inline]
    pub(super) fn may_hand_over(&mut self, slot: Slot) -> bool {
        let entry = self.entries.at(slot);
        let Storage::Submitted(row) = entry.storage else { return true };
        if entry.redelivered {
            return true;
        }
        let ahead = self.ready.lent_ahead();
        let level = self.ready.level(entry.level);
        let may = level.may_hand_over(entry.order.position, row, ahead);
        self.durable.set_due_if(level.state_changed());
        may || self.durable.store_failed()
    }

    /// Notes that an entry taken from the front is lent.
    #[inline]
    pub(super) fn note_lent(&mut self, slot: Slot, now: Monotonic) {
        let entry = self.entries.at(slot);
        let level = self.ready.level(entry.level);
        if !entry.is_durable() {
            return level.lend_transient();
        }
        level.lend_durable(entry.order.position);
        if entry.storage == Storage::Young {
            self.durable.lent_young(now);
        }
    }

    /// Notes that an entry is not lent any more; it is about to go back or to leave.
    #[inline]
    pub(super) fn note_unlent(&mut self, slot: Slot) {
        let entry = self.entries.at(slot);
        if !entry.is_durable() {
            self.ready.level(entry.level).unlend_transient();
        }
    }

    /// Puts an entry that is not lent any more back to its place.
    pub(super) fn put_back(&mut self, slot: Slot, redelivered: bool) {
        self.entries.set_state(slot, EntryState::Ready);
        if redelivered {
            self.entries.set_redelivered(slot);
        }
        self.durable.set_due_if(self.entries.at(slot).storage == Storage::Young);
        self.ready.put_back(slot, &self.entries);
    }

    // ---- messages go -------------------------------------------------------------------------------------------

    /// Removes an entry that is not ready any more: keeps its promise and removes its row, if it has one.
    #[inline]
    pub(super) fn remove(&mut self, slot: Slot, cx: &mut Context<'_>) -> Message {
        let RemovedEntry { promise, has_row, message } = self.let_go(slot, cx.out);
        if let Some(promise) = promise {
            cx.out.promise(promise, true);
        }
        if has_row {
            self.durable.removal_due(cx.now.monotonic);
        }
        message
    }

    /// Removes an entry; the caller keeps its promise.
    #[inline]
    pub(super) fn let_go(&mut self, slot: Slot, out: &mut Effects) -> RemovedEntry {
        let Entry { message, order, promise, storage, level, state, .. } = self.entries.remove(slot);
        if matches!(storage, Storage::Transient | Storage::Spilling { .. }) {
            self.spill.remove(&message);
            return RemovedEntry { promise, has_row: false, message };
        }
        let level = self.ready.level(level);
        if state != EntryState::Ready {
            level.end_away(order.position);
        }
        let has_row = matches!(storage, Storage::Submitted(_));
        if has_row {
            level.remove_row(order.position, message.body_len() as u64);
            self.durable.remove_row(&message);
        } else {
            out.counts.never_written += 1;
            self.durable.remove_young(&message);
        }
        RemovedEntry { promise, has_row, message }
    }

    /// Removes entries that only the store holds.
    pub(super) fn remove_middle(&mut self, level: u8, middle: &Middle) {
        self.ready.level(level).remove_middle(middle);
        self.durable.remove_middle(middle);
    }

    /// Removes all ready messages.
    pub(super) fn purge(&mut self, cx: &mut Context<'_>) {
        for number in (0..self.ready.levels_end()).map(|at| at as u8) {
            let Some(level) = self.ready.find_level(number) else { continue };
            let (slots, taken) = level.clear();
            if let Some(middle) = taken.durable {
                self.remove_middle(number, &middle);
                self.durable.set_due();
            }
            for slot in slots {
                let RemovedEntry { promise, has_row, .. } = self.let_go(slot, cx.out);
                if let Some(promise) = promise {
                    cx.out.promise(promise, true);
                }
                self.durable.set_due_if(has_row);
            }
            if let Some(generation) = self.ready.level(number).abandon() {
                self.durable.drop_lane(cx.lane(number, generation));
            }
        }
        self.ready.cleared();
    }

    /// The queue has ended: purges are answered, and promises kept.
    pub(super) fn end(&mut self, cx: &mut Context<'_>) {
        let owed = self.durable.end(cx);
        let mut promises: Vec<_> = self.entries.iter().filter_map(|(_, entry)| entry.promise).collect();
        promises.sort_by_key(|promise| promise.sequence);
        for promise in owed.into_iter().chain(promises) {
            cx.out.promise(promise, true);
        }
        self.entries = Entries::new();
        self.ready.end();
        self.spill.end();
    }

    // ---- the stores --------------------------------------------------------------------------------------------

    pub(super) fn pull(&mut self, rows_max: usize, bytes_max: usize, cx: &mut Context<'_>) {
        self.durable.pull(rows_max, bytes_max, &mut self.entries, &mut self.ready, cx);
    }

    pub(super) fn seal(&mut self, group: Group, promise: Option<Promise>, cx: &mut Context<'_>) {
        self.durable.seal(group, promise, &mut self.entries, &mut self.ready, cx);
    }

    pub(super) fn pull_nothing(&mut self, group: Option<Group>, cx: &mut Context<'_>) {
        self.durable.pull_nothing(group, &self.entries, &mut self.ready, cx);
    }

    pub(super) fn spill(&mut self, rows_max: usize, bytes_max: usize, cx: &mut Context<'_>) {
        let queue = cx.settings.id;
        cx.out.spilled.push(self.spill.pull(queue, rows_max, bytes_max, &mut self.entries, &mut self.ready));
    }

    /// A ticket was flushed, or refused for good: promises are kept or refused, and long tails may leave memory.
    pub(super) fn stored(&mut self, ticket: Ticket, durable: bool, cx: &mut Context<'_>) {
        if !self.durable.stored(ticket, durable, cx) {
            return;
        }
        self.absorb_tails();
        let flushed = self.durable.flushed();
        self.ready.levels_mut().for_each(|(_, level)| level.flushed(flushed));
        // An idle queue, or one with the smallest window, gives its spare capacity back.
        if self.durable.is_idle() || self.ready.window().tail_entries == 0 {
            self.durable.shrink_capacity(&mut self.ready);
        }
    }

    /// The scratch store has stored the rows of a ticket, or refused them for good.
    pub(super) fn spilled(&mut self, ticket: Ticket, durable: bool) {
        if self.spill.stored(ticket, durable) {
            self.absorb_tails();
        }
    }

    /// Drops entries of long tails from memory, as far as the stores have them.
    fn absorb_tails(&mut self) {
        let Self { entries, ready, durable, spill } = self;
        let (flushed, spilled, window) = (durable.flushed(), spill.flushed(), *ready.window());
        for (_, level) in ready.levels_mut() {
            spill.left_memory(level.absorb(entries, flushed, spilled, &window));
        }
    }

    /// Drops entries of long heads from memory, as far as the stores have them: heads grow when lent messages come back.
    pub(super) fn shrink_heads(&mut self) {
        let Self { entries, ready, durable, spill } = self;
        // After a refusal it is unknown which rows the store has.
        if durable.store_failed() {
            return;
        }
        let (flushed, is_pressed, window) = (durable.flushed(), spill.is_pressed(), *ready.window());
        for (_, level) in ready.levels_mut() {
            level.shrink(entries, flushed, is_pressed, &window);
        }
    }

    // ---- invariants --------------------------------------------------------------------------------------------

    /// Checks what must hold after every input. O(levels); a short table of entries is counted too.
    pub(super) fn assert_invariants(&self) {
        self.ready.assert_invariants();
        self.durable.assert_invariants();
        self.spill.assert_invariants();
        if self.entries.is_short() {
            self.durable.assert_bytes(&self.entries);
            self.spill.assert_bytes(&self.entries);
        }
    }
}
