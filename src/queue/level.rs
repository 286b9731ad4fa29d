//! One priority level: head window, stored middle, tail; and what the store has to be told of it.
//!
//! Order: everything in the head comes before the middle, everything in the middle before the tail. Lendings are taken
//! from the head only, so whatever was ever lent or removed lies before the middle: rows that a load brings are alive
//! by construction, and a load that a purge has overtaken is recognised by its number.

use super::entry::{Entries, Order, Slot, Storage};
use super::input::Ticket;
use crate::model::stored::{LaneState, PositionRange};
use crate::model::{Position, Promise};
use std::collections::VecDeque;

/// How much of a level is kept in memory.
#[derive(Clone, Copy, Debug)]
pub struct WindowLimits {
    /// Entries in the head.
    pub head_entries: usize,
    /// Entries of the tail before stored ones are left to the store.
    pub tail_entries: usize,
    /// Bytes of the tail before stored ones are left to the store.
    pub tail_bytes: usize,
    /// Bytes that one load brings at most.
    pub load_bytes: usize,
}

impl Default for WindowLimits {
    fn default() -> Self {
        Self { head_entries: 1024, tail_entries: 4096, tail_bytes: 2 << 20, load_bytes: 1 << 20 }
    }
}

/// Stored entries of which memory knows only where they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Middle {
    pub(super) range: PositionRange,
    pub(super) count: u64,
    pub(super) body_bytes: u64,
}

/// Positions of durable entries that are lent or leaving, so that the lowest living row is known.
#[derive(Debug, Default)]
pub(super) struct OutPositions(VecDeque<(Position, bool)>);

impl OutPositions {
    pub(super) fn insert(&mut self, position: Position) {
        if self.0.back().is_none_or(|(last, _)| *last < position) {
            self.0.push_back((position, true));
            return;
        }
        match self.0.binary_search_by_key(&position, |(at, _)| *at) {
            Ok(at) => self.0[at].1 = true,
            Err(at) => self.0.insert(at, (position, true)),
        }
    }

    pub(super) fn remove(&mut self, position: Position) {
        if let Ok(at) = self.0.binary_search_by_key(&position, |(at, _)| *at) {
            self.0[at].1 = false;
        }
        while let Some((_, false)) = self.0.front() {
            self.0.pop_front();
        }
    }

    fn lowest(&self) -> Option<Position> {
        self.0.front().map(|(position, _)| *position)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Debug, Default)]
pub(super) struct Level {
    pub(super) generation: u32,
    head: VecDeque<Slot>,
    pub(super) middle: Option<Middle>,
    tail: VecDeque<Slot>,
    tail_bytes: usize,
    last: Order,
    pub(super) out: OutPositions,
    /// Positions of rows that the store has, or will have, and that live no more.
    pub(super) removed: Vec<Position>,
    pub(super) removed_ranges: Vec<PositionRange>,
    /// Rows the store will have once all that is submitted is flushed.
    pub(super) stored_count: u64,
    pub(super) stored_bytes: u64,
    pub(super) lent_ceiling: Position,
    pub(super) lent_high: Position,
    /// The ceiling that an earlier process left.
    pub(super) recovered_ceiling: Position,
    /// Whether the five numbers changed without a row.
    pub(super) state_changed: bool,
    loading: Option<u64>,
    loads: u64,
}

impl Level {
    /// A level as the store remembers it: all of it in the middle.
    pub(super) fn recovered(generation: u32, state: LaneState) -> Self {
        let middle = (state.count > 0).then_some(Middle {
            range: PositionRange { from: state.head, to: state.tail },
            count: state.count,
            body_bytes: state.body_bytes,
        });
        Self {
            generation,
            middle,
            last: Order { position: state.tail, sub: 0 },
            stored_count: state.count,
            stored_bytes: state.body_bytes,
            lent_ceiling: state.lent_ceiling,
            recovered_ceiling: state.lent_ceiling,
            ..Self::default()
        }
    }

    pub(super) fn ready_count(&self) -> u64 {
        (self.head.len() + self.tail.len()) as u64 + self.middle_count()
    }

    pub(super) fn middle_count(&self) -> u64 {
        self.middle.map_or(0, |middle| middle.count)
    }

    pub(super) fn middle_bytes(&self) -> u64 {
        self.middle.map_or(0, |middle| middle.body_bytes)
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

    /// Appends a new entry behind all others.
    pub(super) fn push_back(&mut self, slot: Slot, bytes: usize, limits: &WindowLimits) {
        if self.middle.is_none() && self.tail.is_empty() && self.head.len() < limits.head_entries {
            self.head.push_back(slot);
        } else {
            self.tail.push_back(slot);
            self.tail_bytes += bytes;
        }
    }

    /// The first entry, if it is in memory. Takes over the tail when nothing lies between.
    pub(super) fn front(&mut self) -> Option<Slot> {
        if self.head.is_empty() && self.middle.is_none() {
            std::mem::swap(&mut self.head, &mut self.tail);
            self.tail_bytes = 0;
        }
        self.head.front().copied()
    }

    pub(super) fn pop_front(&mut self) {
        self.head.pop_front();
    }

    /// Puts a requeued entry back into its place, which is in the head: lendings are taken from there.
    pub(super) fn put_back(&mut self, slot: Slot, entries: &Entries) {
        let order = entries.at(slot).order;
        let at = self.head.partition_point(|other| entries.at(*other).order < order);
        if at == self.head.len() { self.head.push_back(slot) } else { self.head.insert(at, slot) }
    }

    /// What to load now, if anything: the head is half empty and the store has more.
    pub(super) fn begin_load(&mut self, limits: &WindowLimits) -> Option<(u64, PositionRange, usize)> {
        let middle = self.middle.as_ref()?;
        if self.loading.is_some() || self.head.len() > limits.head_entries / 2 {
            return None;
        }
        self.loads += 1;
        self.loading = Some(self.loads);
        Some((self.loads, middle.range, limits.head_entries - self.head.len()))
    }

    /// Loads the very first row, for queues that nobody takes from: it may have to expire.
    pub(super) fn begin_peek(&mut self) -> Option<(u64, PositionRange)> {
        let middle = self.middle.as_ref().filter(|_| self.head.is_empty() && self.loading.is_none())?;
        self.loads += 1;
        self.loading = Some(self.loads);
        Some((self.loads, middle.range))
    }

    /// Whether a load's answer is still wanted.
    pub(super) fn end_load(&mut self, load: u64) -> bool {
        if self.loading == Some(load) {
            self.loading = None;
            return true;
        }
        false
    }

    /// Rows of the middle arrived; `slots` are their entries, `bodies` their body bytes.
    pub(super) fn loaded(&mut self, slots: &[Slot], last: Option<Position>, bodies: u64) {
        self.head.extend(slots);
        let Some(middle) = &mut self.middle else { return };
        middle.count = middle.count.saturating_sub(slots.len() as u64);
        middle.body_bytes = middle.body_bytes.saturating_sub(bodies);
        match last {
            Some(last) if middle.count > 0 && last < middle.range.to => middle.range.from = last.next(),
            _ => self.middle = None,
        }
    }

    /// Leaves stored entries at the front of a long tail to the store.
    pub(super) fn absorb(&mut self, entries: &mut Entries, flushed: Ticket, limits: &WindowLimits) {
        while self.tail.len() > limits.tail_entries || self.tail_bytes > limits.tail_bytes {
            let Some(slot) = self.tail.front().copied() else { return };
            if !matches!(entries.at(slot).storage, Storage::Submitted(ticket) if ticket <= flushed) {
                return;
            }
            let entry = entries.remove(slot);
            debug_assert!(entry.promise.is_none(), "a stored entry has kept its promise");
            self.tail.pop_front();
            self.tail_bytes = self.tail_bytes.saturating_sub(entry.message.allocated_bytes());
            let position = entry.order.position;
            let bytes = entry.message.body_len() as u64;
            match &mut self.middle {
                Some(middle) => {
                    middle.range.to = position;
                    middle.count += 1;
                    middle.body_bytes += bytes;
                }
                None => {
                    let range = PositionRange { from: position, to: position };
                    self.middle = Some(Middle { range, count: 1, body_bytes: bytes });
                }
            }
        }
    }

    /// All ready entries in memory are taken out; the middle is forgotten and returned.
    pub(super) fn clear(&mut self) -> (Vec<Slot>, Option<Middle>) {
        let slots = self.head.drain(..).chain(self.tail.drain(..)).collect();
        self.tail_bytes = 0;
        self.loading = None;
        (slots, self.middle.take())
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
}
