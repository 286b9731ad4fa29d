//! Looks at the resources from time to time, and raises and clears the alarms.

use super::shared::Shared;
use super::tasks::run_blocking;
use super::trim::{Trimmer, trim};
use crate::exposition::machine::{anonymous_bytes, available_disk};
use crate::model::Notice;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often resources are looked at.
const INTERVAL: Duration = Duration::from_millis(250);
/// And how often while so little of the disk is left that fast publishers could fill it within the usual interval.
const CLOSE_INTERVAL: Duration = Duration::from_millis(10);
/// Bytes beyond the limit of the disk alarm within which that is so.
const CLOSE_BYTES: u64 = 1 << 30;
/// An alarm that is on ends when the resource is within its limit by this part of it.
const MARGIN_DIVISOR: u64 = 20;
/// Reads and writes of sockets in one interval, up to which the broker is idle.
const IDLE_OPERATIONS: u64 = 64;
/// Intervals between two looks at what has to be summed up.
const SAMPLE_INTERVALS: u32 = 4;

/// Whether a use is too high: from its limit on, until it is clearly below.
fn is_over(used: u64, limit: u64, was_over: bool) -> bool {
    used > if was_over { limit - limit / MARGIN_DIVISOR } else { limit }
}

/// Whether a reserve is too low: below its limit, until it is clearly above.
fn is_under(left: u64, limit: u64, was_under: bool) -> bool {
    left < if was_under { limit.saturating_add(limit / MARGIN_DIVISOR) } else { limit }
}

/// Looks at the resources from time to time, and notifies all connections of what has changed. Ends with the runtime.
pub(super) async fn watch(shared: Arc<Shared>) {
    let mut memory = MemoryWatch::default();
    let mut disk_is_low = false;
    let mut interval = Duration::ZERO;
    loop {
        // Which of the two it was makes no difference.
        let _ = tokio::time::timeout(interval, shared.alarms.noted()).await;
        let before = shared.alarms.reason();
        memory.look(&shared).await;
        interval = look_at_disk(&shared, &mut disk_is_low);
        let now = shared.alarms.reason();
        if now != before {
            for peer in shared.broker.peers() {
                peer.tell_one(Notice::Alarm(now.map(str::to_owned)));
            }
        }
    }
}

/// Returns when to look again.
fn look_at_disk(shared: &Shared, is_low: &mut bool) -> Duration {
    if !shared.settings.keeps_files() {
        return INTERVAL;
    }
    let Some(free) = available_disk(&shared.settings.data_dir) else { return INTERVAL };
    let least = shared.current().settings.limits.disk_free_bytes;
    *is_low = is_under(free, least, *is_low);
    // A log that somebody keeps from being emptied grows with every message until the disk is full.
    let vitals = shared.broker.writer().vitals();
    let is_short = *is_low || vitals.log_is_pinned || vitals.is_full;
    if shared.alarms.set_disk(is_short) {
        log_change("disk", is_short, free, least);
    }
    if free < least.saturating_add(CLOSE_BYTES) { CLOSE_INTERVAL } else { INTERVAL }
}

/// What is known of memory from look to look.
#[derive(Debug, Default)]
struct MemoryWatch {
    /// Clients take more than they may.
    clients_over: bool,
    /// The process has more than it may, although nothing was left to give back.
    resident_over: bool,
    trimmer: Trimmer,
    /// When the process was looked at last, in intervals since the start, and what sockets had done by then.
    looked_at: u64,
    operations: u64,
    looks: u32,
}

impl MemoryWatch {
    async fn look(&mut self, shared: &Shared) {
        let interval = shared.clock.now().monotonic.0 / INTERVAL.as_micros() as u64;
        let is_time = interval != self.looked_at;
        if is_time {
            self.looked_at = interval;
            if self.looks.is_multiple_of(SAMPLE_INTERVALS) {
                shared.memory.sample(&shared.broker);
            }
            self.looks = self.looks.wrapping_add(1);
            shared.broker.spill_idle_queues();
        }
        let in_use = shared.memory.in_use(&shared.broker).sum();
        let limit = shared.alarms.memory_limit();
        self.clients_over = is_over(in_use, limit, self.clients_over);
        if is_time {
            self.look_at_process(shared, in_use).await;
        }
        let is_short = self.clients_over || self.resident_over;
        if shared.alarms.set_memory(is_short) {
            log_change("memory", is_short, in_use, limit);
        }
    }

    /// Gives free memory back where that is worth it; what is resident after that counts.
    async fn look_at_process(&mut self, shared: &Shared, in_use: u64) {
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
            self.trimmer.trimmed(resident, in_use, shared.clock.now().monotonic);
            shared.alarms.set_trims(self.trimmer.trims);
            tracing::debug!(before, after = resident, in_use, "free memory was given back to the system");
        }
        let was_over = self.resident_over;
        self.resident_over = is_over(resident, limit, was_over);
        if self.resident_over && !was_over {
            tracing::warn!(resident, limit, in_use, "the process has more memory than it may");
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
    fn an_alarm_goes_off_at_its_limit_and_ends_clearly_within_it() {
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
