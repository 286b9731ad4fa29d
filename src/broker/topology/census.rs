//! The limits of exchanges, queues and bindings of a vhost, and the memory that they take.

use super::exchanges::ExchangeEntry;
use super::{QueueEntry, Topology};
use crate::broker::VhostLimits;
use crate::broker::cell::Cell;
use crate::model::command::{BindTo, ExchangeDeclare};
use crate::model::names::exchange_in_vhost;
use crate::model::{AmqpError, Name};
use crate::routing::{Binding, Destination};

/// Estimated bytes of a name, in two tables, besides the tables' entries.
const NAME_BYTES: usize = 64;
/// Estimated bytes of a binding, which is in one table by its key and in another by its destination.
const BINDING_BYTES: usize = 2 * size_of::<Binding>() + 2 * NAME_BYTES;

impl Topology {
    /// Estimated bytes of the topology. Arguments are not counted: each is at most as large as a frame.
    pub(in crate::broker) fn held_bytes(&self) -> u64 {
        let exchanges = self.exchanges.len() * (size_of::<ExchangeEntry>() + NAME_BYTES);
        let queues = self.queues.len() * (size_of::<QueueEntry>() + size_of::<Cell>() + NAME_BYTES);
        (exchanges + queues + self.bindings_count * BINDING_BYTES) as u64
    }

    /// Checks that the limit allows one more queue.
    pub(in crate::broker) fn check_queue_room(&self, queue: &Name, limits: &VhostLimits) -> Result<(), AmqpError> {
        let most = limits.queues;
        if self.queues.len() < most {
            return Ok(());
        }
        let text = format!("cannot declare queue '{queue}': queue limit in vhost '{}' ({most}) is reached", self.vhost);
        Err(AmqpError::precondition_failed(text))
    }

    /// Checks that the exchange exists or the limit allows one more.
    pub(in crate::broker) fn check_exchange_room(
        &self,
        declare: &ExchangeDeclare,
        limits: &VhostLimits,
    ) -> Result<(), AmqpError> {
        let most = limits.exchanges;
        if declare.passive || self.exchanges.len() < most || self.exchanges.contains_key(declare.exchange.as_bytes()) {
            return Ok(());
        }
        let exchange = exchange_in_vhost(declare.exchange.as_str(), self.vhost.as_str());
        Err(AmqpError::precondition_failed(format!("cannot declare {exchange}: exchange limit of {most} is reached")))
    }

    /// Checks that the binding exists or the limit allows one more.
    pub(in crate::broker) fn check_binding_room(
        &self,
        bind: &BindTo,
        destination: &Destination,
        limits: &VhostLimits,
    ) -> Result<(), AmqpError> {
        let most = limits.bindings;
        if self.bindings_count < most {
            return Ok(());
        }
        let binding = Binding {
            destination: destination.clone(),
            routing_key: bind.routing_key.clone(),
            arguments: bind.arguments.clone(),
        };
        let exists =
            self.exchanges.get(bind.source.as_bytes()).is_some_and(|entry| entry.exchange.bindings.contains(&binding));
        if exists {
            return Ok(());
        }
        let exchange = exchange_in_vhost(bind.source.as_str(), self.vhost.as_str());
        Err(AmqpError::precondition_failed(format!("cannot bind to {exchange}: binding limit of {most} is reached")))
    }
}
