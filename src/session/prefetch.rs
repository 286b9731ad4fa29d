//! basic.qos: a limit for each consumer to come, or one for the whole channel.

use super::channel::Channel;
use super::outlet::Outlet;
use crate::model::{LimitChange, LimitId};
use crate::wire::method::BasicQos;

impl Channel {
    /// `global=false` sets the limit of consumers created later, and takes a channel-wide one away; `global=true` limits the
    /// channel at once. A limit that begins counts all that is unacknowledged, gets too, as RabbitMQ does it, and what is
    /// settled by a transaction that is not committed. From limit to limit only the number changes.
    pub(super) fn set_prefetch(&mut self, qos: BasicQos, outlet: &mut dyn Outlet) {
        let count = u32::from(qos.prefetch_count);
        let limit = if qos.global {
            count
        } else {
            self.prefetch = count;
            0
        };
        let change = match (self.limit, limit) {
            (None, 0) => return,
            (Some(_), 0) => {
                self.limit = None;
                self.count_unsettled(false);
                LimitChange::Ends
            }
            (Some(_), limit) => LimitChange::Becomes(limit),
            (None, limit) => {
                self.last_limit = LimitId(self.last_limit.0.wrapping_add(1));
                self.limit = Some(self.last_limit);
                LimitChange::Begins { id: self.last_limit, limit, outstanding: self.count_unsettled(true) }
            }
        };
        outlet.change_limit(self.key, change);
    }

    /// Marks all that is not settled for good as counted against the channel's limit, or not; returns how many there are.
    fn count_unsettled(&mut self, counted: bool) -> u32 {
        let held_back = self.transaction.as_mut().map_or(0, |transaction| transaction.count_settlements(counted));
        self.unacked.count_all(counted) + held_back
    }
}
