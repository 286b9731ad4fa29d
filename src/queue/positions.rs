//! Positions that a level tracks: those of entries that are lent or leaving, and those of rows to be removed.

use super::event::Ticket;
use crate::model::Position;
use crate::model::stored::PositionRange;
use std::collections::VecDeque;

/// Positions that came back behind one that is still away are removed from the list when there are more than this, and more
/// than the others.
const BACK_KEPT: usize = 64;

/// Positions of durable entries that are lent or leaving, so that the lowest living row is known.
#[derive(Debug, Default)]
pub(super) struct AwayPositions {
    /// By rising position; false for those that came back or left, until they are removed.
    list: VecDeque<(Position, bool)>,
    /// How many positions in the list are false.
    back: usize,
}

impl AwayPositions {
    pub(super) fn insert(&mut self, position: Position) {
        if self.list.back().is_none_or(|(last, _)| *last < position) {
            self.list.push_back((position, true));
            return;
        }
        match self.list.binary_search_by_key(&position, |(at, _)| *at) {
            Ok(at) => self.back -= usize::from(!std::mem::replace(&mut self.list[at].1, true)),
            Err(at) => self.list.insert(at, (position, true)),
        }
    }

    pub(super) fn remove(&mut self, position: Position) {
        if let Ok(at) = self.list.binary_search_by_key(&position, |(at, _)| *at) {
            self.back += usize::from(std::mem::replace(&mut self.list[at].1, false));
        }
        while let Some((_, false)) = self.list.front() {
            self.list.pop_front();
            self.back -= 1;
        }
        if self.back > BACK_KEPT && self.back > self.list.len() / 2 {
            self.list.retain(|(_, away)| *away);
            self.back = 0;
        }
    }

    pub(super) fn lowest(&self) -> Option<Position> {
        self.list.front().map(|(position, _)| *position)
    }

    pub(super) fn highest(&self) -> Option<Position> {
        self.list.iter().rev().find(|(_, away)| *away).map(|(position, _)| *position)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }
}

/// Rows that the store is to remove, and the highest positions of rows that a read may still bring although they are gone.
#[derive(Debug, Default)]
pub(super) struct Removals {
    positions: Vec<Position>,
    ranges: Vec<PositionRange>,
    /// The highest position that is not submitted.
    unsubmitted: Position,
    /// The highest position in each batch that is not flushed.
    submitted: VecDeque<(Ticket, Position)>,
}

impl Removals {
    pub(super) fn add(&mut self, position: Position) {
        self.positions.push(position);
        self.unsubmitted = self.unsubmitted.max(position);
    }

    pub(super) fn add_range(&mut self, range: PositionRange) {
        self.ranges.push(range);
        self.unsubmitted = self.unsubmitted.max(range.to);
    }

    /// Whether no row is to be removed.
    pub(super) fn is_empty(&self) -> bool {
        self.positions.is_empty() && self.ranges.is_empty()
    }

    /// Forgets the rows, because their whole lane is dropped. A read that began before may still bring them.
    pub(super) fn forget_rows(&mut self) {
        self.positions.clear();
        self.ranges.clear();
    }

    /// Moves everything that was added into the batch `ticket`.
    pub(super) fn submit(&mut self, ticket: Ticket) -> (Vec<Position>, Vec<PositionRange>) {
        let highest = std::mem::take(&mut self.unsubmitted);
        if highest > Position(0) {
            self.submitted.push_back((ticket, highest));
        }
        (std::mem::take(&mut self.positions), std::mem::take(&mut self.ranges))
    }

    pub(super) fn flushed(&mut self, flushed: Ticket) {
        while self.submitted.front().is_some_and(|(ticket, _)| *ticket <= flushed) {
            self.submitted.pop_front();
        }
    }

    pub(super) fn highest(&self) -> Position {
        self.submitted.iter().map(|(_, highest)| *highest).fold(self.unsubmitted, Position::max)
    }
}
