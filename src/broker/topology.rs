//! Exchanges, queues and bindings of one vhost: the rules of their declaration, and the one truth about them.
//!
//! Methods change memory at once and return what the store has to be told.

mod census;

use super::cell::Cell;
use crate::model::arguments::{keys, type_name};
use crate::model::command::{BindTo, ExchangeDeclare, QueueDeclare};
use crate::model::names::exchange_in_vhost;
use crate::model::{AmqpError, Arguments, ConnectionId, Name, QueueId};
use crate::routing::{self, Binding, Bindings, Destination, ExchangeKind};
use crate::store::{self, BindingRecord, ExchangeRecord, TopologyChange};
use crate::wire::table::Table;
use ahash::{AHashMap, AHashSet};
use amq_protocol::types::AMQPValue;
use std::sync::Arc;

/// The exchanges of every vhost, beside the default one.
const PREDECLARED: [(&str, ExchangeKind, bool); 6] = [
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.topic", ExchangeKind::Topic, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
];
const RESERVED_PREFIX: &str = "amq.";
const ON_DEFAULT_EXCHANGE: &str = "operation not permitted on the default exchange";

/// What the store has to be told; empty where nothing durable is concerned.
pub(super) type Changes = Vec<TopologyChange>;

#[derive(Debug)]
struct ExchangeEntry {
    exchange: routing::Exchange,
    durable: bool,
    auto_delete: bool,
    internal: bool,
    arguments: Arguments,
    predeclared: bool,
}

/// A queue as the topology knows it.
#[derive(Clone, Debug)]
pub(super) struct QueueEntry {
    pub(super) cell: Arc<Cell>,
    pub(super) durable: bool,
    pub(super) auto_delete: bool,
    pub(super) arguments: Arguments,
}

/// All names of one vhost.
#[derive(Debug)]
pub(super) struct Topology {
    vhost: Name,
    exchanges: AHashMap<Name, ExchangeEntry>,
    queues: AHashMap<Name, QueueEntry>,
    /// Exchanges that may have bindings to a destination.
    sources: AHashMap<Destination, AHashSet<Name>>,
    /// Bindings of headers exchanges: while there are any, a route over several exchanges may depend on headers.
    headers_bindings: usize,
}

/// Where a message goes.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) cells: Vec<Arc<Cell>>,
    /// Whether exchange and routing key alone decide.
    pub(super) memoisable: bool,
}

impl Topology {
    pub(super) fn new(vhost: Name) -> Self {
        let exchanges = PREDECLARED
            .into_iter()
            .map(|(name, kind, internal)| {
                let exchange = routing::Exchange { bindings: Bindings::new(kind), alternate: None };
                let entry = ExchangeEntry {
                    exchange,
                    durable: true,
                    auto_delete: false,
                    internal,
                    arguments: Arguments::default(),
                    predeclared: true,
                };
                (Name::from(name), entry)
            })
            .collect();
        Self { vhost, exchanges, queues: AHashMap::new(), sources: AHashMap::new(), headers_bindings: 0 }
    }

    // ---- exchanges ---------------------------------------------------------------------------------------------

    pub(super) fn declare_exchange(&mut self, declare: &ExchangeDeclare) -> Result<Changes, AmqpError> {
        let (name, vhost) = (declare.exchange.as_str(), self.vhost.as_str());
        if declare.passive {
            if name.is_empty() {
                return Err(AmqpError::access_refused(ON_DEFAULT_EXCHANGE));
            }
            return match self.exchanges.contains_key(declare.exchange.as_bytes()) {
                true => Ok(Changes::new()),
                false => Err(AmqpError::no_exchange(name, vhost)),
            };
        }
        let Some(kind) = ExchangeKind::from_name(declare.kind.as_str()) else {
            return Err(AmqpError::precondition_failed(format!("unknown exchange type '{}'", declare.kind)));
        };
        if name.is_empty() {
            return Err(AmqpError::access_refused(ON_DEFAULT_EXCHANGE));
        }
        if let Some(entry) = self.exchanges.get(declare.exchange.as_bytes()) {
            return entry.check_equivalent(declare, kind, vhost).map(|()| Changes::new());
        }
        if name.starts_with(RESERVED_PREFIX) {
            return Err(reserved("exchange", name));
        }
        let alternate = match declare.arguments.get(keys::ALTERNATE_EXCHANGE) {
            None => None,
            Some(AMQPValue::LongString(text)) => Some(Name::from(String::from_utf8_lossy(text.as_bytes()).as_ref())),
            Some(other) => {
                let (of, at) = (type_name(other), exchange_in_vhost(name, vhost));
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
        };
        let changes =
            if declare.durable { vec![TopologyChange::PutExchange(entry.record(name, vhost))] } else { vec![] };
        self.exchanges.insert(declare.exchange.clone(), entry);
        Ok(changes)
    }

    pub(super) fn delete_exchange(&mut self, exchange: &Name, if_unused: bool) -> Result<Changes, AmqpError> {
        let (name, vhost) = (exchange.as_str(), self.vhost.as_str());
        if name.is_empty() {
            return Err(AmqpError::access_refused(ON_DEFAULT_EXCHANGE));
        }
        if name.starts_with(RESERVED_PREFIX) {
            let text = format!("deletion of system {} not allowed", exchange_in_vhost(name, vhost));
            return Err(AmqpError::access_refused(text));
        }
        let Some(entry) = self.exchanges.get(exchange.as_bytes()) else { return Ok(Changes::new()) };
        if if_unused && !entry.exchange.bindings.is_empty() {
            let text = format!("{} in use", exchange_in_vhost(name, vhost));
            return Err(AmqpError::precondition_failed(text));
        }
        let mut changes = Changes::new();
        self.remove_exchange(exchange, &mut changes);
        Ok(changes)
    }

    fn remove_exchange(&mut self, exchange: &Name, changes: &mut Changes) {
        let Some(entry) = self.exchanges.remove(exchange.as_bytes()) else { return };
        let outgoing: Vec<Binding> = entry.exchange.bindings.iter().collect();
        self.note_headers_bindings(&entry, outgoing.len(), false);
        for binding in outgoing {
            self.binding_gone(exchange, entry.durable, &binding, changes);
        }
        if entry.durable {
            changes.push(TopologyChange::DeleteExchange { vhost: self.vhost.clone(), name: exchange.clone() });
        }
        self.remove_destination(&Destination::Exchange(exchange.clone()), entry.durable, changes);
    }

    /// Ends all bindings that lead somewhere; auto-delete exchanges that lose their last go too.
    fn remove_destination(&mut self, destination: &Destination, durable: bool, changes: &mut Changes) {
        for source in self.sources.remove(destination).unwrap_or_default() {
            let Some(entry) = self.exchanges.get_mut(source.as_bytes()) else { continue };
            let removed = entry.exchange.bindings.remove_destination(destination);
            let (source_durable, kind) = (entry.durable, entry.exchange.bindings.kind());
            if kind == ExchangeKind::Headers {
                self.headers_bindings -= removed.len();
            }
            if source_durable && durable {
                let record = |binding: &Binding| self.binding_record(&source, binding);
                let deleted: Vec<_> = removed.iter().map(record).map(TopologyChange::DeleteBinding).collect();
                changes.extend(deleted);
            }
            if !removed.is_empty() {
                self.auto_delete(&source, changes);
            }
        }
    }

    /// An exchange lost a binding.
    fn auto_delete(&mut self, source: &Name, changes: &mut Changes) {
        let unused = self
            .exchanges
            .get(source.as_bytes())
            .is_some_and(|entry| entry.auto_delete && entry.exchange.bindings.is_empty());
        if unused {
            self.remove_exchange(source, changes);
        }
    }

    fn note_headers_bindings(&mut self, entry: &ExchangeEntry, count: usize, added: bool) {
        if entry.exchange.bindings.kind() == ExchangeKind::Headers {
            if added { self.headers_bindings += count } else { self.headers_bindings -= count }
        }
    }

    // ---- bindings ----------------------------------------------------------------------------------------------

    pub(super) fn bind(&mut self, bind: &BindTo, destination: Destination) -> Result<Changes, AmqpError> {
        let vhost = self.vhost.as_str();
        self.check_not_default(bind, &destination)?;
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
            return Ok(Changes::new());
        }
        if entry.exchange.bindings.kind() == ExchangeKind::Headers {
            self.headers_bindings += 1;
        }
        self.sources.entry(destination).or_default().insert(bind.source.clone());
        Ok(record.map(TopologyChange::PutBinding).into_iter().collect())
    }

    /// Ends a binding; one that is not there is no error, not even at another connection's exclusive queue.
    pub(super) fn unbind(
        &mut self,
        unbind: &BindTo,
        destination: Destination,
        connection: ConnectionId,
    ) -> Result<Changes, AmqpError> {
        self.check_not_default(unbind, &destination)?;
        let mut changes = Changes::new();
        let binding =
            Binding { destination, routing_key: unbind.routing_key.clone(), arguments: unbind.arguments.clone() };
        let Some(entry) = self.exchanges.get_mut(unbind.source.as_bytes()) else { return Ok(changes) };
        if let Destination::Queue(queue) = &binding.destination
            && let Some(queue_entry) = self.queues.get(queue.as_bytes())
            && entry.exchange.bindings.contains(&binding)
        {
            queue_entry.check_owner(queue, self.vhost.as_str(), connection)?;
        }
        if entry.exchange.bindings.unbind(&binding) {
            let durable = entry.durable;
            if entry.exchange.bindings.kind() == ExchangeKind::Headers {
                self.headers_bindings -= 1;
            }
            self.binding_gone(&unbind.source, durable, &binding, &mut changes);
            self.auto_delete(&unbind.source, &mut changes);
        }
        Ok(changes)
    }

    fn check_not_default(&self, bind: &BindTo, destination: &Destination) -> Result<(), AmqpError> {
        let to_default = matches!(destination, Destination::Exchange(exchange) if exchange.is_empty());
        if bind.source.is_empty() || to_default {
            return Err(AmqpError::access_refused(ON_DEFAULT_EXCHANGE));
        }
        Ok(())
    }

    fn binding_gone(&self, source: &Name, source_durable: bool, binding: &Binding, changes: &mut Changes) {
        let durable = source_durable
            && match &binding.destination {
                Destination::Queue(queue) => self.queues.get(queue.as_bytes()).is_some_and(|queue| queue.durable),
                Destination::Exchange(exchange) => {
                    self.exchanges.get(exchange.as_bytes()).is_none_or(|exchange| exchange.durable)
                }
            };
        if durable {
            changes.push(TopologyChange::DeleteBinding(self.binding_record(source, binding)));
        }
    }

    fn binding_record(&self, source: &Name, binding: &Binding) -> BindingRecord {
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

    // ---- queues ------------------------------------------------------------------------------------------------

    pub(super) fn queue(&self, name: &[u8]) -> Option<&QueueEntry> {
        self.queues.get(name)
    }

    /// The queue of that name, if this connection may use it: missing is 404, another's exclusive one is 405.
    pub(super) fn usable(&self, name: &Name, connection: ConnectionId) -> Result<&QueueEntry, AmqpError> {
        let vhost = self.vhost.as_str();
        let entry = self.queues.get(name.as_bytes()).ok_or_else(|| AmqpError::no_queue(name.as_str(), vhost))?;
        entry.check_owner(name, vhost, connection)?;
        Ok(entry)
    }

    /// Whether a name may be given to a new queue by a client.
    pub(super) fn check_queue_name(name: &str) -> Result<(), AmqpError> {
        if name.starts_with(RESERVED_PREFIX) { Err(reserved("queue", name)) } else { Ok(()) }
    }

    pub(super) fn insert_queue(&mut self, name: Name, entry: QueueEntry) {
        self.queues.insert(name, entry);
    }

    /// Takes a queue out, with its bindings. None when it is not there, or there is another of that name by now.
    pub(super) fn remove_queue(&mut self, name: &Name, id: QueueId) -> Option<Changes> {
        if self.queues.get(name.as_bytes())?.cell.id() != id {
            return None;
        }
        let entry = self.queues.remove(name.as_bytes())?;
        let mut changes = Changes::new();
        self.remove_destination(&Destination::Queue(name.clone()), entry.durable, &mut changes);
        if entry.durable {
            changes.push(TopologyChange::DeleteQueue(id));
        }
        Some(changes)
    }

    // ---- routing -----------------------------------------------------------------------------------------------

    /// Where a message to a named exchange goes.
    pub(super) fn route(
        &self,
        exchange: &[u8],
        routing_key: &[u8],
        headers: Option<Table<'_>>,
    ) -> Result<Route, AmqpError> {
        let Some(entry) = self.exchanges.get(exchange) else {
            let name = String::from_utf8_lossy(exchange);
            return Err(AmqpError::no_exchange(&name, self.vhost.as_str()));
        };
        if entry.internal {
            let name = String::from_utf8_lossy(exchange);
            let text = format!("cannot publish to internal {}", exchange_in_vhost(&name, self.vhost.as_str()));
            return Err(AmqpError::access_refused(text));
        }
        Ok(self.route_inside(exchange, routing_key, headers))
    }

    /// As `route`, for the broker itself: internal exchanges are open to it, and a missing one leads nowhere.
    pub(super) fn route_inside(&self, exchange: &[u8], routing_key: &[u8], headers: Option<Table<'_>>) -> Route {
        if exchange.is_empty() {
            let cells = self.queues.get(routing_key).map(|queue| Arc::clone(&queue.cell)).into_iter().collect();
            return Route { cells, memoisable: false };
        }
        let lookup = |name: &[u8]| self.exchanges.get(name).map(|entry| &entry.exchange);
        let queues = routing::route(exchange, routing_key, headers, lookup);
        let cells = queues
            .iter()
            .filter_map(|queue| self.queues.get(queue.as_bytes()))
            .map(|queue| Arc::clone(&queue.cell))
            .collect();
        let memoisable = self.headers_bindings == 0
            || self.exchanges.get(exchange).is_some_and(|entry| {
                entry.exchange.bindings.kind() != ExchangeKind::Headers && entry.exchange.alternate.is_none()
            }) && !self.sources.keys().any(|destination| matches!(destination, Destination::Exchange(_)));
        Route { cells, memoisable }
    }

    // ---- recovery ----------------------------------------------------------------------------------------------

    pub(super) fn recover_exchange(&mut self, record: &ExchangeRecord, arguments: Arguments) -> Result<(), AmqpError> {
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

impl ExchangeEntry {
    fn record(&self, name: &str, vhost: &str) -> ExchangeRecord {
        ExchangeRecord {
            vhost: Name::from(vhost),
            name: Name::from(name),
            kind: self.exchange.bindings.kind().name().to_owned(),
            auto_delete: self.auto_delete,
            internal: self.internal,
            arguments: self.arguments.encode(),
        }
    }

    fn check_equivalent(&self, declare: &ExchangeDeclare, kind: ExchangeKind, vhost: &str) -> Result<(), AmqpError> {
        let at = || exchange_in_vhost(declare.exchange.as_str(), vhost);
        let differs = |arg: &str, received: String, current: String| {
            let text = format!("inequivalent arg '{arg}' for {}: received {received} but current is {current}", at());
            Err(AmqpError::precondition_failed(text))
        };
        let known = self.exchange.bindings.kind();
        if kind != known {
            return differs("type", format!("'{}'", kind.name()), format!("'{}'", known.name()));
        }
        let flags = [
            ("durable", declare.durable, self.durable),
            ("auto_delete", declare.auto_delete, self.auto_delete),
            ("internal", declare.internal, self.internal),
        ];
        for (arg, received, current) in flags {
            if received != current {
                return differs(arg, format!("'{received}'"), format!("'{current}'"));
            }
        }
        if self.predeclared {
            return Ok(());
        }
        let name = declare.exchange.as_str();
        super::queue_arguments::check_equivalent_argument(
            keys::ALTERNATE_EXCHANGE,
            &declare.arguments,
            &self.arguments,
            &exchange_in_vhost(name, vhost),
        )
    }
}

impl QueueEntry {
    pub(super) fn check_owner(&self, name: &Name, vhost: &str, connection: ConnectionId) -> Result<(), AmqpError> {
        match self.cell.owner() {
            Some(owner) if owner != connection => Err(AmqpError::exclusive_queue(name.as_str(), vhost)),
            _ => Ok(()),
        }
    }

    /// Whether a declaration of this queue means the queue as it is.
    pub(super) fn check_equivalent(&self, declare: &QueueDeclare, vhost: &str) -> Result<(), AmqpError> {
        let name = declare.queue.as_str();
        if declare.exclusive != self.cell.owner().is_some() {
            return Err(AmqpError::exclusive_queue(name, vhost));
        }
        let at = crate::model::names::queue_in_vhost(name, vhost);
        // An exclusive queue is stored as not durable, whatever was asked for.
        let flags = [
            ("durable", declare.durable && !declare.exclusive, self.durable),
            ("auto_delete", declare.auto_delete, self.auto_delete),
        ];
        for (arg, received, current) in flags {
            if received != current {
                let text =
                    format!("inequivalent arg '{arg}' for {at}: received '{received}' but current is '{current}'");
                return Err(AmqpError::precondition_failed(text));
            }
        }
        super::queue_arguments::check_equivalent(&declare.arguments, &self.arguments, &at)
    }
}

fn reserved(what: &str, name: &str) -> AmqpError {
    AmqpError::access_refused(format!("{what} name '{name}' contains reserved prefix 'amq.*'"))
}
