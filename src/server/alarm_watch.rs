//! Checks memory and disk periodically, and raises and clears the alarms.

use super::shared::Shared;
use super::tasks::run_blocking;
use super::trim::{Trimmer, trim};
use crate::exposition::machine::{anonymous_bytes, available_disk};
use crate::model::Notice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often resources are checked.
const INTERVAL: Duration = Duration::from_millis(250);
/// How often they are checked while fast publishers could fill the rest of the disk within the usual interval.
const CLOSE_INTERVAL: Duration = Duration::from_millis(10);
/// The close interval applies while less than the disk alarm's limit and these bytes is free.
const CLOSE_BYTES: u64 = 1 << 30;
/// A raised alarm ends once the resource is within its limit by this fraction of it (1/20).
const MARGIN_DIVISOR: u64 = 20;
/// The broker counts as idle if its sockets had at most this many reads and writes in one interval.
const IDLE_OPERATIONS: u64 = 64;
/// Intervals between two samples of the memory that is not counted as it changes: inlets and topology.
const SAMPLE_INTERVALS: u32 = 4;

/// Whether `used` is too high. Once it was, it stays so until it is clearly below the limit.
fn is_over(used: u64, limit: u64, was_over: bool) -> bool {
    used > if was_over { limit - limit / MARGIN_DIVISOR } else { limit }
}

/// Whether `left` is too low. Once it was, it stays so until it is clearly above the limit.
fn is_under(left: u64, limit: u64, was_under: bool) -> bool {
    left < if was_under { limit.saturating_add(limit / MARGIN_DIVISOR) } else { limit }
}

/// Checks the resources periodically, and notifies all connections when the alarms change. Ends with the runtime.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut memory = MemoryWatch::default();
    let mut disk_is_low = false;
    let mut interval = Duration::ZERO;
    loop {
        // A timeout and an exceeded limit lead to the same check.
        let _ = tokio::time::timeout(interval, shared.alarms.memory_exceeded()).await;
        let before = shared.alarms.reason();
        memory.check(&shared).await;
        interval = check_disk(&shared, &mut disk_is_low);
        let now = shared.alarms.reason();
        if now != before {
            for peer in shared.broker.peers() {
                peer.notify_one(Notice::Alarm(now.map(str::to_owned)));
            }
        }
    }
}

/// Checks the disk. Returns how long to wait before the next check.
fn check_disk(shared: &Shared, is_low: &mut bool) -> Duration {
    if !shared.settings.keeps_files() {
        return INTERVAL;
    }
    let Some(free) = available_disk(&shared.settings.data_dir) else { return INTERVAL };
    let least = shared.current().settings.limits.disk_free_bytes;
    *is_low = is_under(free, least, *is_low);
    // A log that another process pins cannot be emptied: it grows with every message until the disk is full.
    let vitals = shared.broker.writer().vitals();
    let is_short = *is_low || vitals.log_is_pinned || vitals.is_full;
    if shared.alarms.set_disk(is_short) {
        log_change("disk", is_short, free, least);
    }
    if free < least.saturating_add(CLOSE_BYTES) { CLOSE_INTERVAL } else { INTERVAL }
}

/// What is remembered between two checks of memory.
#[derive(Debug, Default)]
struct MemoryWatch {
    /// Clients use more memory than their limit.
    clients_over: bool,
    /// The process has more resident memory than its limit, although all free memory was given back.
    resident_over: bool,
    trimmer: Trimmer,
    /// When the process was last checked, in intervals since the start.
    checked_at: u64,
    /// Reads and writes of sockets up to that check.
    operations: u64,
    checks: u32,
}

impl MemoryWatch {
    async fn check(&mut self, shared: &Shared) {
        let interval = shared.clock.now().monotonic.0 / INTERVAL.as_micros() as u64;
        let is_time = interval != self.checked_at;
        if is_time {
            self.checked_at = interval;
            if self.checks.is_multiple_of(SAMPLE_INTERVALS) {
                shared.memory.sample(&shared.broker);
            }
            self.checks = self.checks.wrapping_add(1);
            shared.broker.spill_idle_queues();
        }
        let in_use = shared.memory.in_use(&shared.broker).sum();
        let limit = shared.alarms.memory_limit();
        self.clients_over = is_over(in_use, limit, self.clients_over);
        if is_time {
            self.check_process(shared, in_use).await;
        }
        let is_short = self.clients_over || self.resident_over;
        if shared.alarms.set_memory(is_short) {
            log_change("memory", is_short, in_use, limit);
        }
    }

    /// Gives free memory back if enough is free, then compares the resident memory with its limit.
    async fn check_process(&mut self, shared: &Shared, in_use: u64) {
        let Some(mut resident) = anonymous_bytes() else { return };
        let limit = shared.alarms.resident_limit();
        let operations = shared.broker.counters().reads.load(Ordering::Relaxed)
            + shared.broker.counters().writes.load(Ordering::Relaxed);
        let is_idle = operations - std::mem::replace(&mut self.operations, operations) <= IDLE_OPERATIONS;
        let is_short = is_over(resident, limit, self.resident_over);
        if self.trimmer.is_due(resident, in_use, is_idle, is_short, shared.clock.now().monotonic) {
            run_blocking(trim).await;
            let before = resident;
            resident = anonymous_bytes().unwrap_or(before);
            self.trimmer.note_trim(resident, in_use, shared.clock.now().monotonic);
            shared.alarms.set_trims(self.trimmer.trims);
            tracing::debug!(before, after = resident, in_use, "free memory was given back to the system");
        }
        let was_over = self.resident_over;
        self.resident_over = is_over(resident, limit, was_over);
        if self.resident_over && !was_over {
            tracing::warn!(resident, limit, in_use, "the process has more resident memory than its limit");
        }
    }
}

fn log_change(what: &str, on: bool, bytes: u64, limit: u64) {
    if on {
        tracing::warn!(what, bytes, limit, "alarm: publishers are blocked");
    } else {
        tracing::info!(what, bytes, limit, "the alarm is over");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_raised_at_its_limit_and_ends_clearly_within_it() {
        let uses = [100, 101, 100, 96, 95, 96, 100, 101];
        let mut over = false;
        let seen = uses.map(|used| {
            over = is_over(used, 100, over);
            over
        });
        assert_eq!(seen, [false, true, true, true, false, false, false, true]);
        let mut under = false;
        let seen = [100, 99, 100, 104, 105, 100, 99].map(|left| {
            under = is_under(left, 100, under);
            under
        });
        assert_eq!(seen, [false, true, true, true, false, false, true]);
    }
}
