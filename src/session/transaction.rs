//! What a transactional channel holds back until its commit.

use super::effect::SettleOutcome;
use super::unacked::Delivered;
use crate::model::Message;

/// A transaction, and the commit that is under way.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// Messages in order, and whether each is mandatory.
    pub(super) publishes: Vec<(Message, bool)>,
    /// What these messages take of memory.
    publish_bytes: usize,
    /// Settlements in order: tag, delivery, fate.
    pub(super) settlements: Vec<(u64, Delivered, SettleOutcome)>,
    commit: Option<Commit>,
}

/// Promises of a commit: each publish is owed one per queue, and the shell tells how many.
#[derive(Debug)]
struct Commit {
    /// Queues that have not kept their promise, less those that did so before their number was told.
    missing: i64,
    /// Publishes whose number of queues is not told yet.
    unrouted: usize,
    /// The number of queues that owe word of the whole was told.
    sealed: bool,
    refused: bool,
}

impl Transaction {
    pub(super) fn add_publish(&mut self, message: Message, mandatory: bool) {
        self.publish_bytes += message.allocated_bytes();
        self.publishes.push((message, mandatory));
    }

    /// The messages in order, and whether each is mandatory; none are left.
    pub(super) fn take_publishes(&mut self) -> Vec<(Message, bool)> {
        self.publish_bytes = 0;
        std::mem::take(&mut self.publishes)
    }

    /// What it takes of memory.
    pub(super) fn held_bytes(&self) -> usize {
        self.publish_bytes
            + self.publishes.capacity() * size_of::<(Message, bool)>()
            + self.settlements.capacity() * size_of::<(u64, Delivered, SettleOutcome)>()
    }

    /// A commit of so many publishes begins.
    pub(super) fn begin_commit(&mut self, publishes: usize) {
        self.commit = Some(Commit { missing: 0, unrouted: publishes, sealed: false, refused: false });
    }

    /// A publish went to so many queues. Returns whether all is settled.
    pub(super) fn routed(&mut self, parts: u32) -> bool {
        let Some(commit) = &mut self.commit else { return false };
        commit.unrouted = commit.unrouted.saturating_sub(1);
        commit.missing += i64::from(parts);
        commit.is_settled()
    }

    /// Queues kept or refused promises. Returns whether all is settled.
    pub(super) fn promised(&mut self, first: u64, last: u64, kept: bool) -> bool {
        let Some(commit) = &mut self.commit else { return false };
        commit.missing -= i64::try_from(last - first + 1).unwrap_or(i64::MAX);
        commit.refused |= !kept;
        commit.is_settled()
    }

    /// So many queues owe word of the whole. Returns whether all is settled.
    pub(super) fn sealed(&mut self, parts: u32) -> bool {
        let Some(commit) = &mut self.commit else { return false };
        commit.sealed = true;
        commit.missing += i64::from(parts);
        commit.is_settled()
    }

    /// Ends the commit; whether every queue took everything.
    pub(super) fn end_commit(&mut self) -> bool {
        self.commit.take().is_none_or(|commit| !commit.refused)
    }
}

impl Commit {
    fn is_settled(&self) -> bool {
        self.sealed && self.unrouted == 0 && self.missing == 0
    }
}
