//! Deliveries that a channel has to acknowledge, by rising delivery tag.

use super::effect::Settlement;
use crate::model::{Delivery, LendId, QueueId, SettleOutcome};
use std::collections::VecDeque;

/// What is known of an unacknowledged delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Delivered {
    pub(super) queue: QueueId,
    pub(super) lend: LendId,
    /// Whether it counts against the channel's limit.
    pub(super) counted: bool,
}

impl Delivered {
    /// Its settlement; `continues` says that the same method has settled another one before.
    pub(super) fn settled(self, outcome: SettleOutcome, continues: bool) -> Settlement {
        let Self { queue, lend, counted } = self;
        Settlement { queue, lend, outcome, counted, continues }
    }
}

#[derive(Debug, Default)]
pub(super) struct Unacked(VecDeque<(u64, Delivered)>);

impl Unacked {
    /// Notes a delivery, unless it needs no acknowledgement.
    pub(super) fn note(&mut self, tag: u64, delivery: &Delivery, counted: bool) {
        if let Some(lend) = delivery.lend {
            self.0.push_back((tag, Delivered { queue: delivery.queue, lend, counted }));
        }
    }

    /// Takes one; whether it was there.
    pub(super) fn take(&mut self, tag: u64, each: &mut impl FnMut(u64, Delivered)) -> bool {
        if self.0.front().is_some_and(|(front, _)| *front == tag) {
            let (tag, delivered) = self.0.pop_front().expect("looked at above");
            each(tag, delivered);
            return true;
        }
        match self.0.binary_search_by_key(&tag, |(tag, _)| *tag) {
            Ok(at) => {
                let (tag, delivered) = self.0.remove(at).expect("found above");
                each(tag, delivered);
                true
            }
            Err(_) => false,
        }
    }

    /// Takes all up to a tag, which must itself be there; tag 0 means all, and there may be none.
    pub(super) fn take_up_to(&mut self, tag: u64, each: &mut impl FnMut(u64, Delivered)) -> bool {
        if tag == 0 {
            self.take_all(each);
            return true;
        }
        match self.0.binary_search_by_key(&tag, |(tag, _)| *tag) {
            Ok(at) => {
                self.0.drain(..=at).for_each(|(tag, delivered)| each(tag, delivered));
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn take_all(&mut self, each: &mut impl FnMut(u64, Delivered)) {
        self.0.drain(..).for_each(|(tag, delivered)| each(tag, delivered));
    }

    /// Puts one back, as a rollback does.
    pub(super) fn put_back(&mut self, tag: u64, delivered: Delivered) {
        let at = self.0.partition_point(|(other, _)| *other < tag);
        self.0.insert(at, (tag, delivered));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Where they came from, each as often as it occurs.
    pub(super) fn queues(&self) -> impl Iterator<Item = QueueId> {
        self.0.iter().map(|(_, delivered)| delivered.queue)
    }

    /// Marks all as counted against the channel's limit, or none; returns how many there are.
    pub(super) fn count_all(&mut self, counted: bool) -> u32 {
        self.0.iter_mut().for_each(|(_, delivered)| delivered.counted = counted);
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
}
