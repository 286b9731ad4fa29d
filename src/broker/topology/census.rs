//! How many exchanges, queues and bindings a vhost has, what they take of memory, and how many there may be.

use super::exchanges::ExchangeEntry;
use super::{QueueEntry, Topology};
use crate::broker::VhostLimits;
use crate::broker::cell::Cell;
use crate::model::command::{BindTo, ExchangeDeclare};
use crate::model::names::exchange_in_vhost;
use crate::model::{AmqpError, Name};
use crate::routing::{Binding, Destination};

/// What a name takes beside its place in a table: its bytes, in two tables, about.
const NAME_BYTES: usize = 64;
/// What a binding takes: it stands in a table by its key, and in one by its destination; about.
const BINDING_BYTES: usize = 2 * size_of::<Binding>() + 2 * NAME_BYTES;

impl Topology {
    /// What all of it takes of memory, about. Arguments are not weighed: each is at most a frame.
    pub(in crate::broker) fn held_bytes(&self) -> u64 {
        let exchanges = self.exchanges.len() * (size_of::<ExchangeEntry>() + NAME_BYTES);
        let queues = self.queues.len() * (size_of::<QueueEntry>() + size_of::<Cell>() + NAME_BYTES);
        (exchanges + queues + self.bindings_count * BINDING_BYTES) as u64
    }

    /// Whether a queue may be added.
    pub(in crate::broker) fn check_queue_room(&self, queue: &Name, limits: &VhostLimits) -> Result<(), AmqpError> {
        let most = limits.queues;
        if self.queues.len() < most {
            return Ok(());
        }
        let text = format!("cannot declare queue '{queue}': queue limit in vhost '{}' ({most}) is reached", self.vhost);
        Err(AmqpError::precondition_failed(text))
    }

    /// Whether an exchange may be declared: it is there, or may be added.
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

    /// Whether a binding may be made: it is there, or may be added.
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
        let is_there =
            self.exchanges.get(bind.source.as_bytes()).is_some_and(|entry| entry.exchange.bindings.contains(&binding));
        if is_there {
            return Ok(());
        }
        let exchange = exchange_in_vhost(bind.source.as_str(), self.vhost.as_str());
        Err(AmqpError::precondition_failed(format!("cannot bind to {exchange}: binding limit of {most} is reached")))
    }
}
