//! The driver for virtual time: no thread; the caller steps the machine, and time passes as its clock says.

use super::WriterSettings;
use super::handle::{BatchRun, Driver, WriterHandle, WriterShared};
use super::machine::Action;
use super::reading::{Loads, QueuedLoads};
use super::store_runner::{Progress, StoreRunner};
use crate::model::{Clock, Monotonic};
use crate::store::{BatchNo, Store, StoreError, StoreReader};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Steps after which a writer that does not come to rest is at fault.
const STEPS_MAX: u32 = 10_000_000;

/// What came of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// Something was done.
    Worked,
    /// There is nothing to do until something is submitted, or until a moment.
    Sleeps(Option<Monotonic>),
    /// The store is closed.
    Stopped,
}

/// A store and its machine, stepped by callers.
pub(super) struct Stepping {
    work: Mutex<Work>,
    shared: Arc<WriterShared>,
}

struct Work {
    runner: StoreRunner,
    reader: Box<dyn StoreReader>,
    loads: QueuedLoads,
    /// A batch on its way to its outcome.
    run: Option<BatchRun>,
    /// When it goes on, if nothing is submitted.
    wakes_at: Option<Monotonic>,
    /// How the store was closed.
    closed: Option<Result<(), StoreError>>,
}

impl WriterHandle {
    /// A writer that does nothing but in [`WriterHandle::step`].
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
        let reader = store.reader()?;
        let runner = StoreRunner::new(store, Arc::clone(&shared));
        let queued = QueuedLoads::default();
        let work = Work { runner, reader, loads: queued.clone(), run: None, wakes_at: None, closed: None };
        let stepping = Stepping { work: Mutex::new(work), shared: Arc::clone(&shared) };
        Ok(Self::new(shared, Driver::Stepped(Box::new(stepping)), Loads::queued(queued)))
    }

    /// When a stepped writer goes on by itself that has nothing to do now.
    pub fn wakes_at(&self) -> Option<Monotonic> {
        match &self.life.driver {
            Driver::Stepped(stepping) => stepping.work().wakes_at,
            Driver::Threaded(_) => None,
        }
    }

    /// Does one thing: asks sources, commits, reports an outcome, reads one load, or the like. Only of a stepped writer;
    /// one with threads always sleeps.
    pub fn step(&self) -> Stepped {
        match &self.life.driver {
            Driver::Stepped(stepping) => stepping.step(),
            Driver::Threaded(_) => Stepped::Sleeps(None),
        }
    }
}

impl Stepping {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self) -> Stepped {
        self.work().step(&self.shared)
    }

    /// Steps until nothing is outstanding. Where time would have to pass, it does not, and the rest is left.
    pub(super) fn run_until_idle(&self) {
        for _ in 0..STEPS_MAX {
            if self.step() != Stepped::Worked {
                return;
            }
        }
        panic!("the writer comes to rest");
    }

    /// Steps to the end. What would have to wait for time to pass is given up.
    pub(super) fn run_to_end(&self) -> Result<(), StoreError> {
        for _ in 0..STEPS_MAX {
            let mut work = self.work();
            match work.step(&self.shared) {
                Stepped::Worked => {}
                Stepped::Sleeps(_) => work.close(&self.shared),
                Stepped::Stopped => return work.closed.clone().unwrap_or(Ok(())),
            }
        }
        panic!("the writer ends");
    }
}

impl Work {
    fn step(&mut self, shared: &WriterShared) -> Stepped {
        let stepped = self.take_step(shared);
        self.wakes_at = if let Stepped::Sleeps(until) = stepped { until } else { None };
        stepped
    }

    fn take_step(&mut self, shared: &WriterShared) -> Stepped {
        if self.closed.is_some() {
            return Stepped::Stopped;
        }
        if self.loads.run_one(&mut *self.reader, shared) {
            return Stepped::Worked;
        }
        if let Some(run) = self.run.take() {
            return self.go_on(run, shared);
        }
        let mut inbox = shared.inbox();
        if inbox.is_asleep && inbox.wakes_at.is_none_or(|at| at > shared.now()) {
            return Stepped::Sleeps(inbox.wakes_at);
        }
        inbox.is_asleep = false;
        let action = shared.next_action(&mut inbox);
        if let Action::Sleep { until } = action {
            // Submissions end the sleep.
            (inbox.is_asleep, inbox.wakes_at) = (true, until);
            shared.wants_rows.store(inbox.machine.wants_rows(), Ordering::Release);
            return Stepped::Sleeps(until);
        }
        shared.wants_rows.store(false, Ordering::Release);
        drop(inbox);
        match action {
            Action::Sleep { .. } => {}
            Action::Ask(request) => request.ask(),
            Action::Commit(run) => self.run = Some(run),
            Action::Erase { rows } => self.runner.erase_slice(rows),
            Action::StepCopy => self.runner.take_copy_on(),
            Action::Maintain => self.runner.maintain_when_idle(),
            Action::Stop => self.close(shared),
        }
        Stepped::Worked
    }

    fn go_on(&mut self, mut run: BatchRun, shared: &WriterShared) -> Stepped {
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
                    return Stepped::Sleeps(Some(until));
                }
            }
        }
        Stepped::Worked
    }

    fn close(&mut self, shared: &WriterShared) {
        self.runner.give_copy_up();
        if let Some(mut run) = self.run.take() {
            self.runner.stop(&mut run);
            shared.finish(run, false);
        }
        self.closed = Some(shared.close(&mut self.runner));
    }
}
