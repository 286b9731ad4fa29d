//! What the store is given when it asks, and what it gave back.
//!
//! A young entry that is acknowledged before it is pulled never reaches the store. One in a consumer's hands may be
//! passed over for a moment for that reason (`HoldLimits`); one that nobody holds never is.

use super::effect::{Effects, Pulled, QueueEffect};
use super::entry::{Entry, EntryState, Order, Storage};
use super::input::Ticket;
use super::level::{Awaiting, Level, Miscount, YoungRef};
use super::state::QueueState;
use crate::model::stored::{LaneChange, LaneState, Row};
use crate::model::{Lane, Now, Position};
use std::time::Duration;

/// How long a store that could not read is left alone.
const LOAD_RETRY_WAIT: Duration = Duration::from_secs(1);

impl QueueState {
    /// Hands the writer what is due: rows, removals, lanes left behind.
    pub(super) fn pull(&mut self, rows_max: usize, bytes_max: usize, now: Now, out: &mut Effects) {
        self.due_now = false;
        self.due_at = None;
        let ticket = Ticket(self.ticket.0 + 1);
        let mut inserts: Vec<Vec<Row>> = Vec::new();
        inserts.resize_with(self.levels.len(), Vec::new);
        let mut promises = Vec::new();
        let mut held = Vec::new();
        let (mut rows, mut bytes, mut more) = (0, 0, false);
        let hold = self.hold_time();
        while let Some(young) = self.young.pop_front() {
            match self.due_state(young, hold, now) {
                Due::Gone => continue,
                Due::Held(until) => {
                    held.push(young);
                    self.due_by(now.monotonic.plus(until));
                    continue;
                }
                Due::Now => {}
            }
            if rows >= rows_max || bytes >= bytes_max {
                self.young.push_front(young);
                more = true;
                break;
            }
            let entry = self.entries.at_mut(young.slot);
            entry.storage = Storage::Submitted(ticket);
            promises.extend(entry.promise.take());
            rows += 1;
            bytes += entry.message.allocated_bytes();
            let row = Row {
                position: young.position,
                redelivered: entry.redelivered || matches!(entry.state, EntryState::Lent(_)),
                expires_at: entry.expires_at,
                message: entry.message.clone(),
            };
            let body = entry.message.body_len() as u64;
            let lane = self.level_mut(young.level);
            lane.stored_count += 1;
            lane.stored_bytes += body;
            inserts[usize::from(young.level)].push(row);
        }
        for young in held.into_iter().rev() {
            self.young.push_front(young);
        }
        self.due_now |= more;
        let removed = std::mem::take(&mut self.rows_to_remove);
        let lanes = self.lane_changes(inserts);
        let dropped = std::mem::take(&mut self.dropped_lanes);
        if !lanes.is_empty() || !dropped.is_empty() {
            self.ticket = ticket;
            self.awaiting.push_back(Awaiting { ticket, promises, bytes: bytes as u64 });
        }
        out.pulled.push(Pulled { ticket, lanes, drop_lanes: dropped, rows, removed, bytes, more });
    }

    /// A queue that has ended has nothing for the writer.
    pub(super) fn pull_nothing(&self, out: &mut Effects) {
        let ticket = self.ticket;
        let (lanes, drop_lanes) = (Vec::new(), Vec::new());
        out.pulled.push(Pulled { ticket, lanes, drop_lanes, rows: 0, removed: 0, bytes: 0, more: false });
    }

    fn due_state(&self, young: YoungRef, hold: Option<Duration>, now: Now) -> Due {
        let Some(entry) = self.entries.find(young.slot) else { return Due::Gone };
        let same =
            entry.storage == Storage::Young && entry.level == young.level && entry.order.position == young.position;
        match entry.state {
            EntryState::Leaving { .. } => Due::Gone,
            _ if !same => Due::Gone,
            EntryState::Ready => Due::Now,
            EntryState::Lent(lent) => {
                let waited = now.monotonic.since(lent.since);
                match hold {
                    Some(hold) if waited < hold => Due::Held(hold - waited),
                    _ => Due::Now,
                }
            }
        }
    }

    fn lane_changes(&mut self, inserts: Vec<Vec<Row>>) -> Vec<LaneChange> {
        let queue = self.settings.id;
        let mut changes = Vec::new();
        for (at, rows) in inserts.into_iter().enumerate() {
            let Some(lane) = self.levels[at].as_mut() else { continue };
            if rows.is_empty() && lane.removed.is_empty() && lane.removed_ranges.is_empty() && !lane.state_changed {
                continue;
            }
            lane.state_changed = false;
            let below = lane.lowest_living(&self.entries);
            let mut removes = std::mem::take(&mut lane.removed);
            removes.sort_unstable();
            let covered = removes.partition_point(|position| *position < below);
            let remove_below = (covered > 0).then_some(below);
            removes.drain(..covered);
            let remove_ranges = std::mem::take(&mut lane.removed_ranges);
            let state = LaneState {
                head: below,
                tail: lane.tail_position(),
                count: lane.stored_count,
                body_bytes: lane.stored_bytes,
                lent_ceiling: lane.lent_ceiling,
            };
            let lane = Lane { queue, level: at as u8, generation: lane.generation };
            changes.push(LaneChange { lane, inserts: rows, remove_below, remove_ranges, removes, state });
        }
        changes
    }

    /// A ticket was flushed, or refused for good: promises are kept or refused, long tails left to the store.
    pub(super) fn stored(&mut self, ticket: Ticket, durable: bool, out: &mut Effects) {
        while self.awaiting.front().is_some_and(|awaiting| awaiting.ticket <= ticket) {
            let awaiting = self.awaiting.pop_front().expect("looked at above");
            self.unwritten_bytes = self.unwritten_bytes.saturating_sub(awaiting.bytes);
            for promise in awaiting.promises {
                out.promise(promise, durable);
            }
        }
        // After a refusal nobody knows what the store has: all that is in memory stays there.
        self.store_failed |= !durable;
        if self.store_failed {
            return;
        }
        self.flushed = self.flushed.max(ticket);
        let (flushed, window) = (self.flushed, self.window);
        for lane in self.levels.iter_mut().flatten() {
            lane.absorb(&mut self.entries, flushed, &window);
            lane.shrink(&mut self.entries, flushed, &window);
        }
    }

    /// Rows of the middle arrived for the head.
    pub(super) fn loaded(&mut self, level: u8, load: u64, rows: Option<Vec<Row>>, now: Now, out: &mut Effects) {
        let Some(lane) = self.levels.get_mut(usize::from(level)).and_then(Option::as_mut) else { return };
        if !lane.end_load(load) {
            return;
        }
        // A failed read was reported where it failed.
        let Some(rows) = rows else {
            lane.load_failed();
            self.load_retry_at = Some(now.monotonic.plus(LOAD_RETRY_WAIT));
            return;
        };
        let before = lane.ready_count();
        let last = rows.last().map(|row| row.position);
        let mut slots = Vec::with_capacity(rows.len());
        let (mut bodies, mut bytes) = (0, 0);
        for row in rows {
            bodies += row.message.body_len() as u64;
            bytes += row.message.allocated_bytes();
            slots.push(self.entries.insert(Entry {
                redelivered: row.redelivered || row.position < lane.lent_ceiling_at_start(),
                order: Order { position: row.position, sub: 0 },
                expires_at: row.expires_at,
                promise: None,
                storage: Storage::Submitted(Ticket(0)),
                level,
                state: EntryState::Ready,
                message: row.message,
            }));
        }
        let miscount = lane.loaded(&slots, last, bodies, bytes);
        self.ready_count = self.ready_count + lane.ready_count() - before;
        if let Some(Miscount { rows, body_bytes }) = miscount {
            let lane = Lane { queue: self.settings.id, level, generation: lane.generation };
            self.ready_bytes = self.ready_bytes.saturating_add_signed(body_bytes);
            self.durable_count = self.durable_count.saturating_add_signed(rows);
            self.durable_bytes = self.durable_bytes.saturating_add_signed(body_bytes);
            self.due_now = true;
            out.effects.push(QueueEffect::Miscounted { lane, rows, body_bytes });
        }
        self.note_ready(level);
    }

    /// The broker stops: the ceiling becomes exact, and everything is due.
    pub(super) fn quiesce(&mut self) {
        for lane in self.levels.iter_mut().flatten() {
            let exact = lane.lent_high_or_start();
            if lane.lent_ceiling != exact {
                lane.lent_ceiling = exact;
                lane.state_changed = true;
                self.due_now = true;
            }
        }
        self.due_now |= !self.young.is_empty()
            || self.levels.iter().flatten().any(|lane| !lane.removed.is_empty() || !lane.removed_ranges.is_empty());
    }
}

impl Level {
    /// Rows read back that lie below it may have been delivered by an earlier process.
    fn lent_ceiling_at_start(&self) -> Position {
        self.recovered_ceiling
    }

    fn lent_high_or_start(&self) -> Position {
        if self.lent_high > Position(0) {
            self.lent_high.next().max(self.recovered_ceiling)
        } else {
            self.recovered_ceiling
        }
    }
}

enum Due {
    /// It left, or was handed over before.
    Gone,
    /// In a consumer's hands; its acknowledgement may still make the row needless.
    Held(Duration),
    /// To be written.
    Now,
}
