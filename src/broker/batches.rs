//! Collects the messages and settlements of one read of a connection, by queue and in order. At the end of the read
//! they are pushed to their queues.

use super::cell::Cell;
use super::cell::TurnList;
use super::node::Broker;
use crate::model::{LendId, Now, QueueId, SettleOutcome};
use crate::queue::{Enqueue, QueueCommand};
use ahash::AHashMap;
use std::sync::Arc;

/// Up to this many batches are searched one by one; more are found through a table.
const BATCHES_COMPARED_MAX: usize = 8;
/// A batch reserves room for as many messages as the previous read's largest batch had, but for no more than this.
const ROOM_MAX: usize = 2048;

/// Batches by queue.
#[derive(Debug, Default)]
pub(super) struct Batches {
    batches: Vec<Batch>,
    by_queue: AHashMap<QueueId, usize>,
    /// Number of messages in the longest run of the previous read.
    room: usize,
}

#[derive(Debug)]
struct Batch {
    cell: Arc<Cell>,
    /// The runs before the last one.
    earlier: Vec<QueueCommand>,
    last: Run,
}

/// Consecutive inputs of one kind.
#[derive(Debug)]
enum Run {
    Publish(Vec<Enqueue>),
    Settle { lends: Vec<LendId>, outcome: SettleOutcome },
}

impl From<Run> for QueueCommand {
    fn from(run: Run) -> Self {
        match run {
            Run::Publish(messages) => Self::Publish(messages),
            Run::Settle { lends, outcome } => Self::Settle { lends, outcome },
        }
    }
}

impl Batch {
    fn begin(&mut self, run: Run) {
        self.earlier.push(std::mem::replace(&mut self.last, run).into());
    }
}

impl Batches {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn publish(&mut self, cell: &Arc<Cell>, message: Enqueue) {
        if let Some(batch) = self.find(cell.id()) {
            match &mut batch.last {
                Run::Publish(messages) => messages.push(message),
                Run::Settle { .. } => batch.begin(Run::Publish(vec![message])),
            }
            return;
        }
        // Only the first batch reserves room: a read for several queues divides its messages among them.
        let mut messages = Vec::with_capacity(if self.batches.is_empty() { self.room.clamp(1, ROOM_MAX) } else { 1 });
        messages.push(message);
        self.insert(Arc::clone(cell), Run::Publish(messages));
    }

    /// Adds a settlement. If it `joins`, it may extend the last run. `cell` finds the queue, if it still exists.
    pub(super) fn settle(
        &mut self,
        queue: QueueId,
        lend: LendId,
        outcome: SettleOutcome,
        joins: bool,
        cell: impl FnOnce() -> Option<Arc<Cell>>,
    ) {
        if let Some(batch) = self.find(queue) {
            match &mut batch.last {
                Run::Settle { lends, outcome: same } if joins && *same == outcome => lends.push(lend),
                _ => batch.begin(Run::Settle { lends: vec![lend], outcome }),
            }
        } else if let Some(cell) = cell() {
            self.insert(cell, Run::Settle { lends: vec![lend], outcome });
        }
    }

    fn find(&mut self, queue: QueueId) -> Option<&mut Batch> {
        if self.batches.len() <= BATCHES_COMPARED_MAX {
            return self.batches.iter_mut().rev().find(|batch| batch.cell.id() == queue);
        }
        let at = *self.by_queue.get(&queue)?;
        self.batches.get_mut(at)
    }

    fn insert(&mut self, cell: Arc<Cell>, last: Run) {
        self.by_queue.insert(cell.id(), self.batches.len());
        self.batches.push(Batch { cell, earlier: Vec::new(), last });
    }

    /// Pushes the batches to their queues and takes the queues' turns.
    pub(super) fn flush(&mut self, broker: &Arc<Broker>, now: Now) {
        self.by_queue.clear();
        self.room = 0;
        let mut list = TurnList::new();
        for Batch { cell, mut earlier, last } in self.batches.drain(..) {
            if let Run::Publish(messages) = &last {
                self.room = self.room.max(messages.len());
            }
            if earlier.is_empty() {
                cell.push(QueueCommand::from(last));
            } else {
                earlier.push(last.into());
                cell.push_all(earlier);
            }
            list.push_back(cell);
        }
        broker.take_listed(list, now);
    }
}
