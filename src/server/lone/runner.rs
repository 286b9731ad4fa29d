//! Runs broker work, above all the turns of queues to which a thread of the store reports written or read rows.

use super::deferred::{Deferring, is_deferring};
use super::detector::LoneDetector;
use super::offer::{InlineOffers, Offer};
use crate::broker::Runner;
use crate::model::Now;
use crate::server::clock::Clock;
use crate::server::tasks::spawn;
use crate::store::commit::WriterHandle;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::runtime::Handle;

type Work = Box<dyn FnOnce(Now) + Send>;

thread_local! {
    /// Whether this thread of the runtime is committing.
    static COMMITS: Cell<bool> = const { Cell::new(false) };
}

/// A guard: while it lives, this thread of the runtime is marked as committing.
struct Committing;

impl Committing {
    fn begin() -> Self {
        COMMITS.set(true);
        Self
    }
}

impl Drop for Committing {
    fn drop(&mut self) {
        COMMITS.set(false);
    }
}

/// Runs broker work on the runtime's threads, or on the caller's thread while all of the runtime's sleep.
pub(in crate::server) struct TokioRunner {
    clock: Clock,
    handle: Handle,
    detector: LoneDetector,
    offers: Arc<InlineOffers>,
}

impl TokioRunner {
    /// A runner for the current runtime. Call it within the runtime.
    pub(in crate::server) fn new(clock: Clock) -> Self {
        let handle = Handle::current();
        let detector = LoneDetector::new(handle.clone());
        Self { clock, handle, detector, offers: Arc::new(InlineOffers::new()) }
    }

    /// Lets connections' threads commit, if the store commits in place.
    pub(in crate::server) fn commit_inline(&self, writer: &WriterHandle) {
        writer.allow_inline(Arc::clone(&self.offers) as _);
    }

    fn run_on_this_thread(&self, work: Work) {
        let deferring = Deferring::begin();
        if catch_unwind(AssertUnwindSafe(|| work(self.clock.now()))).is_err() {
            tracing::error!("broker work panicked");
        }
        // The guard has ended, so serving these connections wakes other tasks in the usual way.
        for connection in deferring.end() {
            connection.run_here(self.clock.now());
        }
    }

    /// Runs a connection's pass. If the pass leaves a batch for a sleeping writer, and has notified no other
    /// connection, commits the batch on this thread. Returns the pass's result, and whether it committed.
    pub(in crate::server) fn pass<T>(&self, writer: &WriterHandle, pass: impl FnOnce() -> T) -> (T, bool) {
        if !self.detector.predicts_lone() || !writer.allows_inline() {
            return (pass(), false);
        }
        let offer = Offer::begin(&self.offers, writer);
        let deferring = Deferring::begin();
        let result = pass();
        let woke_none = deferring.is_empty();
        drop(deferring);
        let commits = offer.is_accepted() && woke_none && self.detector.is_only_thread_awake();
        (result, commits && self.commit(offer))
    }

    fn commit(&self, offer: Offer<'_>) -> bool {
        let Some(_timed) = self.detector.begin_commit() else { return false };
        let _committing = Committing::begin();
        offer.commit();
        true
    }
}

impl Runner for TokioRunner {
    fn run(&self, work: Work) {
        if !is_deferring() {
            if COMMITS.get() {
                return self.run_on_this_thread(work);
            }
            if self.detector.all_threads_sleep() {
                self.detector.note_quiet();
                return self.run_on_this_thread(work);
            }
        }
        self.detector.note_busy();
        let clock = self.clock;
        drop(spawn(&self.handle, async move { work(clock.now()) }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    /// Longer than any step of the test takes.
    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn work_runs_whether_or_not_the_runtime_sleeps_and_a_panic_in_it_ends_no_thread() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let runner = runtime.block_on(async { TokioRunner::new(Clock::start()) });
        let runner = Arc::new(runner);
        let (done, results) = channel();
        let (mut here, mut elsewhere) = (0, 0);
        for round in 0..200 {
            if round % 2 == 0 {
                let began = std::time::Instant::now();
                while !runner.detector.all_threads_sleep() && began.elapsed() < PATIENCE {
                    std::thread::yield_now();
                }
            }
            for piece in 0..3 {
                let (again, done) = (Arc::clone(&runner), done.clone());
                runner.run(Box::new(move |_| {
                    let by = std::thread::current().id();
                    let follow_up = move |_: Now| done.send((round, piece, by, std::thread::current().id())).unwrap();
                    again.run(Box::new(follow_up));
                    assert_ne!(piece, 1, "this one fails");
                }));
            }
            let mut ran: Vec<_> = (0..3).map(|_| results.recv_timeout(PATIENCE).unwrap()).collect();
            ran.sort_unstable_by_key(|(_, piece, ..)| *piece);
            for (piece, (of_round, of_piece, by, follow_up_by)) in ran.into_iter().enumerate() {
                assert_eq!((of_round, of_piece), (round, piece));
                let this = std::thread::current().id();
                assert_ne!(follow_up_by, this, "work that is started by work does not run within it");
                if by == this { here += 1 } else { elsewhere += 1 }
            }
        }
        assert!(here > 0, "here {here} times, elsewhere {elsewhere}");
        drop(runtime);
    }
}
