//! Prefetch limits that belong to channels, as one queue has to do with them.
//!
//! A limit is shared by queues, and lives with the connection. A queue asks for permits, uses what it is granted for its
//! consumers of that channel in their turns, and gives the rest back at the end of the input. While it waits for a grant these
//! consumers wait as well, in an order of their own; a grant wakes as many of them as can use it.

use super::rings::Rings;
use crate::model::{Holder, LimitId, LimitKey};

/// The permits of channels, as a queue's driver hands them out.
pub trait Permits {
    /// Asks for permits; what was granted before is used up. Returns how many the queue may use at once. With none it stands
    /// in line, and is granted some by `QueueInput::Grant` when its turn comes.
    fn request(&mut self, limit: LimitKey) -> u32;

    /// The queue uses no more of what it was granted: `unused` go back.
    fn end_grant(&mut self, limit: LimitKey, unused: u32);

    /// The queue has no consumers left for a grant. Returns whether it has left the line; if not, a grant is on its way.
    fn withdraw(&mut self, limit: LimitKey) -> bool;
}

/// What the queue may expect of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not asked.
    Idle,
    /// It stands in line, or a grant is on its way.
    Asked,
    /// So many permits are left of its grant.
    Granted(u32),
}

/// The consumers of one channel that has a limit.
#[derive(Debug)]
pub(super) struct LimitedChannel {
    pub(super) id: LimitId,
    pub(super) standing: Standing,
    /// Registered consumers.
    pub(super) consumers: u32,
    /// Of these, how many stand in the queue's rings; none while the queue waits for a grant.
    pub(super) ready: u32,
    /// Those whose turn comes after all that are ready.
    pub(super) waiting: Rings,
}

impl LimitedChannel {
    pub(super) fn new(id: LimitId) -> Self {
        Self { id, standing: Standing::Idle, consumers: 0, ready: 0, waiting: Rings::default() }
    }

    /// Whether one more message may be given to the channel; uses a permit when it is to be acknowledged. If there is none, the
    /// queue asks for some; a channel that is granted permits is added to `granted`.
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

    /// Whether a consumer that may take again has to wait: for a permit, or for others whose turn comes before its own.
    pub(super) fn is_to_wait(&self, priority: i64) -> bool {
        self.standing == Standing::Asked || self.waiting.first_priority().is_some_and(|first| first >= priority)
    }

    /// How many consumers should be ready: enough for the grant, and one at least to ask for the next.
    pub(super) fn ready_wanted(&self) -> u32 {
        match self.standing {
            Standing::Idle => 1,
            Standing::Asked => 0,
            Standing::Granted(left) => left.max(1),
        }
    }
}
