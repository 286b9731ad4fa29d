//! The exclusive queues of a connection: noted as they are declared, and deleted in slices when it ends.

use super::cell::TurnList;
use super::node::Broker;
use super::peer::Peer;
use super::vhost::Vhost;
use crate::model::{Notice, Now, QueueId};
use std::sync::Arc;

/// Queues that are deleted in one go: half a millisecond. Other connections' work comes between two slices.
const SLICE: usize = 64;
/// So many notes are kept without asking whether their queues are still there.
const NOTES_MIN: usize = 64;

/// The exclusive queues of one connection, and for a while some that are deleted.
#[derive(Debug, Default)]
pub(super) struct ExclusiveQueues {
    queues: Vec<QueueId>,
    /// At this length notes of deleted queues are dropped.
    notes_max: usize,
}

impl ExclusiveQueues {
    /// Notes a queue. The notes stay within twice the number of queues that are there.
    pub(super) fn note(&mut self, queue: QueueId, is_there: impl Fn(QueueId) -> bool) {
        if self.queues.len() >= self.notes_max.max(NOTES_MIN) {
            self.queues.retain(|queue| is_there(*queue));
            self.queues.shrink_to(NOTES_MIN);
            self.notes_max = self.queues.len() * 2;
        }
        self.queues.push(queue);
    }

    /// What the notes take of memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.queues.capacity() * size_of::<QueueId>()
    }

    /// Takes all of them.
    pub(super) fn take(&mut self) -> Vec<QueueId> {
        std::mem::take(&mut self.queues)
    }
}

impl Broker {
    /// Deletes the exclusive queues of a connection that has ended, and forgets the connection. Whether that is done; if
    /// not, the rest follows slice by slice, and then `Notice::Ended`.
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
    fn notes_of_deleted_queues_do_not_pile_up() {
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
    fn notes_of_queues_that_are_there_stay() {
        let mut notes = ExclusiveQueues::default();
        (0..10_000).for_each(|number| notes.note(QueueId(number), |_| true));
        assert_eq!(notes.take().len(), 10_000);
    }
}
