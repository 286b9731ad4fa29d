//! The queue beside a simple model, with a slow store between: random histories over all settings.
//!
//! The store applies what it is given late, tells late that it did, and answers loads from a snapshot of any moment between
//! question and answer. A kill loses everything but the store. The model knows where each message is; whatever the queue
//! says is held against it.

use prontomq::model::stored::{LaneChange, LaneState, PositionRange, Row};
use prontomq::model::{
    Answer, ChannelKey, ConnectionId, ConsumerKey, ConsumerSlot, Delivery, Holder, Lane, LendId, Message, Monotonic,
    Name, Notice, Now, Promise, PromiseOwner, QueueId, RequestNo, WallMillis,
};
use prontomq::queue::{
    Consume, ConsumerLimits, DeadLetterReason, Effects, Enqueue, HoldLimits, Outcome, Overflow, Permits, Pulled,
    QueueEffect, QueueInput, QueueLimits, QueueSettings, QueueState, Requester, Ticket, WindowLimits,
};
use prontomq::wire::properties::{Properties, PropertiesWriter, Property};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

const QUEUE: QueueId = QueueId(7);
const WINDOW: WindowLimits = WindowLimits { head_entries: 4, tail_entries: 6, tail_bytes: 1 << 20, load_bytes: 200 };

#[derive(Clone, Debug)]
struct Setup {
    durable: bool,
    priority_max: u8,
    ttl_ms: Option<u64>,
    length_max: Option<u64>,
    overflow: Overflow,
    dead_letters: bool,
    hold: bool,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Publish { persistent: bool, priority: u8, ttl_ms: Option<u64> },
    Consume { channel: u16, no_ack: bool, prefetch: u32 },
    Cancel { which: usize },
    Get { channel: u16, no_ack: bool },
    Settle { which: usize, count: usize, outcome: u8 },
    Bounce { which: usize },
    Detach { channel: u16 },
    Written,
    Purge,
    Advance { ms: u64 },
    Pull { rows: usize },
    Commit,
    TellStored,
    StepLoad,
    SettleCopy,
    Kill,
}

fn setup() -> impl Strategy<Value = Setup> {
    (
        any::<bool>(),
        prop_oneof![Just(0u8), Just(3)],
        any::<bool>(),
        0..4u8,
        prop::option::of(1..40u64),
        0..3u8,
        any::<bool>(),
    )
        .prop_map(|(durable, priority_max, dead_letters, ttl, length, overflow, hold)| Setup {
            durable,
            priority_max,
            // What expires or overflows is only seen where it is dead-lettered.
            ttl_ms: (dead_letters && ttl == 0).then_some(30),
            length_max: length.filter(|_| dead_letters),
            overflow: [Overflow::DropHead, Overflow::RejectPublish, Overflow::RejectPublishDeadLetter]
                [usize::from(overflow)],
            dead_letters,
            hold,
        })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (any::<bool>(), 0..5u8, prop::option::weighted(0.1, 0..40u64))
            .prop_map(|(persistent, priority, ttl_ms)| Op::Publish { persistent, priority, ttl_ms }),
        8 => (0..5u8).prop_map(|priority| Op::Publish { persistent: true, priority, ttl_ms: None }),
        2 => (0..3u16, any::<bool>(), 0..4u32)
            .prop_map(|(channel, no_ack, prefetch)| Op::Consume { channel, no_ack, prefetch }),
        1 => any::<usize>().prop_map(|which| Op::Cancel { which }),
        3 => (0..3u16, any::<bool>()).prop_map(|(channel, no_ack)| Op::Get { channel, no_ack }),
        8 => (any::<usize>(), 1..4usize, 0..3u8).prop_map(|(which, count, outcome)| Op::Settle { which, count, outcome }),
        1 => any::<usize>().prop_map(|which| Op::Bounce { which }),
        1 => (0..3u16).prop_map(|channel| Op::Detach { channel }),
        2 => Just(Op::Written),
        1 => Just(Op::Purge),
        3 => (0..30u64).prop_map(|ms| Op::Advance { ms }),
        6 => (1..20usize).prop_map(|rows| Op::Pull { rows }),
        5 => Just(Op::Commit),
        5 => Just(Op::TellStored),
        6 => Just(Op::StepLoad),
        2 => Just(Op::SettleCopy),
        1 => Just(Op::Kill),
    ]
}

/// Keeps what it was given, when it gets round to it.
#[derive(Default)]
struct SlowStore {
    lanes: BTreeMap<(u8, u32), (BTreeMap<u64, Row>, LaneState)>,
    given: VecDeque<Pulled>,
    applied: VecDeque<Ticket>,
}

impl SlowStore {
    fn commit(&mut self) {
        let Some(pulled) = self.given.pop_front() else { return };
        for change in &pulled.lanes {
            self.apply(change);
        }
        for lane in &pulled.drop_lanes {
            self.lanes.remove(&(lane.level, lane.generation));
        }
        self.applied.push_back(pulled.ticket);
    }

    fn apply(&mut self, change: &LaneChange) {
        let (rows, state) = self.lanes.entry((change.lane.level, change.lane.generation)).or_default();
        for row in &change.inserts {
            assert!(rows.insert(row.position.0, row.clone()).is_none(), "position {} given twice", row.position.0);
        }
        if let Some(below) = change.remove_below {
            rows.retain(|position, _| *position >= below.0);
        }
        for range in &change.remove_ranges {
            rows.retain(|position, _| !(range.from.0..=range.to.0).contains(position));
        }
        for position in &change.removes {
            assert!(rows.remove(&position.0).is_some(), "position {} removed and not there", position.0);
        }
        *state = change.state;
        assert_eq!(state.count, rows.len() as u64, "the lane's count");
        let bytes: u64 = rows.values().map(|row| row.message.body_len() as u64).sum();
        assert_eq!(state.body_bytes, bytes, "the lane's bytes");
        assert!(rows.keys().next().is_none_or(|first| *first >= state.head.0), "a row below the head");
        assert!(rows.keys().next_back().is_none_or(|last| *last <= state.tail.0), "a row above the tail");
    }

    fn load(&self, lane: Lane, range: PositionRange, rows_max: usize, bytes_max: usize) -> Vec<Row> {
        let Some((rows, _)) = self.lanes.get(&(lane.level, lane.generation)) else { return Vec::new() };
        let mut bytes = 0;
        let mut found: Vec<Row> = Vec::new();
        for row in rows.range(range.from.0..=range.to.0).map(|(_, row)| row).take(rows_max) {
            bytes += row.message.body_len();
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(row.clone());
        }
        found
    }

    fn ids(&self) -> BTreeSet<u64> {
        self.lanes.values().flat_map(|(rows, _)| rows.values()).map(|row| id_of(&row.message)).collect()
    }
}

struct Load {
    lane: Lane,
    load: u64,
    range: PositionRange,
    rows_max: usize,
    bytes_max: usize,
    snapshot: Option<Vec<Row>>,
}

/// Where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ready,
    Out(LendId),
    Leaving,
    Gone,
}

#[derive(Clone, Debug)]
struct Known {
    level: u8,
    durable: bool,
    place: Place,
    delivered: bool,
    promise: Option<Promised>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promised {
    Open,
    Kept,
    Refused,
}

struct Out {
    lend: LendId,
    redelivered: bool,
    id: u64,
    holder: Holder,
}

struct World {
    setup: Setup,
    queue: QueueState,
    store: SlowStore,
    now: Now,
    messages: BTreeMap<u64, Known>,
    next_id: u64,
    consumers: Vec<ConsumerKey>,
    unwritten: Vec<(ConsumerKey, u64)>,
    incarnations: BTreeMap<u16, u32>,
    slots: u32,
    requests: u32,
    out: Vec<Out>,
    loads: Vec<Load>,
    copies: Vec<u64>,
    leaving: BTreeMap<u64, (u64, u32)>,
    purged: Option<u64>,
}

struct Always;

impl Permits for Always {
    fn take(&mut self, _: Holder, _: bool) -> bool {
        true
    }
}

fn id_of(message: &Message) -> u64 {
    u64::from_be_bytes(*message.body().first_chunk().expect("bodies carry their id"))
}

impl World {
    fn new(setup: Setup) -> Self {
        let now = Now { monotonic: Monotonic(1), wall: WallMillis(1_000_000) };
        Self {
            queue: new_queue(&setup, now),
            setup,
            store: SlowStore::default(),
            now,
            messages: BTreeMap::new(),
            next_id: 1,
            consumers: Vec::new(),
            unwritten: Vec::new(),
            incarnations: BTreeMap::new(),
            slots: 0,
            requests: 0,
            out: Vec::new(),
            loads: Vec::new(),
            copies: Vec::new(),
            leaving: BTreeMap::new(),
            purged: None,
        }
    }

    fn holder(&mut self, channel: u16) -> Holder {
        let incarnation = *self.incarnations.entry(channel).or_insert(1);
        Holder { connection: ConnectionId(1), channel: ChannelKey { number: channel, incarnation } }
    }

    fn requester(&mut self, channel: u16) -> Requester {
        self.requests += 1;
        let Holder { connection, channel } = self.holder(channel);
        Requester { connection, channel, request: RequestNo(self.requests) }
    }

    fn apply(&mut self, input: QueueInput) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let mut effects = Effects::default();
            self.queue.apply(input, self.now, &mut Always, &mut effects);
            self.take_in(effects, &mut inputs);
        }
        self.check_counts();
    }

    /// Effects of different kinds have no order among each other: deaths come first, for they make room.
    fn take_in(&mut self, effects: Effects, inputs: &mut VecDeque<QueueInput>) {
        for effect in effects.effects {
            match effect {
                QueueEffect::DeadLetter { message, reason, leaving } => {
                    let id = id_of(&message);
                    let known = self.messages.get_mut(&id).expect("only known messages die");
                    assert!(!matches!(known.place, Place::Gone | Place::Leaving), "{id} died twice");
                    if reason == DeadLetterReason::Rejected {
                        self.out.retain(|out| out.id != id);
                    } else {
                        assert!(!matches!(known.place, Place::Out(_)), "{id} died in a consumer's hands");
                    }
                    match leaving {
                        Some(origin) => {
                            known.place = Place::Leaving;
                            let copies = (id % 3) as u32;
                            self.leaving.insert(origin.leaving, (id, copies));
                            self.copies.extend((0..copies).map(|_| origin.leaving));
                            if copies == 0 {
                                known.place = Place::Gone;
                            }
                            inputs.push_back(QueueInput::Copies { leaving: origin.leaving, copies });
                        }
                        None => known.place = Place::Gone,
                    }
                }
                QueueEffect::Load { lane, load, range, rows_max, bytes_max } => {
                    self.loads.push(Load { lane, load, range, rows_max, bytes_max, snapshot: None });
                }
                QueueEffect::Miscounted { .. } => panic!("the store is sound in these histories"),
                QueueEffect::CopySettled { .. } | QueueEffect::Deleted { .. } | QueueEffect::Unused => {
                    panic!("not in these histories")
                }
            }
        }
        for (_, notice) in effects.notices {
            match notice {
                Notice::Deliver(delivery) => self.delivered(&delivery, true),
                Notice::Answer { answer: Answer::Got { delivery, .. }, .. } => self.delivered(&delivery, false),
                Notice::Answer { answer: Answer::Removed { message_count }, .. } => self.purged = Some(message_count),
                Notice::Answer { answer: Answer::GetEmpty, .. } => {
                    let ready = self.messages.values().filter(|known| known.place == Place::Ready).count();
                    assert_eq!(ready, 0, "get found nothing");
                }
                Notice::Promised { first, last, kept, .. } => (first..=last).for_each(|id| self.promised(id, kept)),
                _ => {}
            }
        }
        for pulled in effects.pulled {
            if !pulled.lanes.is_empty() || !pulled.drop_lanes.is_empty() {
                self.store.given.push_back(pulled);
            }
        }
    }

    fn delivered(&mut self, delivery: &Delivery, to_consumer: bool) {
        let id = id_of(&delivery.message);
        let first = self
            .messages
            .iter()
            .filter(|(_, known)| known.place == Place::Ready)
            .min_by_key(|(id, known)| (std::cmp::Reverse(known.level), **id))
            .map(|(id, _)| *id);
        assert_eq!(first, Some(id), "out of order, twice, or risen from the dead");
        let known = self.messages.get_mut(&id).expect("only known messages are delivered");
        assert!(delivery.redelivered || !known.delivered, "{id} was delivered before and does not say so");
        known.delivered = true;
        let holder = Holder { connection: ConnectionId(1), channel: delivery.channel };
        if to_consumer {
            let key = ConsumerKey { holder, slot: delivery.consumer };
            assert!(self.consumers.contains(&key), "delivered to a consumer that is not there");
            self.unwritten.push((key, delivery.message.body_len() as u64));
        }
        match delivery.lend {
            Some(lend) => {
                known.place = Place::Out(lend);
                self.out.push(Out { lend, redelivered: delivery.redelivered, id, holder });
            }
            None => known.place = Place::Gone,
        }
    }

    fn promised(&mut self, id: u64, kept: bool) {
        // That a confirmed message is stored or gone is checked at the end of the input, when its place is known.
        let known = self.messages.get_mut(&id).expect("promises are about known messages");
        assert_eq!(known.promise, Some(Promised::Open), "the promise about {id} was settled twice");
        known.promise = Some(if kept { Promised::Kept } else { Promised::Refused });
        if !kept {
            known.place = Place::Gone;
        }
    }

    fn check_counts(&self) {
        let count =
            |wanted: fn(&Place) -> bool| self.messages.values().filter(|known| wanted(&known.place)).count() as u64;
        assert_eq!(self.queue.ready_count(), count(|place| *place == Place::Ready), "ready");
        assert_eq!(self.queue.unacked_count(), count(|place| matches!(place, Place::Out(_))), "unacked");
        let stored = self.store.ids();
        for (id, known) in &self.messages {
            if known.durable && known.promise == Some(Promised::Kept) && known.place != Place::Gone {
                assert!(stored.contains(id), "{id} was confirmed, is still there and is not stored");
            }
        }
        let unflushed: usize = self.store.given.iter().map(|pulled| pulled.rows).sum();
        let volatile = self.messages.values().filter(|known| known.place == Place::Ready && !known.durable).count();
        let young = self
            .messages
            .iter()
            .filter(|(id, known)| known.place == Place::Ready && known.durable && !stored.contains(id))
            .count();
        let untold: usize = self.store.applied.len() * 20;
        // A transient entry at the tail's front keeps what is behind it in memory.
        if volatile == 0 {
            let levels = usize::from(self.setup.priority_max) + 1;
            let window = levels * (2 * WINDOW.head_entries + WINDOW.tail_entries);
            let requeued = self.messages.values().filter(|known| known.delivered).count();
            let most = window + unflushed + young + untold + requeued;
            assert!(self.queue.ready_in_memory() <= most as u64, "{} in memory", self.queue.ready_in_memory());
        }
    }

    fn publish(&mut self, persistent: bool, priority: u8, ttl_ms: Option<u64>) {
        let id = self.next_id;
        self.next_id += 1;
        let expiration = ttl_ms.filter(|_| self.setup.dead_letters).map(|ttl| ttl.to_string());
        let mut properties = PropertiesWriter::new().delivery_mode(if persistent { 2 } else { 1 }).priority(priority);
        if let Some(expiration) = &expiration {
            properties = properties.shortstr(Property::Expiration, expiration.as_bytes());
        }
        let raw = properties.to_vec();
        let properties = Properties::check(&raw).expect("just written");
        let mut body = id.to_be_bytes().to_vec();
        body.resize(8 + (id % 50) as usize, b'x');
        let message = Message::new(b"", b"q", &properties, &body);
        let holder = Holder { connection: ConnectionId(9), channel: ChannelKey { number: 9, incarnation: 1 } };
        let promise = (!id.is_multiple_of(4)).then_some(Promise { owner: PromiseOwner::Channel(holder), sequence: id });
        let durable = persistent && self.setup.durable;
        let level = priority.min(self.setup.priority_max);
        let known =
            Known { level, durable, place: Place::Ready, delivered: false, promise: promise.map(|_| Promised::Open) };
        // A message that is refused and not dead-lettered is heard of no more.
        let refused = self.setup.overflow == Overflow::RejectPublish
            && self.setup.length_max.is_some_and(|max| self.queue.ready_count() >= max);
        let place = if refused { Place::Gone } else { Place::Ready };
        self.messages.insert(id, Known { place, ..known });
        self.apply(QueueInput::Publish(vec![Enqueue { message, promise }]));
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Publish { persistent, priority, ttl_ms } => self.publish(persistent, priority, ttl_ms),
            Op::Consume { channel, no_ack, prefetch } => {
                let requester = self.requester(channel);
                self.slots += 1;
                let key = ConsumerKey { holder: requester.holder(), slot: ConsumerSlot(self.slots) };
                self.consumers.push(key);
                self.apply(QueueInput::Consume(Consume {
                    requester,
                    key,
                    tag: Name::from("c"),
                    no_ack,
                    exclusive: false,
                    priority: i64::from(self.slots % 2),
                    prefetch,
                    channel_limited: false,
                }));
            }
            Op::Cancel { which } => {
                if !self.consumers.is_empty() {
                    let key = self.consumers.remove(which % self.consumers.len());
                    let requester = self.requester(key.holder.channel.number);
                    self.apply(QueueInput::Cancel { requester, key });
                }
            }
            Op::Get { channel, no_ack } => {
                let requester = self.requester(channel);
                self.apply(QueueInput::Get { requester, no_ack });
            }
            Op::Settle { which, count, outcome } => self.settle(which, count, outcome),
            Op::Bounce { which } => {
                if !self.out.is_empty() {
                    let out = self.out.remove(which % self.out.len());
                    let known = self.messages.get_mut(&out.id).expect("known");
                    known.place = Place::Ready;
                    known.delivered = out.redelivered;
                    self.apply(QueueInput::Bounce { lend: out.lend });
                }
            }
            Op::Detach { channel } => {
                let holder = self.holder(channel);
                *self.incarnations.entry(channel).or_insert(1) += 1;
                self.consumers.retain(|key| key.holder != holder);
                for out in self.out.extract_if(.., |out| out.holder == holder) {
                    self.messages.get_mut(&out.id).expect("known").place = Place::Ready;
                }
                self.apply(QueueInput::Detach { holder });
            }
            Op::Written => {
                for (consumer, bytes) in std::mem::take(&mut self.unwritten) {
                    self.apply(QueueInput::Written { consumer, count: 1, bytes });
                }
            }
            Op::Purge => self.purge(),
            Op::Advance { ms } => {
                self.now.monotonic = self.now.monotonic.plus(Duration::from_millis(ms));
                self.now.wall = self.now.wall.plus_millis(ms);
                self.apply(QueueInput::Tick);
            }
            Op::Pull { rows } => self.apply(QueueInput::Pull { rows_max: rows, bytes_max: 1 << 20 }),
            Op::Commit => self.store.commit(),
            Op::TellStored => {
                if let Some(ticket) = self.store.applied.pop_front() {
                    self.apply(QueueInput::Stored { ticket, durable: true });
                }
            }
            Op::StepLoad => self.step_load(),
            Op::SettleCopy => self.settle_copy(),
            Op::Kill => self.kill(),
        }
    }

    fn settle(&mut self, which: usize, count: usize, outcome: u8) {
        if self.out.is_empty() {
            return;
        }
        let from = which % self.out.len();
        let to = (from + count).min(self.out.len());
        let settled: Vec<Out> = self.out.drain(from..to).collect();
        let outcome = [Outcome::Acknowledged, Outcome::Requeued, Outcome::Rejected][usize::from(outcome)];
        for out in &settled {
            let known = self.messages.get_mut(&out.id).expect("known");
            known.place = match outcome {
                Outcome::Acknowledged => Place::Gone,
                Outcome::Requeued => Place::Ready,
                // Told by the dead letter, where there is one.
                Outcome::Rejected if self.setup.dead_letters => known.place,
                Outcome::Rejected => Place::Gone,
            };
        }
        self.apply(QueueInput::Settle { lends: settled.iter().map(|out| out.lend).collect(), outcome });
    }

    fn purge(&mut self) {
        // What has expired goes by its own way first.
        self.apply(QueueInput::Tick);
        let requester = self.requester(0);
        let mut purged = 0;
        for known in self.messages.values_mut().filter(|known| known.place == Place::Ready) {
            known.place = Place::Gone;
            purged += 1;
        }
        self.purged = None;
        self.apply(QueueInput::Purge { requester });
        assert_eq!(self.purged.take(), Some(purged), "purged");
    }

    fn step_load(&mut self) {
        let Some(load) = self.loads.first_mut() else { return };
        if load.snapshot.is_none() {
            load.snapshot = Some(self.store.load(load.lane, load.range, load.rows_max, load.bytes_max));
            return;
        }
        let load = self.loads.remove(0);
        self.apply(QueueInput::Loaded { level: load.lane.level, load: load.load, rows: load.snapshot });
    }

    fn settle_copy(&mut self) {
        let Some(leaving) = self.copies.pop() else { return };
        let Some((id, left)) = self.leaving.get_mut(&leaving) else { return };
        *left -= 1;
        if *left == 0 {
            self.messages.get_mut(id).expect("known").place = Place::Gone;
            self.leaving.remove(&leaving);
        }
        self.apply(QueueInput::CopySettled { leaving });
    }

    /// The process dies: the store is all there is.
    fn kill(&mut self) {
        self.store.given.clear();
        self.store.applied.clear();
        self.loads.clear();
        self.copies.clear();
        self.leaving.clear();
        self.out.clear();
        self.consumers.clear();
        self.unwritten.clear();
        let stored = self.store.ids();
        for (id, known) in &mut self.messages {
            if known.promise == Some(Promised::Kept) && known.durable && known.place != Place::Gone {
                assert!(stored.contains(id), "{id} was confirmed and is lost");
            }
            known.place = if stored.contains(id) { Place::Ready } else { Place::Gone };
            // The word about its last delivery may be lost with the process.
            known.delivered = false;
            if known.promise == Some(Promised::Open) {
                known.promise = None;
            }
        }
        self.queue = new_queue(&self.setup, self.now);
        for ((level, generation), (_, state)) in &self.store.lanes {
            self.queue.recover_lane(Lane { queue: QUEUE, level: *level, generation: *generation }, *state);
        }
        self.check_counts();
    }

    /// Everything that is under way comes to its end, and everything that is there is taken.
    fn finish(mut self) {
        for channel in 0..3 {
            self.step(Op::Detach { channel });
        }
        self.step(Op::Consume { channel: 0, no_ack: true, prefetch: 0 });
        for _ in 0..1000 {
            self.step(Op::Written);
            self.step(Op::Advance { ms: 25 });
            self.step(Op::Pull { rows: 1000 });
            while !self.store.given.is_empty() {
                self.store.commit();
            }
            while !self.store.applied.is_empty() {
                self.step(Op::TellStored);
            }
            while !self.loads.is_empty() {
                self.step(Op::StepLoad);
            }
            while !self.copies.is_empty() {
                self.settle_copy();
            }
            if self.queue.ready_count() == 0 && self.store.ids().is_empty() {
                break;
            }
        }
        assert_eq!(self.queue.ready_count(), 0, "everything was taken");
        assert!(self.store.ids().is_empty(), "everything was removed: {:?}", self.store.ids());
        for (id, known) in &self.messages {
            assert_ne!(known.promise, Some(Promised::Open), "the promise about {id} was never settled");
        }
    }
}

fn new_queue(setup: &Setup, now: Now) -> QueueState {
    let settings = QueueSettings {
        id: QUEUE,
        name: Name::from("q"),
        vhost: Name::from("/"),
        durable: setup.durable,
        auto_delete: false,
        priority_max: setup.priority_max,
        message_ttl_ms: setup.ttl_ms,
        expires: None,
        length_max: setup.length_max,
        length_bytes_max: None,
        overflow: setup.overflow,
        dead_letter_exchange: setup.dead_letters.then(|| Name::from("dead")),
        dead_letter_routing_key: None,
    };
    let hold = HoldLimits {
        hold_max: if setup.hold { Duration::from_millis(4) } else { Duration::ZERO },
        ..HoldLimits::default()
    };
    let consumer = ConsumerLimits { messages: 3, messages_max: 12, bytes_max: 1 << 20 };
    QueueState::new(settings, QueueLimits { hold, window: WINDOW, consumer }, now)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_queue_agrees_with_the_model_whatever_the_store_does(
        setup in setup(),
        ops in prop::collection::vec(op(), 1..160),
    ) {
        let mut world = World::new(setup);
        for op in ops {
            world.step(op);
        }
        world.finish();
    }
}

/// `PRONTOMQ_QUEUE_HISTORIES` sets how many histories are tried.
fn cases() -> u32 {
    std::env::var("PRONTOMQ_QUEUE_HISTORIES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(2000)
}
