//! What happens to one batch until its outcome is known: tried again, looked up, or given up for good.

use super::gather::Gathered;
use super::stats::BatchSize;
use super::{Shared, WriterState};
use crate::store::{Batch, BatchNo, CommitOutcome, CopyProgress, Store, StoreError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// The first pause before a batch is tried again; doubled each time.
const RETRY_PAUSE_FIRST: Duration = Duration::from_millis(10);

/// The longest such pause.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);

/// What to do after one try.
pub(super) enum Verdict {
    Durable,
    /// The store has nothing of it.
    Refused(String),
    Again(String),
    LookUp(String),
    Failed(String),
}

/// Owns the store; once failed it has none.
pub(super) struct Settler {
    store: Option<Box<dyn Store>>,
    shared: Arc<Shared>,
    /// How long the outcome of one batch may stay unknown, or reopening fail, before the store counts as failed.
    give_up_after: Duration,
}

impl Settler {
    pub(super) fn new(store: Box<dyn Store>, shared: Arc<Shared>, give_up_after: Duration) -> Self {
        Self { store: Some(store), shared, give_up_after }
    }

    /// Commits what was gathered, however often it takes, after a first try if there was one; whether it is durable.
    pub(super) fn settle(&mut self, gathered: &mut Gathered, mut tried: Option<Verdict>) -> bool {
        let mut pause = RETRY_PAUSE_FIRST;
        let mut unknown_since = None;
        let mut said = false;
        loop {
            let began = Instant::now();
            let Some(batch) = &gathered.batch else { return true };
            let mut verdict = tried.take().unwrap_or_else(|| self.commit_once(batch));
            if let Verdict::LookUp(error) = verdict {
                let unknown_for = unknown_since.get_or_insert(began).elapsed();
                verdict = self.look_up(batch.batch_no, error, unknown_for);
            }
            match verdict {
                Verdict::Durable => {
                    self.note_durable(batch, gathered, began);
                    if said {
                        tracing::info!(batch_no = batch.batch_no.0, "the store commits again");
                    }
                    return true;
                }
                Verdict::Refused(ref error) | Verdict::Again(ref error) | Verdict::LookUp(ref error) => {
                    if !said {
                        tracing::error!(
                            batch_no = batch.batch_no.0,
                            error,
                            "a commit failed and is tried again; nothing is confirmed meanwhile"
                        );
                        said = true;
                    }
                    let mut stats = self.shared.stats();
                    stats.retries += 1;
                    stats.failed(WriterState::Retrying, error.clone());
                    drop(stats);
                    self.note_vitals();
                    if !self.pause(pause) {
                        return self.fail(format!("stopped while a commit kept failing: {error}"));
                    }
                    pause = (pause * 2).min(RETRY_PAUSE_MAX);
                    if let Verdict::Refused(_) = verdict {
                        gathered.amend(&self.shared);
                        if let Some(failed) = self.commit_removals(gathered) {
                            return self.fail(failed);
                        }
                    }
                }
                Verdict::Failed(error) => return self.fail(error),
            }
        }
    }

    /// Commits what of a refused batch only removes rows: it needs little space, and gives some back. Where even that is refused
    /// the batch stays whole. Returns why the store has failed, if it has.
    fn commit_removals(&mut self, gathered: &mut Gathered) -> Option<String> {
        let batch = gathered.batch.as_mut()?;
        let whole = batch.clone();
        let removals = batch.split_removals(&gathered.bound)?;
        let began = Instant::now();
        loop {
            let mut verdict = self.commit_once(&removals);
            if let Verdict::LookUp(error) = verdict {
                verdict = self.look_up(removals.batch_no, error, began.elapsed());
            }
            match verdict {
                Verdict::Durable => return None,
                Verdict::Refused(_) => {
                    gathered.batch = Some(whole);
                    return None;
                }
                Verdict::Failed(error) => return Some(error),
                Verdict::Again(error) | Verdict::LookUp(error) => {
                    if !self.pause(RETRY_PAUSE_FIRST) {
                        return Some(format!("stopped while a commit kept failing: {error}"));
                    }
                }
            }
        }
    }

    /// Tries once to commit what was gathered.
    pub(super) fn try_once(&mut self, gathered: &Gathered) -> Verdict {
        let began = Instant::now();
        let Some(batch) = &gathered.batch else { return Verdict::Durable };
        let verdict = self.commit_once(batch);
        if let Verdict::Durable = verdict {
            self.note_durable(batch, gathered, began);
        }
        verdict
    }

    fn note_durable(&self, batch: &Batch, gathered: &Gathered, began: Instant) {
        let inserted = batch.lanes.iter().map(|change| change.inserts.len()).sum::<usize>();
        let removed = gathered.rows.saturating_sub(inserted);
        let (inserted, removed, bytes) = (inserted as u64, removed as u64, gathered.bytes as u64);
        self.shared.stats().committed(&BatchSize { inserted, removed, bytes }, began.elapsed());
        self.note_vitals();
    }

    fn commit_once(&mut self, batch: &Batch) -> Verdict {
        let Some(store) = self.store.as_mut() else { return Verdict::Failed("the store has failed".into()) };
        match catch_unwind(AssertUnwindSafe(|| store.commit(batch))) {
            Ok(CommitOutcome::Committed) => Verdict::Durable,
            Ok(CommitOutcome::NotCommitted(error)) => Verdict::Refused(error),
            Ok(CommitOutcome::Unknown(error)) => Verdict::LookUp(error),
            Ok(CommitOutcome::Fenced) => Verdict::Failed("another home owns the store".into()),
            Ok(CommitOutcome::Fatal(error)) => Verdict::Failed(error),
            Err(_) => Verdict::Failed("the store panicked".into()),
        }
    }

    /// Reopens the store to learn what became of a batch.
    fn look_up(&mut self, batch_no: BatchNo, error: String, unknown_for: Duration) -> Verdict {
        let Some(store) = self.store.as_mut() else { return Verdict::Failed(error) };
        tracing::warn!(
            batch_no = batch_no.0,
            error,
            ?unknown_for,
            "the outcome of a commit is unknown: reopening the store"
        );
        let found = catch_unwind(AssertUnwindSafe(|| store.reopen()));
        match found {
            Ok(Ok(last)) if last >= batch_no => Verdict::Durable,
            _ if unknown_for >= self.give_up_after => {
                Verdict::Failed(format!("given up after {:.1} s: {error}", unknown_for.as_secs_f64()))
            }
            Ok(Ok(_)) => Verdict::Again(error),
            Ok(Err(reopening)) => Verdict::Again(format!("{error}; reopening: {reopening}")),
            Err(_) => Verdict::Failed(format!("the store panicked while reopening after: {error}")),
        }
    }

    /// Gives the store up: nothing becomes durable from here on.
    fn fail(&mut self, error: String) -> bool {
        if let Some(store) = self.store.take() {
            tracing::error!(error, "the store has failed: nothing is confirmed any more");
            self.shared.stats().failed(WriterState::Failed, error);
            if catch_unwind(AssertUnwindSafe(|| drop(store))).is_err() {
                tracing::error!("the store panicked while it was given up");
            }
        }
        false
    }

    /// Waits before the next try; `false` when the writer is to stop.
    fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut inbox = self.shared.inbox();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if inbox.stopping || left.is_zero() {
                return !inbox.stopping;
            }
            inbox.asleep = true;
            inbox = self.shared.wake.wait_timeout(inbox, left).unwrap_or_else(PoisonError::into_inner).0;
            inbox.asleep = false;
        }
    }

    fn note_vitals(&self) {
        if let Some(store) = &self.store {
            self.shared.stats().vitals = store.vitals();
        }
    }

    /// Lets the store do what is due while there is nothing to commit; when it wants to be called again.
    pub(super) fn tend(&mut self) -> Option<Duration> {
        let store = self.store.as_mut()?;
        let next = match catch_unwind(AssertUnwindSafe(|| store.tend())) {
            Ok(Ok(next)) => {
                let mut stats = self.shared.stats();
                if stats.state == WriterState::Retrying {
                    tracing::info!("the store is well again");
                    stats.state = WriterState::Ok;
                }
                next
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "what was committed could not be flushed: reopening the store");
                let mut stats = self.shared.stats();
                stats.retries += 1;
                stats.failed(WriterState::Retrying, error.to_string());
                drop(stats);
                if let Ok(Err(error)) = catch_unwind(AssertUnwindSafe(|| store.reopen())) {
                    tracing::error!(%error, "the store could not be reopened");
                }
                Some(RETRY_PAUSE_MAX)
            }
            Err(_) => {
                self.fail("the store panicked".into());
                None
            }
        };
        self.note_vitals();
        next
    }

    pub(super) fn has_dead_rows(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.has_dead_rows())
    }

    /// Erases a slice of what was dropped; whether more is left.
    pub(super) fn erase(&mut self, rows: usize) -> bool {
        let Some(store) = self.store.as_mut() else { return false };
        match catch_unwind(AssertUnwindSafe(|| store.erase(rows))) {
            Ok(Ok(more)) => more,
            Ok(Err(error)) => {
                // Nothing depends on it: the next drop begins anew.
                tracing::warn!(%error, "rows of dropped queues could not be erased");
                false
            }
            Err(_) => {
                self.fail("the store panicked while erasing".into());
                false
            }
        }
    }

    pub(super) fn begin_copy(&mut self, target: &Path) -> Result<(), StoreError> {
        self.copying(|store| store.begin_copy(target))
    }

    pub(super) fn step_copy(&mut self, pages: u32) -> Result<CopyProgress, StoreError> {
        self.copying(|store| store.step_copy(pages))
    }

    /// Closes a copy, be it complete or not.
    pub(super) fn end_copy(&mut self) {
        // Without a store there is no copy either.
        let _ = self.copying(|store| {
            store.end_copy();
            Ok(())
        });
    }

    fn copying<T>(&mut self, run: impl FnOnce(&mut dyn Store) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let store = self.store.as_mut().ok_or_else(|| StoreError::Unusable("the store has failed".into()))?;
        let done = catch_unwind(AssertUnwindSafe(|| run(store.as_mut())));
        done.unwrap_or_else(|_| {
            self.fail("the store panicked while it was copied".into());
            Err(StoreError::Unusable("the store panicked".into()))
        })
    }

    pub(super) fn close(&mut self) -> Result<(), StoreError> {
        let failed = || StoreError::Unusable("the store has failed".into());
        let store = self.store.take().ok_or_else(failed)?;
        catch_unwind(AssertUnwindSafe(|| store.close())).unwrap_or_else(|_| Err(failed()))
    }
}
