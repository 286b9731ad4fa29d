//! The limits that basic.qos sets: one for each consumer created later, or one for the whole channel.

use crate::model::{LimitChange, LimitId};
use crate::wire::method::BasicQos;

/// The prefetch limits of one channel.
#[derive(Debug, Default)]
pub(super) struct Prefetch {
    /// The limit of each consumer created from now on; 0 is none.
    per_consumer: u32,
    /// The limit that all consumers of the channel share, if one is set.
    shared: Option<LimitId>,
    last_shared: LimitId,
}

impl Prefetch {
    pub(super) fn per_consumer(&self) -> u32 {
        self.per_consumer
    }

    pub(super) fn shared(&self) -> Option<LimitId> {
        self.shared
    }

    /// `global=false` sets the limit of consumers created later, and removes the shared one; `global=true` sets the shared
    /// one at once. `count_unsettled` marks what is not settled for good as counted against the shared limit, or not, and
    /// returns how many deliveries that are. A limit that begins counts them; a later one changes only the number.
    pub(super) fn set(&mut self, qos: BasicQos, mut count_unsettled: impl FnMut(bool) -> u32) -> Option<LimitChange> {
        let count = u32::from(qos.prefetch_count);
        let limit = if qos.global {
            count
        } else {
            self.per_consumer = count;
            0
        };
        Some(match (self.shared, limit) {
            (None, 0) => return None,
            (Some(_), 0) => {
                self.shared = None;
                count_unsettled(false);
                LimitChange::Ends
            }
            (Some(_), limit) => LimitChange::Becomes(limit),
            (None, limit) => {
                self.last_shared = LimitId(self.last_shared.0.wrapping_add(1));
                self.shared = Some(self.last_shared);
                LimitChange::Begins { id: self.last_shared, limit, outstanding: count_unsettled(true) }
            }
        })
    }
}
