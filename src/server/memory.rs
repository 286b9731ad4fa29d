//! The memory that clients use, by purpose. Its sum decides about the memory alarm.
//!
//! Queues update their part in their turns, connections update theirs at the end of each pass. Inlets and topology are
//! sampled periodically.

use crate::broker::Broker;
use crate::exposition::machine::memory_limit;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Default limit of clients' memory, as a share of the memory that the process may use.
const MEMORY_SHARE: f64 = 0.6;
/// Upper bound of the default limit of resident memory, as a share of the same.
const PROCESS_SHARE: f64 = 0.9;
/// Allowance for the broker itself on top of clients' memory: static data, the store's caches, overhead of the
/// allocator.
const OWN_BYTES: u64 = 128 << 20;

/// The limit of clients' memory in bytes. A setting of 0 means a share of the memory that the process may use.
pub(super) fn limit_of_memory(setting: u64) -> u64 {
    if setting > 0 { setting } else { (memory_limit() as f64 * MEMORY_SHARE) as u64 }
}

/// The default limit of resident memory in bytes, for this limit of clients' memory.
pub(super) fn limit_of_process(of_clients: u64) -> u64 {
    of_clients.saturating_add(OWN_BYTES).min((memory_limit() as f64 * PROCESS_SHARE) as u64)
}

/// The memory that one connection uses, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ConnectionMemory {
    /// Incomplete contents, and open transactions.
    pub(super) unfinished: i64,
    /// Partial or parked frames, and output that waits for the socket.
    pub(super) buffers: i64,
    /// Channels, consumers, pending confirms, queues in use.
    pub(super) channels: i64,
}

/// The memory of all connections, of inlets and of topology, in bytes.
#[derive(Debug, Default)]
pub(super) struct ClientMemory {
    unfinished: AtomicI64,
    buffers: AtomicI64,
    channels: AtomicI64,
    inlets: AtomicU64,
    topology: AtomicU64,
}

/// Clients' memory in its parts, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MemoryUse {
    pub(super) queues: u64,
    pub(super) unfinished: u64,
    pub(super) buffers: u64,
    pub(super) channels: u64,
    pub(super) inlets: u64,
    pub(super) topology: u64,
}

impl ClientMemory {
    /// Updates the sum for one connection, which uses `now`; `reported` is the part that was added for it before.
    pub(super) fn fold(&self, reported: &mut ConnectionMemory, now: ConnectionMemory) {
        let parts = [
            (&self.unfinished, now.unfinished - reported.unfinished),
            (&self.buffers, now.buffers - reported.buffers),
            (&self.channels, now.channels - reported.channels),
        ];
        for (sum, change) in parts {
            if change != 0 {
                sum.fetch_add(change, Ordering::Relaxed);
            }
        }
        *reported = now;
    }

    /// Samples inlets and topology, whose memory is not reported as it changes.
    pub(super) fn sample(&self, broker: &Broker) {
        self.inlets.store(broker.inlet_bytes(), Ordering::Relaxed);
        self.topology.store(broker.topology_bytes(), Ordering::Relaxed);
    }

    /// Bytes of all connections' incomplete contents and open transactions.
    pub(super) fn unfinished_bytes(&self) -> u64 {
        positive(&self.unfinished)
    }

    /// All parts, including queues.
    pub(super) fn in_use(&self, broker: &Broker) -> MemoryUse {
        MemoryUse {
            queues: broker.memory_bytes(),
            unfinished: positive(&self.unfinished),
            buffers: positive(&self.buffers),
            channels: positive(&self.channels),
            inlets: self.inlets.load(Ordering::Relaxed),
            topology: self.topology.load(Ordering::Relaxed),
        }
    }
}

impl MemoryUse {
    pub(super) fn sum(&self) -> u64 {
        let Self { queues, unfinished, buffers, channels, inlets, topology } = self;
        queues + unfinished + buffers + channels + inlets + topology
    }
}

/// A sum may be below zero for a moment, while several connections update it. It then counts as zero.
fn positive(bytes: &AtomicI64) -> u64 {
    u64::try_from(bytes.load(Ordering::Relaxed)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_connections_is_summed_up_and_released_with_them() {
        let memory = ClientMemory::default();
        let (mut one, mut other) = (ConnectionMemory::default(), ConnectionMemory::default());
        memory.fold(&mut one, ConnectionMemory { unfinished: 5, buffers: 7, channels: 1 });
        memory.fold(&mut other, ConnectionMemory { unfinished: 3, buffers: 0, channels: 2 });
        memory.fold(&mut one, ConnectionMemory { unfinished: 1, buffers: 9, channels: 1 });
        assert_eq!((memory.unfinished_bytes(), positive(&memory.buffers), positive(&memory.channels)), (4, 9, 3));
        memory.fold(&mut one, ConnectionMemory::default());
        memory.fold(&mut other, ConnectionMemory::default());
        assert_eq!((memory.unfinished_bytes(), positive(&memory.buffers), positive(&memory.channels)), (0, 0, 0));
    }
}
