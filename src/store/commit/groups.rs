//! Groups: contributions that are committed in one transaction, even beyond the limits of a batch.
//!
//! Contributions are committed in the order of their arrival. So a batch is a run of them from the front in which every
//! group is complete. A group that waits for its last part holds up all contributions behind it, but not for long: the
//! parts come from turns that are under way.

use super::intake::Intake;
use super::limits::ANSWER_PATIENCE_MAX;
use crate::model::Monotonic;
use crate::store::Group;
use std::collections::HashMap;

/// Groups that are incomplete so far, with the number of missing parts.
#[derive(Default)]
struct OpenGroups(HashMap<u64, u32>);

impl OpenGroups {
    fn see(&mut self, groups: &[Group]) {
        for group in groups {
            let missing = self.0.entry(group.number).or_insert(group.parts);
            *missing = missing.saturating_sub(1);
            if *missing == 0 {
                self.0.remove(&group.number);
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The contributions of the next batch.
pub(super) struct GroupRun {
    pub(super) count: usize,
    /// A group lacks a part that did not come in time.
    pub(super) is_torn: bool,
}

impl<S, C> Intake<S, C> {
    /// Whether a batch with complete groups can be formed. A part may never come because its queue has failed: it is awaited
    /// for a limited time only.
    pub(super) fn has_whole_groups(&mut self, now: Monotonic) -> bool {
        if self.contributions.is_empty() || self.grouped == 0 {
            return !self.contributions.is_empty();
        }
        let mut open = OpenGroups::default();
        for (_, contribution) in &self.contributions {
            open.see(&contribution.groups);
            if open.is_empty() {
                self.incomplete_since = None;
                return true;
            }
        }
        now.since(*self.incomplete_since.get_or_insert(now)) >= ANSWER_PATIENCE_MAX
    }

    /// The contributions of the next batch: up to the limits, but at least one, and groups as a whole.
    pub(super) fn whole_groups(&mut self, rows_max: usize, bytes_max: usize, now: Monotonic) -> GroupRun {
        let (mut rows, mut bytes, mut whole) = (0, 0, 0);
        let mut open = OpenGroups::default();
        for ((_, contribution), count) in self.contributions.iter().zip(1..) {
            rows += contribution.rows;
            bytes += contribution.bytes;
            if self.grouped > 0 {
                open.see(&contribution.groups);
            }
            if open.is_empty() {
                whole = count;
                if rows >= rows_max || bytes >= bytes_max {
                    break;
                }
            }
        }
        if whole == 0 && self.incomplete_since.is_some_and(|since| now.since(since) >= ANSWER_PATIENCE_MAX) {
            self.incomplete_since = None;
            return GroupRun { count: self.contributions.len(), is_torn: true };
        }
        GroupRun { count: whole, is_torn: false }
    }
}
