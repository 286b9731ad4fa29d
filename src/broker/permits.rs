//! The permits of one channel's prefetch limit, distributed among the queues that have messages for the channel.
//!
//! A queue requests permits, and stands in line if none is free. The queue that has received the fewest permits comes
//! first. Free permits are distributed in rounds: a queue that was granted permits in this round is granted more only
//! when all other queues have used or returned theirs. So each queue gets the same share. A permit costs the same with
//! three queues and with three thousand, since one grant wakes one queue.
//!
//! A grant is plain data and has an owner at every moment: the queue, until it requests again or ends the grant. The
//! used permits then count as lent: the connection has the deliveries, or they are on their way to it.

use crate::model::{LimitId, QueueId};
use ahash::AHashMap;
use std::collections::BTreeSet;

/// Most permits that a queue is granted at once. Few, so that queues take turns visibly for the client; enough that
/// requests cost little compared with deliveries.
const GRANT_MAX: u32 = 8;

/// Permits granted to a queue that stood in line.
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
    /// Permits granted to queues that have not ended their grants.
    granted: u32,
    queues: AHashMap<QueueId, QueueStanding>,
    /// Queues that stand in line, in order.
    line: BTreeSet<(LineOrder, QueueId)>,
    /// Queues that stand in line for the next round, since they were granted permits in this one.
    served: BTreeSet<(LineOrder, QueueId)>,
    last_ticket: u64,
    /// What the queue that was last at the front of the line had received. A queue that joins now starts with this
    /// number, so that it does not overtake all others.
    received_at_front: u64,
    /// Number of queues that may still deliver without a permit. While there are any, the number of lent deliveries is
    /// not final.
    unlimited: usize,
}

/// A queue's position in line: by the permits received, fewest first, then by the time of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LineOrder {
    received: u64,
    ticket: u64,
}

/// A queue that stands in line, holds permits, or has yet to apply the limit.
#[derive(Debug, Default)]
struct QueueStanding {
    turn: Option<LineOrder>,
    granted: u32,
    /// Permits that the queue has received and not returned, since its first request. It starts at `received_at_front`.
    received: u64,
    is_unlimited: bool,
}

/// The use of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PermitCounts {
    /// Most unacknowledged deliveries.
    pub limit: u32,
    /// Unacknowledged deliveries that count against the limit.
    pub lent: u32,
    /// Permits that queues hold and have not used.
    pub granted: u32,
    /// Queues that stand in line.
    pub waiting: usize,
}

impl ChannelPermits {
    /// Begins a limit. `lent` deliveries count from the start. Nothing is granted until all of `queues` apply the
    /// limit.
    pub(super) fn new(id: LimitId, limit: u32, lent: u32, queues: impl Iterator<Item = QueueId>) -> Self {
        let unlimited = |queue| (queue, QueueStanding { is_unlimited: true, ..QueueStanding::default() });
        let queues: AHashMap<_, _> = queues.map(unlimited).collect();
        let unlimited = queues.len();
        let (line, served) = (BTreeSet::new(), BTreeSet::new());
        Self { id, limit, lent, granted: 0, queues, line, served, last_ticket: 0, received_at_front: 0, unlimited }
    }

    pub(super) fn id(&self) -> LimitId {
        self.id
    }

    pub(super) fn counts(&self) -> PermitCounts {
        let (limit, lent, granted) = (self.limit, self.lent, self.granted);
        PermitCounts { limit, lent, granted, waiting: self.line.len() + self.served.len() }
    }

    /// Changes the number of permits.
    pub(super) fn set_limit(&mut self, limit: u32, grants: &mut Vec<Grant>) {
        self.limit = limit;
        self.distribute(grants);
    }

    /// Counts a delivery without a permit, which was on its way when the limit began.
    pub(super) fn count_delivery(&mut self) {
        self.lent += 1;
    }

    /// Records that a queue applies the limit, and that all its earlier deliveries have arrived.
    pub(super) fn queue_limited(&mut self, queue: QueueId, grants: &mut Vec<Grant>) {
        if let Some(standing) = self.queues.get_mut(&queue)
            && std::mem::take(&mut standing.is_unlimited)
        {
            self.unlimited -= 1;
            self.drop_if_idle(queue);
            self.distribute(grants);
        }
    }

    /// A queue requests permits; it has used all that it was granted. Returns how many it may use now. If none, the
    /// queue stands in line.
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
            let turn = LineOrder { received: standing.received, ticket };
            standing.turn = Some(turn);
            self.last_ticket = ticket;
            // A queue that has used its share of this round waits for the next one.
            let line = if used > 0 { &mut self.served } else { &mut self.line };
            line.insert((turn, queue));
        }
        self.distribute(grants);
        0
    }

    /// Ends a queue's grant, of which `unused` permits are left.
    pub(super) fn end_grant(&mut self, queue: QueueId, unused: u32, grants: &mut Vec<Grant>) {
        let Some(standing) = self.queues.get_mut(&queue) else { return };
        let granted = std::mem::take(&mut standing.granted);
        self.granted -= granted;
        self.lent += granted.saturating_sub(unused);
        standing.received = standing.received.saturating_sub(u64::from(unused));
        self.drop_if_idle(queue);
        self.distribute(grants);
    }

    /// Removes a queue from the line. Returns whether it still stood there.
    pub(super) fn withdraw(&mut self, queue: QueueId) -> bool {
        let Some(standing) = self.queues.get_mut(&queue) else { return false };
        let Some(turn) = standing.turn.take() else { return false };
        self.line.remove(&(turn, queue));
        self.served.remove(&(turn, queue));
        self.drop_if_idle(queue);
        true
    }

    /// Revokes everything from a queue that is gone: its grant is free again. Its deliveries may still be on their way.
    pub(super) fn revoke(&mut self, queue: QueueId, grants: &mut Vec<Grant>) {
        self.withdraw(queue);
        if let Some(standing) = self.queues.get_mut(&queue) {
            self.granted -= std::mem::take(&mut standing.granted);
        }
        self.drop_if_idle(queue);
        self.distribute(grants);
    }

    /// Frees the permits of `count` deliveries that were settled or returned.
    pub(super) fn release(&mut self, count: u32, grants: &mut Vec<Grant>) {
        debug_assert!(count <= self.lent, "only what is lent comes back");
        self.lent = self.lent.saturating_sub(count);
        self.distribute(grants);
    }

    fn free(&self) -> u32 {
        if self.unlimited > 0 { 0 } else { self.limit.saturating_sub(self.lent + self.granted) }
    }

    fn standing(&mut self, queue: QueueId) -> &mut QueueStanding {
        let received = self.received_at_front;
        self.queues.entry(queue).or_insert_with(|| QueueStanding { received, ..QueueStanding::default() })
    }

    fn grant(&mut self, queue: QueueId, free: u32) -> u32 {
        let permits = free.min(GRANT_MAX);
        let standing = self.standing(queue);
        let received = standing.received;
        standing.turn = None;
        standing.granted = permits;
        standing.received += u64::from(permits);
        self.received_at_front = self.received_at_front.max(received);
        self.granted += permits;
        permits
    }

    /// Distributes the free permits to the queues in line.
    fn distribute(&mut self, grants: &mut Vec<Grant>) {
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
        let idle =
            |standing: &QueueStanding| standing.turn.is_none() && standing.granted == 0 && !standing.is_unlimited;
        if self.queues.get(&queue).is_some_and(idle) {
            self.queues.remove(&queue);
        }
    }
}

#[cfg(test)]
mod tests;
