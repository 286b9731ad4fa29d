//! Routes dead messages: to the queue's dead-letter exchange, and from there to queues like any other message.

use super::cell::TurnList;
use super::node::Broker;
use crate::model::{Message, Now, Promise, PromiseOwner};
use crate::queue::{DeadLetterReason, Enqueue, Origin, QueueCommand, QueueSettings, dead_letter_copy, would_cycle};

impl Broker {
    /// Sends copies of a dead message to the queues to which the dead-letter exchange routes it. Returns the number of
    /// copies. If `leaving` is given, each queue owes that origin a promise.
    pub(super) fn dead_letter(
        &self,
        from: &QueueSettings,
        message: &Message,
        reason: DeadLetterReason,
        leaving: Option<Origin>,
        now: Now,
        list: &mut TurnList,
    ) -> u32 {
        let (Some(exchange), Some(vhost)) = (&from.dead_letter_exchange, self.vhost(from.vhost.as_bytes())) else {
            return 0;
        };
        let routing_key = from.dead_letter_routing_key.as_ref();
        let trust = self.settings().trust_published_x_death;
        let copy = dead_letter_copy(message, &from.name, reason, now.wall, exchange, routing_key, trust);
        let headers = copy.properties().headers();
        let route = vhost.topology().route_inside(copy.exchange(), copy.routing_key(), headers);
        let promise =
            leaving.map(|origin| Promise { owner: PromiseOwner::Queue(origin.queue), sequence: origin.leaving });
        let mut copies = 0;
        for cell in route.cells {
            if would_cycle(&copy, cell.name().as_bytes(), reason) {
                tracing::warn!(
                    queue = from.name.as_str(),
                    to = cell.name().as_str(),
                    "a dead letter would cycle; it is dropped"
                );
                continue;
            }
            copies += 1;
            cell.push(QueueCommand::Publish(vec![Enqueue { message: copy.clone(), promise }]));
            list.push_back(cell);
        }
        copies
    }
}
