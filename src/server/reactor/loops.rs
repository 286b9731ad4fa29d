//! All loops of a server, and which one serves a connection.

use super::Work;
use super::commits::LoneCommits;
use super::event_loop::EventLoop;
use super::relief::Relief;
use crate::server::clock::Clock;
use crate::server::connection::{ConnectionHandle, Home};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

/// Below this load, in thousandths of a processor, a loop can take connections from another one.
const LOAD_OF_A_TAKER: u32 = 500;

/// The loops. The first `active` of them have threads and connections.
pub(super) struct Loops {
    all: Vec<EventLoop>,
    active: AtomicUsize,
    /// Loops whose threads were started.
    started: AtomicUsize,
    next: AtomicUsize,
    pub(super) commits: LoneCommits,
    relief: OnceLock<Option<Relief>>,
}

impl Home for Loops {
    fn wake(&self, handle: Arc<ConnectionHandle>) {
        self.all[handle.place().home()].wake(handle);
    }
}

impl Loops {
    pub(super) fn start(clock: Clock, threads: usize, commits: LoneCommits) -> io::Result<Arc<Self>> {
        let all = (0..threads.max(1)).map(|index| EventLoop::new(index, clock)).collect::<io::Result<Vec<_>>>()?;
        let loops = Arc::new(Self {
            all,
            active: AtomicUsize::new(1),
            started: AtomicUsize::new(1),
            next: AtomicUsize::new(0),
            commits,
            relief: OnceLock::new(),
        });
        loops.start_thread(0)?;
        Ok(loops)
    }

    /// Number of loops that serve connections.
    pub(super) fn active(&self) -> usize {
        self.active.load(Ordering::Acquire)
    }

    fn start_thread(self: &Arc<Self>, index: usize) -> io::Result<()> {
        let loops = Arc::clone(self);
        thread::Builder::new().name(format!("pronto-io-{index}")).spawn(move || loops.all[index].run(&loops))?;
        Ok(())
    }

    /// Starts serving a connection, on the loop with the least load.
    pub(super) fn adopt(&self, handle: Arc<ConnectionHandle>) {
        let active = &self.all[..self.active()];
        let least = active.iter().min_by_key(|event_loop| event_loop.load()).unwrap_or(&self.all[0]);
        least.add(handle);
    }

    /// Runs work on one of the loops.
    pub(super) fn run(&self, work: Work) {
        let index = match self.active() {
            1 => 0,
            active => self.next.fetch_add(1, Ordering::Relaxed) % active,
        };
        self.all[index].run_work(work);
    }

    pub(super) fn wake_all(&self) {
        self.all.iter().for_each(EventLoop::wake_all);
    }

    pub(super) fn end(&self) {
        self.all.iter().for_each(EventLoop::end);
        if let Some(Some(relief)) = self.relief.get() {
            relief.end();
        }
    }

    /// A loop that can take connections of a busy one. If all active loops are busy, another one is started.
    pub(super) fn taker(self: &Arc<Self>, busy: usize) -> Option<&EventLoop> {
        let active = self.active();
        let others = self.all[..active].iter().filter(|other| other.index() != busy);
        if let Some(taker) = others.min_by_key(|other| other.load()).filter(|other| other.load() < LOAD_OF_A_TAKER) {
            return Some(taker);
        }
        if active == self.all.len() {
            return None;
        }
        let starts = self.started.compare_exchange(active, active + 1, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if starts && let Err(error) = self.start_thread(active) {
            tracing::warn!(%error, "no further thread for connections");
            self.started.store(active, Ordering::Release);
            return None;
        }
        let activated = self.active.compare_exchange(active, active + 1, Ordering::AcqRel, Ordering::Acquire);
        // If the number has changed meanwhile, the next measurement decides.
        activated.ok().and_then(|_| self.all.get(active))
    }

    /// The loop that takes all connections of loop `index`, if that one is the last and both have little to do. A loop
    /// behind the last one, which got connections as it gave its others away, counts as last.
    pub(super) fn successor(&self, index: usize, load: u32) -> Option<&EventLoop> {
        let active = self.active();
        let is_last = index > 0 && index + 1 >= active;
        let before = self.all.get(index.min(active).checked_sub(1)?)?;
        (is_last && load + before.load() < LOAD_OF_A_TAKER).then_some(before)
    }

    /// Passes a woken connection on to the loop to which it has moved.
    pub(super) fn pass_on(&self, handle: Arc<ConnectionHandle>) {
        self.wake(handle);
    }

    /// Loop `index` gives all its connections away.
    pub(super) fn deactivate(&self, index: usize) {
        let _ = self.active.compare_exchange(index + 1, index, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The thread that goes on with the first loop when a commit takes long. `None` if there is none.
    pub(super) fn relief(self: &Arc<Self>) -> Option<&Relief> {
        let start = || {
            let loops = Arc::downgrade(self);
            Relief::start(move || {
                let Some(loops) = loops.upgrade() else { return false };
                loops.all[0].relieve(&loops)
            })
        };
        self.relief.get_or_init(start).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::server::stores::open_store;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    /// Longer than any step of the test takes.
    const PATIENCE: Duration = Duration::from_secs(10);

    fn loops(threads: usize) -> Arc<Loops> {
        let clock = Clock::start();
        let (writer, _) = open_store(&Settings::in_memory(), clock.shared()).unwrap();
        Loops::start(clock, threads, LoneCommits::new(writer)).unwrap()
    }

    #[test]
    fn work_runs_in_order_on_the_loop_and_a_panic_in_it_ends_no_thread() {
        let loops = loops(2);
        let (done, results) = channel();
        for round in 0..100 {
            for piece in 0..3 {
                let (again, done) = (Arc::clone(&loops), done.clone());
                loops.run(Box::new(move |_| {
                    let by = thread::current().id();
                    again.run(Box::new(move |_| done.send((round, piece, by == thread::current().id())).unwrap()));
                    assert_ne!(piece, 1, "this one fails");
                }));
            }
            let ran: Vec<_> = (0..3).map(|_| results.recv_timeout(PATIENCE).unwrap()).collect();
            assert_eq!(ran, [(round, 0, true), (round, 1, true), (round, 2, true)]);
        }
        assert_eq!(loops.active(), 1, "one thread is enough");
        loops.end();
    }

    #[test]
    fn a_busy_loop_finds_another_one_and_a_calm_one_its_successor() {
        let loops = loops(3);
        assert!(loops.successor(0, 0).is_none(), "there is none before the first");
        assert_eq!(loops.taker(0).map(EventLoop::index), Some(1), "a new one");
        assert_eq!((loops.active(), loops.taker(0).map(EventLoop::index)), (2, Some(1)), "it has time left");
        assert_eq!(loops.taker(1).map(EventLoop::index), Some(0));
        assert_eq!(loops.successor(1, 100).map(EventLoop::index), Some(0));
        assert!(loops.successor(1, 800).is_none(), "it has too much to do");
        loops.deactivate(1);
        assert_eq!(loops.active(), 1);
        assert_eq!(loops.successor(2, 100).map(EventLoop::index), Some(0), "what strayed there comes back");
        loops.end();
    }
}
