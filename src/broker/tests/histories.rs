//! Random histories: eight connections, each on its own thread, declare, bind, unbind and delete the same names; queues
//! expire and auto-delete; and the store may die at any batch.
//!
//! Everything that was answered as created must be in the store, and nothing that was answered as deleted. A store that
//! lives to the end has the same records as memory. `PRONTOMQ_TOPOLOGY_HISTORIES=1000 cargo test --lib histories` is a
//! long run; `PRONTOMQ_TOPOLOGY_SEED` sets its first seed.

use super::mortal_store::{Death, MortalStore};
use crate::broker::topology::Records;
use crate::broker::{Broker, BrokerSettings, Link, Runner, VhostLimits};
use crate::model::command::{BasicConsume, BindTo, ExchangeDeclare, QueueDeclare, QueueDelete};
use crate::model::random::Random;
use crate::model::{
    Answer, Arguments, ChannelKey, Command, ConsumerSlot, Holder, Message, Monotonic, Name, Notice, Now, Promise,
    PromiseOwner, ReplyCode, RequestNo, WallMillis,
};
use crate::queue::{ConsumerLimits, HoldLimits, QueueLimits, WindowLimits};
use crate::store::commit::{WriterHandle, WriterSettings};
use crate::store::memory::{MemoryDisk, MemoryStore};
use crate::store::{BindingRecord, Destination, RecoveredState, Store, SystemClock};
use crate::wire::properties::{Properties, PropertiesWriter};
use crate::wire::table::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

const CONNECTIONS: u64 = 8;
const STEPS: usize = 150;
/// Most requests of one connection that wait for their answers.
const WINDOW: usize = 8;
const CHANNEL: ChannelKey = ChannelKey { number: 1, incarnation: 1 };
const PATIENCE_SECONDS: u32 = 60;
/// How much the broker's time advances with each event.
const MICROS_PER_STEP: u64 = 20;
const EXPIRES_MS: i32 = 1;

#[test]
fn topology_in_memory_in_the_store_and_in_answers_agrees_whenever_the_store_dies() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let first = number("PRONTOMQ_TOPOLOGY_SEED", 1);
    let failed: Vec<String> = (first..first + number("PRONTOMQ_TOPOLOGY_HISTORIES", 24))
        .filter_map(|seed| History::run(seed).err().map(|faults| format!("history {seed}: {faults}")))
        .collect();
    assert!(failed.is_empty(), "{} histories failed:\n{}", failed.len(), failed.join("\n"));
}

// ---- time and threads ------------------------------------------------------------------------------------------

/// Counts events; also the broker's clock.
#[derive(Default)]
struct Ticks(AtomicU64);

impl Ticks {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn now(&self) -> Now {
        let micros = self.0.load(Ordering::Relaxed) * MICROS_PER_STEP;
        Now { monotonic: Monotonic(micros), wall: WallMillis(micros / 1000) }
    }
}

type Work = Box<dyn FnOnce(Now) + Send>;

struct ThreadRunner(Mutex<Sender<Work>>);

impl ThreadRunner {
    fn start(ticks: Arc<Ticks>) -> Arc<Self> {
        let (sender, work) = channel::<Work>();
        thread::spawn(move || work.into_iter().for_each(|work| work(ticks.now())));
        Arc::new(Self(Mutex::new(sender)))
    }
}

impl Runner for ThreadRunner {
    fn run(&self, work: Work) {
        // The thread ends with the history.
        let _ = self.0.lock().unwrap().send(work);
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

// ---- requests -------------------------------------------------------------------------------------------------

/// An exchange, queue or binding, which may exist or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Exchange(String),
    Queue(String),
    Binding { source: String, to: Box<Self>, key: String },
}

impl Thing {
    fn name(&self) -> &str {
        match self {
            Self::Exchange(name) | Self::Queue(name) => name,
            Self::Binding { source, .. } => source,
        }
    }

    /// Whether the store must have a record of the thing.
    fn is_durable(&self) -> bool {
        let ends = if let Self::Binding { to, .. } = self { to.is_durable() } else { true };
        ends && !self.name().starts_with(['t', 'e'])
    }

    /// Whether the thing may disappear without a request: by auto-delete, by expiry, or with another thing.
    fn is_fleeting(&self) -> bool {
        let ends = if let Self::Binding { to, .. } = self { to.is_fleeting() } else { false };
        ends || self.name().starts_with(['a', 'x'])
    }

    fn is_deleted_with(&self, gone: &Self) -> bool {
        let loses_end = match self {
            Self::Binding { source, to, .. } => **to == *gone || *gone == Self::Exchange(source.clone()),
            _ => false,
        };
        loses_end || self == gone
    }
}

/// The effect of a deed on its thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeedEffect {
    /// The thing exists afterwards.
    Puts,
    /// The thing existed: a confirmed message, a passive declaration.
    Shows,
    /// The thing is deleted afterwards.
    Removes,
}

/// One request: when it was sent, and when it was answered, if ever.
#[derive(Clone, Debug)]
struct Deed {
    thing: Thing,
    effect: DeedEffect,
    sent_at: u64,
    answered_at: u64,
}

/// Marks a request that was not answered when the store died.
const NEVER: u64 = u64::MAX;

// ---- a connection ----------------------------------------------------------------------------------------------

struct Connection {
    number: u64,
    broker: Arc<Broker>,
    link: Link,
    random: Random,
    ticks: Arc<Ticks>,
    waker: Waker,
    requests: u32,
    /// Requests without an answer, by number; messages by sequence number.
    waiting: HashMap<u32, Option<Deed>>,
    unconfirmed: HashMap<u64, Deed>,
    consuming: BTreeMap<u32, String>,
    consumers: u32,
    done: Vec<Deed>,
    store_failed: bool,
}

impl Connection {
    fn open(broker: &Arc<Broker>, ticks: &Arc<Ticks>, number: u64, seed: u64) -> Self {
        let link = Self::link(broker, seed);
        Self {
            number,
            broker: Arc::clone(broker),
            link,
            random: Random::new(seed),
            ticks: Arc::clone(ticks),
            waker: Waker::from(Arc::new(Unpark(thread::current()))),
            requests: 0,
            waiting: HashMap::new(),
            unconfirmed: HashMap::new(),
            consuming: BTreeMap::new(),
            consumers: 0,
            done: Vec::new(),
            store_failed: false,
        }
    }

    fn link(broker: &Arc<Broker>, seed: u64) -> Link {
        let vhost = broker.vhost(b"/").unwrap();
        Link::open(broker, vhost, broker.next_connection_id(), Name::from("guest"), seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    fn pick(&mut self, names: &[&str]) -> String {
        let at = self.below(names.len() as u64) as usize;
        if names[at] == "e" { format!("e{}", self.number) } else { names[at].to_owned() }
    }

    fn queue_name(&mut self) -> String {
        self.pick(&["d0", "d1", "d2", "d3", "d4", "d5", "a0", "a1", "x0", "x1", "t0", "t1", "e"])
    }

    fn exchange_name(&mut self) -> String {
        self.pick(&["d0", "d1", "d2", "d3", "a0", "a1", "a2", "t0"])
    }

    /// Takes all steps of the connection, then waits until every request is answered.
    fn run(mut self) -> Vec<Deed> {
        for _ in 0..STEPS {
            if self.store_failed {
                break;
            }
            self.step();
            self.take_notices();
            while self.waiting.len() + self.unconfirmed.len() >= WINDOW {
                self.wait();
            }
        }
        while !self.waiting.is_empty() || !self.unconfirmed.is_empty() {
            self.wait();
        }
        self.link.end(self.ticks.now());
        self.done
    }

    fn step(&mut self) {
        match self.below(100) {
            0..=19 => self.declare_queue(),
            20..=33 => self.declare_exchange(),
            34..=52 => self.bind(true),
            53..=66 => self.bind(false),
            67..=76 => self.delete_queue(),
            77..=81 => self.delete_exchange(),
            82..=85 => self.consume_or_cancel(),
            86..=96 => self.publish(),
            97 => self.reconnect(),
            _ => self.broker.tick(self.ticks.now()),
        }
    }

    fn declare_queue(&mut self) {
        let name = self.queue_name();
        let mut arguments = Arguments::default();
        if name.starts_with('x') {
            arguments = arguments.with("x-expires", Value::I32(EXPIRES_MS));
        }
        let declare = QueueDeclare {
            queue: Name::from(name.as_str()),
            passive: self.below(8) == 0,
            durable: !name.starts_with(['t', 'e']),
            exclusive: name.starts_with('e'),
            auto_delete: name.starts_with('a'),
            arguments,
        };
        let effect = if declare.passive { DeedEffect::Shows } else { DeedEffect::Puts };
        self.command(Command::QueueDeclare(declare), Some((Thing::Queue(name), effect)));
    }

    fn declare_exchange(&mut self) {
        let name = self.exchange_name();
        let kinds = ["direct", "fanout", "topic", "headers"];
        let declare = ExchangeDeclare {
            exchange: Name::from(name.as_str()),
            kind: Name::from(kinds[usize::from(name.as_bytes()[1] - b'0')]),
            passive: self.below(8) == 0,
            durable: !name.starts_with('t'),
            auto_delete: name.starts_with('a'),
            internal: false,
            arguments: Arguments::default(),
        };
        let effect = if declare.passive { DeedEffect::Shows } else { DeedEffect::Puts };
        self.command(Command::ExchangeDeclare(declare), Some((Thing::Exchange(name), effect)));
    }

    fn bind(&mut self, binds: bool) {
        let (source, key) = (self.exchange_name(), self.pick(&["k0", "k1"]));
        let to_queue = self.below(3) > 0;
        let name = if to_queue { self.queue_name() } else { self.exchange_name() };
        let bind = BindTo {
            source: Name::from(source.as_str()),
            destination: Name::from(name.as_str()),
            routing_key: Name::from(key.as_str()),
            arguments: Arguments::default(),
        };
        let to = Box::new(if to_queue { Thing::Queue(name) } else { Thing::Exchange(name) });
        let command = match (binds, to_queue) {
            (true, true) => Command::QueueBind(bind),
            (true, false) => Command::ExchangeBind(bind),
            (false, true) => Command::QueueUnbind(bind),
            (false, false) => Command::ExchangeUnbind(bind),
        };
        let effect = if binds { DeedEffect::Puts } else { DeedEffect::Removes };
        self.command(command, Some((Thing::Binding { source, to, key }, effect)));
    }

    fn delete_queue(&mut self) {
        let name = self.queue_name();
        let delete = QueueDelete {
            queue: Name::from(name.as_str()),
            if_unused: self.below(4) == 0,
            if_empty: self.below(4) == 0,
        };
        self.command(Command::QueueDelete(delete), Some((Thing::Queue(name), DeedEffect::Removes)));
    }

    fn delete_exchange(&mut self) {
        let name = self.exchange_name();
        let delete = Command::ExchangeDelete { exchange: Name::from(name.as_str()), if_unused: self.below(4) == 0 };
        self.command(delete, Some((Thing::Exchange(name), DeedEffect::Removes)));
    }

    /// Starts or cancels a consumer: an auto-delete queue is deleted with its last one.
    fn consume_or_cancel(&mut self) {
        if let Some((slot, queue)) = self.consuming.pop_first() {
            let cell = self.broker.vhost(b"/").unwrap().queue(queue.as_bytes());
            if let Some(cell) = cell {
                self.command(Command::BasicCancel { queue: cell.id(), consumer: ConsumerSlot(slot) }, None);
            }
            return;
        }
        let queue = self.pick(&["a0", "a1"]);
        self.consumers += 1;
        let consume = BasicConsume {
            queue: Name::from(queue.as_str()),
            consumer: ConsumerSlot(self.consumers),
            consumer_tag: Name::from("c"),
            no_ack: true,
            exclusive: false,
            prefetch: 0,
            arguments: Arguments::default(),
        };
        self.consuming.insert(self.consumers, queue);
        self.command(Command::BasicConsume(consume), None);
    }

    fn publish(&mut self) {
        let queue = self.queue_name();
        let raw = PropertiesWriter::new().delivery_mode(2).to_vec();
        let message = Message::new(b"", queue.as_bytes(), &Properties::check(&raw).unwrap(), b"body");
        let sent_at = self.ticks.next();
        let holder = Holder { connection: self.link.peer().id(), channel: CHANNEL };
        let promise = Promise { owner: PromiseOwner::Channel(holder), sequence: sent_at };
        let routed = self.link.publish(message, Some(promise)).unwrap();
        if routed > 0 {
            let thing = Thing::Queue(queue);
            let deed = Deed { thing, effect: DeedEffect::Shows, sent_at, answered_at: NEVER };
            self.unconfirmed.insert(sent_at, deed);
        }
        self.link.flush(self.ticks.now());
    }

    /// Ends the connection, and with it its exclusive queue; then opens a new one.
    fn reconnect(&mut self) {
        while !self.waiting.is_empty() || !self.unconfirmed.is_empty() {
            self.wait();
        }
        self.link.end(self.ticks.now());
        self.consuming.clear();
        self.link = Self::link(&self.broker, self.random.next_u64());
    }

    fn command(&mut self, command: Command, deed: Option<(Thing, DeedEffect)>) {
        self.requests += 1;
        let sent_at = self.ticks.next();
        let deed = deed.map(|(thing, effect)| Deed { thing, effect, sent_at, answered_at: NEVER });
        self.waiting.insert(self.requests, deed);
        // A refusal comes through the inlet too, so the outcome does not matter here.
        let _ = self.link.command(CHANNEL, RequestNo(self.requests), command, self.ticks.now());
    }

    /// Waits for at least one notice.
    fn wait(&mut self) {
        for _ in 0..PATIENCE_SECONDS {
            if self.link.peer().has_notices(&self.waker) {
                return self.take_notices();
            }
            thread::park_timeout(Duration::from_secs(1));
        }
        panic!("nothing answers {:?} and {:?}", self.waiting, self.unconfirmed);
    }

    fn take_notices(&mut self) {
        let mut notices = Vec::new();
        self.link.peer().take(&mut notices);
        for notice in notices {
            let answered_at = self.ticks.next();
            match notice {
                Notice::Answer { request, answer, .. } => {
                    let deed = self.waiting.remove(&request.0).expect("a request is answered once");
                    match (deed, answer) {
                        (deed, Answer::Refused(error)) if error.code == ReplyCode::InternalError => {
                            self.store_failed = true;
                            self.done.extend(deed);
                        }
                        (_, Answer::Refused(_)) => {}
                        (deed, _) => self.done.extend(deed.map(|deed| Deed { answered_at, ..deed })),
                    }
                }
                Notice::Promised { first, last, kept, .. } => {
                    for sequence in first..=last {
                        let Some(deed) = self.unconfirmed.remove(&sequence) else { continue };
                        self.store_failed |= !kept;
                        if kept {
                            self.done.push(Deed { answered_at, ..deed });
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

// ---- a history -------------------------------------------------------------------------------------------------

struct History;

impl History {
    fn run(seed: u64) -> Result<(), String> {
        let mut random = Random::new(seed);
        let death = (!random.next_u64().is_multiple_of(3))
            .then(|| Death { batch: 1 + random.next_u64() % 300, keeps_batch: random.next_u64().is_multiple_of(2) });
        let (disk, faults, ticks) = (MemoryDisk::default(), super::mortal_store::Faults::default(), Arc::default());
        let store = MortalStore::new(disk.clone(), death, random.next_u64(), Arc::clone(&faults));
        let broker = start(Box::new(store), &ticks).0;
        broker.create_vhost(&Name::from("/"));
        let deeds = Self::run_connections(&broker, &ticks, &mut random);
        let lived = broker.writer().flush();
        let memory = records_of(&broker);
        let mut faults = faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The dead store has released its disk, as a process that dies releases its files.
        drop(broker);
        let (after, recovered) = start(Box::new(MemoryStore::open(disk)), &ticks);
        let stored = Records::of(&recovered);
        if lived {
            faults.extend(differences(&memory, &stored, "memory", "the store"));
        }
        faults.extend(differences(&records_of(&after), &stored, "memory after the restart", "the store"));
        faults.extend(check_answers(&deeds, &recovered));
        if faults.is_empty() { Ok(()) } else { Err(format!("{death:?}: {}", faults.join("; "))) }
    }

    fn run_connections(broker: &Arc<Broker>, ticks: &Arc<Ticks>, random: &mut Random) -> Vec<Deed> {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            // Queues expire while the connections work.
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    broker.tick(ticks.now());
                    thread::yield_now();
                }
            });
            let connections: Vec<_> = (0..CONNECTIONS)
                .map(|number| {
                    let seed = random.next_u64();
                    scope.spawn(move || Connection::open(broker, ticks, number, seed).run())
                })
                .collect();
            let deeds: Vec<_> = connections.into_iter().map(thread::ScopedJoinHandle::join).collect();
            over.store(true, Ordering::Relaxed);
            deeds.into_iter().flat_map(|deeds| deeds.expect("a connection runs to its end")).collect()
        })
    }
}

fn start(mut store: Box<dyn Store>, ticks: &Arc<Ticks>) -> (Arc<Broker>, RecoveredState) {
    let recovered = store.recover().unwrap();
    let writer =
        WriterHandle::start(store, recovered.batch_no, WriterSettings::default(), SystemClock::shared()).unwrap();
    let runner = ThreadRunner::start(Arc::clone(ticks));
    (Broker::recover(settings(), runner, writer, None, &recovered, ticks.now()), recovered)
}

pub(super) fn settings() -> BrokerSettings {
    BrokerSettings {
        queue_limits: QueueLimits {
            hold: HoldLimits::default(),
            window: WindowLimits::default(),
            consumer: ConsumerLimits { messages: 64, messages_max: 4096, bytes_max: 1 << 18, unacked_max: u32::MAX },
        },
        windows_bytes: 1 << 30,
        transient_bytes: 1 << 30,
        unwritten_bytes_max: 1 << 30,
        batch_rows_max: 1_000,
        batch_bytes_max: 1 << 20,
        trust_published_x_death: true,
        vhost_limits: VhostLimits { queues: usize::MAX, exchanges: usize::MAX, bindings: usize::MAX },
    }
}

pub(super) fn records_of(broker: &Broker) -> Records {
    broker.vhost(b"/").map(|vhost| vhost.topology().durable_records()).unwrap_or_default()
}

fn differences(one: &Records, other: &Records, one_name: &str, other_name: &str) -> Option<String> {
    let only =
        |one: &BTreeSet<String>, other: &BTreeSet<String>| -> Vec<String> { one.difference(other).cloned().collect() };
    let (only_one, only_other) = (only(&one.0, &other.0), only(&other.0, &one.0));
    let differ = !only_one.is_empty() || !only_other.is_empty();
    differ.then(|| format!("only in {one_name}: {only_one:?}; only in {other_name}: {only_other:?}"))
}

/// Checks each answer against the recovered store, unless a later request has changed the thing or may have.
fn check_answers(deeds: &[Deed], recovered: &RecoveredState) -> Vec<String> {
    let stored = things_in(recovered);
    let things: BTreeSet<&Thing> = deeds.iter().map(|deed| &deed.thing).filter(|thing| thing.is_durable()).collect();
    let mut faults = Vec::new();
    for thing in things {
        let shows = || deeds.iter().filter(|deed| deed.effect != DeedEffect::Removes && deed.thing == *thing);
        let puts = || shows().filter(|deed| deed.effect == DeedEffect::Puts);
        let removals =
            || deeds.iter().filter(|deed| deed.effect == DeedEffect::Removes && thing.is_deleted_with(&deed.thing));
        let is_overtaken = |by: &Deed, at: u64| by.answered_at != NEVER && by.sent_at > at;
        let may_be_there = puts().any(|put| !removals().any(|by| is_overtaken(by, put.answered_at)));
        let removed_at = removals().map(|removal| removal.answered_at).chain([0]);
        let may_be_gone = thing.is_fleeting()
            || removed_at.into_iter().any(|removed_at| !shows().any(|by| is_overtaken(by, removed_at)));
        let wrong = match stored.contains(thing) {
            true if !may_be_there => "deleted and is in the store",
            false if !may_be_gone => "existing and is not in the store",
            _ => continue,
        };
        let of_thing = deeds.iter().filter(|deed| thing.is_deleted_with(&deed.thing));
        let deeds: Vec<_> = of_thing.map(|deed| (deed.sent_at, deed.answered_at, deed.effect)).collect();
        faults.push(format!("{thing:?} was answered as {wrong}: {deeds:?}"));
    }
    faults
}

fn things_in(recovered: &RecoveredState) -> BTreeSet<Thing> {
    let exchanges = recovered.exchanges.iter().map(|exchange| Thing::Exchange(exchange.name.as_str().to_owned()));
    let queues = recovered.queues.iter().map(|queue| Thing::Queue(queue.name.as_str().to_owned()));
    let bindings = recovered.bindings.iter().map(|binding| {
        let BindingRecord { source, destination_kind, destination, routing_key, .. } = binding;
        let name = destination.as_str().to_owned();
        let to = Box::new(match destination_kind {
            Destination::Queue => Thing::Queue(name),
            Destination::Exchange => Thing::Exchange(name),
        });
        Thing::Binding { source: source.as_str().to_owned(), to, key: routing_key.as_str().to_owned() }
    });
    exchanges.chain(queues).chain(bindings).collect()
}
