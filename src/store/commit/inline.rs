//! One batch on a caller's thread, for a store that commits in place.
//!
//! To wake the writer's thread for a lone batch, and to be woken by it, takes longer than to write the batch. A thread that
//! has nothing else to do may commit what it is about to hand over, while the writer's thread sleeps.

use super::handle::{Driver, WriterHandle, WriterShared};
use super::threaded::Threads;
use crate::model::Monotonic;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The writer's thread is not woken to wake earlier by less than this.
const LATE_MAX: Duration = Duration::from_millis(10);

/// Knows which threads commit themselves.
pub trait InlineCommits: Send + Sync {
    /// Asked when rows are submitted while the writer's thread sleeps: whether the calling thread will call
    /// [`WriterHandle::commit_here`] or [`WriterHandle::wake`] soon. The writer's thread is not woken then.
    fn takes_over(&self) -> bool;
}

impl WriterHandle {
    /// From here on threads may commit themselves, as `inline` says. Without effect where the store does not commit in
    /// place, and after the first call.
    pub fn allow_inline(&self, inline: Arc<dyn InlineCommits>) {
        if matches!(&self.life.driver, Driver::Threaded(threads) if threads.commits_in_place) {
            let _ = self.life.shared.inline.set(inline);
        }
    }

    /// Whether a thread may commit itself.
    pub fn allows_inline(&self) -> bool {
        self.life.shared.inline.get().is_some()
    }

    /// Wakes the writer's thread for what was submitted.
    pub fn wake(&self) {
        let shared = &self.life.shared;
        shared.wake_driver(shared.inbox());
    }

    /// Commits one batch on this thread and reports its outcome, unless the writer's thread has it. Blocks as long as a
    /// commit takes. What fails, and what is left, is left to the writer's thread.
    pub fn commit_here(&self) {
        if let Driver::Threaded(threads) = &self.life.driver {
            self.life.shared.commit_on(threads);
        }
    }
}

impl WriterShared {
    fn commit_on(&self, threads: &Threads) {
        let Ok(mut runner) = threads.runner.try_lock() else { return self.wake_driver(self.inbox()) };
        let mut inbox = self.inbox();
        if !inbox.is_asleep {
            // Another thread has woken the writer's thread, which takes all.
            return;
        }
        let Some(mut run) = inbox.machine.take_simple(self.now()) else { return self.wake_driver(inbox) };
        self.wants_rows.store(false, Ordering::Release);
        drop(inbox);
        if !runner.try_once(&mut run) {
            let mut inbox = self.inbox();
            inbox.machine.leave_unfinished(run);
            return self.wake_driver(inbox);
        }
        self.stats().batches_inline += 1;
        let due = runner.maintain();
        // Reported before the writer's thread can have the store: outcomes come in the order of their batches. Sources that
        // hear of it may answer at once, so little is left to do then.
        self.finish(run, runner.has_dead_rows());
        drop(runner);
        self.rest_again(due);
    }

    /// Lets the writer's thread sleep on, unless there is something for it to do. Maintenance is `due` then.
    fn rest_again(&self, due: Option<Monotonic>) {
        let mut inbox = self.inbox();
        let may_rest = inbox.machine.rest();
        if !inbox.is_asleep {
            return;
        }
        let is_late = due.is_some_and(|due| inbox.wakes_at.is_none_or(|alarm| due.plus(LATE_MAX) < alarm));
        if is_late || !may_rest {
            return self.wake_driver(inbox);
        }
        self.wants_rows.store(true, Ordering::Release);
    }
}
