//! Contributions and changes that wait for a batch, and the contents of one batch.

use super::Contribution;
use crate::model::{Lane, Monotonic};
use crate::store::{Batch, TopologyChange};
use std::collections::{HashSet, VecDeque};

/// A change of topology, or a barrier where there is no change.
pub(super) struct TopologyItem<C> {
    pub(super) changes: Vec<TopologyChange>,
    /// This many contributions have to be taken first. A barrier waits for all before it. So does a queue's deletion:
    /// contributions of the queue after it would bring its lanes back.
    pub(super) after: u64,
    pub(super) completion: C,
}

/// What was submitted and is not in a batch yet.
pub(super) struct Intake<S, C> {
    pub(super) topology: VecDeque<TopologyItem<C>>,
    pub(super) contributions: VecDeque<(S, Contribution)>,
    /// How many contributions belong to a group.
    pub(super) grouped: usize,
    /// Since when the first contribution waits for the rest of its group.
    pub(super) incomplete_since: Option<Monotonic>,
    /// Contributions that were ever accepted, and taken into a batch.
    pub(super) accepted: u64,
    pub(super) taken: u64,
}

impl<S, C> Default for Intake<S, C> {
    fn default() -> Self {
        Self {
            topology: VecDeque::new(),
            contributions: VecDeque::new(),
            grouped: 0,
            incomplete_since: None,
            accepted: 0,
            taken: 0,
        }
    }
}

/// One batch, and the sources and completions to call with its outcome.
pub(super) struct BatchContents<S, C> {
    /// `None` if the batch consists of barriers only.
    pub(super) batch: Option<Batch>,
    pub(super) tickets: Vec<(S, u64)>,
    pub(super) completions: Vec<C>,
    /// Lanes with parts of groups: none of their changes may be committed ahead of the batch.
    pub(super) bound: HashSet<Lane>,
    /// Rows and bytes, as counted by the contributions.
    pub(super) rows: usize,
    pub(super) bytes: usize,
    /// A group in it lacks a part that did not come in time.
    pub(super) is_torn: bool,
}

impl<S, C> Default for BatchContents<S, C> {
    fn default() -> Self {
        Self {
            batch: None,
            tickets: Vec::new(),
            completions: Vec::new(),
            bound: HashSet::new(),
            rows: 0,
            bytes: 0,
            is_torn: false,
        }
    }
}

impl<S, C> BatchContents<S, C> {
    /// Takes `count` contributions, and the changes of topology that need not wait for those left.
    pub(super) fn take(&mut self, batch: &mut Batch, intake: &mut Intake<S, C>, count: usize) {
        for (source, contribution) in intake.contributions.drain(..count) {
            intake.taken += 1;
            if !contribution.groups.is_empty() {
                intake.grouped -= 1;
                self.bound.extend(contribution.lanes.iter().map(|change| change.lane));
            }
            self.rows += contribution.rows;
            self.bytes += contribution.bytes;
            batch.lanes.extend(contribution.lanes);
            batch.drop_lanes.extend(contribution.drop_lanes);
            self.tickets.push((source, contribution.ticket));
        }
        let taken = intake.taken;
        while let Some(item) = intake.topology.pop_front_if(|item| item.after <= taken) {
            batch.topology.extend(item.changes);
            self.completions.push(item.completion);
        }
    }
}
