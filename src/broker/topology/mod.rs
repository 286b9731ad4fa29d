//! Exchanges, queues and bindings of one vhost: the rules of their declaration, and the one truth about them.
//!
//! Methods change memory at once and return what the store has to know of it; the journal takes that under the same lock.
//!
//! - `exchanges`, `bindings`, `queues`: the tables of a virtual host, with declare, bind, unbind and delete.
//! - `equivalence`: whether a declaration matches the existing exchange or queue. `census`: counts, and their limits.
//! - `journal`: the order in which changes reach the store, and what waits for them.

mod bindings;
mod census;
mod equivalence;
mod exchanges;
mod journal;
mod queues;

pub(crate) use exchanges::ExchangeSnapshot;
pub(super) use journal::{ChangeNo, Changes, Journal, Progress, Unhanded};
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
    /// Bindings of all exchanges.
    bindings_count: usize,
    journal: Journal,
}

/// Where a message goes.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) cells: Vec<Arc<Cell>>,
    /// Whether exchange and routing key alone decide.
    pub(super) memoisable: bool,
}

impl Topology {
    pub(super) fn new(vhost: Name, unhanded: Unhanded) -> Self {
        Self {
            vhost,
            exchanges: exchanges::predeclared().collect(),
            queues: AHashMap::new(),
            sources: AHashMap::new(),
            headers_bindings: 0,
            bindings_count: 0,
            journal: Journal::new(unhanded),
        }
    }

    /// What the store is to know of changes, in their order.
    pub(super) fn journal(&mut self) -> &mut Journal {
        &mut self.journal
    }

    /// All exchanges but the default one, in no order.
    pub(super) fn exchange_snapshots(&self) -> impl Iterator<Item = ExchangeSnapshot> {
        self.exchanges.iter().map(|(name, entry)| entry.snapshot(&self.vhost, name))
    }

    /// Where a message to a named exchange goes, and what counts the messages of that exchange.
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
}

/// Everything durable, as the store is to hold it: what tests compare.
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
