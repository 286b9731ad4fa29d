//! Prefetch limits that belong to channels, from the view of one queue.
//!
//! A limit is shared by queues, and belongs to the connection. A queue requests permits, uses them for its consumers of that
//! channel in their turns, and gives unused permits back at the end of the input. While the queue waits for a grant, these
//! consumers wait as well, in an order of their own; a grant wakes as many of them as there are permits.

use super::rings::Rings;
use crate::model::{Holder, LimitId, LimitKey};

/// The permits of channels, as a queue's driver hands them out.
pub trait Permits {
    /// Requests permits, after earlier ones are used up. Returns how many the queue may use at once. If there are none, the queue
    /// stands in line, and gets permits by `QueueCommand::Grant` when its turn comes.
    fn request(&mut self, limit: LimitKey) -> u32;

    /// Ends a grant: `unused` permits go back.
    fn end_grant(&mut self, limit: LimitKey, unused: u32);

    /// The queue has no consumers left for a grant. Returns whether it has left the line; if not, a grant is on its way.
    fn withdraw(&mut self, limit: LimitKey) -> bool;
}

/// The standing of the queue with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// The queue has not requested permits.
    Idle,
    /// The queue stands in line, or a grant is on its way.
    Asked,
    /// The queue has a grant with so many permits left.
    Granted(u32),
}

/// The consumers of one channel that has a limit.
#[derive(Debug)]
pub(super) struct LimitedChannel {
    pub(super) id: LimitId,
    pub(super) standing: Standing,
    /// Registered consumers.
    pub(super) consumers: u32,
    /// How many of the consumers are in the queue's rings; none while the queue waits for a grant.
    pub(super) ready: u32,
    /// Consumers that wait for a permit; their turns come after those of the ready ones.
    pub(super) waiting: Rings,
}

impl LimitedChannel {
    pub(super) fn new(id: LimitId) -> Self {
        Self { id, standing: Standing::Idle, consumers: 0, ready: 0, waiting: Rings::default() }
    }

    /// Whether one more message may be given to the channel; uses a permit if the message is to be acknowledged. Without a permit
    /// the queue requests some; a channel that is granted permits is added to `granted`.
    pub(super) fn acquire(
        &mut self,
        holder: Holder,
        no_ack: bool,
        permits: &mut dyn Permits,
        granted: &mut Vec<Holder>,
    ) -> bool {
        if matches!(self.standing, Standing::Idle | Standing::Granted(0)) {
            let was = self.standing;
            self.standing = match permits.request(LimitKey { holder, id: self.id }) {
                0 => Standing::Asked,
                granted => Standing::Granted(granted),
            };
            if was == Standing::Idle && self.standing != Standing::Asked {
                granted.push(holder);
            }
        }
        let Standing::Granted(left) = &mut self.standing else { return false };
        *left -= u32::from(!no_ack);
        true
    }

    /// Whether a consumer that may take again has to wait: for a permit, or for consumers with an earlier turn.
    pub(super) fn is_to_wait(&self, priority: i64) -> bool {
        self.standing == Standing::Asked || self.waiting.first_priority().is_some_and(|first| first >= priority)
    }

    /// How many consumers should be ready: enough for the grant, and at least one to request the next grant.
    pub(super) fn ready_wanted(&self) -> u32 {
        match self.standing {
            Standing::Idle => 1,
            Standing::Asked => 0,
            Standing::Granted(left) => left.max(1),
        }
    }
}
