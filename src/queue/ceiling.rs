//! The lent ceiling of a lane: how a restart knows which messages may have been delivered before.

use super::event::Ticket;
use crate::model::Position;

/// After a restart every stored row below the ceiling counts as possibly delivered. The ceiling is written ahead of the
/// delivery, so that after a kill at any moment every row that a consumer had is marked.
#[derive(Debug, Default)]
pub(super) struct LentCeiling {
    below: Position,
    /// The first batch that carries this ceiling; none before it was pulled.
    carried_by: Option<Ticket>,
    /// The ceiling that is certainly stored.
    flushed: Position,
    /// The ceiling of an earlier process. Rows below it may have been delivered by that process.
    recovered: Position,
    /// The highest position that this process lent.
    lent_high: Position,
}

impl LentCeiling {
    /// The ceiling of an earlier process, for a lane whose last row is at `tail`. It was written ahead; positions behind the tail
    /// were never lent.
    pub(super) fn recovered(ceiling: Position, tail: Position) -> Self {
        let below = ceiling.min(tail.next());
        Self { below, carried_by: Some(Ticket(0)), flushed: below, recovered: below, lent_high: Position(0) }
    }

    /// Whether an entry at this position, whose row is in batch `row`, may be handed over: the store gets the row in no batch
    /// without a ceiling above it.
    pub(super) fn covers(&self, position: Position, row: Ticket) -> bool {
        position < self.flushed || position < self.below && self.carried_by.is_some_and(|ticket| ticket <= row)
    }

    /// Keeps the ceiling `ahead` of `position`. Returns whether it moved: it moves when half of the lead is used up and the last
    /// move is flushed, or at the latest when it is reached.
    pub(super) fn keep_ahead(&mut self, position: Position, ahead: u64) -> bool {
        let is_near = position.0 + ahead / 2 >= self.below.0;
        let moves = is_near && (self.flushed == self.below || position >= self.below);
        if moves {
            self.set(Position(position.0 + ahead));
        }
        moves
    }

    fn set(&mut self, below: Position) {
        (self.below, self.carried_by, self.flushed) = (below, None, self.flushed.min(below));
    }

    /// The ceiling for the batch `ticket`. With `ahead`, already the first batch of a process brings a ceiling ahead of `taken`,
    /// before any delivery: otherwise a disk that is full by then would block every delivery of stored messages.
    pub(super) fn submit(&mut self, ticket: Ticket, taken: Position, ahead: Option<u64>) -> Position {
        if let Some(ahead) = ahead {
            self.keep_ahead(taken.max(self.recovered), ahead);
        }
        self.carried_by.get_or_insert(ticket);
        self.below
    }

    pub(super) fn flushed(&mut self, flushed: Ticket) {
        if self.carried_by.is_some_and(|ticket| ticket <= flushed) {
            self.flushed = self.below;
        }
    }

    /// Lowers the ceiling to the highest lent position. Returns whether it changed.
    pub(super) fn make_exact(&mut self) -> bool {
        let exact =
            if self.lent_high > Position(0) { self.lent_high.next().max(self.recovered) } else { self.recovered };
        let changes = self.below != exact;
        if changes {
            self.set(exact);
        }
        changes
    }

    pub(super) fn note_lent(&mut self, position: Position) {
        self.lent_high = self.lent_high.max(position);
    }

    /// Whether a row that is read back may have been delivered before, by this process or an earlier one.
    pub(super) fn may_have_been_lent(&self, position: Position) -> bool {
        position < self.recovered || position <= self.lent_high
    }

    /// Whether this process has not lent the position, nor any above it.
    pub(super) fn is_above_lent(&self, position: Position) -> bool {
        position > self.lent_high
    }
}
