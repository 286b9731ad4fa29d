//! The broker's work that comes from threads of the store: queues are told of what was written or read.
//!
//! While the runtime is busy, a task is soon found by a thread that is awake. When all sleep, the store's own thread, which is
//! awake, does the work, and passes on to connections what comes of it: waking another for that takes longer than the work.
//! And where a lone connection waits for its commits, its own thread makes them.

use super::alone::Alone;
use super::clock::Clock;
use super::tasks::spawn;
use crate::broker::Runner;
use crate::model::Now;
use crate::store::writer::{Offer, WriterHandle};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tokio::runtime::Handle;

type Work = Box<dyn FnOnce(Now) + Send>;

/// What any thread can see to.
pub(super) trait AtHand: Send + Sync {
    /// Does what there is to do, or has it done.
    fn see_to(&self, now: Now);

    /// Has it done.
    fn call(&self);
}

thread_local! {
    /// While this thread does what others need not be woken for: what is to be seen to when that is done.
    static AT_HAND: RefCell<Option<Vec<Arc<dyn AtHand>>>> = const { RefCell::new(None) };
    /// This thread of the runtime commits.
    static COMMITS: Cell<bool> = const { Cell::new(false) };
}

/// Leaves it to this thread, if it is to see to such things; otherwise gives it back.
pub(super) fn see_to<T: AtHand + 'static>(thing: Arc<T>) -> Result<(), Arc<T>> {
    AT_HAND.with_borrow_mut(|at_hand| match at_hand {
        Some(all) => {
            all.push(thing);
            Ok(())
        }
        None => Err(thing),
    })
}

/// From its beginning to its end this thread is left what is to be seen to.
struct Collecting;

impl Collecting {
    fn begin() -> Self {
        AT_HAND.set(Some(Vec::new()));
        Self
    }

    fn end(self) -> Vec<Arc<dyn AtHand>> {
        AT_HAND.take().unwrap_or_default()
    }
}

impl Drop for Collecting {
    fn drop(&mut self) {
        for thing in AT_HAND.take().unwrap_or_default() {
            thing.call();
        }
    }
}

/// From its beginning to its end this thread of the runtime commits.
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

/// Runs the broker's work on the runtime's threads, or on the caller's while all of them sleep.
pub(super) struct TokioRunner {
    clock: Clock,
    handle: Handle,
    alone: Alone,
}

impl TokioRunner {
    /// To be called within the runtime.
    pub(super) fn new(clock: Clock) -> Self {
        let handle = Handle::current();
        let alone = Alone::new(handle.clone());
        Self { clock, handle, alone }
    }

    fn work_here(&self, work: Work) {
        let collecting = Collecting::begin();
        if catch_unwind(AssertUnwindSafe(|| work(self.clock.now()))).is_err() {
            tracing::error!("a piece of the broker's work panicked");
        }
        // What follows from seeing to these wakes whom it may.
        for thing in collecting.end() {
            thing.see_to(self.clock.now());
        }
    }

    /// Runs a connection's pass. If that leaves a batch for a writer that sleeps, and there is nobody else to see to, commits
    /// it here; whether it did.
    pub(super) fn pass<T>(&self, writer: &WriterHandle, pass: impl FnOnce() -> T) -> (T, bool) {
        if !self.alone.is_likely() {
            return (pass(), false);
        }
        let offer = writer.offer();
        let collecting = Collecting::begin();
        let result = pass();
        let woke_nobody = AT_HAND.with_borrow(|at_hand| at_hand.as_ref().is_some_and(Vec::is_empty));
        drop(collecting);
        let commits = offer.is_taken_up() && woke_nobody && self.alone.is_so();
        (result, commits && self.commit(offer))
    }

    fn commit(&self, offer: Offer<'_>) -> bool {
        let Some(_watched) = self.alone.begin() else { return false };
        let _committing = Committing::begin();
        offer.commit();
        true
    }
}

impl Runner for TokioRunner {
    fn run(&self, work: Work) {
        if AT_HAND.with_borrow(Option::is_none) {
            if COMMITS.get() {
                return self.work_here(work);
            }
            if self.alone.is_asleep() {
                self.alone.note_quiet();
                return self.work_here(work);
            }
        }
        self.alone.note_company();
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
                while !runner.alone.is_asleep() && began.elapsed() < PATIENCE {
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
