//! What the store is given when it asks, and what it gave back.
//!
//! A young entry that is acknowledged before it is pulled never reaches the store. One in a consumer's hands may be
//! passed over for a moment for that reason (`HoldLimits`); one that nobody holds never is.

use super::effect::{Effects, Pulled, QueueEffect};
use super::entry::{Entry, EntryState, Order, Storage};
use super::input::{LoadedRows, Origin, Ticket};
use super::level::{Awaiting, Level, Miscount, YoungRef};
use super::scratch::{Merged, order_of};
use super::state::{QueueState, answer_to};
use crate::model::stored::{Group, LaneChange, LaneState, Row};
use crate::model::{AmqpError, Answer, Lane, Now, Position, Promise, PromiseOwner};
use std::time::Duration;

/// How long a store that could not read is left alone.
const LOAD_RETRY_WAIT: Duration = Duration::from_secs(1);

/// For how many entries more than there are room is kept.
const ROOM_KEPT: usize = 64;

/// What to hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// What is due, at most about so much.
    Due { rows_max: usize, bytes_max: usize },
    /// Everything, what consumers have in their hands too.
    All,
    /// Removals.
    Removals,
}

impl Share {
    fn is_used_up(self, rows: usize, bytes: usize) -> bool {
        matches!(self, Self::Due { rows_max, bytes_max } if rows >= rows_max || bytes >= bytes_max)
    }
}

/// What the rows of one contribution come to.
#[derive(Debug, Default)]
struct Written {
    inserts: Vec<Vec<Row>>,
    rows: usize,
    bytes: usize,
    promises: Vec<Promise>,
    replaces: Vec<Origin>,
    more: bool,
}

impl QueueState {
    /// Hands the writer what is due: rows, removals, lanes left behind.
    pub(super) fn pull(&mut self, rows_max: usize, bytes_max: usize, now: Now, out: &mut Effects) {
        let written = self.take_young(Share::Due { rows_max, bytes_max }, now);
        self.hand_out(written, None, out);
    }

    /// Hands the writer everything, as one part of a group.
    pub(super) fn seal(&mut self, group: Group, promise: Option<Promise>, now: Now, out: &mut Effects) {
        let mut written = self.take_young(Share::All, now);
        written.promises.extend(promise);
        self.hand_out(written, Some(group), out);
    }

    /// The copies of dead letters are on their way to the store: the originals go in the same transaction.
    pub(super) fn replaced(&mut self, leaving: &[u64], group: Group, now: Now, out: &mut Effects) {
        let mut promises = Vec::new();
        for number in leaving {
            if let Some(slot) = self.one_copy_settled(*number) {
                promises.extend(self.let_go(slot, out).promise);
            }
        }
        let mut written = self.take_young(Share::Removals, now);
        written.promises = promises;
        self.hand_out(written, Some(group), out);
    }

    /// A queue that has ended has nothing for the writer, which may wait for its part all the same.
    pub(super) fn pull_nothing(&mut self, group: Option<Group>, out: &mut Effects) {
        self.hand_out(Written::default(), group, out);
    }

    fn hand_out(&mut self, written: Written, group: Option<Group>, out: &mut Effects) {
        let Written { inserts, rows, bytes, promises, replaces, more } = written;
        let ticket = Ticket(self.ticket.0 + 1);
        let removed = std::mem::take(&mut self.rows_to_remove);
        let lanes = self.lane_changes(inserts, ticket);
        let drop_lanes = std::mem::take(&mut self.dropped_lanes);
        if !lanes.is_empty() || !drop_lanes.is_empty() || group.is_some() {
            self.ticket = ticket;
            let purges = std::mem::take(&mut self.purges);
            self.awaiting.push_back(Awaiting { ticket, promises, purges, bytes: bytes as u64 });
        }
        out.pulled.push(Pulled { ticket, lanes, drop_lanes, rows, removed, bytes, more, group, replaces });
    }

    /// Takes what goes to the store now out of the young ones.
    fn take_young(&mut self, share: Share, now: Now) -> Written {
        let mut written = Written::default();
        written.inserts.resize_with(self.levels.len(), Vec::new);
        if share == Share::Removals {
            return written;
        }
        self.due_now = false;
        self.due_at = None;
        let ticket = Ticket(self.ticket.0 + 1);
        let mut held = Vec::new();
        let hold = self.hold_time().filter(|_| share != Share::All);
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
            if share.is_used_up(written.rows, written.bytes) {
                self.young.push_front(young);
                written.more = true;
                break;
            }
            self.submit(young, ticket, &mut written);
        }
        for young in held.into_iter().rev() {
            self.young.push_front(young);
        }
        self.due_now |= written.more;
        written
    }

    fn submit(&mut self, young: YoungRef, ticket: Ticket, written: &mut Written) {
        let entry = self.entries.at_mut(young.slot);
        entry.storage = Storage::Submitted(ticket);
        match entry.promise.take() {
            Some(Promise { owner: PromiseOwner::Queue(queue), sequence }) => {
                written.replaces.push(Origin { queue, leaving: sequence });
            }
            promise => written.promises.extend(promise),
        }
        written.rows += 1;
        written.bytes += entry.message.allocated_bytes();
        let row = Row {
            position: young.position,
            redelivered: entry.redelivered || matches!(entry.state, EntryState::Lent(_)),
            expires_at: entry.expires_at,
            place: None,
            message: entry.message.clone(),
        };
        let body = entry.message.body_len() as u64;
        let lane = self.level_mut(young.level);
        lane.stored_count += 1;
        lane.stored_bytes += body;
        written.inserts[usize::from(young.level)].push(row);
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

    fn lane_changes(&mut self, inserts: Vec<Vec<Row>>, ticket: Ticket) -> Vec<LaneChange> {
        let queue = self.settings.id;
        let ahead = (!self.quiesced).then(|| self.lent_ahead());
        let mut changes = Vec::new();
        for (at, rows) in inserts.into_iter().enumerate() {
            let Some(lane) = self.levels.get_mut(at).and_then(Option::as_mut) else { continue };
            if rows.is_empty() && lane.removed.is_empty() && lane.removed_ranges.is_empty() && !lane.state_changed {
                continue;
            }
            lane.state_changed = false;
            lane.removals.submit(ticket);
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
                lent_ceiling: lane.pull_ceiling(ticket, ahead),
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
            for (requester, message_count) in awaiting.purges {
                let removed = Answer::Removed { message_count };
                let answer = if durable { removed } else { Answer::Refused(AmqpError::internal_error()) };
                answer_to(requester, answer, out);
            }
        }
        // After a refusal nobody knows what the store has: all that is in memory stays there.
        self.store_failed |= !durable;
        if self.store_failed {
            return;
        }
        self.flushed = self.flushed.max(ticket);
        self.absorb_tails();
        let flushed = self.flushed;
        for lane in self.levels.iter_mut().flatten() {
            lane.ceiling_flushed(flushed);
            lane.removals.flushed(flushed);
        }
        if self.young.is_empty() && self.awaiting.is_empty() || self.window.tail_entries == 0 {
            self.give_room_back();
        }
    }

    /// A queue that rests, or whose window is as small as can be, keeps no room for what it once held.
    fn give_room_back(&mut self) {
        self.young.shrink_to(self.young.len() + ROOM_KEPT);
        self.awaiting.shrink_to(self.awaiting.len() + ROOM_KEPT);
        for lane in self.levels.iter_mut().flatten() {
            lane.give_room_back(ROOM_KEPT);
        }
    }

    /// Long heads are left to the stores too, once what consumers held has come back.
    pub(super) fn shrink_heads(&mut self) {
        // After a refusal nobody knows what the store has.
        if self.store_failed {
            return;
        }
        let (flushed, window, pressed) = (self.flushed, self.window, self.pressed);
        for lane in self.levels.iter_mut().flatten() {
            lane.shrink(&mut self.entries, flushed, pressed, &window);
        }
    }

    /// Long tails are left to the stores, as far as these have them.
    pub(super) fn absorb_tails(&mut self) {
        let (flushed, spilled, window) = (self.flushed, self.scratch_flushed, self.window);
        for lane in self.levels.iter_mut().flatten() {
            let freed = lane.absorb(&mut self.entries, flushed, spilled, &window);
            self.transient_bytes = self.transient_bytes.saturating_sub(freed);
        }
    }

    /// Rows of the middle arrived for the head.
    pub(super) fn loaded(&mut self, level: u8, load: u64, rows: Option<LoadedRows>, now: Now, out: &mut Effects) {
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
        let (ceiling, lent_high) = (lane.lent_ceiling_at_start(), lane.lent_high);
        let before = lane.ready_count();
        let Merged { durable, scratch } = self.merge_loaded(level, rows);
        let (durable, took_durable) = durable.unzip();
        let (scratch, took_scratch) = scratch.unzip();
        let mut slots = Vec::new();
        let mut bytes = 0;
        let mut from_scratch = scratch.unwrap_or_default().into_iter().peekable();
        for row in durable.unwrap_or_default() {
            while let Some(earlier) = from_scratch.next_if(|other| order_of(other) < order_of(&row)) {
                bytes += earlier.message.allocated_bytes();
                slots.push(self.entry_of_scratch(level, earlier));
            }
            bytes += row.message.allocated_bytes();
            slots.push(self.entries.insert(Entry {
                redelivered: row.redelivered || row.position < ceiling || row.position <= lent_high,
                order: Order { position: row.position, sub: 0 },
                expires_at: row.expires_at,
                promise: None,
                storage: Storage::Submitted(Ticket(0)),
                level,
                state: EntryState::Ready,
                message: row.message,
            }));
        }
        for row in from_scratch {
            bytes += row.message.allocated_bytes();
            slots.push(self.entry_of_scratch(level, row));
        }
        let lane = self.level_mut(level);
        lane.extend_head(&slots, bytes);
        let off = took_durable.map_or_else(Miscount::default, |took| lane.took_durable(took));
        let off_scratch = took_scratch.map_or_else(Miscount::default, |took| took.take_from(&mut lane.scratch.middle));
        let (generation, after) = (lane.generation, lane.ready_count());
        self.ready_count = self.ready_count + after - before;
        let bodies_off = off.body_bytes + off_scratch.body_bytes;
        self.ready_bytes = self.ready_bytes.saturating_add_signed(bodies_off);
        if off != Miscount::default() {
            self.durable_count = self.durable_count.saturating_add_signed(off.rows);
            self.durable_bytes = self.durable_bytes.saturating_add_signed(off.body_bytes);
            self.due_now = true;
        }
        if off != Miscount::default() || off_scratch != Miscount::default() {
            let lane = Lane { queue: self.settings.id, level, generation };
            let rows = off.rows + off_scratch.rows;
            out.effects.push(QueueEffect::Miscounted { lane, rows, body_bytes: bodies_off });
        }
        self.note_ready(level);
    }

    /// The broker stops: the ceiling becomes exact, and everything is due.
    pub(super) fn quiesce(&mut self) {
        self.quiesced = true;
        for lane in self.levels.iter_mut().flatten() {
            let exact = lane.lent_high_or_start();
            if lane.ceiling.below != exact {
                lane.ceiling.set(exact);
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
