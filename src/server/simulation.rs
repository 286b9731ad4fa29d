//! A broker without sockets, tasks or clock: bytes go in and come out, and time passes when it is told to.
//!
//! The same sessions, broker and writer as behind sockets, carried by the same `Driver`. Messages are kept in memory. It is
//! there for tests, for fuzzing, and for programs that want to see what a broker would do in a minute without waiting one.

use super::accounts::known_users;
use super::clock::Clock;
use super::driver::Driver;
use super::shared::{Identity, Shared};
use super::start::{StartError, broker_settings, open_store};
use crate::broker::{Broker, Runner};
use crate::config::{Settings, StoreKind};
use crate::model::random::Random;
use crate::model::{Monotonic, Now, WallMillis};
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

/// When a simulation begins, by the calendar: the start of 2026.
const BEGINNING: WallMillis = WallMillis(1_767_225_600_000);
/// What a cluster is called that has no name in the settings: the host's name would differ from machine to machine.
const CLUSTER_NAME: &str = "prontomq@localhost";
/// How often a store that is at work is looked at; it runs in real time.
const STORE_PATIENCE: Duration = Duration::from_micros(200);
/// Rounds after which a simulation that does not come to rest is at fault.
const ROUNDS_MAX: u32 = 1_000_000;

type Work = Box<dyn FnOnce(Now) + Send>;

/// Keeps the broker's work until the simulation gets round to it.
#[derive(Default)]
struct Queued {
    work: Mutex<VecDeque<Work>>,
    came: Condvar,
}

impl Queued {
    fn work(&self) -> MutexGuard<'_, VecDeque<Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> VecDeque<Work> {
        std::mem::take(&mut *self.work())
    }

    /// Gives the store's threads a moment.
    fn wait(&self) {
        let work = self.work();
        if work.is_empty() {
            drop(self.came.wait_timeout(work, STORE_PATIENCE));
        }
    }
}

impl Runner for Queued {
    fn run(&self, work: Work) {
        self.work().push_back(work);
        self.came.notify_one();
    }
}

/// Names a connection of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SimulatedConnection(u64);

struct Client {
    /// None once the broker has closed the connection.
    driver: Option<Driver>,
    /// Written by the broker, not yet heard.
    heard: Vec<u8>,
}

/// A broker, its clients' ends, and the time.
pub struct Simulation {
    shared: Arc<Shared>,
    queued: Arc<Queued>,
    now: Now,
    random: Random,
    clients: BTreeMap<SimulatedConnection, Client>,
    connected: u64,
}

impl Simulation {
    /// A broker with these settings, apart from addresses, store and metrics. `seed` decides what is random in it.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(mut settings: Settings, seed: u64) -> Result<Self, StartError> {
        settings.store.kind = StoreKind::Memory;
        let now = Now { monotonic: Monotonic(0), wall: BEGINNING };
        let queued = Arc::new(Queued::default());
        let (writer, recovered) = open_store(&settings).map_err(StartError::Store)?;
        let runner: Arc<dyn Runner> = Arc::clone(&queued) as _;
        let broker = Broker::recover(broker_settings(&settings), runner, writer, None, &recovered, now);
        let users = known_users(&settings, &recovered, &broker)?;
        let cluster_name = if settings.cluster_name.is_empty() { CLUSTER_NAME } else { &settings.cluster_name };
        let identity = Identity { cluster_name: cluster_name.to_owned(), ..Identity::default() };
        let shared = Shared::new(settings, identity, broker, users, Clock::start(), Vec::new());
        let random = Random::new(seed);
        let mut simulation = Self { shared, queued, now, random, clients: BTreeMap::new(), connected: 0 };
        simulation.settle();
        Ok(simulation)
    }

    /// The broker, for reading its state.
    pub fn broker(&self) -> &Arc<Broker> {
        &self.shared.broker
    }

    /// Time since the beginning.
    pub fn elapsed(&self) -> Duration {
        Duration::from_micros(self.now.monotonic.0)
    }

    /// A client connects.
    pub fn connect(&mut self) -> SimulatedConnection {
        self.connected += 1;
        let client = SocketAddr::from((Ipv4Addr::LOCALHOST, (self.connected % 60_000) as u16 + 1));
        let driver = Driver::new(Arc::clone(&self.shared), client, self.random.next_u64(), self.now);
        let connection = SimulatedConnection(self.connected);
        self.clients.insert(connection, Client { driver: Some(driver), heard: Vec::new() });
        connection
    }

    /// A client says something. What it says to a connection that has ended is lost.
    pub fn send(&mut self, connection: SimulatedConnection, bytes: &[u8]) {
        if let Some(Client { driver: Some(driver), .. }) = self.clients.get_mut(&connection)
            && !driver.is_closing()
        {
            driver.receive(bytes, self.now);
            driver.end_read(self.now);
        }
        self.settle();
    }

    /// What the broker has said since the last call.
    pub fn take_output(&mut self, connection: SimulatedConnection) -> Vec<u8> {
        self.clients.get_mut(&connection).map(|client| std::mem::take(&mut client.heard)).unwrap_or_default()
    }

    /// Whether the broker has closed the connection, or the client has left it.
    pub fn is_closed(&self, connection: SimulatedConnection) -> bool {
        self.clients.get(&connection).is_none_or(|client| client.driver.is_none())
    }

    /// A client is gone without a word.
    pub fn leave(&mut self, connection: SimulatedConnection) {
        if let Some(Client { driver: Some(mut driver), .. }) = self.clients.remove(&connection) {
            driver.end(self.now);
        }
        self.settle();
    }

    /// When something happens next by itself: a heartbeat, an expiry, a deadline.
    pub fn next_event(&self) -> Option<Duration> {
        let drivers = self.clients.values().filter_map(|client| client.driver.as_ref());
        let deadlines = drivers.filter_map(Driver::deadline);
        let next = deadlines.chain(self.shared.broker.next_tick(Waker::noop())).min()?;
        Some(Duration::from_micros(next.0.max(self.now.monotonic.0)))
    }

    /// Lets time go by, and everything happen that falls into it.
    pub fn advance(&mut self, time: Duration) {
        let until = self.elapsed() + time;
        while let Some(next) = self.next_event().filter(|next| *next <= until) {
            // The clock of the calendar counts whole milliseconds: it must not stand still before something is due.
            self.set_time(next);
            self.fire();
        }
        self.set_time(until);
        self.settle();
    }

    fn set_time(&mut self, elapsed: Duration) {
        self.now.monotonic = Monotonic(elapsed.as_micros() as u64);
        self.now.wall = BEGINNING.plus_millis(elapsed.as_millis() as u64);
    }

    fn fire(&mut self) {
        let now = self.now;
        for driver in self.clients.values_mut().filter_map(|client| client.driver.as_mut()) {
            if driver.deadline().is_some_and(|at| at <= now.monotonic) {
                driver.tick(now);
            }
        }
        self.shared.broker.tick(now);
        self.settle();
    }

    /// Until nothing moves at this moment: work is done, notices are taken, output is written, the store is idle.
    fn settle(&mut self) {
        let now = self.now;
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "the simulation comes to rest");
            let settled = self.shared.broker.writer().is_settled();
            let work = self.queued.take();
            let mut moved = !work.is_empty();
            work.into_iter().for_each(|work| work(now));
            for client in self.clients.values_mut() {
                moved |= client.pass(now);
            }
            if moved {
                continue;
            }
            if settled {
                return;
            }
            self.queued.wait();
        }
    }
}

impl Client {
    /// Takes notices and writes; whether there was anything to do.
    fn pass(&mut self, now: Now) -> bool {
        let Some(driver) = &mut self.driver else { return false };
        let noticed = driver.has_notices(Waker::noop());
        driver.take_notices(now);
        let wrote = !driver.output().is_empty();
        if wrote {
            self.heard.extend_from_slice(driver.output());
            driver.written(now);
        }
        driver.fold_counts();
        if driver.is_closing() && driver.output().is_empty() {
            driver.end(now);
            self.driver = None;
        }
        noticed || wrote
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        let now = self.now;
        for driver in self.clients.values_mut().filter_map(|client| client.driver.as_mut()) {
            driver.end(now);
        }
        // Whatever the store still does, nobody asks for it any more.
        let _ = self.shared.broker.writer().stop();
    }
}
