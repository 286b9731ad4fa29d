//! Finds the queues of a message, from the connection's remembered routes or from the vhost's topology.

use super::cell::Cell;
use super::object_metrics::{ExchangeCounts, SharedExchangeCounts};
use super::vhost::Vhost;
use crate::model::{AmqpError, Message, QueueId};
use crate::wire::writer::SHORTSTR_BYTES_MAX;
use ahash::AHashMap;
use smallvec::SmallVec;
use std::sync::Arc;

type Targets = SmallVec<[Arc<Cell>; 1]>;

/// Most routes that a connection remembers. Beyond it, all are forgotten, and found again when needed.
const MEMOS_MAX: usize = 1024;

/// A connection's remembered routes. Each is valid for one epoch of the vhost.
#[derive(Debug, Default)]
pub(super) struct Routes {
    memos: AHashMap<Vec<u8>, Memo>,
    last: Option<Box<LastRoute>>,
    /// The targets of the last message whose route may not be remembered.
    unremembered: Targets,
    /// Counts of the exchange of `last` since the last fold. They are not in `LastRoute`, which is rarely written.
    counts: ExchangeCounts,
}

#[derive(Debug)]
struct Memo {
    epoch: u64,
    targets: Targets,
    exchange_counts: Arc<SharedExchangeCounts>,
}

/// The route of the previous message, with which every message is compared. It has its own cache lines: when the key
/// was a vector from the allocator, it lay beside memory that is written often, and comparing took 12 % of the time of
/// a 16-byte message.
#[derive(Debug)]
#[repr(align(64))]
struct LastRoute {
    exchange: ShortStr,
    routing_key: ShortStr,
    epoch: u64,
    targets: Targets,
    exchange_counts: Arc<SharedExchangeCounts>,
}

/// A string of at most 255 bytes, stored inline.
#[derive(Debug)]
struct ShortStr {
    len: u8,
    bytes: [u8; SHORTSTR_BYTES_MAX],
}

impl ShortStr {
    fn new(from: &[u8]) -> Self {
        let mut bytes = [0; SHORTSTR_BYTES_MAX];
        bytes[..from.len()].copy_from_slice(from);
        Self { len: from.len() as u8, bytes }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Estimated bytes of memory of one remembered route.
const MEMO_BYTES: usize = size_of::<(Vec<u8>, Memo)>() + 64;

impl Routes {
    /// Estimated bytes of memory of all remembered routes.
    pub(super) fn held_bytes(&self) -> usize {
        self.memos.capacity() * MEMO_BYTES + self.last.as_ref().map_or(0, |_| size_of::<LastRoute>())
    }

    /// The first queue of the last message.
    pub(super) fn last_target(&self) -> Option<QueueId> {
        Some(self.last.as_ref()?.targets.first()?.id())
    }

    /// The queues to which a message is routed now.
    pub(super) fn targets(&mut self, vhost: &Vhost, message: &Message) -> Result<&[Arc<Cell>], AmqpError> {
        let (exchange, routing_key) = (message.exchange(), message.routing_key());
        let epoch = vhost.epoch();
        let is_last = self.last.as_ref().is_some_and(|last| {
            last.epoch == epoch && last.routing_key.as_bytes() == routing_key && last.exchange.as_bytes() == exchange
        });
        if !is_last {
            self.fold_counts();
            let mut name = Vec::with_capacity(exchange.len() + routing_key.len() + 1);
            name.push(exchange.len() as u8);
            name.extend_from_slice(exchange);
            name.extend_from_slice(routing_key);
            let (targets, exchange_counts) = match self.memos.get(&name) {
                Some(memo) if memo.epoch == epoch => (memo.targets.clone(), Arc::clone(&memo.exchange_counts)),
                _ => {
                    let RouteLookup { targets, exchange_counts, memoisable } = look_up(vhost, message)?;
                    if !memoisable {
                        exchange_counts.add(ExchangeCounts { published: 1, routed: targets.len() as u64 });
                        self.unremembered = targets;
                        return Ok(&self.unremembered);
                    }
                    if self.memos.len() >= MEMOS_MAX {
                        self.memos.clear();
                    }
                    let memo = Memo { epoch, targets: targets.clone(), exchange_counts: Arc::clone(&exchange_counts) };
                    self.memos.insert(name, memo);
                    (targets, exchange_counts)
                }
            };
            let (exchange, routing_key) = (ShortStr::new(exchange), ShortStr::new(routing_key));
            let last = LastRoute { exchange, routing_key, epoch, targets, exchange_counts };
            match &mut self.last {
                Some(place) => **place = last,
                None => self.last = Some(Box::new(last)),
            }
        }
        let targets: &[Arc<Cell>] = self.last.as_ref().map_or(&[], |last| &last.targets);
        self.counts.published += 1;
        self.counts.routed += targets.len() as u64;
        Ok(targets)
    }

    /// Adds the counts since the last call to the exchange of the last message.
    pub(super) fn fold_counts(&mut self) {
        if self.counts.published > 0
            && let Some(last) = &self.last
        {
            last.exchange_counts.add(std::mem::take(&mut self.counts));
        }
    }
}

fn look_up(vhost: &Vhost, message: &Message) -> Result<RouteLookup, AmqpError> {
    if message.exchange().is_empty() {
        let exchange_counts = Arc::clone(vhost.default_exchange_counts());
        // A miss is not remembered, since declaring a queue does not change the epoch.
        return Ok(match vhost.queue(message.routing_key()) {
            Some(cell) => RouteLookup { targets: SmallVec::from_elem(cell, 1), exchange_counts, memoisable: true },
            None => RouteLookup { targets: Targets::new(), exchange_counts, memoisable: false },
        });
    }
    let headers = if message.has_headers() { message.properties().headers() } else { None };
    let (route, exchange_counts) = vhost.topology().route(message.exchange(), message.routing_key(), headers)?;
    Ok(RouteLookup { targets: Targets::from_vec(route.cells), exchange_counts, memoisable: route.memoisable })
}

/// The result of looking up a route.
struct RouteLookup {
    targets: Targets,
    exchange_counts: Arc<SharedExchangeCounts>,
    /// Whether exchange and routing key alone decide, so that the route may be remembered.
    memoisable: bool,
}
