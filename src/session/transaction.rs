//! The publishes and settlements that a transactional channel holds back until its commit.

use super::effect::RoutedMessage;
use super::unacked::UnackedDelivery;
use crate::model::{Name, SettleOutcome};

/// The open transaction of a channel, and its last commit while that is not answered.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// Messages in order, routed when they were published.
    pub(super) publishes: Vec<RoutedMessage>,
    /// The memory that these messages take, in bytes.
    publish_bytes: usize,
    /// Settlements in order: tag, delivery, outcome.
    pub(super) settlements: Vec<(u64, UnackedDelivery, SettleOutcome)>,
    commit: Option<Commit>,
}

/// The promises that queues owe for a commit.
#[derive(Debug, Default)]
struct Commit {
    /// Promises owed and not kept. Negative when promises are kept before their number is known.
    missing: i64,
    /// Whether the number of promises is known.
    is_counted: bool,
    refused: bool,
}

impl Transaction {
    /// Marks the settled deliveries as counted against the channel's limit, or not; returns how many they are.
    pub(super) fn count_settlements(&mut self, counted: bool) -> u32 {
        self.settlements.iter_mut().for_each(|(_, delivered, _)| delivered.counted = counted);
        u32::try_from(self.settlements.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn add_publish(&mut self, publish: RoutedMessage) {
        let names: usize = publish.queues.capacity() * size_of::<Name>();
        self.publish_bytes += publish.message.allocated_bytes() + names;
        self.publishes.push(publish);
    }

    /// Takes all messages, in order.
    pub(super) fn take_publishes(&mut self) -> Vec<RoutedMessage> {
        self.publish_bytes = 0;
        std::mem::take(&mut self.publishes)
    }

    /// The memory that it takes, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        self.publish_bytes
            + self.publishes.capacity() * size_of::<RoutedMessage>()
            + self.settlements.capacity() * size_of::<(u64, UnackedDelivery, SettleOutcome)>()
    }

    pub(super) fn begin_commit(&mut self) {
        self.commit = Some(Commit::default());
    }

    /// Sets how many promises queues owe for the commit. Returns whether all are kept or refused.
    pub(super) fn set_owed(&mut self, promises: u64) -> bool {
        let Some(commit) = &mut self.commit else { return false };
        commit.is_counted = true;
        commit.missing += i64::try_from(promises).unwrap_or(i64::MAX);
        commit.is_complete()
    }

    /// A queue has kept or refused promises. Returns whether now all are kept or refused.
    pub(super) fn promised(&mut self, first: u64, last: u64, kept: bool) -> bool {
        let Some(commit) = &mut self.commit else { return false };
        commit.missing -= i64::try_from(last - first + 1).unwrap_or(i64::MAX);
        commit.refused |= !kept;
        commit.is_complete()
    }

    /// Ends the commit. Returns whether no queue refused a message.
    pub(super) fn end_commit(&mut self) -> bool {
        self.commit.take().is_none_or(|commit| !commit.refused)
    }
}

impl Commit {
    fn is_complete(&self) -> bool {
        self.is_counted && self.missing == 0
    }
}
