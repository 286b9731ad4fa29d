//! Which queues hold something for a channel.

use super::channel::Channel;
use super::machine::Session;
use crate::model::{ChannelKey, QueueId};
use ahash::AHashSet;

impl Channel {
    fn queues_in_use(&self) -> AHashSet<QueueId> {
        let consumed = self.consumers.queues();
        let settled = self.transaction.iter().flat_map(|transaction| &transaction.settlements);
        let settled = settled.map(|(_, delivered, _)| delivered.queue);
        consumed.chain(self.unacked.queues()).chain(settled).collect()
    }
}

impl Session {
    /// The queues of a channel's consumers, and of the deliveries that it has not settled. The queues of methods that wait
    /// for their answers are not known yet: call it before a command is carried out.
    pub(crate) fn queues_in_use(&mut self, channel: ChannelKey) -> AHashSet<QueueId> {
        self.live(channel).map(|channel| channel.queues_in_use()).unwrap_or_default()
    }
}
