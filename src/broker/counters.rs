//! What was done so far, over all vhosts; folded in per turn and per read, never per message.

use crate::model::{NamedLimit, Refusals};
use crate::queue::Counts;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$meta:meta])* $name:ident,)*) => {
        /// Counters since the start.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$meta])* pub $name: AtomicU64,)*
        }

        /// The counters at one moment.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct CountersSnapshot {
            $($(#[$meta])* pub $name: u64,)*
        }

        impl Counters {
            /// Reads them all; each is exact, their sum is of no one moment.
            pub fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Messages from publishers.
    received,
    /// Of these, those on channels in confirm mode.
    received_confirm,
    /// Routed to at least one queue.
    routed,
    /// Dropped because no queue took them.
    unroutable_dropped,
    /// Returned because no queue took them.
    unroutable_returned,
    /// Confirmed to publishers.
    confirmed,
    /// Delivered to consumers that acknowledge.
    delivered_manual_ack,
    /// Delivered to consumers that do not.
    delivered_auto_ack,
    /// Got, to be acknowledged.
    got_manual_ack,
    /// Got without acknowledgement.
    got_auto_ack,
    /// Gets that found nothing.
    get_empty,
    /// Delivered again.
    redelivered,
    /// Acknowledged.
    acknowledged,
    /// Dropped beyond a queue's limits.
    overflowed,
    /// Dropped because expired.
    expired,
    /// Dropped because rejected.
    rejected,
    /// Dead-lettered beyond a queue's limits.
    dead_overflowed,
    /// Dead-lettered because expired.
    dead_expired,
    /// Dead-lettered because rejected.
    dead_rejected,
    /// Persistent messages taken in by durable queues.
    durable_in,
    /// Of these, those that left before they were written.
    never_written,
    /// Stored messages read back.
    rows_read,
    /// Queues declared, new or not.
    queues_declared,
    /// Queues made.
    queues_created,
    /// Queues gone.
    queues_deleted,
    /// Channels opened.
    channels_opened,
    /// Channels closed.
    channels_closed,
    /// Connections opened.
    connections_opened,
    /// Connections closed.
    connections_closed,
    /// Logins tried.
    auth_attempts,
    /// Logins refused.
    auth_failures,
    /// Bytes read from clients.
    bytes_in,
    /// Bytes written to clients.
    bytes_out,
    /// Reads from sockets.
    reads,
    /// Writes to sockets.
    writes,
}

/// What limits have refused since the start.
#[derive(Debug, Default)]
pub struct RefusalCounters([AtomicU64; NamedLimit::COUNT]);

impl RefusalCounters {
    /// A limit has refused something.
    pub fn note(&self, limit: NamedLimit) {
        self.add(limit, 1);
    }

    fn add(&self, limit: NamedLimit, count: u64) {
        Counters::add(&self.0[limit as usize], count);
    }

    /// Adds what a session's limits have refused, and begins anew.
    pub fn fold(&self, refusals: &mut Refusals) {
        let refusals = std::mem::take(refusals);
        if refusals != Refusals::default() {
            NamedLimit::ALL.into_iter().for_each(|limit| self.add(limit, refusals.of(limit)));
        }
    }

    /// Reads them all.
    pub fn snapshot(&self) -> Refusals {
        let mut refusals = Refusals::default();
        for limit in NamedLimit::ALL {
            refusals.set(limit, self.0[limit as usize].load(Ordering::Relaxed));
        }
        refusals
    }
}

/// What one read published, to be folded in at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publishes {
    /// Messages.
    pub received: u64,
    /// Of these, those on channels in confirm mode.
    pub received_confirm: u64,
    /// Copies for queues.
    pub routed: u64,
    /// Messages that no queue took, returned.
    pub returned: u64,
    /// Messages that no queue took, dropped.
    pub dropped: u64,
}

impl Publishes {
    /// A message went to so many queues.
    pub fn note(&mut self, mandatory: bool, parts: u32) {
        self.received += 1;
        self.routed += u64::from(parts);
        if parts == 0 {
            *(if mandatory { &mut self.returned } else { &mut self.dropped }) += 1;
        }
    }
}

impl Counters {
    /// Adds to one of them.
    pub fn add(counter: &AtomicU64, count: u64) {
        if count > 0 {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Folds in what one read published, and begins anew.
    pub fn fold_publishes(&self, publishes: &mut Publishes) {
        let Publishes { received, received_confirm, routed, returned, dropped } = std::mem::take(publishes);
        Self::add(&self.received, received);
        Self::add(&self.received_confirm, received_confirm);
        Self::add(&self.routed, routed);
        Self::add(&self.unroutable_returned, returned);
        Self::add(&self.unroutable_dropped, dropped);
    }

    /// Folds in what one turn of a queue did.
    pub(super) fn fold(&self, counts: &Counts, dead_lettered: bool) {
        let (overflowed, expired, rejected) = if dead_lettered {
            (&self.dead_overflowed, &self.dead_expired, &self.dead_rejected)
        } else {
            (&self.overflowed, &self.expired, &self.rejected)
        };
        let pairs = [
            (&self.delivered_manual_ack, counts.delivered_manual_ack),
            (&self.delivered_auto_ack, counts.delivered_auto_ack),
            (&self.got_manual_ack, counts.got_manual_ack),
            (&self.got_auto_ack, counts.got_auto_ack),
            (&self.get_empty, counts.get_empty),
            (&self.redelivered, counts.redelivered),
            (&self.acknowledged, counts.acknowledged),
            (overflowed, counts.overflowed),
            (expired, counts.expired),
            (rejected, counts.rejected),
            (&self.durable_in, counts.durable_in),
            (&self.never_written, counts.never_written),
        ];
        for (counter, count) in pairs {
            Self::add(counter, count);
        }
    }
}
