//! The exclusive queues of a connection: recorded when they are declared, and deleted in slices when the connection
//! ends.

use super::cell::TurnList;
use super::node::Broker;
use super::peer::Peer;
use super::vhost::Vhost;
use crate::model::{Notice, Now, QueueId};
use std::sync::Arc;

/// Queues deleted in one slice, which takes half a millisecond. Other connections' work runs between two slices.
const SLICE: usize = 64;
/// Up to this many entries are kept without checking whether their queues still exist.
const NOTES_MIN: usize = 64;

/// The exclusive queues of one connection; some of them may be deleted already.
#[derive(Debug, Default)]
pub(super) struct ExclusiveQueues {
    queues: Vec<QueueId>,
    /// At this length, entries of deleted queues are dropped.
    notes_max: usize,
}

impl ExclusiveQueues {
    /// Records a queue. The number of entries stays below twice the number of existing queues, or 64.
    pub(super) fn note(&mut self, queue: QueueId, is_there: impl Fn(QueueId) -> bool) {
        if self.queues.len() >= self.notes_max.max(NOTES_MIN) {
            self.queues.retain(|queue| is_there(*queue));
            self.queues.shrink_to(NOTES_MIN);
            self.notes_max = self.queues.len() * 2;
        }
        self.queues.push(queue);
    }

    /// Bytes of memory that the entries take.
    pub(super) fn held_bytes(&self) -> usize {
        self.queues.capacity() * size_of::<QueueId>()
    }

    /// Takes all entries.
    pub(super) fn take(&mut self) -> Vec<QueueId> {
        std::mem::take(&mut self.queues)
    }
}

impl Broker {
    /// Deletes the exclusive queues of a connection that has ended, and forgets the connection. Returns whether that is
    /// complete. If not, the remaining slices run later, and then the connection gets `Notice::Ended`.
    pub(super) fn delete_exclusive(
        self: &Arc<Self>,
        vhost: &Arc<Vhost>,
        peer: &Arc<Peer>,
        mut queues: Vec<QueueId>,
        now: Now,
    ) -> bool {
        let mut list = TurnList::new();
        let slice = queues.split_off(queues.len().saturating_sub(SLICE));
        for cell in slice.into_iter().filter_map(|queue| self.cell(queue)) {
            self.remove_queue(vhost, &cell, &mut list);
        }
        self.take_listed(list, now);
        if queues.is_empty() {
            self.remove_peer(peer.id());
            return true;
        }
        let (broker, vhost, peer) = (Arc::clone(self), Arc::clone(vhost), Arc::clone(peer));
        self.runner().run(Box::new(move |now| {
            if broker.delete_exclusive(&vhost, &peer, queues, now) {
                peer.notify_one(Notice::Ended);
            }
        }));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_deleted_queues_do_not_accumulate() {
        let mut notes = ExclusiveQueues::default();
        // Ten queues live at any time.
        for number in 0..100_000 {
            notes.note(QueueId(number), |queue| queue.0 + 10 > number);
            assert!(notes.queues.len() <= NOTES_MIN && notes.queues.capacity() <= 2 * NOTES_MIN);
        }
        let queues = notes.take();
        assert!((99_990..100_000).all(|number| queues.contains(&QueueId(number))));
    }

    #[test]
    fn entries_of_existing_queues_are_kept() {
        let mut notes = ExclusiveQueues::default();
        (0..10_000).for_each(|number| notes.note(QueueId(number), |_| true));
        assert_eq!(notes.take().len(), 10_000);
    }
}
