//! Resources that run short: memory that clients take, memory of the process, and disk. Each has an alarm. While one is
//! raised, publishers are blocked. It is raised at its limit and cleared at some distance from it, so that it does not flap.

use super::memory::{limit_of_memory, limit_of_process};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;

/// The alarms in force, and the limits at which they go off.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    memory: AtomicBool,
    disk: AtomicBool,
    memory_limit: AtomicU64,
    resident_limit: AtomicU64,
    /// How often free memory was given back to the system.
    trims: AtomicU64,
    /// A read has found that memory is beyond its limit.
    look: Notify,
}

impl Alarms {
    /// With these limits of memory; 0 is a share of what the process may use, and an allowance beyond that.
    pub(super) fn new(memory_bytes: u64, resident_bytes: u64) -> Self {
        let alarms = Self::default();
        alarms.set_limits(memory_bytes, resident_bytes);
        alarms
    }

    pub(super) fn memory(&self) -> bool {
        self.memory.load(Ordering::Relaxed)
    }

    /// Raises or clears the alarm of memory; whether that changed it.
    pub(super) fn set_memory(&self, on: bool) -> bool {
        self.memory.swap(on, Ordering::Relaxed) != on
    }

    pub(super) fn disk(&self) -> bool {
        self.disk.load(Ordering::Relaxed)
    }

    /// Raises or clears the alarm of the disk; whether that changed it.
    pub(super) fn set_disk(&self, on: bool) -> bool {
        self.disk.swap(on, Ordering::Relaxed) != on
    }

    pub(super) fn memory_limit(&self) -> u64 {
        self.memory_limit.load(Ordering::Relaxed)
    }

    pub(super) fn resident_limit(&self) -> u64 {
        self.resident_limit.load(Ordering::Relaxed)
    }

    /// Changes the limits to what these settings mean.
    pub(super) fn set_limits(&self, memory_bytes: u64, resident_bytes: u64) {
        let memory_limit = limit_of_memory(memory_bytes);
        let resident_limit = if resident_bytes > 0 { resident_bytes } else { limit_of_process(memory_limit) };
        self.memory_limit.store(memory_limit, Ordering::Relaxed);
        self.resident_limit.store(resident_limit, Ordering::Relaxed);
    }

    /// Free memory was given back to the system so often.
    pub(super) fn set_trims(&self, trims: u64) {
        self.trims.store(trims, Ordering::Relaxed);
    }

    #[cfg(feature = "metrics")]
    pub(super) fn trims(&self) -> u64 {
        self.trims.load(Ordering::Relaxed)
    }

    /// After every read: a flood fills memory faster than anybody looks from time to time.
    pub(super) fn note_memory(&self, used: u64) {
        if used > self.memory_limit() && !self.memory() {
            self.look.notify_one();
        }
    }

    /// Returns when a read has found that memory is beyond its limit.
    pub(super) async fn noted(&self) {
        self.look.notified().await;
    }

    /// The reason that `connection.blocked` gives; none while all is well.
    pub(super) fn reason(&self) -> Option<&'static str> {
        match (self.memory(), self.disk()) {
            (false, false) => None,
            (true, false) => Some("low on memory"),
            (false, true) => Some("low on disk"),
            (true, true) => Some("low on memory & disk"),
        }
    }
}
