//! The queue machine against a simple model, over a store that is slow, fails and is killed.
//!
//! A history is a list of steps. After each, what the machine said is held against a model that keeps every message in one
//! sorted list and knows nothing of windows, lanes or loads. `PROPTEST_CASES` says how many histories.

#![allow(clippy::unwrap_used, reason = "a test")]

use prontomq::internals::model::stored::{Group, LaneState, PositionRange, Row};
use prontomq::internals::model::{
    Answer, ChannelKey, ConnectionId, ConsumerKey, ConsumerSlot, Delivery, Holder, Lane, LendId, LimitId, LimitKey,
    Message, Monotonic, Name, Notice, Now, Position, Promise, PromiseOwner, QueueId, RequestNo, SettleOutcome,
    WallMillis,
};
use prontomq::internals::queue::{
    ChangeableSettings, Consume, ConsumerLimits, DeadLetterReason, Effects, Enqueue, HoldLimits, LoadedRows,
    LocalEvent, Overflow, Permits, Pulled, QueueCommand, QueueEffect, QueueInput, QueueLimits, QueueSettings,
    QueueState, Requester, Ticket, WindowLimits,
};
use prontomq::internals::wire::properties::{Properties, PropertiesWriter, Property};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::test_runner::Config;
use proptest::{prop_oneof, proptest};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

const HOLDERS: u8 = 3;
/// This holder's channel has a limit of its own.
const LIMITED: u8 = 0;
const CHANNEL_LIMIT: u32 = 2;
const LIMIT: LimitId = LimitId(1);
/// Every contribution of a group is a whole one here: the writer's tests hold parts together.
const GROUP: Group = Group { number: 1, parts: 1 };
/// Stands for a seal among the messages to which something is owed.
const SEAL: u64 = u64::MAX;

#[derive(Clone, Debug)]
struct Setup {
    durable: bool,
    priority_max: u8,
    message_ttl_ms: Option<u64>,
    length_max: Option<u64>,
    length_bytes_max: Option<u64>,
    overflow: Overflow,
    dead_letters: bool,
    hold: bool,
    head: usize,
    tail: usize,
    tail_bytes: usize,
    head_bytes: usize,
    consumer_window: u32,
}

/// The settings that a policy has changed.
#[derive(Clone, Copy, Debug)]
struct Changed {
    message_ttl_ms: Option<u64>,
    length_max: Option<u64>,
    length_bytes_max: Option<u64>,
    overflow: Overflow,
    dead_letters: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Publish {
        persistent: bool,
        priority: u8,
        expiration: Option<u8>,
        size: u8,
        confirmed: bool,
    },
    Burst(u8),
    Consume {
        holder: u8,
        no_ack: bool,
        prefetch: u8,
        priority: u8,
    },
    Cancel(u8),
    Get {
        holder: u8,
        no_ack: bool,
    },
    Settle {
        which: u8,
        count: u8,
        outcome: u8,
    },
    Bounce(u8),
    Written(u8),
    Detach(u8),
    Purge,
    /// A purge that overtakes the loads under way, and as much again as was there.
    PurgeAndRefill,
    Status,
    Time(u16),
    Pull {
        rows: u8,
        bytes: u16,
    },
    Flush(u8),
    Tell,
    /// Memory for windows runs short, or does no more.
    ShrinkWindows(u8),
    /// Transient messages take more memory than they may, or do no more.
    MemoryPressure(bool),
    /// Settings change while the queue lives, as policies do it.
    Configure(Changed),
    /// The scratch store is free for rows.
    Spill {
        rows: u8,
        bytes: u16,
    },
    /// The scratch store has written, and says so.
    Spilled(u8),
    StoreFails,
    Snapshot(u8),
    Answer(u8),
    ReadFails(u8),
    Copies {
        which: u8,
        copies: u8,
    },
    CopySettled(u8),
    /// A copy goes to the store, and takes its original along.
    Replaced(u8),
    /// A transaction ends: everything goes to the store.
    Seal(bool),
    Kill,
    Stop,
    Delete {
        if_unused: bool,
        if_empty: bool,
    },
}

fn length_limits() -> impl Strategy<Value = (Option<u64>, Option<u64>, Overflow)> {
    (
        prop_oneof![3 => Just(None), 1 => (0u64..12).prop_map(Some)],
        prop_oneof![5 => Just(None), 1 => (0u64..400).prop_map(Some)],
        prop_oneof![Just(Overflow::DropHead), Just(Overflow::RejectPublish), Just(Overflow::RejectPublishDeadLetter)],
    )
}

fn time_to_live() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![3 => Just(None), 1 => (0u64..60).prop_map(Some)]
}

fn changed() -> impl Strategy<Value = Changed> {
    (time_to_live(), length_limits(), any::<bool>()).prop_map(|(message_ttl_ms, limits, dead_letters)| Changed {
        message_ttl_ms,
        length_max: limits.0,
        length_bytes_max: limits.1,
        overflow: limits.2,
        dead_letters,
    })
}

fn setup() -> impl Strategy<Value = Setup> {
    let limits = length_limits();
    let window = (
        prop_oneof![4 => 1usize..6, 1 => Just(1024)],
        prop_oneof![4 => 0usize..7, 1 => Just(4096)],
        prop_oneof![3 => Just(1usize << 20), 1 => Just(300usize)],
        prop_oneof![2 => Just(1usize << 20), 1 => 1usize..300],
    );
    (
        (any::<u8>(), prop_oneof![2 => Just(0u8), 1 => Just(3u8), 1 => Just(255u8)]),
        time_to_live(),
        limits,
        (any::<bool>(), any::<bool>()),
        window,
        prop_oneof![1 => 1u32..4, 2 => Just(64)],
    )
        .prop_map(|((durable, priority_max), message_ttl_ms, limits, flags, window, consumer_window)| Setup {
            durable: durable > 25,
            priority_max,
            message_ttl_ms,
            length_max: limits.0,
            length_bytes_max: limits.1,
            overflow: limits.2,
            dead_letters: flags.0,
            hold: flags.1,
            head: window.0,
            tail: window.1,
            tail_bytes: window.2,
            head_bytes: window.3,
            consumer_window,
        })
}

fn step() -> impl Strategy<Value = Step> {
    let expiration = prop_oneof![8 => Just(None), 1 => (0u8..80).prop_map(Some)];
    prop_oneof![
        12 => (0u8..8, 0u8..5, expiration, 0u8..90, any::<bool>()).prop_map(|(p, priority, expiration, size, confirmed)| {
            Step::Publish { persistent: p > 0, priority, expiration, size, confirmed }
        }),
        4 => (2u8..16).prop_map(Step::Burst),
        3 => (0..HOLDERS, 0u8..5, 0u8..6, 0u8..2).prop_map(|(holder, no_ack, prefetch, priority)| {
            Step::Consume { holder, no_ack: no_ack == 0, prefetch, priority }
        }),
        2 => any::<u8>().prop_map(Step::Cancel),
        4 => (0..HOLDERS, any::<bool>()).prop_map(|(holder, no_ack)| Step::Get { holder, no_ack }),
        12 => (any::<u8>(), 1u8..5, 0u8..6).prop_map(|(which, count, outcome)| Step::Settle { which, count, outcome }),
        2 => any::<u8>().prop_map(Step::Bounce),
        3 => any::<u8>().prop_map(Step::Written),
        2 => (0..HOLDERS).prop_map(Step::Detach),
        1 => Just(Step::Purge),
        1 => Just(Step::PurgeAndRefill),
        1 => Just(Step::Status),
        4 => (0u16..50).prop_map(Step::Time),
        12 => (1u8..20, prop_oneof![Just(60_000u16), 1u16..400]).prop_map(|(rows, bytes)| Step::Pull { rows, bytes }),
        8 => (1u8..4).prop_map(Step::Flush),
        8 => Just(Step::Tell),
        2 => (0u8..6).prop_map(Step::ShrinkWindows),
        3 => (0u8..3).prop_map(|pressed| Step::MemoryPressure(pressed > 0)),
        2 => changed().prop_map(Step::Configure),
        8 => (1u8..20, prop_oneof![Just(60_000u16), 1u16..400]).prop_map(|(rows, bytes)| Step::Spill { rows, bytes }),
        6 => (1u8..4).prop_map(Step::Spilled),
        4 => any::<u8>().prop_map(Step::Snapshot),
        12 => any::<u8>().prop_map(Step::Answer),
        1 => any::<u8>().prop_map(Step::ReadFails),
        4 => (any::<u8>(), 0u8..3).prop_map(|(which, copies)| Step::Copies { which, copies }),
        4 => any::<u8>().prop_map(Step::CopySettled),
        4 => any::<u8>().prop_map(Step::Replaced),
        2 => any::<bool>().prop_map(Step::Seal),
        1 => Just(Step::Kill),
        1 => Just(Step::Stop),
    ]
}

fn last_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Kill),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(if_unused, if_empty)| Step::Delete { if_unused, if_empty }),
        1 => Just(Step::StoreFails),
    ]
}

// ---- the fake store ----------------------------------------------------------------------------------------------

#[derive(Clone, Debug, Default)]
struct FakeLane {
    state: LaneState,
    rows: BTreeMap<Position, Row>,
}

#[derive(Debug)]
struct Submitted {
    pulled: Pulled,
    /// Gone when it was pulled: their rows must be gone once it is flushed.
    dead: Vec<u64>,
}

#[derive(Debug)]
struct OpenLoad {
    lane: Lane,
    load: u64,
    durable: Option<PositionRange>,
    /// From which lane of the scratch store.
    scratch: Option<(Lane, PositionRange)>,
    rows_max: usize,
    bytes_max: usize,
    /// What the reader saw, once it looked.
    seen: Option<LoadedRows>,
}

/// The scratch store: rows come and go in the order of their hand-over, and all of it is gone with the process.
#[derive(Debug, Default)]
struct FakeScratch {
    lanes: BTreeMap<Lane, BTreeMap<Position, Row>>,
    submitted: VecDeque<Pulled>,
    flushed: Ticket,
}

impl FakeScratch {
    fn flush_one(&mut self) {
        let Some(pulled) = self.submitted.pop_front() else { return };
        for change in pulled.lanes {
            let lane = self.lanes.entry(change.lane).or_default();
            for row in change.inserts {
                assert!(row.place.is_some(), "transient rows carry their order");
                assert!(lane.insert(row.position, row).is_none(), "a position is given out once");
            }
            if let Some(below) = change.remove_below {
                *lane = lane.split_off(&below);
            }
        }
        for lane in pulled.drop_lanes {
            self.lanes.remove(&lane);
        }
        self.flushed = pulled.ticket;
    }
}

fn read(lane: Option<&BTreeMap<Position, Row>>, range: PositionRange, rows_max: usize, bytes_max: usize) -> Vec<Row> {
    let (mut seen, mut bytes) = (Vec::new(), 0);
    for (_, row) in lane.into_iter().flat_map(|lane| lane.range(range.from..=range.to)).take(rows_max) {
        seen.push(row.clone());
        bytes += row.message.head_bytes().len();
        if bytes >= bytes_max {
            break;
        }
    }
    seen
}

#[derive(Debug, Default)]
struct FakeStore {
    lanes: BTreeMap<Lane, FakeLane>,
    submitted: VecDeque<Submitted>,
    flushed: Ticket,
    /// Rows that are flushed and of which the queue was not told.
    untold: usize,
    /// The last flush of which the queue was told.
    told: Ticket,
    loads: Vec<OpenLoad>,
    scratch: FakeScratch,
    failed: bool,
    dead: BTreeSet<u64>,
}

impl FakeStore {
    /// Makes the oldest submission durable, as the port's contract says, and checks the lanes' numbers.
    fn flush_one(&mut self) -> bool {
        let Some(Submitted { pulled, dead }) = self.submitted.pop_front() else { return false };
        for change in &pulled.lanes {
            let lane = self.lanes.entry(change.lane).or_default();
            let mut last = None;
            for row in &change.inserts {
                assert!(last < Some(row.position), "rows arrive by rising position");
                last = Some(row.position);
                let before = lane.rows.insert(row.position, row.clone());
                assert!(before.is_none(), "a position is given out once");
            }
            if let Some(below) = change.remove_below {
                lane.rows = lane.rows.split_off(&below);
            }
            for range in &change.remove_ranges {
                lane.rows.retain(|at, _| *at < range.from || *at > range.to);
            }
            for position in &change.removes {
                assert!(lane.rows.remove(position).is_some(), "a key names a row that is there");
            }
            lane.state = change.state;
            let state = lane.state;
            assert_eq!(state.count, lane.rows.len() as u64, "the lane's count is exact");
            let bytes: u64 = lane.rows.values().map(|row| row.message.body_len() as u64).sum();
            assert_eq!(state.body_bytes, bytes, "the lane's bytes are exact");
            assert!(lane.rows.keys().next().is_none_or(|first| *first >= state.head), "nothing lives below the head");
            assert!(lane.rows.keys().last().is_none_or(|last| *last <= state.tail), "nothing lives above the tail");
        }
        for lane in &pulled.drop_lanes {
            self.lanes.remove(lane);
        }
        let levels: BTreeSet<_> = self.lanes.keys().map(|lane| lane.level).collect();
        assert_eq!(
            levels.len(),
            self.lanes.len(),
            "after any batch a level lives in one lane: {:?}",
            self.lanes.keys()
        );
        self.flushed = pulled.ticket;
        self.untold += pulled.rows;
        self.dead.extend(dead);
        for row in self.lanes.values().flat_map(|lane| lane.rows.values()) {
            assert!(!self.dead.contains(&id_of(&row.message)), "a removal that was flushed holds");
        }
        true
    }

    fn look(&mut self, at: usize) {
        let load = &mut self.loads[at];
        if load.seen.is_some() {
            return;
        }
        let lane = self.lanes.get(&load.lane).map(|lane| &lane.rows);
        let (rows_max, bytes_max) = (load.rows_max, load.bytes_max);
        let durable = load.durable.map(|range| read(lane, range, rows_max, bytes_max));
        let scratch = load.scratch.map(|(lane, range)| read(self.scratch.lanes.get(&lane), range, rows_max, bytes_max));
        load.seen = Some(LoadedRows { durable, scratch });
    }
}

// ---- the model ---------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Ready,
    Lent { lend: LendId, consumer: Option<u32>, holder: u8, counted: bool },
    Leaving { number: u64, copies: Option<u32>, settled: u32 },
    Gone,
}

#[derive(Clone, Debug)]
struct Known {
    level: u8,
    durable: bool,
    bytes: u64,
    expires_at: Option<WallMillis>,
    redelivered: bool,
    ever_lent: bool,
    submitted: bool,
    place: Place,
    promise: Option<u64>,
}

#[derive(Clone, Debug)]
struct KnownConsumer {
    holder: u8,
    slot: u32,
    no_ack: bool,
    prefetch: u32,
    priority: i64,
    unwritten: u32,
    window: u32,
    alive: bool,
}

#[derive(Debug, Default)]
struct FakePermits {
    outstanding: u32,
    granted: u32,
    waiting: bool,
}

fn the_limit() -> LimitKey {
    LimitKey { holder: holder_of(LIMITED), id: LIMIT }
}

impl Permits for FakePermits {
    fn request(&mut self, limit: LimitKey) -> u32 {
        assert_eq!(limit, the_limit(), "only limited channels are asked");
        assert!(!self.waiting, "nobody asks twice");
        self.outstanding += std::mem::take(&mut self.granted);
        self.granted = CHANNEL_LIMIT - self.outstanding;
        self.waiting = self.granted == 0;
        self.granted
    }

    fn end_grant(&mut self, limit: LimitKey, unused: u32) {
        assert_eq!(limit, the_limit());
        self.outstanding += std::mem::take(&mut self.granted) - unused;
    }

    fn withdraw(&mut self, limit: LimitKey) -> bool {
        assert_eq!(limit, the_limit());
        std::mem::take(&mut self.waiting)
    }
}

struct History {
    /// With the settings as the last change has left them.
    setup: Setup,
    /// The time to live that the queue was declared with.
    declared_ttl_ms: Option<u64>,
    was_shrunk: bool,
    queue: QueueState,
    store: FakeStore,
    permits: FakePermits,
    now: Now,
    armed: Option<Monotonic>,
    left_alone_until: Option<Monotonic>,
    /// Every message of the history; the key is its id and its age.
    known: BTreeMap<u64, Known>,
    /// Ready ones, as they are to be delivered.
    ready: BTreeSet<(std::cmp::Reverse<u8>, u64)>,
    consumers: Vec<KnownConsumer>,
    gets: VecDeque<(u8, bool, u32)>,
    dead_since_pull: Vec<u64>,
    open_promises: BTreeMap<u64, u64>,
    /// Purges that were not answered yet, by request, and how many messages went.
    purges: BTreeMap<u32, u64>,
    kept: BTreeSet<u64>,
    requests: u32,
    sequences: u64,
    next_id: u64,
    unflushed_most: usize,
    ended: bool,
}

fn holder_of(holder: u8) -> Holder {
    Holder { connection: ConnectionId(u64::from(holder)), channel: ChannelKey { number: 1, incarnation: 1 } }
}

fn publisher() -> Holder {
    Holder { connection: ConnectionId(99), channel: ChannelKey { number: 1, incarnation: 1 } }
}

fn id_of(message: &Message) -> u64 {
    u64::from_be_bytes(*message.body().first_chunk().unwrap())
}

fn settings(setup: &Setup) -> QueueSettings {
    QueueSettings {
        durable: setup.durable,
        priority_max: setup.priority_max,
        message_ttl_ms: setup.message_ttl_ms,
        length_max: setup.length_max,
        length_bytes_max: setup.length_bytes_max,
        overflow: setup.overflow,
        dead_letter_exchange: setup.dead_letters.then(|| Name::from("dlx")),
        ..QueueSettings::plain(QueueId(7), Name::from("/"), Name::from("q"))
    }
}

fn limits(setup: &Setup) -> QueueLimits {
    QueueLimits {
        hold: if setup.hold {
            HoldLimits { hold_max: Duration::from_millis(4), ack_time_max: Duration::from_secs(9) }
        } else {
            HoldLimits { hold_max: Duration::ZERO, ack_time_max: Duration::ZERO }
        },
        window: WindowLimits {
            head_entries: setup.head,
            head_entries_min: 1,
            tail_entries: setup.tail,
            tail_bytes: setup.tail_bytes,
            head_bytes: setup.head_bytes,
        },
        consumer: ConsumerLimits {
            messages: setup.consumer_window,
            messages_max: setup.consumer_window * 4,
            bytes_max: u64::MAX,
            unacked_max: u32::MAX,
        },
    }
}

impl History {
    fn new(setup: Setup) -> Self {
        let now = Now { monotonic: Monotonic(0), wall: WallMillis(1_000_000) };
        Self {
            queue: QueueState::new(settings(&setup), limits(&setup), now),
            declared_ttl_ms: setup.message_ttl_ms,
            setup,
            was_shrunk: false,
            store: FakeStore::default(),
            permits: FakePermits::default(),
            now,
            armed: None,
            left_alone_until: None,
            known: BTreeMap::new(),
            ready: BTreeSet::new(),
            consumers: Vec::new(),
            gets: VecDeque::new(),
            dead_since_pull: Vec::new(),
            open_promises: BTreeMap::new(),
            purges: BTreeMap::new(),
            kept: BTreeSet::new(),
            requests: 0,
            sequences: 0,
            next_id: 0,
            unflushed_most: 0,
            ended: false,
        }
    }

    fn requester(&mut self, holder: u8) -> Requester {
        self.requests += 1;
        let Holder { connection, channel } = holder_of(holder);
        Requester { connection, channel, request: RequestNo(self.requests) }
    }

    fn front(&self) -> Option<u64> {
        self.ready.first().map(|(_, id)| *id)
    }

    fn gone(&mut self, id: u64) {
        let known = self.known.get_mut(&id).unwrap();
        known.place = Place::Gone;
        self.ready.remove(&(std::cmp::Reverse(known.level), id));
        if known.durable {
            self.dead_since_pull.push(id);
        }
    }

    /// A message leaves the ready ones because it expired or was dropped.
    fn dies(
        &mut self,
        id: u64,
        reason: DeadLetterReason,
        letters: &mut VecDeque<(u64, DeadLetterReason, Option<u64>)>,
    ) {
        if reason == DeadLetterReason::Expired {
            let at = self.known[&id].expires_at;
            assert!(at.is_some_and(|at| at <= self.now.wall), "only what has expired expires");
        }
        if !self.setup.dead_letters {
            return self.gone(id);
        }
        let (letter, why, number) = letters.pop_front().expect("what dies is dead-lettered");
        assert_eq!((letter, why), (id, reason), "dead letters leave in order");
        match number {
            Some(number) => {
                let known = self.known.get_mut(&id).unwrap();
                assert!(known.durable);
                known.place = Place::Leaving { number, copies: None, settled: 0 };
                self.ready.remove(&(std::cmp::Reverse(known.level), id));
            }
            None => {
                assert!(!self.known[&id].durable, "a durable original is kept until its copies are safe");
                self.gone(id);
            }
        }
    }

    fn may_take(&self, consumer: &KnownConsumer, outstanding: u32) -> bool {
        let lent = self.lent_to(consumer.holder, Some(consumer.slot));
        consumer.alive
            && (consumer.no_ack || consumer.prefetch == 0 || lent < consumer.prefetch)
            && consumer.unwritten < consumer.window
            && (consumer.holder != LIMITED || outstanding < CHANNEL_LIMIT)
    }

    /// Whether it must be given what is ready.
    fn must_take(&self, consumer: &KnownConsumer) -> bool {
        let fits = !self.was_shrunk || consumer.unwritten < self.setup.consumer_window;
        fits && self.may_take(consumer, self.permits.outstanding)
    }

    fn lent_to(&self, of: u8, slot: Option<u32>) -> u32 {
        let lent = |known: &&Known| matches!(known.place, Place::Lent { consumer, holder, .. } if holder == of && consumer == slot);
        self.known.values().filter(lent).count() as u32
    }

    fn lent(&self) -> Vec<(u64, LendId)> {
        self.known
            .iter()
            .filter_map(|(id, known)| match known.place {
                Place::Lent { lend, .. } => Some((*id, lend)),
                _ => None,
            })
            .collect()
    }

    /// Applies an input and holds everything that comes out against the model.
    fn apply(&mut self, input: impl Into<QueueInput>) {
        let mut out = Effects::default();
        let before = self.permits.outstanding;
        let input = input.into();
        let is_publish = matches!(input, QueueInput::Command(QueueCommand::Publish(_)));
        let is_get = matches!(input, QueueInput::Command(QueueCommand::Get { .. }));
        self.queue.apply(input, self.now, &mut self.permits, &mut out);
        // A pull comes before whatever expires or is lent in the same turn.
        for pulled in out.pulled {
            self.pulled(pulled);
        }
        for pulled in out.spilled {
            if !pulled.lanes.is_empty() || !pulled.drop_lanes.is_empty() {
                self.store.scratch.submitted.push_back(pulled);
            }
        }
        let mut letters = VecDeque::new();
        for effect in out.effects {
            match effect {
                QueueEffect::DeadLetter { message, reason, leaving } => {
                    letters.push_back((id_of(&message), reason, leaving.map(|origin| origin.leaving)));
                }
                QueueEffect::Load { lane, load, durable, scratch, rows_max, bytes_max } => {
                    assert!(rows_max > 0 && (durable.is_some() || scratch.is_some()));
                    assert!(durable.is_none_or(|range| range.from <= range.to));
                    let scratch = scratch.map(|(generation, range)| (Lane { generation, ..lane }, range));
                    let asked = OpenLoad { lane, load, durable, scratch, rows_max, bytes_max, seen: None };
                    self.store.loads.push(asked);
                }
                other => panic!("not expected here: {other:?}"),
            }
        }
        // Rejected ones come first: they die before anything is lent again.
        let lent = self.lent();
        for (id, _) in lent {
            if letters.front().is_some_and(|(letter, why, _)| *letter == id && *why == DeadLetterReason::Rejected) {
                self.dies(id, DeadLetterReason::Rejected, &mut letters);
            }
        }
        let mut expired = out.counts.expired;
        let dropped = if self.setup.overflow == Overflow::DropHead { out.counts.overflowed } else { 0 };
        // A get ends what has expired before anything is dropped. The stored messages may be among it when they could not
        // be read, and so not be dropped before.
        if is_get {
            self.skip_expired(&mut expired, &mut letters);
        }
        // A full queue drops before it gives, but a new message goes to whoever waits for it.
        if !is_publish {
            self.drop_heads(dropped, &mut expired, &mut letters);
        }
        let mut outstanding = before;
        for (connection, notice) in out.notices {
            match notice {
                Notice::Deliver(delivery) => {
                    assert!(self.gets.is_empty(), "those who asked before are served first");
                    self.skip_to(id_of(&delivery.message), &mut expired, &mut letters);
                    self.delivered(connection.0 as u8, &delivery, &mut outstanding);
                }
                Notice::Answer { request, answer, .. } => match answer {
                    Answer::Got { delivery, message_count } => {
                        let (holder, no_ack, asked) = self.gets.pop_front().unwrap();
                        assert_eq!((request.0, connection.0), (asked, u64::from(holder)));
                        self.skip_to(id_of(&delivery.message), &mut expired, &mut letters);
                        self.handed_over(&delivery, no_ack, holder, None);
                        self.skip_expired(&mut expired, &mut letters);
                        assert_eq!(message_count, self.shown(), "get-ok counts what is left");
                    }
                    Answer::GetEmpty => {
                        let (_, _, asked) = self.gets.pop_front().unwrap();
                        assert_eq!(request.0, asked);
                        while let Some(id) = self.front() {
                            self.skip(id, &mut expired, &mut letters);
                        }
                    }
                    Answer::QueueDeclared { message_count, consumer_count, .. } => {
                        assert_eq!(message_count, self.shown());
                        assert_eq!(consumer_count as usize, self.consumers.iter().filter(|c| c.alive).count());
                    }
                    Answer::Removed { message_count } => {
                        assert_eq!(
                            Some(message_count),
                            self.purges.remove(&request.0),
                            "a purge counts what was ready"
                        );
                    }
                    Answer::Refused(_) if self.store.failed => _ = self.purges.remove(&request.0).unwrap(),
                    Answer::Consuming { .. } | Answer::Cancelled => {}
                    other => panic!("not expected here: {other:?}"),
                },
                Notice::Promised { first, last, kept, .. } => self.promised(first, last, kept),
                other => panic!("not expected here: {other:?}"),
            }
        }
        if is_publish {
            while expired > 0 && self.front_expires().is_some_and(|at| at < self.now.wall) {
                let id = self.front().expect("it has a time");
                self.skip(id, &mut expired, &mut letters);
            }
            self.drop_heads(dropped, &mut expired, &mut letters);
        }
        self.skip_expired(&mut expired, &mut letters);
        assert_eq!(expired, 0, "what expired was ready, and in front");
        if self.setup.overflow != Overflow::DropHead {
            assert!(out.counts.overflowed <= 1);
            let refused = letters.pop_front().map(|(_, why, number)| (why, number));
            assert_eq!(refused, (out.counts.overflowed == 1).then_some((DeadLetterReason::MaxLength, None)));
        }
        assert!(letters.is_empty(), "every dead letter has a reason: {letters:?}");
        // As the driver arms its timers.
        if let Some(at) = self.queue.deadline(self.now) {
            self.armed = Some(self.armed.map_or(at, |armed| armed.min(at)));
        }
        self.check();
    }

    /// Heads that a full queue has dropped; what a drop uncovers may have expired.
    fn drop_heads(
        &mut self,
        dropped: u64,
        expired: &mut u64,
        letters: &mut VecDeque<(u64, DeadLetterReason, Option<u64>)>,
    ) {
        for _ in 0..dropped {
            assert!(self.overflowing(), "it was within its limits");
            let id = self.front().expect("what is dropped was ready");
            self.dies(id, DeadLetterReason::MaxLength, letters);
            self.skip_expired(expired, letters);
        }
    }

    fn skip_expired(&mut self, expired: &mut u64, letters: &mut VecDeque<(u64, DeadLetterReason, Option<u64>)>) {
        while *expired > 0 && self.front_expires().is_some_and(|at| at <= self.now.wall) {
            let id = self.front().expect("it has a time");
            self.skip(id, expired, letters);
        }
    }

    fn front_expires(&self) -> Option<WallMillis> {
        self.front().and_then(|id| self.known[&id].expires_at)
    }

    /// How many ready messages the queue shows: not those that it will drop.
    fn shown(&self) -> u64 {
        let ready = self.ready.len() as u64;
        let most = self.setup.length_max.filter(|_| self.setup.overflow == Overflow::DropHead);
        most.map_or(ready, |most| ready.min(most))
    }

    fn skip_to(&mut self, id: u64, expired: &mut u64, letters: &mut VecDeque<(u64, DeadLetterReason, Option<u64>)>) {
        while let Some(front) = self.front().filter(|front| *front != id) {
            assert!(*expired > 0, "{front} is to go before {id}");
            self.skip(front, expired, letters);
        }
        assert_eq!(self.front(), Some(id), "only what is ready is delivered");
    }

    fn skip(&mut self, id: u64, expired: &mut u64, letters: &mut VecDeque<(u64, DeadLetterReason, Option<u64>)>) {
        assert!(*expired > 0, "{id} was left out");
        *expired -= 1;
        self.dies(id, DeadLetterReason::Expired, letters);
    }

    fn delivered(&mut self, holder: u8, delivery: &Delivery, outstanding: &mut u32) {
        let at = self
            .consumers
            .iter()
            .position(|consumer| consumer.holder == holder && consumer.slot == delivery.consumer.0)
            .unwrap();
        let consumer = self.consumers[at].clone();
        assert!(self.may_take(&consumer, *outstanding), "{consumer:?} may take no more");
        let better = self.consumers.iter().find(|other| other.priority > consumer.priority && self.must_take(other));
        assert!(better.is_none(), "{better:?} goes before {consumer:?}");
        assert_eq!(delivery.permit, (holder == LIMITED && !consumer.no_ack).then_some(LIMIT));
        *outstanding += u32::from(delivery.permit.is_some());
        self.consumers[at].unwritten += 1;
        self.handed_over(delivery, consumer.no_ack, holder, Some(consumer.slot));
    }

    fn handed_over(&mut self, delivery: &Delivery, no_ack: bool, holder: u8, consumer: Option<u32>) {
        let id = id_of(&delivery.message);
        let known = self.known.get_mut(&id).unwrap();
        assert_eq!(known.place, Place::Ready);
        assert_eq!(delivery.redelivered, known.redelivered, "the flag of {id}");
        assert_eq!(delivery.message.priority().min(self.setup.priority_max), known.level);
        self.ready.remove(&(std::cmp::Reverse(known.level), id));
        known.ever_lent = true;
        match delivery.lend {
            None => {
                assert!(no_ack);
                self.gone(id);
            }
            Some(lend) => {
                assert!(!no_ack);
                known.place = Place::Lent { lend, consumer, holder, counted: delivery.permit.is_some() };
            }
        }
    }

    fn promised(&mut self, first: u64, last: u64, kept: bool) {
        for sequence in first..=last {
            let id = self.open_promises.remove(&sequence).expect("a promise is kept or refused once");
            if id == SEAL {
                assert!(kept || self.store.failed, "a seal is kept");
                continue;
            }
            let accepted = self.known.contains_key(&id);
            if kept {
                assert!(accepted, "what was refused is not confirmed");
                self.kept.insert(id);
            } else {
                assert!(!accepted || self.store.failed, "what was accepted is not refused");
            }
        }
    }

    fn pulled(&mut self, pulled: Pulled) {
        let mut rows = 0;
        for change in &pulled.lanes {
            for row in &change.inserts {
                rows += 1;
                let known = self.known.get_mut(&id_of(&row.message)).unwrap();
                assert!(known.durable && !known.submitted && known.place != Place::Gone, "elided rows stay away");
                assert_eq!(row.expires_at, known.expires_at);
                assert_eq!(change.lane.level, known.level);
                known.submitted = true;
            }
        }
        assert_eq!(rows, pulled.rows);
        if pulled.lanes.is_empty() && pulled.drop_lanes.is_empty() && pulled.group.is_none() {
            assert_eq!(pulled.rows + pulled.removed, 0, "no change, no rows");
            return;
        }
        let dead = std::mem::take(&mut self.dead_since_pull);
        self.store.submitted.push_back(Submitted { pulled, dead });
    }

    /// What holds after every step.
    fn check(&mut self) {
        assert_eq!(self.queue.ready_count(), self.ready.len() as u64, "ready messages");
        let known = &self.known;
        let living = || known.values().filter(|known| known.place != Place::Gone);
        let bytes = |known: &Known| known.bytes;
        let ready_bytes: u64 = living().filter(|known| known.place == Place::Ready).map(bytes).sum();
        assert_eq!(self.queue.ready_bytes(), ready_bytes, "their bytes");
        let lent = |known: &&Known| matches!(known.place, Place::Lent { .. });
        assert_eq!(self.queue.unacked_count(), living().filter(lent).count() as u64, "unacknowledged messages");
        assert_eq!(self.queue.unacked_bytes(), living().filter(lent).map(bytes).sum::<u64>(), "their bytes");
        let durable = |known: &&Known| known.durable;
        assert_eq!(self.queue.durable_count(), living().filter(durable).count() as u64, "durable messages");
        assert_eq!(self.queue.durable_bytes(), living().filter(durable).map(bytes).sum::<u64>(), "their bytes");

        let waits = living().any(|known| known.durable && known.place == Place::Ready && !known.submitted);
        assert!(!waits || self.queue.is_due(), "a row that nobody holds never waits");

        let to_erase = self.dead_since_pull.iter().any(|id| self.known[id].submitted);
        let soon = self.now.monotonic.plus(Duration::from_millis(20));
        let falls_due = self.queue.is_due() || self.queue.deadline(self.now).is_some_and(|at| at <= soon);
        assert!(!to_erase || falls_due, "what is done with does not stay in the store");

        // Nothing is being read, nor waits until a failed read is tried again.
        let idle_store =
            self.store.loads.is_empty() && self.left_alone_until.is_none_or(|until| until <= self.now.monotonic);
        if idle_store && self.armed.is_none_or(|at| at > self.now.monotonic.plus(Duration::from_millis(1))) {
            let expired = self.front().and_then(|id| self.known[&id].expires_at).is_some_and(|at| at < self.now.wall);
            assert!(!expired, "what has expired at the head is gone");
        }
        // Nor is the mark that the next was handed over on its way to the store, or about to be.
        let all_is_told = self.store.submitted.is_empty() && self.store.told == self.store.flushed;
        let all_is_written = all_is_told && !self.queue.is_due();
        if idle_store && all_is_written && !self.ready.is_empty() {
            assert!(self.gets.is_empty(), "nobody waits for what is there");
            let idle = self.consumers.iter().find(|consumer| self.must_take(consumer));
            assert!(idle.is_none(), "{idle:?} waits for what is ready");
        }

        let unflushed = living().filter(|known| known.durable && !known.submitted).count()
            + self.store.untold
            + self.store.submitted.iter().map(|submitted| submitted.pulled.rows).sum::<usize>();
        self.unflushed_most = self.unflushed_most.max(unflushed);
        let transient = living().any(|known| !known.durable && known.place == Place::Ready);
        if !transient && !self.store.failed {
            let levels = usize::from(self.setup.priority_max.min(4)) + 1;
            let back = living().filter(|known| known.ever_lent && known.place == Place::Ready).count();
            let most = levels * (self.setup.head + 2 * self.setup.tail) + 2 * self.unflushed_most + back;
            // Once nobody holds anything and all is written, what came back may leave memory as well. What was never
            // written to a socket stays: the flag of its row would be wrong.
            let bounced = |known: &Known| known.ever_lent && !known.redelivered;
            let at_rest =
                all_is_written && !to_erase && living().all(|known| known.place == Place::Ready && !bounced(known));
            let most = if at_rest { most.min(levels * (2 * self.setup.head + self.setup.tail)) } else { most };
            assert!(self.queue.memory().ready <= most as u64, "memory keeps to its windows");
        }
    }

    fn publish(&mut self, persistent: bool, priority: u8, expiration: Option<u8>, size: u8, confirmed: bool) {
        let id = self.next_id;
        self.next_id += 1;
        let mut body = id.to_be_bytes().to_vec();
        body.resize(8 + usize::from(size), b'.');
        let text = expiration.map(|ms| ms.to_string());
        let mut writer = PropertiesWriter::new().priority(priority).delivery_mode(1 + u8::from(persistent));
        if let Some(text) = &text {
            writer = writer.shortstr(Property::Expiration, text.as_bytes());
        }
        let raw = writer.to_vec();
        let message = Message::new(b"", b"q", &Properties::check(&raw).unwrap(), &body);
        let sequence = confirmed.then(|| {
            self.sequences += 1;
            self.open_promises.insert(self.sequences, id);
            self.sequences
        });
        let bytes = body.len() as u64;
        let refused = self.setup.overflow != Overflow::DropHead
            && (self.setup.length_max.is_some_and(|max| self.ready.len() as u64 + 1 > max)
                || self.setup.length_bytes_max.is_some_and(|max| self.queue.ready_bytes() + bytes > max));
        if !refused {
            let ttl = [self.setup.message_ttl_ms, expiration.map(u64::from)].into_iter().flatten().min();
            let level = priority.min(self.setup.priority_max);
            let known = Known {
                level,
                durable: persistent && self.setup.durable,
                bytes,
                expires_at: ttl.map(|ttl| self.now.wall.plus_millis(ttl)),
                redelivered: false,
                ever_lent: false,
                submitted: false,
                place: Place::Ready,
                promise: sequence,
            };
            self.known.insert(id, known);
            self.ready.insert((std::cmp::Reverse(level), id));
        }
        let owner = PromiseOwner::Channel(publisher());
        let promise = sequence.map(|sequence| Promise { owner, sequence });
        self.apply(QueueCommand::Publish(vec![Enqueue { message, promise }]));
        if refused && let Some(sequence) = sequence {
            assert!(!self.open_promises.contains_key(&sequence), "a refusal is said at once");
        }
    }

    fn release(&mut self, counted: u32) {
        self.permits.outstanding -= counted;
        if counted > 0 && std::mem::take(&mut self.permits.waiting) {
            let permits = CHANNEL_LIMIT - self.permits.outstanding;
            self.permits.granted = permits;
            self.apply(QueueCommand::Grant { limit: the_limit(), permits });
        }
    }

    /// Back among the ready ones; tells whether a permit is free.
    fn back(&mut self, id: u64, redelivered: bool) -> u32 {
        let known = self.known.get_mut(&id).unwrap();
        let Place::Lent { counted, .. } = known.place else { panic!("only what is lent comes back") };
        known.place = Place::Ready;
        known.redelivered |= redelivered;
        self.ready.insert((std::cmp::Reverse(known.level), id));
        u32::from(counted)
    }

    fn settle(&mut self, which: u8, count: u8, outcome: u8) {
        let lent = self.lent();
        if lent.is_empty() {
            return;
        }
        let at = usize::from(which) % lent.len();
        let some: Vec<_> = lent[at..].iter().take(usize::from(count)).copied().collect();
        let outcome = match outcome {
            0..=2 => SettleOutcome::Acknowledged,
            3 | 4 => SettleOutcome::Requeued,
            _ => SettleOutcome::Rejected,
        };
        let mut freed = 0;
        for (id, _) in &some {
            let Place::Lent { counted, .. } = self.known[id].place else { unreachable!() };
            match outcome {
                SettleOutcome::Requeued => freed += self.back(*id, true),
                SettleOutcome::Acknowledged => {
                    freed += u32::from(counted);
                    self.gone(*id);
                }
                SettleOutcome::Rejected => {
                    freed += u32::from(counted);
                    if !self.setup.dead_letters {
                        self.gone(*id);
                    }
                }
            }
        }
        let mut lends: Vec<_> = some.iter().map(|(_, lend)| *lend).collect();
        // Neither a lending that never was nor one named twice does harm.
        lends.push(LendId { slot: lends[0].slot, generation: lends[0].generation.wrapping_add(999_999) });
        lends.push(lends[0]);
        self.apply(QueueCommand::Settle { lends, outcome });
        self.release(freed);
    }

    fn detach(&mut self, holder: u8) {
        let mut freed = 0;
        for (id, _) in self.lent() {
            if matches!(self.known[&id].place, Place::Lent { holder: of, .. } if of == holder) {
                freed += self.back(id, true);
            }
        }
        self.consumers.retain(|consumer| consumer.holder != holder);
        self.gets.retain(|(of, ..)| *of != holder);
        self.apply(QueueCommand::Detach { holder: holder_of(holder) });
        self.release(freed);
    }

    fn leaving(&self) -> Vec<(u64, u64)> {
        self.known
            .iter()
            .filter_map(|(id, known)| match known.place {
                Place::Leaving { number, .. } => Some((*id, number)),
                _ => None,
            })
            .collect()
    }

    /// One copy is safe, or will be with the next submission; returns the original's number.
    fn one_copy_settled(&mut self, id: u64) {
        let Place::Leaving { copies, settled, .. } = &mut self.known.get_mut(&id).unwrap().place else {
            unreachable!()
        };
        *settled += 1;
        if copies.is_some_and(|copies| *settled >= copies) {
            self.gone(id);
        }
    }

    fn leaving_changed(&mut self, id: u64, made: Option<u32>) {
        let Place::Leaving { number, copies, settled } = &mut self.known.get_mut(&id).unwrap().place else {
            unreachable!()
        };
        let number = *number;
        match made {
            Some(made) => *copies = Some(made),
            None => *settled += 1,
        }
        if copies.is_some_and(|copies| *settled >= copies) {
            self.gone(id);
        }
        self.apply(match made {
            Some(copies) => QueueCommand::Copies { leaving: number, copies },
            None => QueueCommand::CopySettled { leaving: number },
        });
    }

    fn tell(&mut self) {
        let ticket = self.store.flushed;
        (self.store.untold, self.store.told) = (0, ticket);
        self.apply(LocalEvent::Stored { ticket, durable: true });
    }

    fn answer(&mut self, which: u8, fails: bool) {
        if self.store.loads.is_empty() {
            return;
        }
        let at = usize::from(which) % self.store.loads.len();
        self.store.look(at);
        let OpenLoad { lane, load, seen, .. } = self.store.loads.remove(at);
        if fails {
            self.left_alone_until = Some(self.now.monotonic.plus(Duration::from_secs(1)));
        }
        let rows = if fails { None } else { seen };
        self.apply(LocalEvent::Loaded { level: lane.level, load, rows });
    }

    fn advance(&mut self, millis: u64) {
        self.now.wall.0 += millis;
        self.now.monotonic.0 += millis * 1000;
        while self.armed.is_some_and(|at| at <= self.now.monotonic) {
            self.armed = None;
            self.apply(LocalEvent::Tick);
        }
    }

    /// The process dies: what the store has is what there is.
    fn kill(&mut self) {
        self.store.submitted.clear();
        self.store.loads.clear();
        self.store.scratch = FakeScratch::default();
        self.store.failed = false;
        (self.store.flushed, self.store.told) = (Ticket(0), Ticket(0));
        self.store.untold = 0;
        self.consumers.clear();
        self.gets.clear();
        self.left_alone_until = None;
        self.permits = FakePermits::default();
        self.open_promises.clear();
        self.purges.clear();
        self.dead_since_pull.clear();
        self.unflushed_most = 0;
        let mut stored = BTreeMap::new();
        let declared = QueueSettings { message_ttl_ms: self.declared_ttl_ms, ..settings(&self.setup) };
        self.queue = QueueState::new(declared, limits(&self.setup), self.now);
        for (lane, found) in &self.store.lanes {
            self.queue.recover_lane(*lane, found.state, self.now);
            let mut last = None;
            for (position, row) in &found.rows {
                let id = id_of(&row.message);
                assert!(last < Some(id), "positions keep the order of publishing");
                last = Some(id);
                let redelivered = row.redelivered || *position < found.state.lent_ceiling;
                assert!(stored.insert(id, redelivered).is_none(), "a message is stored once");
            }
        }
        self.ready.clear();
        for (id, known) in &mut self.known {
            let Some(redelivered) = stored.remove(id) else {
                let owed = known.durable && known.place != Place::Gone && self.kept.contains(id);
                assert!(!owed, "{id} was confirmed, is neither done with nor stored: {known:?}");
                known.place = Place::Gone;
                continue;
            };
            assert!(redelivered || !known.ever_lent, "{id} was handed over before");
            known.place = Place::Ready;
            known.redelivered = redelivered;
            known.ever_lent = false;
            known.submitted = true;
            self.ready.insert((std::cmp::Reverse(known.level), *id));
        }
        assert!(stored.is_empty(), "the store has what was published");
        self.apply(LocalEvent::Configure(Box::new(self.changeable())));
        self.apply(LocalEvent::Tick);
    }

    fn changeable(&self) -> ChangeableSettings {
        let settings = settings(&self.setup);
        ChangeableSettings {
            message_ttl_ms: settings.message_ttl_ms,
            expires: settings.expires,
            length_max: settings.length_max,
            length_bytes_max: settings.length_bytes_max,
            overflow: settings.overflow,
            dead_letter_exchange: settings.dead_letter_exchange,
            dead_letter_routing_key: settings.dead_letter_routing_key,
        }
    }

    /// What is in the queue keeps its expiry; everything else follows the new settings from this input on.
    fn configure(&mut self, changed: Changed) {
        let Changed { message_ttl_ms, length_max, length_bytes_max, overflow, dead_letters } = changed;
        // No policy lengthens what was declared.
        self.setup.message_ttl_ms = [self.declared_ttl_ms, message_ttl_ms].into_iter().flatten().min();
        (self.setup.length_max, self.setup.length_bytes_max) = (length_max, length_bytes_max);
        (self.setup.overflow, self.setup.dead_letters) = (overflow, dead_letters);
        self.apply(LocalEvent::Configure(Box::new(self.changeable())));
        let (count, bytes) = (self.queue.ready_count(), self.queue.ready_bytes());
        let is_over = length_max.is_some_and(|max| count > max) || length_bytes_max.is_some_and(|max| bytes > max);
        let may_read = self.left_alone_until.is_none_or(|until| until <= self.now.monotonic);
        let must_drop = overflow == Overflow::DropHead && self.store.loads.is_empty() && may_read;
        assert!(count == 0 || !is_over || !must_drop, "a shorter queue drops at once, or reads what is to be dropped");
    }

    /// A stop in good order: nothing durable is lost, and only what was handed over comes back marked.
    fn stop(&mut self) {
        for holder in 0..HOLDERS {
            self.detach(holder);
        }
        self.apply(LocalEvent::Quiesce);
        self.write_all();
        let marked: BTreeSet<_> = self.known.iter().filter(|(_, known)| known.redelivered).map(|(id, _)| *id).collect();
        let living = |known: &Known| known.durable && matches!(known.place, Place::Ready);
        let before: BTreeSet<_> = self.known.iter().filter(|(_, known)| living(known)).map(|(id, _)| *id).collect();
        let last = self.known.iter().filter(|(_, known)| known.ever_lent).map(|(id, known)| (known.level, *id));
        let last: BTreeMap<u8, u64> = last.collect();
        self.kill();
        for id in before {
            let known = &self.known[&id];
            if known.place == Place::Ready {
                assert!(known.redelivered || !marked.contains(&id), "the mark of {id} is kept");
            } else {
                assert!(known.expires_at.is_some_and(|at| at <= self.now.wall) || self.overflowing(), "{id} is lost");
            }
            let fresh = !marked.contains(&id) && last.get(&known.level).is_none_or(|last| *last < id);
            assert!(!known.redelivered || !fresh, "{id} was lent to nobody");
        }
    }

    fn overflowing(&self) -> bool {
        self.setup.length_max.is_some() || self.setup.length_bytes_max.is_some()
    }

    /// Pulls, flushes and answers until there is nothing left to write or read.
    fn write_all(&mut self) {
        for round in 0.. {
            assert!(round < 10_000, "it comes to an end");
            let mut idle = true;
            while let Some(at) = self.store.loads.len().checked_sub(1) {
                self.answer(at as u8, false);
                idle = false;
            }
            if self.queue.is_due() {
                self.apply(LocalEvent::Pull { rows_max: 1000, bytes_max: 1 << 20 });
                idle = false;
            }
            while self.store.flush_one() {
                idle = false;
            }
            self.tell();
            if idle && self.store.loads.is_empty() {
                return;
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish { persistent, priority, expiration, size, confirmed } => {
                self.publish(persistent, priority, expiration, size, confirmed);
            }
            Step::Burst(count) => (0..count).for_each(|_| self.publish(true, 0, None, 1, true)),
            Step::Consume { holder, no_ack, prefetch, priority } => {
                let requester = self.requester(holder);
                let (slot, prefetch, priority) = (requester.request.0, u32::from(prefetch), i64::from(priority));
                let key = ConsumerKey { holder: holder_of(holder), slot: ConsumerSlot(slot) };
                let (window, unwritten) = (self.setup.consumer_window, 0);
                let consumer =
                    KnownConsumer { holder, slot, no_ack, prefetch, priority, unwritten, window, alive: true };
                self.consumers.push(consumer);
                let (tag, channel_limit) = (Name::from("tag"), (holder == LIMITED).then_some(LIMIT));
                let exclusive = false;
                self.apply(QueueCommand::Consume(Consume {
                    requester,
                    key,
                    tag,
                    no_ack,
                    exclusive,
                    priority,
                    prefetch,
                    channel_limit,
                }));
            }
            Step::Cancel(which) => {
                if self.consumers.is_empty() {
                    return;
                }
                let at = usize::from(which) % self.consumers.len();
                self.consumers[at].alive = false;
                let (holder, slot) = (self.consumers[at].holder, self.consumers[at].slot);
                let requester = self.requester(holder);
                let key = ConsumerKey { holder: holder_of(holder), slot: ConsumerSlot(slot) };
                self.apply(QueueCommand::Cancel { requester, key });
            }
            Step::Get { holder, no_ack } => {
                let requester = self.requester(holder);
                self.gets.push_back((holder, no_ack, requester.request.0));
                self.apply(QueueCommand::Get { requester, no_ack });
            }
            Step::Settle { which, count, outcome } => self.settle(which, count, outcome),
            Step::Bounce(which) => {
                let lent = self.lent();
                if lent.is_empty() {
                    return;
                }
                let (id, lend) = lent[usize::from(which) % lent.len()];
                if let Place::Lent { consumer: Some(slot), holder, .. } = self.known[&id].place {
                    let to = self.consumers.iter_mut().find(|of| of.holder == holder && of.slot == slot);
                    if let Some(to) = to {
                        to.unwritten = to.unwritten.saturating_sub(1);
                    }
                }
                let freed = self.back(id, false);
                self.apply(QueueCommand::Bounce { lend });
                self.release(freed);
            }
            Step::Written(which) => {
                if self.consumers.is_empty() {
                    return;
                }
                let at = usize::from(which) % self.consumers.len();
                let consumer = &mut self.consumers[at];
                if consumer.alive && consumer.unwritten >= consumer.window {
                    consumer.window = (consumer.window * 2).min(self.setup.consumer_window * 4);
                }
                let count = std::mem::take(&mut consumer.unwritten);
                let key = ConsumerKey { holder: holder_of(consumer.holder), slot: ConsumerSlot(consumer.slot) };
                self.apply(QueueCommand::Written { consumer: key, count, bytes: 0 });
            }
            Step::Detach(holder) => self.detach(holder),
            Step::Purge => {
                let requester = self.requester(1);
                self.purges.insert(requester.request.0, self.shown());
                while let Some(id) = self.front() {
                    self.gone(id);
                }
                self.apply(QueueCommand::Purge { requester });
            }
            Step::PurgeAndRefill => {
                (0..self.store.loads.len()).for_each(|at| self.store.look(at));
                self.step(&Step::Purge);
                self.step(&Step::Burst(15));
                self.step(&Step::Pull { rows: 99, bytes: 60_000 });
                self.step(&Step::Flush(9));
                self.step(&Step::Tell);
            }
            Step::Status => {
                let requester = self.requester(1);
                self.apply(QueueCommand::Status { requester });
            }
            Step::Time(millis) => self.advance(u64::from(millis)),
            Step::Pull { rows, bytes } => {
                self.apply(LocalEvent::Pull { rows_max: usize::from(rows), bytes_max: usize::from(bytes) });
            }
            Step::Flush(count) => {
                for _ in 0..count {
                    self.store.flush_one();
                }
            }
            Step::Tell => self.tell(),
            Step::ShrinkWindows(steps) => {
                self.queue.shrink_windows(u32::from(steps));
                // From then on a consumer may wait until what it was given is written, which widens its window again.
                self.was_shrunk |= steps > 0;
            }
            Step::MemoryPressure(pressed) => self.queue.set_memory_pressure(pressed),
            Step::Configure(changed) => self.configure(changed),
            Step::Spill { rows, bytes } => {
                if self.queue.wants_scratch() {
                    self.apply(LocalEvent::Spill { rows_max: rows.into(), bytes_max: bytes.into() });
                }
            }
            Step::Spilled(count) => {
                (0..count).for_each(|_| self.store.scratch.flush_one());
                let ticket = self.store.scratch.flushed;
                self.apply(LocalEvent::Spilled { ticket, durable: true });
            }
            Step::StoreFails => {
                self.store.failed = true;
                self.store.submitted.clear();
                self.apply(LocalEvent::Stored { ticket: Ticket(u64::MAX / 2), durable: false });
            }
            Step::Snapshot(which) => {
                if !self.store.loads.is_empty() {
                    let at = usize::from(which) % self.store.loads.len();
                    self.store.look(at);
                }
            }
            Step::Answer(which) => self.answer(which, false),
            Step::ReadFails(which) => self.answer(which, true),
            Step::Copies { which, copies } => {
                let leaving = self.leaving();
                if leaving.is_empty() {
                    return;
                }
                let (id, _) = leaving[usize::from(which) % leaving.len()];
                if matches!(self.known[&id].place, Place::Leaving { copies: None, .. }) {
                    self.leaving_changed(id, Some(u32::from(copies)));
                }
            }
            Step::CopySettled(which) => {
                let leaving = self.leaving();
                if !leaving.is_empty() {
                    let (id, _) = leaving[usize::from(which) % leaving.len()];
                    self.leaving_changed(id, None);
                }
            }
            Step::Replaced(which) => {
                let leaving = self.leaving();
                if !leaving.is_empty() {
                    let (id, number) = leaving[usize::from(which) % leaving.len()];
                    self.one_copy_settled(id);
                    self.apply(LocalEvent::Replaced { leaving: vec![number], group: GROUP });
                }
            }
            Step::Seal(promised) => {
                let promise = promised.then(|| {
                    self.sequences += 1;
                    self.open_promises.insert(self.sequences, SEAL);
                    Promise { owner: PromiseOwner::Channel(holder_of(0)), sequence: self.sequences }
                });
                self.apply(LocalEvent::Seal { group: GROUP, promise });
                let left = self.known.values().any(|known| {
                    known.durable && !known.submitted && matches!(known.place, Place::Ready | Place::Lent { .. })
                });
                assert!(!left, "everything goes to the store");
            }
            Step::Kill => self.kill(),
            Step::Stop => self.stop(),
            Step::Delete { if_unused, if_empty } => self.delete(if_unused, if_empty),
        }
    }

    fn delete(&mut self, if_unused: bool, if_empty: bool) {
        let requester = self.requester(1);
        let mut out = Effects::default();
        let input = QueueCommand::Delete { requester, if_unused, if_empty };
        self.queue.apply(input.into(), self.now, &mut self.permits, &mut out);
        let consumers = self.consumers.iter().filter(|consumer| consumer.alive).count();
        let refused = (if_empty && self.shown() > 0) || (if_unused && consumers > 0);
        if refused {
            assert!(matches!(&out.notices[..], [(_, Notice::Answer { answer: Answer::Refused(_), .. })]));
            return;
        }
        self.ended = true;
        let deleted = |effect: &QueueEffect| matches!(effect, QueueEffect::Deleted { message_count, .. } if *message_count == self.shown());
        assert!(matches!(&out.effects[..], [effect] if deleted(effect)));
        let mut told = 0;
        for (_, notice) in out.notices {
            match notice {
                Notice::Promised { first, last, kept, .. } => {
                    assert!(kept, "a deleted queue keeps its promises");
                    for sequence in first..=last {
                        self.open_promises.remove(&sequence).expect("once");
                    }
                }
                Notice::ConsumerCancelled { .. } => told += 1,
                Notice::Answer { answer: Answer::Refused(_), .. } => {
                    self.gets.pop_front().unwrap();
                }
                Notice::Answer { request, answer: Answer::Removed { message_count }, .. } => {
                    assert_eq!(Some(message_count), self.purges.remove(&request.0));
                }
                other => panic!("not expected here: {other:?}"),
            }
        }
        assert_eq!(told, consumers, "every consumer is told");
        assert!(self.open_promises.is_empty() && self.gets.is_empty());
        let mut out = Effects::default();
        self.queue.apply(
            LocalEvent::Pull { rows_max: 10, bytes_max: 1000 }.into(),
            self.now,
            &mut self.permits,
            &mut out,
        );
        assert!(out.pulled[0].lanes.is_empty());
        assert_eq!(self.queue.ready_count() + self.queue.unacked_count() + self.queue.durable_count(), 0);
    }

    fn settle_copies(&mut self) {
        for (id, _) in self.leaving() {
            if matches!(self.known[&id].place, Place::Leaving { copies: None, .. }) {
                self.leaving_changed(id, Some(1));
            }
            while matches!(self.known[&id].place, Place::Leaving { .. }) {
                self.leaving_changed(id, None);
            }
        }
    }

    /// Everything is delivered, acknowledged and written; then nothing is left anywhere.
    fn drain(&mut self) {
        for holder in 0..HOLDERS {
            self.detach(holder);
        }
        // A read that failed is tried again; what was held falls due.
        self.advance(1100);
        self.step(&Step::Consume { holder: 1, no_ack: true, prefetch: 0, priority: 0 });
        for round in 0.. {
            assert!(round < 10_000, "the queue drains");
            self.step(&Step::Written(0));
            let loads = self.store.loads.len();
            if loads > 0 {
                self.answer(0, false);
            } else if self.ready.is_empty() {
                break;
            } else if !self.store.failed {
                // What is next waits until its mark is flushed.
                self.write_all();
            }
        }
        self.advance(30);
        if self.store.failed {
            return;
        }
        self.settle_copies();
        self.advance(30);
        self.write_all();
        self.step(&Step::Spilled(u8::MAX));
        while self.queue.wants_scratch() {
            self.step(&Step::Spill { rows: 20, bytes: 60_000 });
            self.step(&Step::Spilled(9));
        }
        assert!(self.store.scratch.lanes.values().all(BTreeMap::is_empty), "nothing is left in the scratch store");
        let left: usize = self.store.lanes.values().map(|lane| lane.rows.len()).sum();
        assert_eq!(left, 0, "nothing is left in the store");
        assert!(self.open_promises.is_empty(), "every promise is kept or refused: {:?}", self.open_promises);
        assert!(self.purges.is_empty(), "every purge is answered");
        for (id, known) in &self.known {
            assert_eq!(known.place, Place::Gone, "{id} was delivered");
            assert!(known.promise.is_none() || known.promise.is_some_and(|sequence| sequence <= self.sequences));
        }
    }
}

/// More than by default, unless `PROPTEST_CASES` says otherwise.
fn histories() -> u32 {
    if std::env::var_os("PROPTEST_CASES").is_some() { Config::default().cases } else { 1000 }
}

proptest! {
    #![proptest_config(Config { cases: histories(), max_shrink_iters: 20_000, ..Config::default() })]
    #[test]
    fn every_history_ends_as_the_model_says(
        setup in setup(),
        steps in vec(step(), 1..90),
        last in last_step(),
    ) {
        let mut history = History::new(setup);
        for step in &steps {
            history.step(step);
        }
        history.step(&last);
        if !history.ended {
            history.drain();
        }
    }
}
