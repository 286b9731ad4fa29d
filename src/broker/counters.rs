//! Counters of events over all vhosts. They are updated once per turn and per read, never per message.

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
            /// Reads all counters. Each is exact, but they are not read at the same moment.
            pub fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Messages from publishers.
    received,
    /// Messages from publishers on channels in confirm mode.
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
    /// Delivered to consumers without acknowledgement.
    delivered_auto_ack,
    /// Sent for `basic.get`, to be acknowledged.
    got_manual_ack,
    /// Sent for `basic.get` without acknowledgement.
    got_auto_ack,
    /// `basic.get` on an empty queue.
    get_empty,
    /// Deliveries marked `redelivered`.
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
    /// Persistent messages enqueued in durable queues.
    durable_in,
    /// Of `durable_in`, the messages that left before they were written.
    never_written,
    /// Stored messages read back.
    rows_read,
    /// Queues declared, new or not.
    queues_declared,
    /// Queues created.
    queues_created,
    /// Queues deleted.
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

/// How often each limit has refused something since the start.
#[derive(Debug, Default)]
pub struct RefusalCounters([AtomicU64; NamedLimit::COUNT]);

impl RefusalCounters {
    /// Counts a refusal by a limit.
    pub fn note(&self, limit: NamedLimit) {
        self.add(limit, 1);
    }

    fn add(&self, limit: NamedLimit, count: u64) {
        Counters::add(&self.0[limit as usize], count);
    }

    /// Adds a session's refusals, and resets them.
    pub fn fold(&self, refusals: &mut Refusals) {
        let refusals = std::mem::take(refusals);
        if refusals != Refusals::default() {
            NamedLimit::ALL.into_iter().for_each(|limit| self.add(limit, refusals.of(limit)));
        }
    }

    /// Reads all counts of refusals.
    pub fn snapshot(&self) -> Refusals {
        let mut refusals = Refusals::default();
        for limit in NamedLimit::ALL {
            refusals.set(limit, self.0[limit as usize].load(Ordering::Relaxed));
        }
        refusals
    }
}

/// The publishes of one read; added to the counters at its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Publishes {
    /// Messages received.
    pub received: u64,
    /// Messages received on channels in confirm mode.
    pub received_confirm: u64,
    /// Copies for queues.
    pub routed: u64,
    /// Messages that no queue took, returned.
    pub returned: u64,
    /// Messages that no queue took, dropped.
    pub dropped: u64,
}

impl Publishes {
    /// Counts a message that went to `parts` queues.
    pub fn note(&mut self, mandatory: bool, parts: u32) {
        self.received += 1;
        self.routed += u64::from(parts);
        if parts == 0 {
            *(if mandatory { &mut self.returned } else { &mut self.dropped }) += 1;
        }
    }
}

impl Counters {
    /// Adds to a counter.
    pub fn add(counter: &AtomicU64, count: u64) {
        if count > 0 {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Adds the publishes of one read, and resets them.
    pub fn fold_publishes(&self, publishes: &mut Publishes) {
        let Publishes { received, received_confirm, routed, returned, dropped } = std::mem::take(publishes);
        Self::add(&self.received, received);
        Self::add(&self.received_confirm, received_confirm);
        Self::add(&self.routed, routed);
        Self::add(&self.unroutable_returned, returned);
        Self::add(&self.unroutable_dropped, dropped);
    }

    /// Adds the counts of one turn. `dead_lettered` tells whether the queue has a dead-letter exchange.
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
