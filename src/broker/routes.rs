//! Where a message goes: a memo of the connection answers, or else the vhost's topology.

use super::cell::Cell;
use super::object_metrics::{ExchangeCounts, SharedExchangeCounts};
use super::vhost::Vhost;
use crate::model::{AmqpError, Message};
use crate::wire::writer::SHORTSTR_BYTES_MAX;
use ahash::AHashMap;
use smallvec::SmallVec;
use std::sync::Arc;

type Targets = SmallVec<[Arc<Cell>; 1]>;

/// Routes remembered per connection; beyond it they are all forgotten, and found again.
const MEMOS_MAX: usize = 1024;

/// Where messages go, as far as that is known.
#[derive(Debug, Default)]
pub(super) struct Routes {
    memos: AHashMap<Vec<u8>, Memo>,
    last: Option<Box<Last>>,
    /// The targets of a message whose route is not remembered.
    once: Targets,
    /// Of messages to the exchange of `last` since the last fold. Not in `Last`, which is only read as a rule.
    counts: ExchangeCounts,
}

#[derive(Debug)]
struct Memo {
    epoch: u64,
    targets: Targets,
    exchange_counts: Arc<SharedExchangeCounts>,
}

/// The route of the message before, with which every message is compared. It has cache lines of its own: as a vector from the
/// allocator the key lay beside what is written all the time, and comparing took 12 % of all that a message of 16 bytes costs.
#[derive(Debug)]
#[repr(align(64))]
struct Last {
    exchange: ShortStr,
    routing_key: ShortStr,
    epoch: u64,
    targets: Targets,
    exchange_counts: Arc<SharedExchangeCounts>,
}

/// At most 255 bytes, in place.
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

/// What a remembered route takes, about.
const MEMO_BYTES: usize = size_of::<(Vec<u8>, Memo)>() + 64;

impl Routes {
    /// What the memory of routes takes, about.
    pub(super) fn held_bytes(&self) -> usize {
        self.memos.capacity() * MEMO_BYTES + self.last.as_ref().map_or(0, |_| size_of::<Last>())
    }

    /// The queues that a message goes to now.
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
                    let Found { targets, exchange_counts, memoisable } = find(vhost, message)?;
                    if !memoisable {
                        exchange_counts.add(ExchangeCounts { published: 1, routed: targets.len() as u64 });
                        self.once = targets;
                        return Ok(&self.once);
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
            let last = Last { exchange, routing_key, epoch, targets, exchange_counts };
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

    /// Adds to the exchange of the last message what was published to it since the last call.
    pub(super) fn fold_counts(&mut self) {
        if self.counts.published > 0
            && let Some(last) = &self.last
        {
            last.exchange_counts.add(std::mem::take(&mut self.counts));
        }
    }
}

fn find(vhost: &Vhost, message: &Message) -> Result<Found, AmqpError> {
    if message.exchange().is_empty() {
        let exchange_counts = Arc::clone(vhost.default_exchange_counts());
        // A miss is not remembered: a queue that appears does not move the epoch.
        return Ok(match vhost.queue(message.routing_key()) {
            Some(cell) => Found { targets: SmallVec::from_elem(cell, 1), exchange_counts, memoisable: true },
            None => Found { targets: Targets::new(), exchange_counts, memoisable: false },
        });
    }
    let headers = if message.has_headers() { message.properties().headers() } else { None };
    let (route, exchange_counts) = vhost.topology().route(message.exchange(), message.routing_key(), headers)?;
    Ok(Found { targets: Targets::from_vec(route.cells), exchange_counts, memoisable: route.memoisable })
}

/// Where a message goes, and whether exchange and routing key alone decide that.
struct Found {
    targets: Targets,
    exchange_counts: Arc<SharedExchangeCounts>,
    memoisable: bool,
}
