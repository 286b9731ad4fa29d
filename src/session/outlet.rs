//! How publishes and settlements leave a session for exchanges and queues: in order, before the next frame is handled.
//!
//! A publish that fails closes its channel, and what the client sent after it is thrown away, even in the same read.

use super::effect::{Publish, Settlement};
use crate::model::{AmqpError, ChannelKey, LimitChange, Message, Name};

/// Takes what a session publishes and settles. The shell implements it.
pub(crate) trait Outlet {
    /// Routes a message, and hands it to its queues at the end of this read at the latest. Returns the number of these queues;
    /// each owes a promise if the publish has a sequence number.
    ///
    /// # Errors
    /// The exchange is missing, or internal: the channel closes with this error.
    fn publish(&mut self, publish: Publish) -> Result<u32, AmqpError>;

    /// The queues that a message is routed to now. They get it when its transaction commits, even if exchanges and bindings
    /// have changed by then.
    ///
    /// # Errors
    /// Those of `publish`.
    fn route(&mut self, message: &Message) -> Result<Vec<Name>, AmqpError>;

    /// Hands a settlement to its queue at the end of this read at the latest, after everything that went to the queue before.
    fn settle(&mut self, channel: ChannelKey, settlement: Settlement);

    /// Sets, changes or removes the limit that a channel's consumers share, after what was published and settled before.
    fn change_limit(&mut self, channel: ChannelKey, change: LimitChange);

    /// A delivery that was on its way when the channel's limit began counts against the limit.
    fn count_delivery(&mut self, channel: ChannelKey);

    /// A channel has ended: after what was published before, its deliveries go back and its consumers are removed.
    fn end_channel(&mut self, channel: ChannelKey);
}

/// For tests: every exchange exists, and routes to no queue.
#[cfg(test)]
pub(super) struct NoQueues;

#[cfg(test)]
impl Outlet for NoQueues {
    fn publish(&mut self, _: Publish) -> Result<u32, AmqpError> {
        Ok(0)
    }

    fn route(&mut self, _: &Message) -> Result<Vec<Name>, AmqpError> {
        Ok(Vec::new())
    }

    fn settle(&mut self, _: ChannelKey, _: Settlement) {}

    fn change_limit(&mut self, _: ChannelKey, _: LimitChange) {}

    fn count_delivery(&mut self, _: ChannelKey) {}

    fn end_channel(&mut self, _: ChannelKey) {}
}
