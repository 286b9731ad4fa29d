//! Numbers that the node assigns, each only once.

use crate::model::{ConnectionId, QueueId};
use std::sync::atomic::{AtomicU64, Ordering};

/// Low bits of a queue's id, which count within one start of the process. The high bits are the number of the start.
const QUEUES_PER_BOOT_BITS: u32 = 40;

/// The next numbers of queues, connections and groups.
#[derive(Debug)]
pub(super) struct Numbers {
    queues: AtomicU64,
    connections: AtomicU64,
    groups: AtomicU64,
}

impl Numbers {
    /// `boot` is the number of this start; it makes queue ids unique among all starts.
    pub(super) fn new(boot: u32) -> Self {
        Self {
            queues: AtomicU64::new(u64::from(boot) << QUEUES_PER_BOOT_BITS),
            connections: AtomicU64::new(0),
            groups: AtomicU64::new(0),
        }
    }

    pub(super) fn next_queue(&self) -> QueueId {
        QueueId(self.queues.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(super) fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub(super) fn next_group(&self) -> u64 {
        self.groups.fetch_add(1, Ordering::Relaxed)
    }
}
