//! One batch on a caller's thread, for a store that commits in place.
//!
//! Waking the writer's thread for a lone batch, and being woken by it, takes longer than writing the batch. So a thread that
//! has nothing else to do may commit its contribution itself while the writer's thread sleeps.

use super::shared::WriterShared;
use super::threaded::Threads;
use crate::model::Monotonic;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The writer's thread is not woken in order to wake earlier by less than this.
const LATE_MAX: Duration = Duration::from_millis(10);

/// Commits one batch on this thread and reports its outcome, unless the writer's thread has it.
pub(super) fn commit(shared: &WriterShared, threads: &Threads) {
    let Ok(mut runner) = threads.runner.try_lock() else { return shared.wake_driver(shared.inbox()) };
    let mut inbox = shared.inbox();
    if !inbox.is_asleep {
        // Another thread has woken the writer's thread, which takes everything.
        return;
    }
    let Some(mut run) = inbox.machine.take_simple(shared.now()) else { return shared.wake_driver(inbox) };
    shared.wants_rows.store(false, Ordering::Release);
    drop(inbox);
    if !runner.try_once(&mut run) {
        let mut inbox = shared.inbox();
        inbox.machine.leave_unfinished(run);
        return shared.wake_driver(inbox);
    }
    shared.stats().batches_inline += 1;
    let due = runner.maintain();
    // The outcome is reported while this thread has the store, so that outcomes come in the order of their batches. A
    // writer's thread that was woken meanwhile waits for the store.
    shared.finish(run, runner.has_dead_rows());
    rest_again(shared, due);
    drop(runner);
}

/// Lets the writer's thread sleep on, unless it has work. `due` is when maintenance is due.
fn rest_again(shared: &WriterShared, due: Option<Monotonic>) {
    let mut inbox = shared.inbox();
    let may_rest = inbox.machine.rest();
    if !inbox.is_asleep {
        return;
    }
    let is_late = due.is_some_and(|due| inbox.wakes_at.is_none_or(|alarm| due.plus(LATE_MAX) < alarm));
    if is_late || !may_rest {
        return shared.wake_driver(inbox);
    }
    shared.wants_rows.store(true, Ordering::Release);
}
