//! Transient messages beyond their budget: the tails of long queues wait in the scratch store, which is emptied at every
//! start.
//!
//! A level's transient entries have no positions among the durable ones; in the scratch store they get rising positions of
//! its own, and carry their order with them, so that a load can put rows of both stores in order. What is loaded lives in
//! memory again: its row is only erased some time later.

use super::effect::{Effects, Pulled};
use super::entry::{Entry, EntryState, Order, Slot, Storage};
use super::input::{LoadedRows, Ticket};
use super::level::{Level, Middle, Miscount};
use super::state::QueueState;
use crate::model::stored::{LaneChange, LaneState, Place, PositionRange, Row};
use crate::model::{Lane, Position};

/// Loaded rows are erased once there are so many of them.
const ERASED_AT_ONCE: u64 = 4096;

/// A level's part of the scratch store.
#[derive(Debug)]
pub(super) struct Scratch {
    generation: u32,
    next: Position,
    /// What is only there.
    pub(super) middle: Option<Middle>,
    /// Entries at the front of the tail that were handed over, or are not for the scratch store.
    pub(super) passed: usize,
    /// Transient entries of the tail behind these.
    pub(super) waiting: usize,
    erased_below: Position,
    last_ticket: Ticket,
}

impl Default for Scratch {
    fn default() -> Self {
        let (next, erased_below) = (Position(1), Position(1));
        Self { generation: 0, next, middle: None, passed: 0, waiting: 0, erased_below, last_ticket: Ticket(0) }
    }
}

impl Scratch {
    /// The tail is no more: its entries are at the head now, or gone.
    pub(super) fn forget_tail(&mut self) {
        (self.passed, self.waiting) = (0, 0);
    }

    fn has_waste(&self, flushed: Ticket) -> bool {
        match self.middle {
            Some(middle) => middle.range.from.0 - self.erased_below.0 >= ERASED_AT_ONCE,
            None => self.next > Position(1) && self.passed == 0 && self.last_ticket <= flushed,
        }
    }

    /// Leaves the lane behind, in which nothing lives.
    fn renew(&mut self) -> u32 {
        let generation = self.generation;
        *self = Self { generation: generation + 1, waiting: self.waiting, ..Self::default() };
        generation
    }

    /// What to read of it.
    pub(super) fn range(&self) -> Option<(u32, PositionRange)> {
        self.middle.map(|middle| (self.generation, middle.range))
    }
}

impl QueueState {
    /// Transient messages take more memory than they may, or do no more.
    pub fn press(&mut self, pressed: bool) {
        self.pressed = pressed && !self.scratch_failed;
    }

    /// Whether there is something for the scratch store.
    pub fn wants_scratch(&self) -> bool {
        (self.pressed || self.uses_scratch)
            && self
                .levels
                .iter()
                .flatten()
                .any(|lane| self.pressed && lane.scratch.waiting > 0 || lane.scratch.has_waste(self.scratch_flushed))
    }

    /// How many of its messages may go to the scratch store, and are still to be handed to it.
    pub fn unspilled_rows(&self) -> usize {
        if self.scratch_failed {
            return 0;
        }
        self.levels.iter().flatten().map(|lane| lane.scratch.waiting).sum()
    }

    /// Hands the scratch store what waits at the tails, and what of it is waste.
    pub(super) fn spill(&mut self, rows_max: usize, bytes_max: usize, out: &mut Effects) {
        let ticket = Ticket(self.scratch_ticket.0 + 1);
        let queue = self.settings.id;
        let mut pulled = Pulled { ticket, ..Pulled::default() };
        for (at, lane) in self.levels.iter_mut().enumerate() {
            let (Some(lane), level) = (lane, at as u8) else { continue };
            let flushed = self.scratch_flushed;
            if lane.scratch.middle.is_none() && lane.scratch.has_waste(flushed) {
                let generation = lane.scratch.renew();
                pulled.drop_lanes.push(Lane { queue, level, generation });
            }
            let mut inserts = Vec::new();
            while self.pressed && pulled.rows < rows_max && pulled.bytes < bytes_max {
                let Some(slot) = lane.next_to_spill() else { break };
                let entry = self.entries.at_mut(slot);
                if entry.storage != Storage::Transient {
                    continue;
                }
                lane.scratch.waiting = lane.scratch.waiting.saturating_sub(1);
                lane.scratch.last_ticket = ticket;
                let position = lane.scratch.next;
                lane.scratch.next = position.next();
                entry.storage = Storage::Spilling { ticket, position };
                pulled.rows += 1;
                pulled.bytes += entry.message.allocated_bytes();
                inserts.push(Row {
                    position,
                    redelivered: entry.redelivered,
                    expires_at: entry.expires_at,
                    place: Some(Place { behind: entry.order.position, nth: entry.order.sub }),
                    message: entry.message.clone(),
                });
            }
            pulled.more |= self.pressed && lane.scratch.waiting > 0;
            let below = lane.scratch.middle.map_or(lane.scratch.erased_below, |middle| middle.range.from);
            let has_waste = lane.scratch.has_waste(flushed) && below > lane.scratch.erased_below;
            if inserts.is_empty() && !has_waste {
                continue;
            }
            let remove_below = has_waste.then_some(below);
            if has_waste {
                pulled.removed += usize::try_from(below.0 - lane.scratch.erased_below.0).unwrap_or(usize::MAX);
                lane.scratch.erased_below = below;
            }
            let (remove_ranges, removes, state) = (Vec::new(), Vec::new(), LaneState::default());
            let lane = Lane { queue, level, generation: lane.scratch.generation };
            pulled.lanes.push(LaneChange { lane, inserts, remove_below, remove_ranges, removes, state });
        }
        if !pulled.lanes.is_empty() || !pulled.drop_lanes.is_empty() {
            self.scratch_ticket = ticket;
            self.uses_scratch = true;
        }
        out.spilled.push(pulled);
    }

    /// The scratch store has what was handed over under a ticket: it need not be in memory any more. After a refusal all
    /// that is in memory stays there.
    pub(super) fn spilled(&mut self, ticket: Ticket, durable: bool) {
        self.scratch_failed |= !durable;
        if !self.scratch_failed {
            self.scratch_flushed = self.scratch_flushed.max(ticket);
            self.absorb_tails();
        }
    }

    /// Puts what a load has brought from both stores in order. Of either store only what lies before everything that the
    /// other one has not brought yet is taken; the rest is read again later.
    pub(super) fn merge_loaded(&mut self, level: u8, rows: LoadedRows) -> Merged {
        let lane = self.levels[usize::from(level)].as_mut().expect("callers checked the level");
        // What was left to a store that was not asked has come from the tail since, and lies behind all that was.
        let ends = [(lane.middle, &rows.durable), (lane.scratch.middle, &rows.scratch)];
        let end = ends.into_iter().filter_map(|(middle, rows)| end_of(&middle?, rows.as_ref()?)).min();
        let take = |rows: Option<Vec<Row>>| {
            let mut rows = rows?;
            let count = end.map_or(rows.len(), |end| rows.partition_point(|row| order_of(row) <= end));
            let left = rows.drain(count..).next().map(|row| row.position);
            let took = Took::of(&rows, left);
            Some((rows, took))
        };
        Merged { durable: take(rows.durable), scratch: take(rows.scratch) }
    }

    /// A row that came back from the scratch store is transient again.
    pub(super) fn entry_of_scratch(&mut self, level: u8, row: Row) -> Slot {
        self.transient_bytes += row.message.allocated_bytes() as u64;
        self.entries.insert(Entry {
            order: order_of(&row),
            redelivered: row.redelivered,
            expires_at: row.expires_at,
            promise: None,
            storage: Storage::Transient,
            level,
            state: EntryState::Ready,
            message: row.message,
        })
    }
}

/// Rows of both stores that may be taken, of those that were asked.
pub(super) struct Merged {
    pub(super) durable: Option<(Vec<Row>, Took)>,
    pub(super) scratch: Option<(Vec<Row>, Took)>,
}

/// What the rows that a load brought and the queue took come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    rows: u64,
    bodies: u64,
    last: Option<Position>,
    /// The first that was read and may not be taken yet.
    left: Option<Position>,
}

impl Took {
    fn of(rows: &[Row], left: Option<Position>) -> Self {
        Self {
            rows: rows.len() as u64,
            bodies: rows.iter().map(|row| row.message.body_len() as u64).sum(),
            last: rows.last().map(|row| row.position),
            left,
        }
    }

    /// Takes them out of a middle. Once it is used up, what it held must be what it was said to hold, since a damaged store
    /// may end a read early: how far it was off.
    pub(super) fn take_from(self, place: &mut Option<Middle>) -> Miscount {
        let Some(middle) = place else { return Miscount::default() };
        let more = self.last.filter(|last| middle.count > self.rows && *last < middle.range.to).map(Position::next);
        if let Some(next) = self.left.or(more) {
            middle.range.from = next;
            middle.count = middle.count.saturating_sub(self.rows);
            middle.body_bytes = middle.body_bytes.saturating_sub(self.bodies);
            return Miscount::default();
        }
        let miscount = Miscount {
            rows: self.rows as i64 - middle.count as i64,
            body_bytes: self.bodies as i64 - middle.body_bytes as i64,
        };
        *place = None;
        miscount
    }
}

/// Where a row lies in its level.
pub(super) fn order_of(row: &Row) -> Order {
    match row.place {
        Some(place) => Order { position: place.behind, sub: place.nth },
        None => Order { position: row.position, sub: 0 },
    }
}

/// How far the rows of a middle that a load has brought go; none when it has brought all.
fn end_of(middle: &Middle, rows: &[Row]) -> Option<Order> {
    let last = rows.last()?;
    (middle.count > rows.len() as u64 && last.position < middle.range.to).then(|| order_of(last))
}

impl Level {
    /// The next entry of the tail that was not looked at yet.
    fn next_to_spill(&mut self) -> Option<Slot> {
        let slot = self.in_tail(self.scratch.passed)?;
        self.scratch.passed += 1;
        Some(slot)
    }
}
