//! One event loop.

use super::Work;
use super::balance::{Advice, Balance, Load, half_of};
use super::commits::{LoneDetector, Offer};
use super::loops::Loops;
use super::poller::{Interest, Poller};
use super::readiness::Readiness;
use super::slots::Slots;
use crate::model::Monotonic;
use crate::server::clock::Clock;
use crate::server::connection::{ConnectionHandle, Served, WakeReasons};
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// How often the inbox is emptied before the sockets are looked at again.
const INBOX_ROUNDS_MAX: u32 = 16;

/// How often a further loop looks whether the loop before it can take its connections.
const MERGE_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Connections beyond this many are not moved at once.
const MOVED_MAX: usize = 10_000;

/// A loop. The thread that holds its state runs it.
pub(super) struct EventLoop {
    index: usize,
    clock: Clock,
    poller: Poller,
    inbox: Mutex<Inbox>,
    state: Mutex<LoopState>,
    load: Load,
}

/// What other threads, and the loop's own work, leave for the loop.
#[derive(Default)]
struct Inbox {
    /// Connections that have something to do.
    woken: Vec<Arc<ConnectionHandle>>,
    work: Vec<Work>,
    /// Connections that the loop serves from now on.
    new: Vec<Arc<ConnectionHandle>>,
    /// All connections have something to do.
    wakes_all: bool,
    /// The loop should end.
    ends: bool,
    /// The loop's thread waits, and must be notified.
    is_asleep: bool,
}

impl Inbox {
    fn is_empty(&self) -> bool {
        self.woken.is_empty() && self.work.is_empty() && self.new.is_empty() && !self.wakes_all && !self.ends
    }
}

/// What the thread that runs the loop needs.
#[derive(Default)]
struct LoopState {
    slots: Slots<Arc<ConnectionHandle>>,
    lone: LoneDetector,
    balance: Balance,
    /// The loop ends once it serves nobody.
    ends: bool,
    /// Room that is used again.
    taken: Inbox,
    ready: Vec<Readiness>,
    stale: Vec<usize>,
}

/// How a thread stops running a loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    /// The loop has ended.
    Ended,
    /// Another thread runs it.
    Relieved,
}

impl EventLoop {
    pub(super) fn new(index: usize, clock: Clock) -> io::Result<Self> {
        let (inbox, state, load) = (Mutex::default(), Mutex::default(), Load::default());
        Ok(Self { index, clock, poller: Poller::new()?, inbox, state, load })
    }

    pub(super) fn index(&self) -> usize {
        self.index
    }

    /// Its load, in thousandths of a processor.
    pub(super) fn load(&self) -> u32 {
        self.load.get(self.clock.now().monotonic)
    }

    // ---- called by any thread ----------------------------------------------------------------------------------

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the inbox, and ends the thread's wait if it waits.
    fn leave(&self, change: impl FnOnce(&mut Inbox)) {
        let is_asleep = {
            let mut inbox = self.inbox();
            change(&mut inbox);
            std::mem::take(&mut inbox.is_asleep)
        };
        if is_asleep {
            self.poller.notify();
        }
    }

    /// Serves a connection soon. It must be marked as woken.
    pub(super) fn wake(&self, handle: Arc<ConnectionHandle>) {
        self.leave(|inbox| inbox.woken.push(handle));
    }

    /// Serves a connection from now on.
    pub(super) fn add(&self, handle: Arc<ConnectionHandle>) {
        handle.place().set_home(self.index);
        self.leave(|inbox| inbox.new.push(handle));
    }

    pub(super) fn run_work(&self, work: Work) {
        self.leave(|inbox| inbox.work.push(work));
    }

    pub(super) fn wake_all(&self) {
        self.leave(|inbox| inbox.wakes_all = true);
    }

    pub(super) fn end(&self) {
        self.leave(|inbox| inbox.ends = true);
    }

    // ---- called by the threads that run it ---------------------------------------------------------------------

    /// Runs the loop to its end.
    pub(super) fn run(&self, loops: &Arc<Loops>) {
        loop {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if self.run_with(state, loops) == Stopped::Ended {
                return;
            }
        }
    }

    /// Goes on with the loop in place of its thread, if that thread is still committing, until the loop's thread is
    /// free again. Returns whether the loop goes on.
    pub(super) fn relieve(&self, loops: &Arc<Loops>) -> bool {
        match self.try_state() {
            Some(state) => self.run_with(state, loops) == Stopped::Relieved,
            None => true,
        }
    }

    fn try_state(&self) -> Option<MutexGuard<'_, LoopState>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(state)) => Some(state.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn run_with<'a>(&'a self, mut state: MutexGuard<'a, LoopState>, loops: &Arc<Loops>) -> Stopped {
        let mut offer: Option<Offer<'_>> = None;
        loop {
            self.empty_inbox(&mut state, loops);
            self.handle_deadlines(&mut state);
            let now = self.clock.now().monotonic;
            if state.balance.is_due(now) {
                self.balance(&mut state, loops, now);
            }
            let is_idle = self.inbox().is_empty();
            if let Some(accepted) = offer.take().filter(Offer::is_accepted)
                && is_idle
                && Self::waits_for_commit(&mut state)
                && let Some(relief) = loops.relief()
            {
                drop(state);
                let timed = relief.begin();
                accepted.commit();
                drop(timed);
                match self.try_state() {
                    Some(again) => state = again,
                    None => return Stopped::Relieved,
                }
                continue;
            }
            if state.ends && is_idle && state.slots.is_empty() {
                return Stopped::Ended;
            }
            let ticked = self.wait(&mut state, self.index < loops.active(), now);
            state.lone.note_round();
            // Only the first loop has a relief.
            if self.index == 0 && state.lone.predicts_lone() && loops.active() == 1 {
                offer = loops.commits.offer();
            }
            self.handle_sockets(&mut state);
            if ticked {
                self.handle_tick(&mut state);
            }
        }
    }

    /// Whether the loop's only connection can do nothing until its commit is made.
    fn waits_for_commit(state: &mut LoopState) -> bool {
        let is_lone = state.lone.predicts_lone();
        let lone = state.slots.get_mut(state.lone.slot()).filter(|_| is_lone);
        let waits = lone.is_some_and(|slot| !slot.handle.goes_on());
        if !waits {
            state.lone.refute();
        }
        waits
    }

    /// Does what other threads, and the loop's own work, left, and what follows from it: consumers have their turn before
    /// publishers are read again.
    fn empty_inbox(&self, state: &mut LoopState, loops: &Loops) {
        for _ in 0..INBOX_ROUNDS_MAX {
            self.handle_inbox(state, loops);
            if self.inbox().is_empty() {
                return;
            }
        }
    }

    /// Does what is in the inbox now.
    fn handle_inbox(&self, state: &mut LoopState, loops: &Loops) {
        let wakes_all = {
            let mut inbox = self.inbox();
            std::mem::swap(&mut inbox.woken, &mut state.taken.woken);
            std::mem::swap(&mut inbox.work, &mut state.taken.work);
            std::mem::swap(&mut inbox.new, &mut state.taken.new);
            state.ends |= std::mem::take(&mut inbox.ends);
            std::mem::take(&mut inbox.wakes_all)
        };
        let mut taken = std::mem::take(&mut state.taken);
        for handle in taken.new.drain(..) {
            self.register(state, &handle);
        }
        for work in taken.work.drain(..) {
            if catch_unwind(AssertUnwindSafe(|| work(self.clock.now()))).is_err() {
                tracing::error!("broker work panicked");
            }
        }
        for handle in taken.woken.drain(..) {
            if handle.place().home() == self.index {
                handle.note_taken();
                if let Some(slot) = handle.place().slot() {
                    self.serve(state, slot, WakeReasons::default());
                }
            } else {
                loops.pass_on(handle);
            }
        }
        state.taken = taken;
        if wakes_all {
            for slot in state.slots.numbers() {
                self.serve(state, slot, WakeReasons::default());
            }
        }
    }

    /// Serves connections whose deadlines have passed.
    fn handle_deadlines(&self, state: &mut LoopState) {
        let Some(next) = state.slots.next_deadline() else { return };
        let now = self.clock.now().monotonic;
        if next > now {
            return;
        }
        while let Some(slot) = state.slots.take_due(now) {
            self.serve(state, slot, WakeReasons { deadline: true, ..WakeReasons::default() });
        }
    }

    /// Reads what has been gathered for long.
    fn handle_tick(&self, state: &mut LoopState) {
        let mut stale = std::mem::take(&mut state.stale);
        state.slots.tick(&mut stale);
        for slot in stale.drain(..) {
            self.serve(state, slot, WakeReasons { readable: true, ..WakeReasons::default() });
        }
        state.stale = stale;
        if !state.slots.any_gathers() {
            self.poller.stop_ticks();
        }
    }

    /// Waits for sockets, unless the inbox has something already. Returns whether a tick has come.
    fn wait(&self, state: &mut LoopState, is_active: bool, now: Monotonic) -> bool {
        let sleeps = {
            let mut inbox = self.inbox();
            inbox.is_asleep = inbox.is_empty();
            inbox.is_asleep
        };
        if !sleeps {
            return self.poller.wait(Some(Duration::ZERO), &mut state.ready);
        }
        let may_merge = self.index > 0 && (is_active || !state.slots.is_empty());
        let merges = may_merge.then_some(MERGE_CHECK_INTERVAL);
        let deadline = state.slots.next_deadline().map(|at| at.since(now));
        let timeout = [deadline, merges].into_iter().flatten().min();
        let ticked = self.poller.wait(timeout, &mut state.ready);
        self.inbox().is_asleep = false;
        ticked
    }

    fn handle_sockets(&self, state: &mut LoopState) {
        let mut ready = std::mem::take(&mut state.ready);
        for Readiness { token, readable, is_broken } in ready.drain(..) {
            let number = usize::try_from(token).unwrap_or(usize::MAX);
            self.serve(state, number, WakeReasons { readable, ..WakeReasons::default() });
            if is_broken
                && let Some(slot) = state.slots.get_mut(number)
                && slot.interest == Interest::default()
            {
                // It is not read at present. It would be reported again and again.
                slot.is_watched = false;
                let handle = Arc::clone(&slot.handle);
                handle.watch(|socket| self.poller.remove(socket));
            }
        }
        state.ready = ready;
    }

    // ---- connections -------------------------------------------------------------------------------------------

    fn register(&self, state: &mut LoopState, handle: &Arc<ConnectionHandle>) {
        let interest = Interest { read: true, write: false };
        let slot = state.slots.insert(Arc::clone(handle), interest);
        handle.place().set_slot(slot);
        if let Err(error) = handle.watch(|socket| self.poller.add(socket, slot as u64, interest)) {
            tracing::warn!(%error, "a socket cannot be watched");
            return self.end_connection(state, slot);
        }
        self.serve(state, slot, WakeReasons::default());
    }

    fn serve(&self, state: &mut LoopState, number: usize, reasons: WakeReasons) {
        let Some(slot) = state.slots.serve(number, reasons.readable) else { return };
        state.lone.note_served(number);
        let handle = Arc::clone(&slot.handle);
        let served = catch_unwind(AssertUnwindSafe(|| handle.serve(reasons))).unwrap_or_else(|_| {
            tracing::error!("a connection panicked");
            Served::Gone
        });
        let Served::Waits { interest, deadline, gather, has_more } = served else {
            return self.end_connection(state, number);
        };
        if has_more && handle.note_woken() {
            self.inbox().woken.push(Arc::clone(&handle));
        }
        if let Some(deadline) = deadline {
            state.slots.arm(number, deadline);
        }
        let gather = gather.filter(|_| Poller::CAN_GATHER).unwrap_or(1);
        let Some(slot) = state.slots.get_mut(number) else { return };
        if gather != slot.gather
            && handle.watch(|socket| self.poller.gather(socket, gather)).is_ok()
            && state.slots.gather(number, gather)
        {
            self.poller.start_ticks();
        }
        self.watch_for(state, number, interest);
    }

    fn watch_for(&self, state: &mut LoopState, number: usize, interest: Interest) {
        let Some(slot) = state.slots.get_mut(number).filter(|slot| slot.interest != interest) else { return };
        slot.interest = interest;
        let is_watched = std::mem::replace(&mut slot.is_watched, true);
        let watched = slot.handle.watch(|socket| {
            if is_watched {
                self.poller.change(socket, number as u64, interest)
            } else {
                self.poller.add(socket, number as u64, interest)
            }
        });
        if let Err(error) = watched {
            tracing::warn!(%error, "a socket cannot be watched");
            self.end_connection(state, number);
        }
    }

    fn end_connection(&self, state: &mut LoopState, number: usize) {
        if let Some(slot) = state.slots.remove(number) {
            slot.handle.place().clear_slot();
            slot.handle.watch(|socket| self.poller.remove(socket));
            if catch_unwind(AssertUnwindSafe(|| slot.handle.end())).is_err() {
                tracing::error!("a connection panicked at its end");
            }
        }
    }

    // ---- balance -----------------------------------------------------------------------------------------------

    fn balance(&self, state: &mut LoopState, loops: &Arc<Loops>, now: Monotonic) {
        let used = clock_gettime(ClockId::ThreadCPUTime);
        let used = Duration::new(used.tv_sec.cast_unsigned(), u32::try_from(used.tv_nsec).unwrap_or(0));
        let is_calm = |load| loops.successor(self.index, load).is_some();
        state.slots.end_measurement();
        match state.balance.measure(&self.load, used, is_calm, now) {
            Advice::Stay => {}
            Advice::Spread => {
                let active = state.slots.active().into_iter();
                let with_kin = active.map(|number| {
                    let kin = state.slots.get_mut(number).and_then(|slot| slot.handle.kin());
                    (kin.map_or(u64::MAX, |queue| queue.0), number)
                });
                let leaving = half_of(with_kin.collect());
                if !leaving.is_empty()
                    && let Some(taker) = loops.taker(self.index)
                {
                    self.move_to(taker, state, leaving);
                }
            }
            Advice::Merge => {
                if let Some(successor) = loops.successor(self.index, self.load()) {
                    loops.deactivate(self.index);
                    let all = state.slots.taken();
                    self.move_to(successor, state, all);
                }
            }
        }
    }

    /// Moves connections to another loop.
    fn move_to(&self, taker: &Self, state: &mut LoopState, numbers: Vec<usize>) {
        let mut moved = 0;
        for number in numbers.into_iter().take(MOVED_MAX) {
            if let Some(slot) = state.slots.remove(number) {
                slot.handle.place().clear_slot();
                slot.handle.watch(|socket| {
                    self.poller.remove(socket);
                    if slot.gather > 1 {
                        // The other loop begins anew.
                        let _ = self.poller.gather(socket, 1);
                    }
                });
                taker.add(slot.handle);
                moved += 1;
            }
        }
        tracing::debug!(from = self.index, to = taker.index, moved, "connections move to another thread");
    }
}
