//! The driver's [`Outlet`]: takes a session's publishes and acknowledgements to the queues.

use super::metrics::ConnectionMetrics;
use crate::broker::Link;
use crate::model::{
    AmqpError, ChannelKey, ConnectionId, Holder, LimitChange, Message, Name, Now, Promise, PromiseOwner, SettleOutcome,
};
use crate::session::{Outlet, Publish, Settlement};

/// Sends publishes and acknowledgements through the connection's link, and counts the publishes.
pub(super) struct LinkOutlet<'a> {
    pub(super) connection: ConnectionId,
    pub(super) now: Now,
    pub(super) link: Option<&'a mut Link>,
    pub(super) metrics: &'a mut ConnectionMetrics,
    /// Set once the connection has published.
    pub(super) publishes: &'a mut bool,
}

impl Outlet for LinkOutlet<'_> {
    fn publish(&mut self, publish: Publish) -> Result<u32, AmqpError> {
        let Publish { channel, message, mandatory, sequence } = publish;
        let Some(link) = &mut self.link else { return Ok(0) };
        *self.publishes = true;
        let promise = sequence.map(|sequence| {
            let holder = Holder { connection: self.connection, channel };
            Promise { owner: PromiseOwner::Channel(holder), sequence }
        });
        let size = message.body_len();
        let parts = link.publish(message, promise)?;
        self.metrics.note_publish(size, mandatory, parts);
        self.metrics.note_promise(sequence.is_some());
        Ok(parts)
    }

    fn route(&mut self, message: &Message) -> Result<Vec<Name>, AmqpError> {
        self.link.as_mut().map_or_else(|| Ok(Vec::new()), |link| link.route(message))
    }

    fn settle(&mut self, channel: ChannelKey, settlement: Settlement) {
        let Settlement { queue, lend, outcome, counted, continues } = settlement;
        if let Some(link) = &mut self.link {
            // A delivery that an earlier method requeued may be lent again before this one is requeued, so requeues of
            // two methods stay apart.
            let joins = continues || outcome != SettleOutcome::Requeued;
            link.settle(channel, queue, lend, outcome, counted, joins);
        }
    }

    fn change_limit(&mut self, channel: ChannelKey, change: LimitChange) {
        if let Some(link) = &mut self.link {
            link.flush(self.now);
            link.change_limit(channel, change, self.now);
        }
    }

    fn count_delivery(&mut self, channel: ChannelKey) {
        if let Some(link) = &self.link {
            link.count_delivery(channel, self.now);
        }
    }

    fn end_channel(&mut self, channel: ChannelKey) {
        if let Some(link) = &mut self.link {
            link.flush(self.now);
            link.end_channel(channel, self.now);
        }
    }
}
