//! The driver for virtual time. It has no thread: a caller steps the machine, and time is that of the caller's clock.

use super::machine::Action;
use super::reading::{Loads, QueuedLoads};
use super::shared::{BatchRun, WriterShared, lock};
use super::store_runner::{Progress, StoreRunner};
use crate::model::Monotonic;
use crate::store::{Store, StoreError, StoreReader};
use std::sync::{Arc, Mutex, MutexGuard};

/// The writer panics if it still has work after this many steps.
const STEPS_MAX: u32 = 10_000_000;

/// The result of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepOutcome {
    /// Something was done.
    Worked,
    /// The writer has no work until something is submitted, or until this moment.
    Sleeps(Option<Monotonic>),
    /// The store is closed.
    Stopped,
}

/// A store and its machine, stepped by callers.
pub(super) struct SteppedDriver {
    state: Mutex<SteppedState>,
    shared: Arc<WriterShared>,
}

struct SteppedState {
    runner: StoreRunner,
    reader: Box<dyn StoreReader>,
    loads: QueuedLoads,
    /// The batch that has no outcome yet.
    run: Option<BatchRun>,
    /// When the writer has work again if nothing is submitted, if ever.
    wakes_at: Option<Monotonic>,
    /// The result of closing the store.
    closed: Option<Result<(), StoreError>>,
}

/// A store whose machine callers step.
pub(super) fn start(store: Box<dyn Store>, shared: &Arc<WriterShared>) -> Result<(Loads, SteppedDriver), StoreError> {
    let reader = store.reader()?;
    let runner = StoreRunner::new(store, Arc::clone(shared));
    let queued = QueuedLoads::default();
    let state = SteppedState { runner, reader, loads: queued.clone(), run: None, wakes_at: None, closed: None };
    Ok((Loads::queued(queued), SteppedDriver { state: Mutex::new(state), shared: Arc::clone(shared) }))
}

impl SteppedDriver {
    fn state(&self) -> MutexGuard<'_, SteppedState> {
        lock(&self.state)
    }

    /// When the machine goes on by itself, if it has nothing to do now.
    pub(super) fn wakes_at(&self) -> Option<Monotonic> {
        self.state().wakes_at
    }

    pub(super) fn step(&self) -> StepOutcome {
        self.state().step(&self.shared)
    }

    /// Steps until nothing is outstanding, or until time would have to pass.
    pub(super) fn run_until_idle(&self) {
        for _ in 0..STEPS_MAX {
            if self.step() != StepOutcome::Worked {
                return;
            }
        }
        panic!("the writer comes to rest");
    }

    /// Steps to the end. A batch that would have to wait for time to pass is given up.
    pub(super) fn run_to_end(&self) -> Result<(), StoreError> {
        for _ in 0..STEPS_MAX {
            let mut state = self.state();
            match state.step(&self.shared) {
                StepOutcome::Worked => {}
                StepOutcome::Sleeps(_) => state.close(&self.shared),
                StepOutcome::Stopped => return state.closed.clone().unwrap_or(Ok(())),
            }
        }
        panic!("the writer ends");
    }
}

impl SteppedState {
    fn step(&mut self, shared: &WriterShared) -> StepOutcome {
        let stepped = self.take_step(shared);
        self.wakes_at = if let StepOutcome::Sleeps(until) = stepped { until } else { None };
        stepped
    }

    fn take_step(&mut self, shared: &WriterShared) -> StepOutcome {
        if self.closed.is_some() {
            return StepOutcome::Stopped;
        }
        if self.loads.run_one(&mut *self.reader, shared) {
            return StepOutcome::Worked;
        }
        if let Some(run) = self.run.take() {
            return self.go_on(run, shared);
        }
        let mut inbox = shared.inbox();
        if inbox.is_asleep && inbox.wakes_at.is_none_or(|at| at > shared.now()) {
            return StepOutcome::Sleeps(inbox.wakes_at);
        }
        shared.wake_up(&mut inbox);
        let action = shared.next_action(&mut inbox);
        if let Action::Sleep { until } = action {
            shared.fall_asleep(&mut inbox, until);
            return StepOutcome::Sleeps(until);
        }
        drop(inbox);
        match action {
            Action::Sleep { .. } => {}
            Action::Ask(request) => request.ask(),
            Action::Commit(run) => self.run = Some(run),
            Action::Work(work) => self.runner.work(work),
            Action::Stop => self.close(shared),
        }
        StepOutcome::Worked
    }

    fn go_on(&mut self, mut run: BatchRun, shared: &WriterShared) -> StepOutcome {
        match self.runner.go_on(&mut run) {
            Progress::Over => shared.finish(run, self.runner.has_dead_rows()),
            Progress::Amend => {
                shared.amend(&mut run);
                self.run = Some(run);
            }
            Progress::Wait(until) => {
                let is_stopping = shared.inbox().machine.is_stopping();
                if is_stopping {
                    self.runner.stop(&mut run);
                }
                self.run = Some(run);
                if !is_stopping {
                    return StepOutcome::Sleeps(Some(until));
                }
            }
        }
        StepOutcome::Worked
    }

    fn close(&mut self, shared: &WriterShared) {
        if let Some(mut run) = self.run.take() {
            self.runner.stop(&mut run);
            shared.finish(run, false);
        }
        self.closed = Some(self.runner.shut_down());
    }
}
