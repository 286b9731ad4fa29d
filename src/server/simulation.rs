//! A broker without sockets, tasks, threads or clock: bytes go in and come out, and time passes as its owner says.
//!
//! The same sessions, broker and group commit as behind sockets, carried by the same `Driver`; the store's writer is stepped.
//! What is ready to run is picked at random from a seed: the same seed and the same calls give the same history. It is there
//! for tests, for fuzzing, and for programs that want to see what a broker would do in a minute without waiting one.

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
use crate::store::commit::{StepOutcome, WriterHandle};
use crate::store::memory::{MemoryDisk, MemoryStore};
use crate::store::{BatchNo, Store};
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// When a simulation begins, by the calendar: the start of 2026.
const BEGINNING: WallMillis = WallMillis(1_767_225_600_000);
/// What a cluster is called that has no name in the settings: the host's name would differ from machine to machine.
const CLUSTER_NAME: &str = "prontomq@localhost";
/// Steps after which a simulation that does not come to rest is at fault.
const STEPS_MAX: u32 = 10_000_000;

/// Of so many reads, one brings a part of what has arrived.
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

/// Keeps the broker's work until the simulation runs it.
#[derive(Default)]
struct Queued(Mutex<VecDeque<Work>>);

impl Queued {
    fn work(&self) -> MutexGuard<'_, VecDeque<Work>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runner for Queued {
    fn run(&self, work: Work) {
        self.work().push_back(work);
    }
}

/// The writers of the store and, once it is open, of the scratch store.
type Writers = Arc<Mutex<Vec<WriterHandle>>>;

/// Names a connection of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimulatedConnection(u64);

struct Client {
    /// None once the broker has closed the connection.
    driver: Option<Driver>,
    /// Sent by the client, not yet read.
    input: Vec<u8>,
    /// Written by the broker, not yet taken.
    output: Vec<u8>,
}

/// A broker, its clients' ends, and the time.
pub struct Simulation {
    shared: Arc<Shared>,
    queued: Arc<Queued>,
    writers: Writers,
    clock: SimulatedClock,
    random: Random,
    clients: BTreeMap<SimulatedConnection, Client>,
    connected: u64,
    /// It ends like a process that is killed.
    is_killed: bool,
}

/// What can be done next.
#[derive(Clone, Copy)]
enum Step {
    Work,
    Client(SimulatedConnection),
    Writer(usize),
}

impl Simulation {
    /// A broker with these settings, apart from addresses, store and metrics; messages are kept in memory. `seed` decides
    /// what is random in it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(settings: Settings, seed: u64) -> Result<Self, StartError> {
        let store = Box::new(MemoryStore::open(MemoryDisk::default()));
        Self::start_on(store, settings, seed, SimulatedClock::default())
    }

    /// The same, on a store that may outlive it; its time goes on from where `clock` stands.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start_on(
        mut store: Box<dyn Store>,
        mut settings: Settings,
        seed: u64,
        clock: SimulatedClock,
    ) -> Result<Self, StartError> {
        // Nothing is asked of a disk but by the store.
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
        let queued = Arc::new(Queued::default());
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
        simulation.settle();
        Ok(simulation)
    }

    /// Ends the broker as a kill of its process does: it writes nothing more, to the store or to clients.
    pub fn kill(mut self) {
        self.is_killed = true;
    }

    fn now(&self) -> Now {
        crate::model::Clock::now(&self.clock)
    }

    /// The broker, for reading its state.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.shared.broker
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.now().monotonic.0)
    }

    /// A client connects.
    pub fn connect(&mut self) -> SimulatedConnection {
        self.connected += 1;
        let client = SocketAddr::from((Ipv4Addr::LOCALHOST, (self.connected % 60_000) as u16 + 1));
        let driver = Driver::new(Arc::clone(&self.shared), client, self.random.next_u64(), self.now());
        let connection = SimulatedConnection(self.connected);
        self.clients.insert(connection, Client { driver: Some(driver), input: Vec::new(), output: Vec::new() });
        connection
    }

    /// A client sends bytes, and everything happens that follows from them. What is sent to a connection that has ended is
    /// lost.
    pub fn send(&mut self, connection: SimulatedConnection, bytes: &[u8]) {
        self.receive(connection, bytes);
        self.settle();
    }

    /// Bytes of a client arrive at the broker's socket. They are read in later steps, in pieces cut anywhere.
    pub fn receive(&mut self, connection: SimulatedConnection, bytes: &[u8]) {
        if let Some(client) = self.clients.get_mut(&connection) {
            client.input.extend_from_slice(bytes);
        }
    }

    /// What the broker has written since the last call.
    pub fn take_output(&mut self, connection: SimulatedConnection) -> Vec<u8> {
        self.clients.get_mut(&connection).map(|client| std::mem::take(&mut client.output)).unwrap_or_default()
    }

    /// Whether the broker has closed the connection, or the client has left it.
    pub fn is_closed(&self, connection: SimulatedConnection) -> bool {
        self.clients.get(&connection).is_none_or(|client| client.driver.is_none())
    }

    /// A client's socket closes without a word.
    pub fn leave(&mut self, connection: SimulatedConnection) {
        let now = self.now();
        if let Some(Client { driver: Some(mut driver), .. }) = self.clients.remove(&connection) {
            driver.end(now);
        }
        self.settle();
    }

    /// Raises or ends the memory alarm, as the watch of a running broker does.
    pub fn set_memory_alarm(&mut self, on: bool) {
        self.shared.alarms.set_memory(on);
        let reason = self.shared.alarms.reason();
        for peer in self.shared.broker.peers() {
            peer.tell_one(Notice::Alarm(reason.map(str::to_owned)));
        }
        self.settle();
    }

    /// When something happens next by itself: a heartbeat, an expiry, a deadline, the next try of a store.
    pub fn next_event(&self) -> Option<Duration> {
        let writers = self.writers();
        let stores = writers.iter().filter_map(WriterHandle::wakes_at);
        let drivers = self.clients.values().filter_map(|client| client.driver.as_ref());
        let deadlines = drivers.filter_map(Driver::deadline);
        let next = deadlines.chain(self.shared.broker.next_tick(Waker::noop())).chain(stores).min()?;
        Some(Duration::from_micros(next.0.max(self.now().monotonic.0)))
    }

    /// Lets time go by, and everything happen that falls into it, after what is to be done at this moment.
    pub fn advance(&mut self, time: Duration) {
        self.settle();
        let until = self.elapsed() + time;
        while let Some(next) = self.next_event().filter(|next| *next <= until) {
            self.clock.set(next);
            self.fire();
        }
        self.clock.set(until);
        self.settle();
    }

    fn fire(&mut self) {
        let now = self.now();
        for driver in self.clients.values_mut().filter_map(|client| client.driver.as_mut()) {
            if driver.deadline().is_some_and(|at| at <= now.monotonic) {
                driver.tick(now);
            }
        }
        self.shared.broker.tick(now);
        self.settle();
    }

    /// Lets happen what happens at this moment, in a random order: work is done, notices are taken, output is written, the
    /// store works.
    pub fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            if !self.step() {
                return;
            }
        }
        panic!("the simulation comes to rest");
    }

    /// Does one thing of what can be done at this moment, picked at random; `false` when there is none.
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

    /// Whether there was anything to do.
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
    /// Reads, takes notices and writes, as a pass of a connection's task does; whether there was anything to do. `cut` says
    /// how much is read.
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
            driver.written(now);
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
        // Whatever the store still does, nobody asks for it any more.
        let _ = self.shared.broker.writer().stop();
    }
}
