//! Free memory that the allocator keeps goes back to the system: once the broker has been idle for a while, and before it
//! would raise an alarm.

use crate::model::Monotonic;
use std::time::Duration;

/// So much more than after the last time must be free before it is worth the time: a trim of 100 MiB takes some 20 ms.
const WORTH_BYTES: u64 = 32 << 20;
/// And so much while too much memory is resident.
const WORTH_BYTES_WHEN_SHORT: u64 = 1 << 20;
/// How long the broker must have been idle. Memory that the next burst needs again would have to be cleared by the system
/// once more: with bursts every few seconds that is a fifth of their cost.
const IDLE: Duration = Duration::from_secs(10);
/// How long after one trim the next may follow.
const PAUSE: Duration = Duration::from_secs(2);

/// Decides when to trim.
#[derive(Debug, Default)]
pub(super) struct Trimmer {
    /// What was resident and not counted after the last trim: the broker itself, and what cannot be given back.
    rest: u64,
    last: Option<Monotonic>,
    /// Since when the broker has been idle.
    idle_since: Option<Monotonic>,
    /// How often memory was given back.
    pub(super) trims: u64,
}

impl Trimmer {
    /// Whether so much resident memory, of which so much is in use, is worth a trim now.
    pub(super) fn is_due(&mut self, resident: u64, in_use: u64, is_idle: bool, is_short: bool, now: Monotonic) -> bool {
        let rest = resident.saturating_sub(in_use);
        self.rest = self.rest.min(rest);
        self.idle_since = if is_idle { self.idle_since.or(Some(now)) } else { None };
        let is_idle = self.idle_since.is_some_and(|since| now.since(since) >= IDLE);
        let worth = if is_short { WORTH_BYTES_WHEN_SHORT } else { WORTH_BYTES };
        let is_early = self.last.is_some_and(|last| now.since(last) < PAUSE);
        (is_idle || is_short) && !is_early && rest >= self.rest + worth
    }

    /// A trim has left so much.
    pub(super) fn trimmed(&mut self, resident: u64, in_use: u64, now: Monotonic) {
        self.rest = resident.saturating_sub(in_use);
        self.last = Some(now);
        self.trims += 1;
    }
}

/// Gives free memory back to the system. Blocks, and other threads that allocate wait for a part of it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "there is no other way to tell the allocator")]
pub(super) fn trim() {
    // SAFETY: it takes the allocator's own locks, and changes nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}

/// Other allocators give memory back by themselves.
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
    fn a_trim_waits_for_an_idle_moment_and_for_enough_that_is_free() {
        let mut trimmer = Trimmer::default();
        assert!(!trimmer.is_due(20 * MIB, 0, true, false, at(0)), "the broker itself");
        assert!(!trimmer.is_due(300 * MIB, 100 * MIB, false, false, at(11)), "it is busy");
        assert!(!trimmer.is_due(300 * MIB, 100 * MIB, true, false, at(12)), "the next burst may come at once");
        assert!(!trimmer.is_due(300 * MIB, 100 * MIB, false, false, at(21)), "it did");
        assert!(!trimmer.is_due(300 * MIB, 100 * MIB, true, false, at(22)));
        assert!(!trimmer.is_due(300 * MIB, 100 * MIB, true, false, at(31)));
        assert!(trimmer.is_due(300 * MIB, 100 * MIB, true, false, at(32)));
        trimmer.trimmed(180 * MIB, 100 * MIB, at(32));
        assert!(!trimmer.is_due(200 * MIB, 100 * MIB, true, false, at(39)), "it would be in vain");
        assert!(!trimmer.is_due(230 * MIB, 100 * MIB, true, false, at(33)), "not so soon");
        assert!(trimmer.is_due(230 * MIB, 100 * MIB, true, false, at(40)));
    }

    #[test]
    fn where_memory_is_short_a_busy_broker_trims_for_less() {
        let mut trimmer = Trimmer::default();
        trimmer.trimmed(110 * MIB, 100 * MIB, at(0));
        assert!(!trimmer.is_due(110 * MIB, 100 * MIB, false, true, at(5)), "nothing to gain");
        assert!(trimmer.is_due(112 * MIB, 100 * MIB, false, true, at(5)));
    }

    #[test]
    fn what_was_taken_beyond_the_rest_counts_from_the_lowest() {
        let mut trimmer = Trimmer::default();
        trimmer.trimmed(200 * MIB, 0, at(0));
        assert!(!trimmer.is_due(50 * MIB, 0, true, false, at(5)));
        assert!(trimmer.is_due(90 * MIB, 0, true, false, at(15)));
    }
}
