//! A message's way from a channel to the queues: a memo answers where, a batch per queue takes it there.

use super::cell::Cell;
use super::node::Broker;
use super::turns::TurnList;
use super::vhost::Vhost;
use crate::model::{AmqpError, Message, Now, Promise, QueueId};
use crate::queue::{Enqueue, QueueInput};
use ahash::AHashMap;
use smallvec::SmallVec;
use std::sync::Arc;

/// How many queues took a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routed {
    /// Each owes one promise.
    pub parts: u32,
}

type Targets = SmallVec<[Arc<Cell>; 1]>;

/// Routes remembered per connection; beyond it they are all forgotten, and found again.
const MEMOS_MAX: usize = 1024;
/// What a remembered route takes, about.
const MEMO_BYTES: usize = size_of::<(Vec<u8>, Memo)>() + 64;
/// Up to this many gathered batches are looked through one by one.
const BATCHES_COMPARED_MAX: usize = 8;
/// Room for a batch is made at once, as much as the largest of the read before took.
const ROOM_MAX: usize = 2048;

/// A connection's publishes: gathered per queue until the end of the read.
#[derive(Debug, Default)]
pub(super) struct Publisher {
    routes: Routes,
    gathered: Gathered,
}

/// Where messages go, as far as that is known.
#[derive(Debug, Default)]
struct Routes {
    memos: AHashMap<Vec<u8>, Memo>,
    last: Option<Last>,
    /// The targets of a message whose route is not remembered.
    once: Targets,
}

#[derive(Debug)]
struct Memo {
    epoch: u64,
    targets: Targets,
}

#[derive(Debug)]
struct Last {
    exchange: Vec<u8>,
    routing_key: Vec<u8>,
    epoch: u64,
    targets: Targets,
}

#[derive(Debug, Default)]
struct Gathered {
    batches: Vec<Batch>,
    by_queue: AHashMap<QueueId, usize>,
    /// Messages of the largest batch of the read before.
    room: usize,
}

#[derive(Debug)]
struct Batch {
    cell: Arc<Cell>,
    messages: Vec<Enqueue>,
}

impl Publisher {
    /// Adds a message to the batches of the queues that it goes to.
    pub(super) fn publish(
        &mut self,
        vhost: &Vhost,
        message: Message,
        promise: Option<Promise>,
    ) -> Result<Routed, AmqpError> {
        let targets = self.routes.targets(vhost, &message)?;
        if let [only] = targets {
            self.gathered.add(only, Enqueue { message, promise });
        } else {
            for cell in targets {
                self.gathered.add(cell, Enqueue { message: message.clone(), promise });
            }
        }
        Ok(Routed { parts: u32::try_from(targets.len()).unwrap_or(u32::MAX) })
    }

    /// Whether a message could be published: its exchange is there, and open to clients.
    pub(super) fn check(&mut self, vhost: &Vhost, message: &Message) -> Result<(), AmqpError> {
        self.routes.targets(vhost, message).map(|_| ())
    }

    /// What its memory of routes takes, about.
    pub(super) fn held_bytes(&self) -> usize {
        self.routes.memos.capacity() * MEMO_BYTES
    }

    /// What was gathered, per queue.
    pub(super) fn take_batches(&mut self) -> impl Iterator<Item = (Arc<Cell>, Vec<Enqueue>)> {
        let Gathered { batches, by_queue, room } = &mut self.gathered;
        by_queue.clear();
        *room = batches.iter().map(|batch| batch.messages.len()).max().unwrap_or(0);
        batches.drain(..).map(|Batch { cell, messages }| (cell, messages))
    }

    /// Hands the batches over and takes the turns.
    pub(super) fn flush(&mut self, broker: &Arc<Broker>, now: Now) {
        if self.gathered.batches.is_empty() {
            return;
        }
        let mut list = TurnList::new();
        for (cell, messages) in self.take_batches() {
            cell.push(QueueInput::Publish(messages));
            list.push_back(cell);
        }
        broker.take_listed(list, now);
    }
}

impl Gathered {
    fn add(&mut self, cell: &Arc<Cell>, message: Enqueue) {
        let at = if self.batches.len() <= BATCHES_COMPARED_MAX {
            self.batches.iter().rposition(|batch| Arc::ptr_eq(&batch.cell, cell))
        } else {
            self.by_queue.get(&cell.id()).copied()
        };
        if let Some(at) = at {
            self.batches[at].messages.push(message);
            return;
        }
        // A read that feeds several queues divides its messages among them.
        let mut messages = Vec::with_capacity(if self.batches.is_empty() { self.room.clamp(1, ROOM_MAX) } else { 1 });
        messages.push(message);
        self.by_queue.insert(cell.id(), self.batches.len());
        self.batches.push(Batch { cell: Arc::clone(cell), messages });
    }
}

impl Routes {
    fn targets(&mut self, vhost: &Vhost, message: &Message) -> Result<&[Arc<Cell>], AmqpError> {
        let (exchange, routing_key) = (message.exchange(), message.routing_key());
        let epoch = vhost.epoch();
        let is_last = self
            .last
            .as_ref()
            .is_some_and(|last| last.epoch == epoch && last.routing_key == routing_key && last.exchange == exchange);
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
            let (exchange, routing_key) = (exchange.to_vec(), routing_key.to_vec());
            self.last = Some(Last { exchange, routing_key, epoch, targets });
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
