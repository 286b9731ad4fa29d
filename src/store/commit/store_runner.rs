//! Carries out on the store what the machines decide, and logs it. A panic of the store does not end the writer.

use super::WriterState;
use super::copying::{CopyEvent, CopyListener, CopySlot, PAGES_PER_STEP, notify};
use super::machine::StoreWork;
use super::metrics::BatchSize;
use super::outcome::{BatchRun, RETRY_PAUSE_MAX, Report, Step};
use super::shared::WriterShared;
use crate::model::Monotonic;
use crate::store::{Backup, Cause, CommitOutcome, CopyError, Maintenance, Store, StoreError, chain};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

/// How a driver goes on with a batch.
pub(super) enum Progress {
    /// Continue at this moment.
    Wait(Monotonic),
    /// Let the batch take in what was submitted since, then continue.
    Amend,
    /// The batch has its outcome.
    Over,
}

/// Owns the store. A store that has failed is dropped.
pub(super) struct StoreRunner {
    store: Option<Box<dyn Store>>,
    shared: Arc<WriterShared>,
    /// The listener of the copy that is under way.
    copy: Option<CopyListener>,
}

impl StoreRunner {
    pub(super) fn new(store: Box<dyn Store>, shared: Arc<WriterShared>) -> Self {
        Self { store: Some(store), shared, copy: None }
    }

    fn now(&self) -> Monotonic {
        self.shared.now()
    }

    /// Continues with a batch until it has to wait, or has its outcome.
    pub(super) fn go_on<S, C>(&mut self, run: &mut BatchRun<S, C>) -> Progress {
        loop {
            if let Some(progress) = self.step(run) {
                return progress;
            }
        }
    }

    /// Tries once to commit a batch. Returns whether it has its outcome.
    pub(super) fn try_once<S, C>(&mut self, run: &mut BatchRun<S, C>) -> bool {
        self.step(run);
        matches!(run.step(self.now()), Step::Over)
    }

    fn step<S, C>(&mut self, run: &mut BatchRun<S, C>) -> Option<Progress> {
        let began = self.now();
        let report = match run.step(began) {
            Step::Commit(batch) => {
                let outcome = match self.store.as_mut() {
                    None => CommitOutcome::Fatal(StoreError::GivenUp.into()),
                    Some(store) => catch_unwind(AssertUnwindSafe(|| store.commit(batch)))
                        .unwrap_or_else(|_| CommitOutcome::Fatal(StoreError::Panicked.into())),
                };
                run.committed(outcome, began, self.now())
            }
            Step::LookUp { batch_no, cause, unknown_for } => {
                tracing::warn!(
                    batch_no = batch_no.0,
                    error = %chain(cause.as_source()),
                    ?unknown_for,
                    "the outcome of a commit is unknown: reopening the store"
                );
                let cause = cause.clone();
                let found = self.store.as_mut().map(|store| catch_unwind(AssertUnwindSafe(|| store.reopen())));
                match found {
                    Some(Ok(found)) => run.looked_up(found, self.now()),
                    Some(Err(_)) => run.fail(Cause::new("the store panicked while reopening after", cause)),
                    None => run.fail(StoreError::GivenUp.into()),
                }
            }
            Step::Wait(until) if until > began => return Some(Progress::Wait(until)),
            Step::Wait(_) => {
                run.waited();
                return None;
            }
            Step::Amend => return Some(Progress::Amend),
            Step::Over => return Some(Progress::Over),
        };
        self.report(run, report, began);
        None
    }

    /// The writer stops: a batch that waits for its next try is given up.
    pub(super) fn stop<S, C>(&mut self, run: &mut BatchRun<S, C>) {
        let (report, now) = (run.stop(), self.now());
        self.report(run, report, now);
    }

    fn report<S, C>(&mut self, run: &BatchRun<S, C>, report: Report, began: Monotonic) {
        let batch_no = run.batch_no().unwrap_or_default().0;
        match report {
            Report::Nothing => {}
            Report::Durable { after_failure } => {
                self.note_durable(run, began);
                if after_failure {
                    tracing::info!(batch_no, "the store commits again");
                }
            }
            Report::Retrying { failure, is_first } => {
                let error = chain(&failure).to_string();
                if is_first {
                    tracing::error!(
                        batch_no,
                        error,
                        "a commit failed and is tried again; nothing is confirmed meanwhile"
                    );
                }
                let mut stats = self.shared.stats();
                stats.retries += 1;
                stats.failed(WriterState::Retrying, error);
                drop(stats);
                self.note_vitals();
            }
            Report::Failed(failure) => self.fail(&chain(&failure).to_string()),
        }
    }

    fn note_durable<S, C>(&self, run: &BatchRun<S, C>, began: Monotonic) {
        let contents = run.contents();
        let Some(batch) = &contents.batch else { return };
        let inserted = batch.lanes.iter().map(|change| change.inserts.len()).sum::<usize>();
        let removed = contents.rows.saturating_sub(inserted);
        let (inserted, removed, bytes) = (inserted as u64, removed as u64, contents.bytes as u64);
        self.shared.stats().committed(&BatchSize { inserted, removed, bytes }, self.now().since(began));
        self.note_vitals();
    }

    /// Gives the store up for good: nothing becomes durable from here on.
    fn fail(&mut self, error: &str) {
        if let Some(store) = self.store.take() {
            tracing::error!(error, "the store has failed: nothing is confirmed any more");
            self.shared.stats().failed(WriterState::Failed, error.to_owned());
            if catch_unwind(AssertUnwindSafe(|| drop(store))).is_err() {
                tracing::error!("the store panicked while it was given up");
            }
        }
    }

    fn note_vitals(&self) {
        if let Some(stats) = self.store.as_ref().and_then(|store| store.file_stats()) {
            self.shared.stats().vitals = stats.vitals();
        }
    }

    /// Lets the store do its maintenance. Returns when it is due again, if ever.
    pub(super) fn maintain(&mut self) -> Option<Monotonic> {
        let store = self.store.as_mut()?;
        let done = catch_unwind(AssertUnwindSafe(|| store.maintenance().map_or(Ok(None), Maintenance::maintain)));
        let next = match done {
            Ok(Ok(next)) => {
                let mut stats = self.shared.stats();
                if stats.state == WriterState::Retrying {
                    tracing::info!("the store is well again");
                    stats.state = WriterState::Ok;
                }
                next
            }
            Ok(Err(error)) => {
                let error = chain(&error).to_string();
                tracing::error!(error, "what was committed could not be flushed: reopening the store");
                let mut stats = self.shared.stats();
                stats.retries += 1;
                stats.failed(WriterState::Retrying, error);
                drop(stats);
                if let Ok(Err(error)) = catch_unwind(AssertUnwindSafe(|| store.reopen())) {
                    tracing::error!(error = %chain(&error), "the store could not be reopened");
                }
                Some(RETRY_PAUSE_MAX)
            }
            Err(_) => {
                self.fail("the store panicked");
                None
            }
        };
        self.note_vitals();
        next.map(|wait: Duration| self.now().plus(wait))
    }

    /// Does work of the store beside commits, and passes the result to the machine.
    pub(super) fn work(&mut self, work: StoreWork) {
        match work {
            StoreWork::StepCopy => self.step_copy(),
            StoreWork::Maintain => {
                let again = self.maintain();
                let has_dead_rows = self.has_dead_rows();
                self.shared.inbox().machine.maintained(again, has_dead_rows);
            }
            StoreWork::Erase { rows } => {
                let more = self.erase(rows);
                let has_dead_rows = self.has_dead_rows();
                self.shared.inbox().machine.erased(more, has_dead_rows);
            }
        }
    }

    pub(super) fn has_dead_rows(&mut self) -> bool {
        self.maintenance().is_some_and(|store| store.has_dead_rows())
    }

    fn maintenance(&mut self) -> Option<&mut dyn Maintenance> {
        self.store.as_mut()?.maintenance()
    }

    /// Erases a slice of dead rows. Returns whether another one is worth erasing.
    fn erase(&mut self, rows: usize) -> bool {
        let Some(store) = self.maintenance() else { return false };
        match catch_unwind(AssertUnwindSafe(|| store.erase(rows))) {
            Ok(Ok(more)) => more,
            Ok(Err(error)) => {
                // Nothing depends on it: it is tried again after the next drop.
                tracing::warn!(error = %chain(&error), "rows of dropped queues could not be erased");
                false
            }
            Err(_) => {
                self.fail("the store panicked while erasing");
                false
            }
        }
    }

    /// Begins the copy that is requested, or continues the one that is under way.
    fn step_copy(&mut self) {
        self.begin_copy();
        let Some(mut listener) = self.copy.take() else { return };
        let event = match self.with_backup(|store| store.step_copy(PAGES_PER_STEP)) {
            Ok(progress) => CopyEvent::Progress(progress),
            Err(error) => CopyEvent::Failed(error),
        };
        let goes_on = matches!(&event, CopyEvent::Progress(progress) if !progress.is_done);
        if notify(&mut listener, event) && goes_on {
            self.copy = Some(listener);
        } else {
            self.free_copy_slot();
        }
        // `listener` is dropped last: its owner may wait until nobody can call it any more.
    }

    fn begin_copy(&mut self) {
        let Some((target, mut listener)) = self.shared.inbox().copy.begin() else { return };
        match self.with_backup(|store| store.begin_copy(&target)) {
            Ok(()) => self.copy = Some(listener),
            Err(error) => {
                notify(&mut listener, CopyEvent::Failed(error));
                self.free_copy_slot();
            }
        }
    }

    fn free_copy_slot(&mut self) {
        self.end_copy();
        let mut inbox = self.shared.inbox();
        inbox.copy = CopySlot::Free;
        inbox.machine.set_copying(false);
    }

    /// Ends a copy because the writer stops.
    fn give_copy_up(&mut self) {
        let requested = match std::mem::take(&mut self.shared.inbox().copy) {
            CopySlot::Requested { listener, .. } => Some(listener),
            CopySlot::Free | CopySlot::Running => None,
        };
        for mut listener in self.copy.take().into_iter().chain(requested) {
            notify(&mut listener, CopyEvent::Failed(CopyError::Stopping));
        }
        self.end_copy();
    }

    /// Ends a copy, complete or not.
    fn end_copy(&mut self) {
        // Without a store there is no copy to end.
        let _ = self.with_backup(|store| {
            store.end_copy();
            Ok(())
        });
    }

    fn with_backup<T>(&mut self, run: impl FnOnce(&mut dyn Backup) -> Result<T, CopyError>) -> Result<T, CopyError> {
        let store = self.store.as_mut().ok_or(StoreError::GivenUp)?;
        let store = store.backup().ok_or(CopyError::NotSupported)?;
        catch_unwind(AssertUnwindSafe(|| run(store))).unwrap_or_else(|_| {
            self.fail("the store panicked while it was copied");
            Err(StoreError::Panicked.into())
        })
    }

    /// Ends a copy, closes the store, and refuses what was never committed.
    pub(super) fn shut_down(&mut self) -> Result<(), StoreError> {
        self.give_copy_up();
        let closed = match self.store.take() {
            Some(store) => catch_unwind(AssertUnwindSafe(|| store.close())).unwrap_or(Err(StoreError::Panicked)),
            None => Err(StoreError::GivenUp),
        };
        self.shared.refuse_leftover();
        closed
    }
}
