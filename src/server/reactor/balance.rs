//! How busy a loop's thread is, and when connections move to another loop or back.
//!
//! What counts is processor time: a thread that waits for a processor is not helped by another thread.

use super::processors::Processors;
use crate::model::Monotonic;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// The length of a measurement.
const WINDOW: Duration = Duration::from_millis(20);
/// A load that was measured longer ago counts as zero: the loop sleeps.
const STALE: Duration = Duration::from_millis(200);
/// From this load on, in thousandths of a processor, a loop is busy.
const BUSY: u32 = 900;
/// Busy measurements in a row before connections move away.
const BUSY_WINDOWS: u32 = 10;
/// Idle processors, in thousandths, that a further thread needs. Without them it would only take time from the clients,
/// and a message that goes from one thread to another costs half more.
const IDLE_MIN: u32 = 700;
/// Measurements in a row in which two loops had little to do, before one takes all.
const CALM_WINDOWS: u32 = 50;

/// The load of a loop, as other threads see it.
#[derive(Debug, Default)]
pub(super) struct Load {
    /// In thousandths of a processor.
    permille: AtomicU32,
    /// In microseconds of the monotonic time.
    measured_at: AtomicU64,
}

impl Load {
    /// In thousandths of a processor.
    pub(super) fn get(&self, now: Monotonic) -> u32 {
        let measured_at = Monotonic(self.measured_at.load(Ordering::Relaxed));
        if now.since(measured_at) > STALE { 0 } else { self.permille.load(Ordering::Relaxed) }
    }

    fn set(&self, permille: u32, now: Monotonic) {
        self.permille.store(permille, Ordering::Relaxed);
        self.measured_at.store(now.0, Ordering::Relaxed);
    }
}

/// What a loop should do about its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Nothing.
    Stay,
    /// Hand half of its connections to another loop.
    Spread,
    /// Hand all of its connections to the loop before it.
    Merge,
}

/// The measurements of a loop.
#[derive(Debug, Default)]
pub(super) struct Balance {
    began: Monotonic,
    processor_time: Duration,
    busy: u32,
    /// The machine's processors when the loop became busy.
    processors: Option<Processors>,
    calm: u32,
}

impl Balance {
    /// Whether a measurement is to end.
    pub(super) fn is_due(&self, now: Monotonic) -> bool {
        now.since(self.began) >= WINDOW
    }

    /// Ends a measurement. `processor_time` is that of the thread so far, `is_calm` whether another loop could take all
    /// connections at this load.
    pub(super) fn measure(
        &mut self,
        load: &Load,
        processor_time: Duration,
        is_calm: impl FnOnce(u32) -> bool,
        now: Monotonic,
    ) -> Advice {
        let wall = now.since(std::mem::replace(&mut self.began, now));
        let used = processor_time.saturating_sub(std::mem::replace(&mut self.processor_time, processor_time));
        let permille = (used.as_nanos() * 1000 / wall.as_nanos().max(1)).min(1000) as u32;
        load.set(permille, now);
        self.busy = if permille >= BUSY { self.busy + 1 } else { 0 };
        if self.busy == 1 {
            self.processors = Processors::now(now);
        }
        // A loop that slept has not measured in between.
        let windows = u32::try_from(wall.as_nanos() / WINDOW.as_nanos()).unwrap_or(u32::MAX).max(1);
        self.calm = if is_calm(permille) { self.calm.saturating_add(windows) } else { 0 };
        if self.busy >= BUSY_WINDOWS {
            self.busy = 0;
            let idle = self.processors.zip(Processors::now(now)).map(|(before, now)| now.idle_since(before));
            // Where nobody knows, there may be some.
            return if idle.is_none_or(|idle| idle >= IDLE_MIN) { Advice::Spread } else { Advice::Stay };
        }
        if self.calm >= CALM_WINDOWS {
            self.calm = 0;
            return Advice::Merge;
        }
        Advice::Stay
    }
}

/// About half of the connections, given with their kin; never some of a kin alone. A queue's work is done one after another
/// anyway, and a message that goes from one thread to another costs half more.
pub(super) fn half_of(mut connections: Vec<(u64, usize)>) -> Vec<usize> {
    connections.sort_unstable();
    let half = connections.len().div_ceil(2);
    let mut leaving = Vec::new();
    for kin in connections.chunk_by(|one, other| one.0 == other.0) {
        if leaving.len() + kin.len() <= half && leaving.len() + kin.len() < connections.len() {
            leaving.extend(kin.iter().map(|(_, number)| *number));
        }
    }
    leaving
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The advice of measurements in which the thread used this share of its time, in thousandths.
    fn advice(of: impl IntoIterator<Item = u64>, is_calm: bool) -> Vec<Advice> {
        let (load, mut balance) = (Load::default(), Balance::default());
        let (mut now, mut used) = (Monotonic(0), Duration::ZERO);
        let mut measure = |permille: u64| {
            now = now.plus(WINDOW);
            used += WINDOW * u32::try_from(permille).unwrap() / 1000;
            balance.measure(&load, used, |_| is_calm, now)
        };
        of.into_iter().map(&mut measure).collect()
    }

    #[test]
    fn a_loop_that_is_busy_for_a_moment_does_not_spread() {
        let all = advice([1000; 9].into_iter().chain([800]).chain([1000; 9]), false);
        assert!(all.iter().all(|advice| *advice == Advice::Stay));
    }

    #[test]
    fn a_kin_stays_together() {
        assert!(half_of(vec![(7, 0), (7, 1), (7, 2)]).is_empty(), "one queue");
        assert_eq!(half_of(vec![(7, 0), (8, 1), (7, 2), (8, 3)]), [0, 2]);
        assert_eq!(half_of(vec![(7, 0), (8, 1), (8, 2), (8, 3)]), [0], "the large one stays");
        assert_eq!(half_of((0..10).map(|number| (number, number as usize)).collect()).len(), 5);
    }

    #[test]
    fn a_calm_loop_merges_after_a_while() {
        let all = advice([100; 50], true);
        assert_eq!(all.iter().position(|advice| *advice == Advice::Merge), Some(49));
        assert!(advice([100; 50], false).iter().all(|advice| *advice == Advice::Stay));
    }

    #[test]
    fn an_old_load_counts_as_zero() {
        let load = Load::default();
        load.set(950, Monotonic(1_000_000));
        assert_eq!(load.get(Monotonic(1_100_000)), 950);
        assert_eq!(load.get(Monotonic(2_000_000)), 0);
    }
}
