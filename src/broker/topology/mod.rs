//! The exchanges, queues and bindings of one vhost, and the rules of their declaration.
//!
//! Methods change memory and return the changes for the store, which are appended to the journal under the same lock.
//!
//! - `exchanges`, `bindings`, `queues`: the tables of a virtual host, with declare, bind, unbind and delete.
//! - `equivalence`: checks whether a declaration matches the existing exchange or queue. `census`: limits, and memory.
//! - `journal`: keeps the order in which changes reach the store, and the callbacks that wait for them.

mod bindings;
mod census;
mod equivalence;
mod exchanges;
mod journal;
mod queues;

pub(crate) use exchanges::ExchangeSnapshot;
pub(super) use journal::{ChangeNo, Changes, Journal, PendingJournals, Progress};
pub(super) use queues::QueueEntry;

use super::cell::Cell;
use super::object_metrics::SharedExchangeCounts;
use crate::model::names::exchange_in_vhost;
use crate::model::{AmqpError, Name};
use crate::routing::{self, Destination, ExchangeKind};
use crate::wire::table::Table;
use ahash::{AHashMap, AHashSet};
use exchanges::ExchangeEntry;
use std::sync::Arc;

const RESERVED_PREFIX: &str = "amq.";
const ON_DEFAULT_EXCHANGE: &str = "operation not permitted on the default exchange";

/// The exchanges, queues and bindings of one vhost.
#[derive(Debug)]
pub(super) struct Topology {
    vhost: Name,
    exchanges: AHashMap<Name, ExchangeEntry>,
    queues: AHashMap<Name, QueueEntry>,
    /// Exchanges that may have bindings to a destination.
    sources: AHashMap<Destination, AHashSet<Name>>,
    /// Number of bindings of headers exchanges. While there are any, a route over several exchanges may depend on
    /// headers.
    headers_bindings: usize,
    /// Number of bindings of all exchanges.
    bindings_count: usize,
    journal: Journal,
}

/// The queues of a message.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) cells: Vec<Arc<Cell>>,
    /// Whether exchange and routing key alone decide, so that the route may be remembered.
    pub(super) memoisable: bool,
}

impl Topology {
    pub(super) fn new(vhost: Name, pending_journals: PendingJournals) -> Self {
        Self {
            vhost,
            exchanges: exchanges::predeclared().collect(),
            queues: AHashMap::new(),
            sources: AHashMap::new(),
            headers_bindings: 0,
            bindings_count: 0,
            journal: Journal::new(pending_journals),
        }
    }

    /// The journal of changes for the store.
    pub(super) fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// All exchanges but the default one, in no order.
    pub(super) fn exchange_snapshots(&self) -> impl Iterator<Item = ExchangeSnapshot> {
        self.exchanges.iter().map(|(name, entry)| entry.snapshot(&self.vhost, name))
    }

    /// The queues of a message to a named exchange, and the counts of that exchange.
    pub(super) fn route(
        &self,
        exchange: &[u8],
        routing_key: &[u8],
        headers: Option<Table<'_>>,
    ) -> Result<(Route, Arc<SharedExchangeCounts>), AmqpError> {
        let Some(entry) = self.exchanges.get(exchange) else {
            let name = String::from_utf8_lossy(exchange);
            return Err(AmqpError::no_exchange(&name, self.vhost.as_str()));
        };
        if entry.internal {
            let name = String::from_utf8_lossy(exchange);
            let text = format!("cannot publish to internal {}", exchange_in_vhost(&name, self.vhost.as_str()));
            return Err(AmqpError::access_refused(text));
        }
        Ok((self.route_inside(exchange, routing_key, headers), Arc::clone(&entry.counts)))
    }

    /// As [`route`](Self::route), for messages of the broker itself: it may use internal exchanges, and a missing
    /// exchange routes to no queue.
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
}

/// All durable records, as text, for tests to compare.
#[cfg(test)]
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records(pub(super) std::collections::BTreeSet<String>);

#[cfg(test)]
impl Records {
    pub(super) fn of(recovered: &crate::store::RecoveredState) -> Self {
        let exchanges = recovered.exchanges.iter().map(|exchange| format!("{exchange:?}"));
        let queues = recovered.queues.iter().map(|queue| format!("queue {} {:?}", queue.name, queue.id));
        let bindings = recovered.bindings.iter().map(|binding| format!("{binding:?}"));
        Self(exchanges.chain(queues).chain(bindings).collect())
    }
}

#[cfg(test)]
impl Topology {
    pub(super) fn durable_records(&self) -> Records {
        let mut records = std::collections::BTreeSet::new();
        for (name, entry) in self.exchanges.iter().filter(|(_, entry)| entry.durable) {
            if !entry.predeclared {
                records.insert(format!("{:?}", entry.record(name.as_str(), self.vhost.as_str())));
            }
            for binding in entry.exchange.bindings.iter() {
                let is_durable = match &binding.destination {
                    Destination::Queue(queue) => self.queues.get(queue.as_bytes()).is_some_and(|queue| queue.durable),
                    Destination::Exchange(to) => self.exchanges.get(to.as_bytes()).is_some_and(|to| to.durable),
                };
                if is_durable {
                    records.insert(format!("{:?}", self.binding_record(name, &binding)));
                }
            }
        }
        for (name, queue) in self.queues.iter().filter(|(_, queue)| queue.durable) {
            records.insert(format!("queue {name} {:?}", queue.cell.id()));
        }
        Records(records)
    }
}

fn reserved(what: &str, name: &str) -> AmqpError {
    AmqpError::access_refused(format!("{what} name '{name}' contains reserved prefix 'amq.*'"))
}
