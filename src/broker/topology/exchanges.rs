//! Exchanges: declaration, deletion, and auto-deletion with the last binding.

use super::{Changes, ON_DEFAULT_EXCHANGE, RESERVED_PREFIX, Topology, reserved};
use crate::broker::object_metrics::{ExchangeCounts, SharedExchangeCounts};
use crate::model::arguments::keys;
use crate::model::command::ExchangeDeclare;
use crate::model::names::exchange_in_vhost;
use crate::model::{AmqpError, Arguments, Name};
use crate::routing::{self, Binding, Bindings, Destination, ExchangeKind};
use crate::store::{ExchangeRecord, TopologyChange};
use crate::wire::table::Value;
use std::sync::Arc;

/// The predeclared exchanges of every vhost, besides the default one.
const PREDECLARED: [(&str, ExchangeKind, bool); 6] = [
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.topic", ExchangeKind::Topic, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
];

#[derive(Debug)]
pub(super) struct ExchangeEntry {
    pub(super) exchange: routing::Exchange,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) internal: bool,
    pub(super) arguments: Arguments,
    pub(super) predeclared: bool,
    pub(super) counts: Arc<SharedExchangeCounts>,
}

/// The predeclared exchanges of a new vhost.
pub(super) fn predeclared() -> impl Iterator<Item = (Name, ExchangeEntry)> {
    PREDECLARED.into_iter().map(|(name, kind, internal)| {
        let exchange = routing::Exchange { bindings: Bindings::new(kind), alternate: None };
        let entry = ExchangeEntry {
            exchange,
            durable: true,
            auto_delete: false,
            internal,
            arguments: Arguments::default(),
            predeclared: true,
            counts: Arc::default(),
        };
        (Name::from(name), entry)
    })
}

impl Topology {
    pub(in crate::broker) fn declare_exchange(&mut self, declare: &ExchangeDeclare) -> Result<Changes, AmqpError> {
        let (name, vhost) = (declare.exchange.as_str(), self.vhost.as_str());
        if declare.passive {
            if name.is_empty() {
                return Err(AmqpError::access_refused(ON_DEFAULT_EXCHANGE));
            }
            let entry = self.exchanges.get(declare.exchange.as_bytes());
            return entry.map(ExchangeEntry::existing).ok_or_else(|| AmqpError::no_exchange(name, vhost));
        }
        let Some(kind) = ExchangeKind::from_name(declare.kind.as_str()) else {
            return Err(AmqpError::precondition_failed(format!("unknown exchange type '{}'", declare.kind)));
        };
        if name.is_empty() {
            return Err(AmqpError::access_refused(ON_DEFAULT_EXCHANGE));
        }
        if let Some(entry) = self.exchanges.get(declare.exchange.as_bytes()) {
            return entry.check_equivalent(declare, kind, vhost).map(|()| entry.existing());
        }
        if name.starts_with(RESERVED_PREFIX) {
            return Err(reserved("exchange", name));
        }
        let alternate = match declare.arguments.get(keys::ALTERNATE_EXCHANGE) {
            None => None,
            Some(Value::LongString(text)) => Some(Name::from(String::from_utf8_lossy(text).as_ref())),
            Some(other) => {
                let (of, at) = (other.type_name(), exchange_in_vhost(name, vhost));
                let text = format!("invalid type '{of}' for arg '{}' in {at}", keys::ALTERNATE_EXCHANGE);
                return Err(AmqpError::precondition_failed(text));
            }
        };
        let entry = ExchangeEntry {
            exchange: routing::Exchange { bindings: Bindings::new(kind), alternate },
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            arguments: declare.arguments.clone(),
            predeclared: false,
            counts: Arc::default(),
        };
        let record = declare.durable.then(|| TopologyChange::PutExchange(entry.record(name, vhost)));
        self.exchanges.insert(declare.exchange.clone(), entry);
        Ok(Changes::new(record.into_iter().collect(), declare.durable))
    }

    pub(in crate::broker) fn delete_exchange(
        &mut self,
        exchange: &Name,
        if_unused: bool,
    ) -> Result<Changes, AmqpError> {
        let (name, vhost) = (exchange.as_str(), self.vhost.as_str());
        if name.is_empty() {
            return Err(AmqpError::access_refused(ON_DEFAULT_EXCHANGE));
        }
        if name.starts_with(RESERVED_PREFIX) {
            let text = format!("deletion of system {} not allowed", exchange_in_vhost(name, vhost));
            return Err(AmqpError::access_refused(text));
        }
        let Some(entry) = self.exchanges.get(exchange.as_bytes()) else { return Ok(Changes::Earlier) };
        if if_unused && !entry.exchange.bindings.is_empty() {
            let text = format!("{} in use", exchange_in_vhost(name, vhost));
            return Err(AmqpError::precondition_failed(text));
        }
        let (durable, mut records) = (entry.durable, Vec::new());
        self.remove_exchange(exchange, &mut records);
        Ok(Changes::new(records, durable))
    }

    fn remove_exchange(&mut self, exchange: &Name, records: &mut Vec<TopologyChange>) {
        let Some(entry) = self.exchanges.remove(exchange.as_bytes()) else { return };
        let outgoing: Vec<Binding> = entry.exchange.bindings.iter().collect();
        self.bindings_count -= outgoing.len();
        if entry.exchange.bindings.kind() == ExchangeKind::Headers {
            self.headers_bindings -= outgoing.len();
        }
        for binding in outgoing {
            self.record_unbinding(exchange, entry.durable, &binding, records);
        }
        if entry.durable {
            records.push(TopologyChange::DeleteExchange { vhost: self.vhost.clone(), name: exchange.clone() });
        }
        self.remove_destination(&Destination::Exchange(exchange.clone()), entry.durable, records);
    }

    /// Removes all bindings to a destination, and deletes auto-delete exchanges that lose their last binding.
    pub(super) fn remove_destination(
        &mut self,
        destination: &Destination,
        durable: bool,
        records: &mut Vec<TopologyChange>,
    ) {
        for source in self.sources.remove(destination).unwrap_or_default() {
            let Some(entry) = self.exchanges.get_mut(source.as_bytes()) else { continue };
            let removed = entry.exchange.bindings.remove_destination(destination);
            let (source_durable, kind) = (entry.durable, entry.exchange.bindings.kind());
            self.bindings_count -= removed.len();
            if kind == ExchangeKind::Headers {
                self.headers_bindings -= removed.len();
            }
            if source_durable && durable {
                let record = |binding: &Binding| self.binding_record(&source, binding);
                let deleted: Vec<_> = removed.iter().map(record).map(TopologyChange::DeleteBinding).collect();
                records.extend(deleted);
            }
            if !removed.is_empty() {
                self.auto_delete(&source, records);
            }
        }
    }

    /// Deletes an exchange that has lost a binding, if it is auto-delete and has no other binding.
    pub(super) fn auto_delete(&mut self, source: &Name, records: &mut Vec<TopologyChange>) {
        let unused = self
            .exchanges
            .get(source.as_bytes())
            .is_some_and(|entry| entry.auto_delete && entry.exchange.bindings.is_empty());
        if unused {
            self.remove_exchange(source, records);
        }
    }

    pub(in crate::broker) fn recover_exchange(
        &mut self,
        record: &ExchangeRecord,
        arguments: Arguments,
    ) -> Result<(), AmqpError> {
        let declare = ExchangeDeclare {
            exchange: record.name.clone(),
            kind: Name::from(record.kind.as_str()),
            passive: false,
            durable: true,
            auto_delete: record.auto_delete,
            internal: record.internal,
            arguments,
        };
        self.declare_exchange(&declare).map(|_| ())
    }
}

/// An exchange as listings show it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExchangeSnapshot {
    pub vhost: Name,
    /// Empty for the default exchange.
    pub name: Name,
    pub kind: ExchangeKind,
    pub durable: bool,
    pub auto_delete: bool,
    pub internal: bool,
    /// Counts of messages to the exchange.
    pub counts: ExchangeCounts,
}

impl ExchangeEntry {
    pub(super) fn snapshot(&self, vhost: &Name, name: &Name) -> ExchangeSnapshot {
        ExchangeSnapshot {
            vhost: vhost.clone(),
            name: name.clone(),
            kind: self.exchange.bindings.kind(),
            durable: self.durable,
            auto_delete: self.auto_delete,
            internal: self.internal,
            counts: self.counts.read(),
        }
    }

    /// The change of a declaration that finds this exchange.
    fn existing(&self) -> Changes {
        Changes::existing(self.durable && !self.predeclared)
    }

    pub(super) fn record(&self, name: &str, vhost: &str) -> ExchangeRecord {
        ExchangeRecord {
            vhost: Name::from(vhost),
            name: Name::from(name),
            kind: self.exchange.bindings.kind().name().to_owned(),
            auto_delete: self.auto_delete,
            internal: self.internal,
            arguments: self.arguments.encode(),
        }
    }
}
