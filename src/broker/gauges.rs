//! Numbers of open connections and channels, and of their pending work.

use std::sync::atomic::{AtomicI64, Ordering};

/// Numbers that rise and fall, over all connections. Each may be below zero for a moment, while several connections
/// update it.
#[derive(Debug, Default)]
pub(crate) struct Gauges {
    /// Sockets, from accept to close.
    pub connections: AtomicI64,
    /// Connections that connection.open has admitted.
    pub admitted: AtomicI64,
    /// Open channels.
    pub channels: AtomicI64,
    /// Channels that have published.
    pub publishers: AtomicI64,
    /// Publishes that wait for a confirm.
    pub unconfirmed: AtomicI64,
    /// Publishes of open transactions.
    pub uncommitted: AtomicI64,
    /// Acknowledgements of open transactions.
    pub acks_uncommitted: AtomicI64,
}

impl Gauges {
    /// Adds to a gauge.
    pub(crate) fn add(gauge: &AtomicI64, change: i64) {
        if change != 0 {
            gauge.fetch_add(change, Ordering::Relaxed);
        }
    }

    /// Reads a gauge; a negative value counts as zero.
    pub(crate) fn read(gauge: &AtomicI64) -> u64 {
        u64::try_from(gauge.load(Ordering::Relaxed)).unwrap_or(0)
    }
}
