//! A level's lane in the scratch store.
//!
//! A level's transient entries have no positions among the durable ones. In the scratch store they get rising positions of its
//! own and carry their order with them, so that a load can merge the rows of both stores in order. A row that was loaded is in
//! memory again; it is erased from the scratch store later.

use super::event::Ticket;
use super::middle::Middle;
use crate::model::Position;
use crate::model::stored::PositionRange;

/// Loaded rows are erased once there are this many.
const ERASED_AT_ONCE: u64 = 4096;

/// A level's part of the scratch store.
#[derive(Debug)]
pub(super) struct ScratchLane {
    generation: u32,
    next: Position,
    /// Entries that only the scratch store holds.
    pub(super) middle: Option<Middle>,
    /// How many tail entries, from the front, need no spilling: already submitted, or durable.
    pub(super) passed: usize,
    /// Transient entries of the tail behind the passed ones.
    waiting: usize,
    erased_below: Position,
    last_ticket: Ticket,
}

impl Default for ScratchLane {
    fn default() -> Self {
        let (next, erased_below) = (Position(1), Position(1));
        Self { generation: 0, next, middle: None, passed: 0, waiting: 0, erased_below, last_ticket: Ticket(0) }
    }
}

impl ScratchLane {
    /// Transient entries of the tail that are not spilled.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Adds a transient entry of the tail.
    pub(super) fn add_waiting(&mut self) {
        self.waiting += 1;
    }

    /// Forgets the tail: its entries are in the head now, or gone.
    pub(super) fn forget_tail(&mut self) {
        (self.passed, self.waiting) = (0, 0);
    }

    /// Submits a waiting entry under the ticket; returns its position in the lane.
    pub(super) fn submit(&mut self, ticket: Ticket) -> Position {
        self.waiting = self.waiting.saturating_sub(1);
        self.last_ticket = ticket;
        let position = self.next;
        self.next = position.next();
        position
    }

    /// Whether the lane has enough dead rows to erase them.
    pub(super) fn has_waste(&self, flushed: Ticket) -> bool {
        match self.middle {
            Some(middle) => middle.range.from.0 - self.erased_below.0 >= ERASED_AT_ONCE,
            None => self.next > Position(1) && self.passed == 0 && self.last_ticket <= flushed,
        }
    }

    /// Begins a new generation if no row of the lane lives; returns the abandoned one.
    pub(super) fn renew(&mut self, flushed: Ticket) -> Option<u32> {
        if self.middle.is_some() || !self.has_waste(flushed) {
            return None;
        }
        let generation = self.generation;
        *self = Self { generation: generation + 1, waiting: self.waiting, ..Self::default() };
        Some(generation)
    }

    /// Erases the rows before the middle if there are enough of them. Returns the position below which they lie, and how many.
    pub(super) fn erase(&mut self, flushed: Ticket) -> Option<(Position, u64)> {
        let below = self.middle?.range.from;
        if !self.has_waste(flushed) || below <= self.erased_below {
            return None;
        }
        let erased = below.0 - std::mem::replace(&mut self.erased_below, below).0;
        Some((below, erased))
    }

    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// The generation and the range that a load reads.
    pub(super) fn range(&self) -> Option<(u32, PositionRange)> {
        self.middle.map(|middle| (self.generation, middle.range))
    }
}
