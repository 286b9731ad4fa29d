//! One history: clients, crashes and faults, drawn from a seed.

mod actions;
mod answers;
mod client;
mod own;

use super::coverage::Coverage;
use super::ledger::{ChannelId, Crash, DEAD, Kind, Ledger};
use super::store::{Disk, Faults};
use super::wire::{Value, method, shortstr, table};
use client::{Channel, Client, Mode};
use own::Own;
use prontomq::internals::model::random::Random;
use prontomq::internals::server::{SimulatedClock, Simulation};
use prontomq::{Settings, StoreKind};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Frames that the clients of one history send at least.
const FRAMES_MIN: u64 = 2_000;
const CONNECTIONS_MIN: usize = 3;
const CONNECTIONS_MAX: usize = 6;
/// Queues that are there from the beginning to the end.
const SAFE: [&str; 7] = ["work", "other", "urgent", "short", "brief", "retry", DEAD];
/// Those whose messages end in the queue for dead letters when they are dropped, rejected or expired.
const DEAD_LETTERING: [&str; 3] = ["short", "brief", "retry"];
/// Queues that come and go.
const VOLATILE: [&str; 4] = ["v0", "v1", "v2", "v3"];
const EXCHANGES: [&str; 3] = ["e0", "e1", "e2"];
/// One of so many seeds has next to no memory for transient messages.
const SPILLING_EVERY: u64 = 3;
/// One of so many seeds commits few rows at once, and crashes while a transaction is under way.
const SMALL_BATCHES_EVERY: u64 = 2;
/// What clients do, and steps of the broker, before a loss of power in the midst of what comes of it.
const HIDDEN_ACTIONS: u32 = 12;
const HIDDEN_STEPS: u64 = 400;
/// One of so many seeds crashes on a full disk.
const FULL_AT_CRASH_EVERY: u64 = 3;
/// For so many frames a crash waits for a transaction.
const CRASH_WAITS: u64 = 200;
/// One of so many seeds has queues that keep next to nothing in memory.
const SHORT_WINDOW_EVERY: u64 = 4;
const REST_SECONDS: u32 = 5;
const HEARTBEAT: &[u8] = &[8, 0, 0, 0, 0, 0, 0, 0xCE];
/// A history is at fault that takes longer.
const DRAIN_ROUNDS: u32 = 2_000;

/// How a history ended.
pub(crate) struct Outcome {
    pub(crate) coverage: Coverage,
    /// Of all bytes that the broker sent.
    pub(crate) trace: u64,
}

/// A running history.
pub(crate) struct History {
    seed: u64,
    random: Random,
    disk: Box<dyn Disk>,
    clock: SimulatedClock,
    faults: Arc<Faults>,
    simulation: Option<Simulation>,
    clients: Vec<Client>,
    ledger: Ledger,
    coverage: Coverage,
    next: u64,
    connected: u64,
    transactions: u64,
    trace: u64,
    /// Until when the disk is full.
    full_until: Option<Duration>,
    alarm: bool,
    /// Commits that failed so far.
    failed_commits: u64,
    held_up_until: Duration,
    /// Messages that the broker must not read before the alarm ends.
    blocked: BTreeSet<u64>,
    /// What channels have made that nobody else changes.
    own: BTreeMap<ChannelId, Own>,
}

/// Little memory, so that messages are read back; in some histories so little that most transient ones are spilled.
fn settings(seed: u64) -> Settings {
    let mut settings = Settings::default();
    settings.store.kind = StoreKind::Memory;
    settings.store.batch_rows_max = if seed.is_multiple_of(SMALL_BATCHES_EVERY) { 2 } else { 20 };
    settings.store.give_up_after = Duration::from_secs(100_000);
    // A short window moves the ceiling of what may have been delivered often.
    let windows = &mut settings.limits.windows;
    windows.head_entries = if seed.is_multiple_of(SHORT_WINDOW_EVERY) { 2 } else { 16 };
    windows.head_entries_min = windows.head_entries.min(4);
    windows.tail_entries = 8;
    windows.head_bytes = 4096;
    windows.tail_bytes = 4096;
    windows.transient_bytes = if seed.is_multiple_of(SPILLING_EVERY) { 2_000 } else { 20_000 };
    settings.limits.memory_bytes = 1 << 40;
    settings
}

impl History {
    pub(crate) fn new(seed: u64, mut disk: Box<dyn Disk>) -> Self {
        let faults = Arc::<Faults>::default();
        let clock = SimulatedClock::default();
        let store = disk.open(seed, &faults, &clock);
        let simulation = Simulation::start_on(store, settings(seed), seed, clock.clone()).expect("the broker starts");
        let mut history = Self {
            seed,
            random: Random::new(seed ^ 0x5EED),
            disk,
            clock,
            faults,
            simulation: Some(simulation),
            clients: Vec::new(),
            ledger: Ledger::default(),
            coverage: Coverage::default(),
            next: 1,
            connected: 0,
            transactions: 0,
            trace: 0xCBF2_9CE4_8422_2325,
            full_until: None,
            alarm: false,
            failed_commits: 0,
            held_up_until: Duration::ZERO,
            blocked: BTreeSet::new(),
            own: BTreeMap::new(),
        };
        history.declare_safe();
        history
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn simulation(&mut self) -> &mut Simulation {
        self.simulation.as_mut().expect("a broker runs")
    }

    /// From the beginning to the end, which is checked.
    pub(crate) fn run(mut self) -> Outcome {
        let crash_at = [FRAMES_MIN / 3 + self.below(FRAMES_MIN / 4), FRAMES_MIN * 3 / 4 + self.below(FRAMES_MIN / 5)];
        let mut crashes = crash_at.into_iter().peekable();
        while self.coverage.frames < FRAMES_MIN || crashes.peek().is_some() {
            let reached = self.coverage.frames.saturating_sub(if self.waits_for_commit() { CRASH_WAITS } else { 0 });
            if self.crashes_on_full_disk() && crashes.peek().is_some_and(|at| *at <= self.coverage.frames + CRASH_WAITS)
            {
                self.fill_disk();
            }
            if crashes.next_if(|at| *at <= reached).is_some() {
                self.crash();
            }
            self.tick();
        }
        self.end();
        self.coverage.seen = self.ledger.seen;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.coverage.batches = count(&self.faults.batches);
        self.coverage.refused_batches = count(&self.faults.refused);
        self.coverage.unknown_batches = count(&self.faults.unknown);
        self.coverage.loads = count(&self.faults.loads);
        self.coverage.cut_short = count(&self.faults.cut_short);
        self.coverage.failed_loads = count(&self.faults.unread);
        Outcome { coverage: self.coverage, trace: self.trace }
    }

    fn crashes_on_full_disk(&self) -> bool {
        self.seed % FULL_AT_CRASH_EVERY == 1 && self.full_until.is_none()
    }

    /// A crash is more telling while a transaction is under way.
    fn waits_for_commit(&self) -> bool {
        let mut channels = self.clients.iter().flat_map(|client| client.channels.values());
        self.seed.is_multiple_of(SMALL_BATCHES_EVERY) && !channels.any(|channel| !channel.commits.is_empty())
    }

    // ---- one thing that happens

    fn tick(&mut self) {
        while self.clients.len() < CONNECTIONS_MIN {
            self.connect();
        }
        match self.below(100) {
            0 if self.clients.len() < CONNECTIONS_MAX => self.connect(),
            1 => self.lose_connection(),
            2..=3 => self.pass_time(),
            4 => self.toggle_alarm(),
            5 if self.full_until.is_none() && self.chance(20) => self.fill_disk(),
            6 if self.chance(20) => self.rest(),
            _ => self.act(),
        }
        if self.chance(60) {
            self.settle();
        } else {
            let steps = self.below(30);
            for _ in 0..steps {
                self.simulation().step();
            }
        }
        self.receive_all();
        self.note_hold_ups();
    }

    /// Alarms end, the store is well, and time passes: nothing is owed to clients then.
    fn rest(&mut self) {
        self.faults.is_well.store(true, Ordering::Relaxed);
        if self.alarm {
            self.toggle_alarm();
        }
        for _ in 0..REST_SECONDS {
            for at in 0..self.clients.len() {
                self.send(at, HEARTBEAT);
            }
            self.simulation().advance(Duration::from_secs(1));
            self.receive_all();
        }
        self.check_nothing_is_owed();
        self.coverage.rests += 1;
        self.faults.is_well.store(false, Ordering::Relaxed);
    }

    fn note_hold_ups(&mut self) {
        let failed = self.faults.refused.load(Ordering::Relaxed) + self.faults.unknown.load(Ordering::Relaxed);
        let fails = std::mem::replace(&mut self.failed_commits, failed) != failed;
        if fails || self.alarm || self.faults.is_full.load(Ordering::Relaxed) {
            self.held_up_until = self.simulation().elapsed();
        }
    }

    fn settle(&mut self) {
        self.simulation().run_until_idle();
        if !self.alarm && !self.faults.is_full.load(Ordering::Relaxed) {
            self.ledger.all_is_read();
        }
    }

    fn lose_connection(&mut self) {
        let at = self.below(self.clients.len() as u64) as usize;
        self.coverage.connections_lost += 1;
        let connection = self.clients[at].connection;
        self.simulation().leave(connection);
        self.connection_gone(at);
    }

    fn pass_time(&mut self) {
        let millis = [1, 20, 200, 3_000][self.below(4) as usize] + self.below(50);
        let elapsed = self.simulation().elapsed();
        if self.full_until.take_if(|until| elapsed >= *until).is_some() {
            self.faults.is_full.store(false, Ordering::Relaxed);
        }
        for at in 0..self.clients.len() {
            if self.chance(90) {
                self.send(at, HEARTBEAT);
            }
        }
        self.simulation().advance(Duration::from_millis(millis));
    }

    fn toggle_alarm(&mut self) {
        self.alarm = !self.alarm;
        self.coverage.alarms += u64::from(self.alarm);
        let on = self.alarm;
        if !on {
            self.alarm_is_over();
        }
        self.simulation().set_memory_alarm(on);
    }

    fn alarm_is_over(&mut self) {
        self.blocked.clear();
        self.clients.iter_mut().for_each(|client| client.is_blocked = false);
    }

    fn fill_disk(&mut self) {
        self.coverage.full_disks += 1;
        self.faults.is_full.store(true, Ordering::Relaxed);
        self.full_until = Some(self.simulation().elapsed() + Duration::from_secs(2));
    }

    // ---- ends and beginnings

    fn declare_safe(&mut self) {
        for queue in SAFE {
            let kind = Kind { is_safe: true, dead_letters: DEAD_LETTERING.contains(&queue) };
            self.ledger.queue(queue, kind);
        }
        self.connect_as(false);
        self.send(0, &method(1, (20, 10), &[shortstr("")]));
        let to_dead =
            || vec![("x-dead-letter-exchange", Value::Text("")), ("x-dead-letter-routing-key", Value::Text(DEAD))];
        for queue in SAFE {
            let mut arguments = if DEAD_LETTERING.contains(&queue) { to_dead() } else { Vec::new() };
            match queue {
                "urgent" => arguments.push(("x-max-priority", Value::Number(3))),
                "short" => arguments.push(("x-max-length", Value::Number(15))),
                "brief" => arguments.push(("x-message-ttl", Value::Number(400))),
                _ => {}
            }
            let fields = [vec![0, 0], shortstr(queue), vec![2], table(&arguments)];
            self.send(0, &method(1, (50, 10), &fields));
        }
        let fan = [vec![0, 0], shortstr("fan"), shortstr("fanout"), vec![2], table(&[])];
        self.send(0, &method(1, (40, 10), &fan));
        let bind = [vec![0, 0], shortstr("work"), shortstr("fan"), shortstr(""), vec![0], table(&[])];
        self.send(0, &method(1, (50, 20), &bind));
        // Until all of it is stored.
        self.faults.is_well.store(true, Ordering::Relaxed);
        self.simulation().advance(Duration::from_secs(2));
        self.faults.is_well.store(false, Ordering::Relaxed);
        let connection = self.clients[0].connection;
        self.simulation().leave(connection);
        self.clients.clear();
    }

    fn crash(&mut self) {
        self.coverage.crashes += 1;
        let (mut steps, receives) = (self.below(40), self.chance(50));
        if !receives && self.disk.hide_from_clients() {
            // Something is to be written in the meantime.
            (0..HIDDEN_ACTIONS).for_each(|_| self.act());
            steps = HIDDEN_STEPS;
        }
        for _ in 0..steps {
            self.simulation().step();
        }
        if receives {
            self.receive_all();
        }
        let at = self.simulation().elapsed();
        self.count_spilled();
        self.disk.lose_power();
        self.simulation.take().expect("a broker runs").kill();
        while !self.clients.is_empty() {
            self.connection_gone(0);
        }
        self.ledger.crashed(Crash { at, held_up_until: self.held_up_until });
        self.alarm = false;
        self.alarm_is_over();
        self.start();
        self.check_own();
    }

    fn count_spilled(&mut self) {
        self.coverage.spilled += self.simulation().scratch_stats().map_or(0, |stats| stats.rows_inserted);
    }

    fn start(&mut self) {
        let seed = self.random.next_u64();
        let store = self.disk.open(seed, &self.faults, &self.clock);
        let simulation = Simulation::start_on(store, settings(self.seed), seed, self.clock.clone());
        self.simulation = Some(simulation.expect("the broker starts again"));
    }

    /// Alarms end, the store is well, all clients leave; what is left in the queues is taken out.
    fn end(&mut self) {
        self.rest();
        self.faults.is_well.store(true, Ordering::Relaxed);
        while !self.clients.is_empty() {
            let connection = self.clients[0].connection;
            self.simulation().leave(connection);
            self.connection_gone(0);
        }
        self.simulation().advance(Duration::from_secs(5));
        self.connect_as(false);
        self.open_plain(0);
        for queue in SAFE {
            self.drain(queue);
        }
        self.ledger.check_end();
        self.count_spilled();
    }

    fn open_plain(&mut self, at: usize) {
        let id = ChannelId { connection: self.clients[at].number, opened: 1 };
        let channel = Channel::new(id, Mode::Plain);
        self.clients[at].channels.insert(1, channel);
        self.send(at, &method(1, (20, 10), &[shortstr("")]));
    }

    fn drain(&mut self, queue: &str) {
        let tag = format!("drain-{queue}");
        let channel = self.clients[0].channels.get_mut(&1).expect("it is open");
        channel.consumers.insert(tag.clone(), (queue.to_owned(), false));
        let id = channel.id;
        self.send(0, &method(1, (60, 20), &[vec![0, 0], shortstr(queue), shortstr(&tag), vec![0], table(&[])]));
        for _ in 0..DRAIN_ROUNDS {
            self.simulation().advance(Duration::from_millis(2_000));
            self.receive_all();
            let tags = self.ledger.tags(id);
            let Some(last) = tags.last().copied() else { return };
            let now = self.simulation().elapsed();
            self.ledger.ack(id, last, true, now, None);
            self.send(0, &method(1, (60, 80), &[last.to_be_bytes().to_vec(), vec![1]]));
        }
        panic!("seed {}: {queue} is not drained", self.seed);
    }
}
