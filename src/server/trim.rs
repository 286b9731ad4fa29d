//! Gives free memory of the allocator back to the system: once the broker has been idle for a while, and before the
//! memory alarm would be raised.

use crate::model::Monotonic;
use std::time::Duration;

/// A trim is worth its time if this many bytes more are free than after the last one: a trim of 100 MiB takes about 20
/// ms.
const WORTH_BYTES: u64 = 32 << 20;
/// The same while too much memory is resident.
const WORTH_BYTES_WHEN_SHORT: u64 = 1 << 20;
/// How long the broker must have been idle. The system has to clear memory again that the next burst needs: with bursts
/// every few seconds, this would be a fifth of their cost.
const IDLE: Duration = Duration::from_secs(8);
/// Shortest time between two trims.
const PAUSE: Duration = Duration::from_secs(2);

/// Decides when to trim.
#[derive(Debug, Default)]
pub(super) struct Trimmer {
    /// Resident bytes after the last trim that clients do not use: the broker itself, and memory that cannot be given
    /// back.
    rest: u64,
    /// When the last trim was.
    last: Option<Monotonic>,
    /// Since when the broker has been idle.
    idle_since: Option<Monotonic>,
    /// Number of trims.
    pub(super) trims: u64,
}

impl Trimmer {
    /// Whether a trim is due, with `resident` bytes in memory of which clients use `in_use`.
    pub(super) fn is_due(&mut self, resident: u64, in_use: u64, is_idle: bool, is_short: bool, now: Monotonic) -> bool {
        let rest = resident.saturating_sub(in_use);
        self.rest = self.rest.min(rest);
        self.idle_since = if is_idle { self.idle_since.or(Some(now)) } else { None };
        let is_idle = self.idle_since.is_some_and(|since| now.since(since) >= IDLE);
        let worth = if is_short { WORTH_BYTES_WHEN_SHORT } else { WORTH_BYTES };
        let is_early = self.last.is_some_and(|last| now.since(last) < PAUSE);
        (is_idle || is_short) && !is_early && rest >= self.rest + worth
    }

    /// Records a trim, after which `resident` bytes are left.
    pub(super) fn note_trim(&mut self, resident: u64, in_use: u64, now: Monotonic) {
        self.rest = resident.saturating_sub(in_use);
        self.last = Some(now);
        self.trims += 1;
    }
}

/// Gives free memory back to the system. It blocks, and may make other threads wait that allocate.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the allocator has no safe interface for this")]
pub(super) fn trim() {
    // SAFETY: the call takes the allocator's own locks, and does not touch memory that is in use.
    unsafe { libc::malloc_trim(0) };
}

/// Does nothing: other allocators give memory back by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn at(seconds: u64) -> Monotonic {
        Monotonic(0).plus(Duration::from_secs(seconds))
    }

    #[test]
    fn a_trim_waits_until_the_broker_is_idle_and_enough_memory_is_free() {
        let mut trimmer = Trimmer::default();
        assert!(!trimmer.is_due(20 * MIB, 0, true, false, at(0)), "the broker itself");
        assert!(!trimmer.is_due(300 * MIB, 100 * MIB, false, false, at(11)), "it is busy");
        assert!(!trimmer.is_due(300 * MIB, 100 * MIB, true, false, at(12)), "the next burst may come at once");
        assert!(!trimmer.is_due(300 * MIB, 100 * MIB, false, false, at(21)), "the next burst came");
        assert!(!trimmer.is_due(300 * MIB, 100 * MIB, true, false, at(22)));
        assert!(!trimmer.is_due(300 * MIB, 100 * MIB, true, false, at(29)));
        assert!(trimmer.is_due(300 * MIB, 100 * MIB, true, false, at(30)));
        trimmer.note_trim(180 * MIB, 100 * MIB, at(30));
        assert!(!trimmer.is_due(200 * MIB, 100 * MIB, true, false, at(39)), "too little is free");
        assert!(!trimmer.is_due(230 * MIB, 100 * MIB, true, false, at(31)), "not so soon");
        assert!(trimmer.is_due(230 * MIB, 100 * MIB, true, false, at(40)));
    }

    #[test]
    fn a_busy_broker_short_of_memory_trims_for_less() {
        let mut trimmer = Trimmer::default();
        trimmer.note_trim(110 * MIB, 100 * MIB, at(0));
        assert!(!trimmer.is_due(110 * MIB, 100 * MIB, false, true, at(5)), "nothing is free");
        assert!(trimmer.is_due(112 * MIB, 100 * MIB, false, true, at(5)));
    }

    #[test]
    fn free_memory_is_measured_from_the_lowest_rest_since_the_last_trim() {
        let mut trimmer = Trimmer::default();
        trimmer.note_trim(200 * MIB, 0, at(0));
        assert!(!trimmer.is_due(50 * MIB, 0, true, false, at(5)));
        assert!(trimmer.is_due(90 * MIB, 0, true, false, at(15)));
    }
}
