//! One history: clients, crashes and faults, drawn from a seed.

use super::ledger::{ChannelId, Crash, DEAD, Given, Kind, Ledger, Seen};
use super::store::{Faults, FaultyStore};
use super::wire::{Incoming, Parser, Publish, Value, longstr, method, publish, shortstr, table};
use prontomq::internals::model::random::Random;
use prontomq::internals::server::{SimulatedClock, SimulatedConnection, Simulation};
use prontomq::internals::store::Store;
use prontomq::internals::store::memory::MemoryDisk;
use prontomq::{Settings, StoreKind};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Frames that the clients of one history send at least.
const FRAMES_MIN: u64 = 2_000;
const CONNECTIONS_MIN: usize = 3;
const CONNECTIONS_MAX: usize = 6;
/// Queues that are there from the beginning to the end.
const SAFE: [&str; 6] = ["work", "urgent", "short", "brief", "retry", DEAD];
/// Those whose messages end in the queue for dead letters when they are dropped, rejected or expired.
const DEAD_LETTERING: [&str; 3] = ["short", "brief", "retry"];
/// Queues that come and go.
const VOLATILE: [&str; 4] = ["v0", "v1", "v2", "v3"];
const EXCHANGES: [&str; 3] = ["e0", "e1", "e2"];
/// A history is at fault that takes longer.
const DRAIN_ROUNDS: u32 = 2_000;

/// What the histories came across.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) frames: u64,
    pub(crate) connections: u64,
    pub(crate) channels_closed_by_broker: u64,
    pub(crate) connections_lost: u64,
    pub(crate) missed_heartbeats: u64,
    pub(crate) crashes: u64,
    pub(crate) alarms: u64,
    pub(crate) blocked: u64,
    pub(crate) topology_changes: u64,
    pub(crate) batches: u64,
    pub(crate) refused_batches: u64,
    pub(crate) unknown_batches: u64,
    pub(crate) full_disks: u64,
    pub(crate) loads: u64,
    pub(crate) failed_loads: u64,
    pub(crate) seen: Seen,
}

/// How a history ended.
pub(crate) struct Outcome {
    pub(crate) coverage: Coverage,
    /// Of all bytes that the broker sent.
    pub(crate) trace: u64,
}

/// Where messages outlive the broker.
pub(crate) trait Disk {
    /// A store as the next process finds it; the disk has lost what a power failure takes.
    fn open(&mut self, seed: u64, faults: &Arc<Faults>, clock: &SimulatedClock) -> Box<dyn Store>;
}

impl Disk for MemoryDisk {
    fn open(&mut self, seed: u64, faults: &Arc<Faults>, _clock: &SimulatedClock) -> Box<dyn Store> {
        Box::new(FaultyStore::open(self.clone(), seed, Arc::clone(faults)))
    }
}

/// What a channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Plain,
    Confirm,
    Transaction(u64),
}

struct Channel {
    id: ChannelId,
    mode: Mode,
    /// Publishes so far, as confirms count them.
    published: u64,
    unconfirmed: BTreeMap<u64, u64>,
    /// By tag: the queue, and whether its deliveries need no acknowledgement.
    consumers: BTreeMap<String, (String, bool)>,
    /// Gets that wait for their answer: the queue, and whether without acknowledgement.
    gets: VecDeque<(String, bool)>,
    /// Transactions that were asked to commit, and what is asked in order.
    commits: VecDeque<(u64, bool)>,
    /// A close was sent, or is on its way from the broker: what it holds counts as given back.
    is_closing: bool,
    /// basic.recover is not answered: what the broker gave before it is on its way back.
    is_recovering: bool,
    /// Methods whose answers have not come. One that fails ends the channel, and nothing behind it is carried out.
    awaits: u32,
}

impl Channel {
    fn new(id: ChannelId, mode: Mode) -> Self {
        Self {
            id,
            mode,
            published: 0,
            unconfirmed: BTreeMap::new(),
            consumers: BTreeMap::new(),
            gets: VecDeque::new(),
            commits: VecDeque::new(),
            is_closing: false,
            is_recovering: false,
            awaits: 0,
        }
    }

    /// Whose messages it may have been given.
    fn queues(&self) -> BTreeSet<String> {
        let consumed = self.consumers.values().map(|(queue, _)| queue);
        consumed.chain(self.gets.iter().map(|(queue, _)| queue)).cloned().collect()
    }
}

struct Client {
    connection: SimulatedConnection,
    number: u64,
    parser: Parser,
    channels: BTreeMap<u16, Channel>,
    opened: u64,
    has_heartbeats: bool,
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
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.store.kind = StoreKind::Memory;
    settings.store.batch_rows_max = 20;
    settings.store.give_up_after = Duration::from_secs(100_000);
    settings.limits.windows.head_entries = 16;
    settings.limits.windows.head_entries_min = 4;
    settings.limits.windows.tail_entries = 8;
    settings.limits.windows.head_bytes = 4096;
    settings.limits.windows.tail_bytes = 4096;
    settings.limits.windows.transient_bytes = 20_000;
    settings.limits.memory_bytes = 1 << 40;
    settings
}

impl History {
    pub(crate) fn new(seed: u64, mut disk: Box<dyn Disk>) -> Self {
        let faults = Arc::<Faults>::default();
        let clock = SimulatedClock::default();
        let store = disk.open(seed, &faults, &clock);
        let simulation = Simulation::start_on(store, settings(), seed, clock.clone()).expect("the broker starts");
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
            if crashes.next_if(|at| *at <= self.coverage.frames).is_some() {
                self.crash();
            }
            self.tick();
        }
        self.end();
        self.coverage.seen = self.ledger.seen;
        let count = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
        self.coverage.batches = count(&self.faults.batches);
        self.coverage.refused_batches = count(&self.faults.refused);
        self.coverage.unknown_batches = count(&self.faults.unknown);
        self.coverage.loads = count(&self.faults.loads);
        self.coverage.failed_loads = count(&self.faults.unread);
        Outcome { coverage: self.coverage, trace: self.trace }
    }

    // ---- connections

    fn connect(&mut self) {
        let has_heartbeats = self.chance(30);
        self.connect_as(has_heartbeats);
    }

    /// With heartbeats, a client that is silent for two seconds is taken for dead.
    fn connect_as(&mut self, has_heartbeats: bool) {
        let connection = self.simulation().connect();
        self.connected += 1;
        self.coverage.connections += 1;
        let client = Client {
            connection,
            number: self.connected,
            parser: Parser::default(),
            channels: BTreeMap::new(),
            opened: 0,
            has_heartbeats,
        };
        self.clients.push(client);
        let at = self.clients.len() - 1;
        let properties = table(&[]).into_iter().skip(4).collect::<Vec<u8>>();
        let login = [longstr(&properties), shortstr("PLAIN"), longstr(b"\0guest\0guest"), shortstr("en_US")];
        self.send(at, b"AMQP\0\0\x09\x01");
        self.send(at, &method(0, (10, 11), &login));
        let heartbeat = u8::from(has_heartbeats);
        self.send(at, &method(0, (10, 31), &[vec![7, 255, 0, 2, 0, 0, 0, heartbeat]]));
        self.send(at, &method(0, (10, 40), &[shortstr("/"), shortstr(""), vec![0]]));
    }

    fn send(&mut self, at: usize, bytes: &[u8]) {
        self.coverage.frames += bytes.iter().filter(|byte| **byte == 0xCE).count().min(8) as u64;
        let connection = self.clients[at].connection;
        self.simulation().receive(connection, bytes);
    }

    fn open_channel(&mut self, at: usize, number: u16) {
        let mode = match self.below(4) {
            0 => Mode::Plain,
            1 => {
                self.transactions += 1;
                Mode::Transaction(self.transactions)
            }
            _ => Mode::Confirm,
        };
        let client = &mut self.clients[at];
        client.opened += 1;
        let id = ChannelId { connection: client.number, opened: client.opened };
        let channel = Channel::new(id, mode);
        client.channels.insert(number, channel);
        self.send(at, &method(number, (20, 10), &[shortstr("")]));
        match mode {
            Mode::Plain => {}
            Mode::Confirm => self.send(at, &method(number, (85, 10), &[vec![0]])),
            Mode::Transaction(_) => self.send(at, &method(number, (90, 10), &[])),
        }
        if self.chance(50) {
            let prefetch = 1 + self.below(20) as u8;
            let global = u8::from(self.chance(40));
            self.send(at, &method(number, (60, 10), &[vec![0, 0, 0, 0, 0, prefetch, global]]));
        }
    }

    /// All that a channel holds is on its way back, whatever the client still hears.
    fn channel_gone(&mut self, channel: &Channel) {
        if let Mode::Transaction(transaction) = channel.mode {
            self.ledger.rolled_back(transaction, false);
        }
        for (transaction, _) in &channel.commits {
            self.ledger.rolled_back(*transaction, false);
        }
        self.ledger.end_channel(channel.id, &channel.queues());
    }

    fn connection_gone(&mut self, at: usize) {
        let client = self.clients.remove(at);
        for channel in client.channels.values() {
            self.ledger.connection_lost(channel.id);
            self.channel_gone(channel);
        }
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
        self.hear_all();
        self.note_hold_ups();
    }

    fn note_hold_ups(&mut self) {
        let failed = self.faults.refused.load(Ordering::Relaxed) + self.faults.unknown.load(Ordering::Relaxed);
        let fails = std::mem::replace(&mut self.failed_commits, failed) != failed;
        if fails || self.alarm || self.faults.is_full.load(Ordering::Relaxed) {
            self.held_up_until = self.simulation().elapsed();
        }
    }

    fn settle(&mut self) {
        self.simulation().settle();
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
                self.send(at, &[8, 0, 0, 0, 0, 0, 0, 0xCE]);
            }
        }
        self.simulation().advance(Duration::from_millis(millis));
    }

    fn toggle_alarm(&mut self) {
        self.alarm = !self.alarm;
        self.coverage.alarms += u64::from(self.alarm);
        let on = self.alarm;
        self.simulation().set_memory_alarm(on);
    }

    fn fill_disk(&mut self) {
        self.coverage.full_disks += 1;
        self.faults.is_full.store(true, Ordering::Relaxed);
        self.full_until = Some(self.simulation().elapsed() + Duration::from_secs(2));
    }

    fn act(&mut self) {
        let at = self.below(self.clients.len() as u64) as usize;
        let number = 1 + self.below(3) as u16;
        match self.clients[at].channels.get(&number) {
            None => return self.open_channel(at, number),
            // The client waits for answers. A method behind tx.commit would end the connection.
            Some(channel) if channel.is_closing || channel.awaits > 0 || !channel.commits.is_empty() => return,
            Some(_) => {}
        }
        match self.below(40) {
            0..=15 => self.publish_some(at, number),
            16..=18 => self.consume(at, number),
            19 => self.cancel(at, number),
            20..=21 => self.get(at, number),
            22..=28 => self.settle_some(at, number),
            29..=31 => self.end_transaction(at, number),
            32 => self.recover(at, number),
            33 => self.close_channel(at, number),
            34 => self.publish_nowhere(at, number),
            _ => self.change_topology(at, number),
        }
    }

    fn publish_some(&mut self, at: usize, number: u16) {
        let queue = if self.chance(85) { SAFE[self.below(5) as usize] } else { VOLATILE[self.below(4) as usize] };
        let most = if self.chance(15) { 40 } else { 4 };
        let count = 1 + self.below(most);
        let mut bytes = Vec::new();
        for _ in 0..count {
            bytes.extend(self.publish_one(at, number, queue));
        }
        self.send(at, &bytes);
        self.coverage.frames += (count * 3).saturating_sub(8);
    }

    fn publish_one(&mut self, at: usize, number: u16, queue: &str) -> Vec<u8> {
        let (message, persistent) = (self.next, self.chance(70));
        self.next += 1;
        let priority = if queue == "urgent" { self.below(4) as u8 } else { 0 };
        let size = if self.chance(5) { 600 } else { self.below(40) as usize };
        let channel = self.clients[at].channels.get_mut(&number).expect("it is open");
        let transaction = if let Mode::Transaction(transaction) = channel.mode { Some(transaction) } else { None };
        if channel.mode == Mode::Confirm {
            channel.published += 1;
            channel.unconfirmed.insert(channel.published, message);
        }
        self.ledger.publish(message, queue, persistent, priority, channel.id, transaction);
        let exchange = if queue == "work" && message % 3 == 0 { "fan" } else { "" };
        publish(&Publish { channel: number, exchange, routing_key: queue, persistent, priority, number: message, size })
    }

    /// The broker closes the channel for it.
    fn publish_nowhere(&mut self, at: usize, number: u16) {
        if self.chance(70) {
            return;
        }
        let fields = Publish {
            channel: number,
            exchange: "missing",
            routing_key: "",
            persistent: true,
            priority: 0,
            number: u64::MAX,
            size: 0,
        };
        self.send(at, &publish(&fields));
        self.channel(at, number).awaits += 1;
    }

    fn channel(&mut self, at: usize, number: u16) -> &mut Channel {
        self.clients[at].channels.get_mut(&number).expect("it is open")
    }

    fn any_queue(&mut self) -> &'static str {
        if self.chance(80) { SAFE[self.below(6) as usize] } else { VOLATILE[self.below(4) as usize] }
    }

    /// What is on its way to a consumer that needs no acknowledgements is lost with its channel. To keep such losses apart,
    /// there are such consumers of a few queues only.
    fn may_no_ack(&self, queue: &str) -> bool {
        queue == "urgent" || VOLATILE.contains(&queue)
    }

    fn consume(&mut self, at: usize, number: u16) {
        let queue = self.any_queue();
        let no_ack = self.chance(15) && self.may_no_ack(queue);
        self.next += 1;
        let tag = format!("c{}", self.next);
        let channel = self.clients[at].channels.get_mut(&number).expect("it is open");
        channel.consumers.insert(tag.clone(), (queue.to_owned(), no_ack));
        channel.awaits += 1;
        let fields = [vec![0, 0], shortstr(queue), shortstr(&tag), vec![u8::from(no_ack) << 1], table(&[])];
        self.send(at, &method(number, (60, 20), &fields));
    }

    fn cancel(&mut self, at: usize, number: u16) {
        let tags: Vec<String> = self.clients[at].channels[&number].consumers.keys().cloned().collect();
        if tags.is_empty() {
            return;
        }
        let tag = &tags[self.below(tags.len() as u64) as usize];
        // Deliveries may still be on their way: the consumer is known until the channel ends.
        self.send(at, &method(number, (60, 30), &[shortstr(tag), vec![0]]));
    }

    fn get(&mut self, at: usize, number: u16) {
        let queue = self.any_queue();
        let no_ack = self.chance(30) && self.may_no_ack(queue);
        let channel = self.clients[at].channels.get_mut(&number).expect("it is open");
        channel.gets.push_back((queue.to_owned(), no_ack));
        channel.awaits += 1;
        self.send(at, &method(number, (60, 70), &[vec![0, 0], shortstr(queue), vec![u8::from(no_ack)]]));
    }

    fn settle_some(&mut self, at: usize, number: u16) {
        let channel = &self.clients[at].channels[&number];
        let (id, mode) = (channel.id, channel.mode);
        let tags = self.ledger.tags(id);
        if tags.is_empty() {
            return;
        }
        let (tag, multiple) = (tags[self.below(tags.len() as u64) as usize], self.chance(40));
        let transaction = if let Mode::Transaction(transaction) = mode { Some(transaction) } else { None };
        let field = tag.to_be_bytes().to_vec();
        let now = self.simulation().elapsed();
        let bits = u8::from(multiple);
        match self.below(10) {
            0..=6 => {
                self.ledger.ack(id, tag, multiple, now, transaction);
                self.send(at, &method(number, (60, 80), &[field, vec![bits]]));
            }
            // In a transaction only acknowledgements are drawn: what it does on a rollback is simple then.
            _ if transaction.is_some() => {}
            7..=8 => {
                self.ledger.requeue(id, tag, multiple);
                self.send(at, &method(number, (60, 120), &[field, vec![bits | 2]]));
            }
            _ => {
                self.ledger.reject(id, tag, multiple);
                self.send(at, &method(number, (60, 120), &[field, vec![bits]]));
            }
        }
    }

    fn end_transaction(&mut self, at: usize, number: u16) {
        let is_commit = self.chance(75);
        self.transactions += 1;
        let next = self.transactions;
        let channel = self.clients[at].channels.get_mut(&number).expect("it is open");
        let Mode::Transaction(transaction) = channel.mode else { return };
        channel.mode = Mode::Transaction(next);
        channel.commits.push_back((transaction, is_commit));
        if is_commit {
            self.ledger.ask_commit(transaction);
        }
        self.send(at, &method(number, (90, if is_commit { 20 } else { 30 }), &[]));
    }

    fn recover(&mut self, at: usize, number: u16) {
        let channel = &self.clients[at].channels[&number];
        if let Mode::Transaction(_) = channel.mode {
            return;
        }
        let (id, queues) = (channel.id, channel.queues());
        self.ledger.end_channel(id, &queues);
        let channel = self.channel(at, number);
        channel.is_recovering = true;
        channel.awaits += 1;
        self.send(at, &method(number, (60, 110), &[vec![1]]));
    }

    fn close_channel(&mut self, at: usize, number: u16) {
        if self.chance(50) {
            return;
        }
        self.doom(at, number);
        self.send(at, &method(number, (20, 40), &[vec![0, 200], shortstr(""), vec![0; 4]]));
    }

    fn change_topology(&mut self, at: usize, number: u16) {
        self.coverage.topology_changes += 1;
        let (queue, exchange) = (VOLATILE[self.below(4) as usize], EXCHANGES[self.below(3) as usize]);
        let key = ["", "k"][self.below(2) as usize];
        let bind = [vec![0, 0], shortstr(queue), shortstr(exchange), shortstr(key)];
        let frame = match self.below(10) {
            0..=2 => {
                // Durable by its name, so that declarations agree.
                let bits = if queue < "v2" { 2 } else { 0 };
                method(number, (50, 10), &[vec![0, 0], shortstr(queue), vec![bits], table(&[])])
            }
            3..=4 => {
                let fields = [vec![0, 0], shortstr(exchange), shortstr("topic"), vec![2], table(&[])];
                method(number, (40, 10), &fields)
            }
            5..=6 => method(number, (50, 20), &[bind.concat(), vec![0], table(&[])]),
            7 => method(number, (50, 50), &[bind.concat(), table(&[])]),
            8 => method(number, (50, 40), &[vec![0, 0], shortstr(queue), vec![0]]),
            _ => method(number, (40, 20), &[vec![0, 0], shortstr(exchange), vec![0]]),
        };
        self.channel(at, number).awaits += 1;
        self.send(at, &frame);
    }

    // ---- what the broker says

    /// A channel ends: what it holds is on its way back, whatever else comes of it.
    fn doom(&mut self, at: usize, number: u16) {
        let Some(channel) = self.clients[at].channels.get_mut(&number) else { return };
        channel.is_closing = true;
        let (id, queues, mode) = (channel.id, channel.queues(), channel.mode);
        let asked: Vec<u64> = channel.commits.iter().map(|(transaction, _)| *transaction).collect();
        self.ledger.end_channel(id, &queues);
        if let Mode::Transaction(transaction) = mode {
            self.ledger.rolled_back(transaction, false);
        }
        for transaction in asked {
            self.ledger.release_acks(transaction);
        }
    }

    /// What the broker sent, to all clients. Channels that end are seen to first: what they held may be with others already.
    fn hear_all(&mut self) {
        let mut heard = Vec::new();
        let mut gone = Vec::new();
        for at in 0..self.clients.len() {
            let connection = self.clients[at].connection;
            let bytes = self.simulation().take_output(connection);
            for byte in self.clients[at].number.to_be_bytes().iter().chain(&bytes) {
                self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
            }
            let all = self.clients[at].parser.parse(&bytes);
            let ends = |incoming: &Incoming| match incoming {
                Incoming::Method { channel, class: 20, id: 40 | 41, .. } => Some(*channel),
                _ => None,
            };
            let mut ending: Vec<u16> = all.iter().filter_map(ends).collect();
            if self.simulation().is_closed(connection) {
                self.coverage.missed_heartbeats += u64::from(self.clients[at].has_heartbeats);
                ending.extend(self.clients[at].channels.keys());
                let ids: Vec<ChannelId> = self.clients[at].channels.values().map(|channel| channel.id).collect();
                ids.into_iter().for_each(|id| self.ledger.connection_lost(id));
                gone.push(at);
            }
            for number in ending {
                self.doom(at, number);
            }
            heard.push(all);
        }
        let channels = self.clients.iter().flat_map(|client| client.channels.values());
        let ending = channels.filter(|channel| channel.is_closing || channel.is_recovering);
        self.ledger.returning = ending.flat_map(Channel::queues).collect();
        for (at, all) in heard.into_iter().enumerate() {
            for incoming in all {
                self.heard(at, incoming);
            }
        }
        for at in gone.into_iter().rev() {
            self.connection_gone(at);
        }
    }

    fn heard(&mut self, at: usize, incoming: Incoming) {
        let now = self.simulation().elapsed();
        match incoming {
            Incoming::Deliver { channel: number, consumer, tag, redelivered, number: message } => {
                let Some(channel) = self.clients[at].channels.get(&number) else { return };
                let (queue, no_ack) = channel.consumers[&consumer].clone();
                let given = Given { queue: &queue, consumer: &consumer, tag, redelivered, number: message, no_ack };
                self.ledger.delivered(channel.id, channel.is_closing || channel.is_recovering, &given, now);
            }
            Incoming::GetOk { channel: number, tag, redelivered, number: message } => {
                let Some(channel) = self.clients[at].channels.get_mut(&number) else { return };
                channel.awaits -= 1;
                let (queue, no_ack) = channel.gets.pop_front().expect("a get was asked for");
                let given = Given { queue: &queue, consumer: "", tag, redelivered, number: message, no_ack };
                self.ledger.delivered(channel.id, channel.is_closing || channel.is_recovering, &given, now);
            }
            Incoming::Confirm { channel: number, tag, multiple, kept } => {
                self.confirmed(at, number, tag, multiple, kept);
            }
            Incoming::Method { channel, class, id, fields } => self.method(at, channel, (class, id), &fields),
            Incoming::Heartbeat => {}
        }
    }

    fn confirmed(&mut self, at: usize, number: u16, tag: u64, multiple: bool, kept: bool) {
        let Some(channel) = self.clients[at].channels.get_mut(&number) else { return };
        let tags: Vec<u64> =
            if multiple { channel.unconfirmed.range(..=tag).map(|(tag, _)| *tag).collect() } else { vec![tag] };
        for tag in tags {
            let message = channel.unconfirmed.remove(&tag).expect("a confirm names what is open");
            self.ledger.promised(message, kept);
        }
    }

    fn method(&mut self, at: usize, number: u16, method_id: (u16, u16), fields: &[u8]) {
        let now = self.simulation().elapsed();
        match method_id {
            (10, 50) => panic!("seed {}: the connection was closed: {:?}", self.seed, String::from_utf8_lossy(fields)),
            (10, 60) => self.coverage.blocked += 1,
            // Closed by the broker; what came before it counts.
            (20, 40) => {
                self.coverage.channels_closed_by_broker += 1;
                self.send(at, &method(number, (20, 41), &[]));
                self.close_here(at, number);
            }
            (20, 41) => self.close_here(at, number),
            (60, 72) => {
                if let Some(channel) = self.clients[at].channels.get_mut(&number) {
                    channel.gets.pop_front();
                    channel.awaits -= 1;
                }
            }
            (60, 111) => {
                let channel = self.channel(at, number);
                channel.is_recovering = false;
                channel.awaits -= 1;
                let (id, queues) = (channel.id, channel.queues());
                self.ledger.end_channel(id, &queues);
            }
            (60, 21) | (50, 11 | 21 | 41 | 51) | (40, 11 | 21) => {
                if let Some(channel) = self.clients[at].channels.get_mut(&number) {
                    channel.awaits = channel.awaits.saturating_sub(1);
                }
            }
            (90, 21 | 31) => {
                let Some(channel) = self.clients[at].channels.get_mut(&number) else { return };
                let (transaction, is_commit) = channel.commits.pop_front().expect("it was asked for");
                assert_eq!(is_commit, method_id.1 == 21);
                if is_commit {
                    self.ledger.committed(transaction, now);
                } else {
                    self.ledger.rolled_back(transaction, true);
                }
            }
            _ => {}
        }
    }

    fn close_here(&mut self, at: usize, number: u16) {
        if let Some(channel) = self.clients[at].channels.remove(&number) {
            self.channel_gone(&channel);
        }
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
        let steps = self.below(40);
        for _ in 0..steps {
            self.simulation().step();
        }
        if self.chance(50) {
            self.hear_all();
        }
        let at = self.simulation().elapsed();
        self.simulation.take().expect("a broker runs").kill();
        while !self.clients.is_empty() {
            self.connection_gone(0);
        }
        self.ledger.crashed(Crash { at, held_up_until: self.held_up_until });
        self.alarm = false;
        self.start();
    }

    fn start(&mut self) {
        let seed = self.random.next_u64();
        let store = self.disk.open(seed, &self.faults, &self.clock);
        let simulation = Simulation::start_on(store, settings(), seed, self.clock.clone());
        self.simulation = Some(simulation.expect("the broker starts again"));
    }

    /// Alarms end, the store is well, all clients leave; what is left in the queues is taken out.
    fn end(&mut self) {
        self.faults.is_well.store(true, Ordering::Relaxed);
        if self.alarm {
            self.toggle_alarm();
        }
        self.simulation().advance(Duration::from_secs(5));
        self.hear_all();
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
            self.hear_all();
            let tags = self.ledger.tags(id);
            let Some(last) = tags.last().copied() else { return };
            let now = self.simulation().elapsed();
            self.ledger.ack(id, last, true, now, None);
            self.send(0, &method(1, (60, 80), &[last.to_be_bytes().to_vec(), vec![1]]));
        }
        panic!("seed {}: {queue} is not drained", self.seed);
    }
}
