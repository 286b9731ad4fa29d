//! What clients take of memory, by what it is for: the one sum that the memory alarm looks at.
//!
//! Queues count what they hold in their turns, connections what they hold at the end of each pass. What waits in inlets, and
//! topology, are looked at from time to time.

use crate::broker::Broker;
use crate::exposition::machine::memory_limit;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Of the memory that the process may use, what clients may take unless a setting says otherwise.
const MEMORY_SHARE: f64 = 0.6;
/// And of that memory, what the process may have in all.
const PROCESS_SHARE: f64 = 0.9;
/// What the broker itself may take beside that: its code's data, the store's caches, what the allocator wastes.
const OWN_BYTES: u64 = 128 << 20;

/// The limit of memory that a setting means: 0 is a share of what the process may use.
pub(super) fn limit_of_memory(setting: u64) -> u64 {
    if setting > 0 { setting } else { (memory_limit() as f64 * MEMORY_SHARE) as u64 }
}

/// What the process may have in all, unless a setting says otherwise.
pub(super) fn limit_of_process(of_clients: u64) -> u64 {
    of_clients.saturating_add(OWN_BYTES).min((memory_limit() as f64 * PROCESS_SHARE) as u64)
}

/// What one connection holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Contents and transactions that are not complete.
    pub(super) unfinished: i64,
    /// Frames that are cut or parked, and output that waits for the socket.
    pub(super) buffers: i64,
    /// Channels, consumers, pending confirms, queues in use.
    pub(super) channels: i64,
}

/// What all of them hold, and the rest.
#[derive(Debug, Default)]
pub(super) struct ClientMemory {
    unfinished: AtomicI64,
    buffers: AtomicI64,
    channels: AtomicI64,
    inlets: AtomicU64,
    topology: AtomicU64,
}

/// The sum in its parts, in bytes.
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
    /// A connection holds so much now; `reported` is what was added for it before.
    pub(super) fn fold(&self, reported: &mut Held, now: Held) {
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

    /// Looks at what nobody folds in.
    pub(super) fn sample(&self, broker: &Broker) {
        self.inlets.store(broker.inlet_bytes(), Ordering::Relaxed);
        self.topology.store(broker.topology_bytes(), Ordering::Relaxed);
    }

    /// Contents and transactions of all connections that are not complete.
    pub(super) fn unfinished_bytes(&self) -> u64 {
        positive(&self.unfinished)
    }

    /// All of it, and what queues take.
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

/// Below zero for a moment while connections fold in what they hold.
fn positive(bytes: &AtomicI64) -> u64 {
    u64::try_from(bytes.load(Ordering::Relaxed)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_connections_hold_is_summed_up_and_gone_when_they_are() {
        let memory = ClientMemory::default();
        let (mut one, mut other) = (Held::default(), Held::default());
        memory.fold(&mut one, Held { unfinished: 5, buffers: 7, channels: 1 });
        memory.fold(&mut other, Held { unfinished: 3, buffers: 0, channels: 2 });
        memory.fold(&mut one, Held { unfinished: 1, buffers: 9, channels: 1 });
        assert_eq!((memory.unfinished_bytes(), positive(&memory.buffers), positive(&memory.channels)), (4, 9, 3));
        memory.fold(&mut one, Held::default());
        memory.fold(&mut other, Held::default());
        assert_eq!((memory.unfinished_bytes(), positive(&memory.buffers), positive(&memory.channels)), (0, 0, 0));
    }
}
