//! The places of the rows of each lane. Rows are grouped in runs, so that memory grows with the batches and not with
//! the rows.

use super::segment::Segment;
use crate::model::{Lane, Position, QueueId};
use crate::store::record::HEADER_BYTES;
use crate::store::{Batch, BatchNo, LaneChange, PositionRange};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// The most bytes to which a run grows by further rows: a reader of its last row has to read it from the beginning. A
/// run takes 48 bytes of memory.
pub(super) const RUN_BYTES: u64 = 32 << 10;

/// Rows of one lane with successive positions and successive places in a segment.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) segment: Arc<Segment>,
    pub(super) span: Span,
}

/// The rows of a run, and their place in the segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// The first living row. Dead ones may come before it.
    pub(super) first: Position,
    /// The last living row. Dead ones may follow it.
    pub(super) last: Position,
    /// The offset of the first record in the segment.
    pub(super) from: u64,
    /// The bytes of all records.
    pub(super) bytes: u64,
    /// The number of all records, dead ones included.
    records: u64,
}

impl Span {
    pub(super) fn of_record(position: Position, from: u64, bytes: u64) -> Self {
        Self { first: position, last: position, from, bytes, records: 1 }
    }

    pub(super) fn rows(&self) -> u64 {
        self.last.0 - self.first.0 + 1
    }

    /// The least bytes of messages in it.
    fn message_bytes(&self) -> u64 {
        let is_whole = self.rows() == self.records;
        if is_whole { self.bytes - self.records * HEADER_BYTES as u64 } else { 0 }
    }

    /// The part within a range that overlaps it.
    fn within(self, range: PositionRange) -> Self {
        Self { first: self.first.max(range.from), last: self.last.min(range.to), ..self }
    }
}

impl Run {
    /// Adds rows that follow directly, in the lane and in the segment. Returns whether it did.
    pub(super) fn join(&mut self, segment: &Arc<Segment>, next: &Span) -> bool {
        let Self { segment: own, span } = self;
        let follows = Arc::ptr_eq(own, segment)
            && span.last.0.checked_add(1) == Some(next.first.0)
            && span.from + span.bytes == next.from
            // Otherwise dead records would count as living.
            && span.rows() == span.records
            && span.bytes + next.bytes <= RUN_BYTES;
        if follows {
            span.last = next.last;
            span.bytes += next.bytes;
            span.records += next.records;
        }
        follows
    }
}

/// The runs of a lane, by rising position.
#[derive(Default)]
struct Runs(VecDeque<Run>);

impl Runs {
    fn append(&mut self, runs: Vec<Run>) {
        for run in runs {
            debug_assert!(self.0.back().is_none_or(|last| last.span.last < run.span.first), "positions rise");
            if !self.0.back_mut().is_some_and(|last| last.join(&run.segment, &run.span)) {
                self.0.push_back(run);
            }
        }
    }

    /// Removes a range. Runs without living rows are moved to `dead`.
    fn remove(&mut self, range: PositionRange, dead: &mut Vec<Run>) {
        let begin = self.0.partition_point(|run| run.span.last < range.from);
        let end = self.0.partition_point(|run| run.span.first <= range.to);
        if range.from > range.to || begin >= end {
            return;
        }
        let kept_before = self.0[begin].clone();
        let kept_behind = self.0[end - 1].clone();
        dead.extend(self.0.drain(begin..end));
        if kept_behind.span.last > range.to {
            let first = Position(range.to.0 + 1);
            self.0.insert(begin, Run { span: Span { first, ..kept_behind.span }, ..kept_behind });
        }
        if kept_before.span.first < range.from {
            let last = Position(range.from.0 - 1);
            self.0.insert(begin, Run { span: Span { last, ..kept_before.span }, ..kept_before });
        }
    }

    fn change(&mut self, change: &LaneChange, runs: Vec<Run>, dead: &mut Vec<Run>) {
        self.append(runs);
        let below = change.remove_below.and_then(|below| below.0.checked_sub(1));
        let below = below.map(|to| PositionRange { from: Position(0), to: Position(to) });
        let single = change.removes.iter().map(|position| PositionRange { from: *position, to: *position });
        for range in below.into_iter().chain(change.remove_ranges.iter().copied()).chain(single) {
            self.remove(range, dead);
        }
    }
}

/// All lanes, as of one batch.
#[derive(Default)]
pub(super) struct Index {
    pub(super) as_of: BatchNo,
    lanes: BTreeMap<Lane, Runs>,
}

impl Index {
    /// Applies a batch whose rows are in these runs, change by change. Returns the dead runs: drop them without the
    /// lock, since files may be deleted with them.
    #[must_use]
    pub(super) fn apply(&mut self, batch: &Batch, runs: Vec<Vec<Run>>) -> Vec<Run> {
        let mut dead = Vec::new();
        for (change, runs) in batch.lanes.iter().zip(runs) {
            let lane = self.lanes.entry(change.lane).or_default();
            lane.change(change, runs, &mut dead);
            if lane.0.is_empty() {
                self.lanes.remove(&change.lane);
            }
        }
        for lane in &batch.drop_lanes {
            self.drop_lane(*lane, &mut dead);
        }
        for queue in batch.deleted_queues() {
            for lane in self.lanes_of(queue) {
                self.drop_lane(lane, &mut dead);
            }
        }
        self.as_of = batch.batch_no;
        dead
    }

    fn drop_lane(&mut self, lane: Lane, dead: &mut Vec<Run>) {
        dead.extend(self.lanes.remove(&lane).into_iter().flat_map(|runs| runs.0));
    }

    fn lanes_of(&self, queue: QueueId) -> Vec<Lane> {
        let first = Lane { queue, level: 0, generation: 0 };
        let last = Lane { queue, level: u8::MAX, generation: u32::MAX };
        self.lanes.range(first..=last).map(|(lane, _)| *lane).collect()
    }

    /// Runs in a range, up to this many rows or bytes of messages. Rows outside of the range do not count.
    pub(super) fn find(&self, lane: Lane, range: PositionRange, rows: u64, bytes: u64) -> Vec<Run> {
        let Some(Runs(runs)) = self.lanes.get(&lane) else { return Vec::new() };
        let begin = runs.partition_point(|run| run.span.last < range.from);
        let (mut rows_found, mut bytes_found) = (0, 0);
        let mut found = Vec::new();
        for run in runs.range(begin..).take_while(|run| run.span.first <= range.to) {
            let span = run.span.within(range);
            found.push(Run { span, ..run.clone() });
            rows_found += span.rows();
            bytes_found += span.message_bytes();
            if rows_found >= rows || bytes_found >= bytes {
                break;
            }
        }
        found
    }
}
