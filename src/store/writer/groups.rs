//! Groups: contributions that are committed in one transaction, whatever the limits of a batch.
//!
//! Contributions are committed in the order of their arrival, so a batch is the shortest run of them from the front in
//! which no group is begun and not ended. Nothing else overtakes a group that waits for its last part; parts come from
//! turns that are under way.

use super::{Group, Inbox, LAST_PULL_PATIENCE};
use std::collections::HashMap;
use std::time::Instant;

/// Groups of which some parts were seen.
#[derive(Default)]
struct Open(HashMap<u64, u32>);

impl Open {
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

impl Inbox {
    /// Whether there is a batch in which all groups are whole. A part that does not come, since its queue has failed, is
    /// waited for only so long.
    pub(super) fn has_whole_groups(&mut self) -> bool {
        if self.contributions.is_empty() || self.grouped == 0 {
            return !self.contributions.is_empty();
        }
        let mut open = Open::default();
        for (_, contribution) in &self.contributions {
            open.see(&contribution.groups);
            if open.is_empty() {
                self.incomplete_since = None;
                return true;
            }
        }
        self.incomplete_since.get_or_insert_with(Instant::now).elapsed() >= LAST_PULL_PATIENCE
    }

    /// How many contributions make the next batch: up to the limits, but one at least, and groups as a whole.
    pub(super) fn whole_groups(&mut self, rows_max: usize, bytes_max: usize) -> usize {
        let (mut rows, mut bytes, mut whole) = (0, 0, 0);
        let mut open = Open::default();
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
        if whole == 0 && self.incomplete_since.is_some_and(|since| since.elapsed() >= LAST_PULL_PATIENCE) {
            tracing::error!("a queue did not contribute its part of a group; the other parts are committed without it");
            self.incomplete_since = None;
            return self.contributions.len();
        }
        whole
    }
}
