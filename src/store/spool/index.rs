//! Where the rows of each lane lie: in runs, so that memory follows the batches and not the rows.

use super::segment::Segment;
use crate::model::{Lane, Position, QueueId};
use crate::store::record::HEADER_BYTES;
use crate::store::{Batch, BatchNo, LaneChange, PositionRange};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A run is not made longer than this by further rows: who wants the last of them has to find it from the beginning.
/// 48 bytes of memory stand for it.
pub(super) const RUN_BYTES: u64 = 32 << 10;

/// Rows of one lane with successive positions, which lie one behind the other in a segment.
#[derive(Clone)]
pub(super) struct Run {
    pub(super) segment: Arc<Segment>,
    pub(super) span: Span,
}

/// Which rows, and where.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    /// The first that lives; others may lie before it.
    pub(super) first: Position,
    /// The last that lives; others may lie behind it.
    pub(super) last: Position,
    /// Where in the segment their records begin.
    pub(super) from: u64,
    /// How long all records are.
    pub(super) bytes: u64,
    /// And how many they were at first.
    records: u64,
}

impl Span {
    pub(super) fn of_record(position: Position, from: u64, bytes: u64) -> Self {
        Self { first: position, last: position, from, bytes, records: 1 }
    }

    pub(super) fn rows(&self) -> u64 {
        self.last.0 - self.first.0 + 1
    }

    /// Bytes of messages that it has at least.
    fn message_bytes(&self) -> u64 {
        let is_whole = self.rows() == self.records;
        if is_whole { self.bytes - self.records * HEADER_BYTES as u64 } else { 0 }
    }

    /// What of it lies in a range that it meets.
    fn within(self, range: PositionRange) -> Self {
        Self { first: self.first.max(range.from), last: self.last.min(range.to), ..self }
    }
}

impl Run {
    /// Takes in what follows at once, in the lane and in the segment; whether it did.
    pub(super) fn join(&mut self, segment: &Arc<Segment>, next: &Span) -> bool {
        let Self { segment: own, span } = self;
        let follows = Arc::ptr_eq(own, segment)
            && span.last.0.checked_add(1) == Some(next.first.0)
            && span.from + span.bytes == next.from
            // Else records that are dead would count as living.
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

    /// Takes a range out. What nobody has a row in any more is handed to `dead`.
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

/// All lanes, as of a batch.
#[derive(Default)]
pub(super) struct Index {
    pub(super) as_of: BatchNo,
    lanes: BTreeMap<Lane, Runs>,
}

impl Index {
    /// Takes in a batch whose rows lie in these runs, change by change. What it returns is dead, and is dropped when the
    /// lock is free again: with it files may go.
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

    /// Runs in a range that have so many rows or so many bytes of messages, or else all of them. Rows outside of the range
    /// are not counted as theirs.
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
