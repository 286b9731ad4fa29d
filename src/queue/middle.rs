//! The middle of a level: entries that only a store has. Memory holds their range, their number and their size.

use super::entry::{EntryView, Order};
use crate::model::stored::{PositionRange, Row};
use crate::model::{Position, WallMillis};

/// Entries that only a store has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Middle {
    pub(super) range: PositionRange,
    pub(super) count: u64,
    pub(super) body_bytes: u64,
    /// When all of them have expired; none if some may never expire.
    pub(super) expires_by: Option<WallMillis>,
}

impl Middle {
    pub(super) fn of(entry: EntryView<'_>, position: Position) -> Self {
        Self {
            range: PositionRange { from: position, to: position },
            count: 1,
            body_bytes: entry.message.body_len() as u64,
            expires_by: entry.expires_at,
        }
    }

    /// Adds an adjacent middle.
    fn add(&mut self, other: Self) {
        self.range.from = self.range.from.min(other.range.from);
        self.range.to = self.range.to.max(other.range.to);
        self.count += other.count;
        self.body_bytes += other.body_bytes;
        self.expires_by = self.expires_by.zip(other.expires_by).map(|(one, other)| one.max(other));
    }

    /// The order of the last of the `rows` that a load brought; none when the load brought the whole middle.
    pub(super) fn loaded_to(&self, rows: &[Row]) -> Option<Order> {
        let last = rows.last()?;
        (self.count > rows.len() as u64 && last.position < self.range.to).then(|| Order::of(last))
    }
}

/// Adds entries to a middle that may be empty.
pub(super) fn join(middle: &mut Option<Middle>, other: Middle) {
    match middle {
        Some(middle) => middle.add(other),
        None => *middle = Some(other),
    }
}

/// The middles of both stores, taken out of a level.
#[derive(Clone, Copy, Debug)]
pub(super) struct BothMiddles {
    pub(super) durable: Option<Middle>,
    pub(super) scratch: Option<Middle>,
}

/// How many rows more (or fewer) a lane held than its numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Miscount {
    pub(super) rows: i64,
    pub(super) body_bytes: i64,
}

/// Count, bytes and last position of the loaded rows that were accepted.
#[derive(Clone, Copy, Debug)]
pub(super) struct LoadedTotals {
    rows: u64,
    body_bytes: u64,
    last: Option<Position>,
    /// The position of the first row that was read and not accepted.
    rest_from: Option<Position>,
}

impl LoadedTotals {
    pub(super) fn of(rows: &[Row], rest_from: Option<Position>) -> Self {
        Self {
            rows: rows.len() as u64,
            body_bytes: rows.iter().map(|row| row.message.body_len() as u64).sum(),
            last: rows.last().map(|row| row.position),
            rest_from,
        }
    }

    /// Removes the rows from a middle. Once the middle is empty, its numbers must agree with the rows; the difference is
    /// returned. A damaged store may end a read early, so a middle counts as empty only behind its last position.
    pub(super) fn take_from(self, place: &mut Option<Middle>) -> Miscount {
        let Some(middle) = place else { return Miscount::default() };
        let more = self.last.filter(|last| middle.count > self.rows && *last < middle.range.to).map(Position::next);
        if let Some(next) = self.rest_from.or(more) {
            middle.range.from = next;
            middle.count = middle.count.saturating_sub(self.rows);
            middle.body_bytes = middle.body_bytes.saturating_sub(self.body_bytes);
            return Miscount::default();
        }
        let miscount = Miscount {
            rows: self.rows as i64 - middle.count as i64,
            body_bytes: self.body_bytes as i64 - middle.body_bytes as i64,
        };
        *place = None;
        miscount
    }
}
