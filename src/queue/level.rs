//! One priority level: head window, stored middle, tail; and what the store has to be told of it.
//!
//! Order: everything in the head comes before the middle, everything in the middle before the tail. Lendings are taken
//! from the head only, so whatever was ever lent or removed lies before the middle: rows that a load brings are alive
//! by construction, and a load that a purge has overtaken is recognised by its number.

use super::entry::{Entries, Entry, Order, Slot, Storage};
use super::input::{Requester, Ticket};
use super::scratch::{Scratch, Took};
use crate::model::stored::{LaneState, PositionRange};
use crate::model::{Position, Promise, WallMillis};
use std::collections::VecDeque;

/// How much of a level is kept in memory.
#[derive(Clone, Copy, Debug)]
pub struct WindowLimits {
    /// Entries in the head.
    pub head_entries: usize,
    /// Entries in the head however short memory runs.
    pub head_entries_min: usize,
    /// Entries of the tail before stored ones are left to the store.
    pub tail_entries: usize,
    /// Bytes of the tail before stored ones are left to the store.
    pub tail_bytes: usize,
    /// Bytes of the head, and what one load brings at most; a single larger entry exceeds it.
    pub head_bytes: usize,
}

impl Default for WindowLimits {
    fn default() -> Self {
        Self { head_entries: 1024, head_entries_min: 64, tail_entries: 4096, tail_bytes: 2 << 20, head_bytes: 1 << 20 }
    }
}

/// Of the least entries of a head, a queue without consumers keeps this share when memory is at its shortest.
const UNCONSUMED_DIVISOR: usize = 8;

impl WindowLimits {
    /// The same, halved so many times because memory for windows runs short; at the last step nothing that is stored
    /// stays in the tail, and the head shrinks to what one load should bring: that serves consumers, and without any a
    /// few entries are enough.
    #[must_use]
    pub fn squeezed(self, halvings: u32, is_consumed: bool) -> Self {
        if halvings == 0 {
            return self;
        }
        let is_last = halvings == Self::SQUEEZE_MAX;
        let least = self.head_entries_min.min(self.head_entries);
        let head_entries = (self.head_entries >> halvings).max(least);
        Self {
            head_entries: if is_last && !is_consumed { least.div_ceil(UNCONSUMED_DIVISOR) } else { head_entries },
            head_bytes: self.head_bytes >> halvings,
            tail_entries: if is_last { 0 } else { self.tail_entries >> halvings },
            tail_bytes: if is_last { 0 } else { self.tail_bytes >> halvings },
            ..self
        }
    }

    /// Whether a head of so many entries and bytes wants more of what the store has.
    fn is_half_empty(&self, entries: usize, bytes: usize) -> bool {
        entries <= self.head_entries / 2 && bytes <= self.head_bytes / 2
    }

    /// The most that windows are squeezed.
    pub const SQUEEZE_MAX: u32 = 4;
}

/// Stored entries of which memory knows only where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Middle {
    pub(super) range: PositionRange,
    pub(super) count: u64,
    pub(super) body_bytes: u64,
    /// By then all of them have expired; none when some may never.
    pub(super) expires_by: Option<WallMillis>,
}

impl Middle {
    fn of(entry: &Entry, position: Position) -> Self {
        Self {
            range: PositionRange { from: position, to: position },
            count: 1,
            body_bytes: entry.message.body_len() as u64,
            expires_by: entry.expires_at,
        }
    }

    /// Takes a neighbour in.
    fn add(&mut self, other: Self) {
        self.range.from = self.range.from.min(other.range.from);
        self.range.to = self.range.to.max(other.range.to);
        self.count += other.count;
        self.body_bytes += other.body_bytes;
        self.expires_by = self.expires_by.zip(other.expires_by).map(|(one, other)| one.max(other));
    }
}

/// What only the stores had, and was taken away as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct TakenMiddle {
    pub(super) durable: Option<Middle>,
    pub(super) scratch: Option<Middle>,
}

/// A load: its number, what to read of either store, and how many rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) load: u64,
    pub(super) durable: Option<PositionRange>,
    pub(super) scratch: Option<(u32, PositionRange)>,
    pub(super) rows_max: usize,
}

fn join(middle: &mut Option<Middle>, other: Middle) {
    match middle {
        Some(middle) => middle.add(other),
        None => *middle = Some(other),
    }
}

/// Positions of durable entries that are lent or leaving, so that the lowest living row is known.
#[derive(Debug, Default)]
pub(super) struct OutPositions {
    /// By rising position; false for those that came back or left, until they are swept out.
    list: VecDeque<(Position, bool)>,
    gone: usize,
}

/// Positions that came back behind one that stays out are swept out when there are more than this, and more than others.
const GONE_KEPT: usize = 64;

impl OutPositions {
    pub(super) fn insert(&mut self, position: Position) {
        if self.list.back().is_none_or(|(last, _)| *last < position) {
            self.list.push_back((position, true));
            return;
        }
        match self.list.binary_search_by_key(&position, |(at, _)| *at) {
            Ok(at) => self.gone -= usize::from(!std::mem::replace(&mut self.list[at].1, true)),
            Err(at) => self.list.insert(at, (position, true)),
        }
    }

    pub(super) fn remove(&mut self, position: Position) {
        if let Ok(at) = self.list.binary_search_by_key(&position, |(at, _)| *at) {
            self.gone += usize::from(std::mem::replace(&mut self.list[at].1, false));
        }
        while let Some((_, false)) = self.list.front() {
            self.list.pop_front();
            self.gone -= 1;
        }
        if self.gone > GONE_KEPT && self.gone > self.list.len() / 2 {
            self.list.retain(|(_, out)| *out);
            self.gone = 0;
        }
    }

    fn lowest(&self) -> Option<Position> {
        self.list.front().map(|(position, _)| *position)
    }

    fn highest(&self) -> Option<Position> {
        self.list.iter().rev().find(|(_, out)| *out).map(|(position, _)| *position)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }
}

/// The highest positions of rows that are removed, while a read may still bring them.
#[derive(Debug, Default)]
pub(super) struct Removals {
    /// Of those that no batch carries.
    unsubmitted: Position,
    /// Of those in each batch that is not flushed.
    submitted: VecDeque<(Ticket, Position)>,
}

impl Removals {
    fn note(&mut self, position: Position) {
        self.unsubmitted = self.unsubmitted.max(position);
    }

    /// The batch `ticket` carries all that were noted.
    pub(super) fn submit(&mut self, ticket: Ticket) {
        let highest = std::mem::take(&mut self.unsubmitted);
        if highest > Position(0) {
            self.submitted.push_back((ticket, highest));
        }
    }

    pub(super) fn flushed(&mut self, flushed: Ticket) {
        while self.submitted.front().is_some_and(|(ticket, _)| *ticket <= flushed) {
            self.submitted.pop_front();
        }
    }

    fn highest(&self) -> Position {
        self.submitted.iter().map(|(_, highest)| *highest).fold(self.unsubmitted, Position::max)
    }
}

/// How many rows more (or fewer) a lane held than its numbers said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Miscount {
    pub(super) rows: i64,
    pub(super) body_bytes: i64,
}

/// Whether rows are on their way from the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Loading {
    #[default]
    No,
    /// Asked for under this number.
    Asked(u64),
    /// The store could not read; it is not asked again at once.
    Failed,
}

#[derive(Debug, Default)]
pub(super) struct Level {
    pub(super) generation: u32,
    head: VecDeque<Slot>,
    head_bytes: usize,
    pub(super) middle: Option<Middle>,
    tail: VecDeque<Slot>,
    tail_bytes: usize,
    last: Order,
    pub(super) out: OutPositions,
    /// Transient entries that are lent.
    pub(super) transient_out: usize,
    /// Positions of rows that the store has, or will have, and that live no more.
    pub(super) removed: Vec<Position>,
    pub(super) removed_ranges: Vec<PositionRange>,
    pub(super) removals: Removals,
    /// Rows the store will have once all that is submitted is flushed.
    pub(super) stored_count: u64,
    pub(super) stored_bytes: u64,
    pub(super) ceiling: LentCeiling,
    pub(super) lent_high: Position,
    /// The ceiling that an earlier process left.
    pub(super) recovered_ceiling: Position,
    /// Whether the five numbers changed without a row.
    pub(super) state_changed: bool,
    /// The highest position that ever left the head's front.
    taken_high: Position,
    loading: Loading,
    /// What the load under way may bring, in bytes.
    asked_bytes: usize,
    loads: u64,
    pub(super) scratch: Scratch,
    /// It was told that there are no positions left.
    pub(super) is_full_said: bool,
}

/// Below it a restart takes every stored row of the lane for one that may have been handed over. It is written ahead of the
/// handing over, so that a kill at any moment leaves no row unmarked that somebody had.
#[derive(Debug, Default)]
pub(super) struct LentCeiling {
    pub(super) below: Position,
    /// The first batch that carries it; none while it was not pulled.
    carried_by: Option<Ticket>,
    /// The ceiling that the store has for certain.
    flushed: Position,
}

impl LentCeiling {
    /// Whether an entry of this position, which `row` carries, may be handed over: no batch that brings its row is without
    /// a ceiling above it.
    fn covers(&self, position: Position, row: Ticket) -> bool {
        position < self.flushed || position < self.below && self.carried_by.is_some_and(|ticket| ticket <= row)
    }

    /// Keeps it ahead of `position`. Returns whether it moved, which it does half the way early, and once it is flushed.
    fn keep_ahead(&mut self, position: Position, ahead: u64) -> bool {
        let is_near = position.0 + ahead / 2 >= self.below.0;
        let moves = is_near && (self.flushed == self.below || position >= self.below);
        if moves {
            self.set(Position(position.0 + ahead));
        }
        moves
    }

    pub(super) fn set(&mut self, below: Position) {
        (self.below, self.carried_by, self.flushed) = (below, None, self.flushed.min(below));
    }

    fn flushed(&mut self, flushed: Ticket) {
        if self.carried_by.is_some_and(|ticket| ticket <= flushed) {
            self.flushed = self.below;
        }
    }
}

/// What a message takes of memory beside its body, about: keys, properties, and its place in the table.
const ROW_BYTES: usize = 128 + Entries::ENTRY_BYTES;

impl Level {
    /// A level as the store remembers it: all of it in the middle.
    pub(super) fn recovered(generation: u32, state: LaneState, expires_by: Option<WallMillis>) -> Self {
        let middle = (state.count > 0).then_some(Middle {
            range: PositionRange { from: state.head, to: state.tail },
            count: state.count,
            body_bytes: state.body_bytes,
            expires_by,
        });
        // It was written ahead; what is published from here on was lent to nobody.
        let ceiling = state.lent_ceiling.min(state.tail.next());
        Self {
            generation,
            middle,
            last: Order { position: state.tail, sub: 0 },
            stored_count: state.count,
            stored_bytes: state.body_bytes,
            ceiling: LentCeiling { below: ceiling, carried_by: Some(Ticket(0)), flushed: ceiling },
            recovered_ceiling: ceiling,
            ..Self::default()
        }
    }

    /// Whether an entry, which `row` carries, may be handed over now. If not, the ceiling is on its way to the store.
    pub(super) fn may_hand_over(&mut self, position: Position, row: Ticket, ahead: u64) -> bool {
        let covered = self.ceiling.covers(position, row);
        self.state_changed |= self.ceiling.keep_ahead(position, ahead);
        covered
    }

    /// The ceiling that goes to the store with the batch `ticket`; with the first of a process too, before anything is handed
    /// over, since a disk that is full then would let nobody take what is on it.
    pub(super) fn pull_ceiling(&mut self, ticket: Ticket, ahead: Option<u64>) -> Position {
        if let Some(ahead) = ahead {
            self.ceiling.keep_ahead(self.taken_high.max(self.recovered_ceiling), ahead);
        }
        self.ceiling.carried_by.get_or_insert(ticket);
        self.ceiling.below
    }

    pub(super) fn ceiling_flushed(&mut self, flushed: Ticket) {
        self.ceiling.flushed(flushed);
    }

    pub(super) fn ready_count(&self) -> u64 {
        let stored = [self.middle, self.scratch.middle].into_iter().flatten().map(|middle| middle.count);
        (self.head.len() + self.tail.len()) as u64 + stored.sum::<u64>()
    }

    /// The order of the next entry to be appended.
    pub(super) fn next_order(&mut self, durable: bool) -> Order {
        self.last = if durable {
            Order { position: self.last.position.next(), sub: 0 }
        } else {
            Order { position: self.last.position, sub: self.last.sub + 1 }
        };
        self.last
    }

    /// Leaves the lane behind, in which nothing lives and of which nothing is out, and gives positions from the first one on.
    /// Returns the generation left behind.
    pub(super) fn begin_anew(&mut self) -> u32 {
        let generation = self.generation;
        let (loads, scratch) = (self.loads, std::mem::take(&mut self.scratch));
        *self = Self { generation: generation + 1, loads, scratch, ..Self::default() };
        generation
    }

    /// Appends a new entry behind all others.
    pub(super) fn push_back(&mut self, slot: Slot, durable: bool, bytes: usize, limits: &WindowLimits) {
        let fits = self.head.len() < limits.head_entries && self.head_bytes + bytes <= limits.head_bytes;
        if !self.has_middle() && self.tail.is_empty() && (fits || self.head.is_empty()) {
            self.head.push_back(slot);
            self.head_bytes += bytes;
        } else {
            self.tail.push_back(slot);
            self.tail_bytes += bytes;
            self.scratch.waiting += usize::from(!durable);
        }
    }

    fn has_middle(&self) -> bool {
        self.middle.is_some() || self.scratch.middle.is_some()
    }

    /// An entry of the tail.
    pub(super) fn in_tail(&self, at: usize) -> Option<Slot> {
        self.tail.get(at).copied()
    }

    /// The first entry, if it is in memory. Takes over the tail when nothing lies between.
    pub(super) fn front(&mut self) -> Option<Slot> {
        if self.head.is_empty() && !self.has_middle() {
            std::mem::swap(&mut self.head, &mut self.tail);
            self.head_bytes = std::mem::take(&mut self.tail_bytes);
            self.scratch.forget_tail();
        }
        self.head.front().copied()
    }

    /// Keeps room for so many entries more than there are.
    pub(super) fn give_room_back(&mut self, more: usize) {
        self.head.shrink_to(self.head.len() + more);
        self.tail.shrink_to(self.tail.len() + more);
    }

    /// The first entry leaves the head; it takes `bytes` of memory.
    pub(super) fn pop_front(&mut self, position: Position, bytes: usize) {
        self.head.pop_front();
        self.head_bytes = self.head_bytes.saturating_sub(bytes);
        self.taken_high = self.taken_high.max(position);
    }

    /// What ready entries take of memory.
    pub(super) fn window_bytes(&self) -> usize {
        let asked = if matches!(self.loading, Loading::Asked(_)) { self.asked_bytes } else { 0 };
        self.head_bytes + self.tail_bytes + asked
    }

    /// Puts a requeued entry back into its place, which is in the head: lendings are taken from there.
    pub(super) fn put_back(&mut self, slot: Slot, entries: &Entries) {
        let order = entries.at(slot).order;
        self.head_bytes += entries.at(slot).message.allocated_bytes();
        let at = self.head.partition_point(|other| entries.at(*other).order < order);
        if at == self.head.len() { self.head.push_back(slot) } else { self.head.insert(at, slot) }
    }

    /// What to load now, if anything: the head is half empty and the store has more.
    pub(super) fn begin_load(&mut self, limits: &WindowLimits) -> Option<Asked> {
        if self.loading != Loading::No || !limits.is_half_empty(self.head.len(), self.head_bytes) {
            return None;
        }
        self.ask(limits.head_entries - self.head.len(), limits.head_bytes)
    }

    fn ask(&mut self, rows_max: usize, bytes_max: usize) -> Option<Asked> {
        let middles = [self.middle, self.scratch.middle].into_iter().flatten();
        let (count, bytes) = middles.fold((0, 0), |(count, bytes), middle| {
            (count + middle.count, bytes + middle.body_bytes + middle.count * ROW_BYTES as u64)
        });
        if !self.has_middle() {
            return None;
        }
        self.loads += 1;
        let share = bytes / count.max(1) * (rows_max as u64).min(count);
        self.asked_bytes = usize::try_from(share).unwrap_or(usize::MAX).min(bytes_max);
        self.loading = Loading::Asked(self.loads);
        let (durable, scratch) = (self.middle.map(|middle| middle.range), self.scratch.range());
        Some(Asked { load: self.loads, durable, scratch, rows_max })
    }

    /// Loads the very first row, for queues that nobody takes from: it may have to expire.
    pub(super) fn begin_peek(&mut self) -> Option<Asked> {
        if !self.head.is_empty() || self.loading != Loading::No {
            return None;
        }
        self.ask(1, 0)
    }

    /// Whether a load's answer is still wanted.
    pub(super) fn end_load(&mut self, load: u64) -> bool {
        let wanted = self.loading == Loading::Asked(load);
        if wanted {
            self.loading = Loading::No;
        }
        wanted
    }

    /// A load failed: there is none until `retry_load`.
    pub(super) fn load_failed(&mut self) {
        self.loading = Loading::Failed;
    }

    /// The store may be asked again.
    pub(super) fn retry_load(&mut self) {
        if self.loading == Loading::Failed {
            self.loading = Loading::No;
        }
    }

    /// What was loaded goes to the end of the head; `bytes` is what it takes of memory.
    pub(super) fn extend_head(&mut self, slots: &[Slot], bytes: usize) {
        self.head.extend(slots);
        self.head_bytes += bytes;
    }

    /// Rows of the middle were taken into memory; how many more (or fewer) there were than it was said to hold.
    pub(super) fn took_durable(&mut self, took: Took) -> Miscount {
        let miscount = took.take_from(&mut self.middle);
        if miscount != Miscount::default() {
            self.stored_count = self.stored_count.saturating_add_signed(miscount.rows);
            self.stored_bytes = self.stored_bytes.saturating_add_signed(miscount.body_bytes);
            self.state_changed = true;
        }
        miscount
    }

    /// Leaves entries at the front of a long tail to the stores that have them; returns what the transient ones among them
    /// took of memory. Whatever lies before a spilled entry goes with it.
    pub(super) fn absorb(
        &mut self,
        entries: &mut Entries,
        flushed: Ticket,
        spilled: Ticket,
        limits: &WindowLimits,
    ) -> u64 {
        let mut transient_bytes = 0;
        while self.tail.len() > limits.tail_entries || self.tail_bytes > limits.tail_bytes || self.scratch.passed > 0 {
            let Some(slot) = self.tail.front().copied() else { break };
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
            self.tail.pop_front();
            self.tail_bytes = self.tail_bytes.saturating_sub(bytes);
            self.scratch.passed = self.scratch.passed.saturating_sub(1);
        }
        transient_bytes
    }

    /// Leaves the back of a head that is longer than it may be to the store, which has it, or to the tail while memory for
    /// transient messages is short (`pressed`). A load under way is overtaken by it, and asked for again when it is needed.
    pub(super) fn shrink(&mut self, entries: &mut Entries, flushed: Ticket, pressed: bool, limits: &WindowLimits) {
        if self.head.len() <= limits.head_entries * 2 && self.head_bytes <= limits.head_bytes * 2 {
            return;
        }
        // What is lent or leaving may come back, to a place before this one.
        let out_below =
            if self.transient_out == 0 { self.out.highest().unwrap_or_default() } else { self.taken_high.next() };
        // Every row above it lives, is ready, and is what every read from now on finds.
        let settled_above = self.removals.highest().max(out_below);
        while self.head.len() > limits.head_entries || self.head_bytes > limits.head_bytes && self.head.len() > 1 {
            let Some(slot) = self.head.back().copied() else { return };
            let entry = entries.at(slot);
            let bytes = entry.message.allocated_bytes();
            if limits.is_half_empty(self.head.len() - 1, self.head_bytes.saturating_sub(bytes)) {
                // It would be read again at once: a large message behind a few small ones.
                return;
            }
            let position = entry.order.position;
            match entry.storage {
                Storage::Submitted(ticket)
                    if ticket <= flushed && position > settled_above && self.flag_follows_position(entry) =>
                {
                    join(&mut self.middle, Middle::of(entry, position));
                    entries.remove(slot);
                    self.loading = Loading::No;
                }
                // It came back from a consumer; from the tail it may go to the scratch store.
                Storage::Transient
                    if pressed && position >= out_below && !self.has_middle() && self.scratch.passed == 0 =>
                {
                    self.tail.push_front(slot);
                    self.tail_bytes += bytes;
                    self.scratch.waiting += 1;
                }
                _ => return,
            }
            self.head.pop_back();
            self.head_bytes = self.head_bytes.saturating_sub(bytes);
        }
    }

    /// Whether the position of a row that is read back decides correctly whether it was delivered before.
    fn flag_follows_position(&self, entry: &Entry) -> bool {
        entry.redelivered || entry.order.position > self.lent_high
    }

    /// The middle goes at once, because all of it has expired and nothing of the level lies before it. A load under way
    /// is overtaken.
    pub(super) fn take_expired_middle(&mut self, has_expired: impl Fn(WallMillis) -> bool) -> Option<TakenMiddle> {
        let mut middles = [self.middle, self.scratch.middle].into_iter().flatten();
        let all = middles.all(|middle| middle.expires_by.is_some_and(&has_expired));
        (self.has_middle() && self.head.is_empty() && all).then(|| self.take_middle())
    }

    fn take_middle(&mut self) -> TakenMiddle {
        self.loading = Loading::No;
        let taken = TakenMiddle { durable: self.middle.take(), scratch: self.scratch.middle.take() };
        if let Some(middle) = taken.durable {
            self.taken_high = self.taken_high.max(middle.range.to);
        }
        taken
    }

    /// A row lives no more.
    pub(super) fn remove_row(&mut self, position: Position, body_bytes: u64) {
        self.stored_count = self.stored_count.saturating_sub(1);
        self.stored_bytes = self.stored_bytes.saturating_sub(body_bytes);
        self.removed.push(position);
        self.removals.note(position);
    }

    /// Rows that were in the middle live no more.
    pub(super) fn remove_middle(&mut self, middle: &Middle) {
        self.stored_count = self.stored_count.saturating_sub(middle.count);
        self.stored_bytes = self.stored_bytes.saturating_sub(middle.body_bytes);
        self.removed_ranges.push(middle.range);
        self.removals.note(middle.range.to);
    }

    /// All ready entries in memory are taken out; the middle is forgotten and returned.
    pub(super) fn clear(&mut self) -> (Vec<Slot>, TakenMiddle) {
        let slots = self.head.drain(..).chain(self.tail.drain(..)).collect();
        (self.head_bytes, self.tail_bytes) = (0, 0);
        self.scratch.forget_tail();
        (slots, self.take_middle())
    }

    /// Below this position no row lives.
    pub(super) fn lowest_living(&self, entries: &Entries) -> Position {
        let first = |list: &VecDeque<Slot>| {
            list.front().map(|slot| {
                let order = entries.at(*slot).order;
                if order.sub == 0 { order.position } else { order.position.next() }
            })
        };
        [
            self.out.lowest(),
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

    /// The highest position given out.
    pub(super) fn tail_position(&self) -> Position {
        self.last.position
    }
}

/// A durable entry on its way to the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct YoungRef {
    pub(super) slot: Slot,
    pub(super) level: u8,
    pub(super) position: Position,
}

/// What was submitted under one ticket and is to be told when it is flushed.
#[derive(Debug)]
pub(super) struct Awaiting {
    pub(super) ticket: Ticket,
    pub(super) promises: Vec<Promise>,
    /// Who asked for a purge that is part of it, and how many messages went.
    pub(super) purges: Vec<(Requester, u64)>,
    /// What the rows take of memory.
    pub(super) bytes: u64,
}
