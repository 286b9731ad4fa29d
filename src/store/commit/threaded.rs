//! The driver with a thread of its own, which steps the machine and blocks in the store.

use super::limits::ANSWER_PATIENCE_MAX;
use super::machine::Action;
use super::reading::{self, Loads};
use super::shared::{BatchRun, WriterInbox, WriterShared, lock};
use super::store_runner::{Progress, StoreRunner};
use crate::model::Monotonic;
use crate::store::{Cause, Store, StoreError, StoreReader};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// The writer's and the readers' threads, and the store between them.
pub(super) struct Threads {
    /// Locked while the store is used. A caller's thread that commits keeps the lock until it has reported the outcome,
    /// so that no other batch begins before.
    pub(super) runner: Arc<Mutex<StoreRunner>>,
    pub(super) commits_in_place: bool,
    writer: Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
    /// The result of closing the store.
    outcome: Mutex<Option<Result<(), StoreError>>>,
}

/// Starts the threads.
pub(super) fn start(
    store: Box<dyn Store>,
    readers: Vec<Box<dyn StoreReader>>,
    shared: &Arc<WriterShared>,
) -> Result<(Loads, Threads), StoreError> {
    let commits_in_place = store.traits().commits_in_place;
    let (loads, readers) = reading::start(readers, shared)?;
    let runner = Arc::new(Mutex::new(StoreRunner::new(store, Arc::clone(shared))));
    let (its_runner, its_shared) = (Arc::clone(&runner), Arc::clone(shared));
    let writer = thread::Builder::new()
        .name("pronto-writer".into())
        .spawn(move || run(&its_shared, &its_runner))
        .map_err(|error| StoreError::Unusable(Cause::new("no thread for the writer", error)))?;
    let (writer, readers) = (Mutex::new(Some(writer)), Mutex::new(readers));
    Ok((loads, Threads { runner, commits_in_place, writer, readers, outcome: Mutex::default() }))
}

impl Threads {
    /// Waits for the end of the readers, then of the writer, which closes the store.
    pub(super) fn join(&self) -> Result<(), StoreError> {
        let lost = |_| tracing::error!("a reader's thread of the store panicked");
        for reader in lock(&self.readers).drain(..) {
            reader.join().unwrap_or_else(lost);
        }
        let mut outcome = lock(&self.outcome);
        if let Some(writer) = lock(&self.writer).take() {
            let died = |_| Err(StoreError::Panicked);
            *outcome = Some(writer.join().unwrap_or_else(died));
        }
        outcome.clone().unwrap_or(Ok(()))
    }
}

/// Waits until nothing is outstanding, or the writer has stopped.
pub(super) fn flush(shared: &WriterShared) {
    let is_over = |inbox: &WriterInbox| inbox.machine.is_stopped() || inbox.machine.is_idle(shared.now());
    let mut inbox = shared.inbox();
    inbox.machine.begin_flush();
    while !is_over(&inbox) {
        shared.wake_driver(inbox);
        let patience = ANSWER_PATIENCE_MAX;
        let woken = shared.idle_changed.wait_timeout_while(shared.inbox(), patience, |inbox| !is_over(inbox));
        inbox = woken.unwrap_or_else(PoisonError::into_inner).0;
    }
    inbox.machine.end_flush();
}

/// The writer's thread, until the writer stops.
fn run(shared: &WriterShared, runner: &Mutex<StoreRunner>) -> Result<(), StoreError> {
    loop {
        let mut inbox = shared.inbox();
        if inbox.machine.is_lent_out() {
            drop(inbox);
            // Until the caller's thread gives the store back.
            drop(lock(runner));
            continue;
        }
        match shared.next_action(&mut inbox) {
            Action::Sleep { until } => {
                shared.fall_asleep(&mut inbox, until);
                shared.wake_up(&mut wait(shared, inbox, until));
            }
            Action::Ask(request) => {
                drop(inbox);
                request.ask();
            }
            Action::Commit(run) => {
                drop(inbox);
                commit(shared, runner, run);
            }
            Action::Work(work) => {
                drop(inbox);
                lock(runner).work(work);
            }
            Action::Stop => {
                drop(inbox);
                return lock(runner).shut_down();
            }
        }
    }
}

/// Tries to commit a batch until it has an outcome, and reports the outcome.
fn commit(shared: &WriterShared, runner: &Mutex<StoreRunner>, mut run: BatchRun) {
    loop {
        let progress = lock(runner).go_on(&mut run);
        match progress {
            Progress::Over => break,
            Progress::Amend => shared.amend(&mut run),
            Progress::Wait(until) => {
                if !pause(shared, until) {
                    lock(runner).stop(&mut run);
                }
            }
        }
    }
    let has_dead_rows = lock(runner).has_dead_rows();
    shared.finish(run, has_dead_rows);
}

/// Waits before the next try. `false` if the writer stops.
fn pause(shared: &WriterShared, until: Monotonic) -> bool {
    let mut inbox = shared.inbox();
    loop {
        if inbox.machine.is_stopping() || shared.now() >= until {
            return !inbox.machine.is_stopping();
        }
        inbox = wait(shared, inbox, Some(until));
    }
}

/// Sleeps until the writer's thread is woken, or until a moment.
fn wait<'a>(
    shared: &'a WriterShared,
    mut inbox: MutexGuard<'a, WriterInbox>,
    until: Option<Monotonic>,
) -> MutexGuard<'a, WriterInbox> {
    inbox.is_asleep = true;
    inbox.wakes_at = until;
    inbox = match until {
        Some(until) => {
            let limit = until.since(shared.now());
            shared.wake.wait_timeout(inbox, limit).unwrap_or_else(PoisonError::into_inner).0
        }
        None => shared.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner),
    };
    inbox.is_asleep = false;
    inbox
}
