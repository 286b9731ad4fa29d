//! The state that the driver, the handles and the readers of one writer share.

use super::copying::CopySlot;
use super::limits::Limits;
use super::machine::{Action, CommitMachine, RowRequest, RowSource};
use super::{Completion, ContributionOutcome, InlineCommits, Source, WriterSettings, WriterStats, outcome};
use crate::model::{Clock, Monotonic};
use crate::store::{BatchNo, StoreTraits};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// A machine whose sources are queues' cells.
pub(super) type Machine = CommitMachine<Arc<dyn Source>, Completion>;

/// A batch of such a machine.
pub(super) type BatchRun = outcome::BatchRun<Arc<dyn Source>, Completion>;

impl RowSource for Arc<dyn Source> {
    fn key(&self) -> usize {
        Self::as_ptr(self).cast::<()>() as usize
    }

    fn rows_waiting(&self) -> usize {
        (**self).rows_waiting()
    }
}

impl RowRequest<Arc<dyn Source>> {
    /// Asks the sources; call it without a lock.
    pub(super) fn ask(self) {
        for source in self.sources {
            catch_panic("pull", || source.pull(self.rows_max, self.bytes_max));
        }
    }
}

/// The state under the writer's lock.
pub(super) struct WriterInbox {
    pub(super) machine: Machine,
    pub(super) copy: CopySlot,
    /// The driver sleeps until `wake` is notified.
    pub(super) is_asleep: bool,
    /// When the driver wakes by itself, if ever.
    pub(super) wakes_at: Option<Monotonic>,
}

/// The shared state of one writer.
pub(super) struct WriterShared {
    inbox: Mutex<WriterInbox>,
    pub(super) wake: Condvar,
    /// Notified when nothing is outstanding any more, and when the writer has stopped.
    pub(super) idle_changed: Condvar,
    /// The writer is idle: sources may contribute rows unasked. A hint: contributing and marking as dirty are right at any
    /// time.
    pub(super) wants_rows: AtomicBool,
    stats: Mutex<WriterStats>,
    clock: Arc<dyn Clock>,
    pub(super) inline: OnceLock<Arc<dyn InlineCommits>>,
}

impl WriterShared {
    pub(super) fn new(last: BatchNo, settings: WriterSettings, traits: StoreTraits, clock: Arc<dyn Clock>) -> Self {
        let limits = Limits {
            rows_max: settings.rows_max,
            bytes_max: settings.bytes_max,
            erase_rows: settings.erase_rows,
            patience: traits.batch_latency,
            rows_worth_asking: traits.rows_worth_asking,
            give_up_after: settings.give_up_after,
        };
        let machine = Machine::new(last, limits);
        let inbox = WriterInbox { machine, copy: CopySlot::Free, is_asleep: false, wakes_at: None };
        Self {
            inbox: Mutex::new(inbox),
            wake: Condvar::new(),
            idle_changed: Condvar::new(),
            wants_rows: AtomicBool::new(false),
            stats: Mutex::default(),
            clock,
            inline: OnceLock::new(),
        }
    }

    pub(super) fn now(&self) -> Monotonic {
        self.clock.now().monotonic
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, WriterInbox> {
        // Nothing that could panic runs under this lock.
        lock(&self.inbox)
    }

    pub(super) fn stats(&self) -> MutexGuard<'_, WriterStats> {
        lock(&self.stats)
    }

    /// Wakes the driver, unless the calling thread will commit itself. The lock is released first: the driver needs it
    /// as soon as it is awake.
    pub(super) fn wake_driver(&self, mut inbox: MutexGuard<'_, WriterInbox>) {
        if inbox.is_asleep && self.inline.get().is_some_and(|inline| inline.takes_over()) {
            return;
        }
        let was_asleep = std::mem::take(&mut inbox.is_asleep);
        if was_asleep {
            self.wants_rows.store(false, Ordering::Release);
        }
        drop(inbox);
        if was_asleep {
            self.wake.notify_one();
        }
    }

    /// Notes that the driver sleeps until something is submitted, or until a moment.
    pub(super) fn fall_asleep(&self, inbox: &mut WriterInbox, until: Option<Monotonic>) {
        (inbox.is_asleep, inbox.wakes_at) = (true, until);
        self.wants_rows.store(inbox.machine.wants_rows(), Ordering::Release);
    }

    /// Notes that the driver is awake.
    pub(super) fn wake_up(&self, inbox: &mut WriterInbox) {
        inbox.is_asleep = false;
        self.wants_rows.store(false, Ordering::Release);
    }

    /// What to do next. Wakes callers that wait until nothing is outstanding, if that is so.
    pub(super) fn next_action(&self, inbox: &mut WriterInbox) -> Action<Arc<dyn Source>, Completion> {
        let now = self.now();
        let action = inbox.machine.next(now);
        if inbox.machine.has_flushes() && inbox.machine.is_idle(now) {
            self.idle_changed.notify_all();
        }
        action
    }

    /// Lets a refused batch take in what was submitted since.
    pub(super) fn amend(&self, run: &mut BatchRun) {
        let request = self.inbox().machine.amend(run, self.now());
        run.amended();
        if let Some(request) = request {
            request.ask();
        }
    }

    /// Reports the outcome of a batch.
    pub(super) fn finish(&self, run: BatchRun, has_dead_rows: bool) {
        let last = run.batch_no();
        let (contents, durable) = run.into_outcome();
        if contents.is_torn {
            tracing::error!(
                "a queue did not contribute its part of a group; the other parts were committed without it"
            );
        }
        let batch_no = self.inbox().machine.finished(last, has_dead_rows);
        for then in contents.completions {
            catch_panic("then", || then(durable));
        }
        for (source, ticket) in contents.tickets {
            catch_panic("stored", || source.stored(ContributionOutcome { ticket, batch_no, durable }));
        }
    }

    /// Ends the machine, and reports what was never committed as not durable.
    pub(super) fn refuse_leftover(&self) {
        let (leftover, batch_no) = self.inbox().machine.close();
        self.wants_rows.store(false, Ordering::Release);
        self.idle_changed.notify_all();
        for (source, contribution) in leftover.contributions {
            let refused = ContributionOutcome { ticket: contribution.ticket, batch_no, durable: false };
            catch_panic("stored", || source.stored(refused));
        }
        for then in leftover.completions {
            catch_panic("then", || then(false));
        }
    }
}

/// Calls code of a caller. A panic there does not end the driver.
pub(super) fn catch_panic(what: &'static str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        tracing::error!(what, "a caller of the store's writer panicked");
    }
}

/// Locks a mutex that guards plain values: they are whole even if a thread panicked.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
