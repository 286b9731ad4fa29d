//! Sends a transaction to its queues: messages, which were routed when they were published, and settlements. The store
//! commits all of it or nothing, even if exchanges, bindings and queues have changed meanwhile.

use super::cell::Cell;
use super::cell::TurnList;
use super::link::Link;
use crate::model::{ChannelKey, LendId, Message, Name, Now, Promise, PromiseOwner, QueueId, SettleOutcome};
use crate::queue::{Enqueue, LocalEvent, QueueCommand, QueueInput};
use ahash::AHashMap;
use std::sync::Arc;

/// Collects a transaction by queue; `seal` sends it to the queues.
#[derive(Debug)]
pub(crate) struct TransactionCommit<'a> {
    link: &'a mut Link,
    channel: ChannelKey,
    parts: Vec<Part>,
    by_queue: AHashMap<QueueId, usize>,
    /// The number of the last publish.
    sequence: u64,
    /// Promises that queues owe for messages.
    promises: u64,
    /// Number of permits that the settlements release.
    released: u32,
}

/// One queue's part of the transaction.
#[derive(Debug)]
struct Part {
    cell: Arc<Cell>,
    messages: Vec<Enqueue>,
    settlements: Vec<QueueCommand>,
}

impl<'a> TransactionCommit<'a> {
    pub(super) fn new(link: &'a mut Link, channel: ChannelKey) -> Self {
        let (parts, by_queue) = (Vec::new(), AHashMap::new());
        Self { link, channel, parts, by_queue, sequence: 0, promises: 0, released: 0 }
    }

    /// Adds a message for the queues to which it was routed. Skips queues that no longer exist; returns the number of
    /// others.
    pub(crate) fn publish(&mut self, message: &Message, queues: &[Name]) -> u32 {
        self.sequence += 1;
        let promise = Some(self.promise(self.sequence));
        let mut taken = 0;
        for queue in queues {
            if let Some(cell) = self.link.vhost().queue(queue.as_bytes()) {
                self.part(cell).messages.push(Enqueue { message: message.clone(), promise });
                taken += 1;
            }
        }
        self.promises += u64::from(taken);
        taken
    }

    /// Adds the settlement of a delivery, which holds a permit of the channel if it is `counted`.
    pub(crate) fn settle(&mut self, queue: QueueId, lend: LendId, outcome: SettleOutcome, counted: bool) {
        self.released += u32::from(counted);
        let Some(cell) = self.link.cell(self.channel, queue) else { return };
        let settlements = &mut self.part(cell).settlements;
        match settlements.last_mut() {
            Some(QueueCommand::Settle { lends, outcome: same }) if *same == outcome => lends.push(lend),
            _ => settlements.push(QueueCommand::Settle { lends: vec![lend], outcome }),
        }
    }

    /// Sends everything to the queues as one group. Returns how many promises the queues owe the channel: each queue
    /// owes one for each of its messages, numbered from 1, and one for the whole transaction, numbered 0.
    #[must_use]
    pub(crate) fn seal(self, now: Now) -> u64 {
        let promise = Some(self.promise(0));
        let Self { link, channel, parts, promises, released, .. } = self;
        let count = parts.len();
        let group = link.broker().new_group(count);
        let mut list = TurnList::new();
        for Part { cell, messages, settlements } in parts {
            let mut inputs: Vec<QueueInput> = Vec::with_capacity(settlements.len() + 2);
            if !messages.is_empty() {
                inputs.push(QueueCommand::Publish(messages).into());
            }
            inputs.extend(settlements.into_iter().map(QueueInput::from));
            inputs.push(LocalEvent::Seal { group, promise }.into());
            cell.push_all(inputs);
            list.push_back(cell);
        }
        link.broker().take_listed(list, now);
        link.release(channel, released, now);
        promises + count as u64
    }

    fn promise(&self, sequence: u64) -> Promise {
        Promise { owner: PromiseOwner::Channel(self.link.holder(self.channel)), sequence }
    }

    fn part(&mut self, cell: Arc<Cell>) -> &mut Part {
        let at = *self.by_queue.entry(cell.id()).or_insert_with(|| {
            self.parts.push(Part { cell, messages: Vec::new(), settlements: Vec::new() });
            self.parts.len() - 1
        });
        &mut self.parts[at]
    }
}
