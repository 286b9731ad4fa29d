//! The consumers of one channel, by slot and by tag.

use crate::model::{ConsumerSlot, Name, QueueId};
use crate::wire::writer::ConsumerPrefix;
use ahash::AHashMap;

/// A consumer of a channel.
#[derive(Debug)]
pub(super) struct ConsumerEntry {
    pub(super) tag: Name,
    /// The first bytes of each basic.deliver for this consumer.
    pub(super) prefix: ConsumerPrefix,
    /// Known once the queue has answered.
    pub(super) queue: Option<QueueId>,
    /// Deliveries that are not reported to the queue as written yet.
    pub(super) unreported: u32,
    /// Their body bytes.
    pub(super) unreported_bytes: u64,
}

/// The memory that a consumer takes, about: its places in two tables, its tag and its prefix.
const CONSUMER_BYTES: usize = size_of::<ConsumerEntry>() + 2 * size_of::<(Name, ConsumerSlot)>() + 64;

/// The consumers of one channel.
#[derive(Debug, Default)]
pub(super) struct Consumers {
    by_slot: AHashMap<ConsumerSlot, ConsumerEntry>,
    by_tag: AHashMap<Name, ConsumerSlot>,
    last_slot: u32,
    /// Consumers whose queue this channel is deleting: the client gets their basic.cancel after delete-ok, as in RabbitMQ.
    cancelled: Vec<ConsumerSlot>,
}

impl Consumers {
    pub(super) fn len(&self) -> usize {
        self.by_slot.len()
    }

    pub(super) fn has_tag(&self, tag: &Name) -> bool {
        self.by_tag.contains_key(tag)
    }

    /// Registers a consumer before its queue answers.
    pub(super) fn add(&mut self, tag: &Name, prefix: ConsumerPrefix) -> ConsumerSlot {
        self.last_slot += 1;
        let slot = ConsumerSlot(self.last_slot);
        let entry = ConsumerEntry { tag: tag.clone(), prefix, queue: None, unreported: 0, unreported_bytes: 0 };
        self.by_slot.insert(slot, entry);
        self.by_tag.insert(tag.clone(), slot);
        slot
    }

    pub(super) fn get_mut(&mut self, slot: ConsumerSlot) -> Option<&mut ConsumerEntry> {
        self.by_slot.get_mut(&slot)
    }

    /// A consumer's slot and queue; none while the queue has not answered.
    pub(super) fn find(&self, tag: &Name) -> Option<(ConsumerSlot, QueueId)> {
        let slot = *self.by_tag.get(tag)?;
        Some((slot, self.by_slot.get(&slot)?.queue?))
    }

    pub(super) fn remove(&mut self, slot: ConsumerSlot) -> Option<ConsumerEntry> {
        let entry = self.by_slot.remove(&slot)?;
        self.by_tag.remove(&entry.tag);
        Some(entry)
    }

    pub(super) fn remove_tag(&mut self, tag: &Name) {
        if let Some(slot) = self.by_tag.remove(tag) {
            self.by_slot.remove(&slot);
        }
    }

    /// Notes a consumer that its queue has cancelled, until the client may be notified.
    pub(super) fn hold_cancelled(&mut self, slot: ConsumerSlot) {
        self.cancelled.push(slot);
    }

    pub(super) fn has_cancelled(&self) -> bool {
        !self.cancelled.is_empty()
    }

    pub(super) fn take_cancelled(&mut self) -> Vec<ConsumerSlot> {
        std::mem::take(&mut self.cancelled)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ConsumerSlot, &mut ConsumerEntry)> {
        self.by_slot.iter_mut().map(|(slot, entry)| (*slot, entry))
    }

    /// The queues of the consumers, as far as they have answered.
    pub(super) fn queues(&self) -> impl Iterator<Item = QueueId> {
        self.by_slot.values().filter_map(|entry| entry.queue)
    }

    /// The memory that the consumers take, about, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.by_slot.capacity() * CONSUMER_BYTES
    }
}
