//! Resources that run short: memory for messages, and disk. While one does, whoever publishes is blocked.

use super::shared::Shared;
use crate::exposition::process::{available_disk, memory_limit};
use crate::model::Notice;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;

/// How often resources are looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// And how often while so little of the disk is left that fast publishers could fill it within the usual interval.
const CLOSE_INTERVAL: Duration = Duration::from_millis(10);
/// Bytes beyond the limit of the disk alarm within which that is so.
const CLOSE_BYTES: u64 = 1 << 30;
/// Of the memory that the process may use, what messages may take unless a setting says otherwise.
const MEMORY_SHARE: f64 = 0.6;

/// The alarms in force, and the limits at which they go off.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    memory: AtomicBool,
    disk: AtomicBool,
    memory_limit: AtomicU64,
    /// Somebody has seen that it is time to look.
    look: Notify,
}

impl Alarms {
    /// With this limit of memory; 0 is a share of what the process may use.
    pub(super) fn new(memory_bytes: u64) -> Self {
        Self { memory_limit: limit_of_memory(memory_bytes).into(), ..Self::default() }
    }

    pub(super) fn memory(&self) -> bool {
        self.memory.load(Ordering::Relaxed)
    }

    pub(super) fn disk(&self) -> bool {
        self.disk.load(Ordering::Relaxed)
    }

    pub(super) fn memory_limit(&self) -> u64 {
        self.memory_limit.load(Ordering::Relaxed)
    }

    /// Changes the limit of memory to what this setting means.
    pub(super) fn set_memory_limit(&self, memory_bytes: u64) {
        self.memory_limit.store(limit_of_memory(memory_bytes), Ordering::Relaxed);
    }

    /// After every read: a flood fills memory faster than anybody looks from time to time.
    pub(super) fn note_memory(&self, used: u64) {
        if used > self.memory_limit() && !self.memory() {
            self.look.notify_one();
        }
    }

    /// What clients are told; none while all is well.
    pub(super) fn reason(&self) -> Option<&'static str> {
        match (self.memory(), self.disk()) {
            (false, false) => None,
            (true, false) => Some("low on memory"),
            (false, true) => Some("low on disk"),
            (true, true) => Some("low on memory & disk"),
        }
    }
}

/// The limit of memory that a setting means: 0 is a share of what the process may use.
pub(super) fn limit_of_memory(setting: u64) -> u64 {
    if setting > 0 { setting } else { (memory_limit() as f64 * MEMORY_SHARE) as u64 }
}

/// Looks at the resources from time to time, and tells all connections what has changed. Ends with the runtime.
pub(super) async fn watch(shared: Arc<Shared>) {
    let keeps_files = shared.settings.keeps_files();
    let mut interval = Duration::ZERO;
    loop {
        // Which of the two it was makes no difference.
        let _ = tokio::time::timeout(interval, shared.alarms.look.notified()).await;
        let before = shared.alarms.reason();
        let used = shared.broker.memory_bytes();
        let limit = shared.alarms.memory_limit();
        let disk_min = shared.current().settings.limits.disk_free_bytes;
        set(&shared.alarms.memory, used > limit, "memory", used, limit);
        interval = INTERVAL;
        if keeps_files && let Some(free) = available_disk(&shared.settings.data_dir) {
            // A log that somebody keeps from being emptied grows with every message until the disk is full.
            let vitals = shared.broker.writer().vitals();
            let is_on = free < disk_min || vitals.log_is_pinned || vitals.is_full;
            set(&shared.alarms.disk, is_on, "disk", free, disk_min);
            if free < disk_min.saturating_add(CLOSE_BYTES) {
                interval = CLOSE_INTERVAL;
            }
        }
        let now = shared.alarms.reason();
        if now != before {
            for peer in shared.broker.peers() {
                peer.tell_one(Notice::Alarm(now.map(str::to_owned)));
            }
        }
    }
}

fn set(alarm: &AtomicBool, on: bool, what: &str, bytes: u64, limit: u64) {
    if alarm.swap(on, Ordering::Relaxed) == on {
        return;
    }
    if on {
        tracing::warn!(what, bytes, limit, "alarm: publishers are blocked");
    } else {
        tracing::info!(what, bytes, limit, "the alarm is over");
    }
}
