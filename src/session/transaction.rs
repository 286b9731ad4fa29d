//! What a transactional channel holds back until its commit.

use super::effect::RoutedMessage;
use super::unacked::UnackedDelivery;
use crate::model::{Name, SettleOutcome};

/// A transaction, and the commit that is under way.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// Messages in order, routed when they were published.
    pub(super) publishes: Vec<RoutedMessage>,
    /// What these messages take of memory.
    publish_bytes: usize,
    /// Settlements in order: tag, delivery, fate.
    pub(super) settlements: Vec<(u64, UnackedDelivery, SettleOutcome)>,
    commit: Option<Commit>,
}

/// Promises of a commit.
#[derive(Debug, Default)]
struct Commit {
    /// Promises owed and not kept, less those that were kept before their number was known.
    missing: i64,
    /// The number of promises is known.
    is_counted: bool,
    refused: bool,
}

impl Transaction {
    /// Marks what is settled, but not committed, as counted against the channel's limit, or not; returns how many there are.
    pub(super) fn count_settlements(&mut self, counted: bool) -> u32 {
        self.settlements.iter_mut().for_each(|(_, delivered, _)| delivered.counted = counted);
        u32::try_from(self.settlements.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn add_publish(&mut self, publish: RoutedMessage) {
        let names: usize = publish.queues.capacity() * size_of::<Name>();
        self.publish_bytes += publish.message.allocated_bytes() + names;
        self.publishes.push(publish);
    }

    /// The messages in order; none are left.
    pub(super) fn take_publishes(&mut self) -> Vec<RoutedMessage> {
        self.publish_bytes = 0;
        std::mem::take(&mut self.publishes)
    }

    /// What it takes of memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.publish_bytes
            + self.publishes.capacity() * size_of::<RoutedMessage>()
            + self.settlements.capacity() * size_of::<(u64, UnackedDelivery, SettleOutcome)>()
    }

    pub(super) fn begin_commit(&mut self) {
        self.commit = Some(Commit::default());
    }

    /// Queues owe so many promises for the commit. Returns whether all are kept or refused.
    pub(super) fn owed(&mut self, promises: u64) -> bool {
        let Some(commit) = &mut self.commit else { return false };
        commit.is_counted = true;
        commit.missing += i64::try_from(promises).unwrap_or(i64::MAX);
        commit.is_complete()
    }

    /// Queues kept or refused promises. Returns whether all are kept or refused.
    pub(super) fn promised(&mut self, first: u64, last: u64, kept: bool) -> bool {
        let Some(commit) = &mut self.commit else { return false };
        commit.missing -= i64::try_from(last - first + 1).unwrap_or(i64::MAX);
        commit.refused |= !kept;
        commit.is_complete()
    }

    /// Ends the commit; whether every queue took everything.
    pub(super) fn end_commit(&mut self) -> bool {
        self.commit.take().is_none_or(|commit| !commit.refused)
    }
}

impl Commit {
    fn is_complete(&self) -> bool {
        self.is_counted && self.missing == 0
    }
}
