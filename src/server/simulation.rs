//! A broker without sockets, tasks, threads or a real clock: bytes go in and out, and the caller advances the time.
//!
//! It runs the same sessions, broker, group commit and `Driver` as a server; the store's writer is stepped. The next
//! step is picked at random from a seed, so the same seed and the same calls give the same history. It is meant for
//! tests, for fuzzing, and for programs that want to see a minute of a broker's life without waiting for a minute.

use super::accounts::recover_users;
use super::clock::Clock;
use super::driver::Driver;
use super::shared::{Identity, Shared};
use super::start_error::StartError;
use super::translate::{broker_settings, writer_settings};
use crate::broker::{Broker, OpenScratch, Runner};
use crate::config::{Settings, StoreKind};
use crate::model::random::Random;
use crate::model::{Monotonic, Notice, Now, WallMillis};
use crate::store::commit::{StepOutcome, WriterHandle, WriterStats};
use crate::store::memory::{MemoryDisk, MemoryStore};
use crate::store::{BatchNo, Store};
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// The wall time at which a simulation begins: the start of 2026.
const BEGINNING: WallMillis = WallMillis(1_767_225_600_000);
/// The default name of the cluster. The host's name, which a server uses, would differ from machine to machine.
const CLUSTER_NAME: &str = "prontomq@localhost";
/// A simulation that is not idle after this many steps has a fault.
const STEPS_MAX: u32 = 10_000_000;

/// One read in this many takes only a part of the bytes that have arrived.
const CUT_DIVISOR: u64 = 4;

type Work = Box<dyn FnOnce(Now) + Send>;

/// The time of a simulation: microseconds since its beginning.
#[derive(Clone, Debug, Default)]
pub struct SimulatedClock(Arc<AtomicU64>);

impl SimulatedClock {
    fn set(&self, elapsed: Duration) {
        self.0.store(elapsed.as_micros() as u64, Ordering::Relaxed);
    }
}

impl crate::model::Clock for SimulatedClock {
    fn now(&self) -> Now {
        let micros = self.0.load(Ordering::Relaxed);
        Now { monotonic: Monotonic(micros), wall: BEGINNING.plus_millis(micros / 1000) }
    }
}

/// Queues broker work until the simulation runs it.
#[derive(Default)]
struct WorkQueue(Mutex<VecDeque<Work>>);

impl WorkQueue {
    fn work(&self) -> MutexGuard<'_, VecDeque<Work>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runner for WorkQueue {
    fn run(&self, work: Work) {
        self.work().push_back(work);
    }
}

/// The writers of the store and, once it is open, of the scratch store.
type Writers = Arc<Mutex<Vec<WriterHandle>>>;

/// Identifies a connection of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimulatedConnection(u64);

struct Client {
    /// `None` once the broker has closed the connection.
    driver: Option<Driver>,
    /// Bytes that the client has sent and the broker has not read.
    input: Vec<u8>,
    /// Bytes that the broker has written and the client has not taken.
    output: Vec<u8>,
}

/// A broker, its clients, and the time.
pub struct Simulation {
    shared: Arc<Shared>,
    queued: Arc<WorkQueue>,
    writers: Writers,
    clock: SimulatedClock,
    random: Random,
    clients: BTreeMap<SimulatedConnection, Client>,
    connected: u64,
    /// The simulation ends like a killed process.
    is_killed: bool,
}

/// A candidate for the next step.
#[derive(Clone, Copy)]
enum Step {
    Work,
    Client(SimulatedConnection),
    Writer(usize),
}

impl Simulation {
    /// Starts a broker with these settings; addresses, store and metrics are ignored, and messages are kept in memory.
    /// All randomness comes from `seed`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(settings: Settings, seed: u64) -> Result<Self, StartError> {
        let store = Box::new(MemoryStore::open(MemoryDisk::default()));
        Self::start_on(store, settings, seed, SimulatedClock::default())
    }

    /// As [`start`](Self::start), on a store that may outlive the simulation. Time continues from `clock`.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start_on(
        mut store: Box<dyn Store>,
        mut settings: Settings,
        seed: u64,
        clock: SimulatedClock,
    ) -> Result<Self, StartError> {
        // Only the given store may touch a disk.
        settings.store.kind = StoreKind::Memory;
        let recovered = store.recover().map_err(|error| StartError::Store(error.into()))?;
        let shared_clock: Arc<dyn crate::model::Clock> = Arc::new(clock.clone());
        let writer_settings = writer_settings(&settings);
        let writer = WriterHandle::start_stepped(store, recovered.batch_no, writer_settings, Arc::clone(&shared_clock))
            .map_err(|error| StartError::Store(error.into()))?;
        let writers: Writers = Arc::new(Mutex::new(vec![writer.clone()]));
        let opened = Arc::clone(&writers);
        let scratch: OpenScratch = Box::new(move || {
            let store = Box::new(MemoryStore::open(MemoryDisk::default()));
            let writer = WriterHandle::start_stepped(store, BatchNo(0), writer_settings, Arc::clone(&shared_clock))?;
            opened.lock().unwrap_or_else(PoisonError::into_inner).push(writer.clone());
            Ok(writer)
        });
        let queued = Arc::new(WorkQueue::default());
        let runner: Arc<dyn Runner> = Arc::clone(&queued) as _;
        let now = crate::model::Clock::now(&clock);
        let broker = Broker::recover(broker_settings(&settings), runner, writer, Some(scratch), &recovered, now);
        recover_users(&settings, &recovered, &broker)?;
        let cluster_name =
            if settings.identity.cluster_name.is_empty() { CLUSTER_NAME } else { &settings.identity.cluster_name };
        let identity = Identity { cluster_name: cluster_name.to_owned(), ..Identity::default() };
        let shared = Shared::new(settings, identity, broker, Clock::start(), Vec::new());
        let (random, clients) = (Random::new(seed), BTreeMap::new());
        let mut simulation = Self { shared, queued, writers, clock, random, clients, connected: 0, is_killed: false };
        simulation.run_until_idle();
        Ok(simulation)
    }

    /// Ends the broker like a kill of its process: it writes nothing more to the store or to clients.
    pub fn kill(mut self) {
        self.is_killed = true;
    }

    fn now(&self) -> Now {
        crate::model::Clock::now(&self.clock)
    }

    /// The broker, so that tests can read its state.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.shared.broker
    }

    /// Time since the simulation began.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.now().monotonic.0)
    }

    /// Connects a client.
    pub fn connect(&mut self) -> SimulatedConnection {
        self.connected += 1;
        let client = SocketAddr::from((Ipv4Addr::LOCALHOST, (self.connected % 60_000) as u16 + 1));
        let driver = Driver::new(Arc::clone(&self.shared), client, self.random.next_u64(), self.now());
        let connection = SimulatedConnection(self.connected);
        self.clients.insert(connection, Client { driver: Some(driver), input: Vec::new(), output: Vec::new() });
        connection
    }

    /// Sends bytes from a client, then runs until idle. Bytes for a connection that has ended are lost.
    pub fn send(&mut self, connection: SimulatedConnection, bytes: &[u8]) {
        self.receive(connection, bytes);
        self.run_until_idle();
    }

    /// Delivers bytes of a client to the broker's socket. Later steps read them, in pieces of any size.
    pub fn receive(&mut self, connection: SimulatedConnection, bytes: &[u8]) {
        if let Some(client) = self.clients.get_mut(&connection) {
            client.input.extend_from_slice(bytes);
        }
    }

    /// Takes the bytes that the broker has written since the last call.
    pub fn take_output(&mut self, connection: SimulatedConnection) -> Vec<u8> {
        self.clients.get_mut(&connection).map(|client| std::mem::take(&mut client.output)).unwrap_or_default()
    }

    /// Whether the broker or the client has ended the connection.
    pub fn is_closed(&self, connection: SimulatedConnection) -> bool {
        self.clients.get(&connection).is_none_or(|client| client.driver.is_none())
    }

    /// Closes a client's socket without connection.close.
    pub fn leave(&mut self, connection: SimulatedConnection) {
        let now = self.now();
        if let Some(Client { driver: Some(mut driver), .. }) = self.clients.remove(&connection) {
            driver.end(now);
        }
        self.run_until_idle();
    }

    /// Raises or clears the memory alarm, as the alarm watch of a server does.
    pub fn set_memory_alarm(&mut self, on: bool) {
        self.shared.alarms.set_memory(on);
        let reason = self.shared.alarms.reason();
        for peer in self.shared.broker.peers() {
            peer.notify_one(Notice::Alarm(reason.map(str::to_owned)));
        }
        self.run_until_idle();
    }

    /// The counters of the scratch store's writer; none before transient messages have gone beyond their budget.
    pub fn scratch_stats(&self) -> Option<WriterStats> {
        self.writers().get(1).map(WriterHandle::stats)
    }

    /// The time of the next timed event: a heartbeat, an expiry, a deadline, a store's retry.
    pub fn next_event(&self) -> Option<Duration> {
        let writers = self.writers();
        let stores = writers.iter().filter_map(WriterHandle::wakes_at);
        let drivers = self.clients.values().filter_map(|client| client.driver.as_ref());
        let deadlines = drivers.filter_map(Driver::deadline);
        let next = deadlines.chain(self.shared.broker.next_tick(Waker::noop())).chain(stores).min()?;
        Some(Duration::from_micros(next.0.max(self.now().monotonic.0)))
    }

    /// Runs until idle, then advances the time, handling each timed event at its own time.
    pub fn advance(&mut self, time: Duration) {
        self.run_until_idle();
        let until = self.elapsed() + time;
        while let Some(next) = self.next_event().filter(|next| *next <= until) {
            self.clock.set(next);
            self.fire();
        }
        self.clock.set(until);
        self.run_until_idle();
    }

    fn fire(&mut self) {
        let now = self.now();
        for driver in self.clients.values_mut().filter_map(|client| client.driver.as_mut()) {
            if driver.deadline().is_some_and(|at| at <= now.monotonic) {
                driver.tick(now);
            }
        }
        self.shared.broker.tick(now);
        self.run_until_idle();
    }

    /// Takes steps in a random order until none is possible at the current time: broker work, connections' passes,
    /// steps of the writers.
    pub fn run_until_idle(&mut self) {
        for _ in 0..STEPS_MAX {
            if !self.step() {
                return;
            }
        }
        panic!("the simulation becomes idle");
    }

    /// Takes one step that is possible at the current time, picked at random. Returns `false` if there is none.
    pub fn step(&mut self) -> bool {
        let mut steps: Vec<Step> = Vec::new();
        steps.extend((!self.queued.work().is_empty()).then_some(Step::Work));
        steps.extend(self.clients.keys().copied().map(Step::Client));
        steps.extend((0..self.writers().len()).map(Step::Writer));
        while !steps.is_empty() {
            let at = self.pick(steps.len());
            if self.take_step(steps.swap_remove(at)) {
                return true;
            }
        }
        false
    }

    fn pick(&mut self, count: usize) -> usize {
        (self.random.next_u64() % count as u64) as usize
    }

    /// Tries a step. Returns whether there was anything to do.
    fn take_step(&mut self, step: Step) -> bool {
        let now = self.now();
        match step {
            Step::Work => {
                // Tasks run in any order.
                let count = self.queued.work().len();
                let at = self.pick(count);
                let work = self.queued.work().remove(at);
                work.is_some_and(|work| {
                    work(now);
                    true
                })
            }
            Step::Client(connection) => {
                let cut = self.random.next_u64();
                self.clients.get_mut(&connection).is_some_and(|client| client.pass(cut, now))
            }
            Step::Writer(at) => self.writers()[at].step() == StepOutcome::Worked,
        }
    }

    fn writers(&self) -> Vec<WriterHandle> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Client {
    /// Reads, takes notices and writes, like a pass of a connection's task. Returns whether there was anything to do.
    /// `cut` is a random number that decides how much is read.
    fn pass(&mut self, cut: u64, now: Now) -> bool {
        let Some(driver) = &mut self.driver else { return false };
        let has_read = !self.input.is_empty()
            && !driver.is_closing()
            && !driver.is_saturated()
            && !driver.waits_for_store(Waker::noop());
        if has_read {
            let len = self.input.len();
            let len = if cut.is_multiple_of(CUT_DIVISOR) { (cut / CUT_DIVISOR) as usize % len + 1 } else { len };
            driver.receive(&self.input[..len], now);
            self.input.drain(..len);
            driver.end_read(now);
        }
        let noticed = driver.has_notices(Waker::noop());
        driver.take_notices(now);
        let wrote = !driver.output().is_empty();
        if wrote {
            self.output.extend_from_slice(driver.output());
            driver.note_write(driver.output().len());
            driver.note_all_written(now);
        }
        driver.fold_counts();
        if driver.is_closing() && driver.output().is_empty() {
            driver.end(now);
            self.driver = None;
        }
        has_read || noticed || wrote || self.driver.is_none()
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        if self.is_killed {
            return;
        }
        let now = self.now();
        for driver in self.clients.values_mut().filter_map(|client| client.driver.as_mut()) {
            driver.end(now);
        }
        // The simulation is over, so a failure to close its store does not matter.
        let _ = self.shared.broker.writer().stop();
    }
}
