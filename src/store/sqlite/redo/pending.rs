//! Batches that are in the redo log and not yet in SQLite's file, for readers of the file.

use crate::model::{Lane, Position};
use crate::store::batch::join;
use crate::store::{Batch, BatchNo, LaneChange, PositionRange, Row};
use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The pending batches of one store, by rising numbers. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct PendingBatches(Arc<Mutex<Vec<Batch>>>);

impl PendingBatches {
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Batch>> {
        // No code that could panic runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pending changes of a lane. Call it before the file is read: batches that are moved in between are found in
    /// the file.
    pub(crate) fn changes_of(&self, lane: Lane) -> Vec<(BatchNo, LaneChange)> {
        let pending = self.lock();
        let of_lane = |batch: &Batch| {
            let changes = batch.lanes.iter().filter(|change| change.lane == lane);
            changes.map(|change| (batch.batch_no, change.clone())).collect::<Vec<_>>()
        };
        pending.iter().flat_map(of_lane).collect()
    }
}

/// Pending changes of a lane, to be merged with the rows that are read from the file.
#[derive(Debug, Default)]
pub(crate) struct Overlay {
    /// By rising positions.
    inserts: VecDeque<Row>,
    below: Position,
    ranges: Vec<PositionRange>,
    removes: HashSet<Position>,
    /// The last batch that wrote the lane.
    pub(crate) as_of: BatchNo,
}

impl Overlay {
    /// Joins the changes that are newer than `as_of`, the last batch of the lane in the file.
    pub(crate) fn new(changes: Vec<(BatchNo, LaneChange)>, as_of: BatchNo) -> Self {
        let mut overlay = Self { as_of, ..Self::default() };
        let mut changes = changes.into_iter().filter(|(batch_no, _)| *batch_no > as_of);
        let Some((first, mut joined)) = changes.next() else { return overlay };
        overlay.as_of = first;
        for (batch_no, change) in changes {
            overlay.as_of = batch_no;
            join(&mut joined, change);
        }
        overlay.below = joined.remove_below.unwrap_or_default();
        overlay.ranges = joined.remove_ranges;
        overlay.removes = joined.removes.into_iter().collect();
        // A change may remove rows that it inserts.
        joined.inserts.retain(|row| !overlay.removes(row.position));
        overlay.inserts = joined.inserts.into();
        overlay.inserts.make_contiguous().sort_by_key(|row| row.position);
        overlay
    }

    pub(crate) fn removes(&self, position: Position) -> bool {
        let is_within = |range: &PositionRange| (range.from..=range.to).contains(&position);
        position < self.below || self.ranges.iter().any(is_within) || self.removes.contains(&position)
    }

    /// The next inserted row at or below a position.
    pub(crate) fn next_until(&mut self, to: Position) -> Option<Row> {
        self.inserts.pop_front_if(|row| row.position <= to)
    }

    /// Leaves out inserted rows before a position.
    pub(crate) fn begin_at(&mut self, from: Position) {
        self.inserts.retain(|row| row.position >= from);
    }
}
