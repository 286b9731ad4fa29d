//! Batches: the changes that become durable together, and how they are joined and split.

pub use crate::model::stored::{Group, LaneChange, LaneState, PositionRange, Row};

use super::records::TopologyChange;
use crate::model::{Lane, Position, QueueId};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

/// The number of a batch. It rises by one per batch, also across restarts, and is stored in the batch's own transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNo(pub u64);

/// Changes that become durable together. The writer keeps a batch until its outcome is known, and does not change it
/// while the store may have it.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its number.
    pub batch_no: BatchNo,
    /// Changes of topology, in order, before the lanes.
    pub topology: Vec<TopologyChange>,
    /// Changes of lanes.
    pub lanes: Vec<LaneChange>,
    /// Lanes to abandon: they are empty at once, their rows are erased later in slices.
    pub drop_lanes: Vec<Lane>,
}

impl Batch {
    /// Whether the batch may use the space reserved for a full disk: it removes rows, or only moves a ceiling, without which
    /// no consumer could remove any.
    pub(super) fn may_use_reserve(&self) -> bool {
        let may = |change: &LaneChange| removes_rows(change) || change.inserts.is_empty();
        self.lanes.iter().any(may) || self.drops_lanes()
    }

    /// Whether it drops lanes, by themselves or with their queue.
    pub(super) fn drops_lanes(&self) -> bool {
        !self.drop_lanes.is_empty() || self.deleted_queues().next().is_some()
    }

    /// Joins all changes of a lane into one, and leaves out rows that a later change removes again.
    pub(super) fn join_lanes(&mut self) {
        let mut at: HashMap<Lane, usize> = HashMap::new();
        let mut joined: Vec<LaneChange> = Vec::with_capacity(self.lanes.len());
        for change in self.lanes.drain(..) {
            match at.entry(change.lane) {
                Entry::Vacant(entry) => {
                    entry.insert(joined.len());
                    joined.push(change);
                }
                Entry::Occupied(entry) => join(&mut joined[*entry.get()], change),
            }
        }
        self.lanes = joined;
    }

    /// Splits off the removals of rows, for a disk on which the rows to insert do not fit. The new batch has this one's
    /// number, and this one gets the next. `None` if there are no removals, or nothing else. Lanes that are `bound` to
    /// others by a group stay, and so do those of queues that this batch makes or deletes.
    pub(super) fn split_removals(&mut self, bound: &HashSet<Lane>) -> Option<Self> {
        self.join_lanes();
        let touched: HashSet<QueueId> = self.topology.iter().filter_map(TopologyChange::queue).collect();
        let is_left = |change: &LaneChange| {
            bound.contains(&change.lane)
                || touched.contains(&change.lane.queue)
                || self.drop_lanes.contains(&change.lane)
                || !removes_rows(change)
        };
        let lanes: Vec<LaneChange> = self.lanes.iter().filter(|change| !is_left(change)).map(removals_of).collect();
        let inserts = self.lanes.iter().any(|change| !change.inserts.is_empty());
        if lanes.is_empty() || !inserts {
            return None;
        }
        let taken: HashSet<Lane> = lanes.iter().map(|change| change.lane).collect();
        for change in self.lanes.iter_mut().filter(|change| taken.contains(&change.lane)) {
            (change.remove_below, change.remove_ranges, change.removes) = (None, Vec::new(), Vec::new());
        }
        let removals = Self { batch_no: self.batch_no, topology: Vec::new(), lanes, drop_lanes: Vec::new() };
        self.batch_no = BatchNo(self.batch_no.0 + 1);
        Some(removals)
    }

    /// The queues that it deletes.
    pub(crate) fn deleted_queues(&self) -> impl Iterator<Item = QueueId> {
        self.topology.iter().filter_map(|change| match change {
            TopologyChange::DeleteQueue(queue) => Some(*queue),
            _ => None,
        })
    }
}

fn removes_rows(change: &LaneChange) -> bool {
    change.remove_below.is_some() || !change.remove_ranges.is_empty() || !change.removes.is_empty()
}

/// The change without its inserts, and the lane's state without them.
fn removals_of(change: &LaneChange) -> LaneChange {
    let bodies: u64 = change.inserts.iter().map(|row| row.message.body_len() as u64).sum();
    let state = LaneState {
        count: change.state.count.saturating_sub(change.inserts.len() as u64),
        body_bytes: change.state.body_bytes.saturating_sub(bodies),
        ..change.state
    };
    let (remove_ranges, removes) = (change.remove_ranges.clone(), change.removes.clone());
    LaneChange {
        lane: change.lane,
        inserts: Vec::new(),
        remove_below: change.remove_below,
        remove_ranges,
        removes,
        state,
    }
}

/// Adds a later change of the same lane. Rows that are inserted and removed again are neither inserted nor removed.
pub(super) fn join(change: &mut LaneChange, later: LaneChange) {
    let LaneChange { lane: _, inserts, remove_below, remove_ranges, removes, state } = later;
    let removed_up_to = highest_removed(change);
    for row in inserts.iter().filter(|row| row.position <= removed_up_to) {
        spare(change, row.position);
    }
    let removed: HashSet<Position> = removes.iter().copied().collect();
    let mut unwritten = HashSet::new();
    if remove_below.is_some() || !remove_ranges.is_empty() || !removed.is_empty() {
        change.inserts.retain(|row| {
            let is_below = remove_below.is_some_and(|below| row.position < below);
            let is_within = remove_ranges.iter().any(|range| (range.from..=range.to).contains(&row.position));
            let stays = !is_below && !is_within && !removed.contains(&row.position);
            if !stays {
                unwritten.insert(row.position);
            }
            stays
        });
    }
    change.inserts.extend(inserts);
    change.remove_below = change.remove_below.max(remove_below);
    change.remove_ranges.extend(remove_ranges);
    change.removes.extend(removes.into_iter().filter(|position| !unwritten.contains(position)));
    change.state = state;
}

/// The highest position that may be removed.
fn highest_removed(change: &LaneChange) -> Position {
    let ranges = change.remove_ranges.iter().map(|range| range.to);
    let all = change.remove_below.into_iter().chain(ranges).chain(change.removes.iter().copied());
    all.max().unwrap_or_default()
}

/// Excludes a position from the removals, because a later change inserts a row there: a range may reach beyond the rows that
/// existed when it was made.
fn spare(change: &mut LaneChange, position: Position) {
    change.remove_below = change.remove_below.map(|below| below.min(position));
    change.removes.retain(|removed| *removed != position);
    if let Some(at) = change.remove_ranges.iter().position(|range| (range.from..=range.to).contains(&position)) {
        let PositionRange { from, to } = change.remove_ranges.swap_remove(at);
        let before = PositionRange { from, to: Position(position.0.saturating_sub(1)) };
        let behind = PositionRange { from: position.next(), to };
        change.remove_ranges.extend([before, behind].into_iter().filter(|range| range.from <= range.to));
        // Another range may contain the position as well.
        spare(change, position);
    }
}
