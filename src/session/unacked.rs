//! Deliveries that a channel has to acknowledge, by rising delivery tag.

use super::effect::Settlement;
use crate::model::{Delivery, LendId, QueueId, SettleOutcome};
use std::collections::VecDeque;

/// What a channel keeps of an unacknowledged delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnackedDelivery {
    pub(super) queue: QueueId,
    pub(super) lend: LendId,
    /// Whether it counts against the channel's limit.
    pub(super) counted: bool,
}

impl UnackedDelivery {
    /// Its settlement; `continues` says that the same method has settled another one before.
    pub(super) fn settlement(self, outcome: SettleOutcome, continues: bool) -> Settlement {
        let Self { queue, lend, counted } = self;
        Settlement { queue, lend, outcome, counted, continues }
    }
}

/// The unacknowledged deliveries of one channel, and the delivery tag given last.
#[derive(Debug, Default)]
pub(super) struct Unacked {
    last_tag: u64,
    deliveries: VecDeque<(u64, UnackedDelivery)>,
}

impl Unacked {
    /// The delivery tag of one more delivery, which may need no acknowledgement.
    pub(super) fn next_tag(&mut self) -> u64 {
        self.last_tag += 1;
        self.last_tag
    }

    /// Notes a delivery, unless it needs no acknowledgement.
    pub(super) fn note(&mut self, tag: u64, delivery: &Delivery, counted: bool) {
        if let Some(lend) = delivery.lend {
            self.deliveries.push_back((tag, UnackedDelivery { queue: delivery.queue, lend, counted }));
        }
    }

    /// Takes the delivery of a tag. Returns whether the tag was unacknowledged.
    pub(super) fn take(&mut self, tag: u64, each: &mut impl FnMut(u64, UnackedDelivery)) -> bool {
        if self.deliveries.front().is_some_and(|(front, _)| *front == tag) {
            let (tag, delivered) = self.deliveries.pop_front().expect("looked at above");
            each(tag, delivered);
            return true;
        }
        match self.deliveries.binary_search_by_key(&tag, |(tag, _)| *tag) {
            Ok(at) => {
                let (tag, delivered) = self.deliveries.remove(at).expect("found above");
                each(tag, delivered);
                true
            }
            Err(_) => false,
        }
    }

    /// Takes all deliveries up to a tag. Returns whether the tag was unacknowledged; tag 0 means all, and is always valid.
    pub(super) fn take_up_to(&mut self, tag: u64, each: &mut impl FnMut(u64, UnackedDelivery)) -> bool {
        if tag == 0 {
            self.take_all(each);
            return true;
        }
        match self.deliveries.binary_search_by_key(&tag, |(tag, _)| *tag) {
            Ok(at) => {
                self.deliveries.drain(..=at).for_each(|(tag, delivered)| each(tag, delivered));
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn take_all(&mut self, each: &mut impl FnMut(u64, UnackedDelivery)) {
        self.deliveries.drain(..).for_each(|(tag, delivered)| each(tag, delivered));
    }

    /// Puts a delivery back to its place, as a rollback does.
    pub(super) fn put_back(&mut self, tag: u64, delivered: UnackedDelivery) {
        let at = self.deliveries.partition_point(|(other, _)| *other < tag);
        self.deliveries.insert(at, (tag, delivered));
    }

    pub(super) fn len(&self) -> usize {
        self.deliveries.len()
    }

    /// The queues of all deliveries, with repetitions.
    pub(super) fn queues(&self) -> impl Iterator<Item = QueueId> {
        self.deliveries.iter().map(|(_, delivered)| delivered.queue)
    }

    /// Marks all deliveries as counted against the channel's limit, or not; returns how many deliveries that are.
    pub(super) fn count_all(&mut self, counted: bool) -> u32 {
        self.deliveries.iter_mut().for_each(|(_, delivered)| delivered.counted = counted);
        u32::try_from(self.deliveries.len()).unwrap_or(u32::MAX)
    }
}
