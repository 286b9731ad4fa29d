//! basic.qos: a limit for each consumer to come, or one for the whole channel.

use super::channel::Channel;
use super::outlet::Outlet;
use crate::wire::method::BasicQos;

impl Channel {
    /// `global=false` sets the limit of consumers created later, and takes a channel-wide one away; `global=true` limits the
    /// channel at once, what is unacknowledged now included.
    pub(super) fn set_prefetch(&mut self, qos: BasicQos, outlet: &mut dyn Outlet) {
        let count = u32::from(qos.prefetch_count);
        let limit = if qos.global {
            count
        } else {
            self.prefetch = count;
            0
        };
        if limit == 0 && !self.channel_limited {
            return;
        }
        self.channel_limited = limit > 0;
        let outstanding = self.unacked.count_all(limit > 0);
        outlet.limit_channel(self.key, limit, outstanding);
    }
}
