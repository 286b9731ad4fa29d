//! Where a message goes: a memo of the connection answers, or else the vhost's topology.

use super::cell::Cell;
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
}

#[derive(Debug)]
struct Memo {
    epoch: u64,
    targets: Targets,
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
            let mut name = Vec::with_capacity(exchange.len() + routing_key.len() + 1);
            name.push(exchange.len() as u8);
            name.extend_from_slice(exchange);
            name.extend_from_slice(routing_key);
            let targets = match self.memos.get(&name) {
                Some(memo) if memo.epoch == epoch => memo.targets.clone(),
                _ => match find(vhost, message)? {
                    Found::Once(targets) => {
                        self.once = targets;
                        return Ok(&self.once);
                    }
                    Found::Memoisable(targets) => {
                        if self.memos.len() >= MEMOS_MAX {
                            self.memos.clear();
                        }
                        self.memos.insert(name, Memo { epoch, targets: targets.clone() });
                        targets
                    }
                },
            };
            let (exchange, routing_key) = (ShortStr::new(exchange), ShortStr::new(routing_key));
            let last = Last { exchange, routing_key, epoch, targets };
            match &mut self.last {
                Some(place) => **place = last,
                None => self.last = Some(Box::new(last)),
            }
        }
        Ok(self.last.as_ref().map_or(&[], |last| &last.targets))
    }
}

fn find(vhost: &Vhost, message: &Message) -> Result<Found, AmqpError> {
    if message.exchange().is_empty() {
        // A miss is not remembered: a queue that appears does not move the epoch.
        return Ok(match vhost.queue(message.routing_key()) {
            Some(cell) => Found::Memoisable(SmallVec::from_elem(cell, 1)),
            None => Found::Once(Targets::new()),
        });
    }
    let headers = if message.has_headers() { message.properties().headers() } else { None };
    let route = vhost.topology().route(message.exchange(), message.routing_key(), headers)?;
    let targets = Targets::from_vec(route.cells);
    Ok(if route.memoisable { Found::Memoisable(targets) } else { Found::Once(targets) })
}

enum Found {
    Memoisable(Targets),
    Once(Targets),
}
