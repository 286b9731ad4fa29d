//! One priority level: head window, stored middle, tail; and the changes that the store is to be given.
//!
//! Order: everything in the head comes before the middle, everything in the middle before the tail. Lendings are taken
//! from the head only, so every entry that was ever lent or removed lies before the middle: rows that a load brings are
//! alive by construction, and a load that began before a purge is recognised by its number.

use super::ceiling::LentCeiling;
use super::entry::{Entries, EntryView, Order, Slot, Storage};
use super::event::Ticket;
use super::middle::{BothMiddles, LoadedTotals, Middle, Miscount, join};
use super::positions::{AwayPositions, Removals};
use super::scratch_lane::ScratchLane;
use super::settings::WindowLimits;
use crate::model::stored::{LaneChange, LaneState, PositionRange, Row};
use crate::model::{Lane, Position, QueueId, WallMillis};
use std::collections::VecDeque;

/// The memory of a message beside its body, about, in bytes: keys, properties, and its place in the table.
const ROW_BYTES: usize = 128 + Entries::ENTRY_BYTES;

/// From here on a lane begins a new generation as soon as it may: a quarter of its positions is left.
const RENEWED_FROM: Position = Position(Position::MAX.0 / 4 * 3);

/// A load: its number, the ranges to read from the two stores, and how many rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadRequest {
    pub(super) load: u64,
    pub(super) durable: Option<PositionRange>,
    pub(super) scratch: Option<(u32, PositionRange)>,
    pub(super) rows_max: usize,
}

/// Whether rows are on their way from the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Loading {
    #[default]
    No,
    /// The load with this number is under way; it brings at most about so many bytes.
    Requested { load: u64, bytes: usize },
    /// The store could not read; the next load waits a while.
    Failed,
}

/// The loads of a level, one at a time.
#[derive(Debug, Default)]
struct Loads {
    state: Loading,
    /// The number of the last load.
    last: u64,
}

/// Ready entries in memory, in order.
#[derive(Debug, Default)]
struct Window {
    slots: VecDeque<Slot>,
    /// The memory that their messages take.
    bytes: usize,
}

/// The rows that the store has once all submitted batches are flushed.
#[derive(Clone, Copy, Debug, Default)]
struct StoredRows {
    count: u64,
    body_bytes: u64,
}

/// Whether a lane has a position for one more entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextPosition {
    /// There is a position.
    Free,
    /// There is one in a new generation of the lane; the generation given here was abandoned.
    Renewed(u32),
    /// All positions are given out. `is_news`: this was not reported before.
    Exhausted { is_news: bool },
}

#[derive(Debug, Default)]
pub(super) struct Level {
    generation: u32,
    head: Window,
    middle: Option<Middle>,
    tail: Window,
    last: Order,
    /// Durable entries that are lent or leaving.
    away: AwayPositions,
    /// How many transient entries are lent.
    transient_lent: usize,
    /// The highest position that was ever taken from the front of the head.
    taken_high: Position,
    /// Dead rows that the store has, or will have.
    removals: Removals,
    stored: StoredRows,
    ceiling: LentCeiling,
    /// Whether the numbers that the store keeps of the lane changed without a row.
    state_changed: bool,
    loads: Loads,
    pub(super) scratch: ScratchLane,
    /// Whether it was reported that no positions are left.
    reported_full: bool,
}

impl Level {
    /// A level that the store remembers: all of its entries are in the middle.
    pub(super) fn recovered(generation: u32, state: LaneState, expires_by: Option<WallMillis>) -> Self {
        let middle = (state.count > 0).then_some(Middle {
            range: PositionRange { from: state.head, to: state.tail },
            count: state.count,
            body_bytes: state.body_bytes,
            expires_by,
        });
        Self {
            generation,
            middle,
            last: Order { position: state.tail, sub: 0 },
            stored: StoredRows { count: state.count, body_bytes: state.body_bytes },
            ceiling: LentCeiling::recovered(state.lent_ceiling, state.tail),
            ..Self::default()
        }
    }

    // ---- counts ------------------------------------------------------------------------------------------------

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    #[inline]
    pub(super) fn ready_count(&self) -> u64 {
        let stored = self.middles().map(|middle| middle.count);
        (self.head.slots.len() + self.tail.slots.len()) as u64 + stored.sum::<u64>()
    }

    /// The middles of both stores.
    #[inline]
    pub(super) fn middles(&self) -> impl Iterator<Item = Middle> {
        [self.middle, self.scratch.middle].into_iter().flatten()
    }

    /// The middle in the store of durable messages.
    pub(super) fn durable_middle(&self) -> Option<Middle> {
        self.middle
    }

    /// The memory that ready entries take, requested ones included, in bytes.
    pub(super) fn window_bytes(&self) -> usize {
        let requested = if let Loading::Requested { bytes, .. } = self.loads.state { bytes } else { 0 };
        self.head.bytes + self.tail.bytes + requested
    }

    fn has_middle(&self) -> bool {
        self.middle.is_some() || self.scratch.middle.is_some()
    }

    // ---- new entries -------------------------------------------------------------------------------------------

    /// The order of the next entry to be appended.
    #[inline]
    pub(super) fn next_order(&mut self, durable: bool) -> Order {
        self.last = if durable {
            Order { position: self.last.position.next(), sub: 0 }
        } else {
            Order { position: self.last.position, sub: self.last.sub + 1 }
        };
        self.last
    }

    /// Whether there is a position for one more durable entry. Long before positions run out, the lane begins a new generation
    /// as soon as none of its rows lives. `nothing_is_lent`: no message of the queue is lent.
    pub(super) fn next_position(&mut self, nothing_is_lent: bool) -> NextPosition {
        if self.last.position < RENEWED_FROM {
            return NextPosition::Free;
        }
        if nothing_is_lent && self.away.is_empty() && self.ready_count() == 0 {
            return NextPosition::Renewed(self.begin_anew());
        }
        if self.last.position < Position::MAX {
            return NextPosition::Free;
        }
        NextPosition::Exhausted { is_news: !std::mem::replace(&mut self.reported_full, true) }
    }

    /// Begins a new generation of the lane, with the first position. Returns the abandoned generation.
    fn begin_anew(&mut self) -> u32 {
        let generation = self.generation;
        let loads = Loads { state: Loading::No, last: self.loads.last };
        let scratch = std::mem::take(&mut self.scratch);
        *self = Self { generation: generation + 1, loads, scratch, ..Self::default() };
        generation
    }

    /// Abandons a lane without live rows, which is erased later: cheaper than removing its rows. Returns the abandoned
    /// generation, if the store has rows of it.
    pub(super) fn abandon(&mut self) -> Option<u32> {
        if !self.away.is_empty() || self.removals.is_empty() {
            return None;
        }
        let generation = self.generation;
        self.generation += 1;
        self.removals.forget_rows();
        self.stored = StoredRows::default();
        Some(generation)
    }

    /// Appends a new entry behind all others.
    #[inline]
    pub(super) fn push_back(&mut self, slot: Slot, durable: bool, bytes: usize, limits: &WindowLimits) {
        let fits = self.head.slots.len() < limits.head_entries && self.head.bytes + bytes <= limits.head_bytes;
        if !self.has_middle() && self.tail.slots.is_empty() && (fits || self.head.slots.is_empty()) {
            self.head.slots.push_back(slot);
            self.head.bytes += bytes;
        } else {
            self.tail.slots.push_back(slot);
            self.tail.bytes += bytes;
            if !durable {
                self.scratch.add_waiting();
            }
        }
    }

    // ---- the front ---------------------------------------------------------------------------------------------

    /// The first entry, if it is in memory. The tail becomes the head when nothing lies between.
    pub(super) fn front(&mut self) -> Option<Slot> {
        if self.head.slots.is_empty() && !self.has_middle() {
            std::mem::swap(&mut self.head.slots, &mut self.tail.slots);
            self.head.bytes = std::mem::take(&mut self.tail.bytes);
            self.scratch.forget_tail();
        }
        self.head.slots.front().copied()
    }

    /// Takes the first entry off the head; it takes `bytes` of memory.
    #[inline]
    pub(super) fn pop_front(&mut self, position: Position, bytes: usize) {
        self.head.slots.pop_front();
        self.head.bytes = self.head.bytes.saturating_sub(bytes);
        self.taken_high = self.taken_high.max(position);
    }

    /// Puts a requeued entry back to its place, which is in the head: only entries of the head are lent.
    pub(super) fn put_back(&mut self, slot: Slot, entries: &Entries) {
        let entry = entries.at(slot);
        if entry.is_durable() {
            self.away.remove(entry.order.position);
        }
        self.head.bytes += entry.message.allocated_bytes();
        let head = &mut self.head.slots;
        let at = head.partition_point(|other| entries.at(*other).order < entry.order);
        if at == head.len() { head.push_back(slot) } else { head.insert(at, slot) }
    }

    /// Takes all ready entries out; returns those in memory, and the middles.
    pub(super) fn clear(&mut self) -> (Vec<Slot>, BothMiddles) {
        let slots = self.head.slots.drain(..).chain(self.tail.slots.drain(..)).collect();
        (self.head.bytes, self.tail.bytes) = (0, 0);
        self.scratch.forget_tail();
        (slots, self.take_middle())
    }

    /// Takes the middle out, if all of it has expired and no entry of the level lies before it. A load under way becomes
    /// void.
    #[inline]
    pub(super) fn take_expired_middle(&mut self, has_expired: impl Fn(WallMillis) -> bool) -> Option<BothMiddles> {
        if !self.has_middle() || !self.head.slots.is_empty() {
            return None;
        }
        let all = self.middles().all(|middle| middle.expires_by.is_some_and(&has_expired));
        all.then(|| self.take_middle())
    }

    fn take_middle(&mut self) -> BothMiddles {
        self.loads.state = Loading::No;
        let taken = BothMiddles { durable: self.middle.take(), scratch: self.scratch.middle.take() };
        if let Some(middle) = taken.durable {
            self.taken_high = self.taken_high.max(middle.range.to);
        }
        taken
    }

    // ---- entries that are away ---------------------------------------------------------------------------------

    /// Notes that a transient entry is lent.
    #[inline]
    pub(super) fn lend_transient(&mut self) {
        self.transient_lent += 1;
    }

    /// Notes that a transient entry is not lent any more.
    #[inline]
    pub(super) fn unlend_transient(&mut self) {
        self.transient_lent -= 1;
    }

    /// Notes that a durable entry is lent.
    pub(super) fn lend_durable(&mut self, position: Position) {
        self.away.insert(position);
        self.ceiling.note_lent(position);
    }

    /// Notes that a durable entry is kept until the copies of its dead letter are safe.
    pub(super) fn keep_leaving(&mut self, position: Position) {
        self.away.insert(position);
    }

    /// Notes that a durable entry is neither lent nor leaving any more.
    pub(super) fn end_away(&mut self, position: Position) {
        self.away.remove(position);
    }

    /// Whether an entry whose row is in batch `row` may be handed over now. If not, a higher ceiling is on its way to the store.
    pub(super) fn may_hand_over(&mut self, position: Position, row: Ticket, ahead: u64) -> bool {
        let covered = self.ceiling.covers(position, row);
        self.state_changed |= self.ceiling.keep_ahead(position, ahead);
        covered
    }

    /// Whether the store is to be given new numbers of the lane.
    pub(super) fn state_changed(&self) -> bool {
        self.state_changed
    }

    /// Whether a row that is read back may have been delivered before.
    pub(super) fn may_have_been_lent(&self, position: Position) -> bool {
        self.ceiling.may_have_been_lent(position)
    }

    // ---- loads -------------------------------------------------------------------------------------------------

    /// Begins a load if the head is half empty and the store has more rows.
    #[inline]
    pub(super) fn begin_load(&mut self, limits: &WindowLimits) -> Option<LoadRequest> {
        if self.loads.state != Loading::No || !limits.is_half_empty(self.head.slots.len(), self.head.bytes) {
            return None;
        }
        self.request(limits.head_entries - self.head.slots.len(), limits.head_bytes)
    }

    /// Begins a load of the first row only, for a queue without consumers: the row may have to expire.
    #[inline]
    pub(super) fn begin_peek(&mut self) -> Option<LoadRequest> {
        if !self.head.slots.is_empty() || self.loads.state != Loading::No {
            return None;
        }
        self.request(1, 0)
    }

    fn request(&mut self, rows_max: usize, bytes_max: usize) -> Option<LoadRequest> {
        if !self.has_middle() {
            return None;
        }
        let (count, bytes) = self.middles().fold((0, 0), |(count, bytes), middle| {
            (count + middle.count, bytes + middle.body_bytes + middle.count * ROW_BYTES as u64)
        });
        self.loads.last += 1;
        let share = bytes / count.max(1) * (rows_max as u64).min(count);
        let bytes = usize::try_from(share).unwrap_or(usize::MAX).min(bytes_max);
        self.loads.state = Loading::Requested { load: self.loads.last, bytes };
        let (durable, scratch) = (self.middle.map(|middle| middle.range), self.scratch.range());
        Some(LoadRequest { load: self.loads.last, durable, scratch, rows_max })
    }

    /// Ends a load; returns whether its rows are still valid.
    pub(super) fn end_load(&mut self, load: u64) -> bool {
        let wanted = matches!(self.loads.state, Loading::Requested { load: requested, .. } if requested == load);
        if wanted {
            self.loads.state = Loading::No;
        }
        wanted
    }

    /// Notes that a load failed: no load begins until `retry_load`.
    pub(super) fn load_failed(&mut self) {
        self.loads.state = Loading::Failed;
    }

    /// Allows loads again.
    pub(super) fn retry_load(&mut self) {
        if self.loads.state == Loading::Failed {
            self.loads.state = Loading::No;
        }
    }

    /// Appends loaded entries to the head; they take `bytes` of memory.
    pub(super) fn extend_head(&mut self, slots: &[Slot], bytes: usize) {
        self.head.slots.extend(slots);
        self.head.bytes += bytes;
    }

    /// Takes loaded rows out of the middle of the store; returns how many more (or fewer) rows the store held than the numbers of
    /// the middle.
    pub(super) fn durable_loaded(&mut self, totals: LoadedTotals) -> Miscount {
        let miscount = totals.take_from(&mut self.middle);
        if miscount != Miscount::default() {
            self.stored.count = self.stored.count.saturating_add_signed(miscount.rows);
            self.stored.body_bytes = self.stored.body_bytes.saturating_add_signed(miscount.body_bytes);
            self.state_changed = true;
        }
        miscount
    }

    // ---- windows -----------------------------------------------------------------------------------------------

    /// The next entry of the tail that was not considered for the scratch store.
    pub(super) fn next_to_spill(&mut self) -> Option<Slot> {
        let slot = self.tail.slots.get(self.scratch.passed).copied()?;
        self.scratch.passed += 1;
        Some(slot)
    }

    /// Drops entries at the front of a long tail from memory, if the stores have them; returns the memory that the transient ones
    /// took. Entries before a spilled entry go with it.
    pub(super) fn absorb(
        &mut self,
        entries: &mut Entries,
        flushed: Ticket,
        spilled: Ticket,
        limits: &WindowLimits,
    ) -> u64 {
        let mut transient_bytes = 0;
        while self.tail.slots.len() > limits.tail_entries
            || self.tail.bytes > limits.tail_bytes
            || self.scratch.passed > 0
        {
            let Some(slot) = self.tail.slots.front().copied() else { break };
            let entry = entries.at(slot);
            let bytes = entry.message.allocated_bytes();
            match entry.storage {
                Storage::Submitted(ticket) if ticket <= flushed => {
                    debug_assert!(entry.promise.is_none(), "a stored entry has kept its promise");
                    join(&mut self.middle, Middle::of(entry, entry.order.position));
                }
                Storage::Spilling { ticket, position } if ticket <= spilled => {
                    join(&mut self.scratch.middle, Middle::of(entry, position));
                    transient_bytes += bytes as u64;
                }
                _ => break,
            }
            entries.remove(slot);
            self.tail.slots.pop_front();
            self.tail.bytes = self.tail.bytes.saturating_sub(bytes);
            self.scratch.passed = self.scratch.passed.saturating_sub(1);
        }
        transient_bytes
    }

    /// Shortens a head that is too long: drops entries at its back from memory, if the store has them, or moves them to the tail
    /// while memory for transient messages is short (`is_pressed`). A load under way becomes void, and is requested again
    /// when it is needed.
    pub(super) fn shrink(&mut self, entries: &mut Entries, flushed: Ticket, is_pressed: bool, limits: &WindowLimits) {
        if self.head.slots.len() <= limits.head_entries * 2 && self.head.bytes <= limits.head_bytes * 2 {
            return;
        }
        // Lent and leaving entries may come back, to places before this one.
        let away_below =
            if self.transient_lent == 0 { self.away.highest().unwrap_or_default() } else { self.taken_high.next() };
        // Every row above it lives and is ready, and every read from now on finds exactly these rows.
        let settled_above = self.removals.highest().max(away_below);
        while self.head.slots.len() > limits.head_entries
            || self.head.bytes > limits.head_bytes && self.head.slots.len() > 1
        {
            let Some(slot) = self.head.slots.back().copied() else { return };
            let entry = entries.at(slot);
            let bytes = entry.message.allocated_bytes();
            if limits.is_half_empty(self.head.slots.len() - 1, self.head.bytes.saturating_sub(bytes)) {
                // The entry would be read again at once: it is a large message behind a few small ones.
                return;
            }
            let position = entry.order.position;
            match entry.storage {
                Storage::Submitted(ticket)
                    if ticket <= flushed && position > settled_above && self.flag_follows_position(entry) =>
                {
                    join(&mut self.middle, Middle::of(entry, position));
                    entries.remove(slot);
                    self.loads.state = Loading::No;
                }
                // The entry came back from a consumer; from the tail it may go to the scratch store.
                Storage::Transient
                    if is_pressed && position >= away_below && !self.has_middle() && self.scratch.passed == 0 =>
                {
                    self.tail.slots.push_front(slot);
                    self.tail.bytes += bytes;
                    self.scratch.add_waiting();
                }
                _ => return,
            }
            self.head.slots.pop_back();
            self.head.bytes = self.head.bytes.saturating_sub(bytes);
        }
    }

    /// Whether the position of a row that is read back decides correctly whether it was delivered before.
    fn flag_follows_position(&self, entry: EntryView<'_>) -> bool {
        entry.redelivered || self.ceiling.is_above_lent(entry.order.position)
    }

    /// Reduces the spare capacity to `more` entries.
    pub(super) fn shrink_capacity(&mut self, more: usize) {
        self.head.slots.shrink_to(self.head.slots.len() + more);
        self.tail.slots.shrink_to(self.tail.slots.len() + more);
    }

    // ---- the store ---------------------------------------------------------------------------------------------

    /// Adds a row that is about to be submitted.
    pub(super) fn add_row(&mut self, body_bytes: u64) {
        self.stored.count += 1;
        self.stored.body_bytes += body_bytes;
    }

    /// Removes a dead row.
    pub(super) fn remove_row(&mut self, position: Position, body_bytes: u64) {
        self.stored.count = self.stored.count.saturating_sub(1);
        self.stored.body_bytes = self.stored.body_bytes.saturating_sub(body_bytes);
        self.removals.add(position);
    }

    /// Removes the dead rows of a middle.
    pub(super) fn remove_middle(&mut self, middle: &Middle) {
        self.stored.count = self.stored.count.saturating_sub(middle.count);
        self.stored.body_bytes = self.stored.body_bytes.saturating_sub(middle.body_bytes);
        self.removals.add_range(middle.range);
    }

    /// Whether rows are to be removed from the store.
    pub(super) fn has_removals(&self) -> bool {
        !self.removals.is_empty()
    }

    /// The changes of the lane in the batch `ticket`, if there are any. The ceiling is kept `ahead` of the handed-over
    /// positions.
    pub(super) fn submit(
        &mut self,
        queue: QueueId,
        level: u8,
        inserts: Vec<Row>,
        ticket: Ticket,
        ahead: Option<u64>,
        entries: &Entries,
    ) -> Option<LaneChange> {
        if inserts.is_empty() && self.removals.is_empty() && !self.state_changed {
            return None;
        }
        self.state_changed = false;
        let below = self.lowest_living(entries);
        let (mut removes, remove_ranges) = self.removals.submit(ticket);
        removes.sort_unstable();
        let covered = removes.partition_point(|position| *position < below);
        let remove_below = (covered > 0).then_some(below);
        removes.drain(..covered);
        let state = LaneState {
            head: below,
            tail: self.last.position,
            count: self.stored.count,
            body_bytes: self.stored.body_bytes,
            lent_ceiling: self.ceiling.submit(ticket, self.taken_high, ahead),
        };
        let lane = Lane { queue, level, generation: self.generation };
        Some(LaneChange { lane, inserts, remove_below, remove_ranges, removes, state })
    }

    /// All batches up to this ticket are flushed.
    pub(super) fn flushed(&mut self, flushed: Ticket) {
        self.ceiling.flushed(flushed);
        self.removals.flushed(flushed);
    }

    /// Lowers the ceiling to the highest lent position; returns whether the store is to be given it.
    pub(super) fn make_ceiling_exact(&mut self) -> bool {
        let changed = self.ceiling.make_exact();
        self.state_changed |= changed;
        changed
    }

    /// Below this position no row lives.
    fn lowest_living(&self, entries: &Entries) -> Position {
        let first = |window: &Window| {
            window.slots.front().map(|slot| {
                let order = entries.at(*slot).order;
                if order.sub == 0 { order.position } else { order.position.next() }
            })
        };
        [
            self.away.lowest(),
            first(&self.head),
            self.middle.map(|middle| middle.range.from),
            first(&self.tail),
            Some(self.last.position.next()),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or_default()
    }

    // ---- invariants --------------------------------------------------------------------------------------------

    /// Checks what must hold after every input, at the cost of a few comparisons.
    pub(super) fn assert_invariants(&self) {
        debug_assert!(self.middles().all(|middle| middle.range.from <= middle.range.to), "a middle has a range");
        debug_assert!(!self.head.slots.is_empty() || self.head.bytes == 0, "an empty head takes no memory");
        debug_assert!(!self.tail.slots.is_empty() || self.tail.bytes == 0, "an empty tail takes no memory");
        debug_assert!(
            self.scratch.passed + self.scratch.waiting() <= self.tail.slots.len(),
            "what waits for the scratch store is in the tail"
        );
        debug_assert!(self.last.position <= Position::MAX, "positions end with the last one");
    }
}
