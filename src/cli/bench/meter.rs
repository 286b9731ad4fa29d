//! The counts and latencies that the threads of a run share. A histogram is locked once per read, not per message.

use super::clock::Clock;
use super::ledger::Ledger;
use hdrhistogram::Histogram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a thread waits before it checks whether the run is over.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);

/// Latencies in microseconds.
pub(super) type Micros = Histogram<u64>;

/// An empty histogram: three significant figures, growing as needed.
pub(super) fn no_latencies() -> Micros {
    Histogram::new(3).expect("three figures are allowed")
}

/// The counts and latencies of a run so far.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) clock: Clock,
    pub(super) published: AtomicU64,
    pub(super) confirmed: AtomicU64,
    pub(super) consumed: AtomicU64,
    /// Complete round trips.
    pub(super) answered: AtomicU64,
    pub(super) stop: AtomicBool,
    /// Times from a publish, or from when it was due, to its confirm.
    pub(super) confirm: Latencies,
    /// Times from a publish, or from when it was due, to its delivery.
    pub(super) delivery: Latencies,
    /// Times from a connect, or from when it was due, to its close-ok; or from a request to its reply.
    pub(super) round_trip: Latencies,
    /// Latencies of the disk for the same bytes.
    pub(super) probe: Latencies,
    /// One per group of consumers that share queues.
    pub(super) ledgers: Vec<Mutex<Ledger>>,
    /// Replies that requesters have received.
    pub(super) replies: Mutex<Ledger>,
    failure: Mutex<Option<String>>,
}

impl Meter {
    pub(super) fn new(ledgers: usize) -> Self {
        Self {
            clock: Clock::start(),
            published: AtomicU64::new(0),
            confirmed: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            confirm: Latencies::new(),
            delivery: Latencies::new(),
            round_trip: Latencies::new(),
            probe: Latencies::new(),
            ledgers: (0..ledgers).map(|_| Mutex::default()).collect(),
            replies: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// Every ledger of the run.
    pub(super) fn all_ledgers(&self) -> impl Iterator<Item = MutexGuard<'_, Ledger>> {
        self.ledgers.iter().chain([&self.replies]).map(lock)
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Records why a connection ended before the run; only the first reason is kept.
    pub(super) fn fail(&self, why: String) {
        if !self.is_over() {
            lock(&self.failure).get_or_insert(why);
        }
    }

    pub(super) fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }
}

/// Latencies since the last `take`.
#[derive(Debug)]
pub(super) struct Latencies(Mutex<Micros>);

impl Latencies {
    fn new() -> Self {
        Self(Mutex::new(no_latencies()))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Micros> {
        lock(&self.0)
    }

    /// Takes the latencies, and leaves an empty histogram.
    pub(super) fn take(&self) -> Micros {
        std::mem::replace(&mut *self.lock(), no_latencies())
    }
}

/// Locks a mutex, ignoring poison: counts are still valid after a thread has panicked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_of_any_length_are_counted() {
        let latencies = Latencies::new();
        for micros in [3, 3_000, 3_000_000_000] {
            latencies.lock().record(micros).unwrap();
        }
        let taken = latencies.take();
        let near = |quantile, wanted: u64| taken.value_at_quantile(quantile).abs_diff(wanted) * 500 <= wanted;
        assert!(near(0.3, 3) && near(0.6, 3_000) && near(1.0, 3_000_000_000), "{taken:?}");
        assert!(latencies.take().is_empty());
    }
}
