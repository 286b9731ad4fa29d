//! How much processor time the machine has left.

use crate::model::Monotonic;
use std::fs;
use std::time::Duration;

/// The unit of `/proc/stat`: Linux counts there in hundredths of a second, on all architectures in use.
const TICK_MILLIS: u64 = 10;

/// What the machine's processors did until a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Processors {
    at: Monotonic,
    idle: Duration,
}

impl Processors {
    /// As the kernel counts now. `None` if it does not tell.
    pub(super) fn now(at: Monotonic) -> Option<Self> {
        Some(Self { at, idle: idle_in(&fs::read_to_string("/proc/stat").ok()?)? })
    }

    /// How many processors were idle since `before`, on average, in thousandths.
    pub(super) fn idle_since(self, before: Self) -> u32 {
        let wall = self.at.since(before.at).as_nanos().max(1);
        let idle = self.idle.saturating_sub(before.idle).as_nanos();
        u32::try_from(idle * 1000 / wall).unwrap_or(u32::MAX)
    }
}

/// The idle time of all processors: the fourth number of the first line.
fn idle_in(stat: &str) -> Option<Duration> {
    let ticks: u64 = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().nth(3)?.parse().ok()?;
    Some(Duration::from_millis(ticks.saturating_mul(TICK_MILLIS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_read_from_the_first_line() {
        let text = "cpu  100 2 30 4000 5 0 7 0 0 0\ncpu0 50 1 15 2000 2 0 3 0 0 0\n";
        assert_eq!(idle_in(text), Some(Duration::from_secs(40)));
        assert_eq!(idle_in("intr 1 2 3"), None);
        assert!(idle_in("cpu 1 2 3 9000000000 5").is_some_and(|idle| idle.as_secs() == 90_000_000), "three years");
        let before = Processors { at: Monotonic(0), idle: Duration::from_secs(40) };
        let now = Processors { at: Monotonic(1_000_000), idle: Duration::from_millis(41_500) };
        assert_eq!(now.idle_since(before), 1500);
    }
}
