//! The handle by which queues and topology reach the writer.

use super::copying::{CopyListener, CopySlot};
use super::reading::{LoadCompletion, Loads};
use super::shared::WriterShared;
use super::stepped::{self, StepOutcome, SteppedDriver};
use super::threaded::{self, Threads};
use super::{
    Completion, Contribution, ContributionOutcome, InlineCommits, Source, WriterSettings, WriterState, WriterStats,
    inline,
};
use crate::model::{Clock, Monotonic};
use crate::store::{BatchNo, CopyError, LoadRequest, Store, StoreError, TopologyChange, Vitals};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A handle of the writer, cheap to clone. When the last one is dropped, the writer stops.
#[derive(Clone)]
pub struct WriterHandle {
    life: Arc<WriterLife>,
}

struct WriterLife {
    shared: Arc<WriterShared>,
    driver: Driver,
    loads: Loads,
    /// Loads that were requested and not answered yet.
    loading: Arc<AtomicUsize>,
}

/// The driver that steps the machine.
enum Driver {
    Threaded(Threads),
    Stepped(Box<SteppedDriver>),
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

    fn new(shared: Arc<WriterShared>, driver: Driver, loads: Loads) -> Self {
        Self { life: Arc::new(WriterLife { shared, driver, loads, loading: Arc::default() }) }
    }

    /// Marks a source as dirty: it has rows to write. Call it once, then not again before the source has made a contribution
    /// without `more`.
    pub fn dirty(&self, source: Arc<dyn Source>) {
        let shared = &self.life.shared;
        let mut inbox = shared.inbox();
        if inbox.machine.dirty(source) {
            shared.wake_driver(inbox);
        }
    }

    /// Whether the writer is idle. Then a source may contribute at once instead of calling [`WriterHandle::dirty`],
    /// which saves a round trip. Both calls are right at any time.
    pub fn wants_rows(&self) -> bool {
        self.life.shared.wants_rows.load(Ordering::Acquire)
    }

    /// Hands rows over, as the answer to a pull or unasked. Contributions of one source are committed in their order.
    pub fn contribute(&self, source: Arc<dyn Source>, contribution: Contribution) {
        let shared = &self.life.shared;
        let mut inbox = shared.inbox();
        match inbox.machine.contribute(source, contribution) {
            Ok(()) => shared.wake_driver(inbox),
            Err((source, contribution)) => {
                drop(inbox);
                if !contribution.is_empty() {
                    source.stored(ContributionOutcome {
                        ticket: contribution.ticket,
                        batch_no: BatchNo(0),
                        durable: false,
                    });
                }
            }
        }
    }

    /// Makes changes of topology durable in their order of submission, then calls `then` on the driver's thread. A
    /// queue must contribute nothing once its deletion is submitted. The changes are in the batch of any later
    /// contribution, or in one before it.
    ///
    /// Without changes it is a barrier: `then` is called when everything submitted before (topology and contributions) is
    /// durable; at once, on this thread, if nothing is pending.
    pub fn topology(&self, changes: Vec<TopologyChange>, then: Completion) {
        if changes.is_empty() && self.life.shared.inbox().machine.is_all_durable() {
            let durable = self.life.shared.stats().state != WriterState::Failed;
            return then(durable);
        }
        if let Err(then) = self.submit_topology(changes, then) {
            then(false);
        }
    }

    /// As [`WriterHandle::topology`], but never calls `then` on this thread.
    ///
    /// # Errors
    /// Returns `then` if the writer has stopped: the changes will never be durable.
    pub fn submit_topology(&self, changes: Vec<TopologyChange>, then: Completion) -> Result<(), Completion> {
        let shared = &self.life.shared;
        let mut inbox = shared.inbox();
        inbox.machine.change_topology(changes, then)?;
        shared.wake_driver(inbox);
        Ok(())
    }

    /// Reads rows back and passes them to `then`, on a reader's thread.
    pub fn load(&self, request: LoadRequest, then: LoadCompletion) {
        let loading = Arc::clone(&self.life.loading);
        loading.fetch_add(1, Ordering::AcqRel);
        let then: LoadCompletion = Box::new(move |loaded| {
            then(loaded);
            loading.fetch_sub(1, Ordering::AcqRel);
        });
        self.life.loads.submit(request, then);
    }

    /// Whether nothing is outstanding: no dirty source, no contribution, no topology, no load. Then the writer makes no call
    /// until something is submitted.
    pub fn is_idle(&self) -> bool {
        let shared = &self.life.shared;
        self.life.loading.load(Ordering::Acquire) == 0 && shared.inbox().machine.is_idle(shared.now())
    }

    /// Blocks until nothing is outstanding: no dirty source, no contribution, no topology. It is for the moment when
    /// traffic has ended. `false` if the store has failed.
    pub fn flush(&self) -> bool {
        match &self.life.driver {
            Driver::Threaded(_) => threaded::flush(&self.life.shared),
            Driver::Stepped(stepping) => stepping.run_until_idle(),
        }
        self.life.shared.stats().state == WriterState::Ok
    }

    /// Commits what is outstanding, closes the store in good order and ends the driver. Blocks. Further calls return
    /// the same result. It must not be called from a `then`.
    pub fn stop(&self) -> Result<(), StoreError> {
        let mut inbox = self.life.shared.inbox();
        inbox.machine.stop();
        self.life.shared.wake_driver(inbox);
        // Readers end once no request can reach them. They end first, so that the writer closes the store alone.
        self.life.loads.close();
        match &self.life.driver {
            Driver::Threaded(threads) => threads.join(),
            Driver::Stepped(stepping) => stepping.run_to_end(),
        }
    }

    /// Copies everything to `target` while the writer goes on committing. What is durable before this call is part of the
    /// copy, which holds whole batches only. It is not flushed.
    ///
    /// # Errors
    /// When another copy is under way, or the writer has stopped.
    pub fn copy(&self, target: PathBuf, listener: CopyListener) -> Result<(), CopyError> {
        let shared = &self.life.shared;
        let mut inbox = shared.inbox();
        if inbox.machine.is_stopping() {
            return Err(CopyError::Stopping);
        }
        if !matches!(inbox.copy, CopySlot::Free) {
            return Err(CopyError::AlreadyRunning);
        }
        inbox.copy = CopySlot::Requested { target, listener };
        inbox.machine.set_copying(true);
        shared.wake_driver(inbox);
        Ok(())
    }

    /// The state of the store's files.
    pub fn vitals(&self) -> Vitals {
        self.life.shared.stats().vitals
    }

    /// A snapshot of the writer's counters.
    pub fn stats(&self) -> WriterStats {
        let mut stats = self.life.shared.stats().clone();
        stats.forget_old_failure(self.life.shared.now());
        stats
    }

    /// A writer that works only in [`WriterHandle::step`].
    ///
    /// # Errors
    /// When the store gives no reader.
    pub fn start_stepped(
        store: Box<dyn Store>,
        last: BatchNo,
        settings: WriterSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let shared = Arc::new(WriterShared::new(last, settings, store.traits(), clock));
        let (loads, stepping) = stepped::start(store, &shared)?;
        Ok(Self::new(shared, Driver::Stepped(Box::new(stepping)), loads))
    }

    /// When a stepped writer that sleeps has work again, if ever.
    pub fn wakes_at(&self) -> Option<Monotonic> {
        match &self.life.driver {
            Driver::Stepped(stepping) => stepping.wakes_at(),
            Driver::Threaded(_) => None,
        }
    }

    /// Does one step of a stepped writer: asks sources, commits, reports an outcome, reads one load, or the like. A
    /// writer with threads of its own always answers that it sleeps.
    pub fn step(&self) -> StepOutcome {
        match &self.life.driver {
            Driver::Stepped(stepping) => stepping.step(),
            Driver::Threaded(_) => StepOutcome::Sleeps(None),
        }
    }

    /// From here on threads may commit themselves if `inline` allows it. Without effect if the store does not commit in place,
    /// and after the first call.
    pub fn allow_inline(&self, inline: Arc<dyn InlineCommits>) {
        if matches!(&self.life.driver, Driver::Threaded(threads) if threads.commits_in_place) {
            let _ = self.life.shared.inline.set(inline);
        }
    }

    /// Whether threads may commit themselves.
    pub fn allows_inline(&self) -> bool {
        self.life.shared.inline.get().is_some()
    }

    /// Wakes the writer's thread for what was submitted.
    pub fn wake(&self) {
        let shared = &self.life.shared;
        shared.wake_driver(shared.inbox());
    }

    /// Commits one batch on this thread and reports its outcome, unless the writer's thread has it. Blocks for the time of a
    /// commit. A commit that fails and further work are left to the writer's thread.
    pub fn commit_here(&self) {
        if let Driver::Threaded(threads) = &self.life.driver {
            inline::commit(&self.life.shared, threads);
        }
    }
}
