//! The permits of one channel's prefetch limit, dealt out among the queues that have something for the channel.
//!
//! Queues ask, and stand in line when there is nothing for them: first the one that has had least. What is free is dealt out in
//! rounds: a queue that was granted something in this round is granted more only when all others have used, or given back,
//! what they were granted. So a queue gets as much as any other, and a permit costs the same with three queues and with three
//! thousand: one grant wakes one queue.
//!
//! A grant is plain data, and has an owner at every moment: it is the queue's until the queue asks again or ends it. Then what
//! was used is lent: the connection has the delivery, or it is on its way there.

use crate::model::{LimitId, QueueId};
use ahash::AHashMap;
use std::collections::BTreeSet;

/// How many permits a queue is granted at once. Few, so that a client sees its queues take turns; enough that asking for them
/// is little beside delivering.
const GRANT_MAX: u32 = 8;

/// Permits for a queue that stood in line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) queue: QueueId,
    pub(super) permits: u32,
}

/// The permits of one limit.
#[derive(Debug)]
pub(super) struct ChannelPermits {
    id: LimitId,
    limit: u32,
    /// Deliveries that count against the limit.
    lent: u32,
    /// Granted to queues that have not ended their grants.
    granted: u32,
    queues: AHashMap<QueueId, Standing>,
    /// Queues that stand in line, in the order of their turns.
    line: BTreeSet<(Turn, QueueId)>,
    /// Those that have had a grant in this round.
    served: BTreeSet<(Turn, QueueId)>,
    last_ticket: u64,
    /// What the queue had had that was last in front of the line: one that joins now has had no less.
    had: u64,
    /// Queues that may still deliver without a permit: until there are none, nobody knows what is lent.
    unlimited: usize,
}

/// When it is whose turn: who has had less comes first, then who came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    had: u64,
    ticket: u64,
}

/// A queue that stands in line, holds permits, or has yet to apply the limit.
#[derive(Debug, Default)]
struct Standing {
    turn: Option<Turn>,
    granted: u32,
    /// Permits that it has had, less those that it gave back; since it first asked, and not less than those of others then.
    had: u64,
    is_unlimited: bool,
}

/// What of a limit is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PermitCounts {
    /// How many deliveries may be unacknowledged.
    pub limit: u32,
    /// How many are, as far as they count.
    pub lent: u32,
    /// Permits that queues hold and have not used.
    pub granted: u32,
    /// Queues that stand in line.
    pub waiting: usize,
}

impl ChannelPermits {
    /// A limit begins. `lent` deliveries count from the start; nothing is granted until all of `queues` apply the limit.
    pub(super) fn new(id: LimitId, limit: u32, lent: u32, queues: impl Iterator<Item = QueueId>) -> Self {
        let unlimited = |queue| (queue, Standing { is_unlimited: true, ..Standing::default() });
        let queues: AHashMap<_, _> = queues.map(unlimited).collect();
        let unlimited = queues.len();
        let (line, served) = (BTreeSet::new(), BTreeSet::new());
        Self { id, limit, lent, granted: 0, queues, line, served, last_ticket: 0, had: 0, unlimited }
    }

    pub(super) fn id(&self) -> LimitId {
        self.id
    }

    pub(super) fn counts(&self) -> PermitCounts {
        let (limit, lent, granted) = (self.limit, self.lent, self.granted);
        PermitCounts { limit, lent, granted, waiting: self.line.len() + self.served.len() }
    }

    /// The limit has another number.
    pub(super) fn set_limit(&mut self, limit: u32, grants: &mut Vec<Grant>) {
        self.limit = limit;
        self.deal(grants);
    }

    /// A delivery without a permit has arrived, that was on its way when the limit began.
    pub(super) fn count_delivery(&mut self) {
        self.lent += 1;
    }

    /// A queue delivers nothing without a permit any more, and all that it did has arrived.
    pub(super) fn queue_limited(&mut self, queue: QueueId, grants: &mut Vec<Grant>) {
        if let Some(standing) = self.queues.get_mut(&queue)
            && std::mem::take(&mut standing.is_unlimited)
        {
            self.unlimited -= 1;
            self.drop_if_idle(queue);
            self.deal(grants);
        }
    }

    /// A queue asks for permits, having used those that it was granted. Returns how many it may use at once; with none it
    /// stands in line.
    pub(super) fn request(&mut self, queue: QueueId, grants: &mut Vec<Grant>) -> u32 {
        let standing = self.standing(queue);
        let used = std::mem::take(&mut standing.granted);
        self.granted -= used;
        self.lent += used;
        let free = self.free();
        if free > 0 && self.granted == 0 && self.line.is_empty() && self.served.is_empty() {
            return self.grant(queue, free);
        }
        let ticket = self.last_ticket + 1;
        let standing = self.standing(queue);
        if standing.turn.is_none() {
            let turn = Turn { had: standing.had, ticket };
            standing.turn = Some(turn);
            self.last_ticket = ticket;
            // With others still at it, a queue that has had its part waits for the next round.
            let line = if used > 0 { &mut self.served } else { &mut self.line };
            line.insert((turn, queue));
        }
        self.deal(grants);
        0
    }

    /// A queue uses no more of what it was granted.
    pub(super) fn end_grant(&mut self, queue: QueueId, unused: u32, grants: &mut Vec<Grant>) {
        let Some(standing) = self.queues.get_mut(&queue) else { return };
        let granted = std::mem::take(&mut standing.granted);
        self.granted -= granted;
        self.lent += granted.saturating_sub(unused);
        standing.had = standing.had.saturating_sub(u64::from(unused));
        self.drop_if_idle(queue);
        self.deal(grants);
    }

    /// A queue leaves the line; whether it still stood there.
    pub(super) fn withdraw(&mut self, queue: QueueId) -> bool {
        let Some(standing) = self.queues.get_mut(&queue) else { return false };
        let Some(turn) = standing.turn.take() else { return false };
        self.line.remove(&(turn, queue));
        self.served.remove(&(turn, queue));
        self.drop_if_idle(queue);
        true
    }

    /// A queue is no more, and asks for nothing: what it was granted goes back. What it delivered may yet be on its way.
    pub(super) fn revoke(&mut self, queue: QueueId, grants: &mut Vec<Grant>) {
        self.withdraw(queue);
        if let Some(standing) = self.queues.get_mut(&queue) {
            self.granted -= std::mem::take(&mut standing.granted);
        }
        self.drop_if_idle(queue);
        self.deal(grants);
    }

    /// Deliveries were settled, or came back.
    pub(super) fn release(&mut self, count: u32, grants: &mut Vec<Grant>) {
        debug_assert!(count <= self.lent, "only what is lent comes back");
        self.lent = self.lent.saturating_sub(count);
        self.deal(grants);
    }

    fn free(&self) -> u32 {
        if self.unlimited > 0 { 0 } else { self.limit.saturating_sub(self.lent + self.granted) }
    }

    fn standing(&mut self, queue: QueueId) -> &mut Standing {
        let had = self.had;
        self.queues.entry(queue).or_insert_with(|| Standing { had, ..Standing::default() })
    }

    fn grant(&mut self, queue: QueueId, free: u32) -> u32 {
        let permits = free.min(GRANT_MAX);
        let standing = self.standing(queue);
        let had = standing.had;
        standing.turn = None;
        standing.granted = permits;
        standing.had += u64::from(permits);
        self.had = self.had.max(had);
        self.granted += permits;
        permits
    }

    /// Deals out what is free to those in line.
    fn deal(&mut self, grants: &mut Vec<Grant>) {
        if self.granted == 0 {
            while let Some(turn) = self.served.pop_first() {
                self.line.insert(turn);
            }
        }
        loop {
            let free = self.free();
            if free == 0 {
                return;
            }
            let Some((_, queue)) = self.line.pop_first() else { return };
            let permits = self.grant(queue, free);
            grants.push(Grant { queue, permits });
        }
    }

    fn drop_if_idle(&mut self, queue: QueueId) {
        let idle = |standing: &Standing| standing.turn.is_none() && standing.granted == 0 && !standing.is_unlimited;
        if self.queues.get(&queue).is_some_and(idle) {
            self.queues.remove(&queue);
        }
    }
}

#[cfg(test)]
mod tests;
