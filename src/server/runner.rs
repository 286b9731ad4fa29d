//! The broker's work that comes from threads of the store: queues are told of what was written or read.
//!
//! While the runtime is busy, a task is soon found by a thread that is awake. When all sleep, the store's own thread, which is
//! awake, does the work, and passes on to connections what comes of it: waking another for that takes longer than the work.

use super::clock::Clock;
use super::tasks::spawn;
use crate::broker::Runner;
use crate::model::Now;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::runtime::{Handle, RuntimeMetrics};

type Work = Box<dyn FnOnce(Now) + Send>;

/// What any thread can see to.
pub(super) trait AtHand: Send + Sync {
    /// Does what there is to do, or has it done.
    fn see_to(&self, now: Now);
}

thread_local! {
    /// While this thread, which is not one of the runtime's, works: what it is to see to when that is done.
    static AT_HAND: RefCell<Option<Vec<Arc<dyn AtHand>>>> = const { RefCell::new(None) };
}

/// Leaves it to this thread, if it works outside of the runtime; otherwise gives it back.
pub(super) fn see_to<T: AtHand + 'static>(thing: Arc<T>) -> Result<(), Arc<T>> {
    AT_HAND.with_borrow_mut(|at_hand| match at_hand {
        Some(all) => {
            all.push(thing);
            Ok(())
        }
        None => Err(thing),
    })
}

/// Runs the broker's work on the runtime's threads, or on the caller's while all of them sleep.
pub(super) struct TokioRunner {
    clock: Clock,
    handle: Handle,
    threads: RuntimeMetrics,
}

impl TokioRunner {
    /// To be called within the runtime.
    pub(super) fn new(clock: Clock) -> Self {
        let handle = Handle::current();
        let threads = handle.metrics();
        Self { clock, handle, threads }
    }

    /// A hint: some may have woken since.
    fn all_sleep(&self) -> bool {
        // An odd count is of a thread that sleeps.
        (0..self.threads.num_workers()).all(|thread| self.threads.worker_park_unpark_count(thread) % 2 == 1)
    }

    fn work_here(&self, work: Work) {
        AT_HAND.set(Some(Vec::new()));
        if catch_unwind(AssertUnwindSafe(|| work(self.clock.now()))).is_err() {
            tracing::error!("a piece of the broker's work panicked");
        }
        // What follows from seeing to these wakes whom it may.
        for thing in AT_HAND.take().unwrap_or_default() {
            thing.see_to(self.clock.now());
        }
    }
}

impl Runner for TokioRunner {
    fn run(&self, work: Work) {
        if self.all_sleep() && AT_HAND.with_borrow(Option::is_none) {
            return self.work_here(work);
        }
        let clock = self.clock;
        drop(spawn(&self.handle, async move { work(clock.now()) }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    /// Whoever waits for longer waits in vain.
    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn what_is_handed_in_is_done_whether_the_runtime_sleeps_or_not_and_a_panic_ends_nothing() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let runner = runtime.block_on(async { TokioRunner::new(Clock::start()) });
        let runner = Arc::new(runner);
        let (done, hears) = channel();
        let (mut here, mut elsewhere) = (0, 0);
        for round in 0..200 {
            if round % 2 == 0 {
                let began = std::time::Instant::now();
                while !runner.all_sleep() && began.elapsed() < PATIENCE {
                    std::thread::yield_now();
                }
            }
            for piece in 0..3 {
                let (again, done) = (Arc::clone(&runner), done.clone());
                runner.run(Box::new(move |_| {
                    let by = std::thread::current().id();
                    let then = move |_: Now| done.send((round, piece, by, std::thread::current().id())).unwrap();
                    again.run(Box::new(then));
                    assert_ne!(piece, 1, "this one fails");
                }));
            }
            let mut heard: Vec<_> = (0..3).map(|_| hears.recv_timeout(PATIENCE).unwrap()).collect();
            heard.sort_unstable_by_key(|(_, piece, ..)| *piece);
            for (piece, (of_round, of_piece, by, then_by)) in heard.into_iter().enumerate() {
                assert_eq!((of_round, of_piece), (round, piece));
                let this = std::thread::current().id();
                assert_ne!(then_by, this, "what follows from work is not done within it");
                if by == this { here += 1 } else { elsewhere += 1 }
            }
        }
        assert!(here > 0, "here {here} times, elsewhere {elsewhere}");
        drop(runtime);
    }
}
