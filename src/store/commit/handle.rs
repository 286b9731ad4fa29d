//! How queues and topology reach the writer.

use super::copying::CopySlot;
use super::inline::InlineCommits;
use super::machine::{Action, Asked, CommitMachine, Limits, Request};
use super::reading::{LoadThen, Loads};
use super::stepped::Stepping;
use super::store_runner::StoreRunner;
use super::threaded::{self, Threads};
use super::{Contribution, Source, Stored, Then, WriterSettings, WriterState, WriterStats, outcome};
use crate::model::{Clock, Monotonic};
use crate::store::{BatchNo, LoadRequest, Store, StoreError, StoreTraits, TopologyChange, Vitals};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

/// A machine whose sources are queues' cells.
pub(super) type Machine = CommitMachine<Arc<dyn Source>, Then>;

/// A batch of such a machine.
pub(super) type BatchRun = outcome::BatchRun<Arc<dyn Source>, Then>;

impl Asked for Arc<dyn Source> {
    fn key(&self) -> usize {
        Self::as_ptr(self).cast::<()>() as usize
    }

    fn rows_waiting(&self) -> usize {
        (**self).rows_waiting()
    }
}

impl Request<Arc<dyn Source>> {
    /// Asks the sources; call it without a lock.
    pub(super) fn ask(self) {
        for source in self.sources {
            catch_panic("pull", || source.pull(self.rows_max, self.bytes_max));
        }
    }
}

/// What the writer's lock guards.
pub(super) struct WriterInbox {
    pub(super) machine: Machine,
    pub(super) copy: CopySlot,
    /// The driver waits for `wake`.
    pub(super) is_asleep: bool,
    /// When it wakes by itself, if ever.
    pub(super) wakes_at: Option<Monotonic>,
}

/// What the driver and the handles share.
pub(super) struct WriterShared {
    inbox: Mutex<WriterInbox>,
    pub(super) wake: Condvar,
    /// Nothing is outstanding, or the writer has stopped.
    pub(super) idle_changed: Condvar,
    /// There is nothing to do: rows are welcome unasked. A hint; contributing and marking are right at any time.
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
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stats(&self) -> MutexGuard<'_, WriterStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the driver, unless the calling thread will commit itself. The lock is given up first: the driver needs it as
    /// soon as it is awake.
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

    /// What to do next. Callers that wait for the end of all work are woken when it is there.
    pub(super) fn next_action(&self, inbox: &mut WriterInbox) -> Action<Arc<dyn Source>, Then> {
        let now = self.now();
        let action = inbox.machine.next(now);
        if inbox.machine.has_flushes() && inbox.machine.is_idle(now) {
            self.idle_changed.notify_all();
        }
        action
    }

    /// Lets a refused batch take in what has come meanwhile.
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
        let (gathered, durable) = run.into_outcome();
        if gathered.is_torn {
            tracing::error!(
                "a queue did not contribute its part of a group; the other parts were committed without it"
            );
        }
        let batch_no = self.inbox().machine.finished(last, has_dead_rows);
        for then in gathered.completions {
            catch_panic("then", || then(durable));
        }
        for (source, ticket) in gathered.tickets {
            catch_panic("stored", || source.stored(Stored { ticket, batch_no, durable }));
        }
    }

    /// Closes the store, and refuses what was never committed.
    pub(super) fn close(&self, runner: &mut StoreRunner) -> Result<(), StoreError> {
        let closed = runner.close();
        let (leftover, batch_no) = self.inbox().machine.close();
        self.wants_rows.store(false, Ordering::Release);
        self.idle_changed.notify_all();
        for (source, contribution) in leftover.contributions {
            let refused = Stored { ticket: contribution.ticket, batch_no, durable: false };
            catch_panic("stored", || source.stored(refused));
        }
        for then in leftover.completions {
            catch_panic("then", || then(false));
        }
        closed
    }
}

/// Runs code of others; a panic of it does not end the driver.
pub(super) fn catch_panic(what: &'static str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        tracing::error!(what, "a caller of the store's writer panicked");
    }
}

/// How queues and topology reach the writer; cheap to clone. When the last one goes, the writer stops by itself.
#[derive(Clone)]
pub struct WriterHandle {
    pub(super) life: Arc<WriterLife>,
}

pub(super) struct WriterLife {
    pub(super) shared: Arc<WriterShared>,
    pub(super) driver: Driver,
    loads: Loads,
    /// Loads asked for and not yet handed over.
    loading: Arc<AtomicUsize>,
}

/// What steps the machine.
pub(super) enum Driver {
    Threaded(Threads),
    Stepped(Box<Stepping>),
}

impl Drop for WriterLife {
    fn drop(&mut self) {
        let mut inbox = self.shared.inbox();
        inbox.machine.stop();
        self.shared.wake_driver(inbox);
    }
}

impl WriterHandle {
    /// Starts a writer with threads of its own, on an opened and recovered store; `last` is the last batch that it
    /// recovered.
    ///
    /// # Errors
    /// When the store gives no reader, or the system no thread.
    pub fn start(
        store: Box<dyn Store>,
        last: BatchNo,
        settings: WriterSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let traits = store.traits();
        let shared = Arc::new(WriterShared::new(last, settings, traits, clock));
        let readers = (0..traits.readers.max(1)).map(|_| store.reader()).collect::<Result<_, _>>()?;
        let (loads, threads) = threaded::start(store, readers, &shared)?;
        Ok(Self::new(shared, Driver::Threaded(threads), loads))
    }

    pub(super) fn new(shared: Arc<WriterShared>, driver: Driver, loads: Loads) -> Self {
        Self { life: Arc::new(WriterLife { shared, driver, loads, loading: Arc::default() }) }
    }

    /// Marks a source as having something to write. It does so once, then not again until its next contribution that
    /// has no `more`.
    pub fn dirty(&self, source: Arc<dyn Source>) {
        let shared = &self.life.shared;
        let mut inbox = shared.inbox();
        if inbox.machine.dirty(source) {
            shared.wake_driver(inbox);
        }
    }

    /// Whether the writer is idle: a turn that has just become dirty may then contribute at once instead of calling
    /// [`WriterHandle::dirty`]. Either is right whatever the answer was; this only saves a round trip.
    pub fn wants_rows(&self) -> bool {
        self.life.shared.wants_rows.load(Ordering::Acquire)
    }

    /// Hands rows over: as the answer to a pull, or unasked. Contributions of one source are committed in their order.
    pub fn contribute(&self, source: Arc<dyn Source>, contribution: Contribution) {
        let shared = &self.life.shared;
        let mut inbox = shared.inbox();
        match inbox.machine.contribute(source, contribution) {
            Ok(()) => shared.wake_driver(inbox),
            Err((source, contribution)) => {
                drop(inbox);
                if !contribution.is_empty() {
                    source.stored(Stored { ticket: contribution.ticket, batch_no: BatchNo(0), durable: false });
                }
            }
        }
    }

    /// Makes changes of topology durable in their order of submission, then runs `then` on the driver's thread. A queue
    /// contributes nothing any more once its deletion is submitted. The changes are in the batch of any contribution that is
    /// submitted after them, or in one before it.
    ///
    /// Without changes `then` runs when everything submitted before (topology and contributions) is durable: at once,
    /// on this thread, when nothing is pending.
    pub fn topology(&self, changes: Vec<TopologyChange>, then: Then) {
        if changes.is_empty() && self.life.shared.inbox().machine.is_all_durable() {
            let durable = self.life.shared.stats().state != WriterState::Failed;
            return then(durable);
        }
        if let Err(then) = self.submit_topology(changes, then) {
            then(false);
        }
    }

    /// As [`WriterHandle::topology`], but never runs `then` on this thread.
    ///
    /// # Errors
    /// Gives `then` back when the writer has stopped: the changes will never be durable.
    pub fn submit_topology(&self, changes: Vec<TopologyChange>, then: Then) -> Result<(), Then> {
        let shared = &self.life.shared;
        let mut inbox = shared.inbox();
        inbox.machine.change_topology(changes, then)?;
        shared.wake_driver(inbox);
        Ok(())
    }

    /// Reads rows back and hands them to `then`, on a reader's thread.
    pub fn load(&self, request: LoadRequest, then: LoadThen) {
        let loading = Arc::clone(&self.life.loading);
        loading.fetch_add(1, Ordering::AcqRel);
        let then: LoadThen = Box::new(move |loaded| {
            then(loaded);
            loading.fetch_sub(1, Ordering::AcqRel);
        });
        self.life.loads.submit(request, then);
    }

    /// Whether nothing is outstanding: no dirty source, no contribution, no topology, no load. Until something is
    /// submitted, nothing more comes of the store then.
    pub fn is_idle(&self) -> bool {
        let shared = &self.life.shared;
        self.life.loading.load(Ordering::Acquire) == 0 && shared.inbox().machine.is_idle(shared.now())
    }

    /// Waits until nothing is outstanding: no dirty source, no contribution, no topology. It is for the moment when
    /// traffic has ended, and blocks; `false` when the store has failed.
    pub fn flush(&self) -> bool {
        match &self.life.driver {
            Driver::Threaded(_) => threaded::flush(&self.life.shared),
            Driver::Stepped(stepping) => stepping.run_until_idle(),
        }
        self.life.shared.stats().state == WriterState::Ok
    }

    /// Commits what is outstanding, closes the store in good order and ends the driver. Blocks; further calls return
    /// the same result. Not to be called from a `then`.
    pub fn stop(&self) -> Result<(), StoreError> {
        let mut inbox = self.life.shared.inbox();
        inbox.machine.stop();
        self.life.shared.wake_driver(inbox);
        // Readers end when nobody can ask them any more; they go first, so that the writer closes the store alone.
        self.life.loads.close();
        match &self.life.driver {
            Driver::Threaded(threads) => threads.join(),
            Driver::Stepped(stepping) => stepping.run_to_end(),
        }
    }

    /// How the store's files are.
    pub fn vitals(&self) -> Vitals {
        self.life.shared.stats().vitals
    }

    /// A snapshot of the writer's counters.
    pub fn stats(&self) -> WriterStats {
        let mut stats = self.life.shared.stats().clone();
        stats.forget_old_failure(self.life.shared.now());
        stats
    }
}
