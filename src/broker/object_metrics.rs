//! Counters of events per queue, exchange and connection.
//!
//! Only the thread that has a queue's turn writes the queue's counts, and only the thread that makes a connection's
//! pass writes the connection's. So a plain load and store is enough. Readers see each number as of some moment.

use crate::queue::Counts;
use std::sync::atomic::{AtomicU64, Ordering};

/// Adds to a counter that only one thread at a time writes.
fn add(counter: &AtomicU64, count: u64) {
    if count > 0 {
        counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
    }
}

macro_rules! shared {
    ($(#[$meta:meta])* $shared:ident of $plain:ident { $($name:ident,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub(crate) struct $shared {
            $($name: AtomicU64,)*
        }

        impl $shared {
            /// Adds the counts since the last call. Only one thread at a time may call this.
            pub(crate) fn add(&self, done: &$plain) {
                $(add(&self.$name, done.$name);)*
            }

            /// The numbers as they are now.
            pub(crate) fn read(&self) -> $plain {
                $plain { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

shared! {
    /// `Counts` of a queue since it was declared, or since the broker started.
    SharedCounts of Counts {
        published,
        delivered_manual_ack,
        delivered_auto_ack,
        got_manual_ack,
        got_auto_ack,
        get_empty,
        redelivered,
        acknowledged,
        overflowed,
        expired,
        rejected,
        durable_in,
        never_written,
    }
}

/// Counts of a connection's events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// Reads from the socket that returned bytes.
    pub reads: u64,
    /// Bytes read.
    pub bytes_in: u64,
    /// Writes to the socket.
    pub writes: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// Messages published.
    pub published: u64,
    /// Publishes confirmed.
    pub confirmed: u64,
    /// Channels opened.
    pub channels_opened: u64,
    /// Channels closed.
    pub channels_closed: u64,
}

shared! {
    /// `Traffic` of a connection since it opened its vhost.
    SharedTraffic of Traffic {
        reads,
        bytes_in,
        writes,
        bytes_out,
        published,
        confirmed,
        channels_opened,
        channels_closed,
    }
}

/// Counts of messages to an exchange. Many connections publish to one exchange, so each adds its counts once per read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExchangeCounts {
    /// Messages published to the exchange.
    pub published: u64,
    /// Copies that were routed to queues, directly or through other exchanges.
    pub routed: u64,
}

/// `ExchangeCounts` of an exchange since it was declared, or since the broker started.
#[derive(Debug, Default)]
pub(crate) struct SharedExchangeCounts {
    published: AtomicU64,
    routed: AtomicU64,
}

impl SharedExchangeCounts {
    /// Adds the counts of a connection.
    pub(crate) fn add(&self, counts: ExchangeCounts) {
        self.published.fetch_add(counts.published, Ordering::Relaxed);
        self.routed.fetch_add(counts.routed, Ordering::Relaxed);
    }

    /// The numbers as they are now.
    pub(crate) fn read(&self) -> ExchangeCounts {
        ExchangeCounts {
            published: self.published.load(Ordering::Relaxed),
            routed: self.routed.load(Ordering::Relaxed),
        }
    }
}
