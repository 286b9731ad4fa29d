//! Resources that run short: memory that clients take, memory of the process, and disk. Each has an alarm. While one is
//! raised, publishers are blocked. It is raised at its limit and cleared at some distance from it, so that it does not
//! flap.

use super::memory::{limit_of_memory, limit_of_process};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;

/// The alarms, and the limits at which they are raised.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    memory: AtomicBool,
    disk: AtomicBool,
    memory_limit: AtomicU64,
    resident_limit: AtomicU64,
    /// How often free memory was given back to the system.
    trims: AtomicU64,
    /// Wakes the alarm watch when a connection finds that memory exceeds its limit.
    memory_notice: Notify,
}

impl Alarms {
    /// Makes the alarms with these limits in bytes. For 0, `memory_bytes` is a share of the memory that the process may
    /// use, and `resident_bytes` is derived from the limit of clients.
    pub(super) fn new(memory_bytes: u64, resident_bytes: u64) -> Self {
        let alarms = Self::default();
        alarms.set_limits(memory_bytes, resident_bytes);
        alarms
    }

    pub(super) fn memory(&self) -> bool {
        self.memory.load(Ordering::Relaxed)
    }

    /// Raises or clears the memory alarm. Returns whether the alarm changed.
    pub(super) fn set_memory(&self, on: bool) -> bool {
        self.memory.swap(on, Ordering::Relaxed) != on
    }

    pub(super) fn disk(&self) -> bool {
        self.disk.load(Ordering::Relaxed)
    }

    /// Raises or clears the disk alarm. Returns whether the alarm changed.
    pub(super) fn set_disk(&self, on: bool) -> bool {
        self.disk.swap(on, Ordering::Relaxed) != on
    }

    pub(super) fn memory_limit(&self) -> u64 {
        self.memory_limit.load(Ordering::Relaxed)
    }

    pub(super) fn resident_limit(&self) -> u64 {
        self.resident_limit.load(Ordering::Relaxed)
    }

    /// Sets the limits from these settings, in bytes; 0 means the default.
    pub(super) fn set_limits(&self, memory_bytes: u64, resident_bytes: u64) {
        let memory_limit = limit_of_memory(memory_bytes);
        let resident_limit = if resident_bytes > 0 { resident_bytes } else { limit_of_process(memory_limit) };
        self.memory_limit.store(memory_limit, Ordering::Relaxed);
        self.resident_limit.store(resident_limit, Ordering::Relaxed);
    }

    /// Records how often free memory was given back to the system.
    pub(super) fn set_trims(&self, trims: u64) {
        self.trims.store(trims, Ordering::Relaxed);
    }

    #[cfg(feature = "metrics")]
    pub(super) fn trims(&self) -> u64 {
        self.trims.load(Ordering::Relaxed)
    }

    /// Called after every read, since a flood fills memory faster than the periodic check notices.
    pub(super) fn note_memory(&self, used: u64) {
        if used > self.memory_limit() && !self.memory() {
            self.memory_notice.notify_one();
        }
    }

    /// Waits until a read has found that memory exceeds its limit.
    pub(super) async fn memory_exceeded(&self) {
        self.memory_notice.notified().await;
    }

    /// The reason for `connection.blocked`, in RabbitMQ's words; `None` while no alarm is raised.
    pub(super) fn reason(&self) -> Option<&'static str> {
        match (self.memory(), self.disk()) {
            (false, false) => None,
            (true, false) => Some("low on memory"),
            (false, true) => Some("low on disk"),
            (true, true) => Some("low on memory & disk"),
        }
    }
}
