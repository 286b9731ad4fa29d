//! Bindings: made and removed by clients, and removed with their source or destination.

use super::{Changes, ON_DEFAULT_EXCHANGE, Topology};
use crate::model::command::BindTo;
use crate::model::{AmqpError, ConnectionId, Name};
use crate::routing::{Binding, Destination, ExchangeKind};
use crate::store::{self, BindingRecord, TopologyChange};

impl Topology {
    /// Makes a binding. The owner of an exclusive queue is checked before everything else.
    pub(in crate::broker) fn bind(
        &mut self,
        bind: &BindTo,
        destination: Destination,
        connection: ConnectionId,
    ) -> Result<Changes, AmqpError> {
        let vhost = self.vhost.as_str();
        if let Destination::Queue(queue) = &destination
            && let Some(entry) = self.queues.get(queue.as_bytes())
        {
            entry.check_owner(queue, vhost, connection)?;
        }
        Self::check_not_default(bind, &destination)?;
        let Some(entry) = self.exchanges.get(bind.source.as_bytes()) else {
            return Err(AmqpError::no_exchange(bind.source.as_str(), vhost));
        };
        let destination_durable = match &destination {
            Destination::Queue(queue) => match self.queues.get(queue.as_bytes()) {
                Some(queue) => queue.durable,
                None => return Err(AmqpError::no_queue(queue.as_str(), vhost)),
            },
            Destination::Exchange(exchange) => match self.exchanges.get(exchange.as_bytes()) {
                Some(exchange) => exchange.durable,
                None => return Err(AmqpError::no_exchange(exchange.as_str(), vhost)),
            },
        };
        let binding = Binding {
            destination: destination.clone(),
            routing_key: bind.routing_key.clone(),
            arguments: bind.arguments.clone(),
        };
        entry.exchange.bindings.validate(&binding)?;
        let durable = entry.durable && destination_durable;
        let record = durable.then(|| self.binding_record(&bind.source, &binding));
        let entry = self.exchanges.get_mut(bind.source.as_bytes()).expect("looked up above");
        if !entry.exchange.bindings.bind(binding) {
            return Ok(Changes::existing(durable));
        }
        self.bindings_count += 1;
        if entry.exchange.bindings.kind() == ExchangeKind::Headers {
            self.headers_bindings += 1;
        }
        self.sources.entry(destination).or_default().insert(bind.source.clone());
        Ok(Changes::new(record.map(TopologyChange::PutBinding).into_iter().collect(), durable))
    }

    /// Removes a binding. It is no error if the binding is missing, even for another connection's exclusive queue.
    pub(in crate::broker) fn unbind(
        &mut self,
        unbind: &BindTo,
        destination: Destination,
        connection: ConnectionId,
    ) -> Result<Changes, AmqpError> {
        Self::check_not_default(unbind, &destination)?;
        let mut records = Vec::new();
        let binding =
            Binding { destination, routing_key: unbind.routing_key.clone(), arguments: unbind.arguments.clone() };
        let Some(entry) = self.exchanges.get_mut(unbind.source.as_bytes()) else { return Ok(Changes::Earlier) };
        if let Destination::Queue(queue) = &binding.destination
            && let Some(queue_entry) = self.queues.get(queue.as_bytes())
            && entry.exchange.bindings.contains(&binding)
        {
            queue_entry.check_owner(queue, self.vhost.as_str(), connection)?;
        }
        let durable = entry.durable;
        if entry.exchange.bindings.unbind(&binding) {
            self.bindings_count -= 1;
            if entry.exchange.bindings.kind() == ExchangeKind::Headers {
                self.headers_bindings -= 1;
            }
            self.record_unbinding(&unbind.source, durable, &binding, &mut records);
            self.auto_delete(&unbind.source, &mut records);
        }
        Ok(Changes::new(records, durable))
    }

    fn check_not_default(bind: &BindTo, destination: &Destination) -> Result<(), AmqpError> {
        let to_default = matches!(destination, Destination::Exchange(exchange) if exchange.is_empty());
        if bind.source.is_empty() || to_default {
            return Err(AmqpError::access_refused(ON_DEFAULT_EXCHANGE));
        }
        Ok(())
    }

    pub(super) fn record_unbinding(
        &self,
        source: &Name,
        source_durable: bool,
        binding: &Binding,
        records: &mut Vec<TopologyChange>,
    ) {
        let durable = source_durable
            && match &binding.destination {
                Destination::Queue(queue) => self.queues.get(queue.as_bytes()).is_some_and(|queue| queue.durable),
                Destination::Exchange(exchange) => {
                    self.exchanges.get(exchange.as_bytes()).is_none_or(|exchange| exchange.durable)
                }
            };
        if durable {
            records.push(TopologyChange::DeleteBinding(self.binding_record(source, binding)));
        }
    }

    pub(super) fn binding_record(&self, source: &Name, binding: &Binding) -> BindingRecord {
        let (destination_kind, destination) = match &binding.destination {
            Destination::Queue(queue) => (store::Destination::Queue, queue),
            Destination::Exchange(exchange) => (store::Destination::Exchange, exchange),
        };
        BindingRecord {
            vhost: self.vhost.clone(),
            source: source.clone(),
            destination_kind,
            destination: destination.clone(),
            routing_key: binding.routing_key.clone(),
            arguments: binding.arguments.encode(),
        }
    }
}
