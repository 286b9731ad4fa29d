//! What leaves a session for exchanges and queues, in the order in which it comes, before the next frame is looked at.
//!
//! A publish that fails closes its channel, and what the client sent behind it is thrown away, in the same read too.

use super::effect::{Publish, Settlement};
use crate::model::{AmqpError, ChannelKey, LimitChange, Message, Name};

/// Takes what a session publishes and settles. The shell passes it in.
pub(crate) trait Outlet {
    /// Routes a message, and hands it to its queues at the latest at the end of this read. Returns how many queues it goes
    /// to; each of them owes a promise where the publish has a sequence number.
    ///
    /// # Errors
    /// The exchange is missing, or closed to clients: the channel closes with this.
    fn publish(&mut self, publish: Publish) -> Result<u32, AmqpError>;

    /// The queues that a message goes to now. They get it when its transaction commits, whatever happens to exchanges and
    /// bindings until then.
    ///
    /// # Errors
    /// As `publish`.
    fn route(&mut self, message: &Message) -> Result<Vec<Name>, AmqpError>;

    /// Hands a settlement to its queue, at the latest at the end of this read and behind what went to the queue before.
    fn settle(&mut self, channel: ChannelKey, settlement: Settlement);

    /// The limit that a channel's consumers share comes, changes or goes, behind what was published and settled before.
    fn change_limit(&mut self, channel: ChannelKey, change: LimitChange);

    /// A delivery that was on its way when the channel's limit began counts against it.
    fn count_delivery(&mut self, channel: ChannelKey);

    /// A channel has ended: all it holds goes back, its consumers go, behind what was published before.
    fn end_channel(&mut self, channel: ChannelKey);
}

/// For tests: every exchange is there, and leads nowhere.
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
