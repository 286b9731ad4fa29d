//! The writer against a store whose every commit the test answers, and against the store in memory.

use super::limits::ANSWER_PATIENCE_MAX;
use super::*;
use crate::model::random::Random;
use crate::model::{Name, Position};
use crate::store::contract::{change, inserts, lane, positions};
use crate::store::memory::{MemoryDisk, MemoryStore};
use crate::store::{
    Batch, CommitOutcome, LaneState, LoadRequest, Loaded, Maintenance, POSITION_MAX, PositionRange, ReadError,
    Recovered, Store, StoreError, StoreReader, SystemClock, TopologyChange, VhostRecord,
};
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, ThreadId};
use std::time::Instant;

const LIMIT: Duration = Duration::from_secs(20);

/// What a fake store does when asked to commit.
enum Reply {
    Outcome(CommitOutcome),
    Panic,
}

/// What the test sees, in the order in which it happens.
#[derive(Debug)]
enum Event {
    Commit(Batch),
    Reopen,
    Erase,
    Closed,
    Stored(u64, Stored),
    Then(&'static str, bool),
}

/// Reports what it is asked and waits for the test's replies; when the test stops replying, everything succeeds.
struct FakeStore {
    events: Sender<Event>,
    replies: Receiver<Reply>,
    last_on_disk: Arc<Mutex<BatchNo>>,
    slices: usize,
}

impl Store for FakeStore {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        Ok(Recovered::default())
    }

    fn commit(&mut self, batch: &Batch) -> CommitOutcome {
        self.slices += batch.drop_lanes.len() * 3;
        let _ = self.events.send(Event::Commit(batch.clone()));
        match self.replies.recv() {
            Ok(Reply::Outcome(outcome)) => outcome,
            Ok(Reply::Panic) => panic!("as the test wants it"),
            Err(_) => CommitOutcome::Committed,
        }
    }

    fn reopen(&mut self) -> Result<BatchNo, StoreError> {
        let _ = self.events.send(Event::Reopen);
        Ok(*self.last_on_disk.lock().unwrap())
    }

    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        Ok(Box::new(FakeReader))
    }

    fn maintenance(&mut self) -> Option<&mut dyn Maintenance> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        let _ = self.events.send(Event::Closed);
        Ok(())
    }
}

impl Maintenance for FakeStore {
    fn has_dead_rows(&self) -> bool {
        self.slices > 0
    }

    fn erase(&mut self, _rows: usize) -> Result<bool, StoreError> {
        if self.slices > 0 {
            self.slices -= 1;
            let _ = self.events.send(Event::Erase);
        }
        Ok(self.slices > 0)
    }
}

struct FakeReader;

impl StoreReader for FakeReader {
    fn load(&mut self, request: LoadRequest) -> Result<Loaded, ReadError> {
        let lane = request.lane;
        assert!(lane.queue.0 != 13, "as the test wants it");
        Ok(Loaded { rows: Vec::new(), as_of: BatchNo(lane.queue.0) })
    }
}

/// Offers of the test's threads, one at a time, to commit what they hand over.
#[derive(Default)]
struct Offers {
    thread: Mutex<Option<ThreadId>>,
    is_taken_up: AtomicBool,
}

impl InlineCommits for Offers {
    fn takes_over(&self) -> bool {
        let takes_over = *self.thread.lock().unwrap() == Some(thread::current().id());
        self.is_taken_up.fetch_or(takes_over, Ordering::SeqCst);
        takes_over
    }
}

/// An offer of this thread, while it lasts.
struct Offer<'a>(&'a WriterHandle, &'a Offers);

impl<'a> Offer<'a> {
    fn begin(writer: &'a WriterHandle, offers: &'a Offers) -> Self {
        *offers.thread.lock().unwrap() = Some(thread::current().id());
        Self(writer, offers)
    }

    fn is_taken_up(&self) -> bool {
        self.1.is_taken_up.load(Ordering::SeqCst)
    }

    fn end(&self) -> bool {
        *self.1.thread.lock().unwrap() = None;
        self.1.is_taken_up.swap(false, Ordering::SeqCst)
    }

    fn commit(self) {
        if self.end() {
            self.0.commit_here();
        }
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        if self.end() {
            self.0.wake();
        }
    }
}

/// Runs turns on a thread of its own, as the runtime does.
#[derive(Clone)]
struct Turns(Sender<Box<dyn FnOnce() + Send>>);

impl Turns {
    fn start() -> Self {
        let (sender, receiver) = channel::<Box<dyn FnOnce() + Send>>();
        thread::spawn(move || receiver.into_iter().for_each(|turn| turn()));
        Self(sender)
    }
}

/// A queue: rows wait in it until it is pulled.
struct TestSource {
    id: u64,
    writer: WriterHandle,
    offers: Arc<Offers>,
    events: Sender<Event>,
    turns: Turns,
    pending: Mutex<Pending>,
    waiting: AtomicUsize,
    answers: bool,
}

#[derive(Default)]
struct Pending {
    rows: VecDeque<u64>,
    next: u64,
    tickets: u64,
    is_dirty: bool,
}

impl TestSource {
    /// New rows, in one turn of the queue.
    fn add(self: &Arc<Self>, count: u64) {
        let mut pending = self.pending.lock().unwrap();
        let next = pending.next;
        pending.rows.extend(next + 1..=next + count);
        pending.next += count;
        self.waiting.store(pending.rows.len(), Ordering::Relaxed);
        if !pending.is_dirty {
            pending.is_dirty = true;
            self.writer.dirty(Arc::clone(self) as Arc<dyn Source>);
        }
    }

    fn turn(self: &Arc<Self>, rows_max: usize) {
        let mut pending = self.pending.lock().unwrap();
        let count = rows_max.min(pending.rows.len());
        let rows: Vec<_> = pending.rows.drain(..count).collect();
        pending.is_dirty = !pending.rows.is_empty();
        self.waiting.store(pending.rows.len(), Ordering::Relaxed);
        self.hand_over(&mut pending, rows);
    }

    /// What a turn does that finds the writer idle.
    fn add_at_once(self: &Arc<Self>, count: u64) {
        let mut pending = self.pending.lock().unwrap();
        let next = pending.next;
        pending.next += count;
        self.hand_over(&mut pending, (next + 1..=next + count).collect());
    }

    /// As `add_at_once`, as a part of groups; with nothing, only the part. Returns its ticket.
    fn add_part(self: &Arc<Self>, count: u64, groups: &[Group]) -> u64 {
        let mut pending = self.pending.lock().unwrap();
        let next = pending.next;
        pending.next += count;
        pending.tickets += 1;
        let rows: Vec<_> = (next + 1..=next + count).collect();
        let lanes = if rows.is_empty() { Vec::new() } else { vec![inserts(lane(self.id), rows)] };
        let (rows, groups) = (count as usize, groups.to_vec());
        let ticket = pending.tickets;
        let contribution = Contribution { ticket, lanes, rows, groups, ..Contribution::default() };
        self.writer.contribute(Arc::clone(self) as Arc<dyn Source>, contribution);
        ticket
    }

    fn hand_over(self: &Arc<Self>, pending: &mut Pending, rows: Vec<u64>) {
        pending.tickets += 1;
        let count = rows.len();
        let lanes = if rows.is_empty() { Vec::new() } else { vec![inserts(lane(self.id), rows)] };
        let contribution = Contribution {
            ticket: pending.tickets,
            lanes,
            rows: count,
            bytes: count * 100,
            more: pending.is_dirty,
            ..Contribution::default()
        };
        self.writer.contribute(Arc::clone(self) as Arc<dyn Source>, contribution);
    }
}

impl Source for TestSource {
    fn pull(self: Arc<Self>, rows_max: usize, _bytes_max: usize) {
        if self.answers {
            let turns = self.turns.clone();
            turns.0.send(Box::new(move || self.turn(rows_max))).unwrap();
        }
    }

    fn rows_waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn stored(self: Arc<Self>, outcome: Stored) {
        let _ = self.events.send(Event::Stored(self.id, outcome));
    }
}

/// A writer on a fake store, and the test's end of it.
struct Bench {
    writer: WriterHandle,
    offers: Arc<Offers>,
    events: Receiver<Event>,
    tell: Sender<Event>,
    replies: Option<Sender<Reply>>,
    last_on_disk: Arc<Mutex<BatchNo>>,
    turns: Turns,
}

impl Bench {
    fn start(settings: WriterSettings) -> Self {
        let (tell, events) = channel();
        let (replies, receiver) = channel();
        let last_on_disk = Arc::<Mutex<BatchNo>>::default();
        let store =
            FakeStore { events: tell.clone(), replies: receiver, last_on_disk: Arc::clone(&last_on_disk), slices: 0 };
        let writer = WriterHandle::start(Box::new(store), BatchNo(0), settings, SystemClock::shared()).unwrap();
        let offers = Arc::<Offers>::default();
        writer.allow_inline(Arc::clone(&offers) as _);
        Self { writer, offers, events, tell, replies: Some(replies), last_on_disk, turns: Turns::start() }
    }

    fn source(&self, id: u64) -> Arc<TestSource> {
        self.source_that(id, true)
    }

    fn source_that(&self, id: u64, answers: bool) -> Arc<TestSource> {
        Arc::new(TestSource {
            id,
            writer: self.writer.clone(),
            offers: Arc::clone(&self.offers),
            events: self.tell.clone(),
            turns: self.turns.clone(),
            pending: Mutex::default(),
            waiting: AtomicUsize::new(0),
            answers,
        })
    }

    fn next(&self) -> Event {
        self.events.recv_timeout(LIMIT).expect("something happens")
    }

    #[track_caller]
    fn begun(&self) -> Batch {
        match self.next() {
            Event::Commit(batch) => batch,
            other => panic!("a commit begins, not {other:?}"),
        }
    }

    #[track_caller]
    fn stored(&self) -> (u64, Stored) {
        match self.next() {
            Event::Stored(id, stored) => (id, stored),
            other => panic!("an outcome is told, not {other:?}"),
        }
    }

    fn stored_after_commit(&self) -> bool {
        self.begun();
        self.stored().1.durable
    }

    fn reply(&self, outcome: CommitOutcome) {
        self.replies.as_ref().unwrap().send(Reply::Outcome(outcome)).unwrap();
    }

    /// Commits succeed from here on.
    fn let_go(&mut self) {
        self.replies = None;
    }

    fn then(&self, name: &'static str) -> Then {
        let tell = self.tell.clone();
        Box::new(move |durable| tell.send(Event::Then(name, durable)).unwrap())
    }

    /// Waits for what the writer does between two events.
    fn wait_until(&self, condition: impl Fn(&WriterHandle) -> bool) {
        let until = Instant::now() + LIMIT;
        while !condition(&self.writer) {
            assert!(Instant::now() < until, "the writer gets there");
            thread::yield_now();
        }
    }

    fn idle() -> Self {
        let bench = Self::start(WriterSettings::default());
        bench.wait_until(WriterHandle::wants_rows);
        bench
    }
}

fn rows_of(batch: &Batch) -> Vec<(u64, u64)> {
    let rows =
        batch.lanes.iter().flat_map(|change| change.inserts.iter().map(|row| (change.lane.queue.0, row.position.0)));
    rows.collect()
}

fn vhost(name: &str) -> TopologyChange {
    TopologyChange::PutVhost(VhostRecord { name: Name::from(name) })
}

#[test]
fn nothing_is_durable_before_its_commit_has_returned() {
    let bench = Bench::idle();
    let source = bench.source(1);
    source.add_at_once(1);
    assert_eq!(rows_of(&bench.begun()), [(1, 1)]);
    assert!(bench.events.try_recv().is_err(), "nobody is told while the commit runs");
    assert!(!bench.writer.wants_rows());
    bench.reply(CommitOutcome::Committed);
    assert_eq!(bench.stored(), (1, Stored { ticket: 1, batch_no: BatchNo(1), durable: true }));
}

#[test]
fn what_comes_up_during_a_commit_shares_the_next_one() {
    let bench = Bench::idle();
    let sources: Vec<_> = (1..=40).map(|id| bench.source(id)).collect();
    sources[0].add_at_once(1);
    bench.begun();
    for source in &sources {
        source.add(2);
    }
    bench.reply(CommitOutcome::Committed);
    bench.stored();
    let mut rows = rows_of(&bench.begun());
    // A busy machine may split it, since the writer's patience with queues that it asked is short.
    while rows.len() < 80 {
        bench.reply(CommitOutcome::Committed);
        let Event::Commit(batch) =
            std::iter::repeat_with(|| bench.next()).find(|event| matches!(event, Event::Commit(_))).unwrap()
        else {
            unreachable!()
        };
        rows.extend(rows_of(&batch));
    }
    rows.sort_unstable();
    assert_eq!(
        rows,
        (1..=40).flat_map(|id| if id == 1 { [(id, 2), (id, 3)] } else { [(id, 1), (id, 2)] }).collect::<Vec<_>>()
    );
}

#[test]
fn a_batch_that_was_not_committed_is_tried_again_with_what_has_come_meanwhile() {
    let bench = Bench::idle();
    let source = bench.source(1);
    source.add_at_once(3);
    let first = bench.begun();
    bench.reply(CommitOutcome::NotCommitted("disk full".into()));
    for _ in 0..3 {
        let again = bench.begun();
        assert_eq!(again.batch_no, first.batch_no);
        assert!(rows_of(&again).starts_with(&rows_of(&first)));
        let stats = bench.writer.stats();
        assert_eq!((stats.state, stats.last_error.as_deref()), (WriterState::Retrying, Some("disk full")));
        source.add(1);
        bench.reply(CommitOutcome::NotCommitted("disk full".into()));
    }
    let mut rows = rows_of(&bench.begun());
    bench.reply(CommitOutcome::Committed);
    // What came last is in this batch or in the next one.
    while rows.len() < 6 {
        match bench.next() {
            Event::Commit(next) => {
                rows.extend(rows_of(&next));
                bench.reply(CommitOutcome::Committed);
            }
            Event::Stored(1, stored) => assert!(stored.durable),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rows, (1..=6).map(|row| (1, row)).collect::<Vec<_>>());
    assert!(bench.writer.flush());
    let stats = bench.writer.stats();
    assert_eq!((stats.state, stats.retries, stats.rows_inserted), (WriterState::Ok, 4, 6));
    assert_eq!(stats.commit_buckets.iter().sum::<u64>(), stats.batches);
}

#[test]
fn rows_that_are_acknowledged_while_the_store_refuses_them_are_not_written() {
    let bench = Bench::idle();
    let source = bench.source(1);
    source.add_at_once(3);
    bench.begun();
    let mut change = change(lane(1));
    change.removes = vec![Position(1), Position(3)];
    change.state = LaneState { count: 1, ..LaneState::default() };
    let removal = Contribution { ticket: 2, lanes: vec![change], rows: 2, ..Contribution::default() };
    bench.writer.contribute(source, removal);
    bench.reply(CommitOutcome::NotCommitted("disk full".into()));
    let mut batch = bench.begun();
    while rows_of(&batch).len() == 3 {
        bench.reply(CommitOutcome::NotCommitted("disk full".into()));
        batch = bench.begun();
    }
    assert_eq!((batch.batch_no, batch.lanes.len(), rows_of(&batch)), (BatchNo(1), 1, vec![(1, 2)]));
    assert_eq!(batch.lanes[0].state.count, 1);
    bench.reply(CommitOutcome::Committed);
    let told = [bench.stored(), bench.stored()];
    assert_eq!(told.map(|(_, stored)| (stored.ticket, stored.durable)), [(1, true), (2, true)]);
}

#[test]
fn what_only_removes_rows_is_committed_while_the_rows_to_insert_are_refused() {
    let bench = Bench::idle();
    let (source, other) = (bench.source(1), bench.source(2));
    source.add_at_once(3);
    bench.begun();
    bench.reply(CommitOutcome::Committed);
    bench.stored();
    bench.wait_until(WriterHandle::wants_rows);
    // Rows that do not fit, in the same lane and in another, and acknowledgements of rows that the store has.
    source.add_at_once(2);
    bench.begun();
    other.add_at_once(1);
    let mut change = change(lane(1));
    change.removes = vec![Position(1), Position(3)];
    change.state = LaneState { tail: Position(5), count: 3, ..LaneState::default() };
    let removal = Contribution { ticket: 3, lanes: vec![change], rows: 2, ..Contribution::default() };
    bench.writer.contribute(Arc::clone(&source) as _, removal);
    let full = || CommitOutcome::NotCommitted("disk full".into());
    bench.reply(full());
    let removals = loop {
        let batch = bench.begun();
        if rows_of(&batch).is_empty() {
            break batch;
        }
        bench.reply(full());
    };
    assert_eq!((removals.batch_no, removals.lanes.len()), (BatchNo(2), 1));
    assert_eq!(removals.lanes[0].removes, [Position(1), Position(3)]);
    assert_eq!(removals.lanes[0].state, LaneState { tail: Position(5), count: 1, ..LaneState::default() });
    bench.reply(CommitOutcome::Committed);
    let rest = bench.begun();
    assert_eq!((rest.batch_no, rows_of(&rest).len()), (BatchNo(3), 3), "the next number");
    assert!(rest.lanes.iter().all(|change| change.removes.is_empty()));
    bench.reply(CommitOutcome::Committed);
    for _ in 0..3 {
        assert_eq!((bench.stored().1.batch_no, true), (BatchNo(3), true));
    }
    bench.wait_until(WriterHandle::wants_rows);
    source.add_at_once(1);
    assert_eq!(bench.begun().batch_no, BatchNo(4));
}

#[test]
fn removals_of_a_group_wait_for_the_rest_of_it_on_a_full_disk_too() {
    let bench = Bench::idle();
    let (source, other) = (bench.source(1), bench.source(2));
    let mut change = change(lane(1));
    change.removes = vec![Position(1)];
    let groups = vec![group(1, 2)];
    let removal = Contribution { ticket: 1, lanes: vec![change], rows: 1, groups, ..Contribution::default() };
    bench.writer.contribute(Arc::clone(&source) as _, removal);
    other.add_part(1, &[group(1, 2)]);
    for _ in 0..4 {
        let batch = bench.begun();
        assert_eq!((batch.batch_no, rows_of(&batch)), (BatchNo(1), vec![(2, 1)]), "whole each time");
        bench.reply(CommitOutcome::NotCommitted("disk full".into()));
    }
}

#[test]
fn an_unknown_outcome_is_looked_up() {
    let bench = Bench::idle();
    let source = bench.source(1);
    source.add_at_once(1);
    bench.begun();
    *bench.last_on_disk.lock().unwrap() = BatchNo(1);
    bench.reply(CommitOutcome::Unknown("flush failed".into()));
    assert!(matches!(bench.next(), Event::Reopen));
    assert_eq!(bench.stored(), (1, Stored { ticket: 1, batch_no: BatchNo(1), durable: true }), "it was there");

    source.add_at_once(1);
    assert_eq!(bench.begun().batch_no, BatchNo(2));
    bench.reply(CommitOutcome::Unknown("flush failed".into()));
    assert!(matches!(bench.next(), Event::Reopen));
    assert_eq!(bench.begun().batch_no, BatchNo(2), "it was not there");
    bench.reply(CommitOutcome::Committed);
    assert_eq!(bench.stored(), (1, Stored { ticket: 2, batch_no: BatchNo(2), durable: true }));
}

#[test]
fn a_store_that_never_knows_is_given_up() {
    let give_up_after = Duration::from_millis(300);
    let bench = Bench::start(WriterSettings { give_up_after, ..WriterSettings::default() });
    let began = Instant::now();
    bench.source(1).add_at_once(1);
    let told = loop {
        match bench.next() {
            Event::Commit(_) => bench.reply(CommitOutcome::Unknown("flush failed".into())),
            Event::Stored(_, stored) => break stored,
            _ => {}
        }
    };
    assert!(!told.durable && began.elapsed() >= give_up_after);
    assert_eq!(bench.writer.stats().state, WriterState::Failed);
}

fn fails_for_good(reply: Reply) {
    let bench = Bench::idle();
    let (first, second) = (bench.source(1), bench.source(2));
    first.add_at_once(1);
    bench.begun();
    second.add_at_once(1);
    bench.writer.topology(vec![vhost("/")], bench.then("put"));
    bench.replies.as_ref().unwrap().send(reply).unwrap();
    assert_eq!(bench.stored(), (1, Stored { ticket: 1, batch_no: BatchNo(1), durable: false }));
    assert!(matches!(bench.next(), Event::Then("put", false)));
    let (id, stored) = bench.stored();
    assert_eq!((id, stored.ticket, stored.durable), (2, 1, false));
    second.add(1);
    assert!(!bench.stored().1.durable);
    bench.writer.topology(vec![vhost("/")], bench.then("later"));
    assert!(matches!(bench.next(), Event::Then("later", false)));
    bench.wait_until(WriterHandle::wants_rows);
    bench.writer.topology(Vec::new(), bench.then("barrier"));
    assert!(matches!(bench.next(), Event::Then("barrier", false)));
    assert!(!bench.writer.flush());
    assert!(bench.writer.stop().is_err());
}

#[test]
fn after_a_fatal_outcome_nothing_is_durable() {
    fails_for_good(Reply::Outcome(CommitOutcome::Fatal("corrupt".into())));
}

#[test]
fn a_fenced_store_makes_nothing_durable() {
    fails_for_good(Reply::Outcome(CommitOutcome::Fenced));
}

#[test]
fn a_panic_in_the_store_leaves_nobody_waiting() {
    fails_for_good(Reply::Panic);
}

#[test]
fn topology_is_told_in_order_and_a_barrier_waits_for_what_was_before_it() {
    let bench = Bench::idle();
    let source = bench.source(1);
    bench.writer.topology(Vec::new(), bench.then("nothing pending"));
    assert!(matches!(bench.events.try_recv(), Ok(Event::Then("nothing pending", true))), "at once");

    source.add_at_once(1);
    bench.begun();
    bench.writer.topology(vec![vhost("a")], bench.then("a"));
    bench.writer.topology(Vec::new(), bench.then("after a"));
    bench.writer.topology(vec![vhost("b")], bench.then("b"));
    assert!(bench.events.try_recv().is_err());
    bench.reply(CommitOutcome::Committed);
    bench.stored();
    assert_eq!(bench.begun().topology, [vhost("a"), vhost("b")]);
    bench.reply(CommitOutcome::Committed);
    for expected in ["a", "after a", "b"] {
        assert!(matches!(bench.next(), Event::Then(name, true) if name == expected), "{expected}");
    }
}

#[test]
fn a_barrier_waits_for_contributions_that_take_several_batches() {
    let settings = WriterSettings { rows_max: 10, ..WriterSettings::default() };
    let bench = Bench::start(settings);
    let source = bench.source(1);
    source.add_at_once(1);
    bench.begun();
    for _ in 0..3 {
        source.add_at_once(10);
    }
    bench.writer.topology(Vec::new(), bench.then("barrier"));
    source.add_at_once(10);
    bench.reply(CommitOutcome::Committed);
    assert_eq!(bench.stored().1.ticket, 1);
    for ticket in 2..=4 {
        assert_eq!(rows_of(&bench.begun()).len(), 10);
        bench.reply(CommitOutcome::Committed);
        if ticket == 4 {
            assert!(matches!(bench.next(), Event::Then("barrier", true)));
        }
        assert_eq!(bench.stored().1.ticket, ticket);
    }
}

#[test]
fn a_deletion_does_not_overtake_what_its_queue_contributed_before() {
    let settings = WriterSettings { rows_max: 10, ..WriterSettings::default() };
    let bench = Bench::start(settings);
    let source = bench.source(1);
    source.add_at_once(1);
    bench.begun();
    source.add_at_once(10);
    source.add_at_once(10);
    let deletion = TopologyChange::DeleteQueue(crate::model::QueueId(1));
    bench.writer.topology(vec![vhost("a")], bench.then("a"));
    bench.writer.topology(vec![deletion.clone()], bench.then("deleted"));
    bench.reply(CommitOutcome::Committed);
    bench.stored();
    assert_eq!(bench.begun().topology, [vhost("a")]);
    bench.reply(CommitOutcome::Committed);
    assert!(matches!(bench.next(), Event::Then("a", true)));
    bench.stored();
    let last = bench.begun();
    assert_eq!((rows_of(&last).len(), last.topology), (10, vec![deletion]));
}

#[test]
fn batches_keep_to_their_size_and_everyone_has_a_turn() {
    let settings = WriterSettings { rows_max: 100, ..WriterSettings::default() };
    let bench = Bench::start(settings);
    let (heavy, light) = (bench.source(1), bench.source(2));
    heavy.add(10_000);
    let first = bench.begun();
    assert!(rows_of(&first).len() <= 100);
    light.add(1);
    bench.reply(CommitOutcome::Committed);
    bench.stored();
    let second = rows_of(&bench.begun());
    assert!(second.len() <= 101 && second.contains(&(2, 1)), "{} rows", second.len());
}

#[test]
fn many_sources_with_a_few_rows_each_are_asked_for_all_of_them_in_turn() {
    let bench = Bench::idle();
    let sources: Vec<_> = (1..=100).map(|id| bench.source(id)).collect();
    let first = bench.source(1_000);
    first.add_at_once(1);
    bench.begun();
    sources.iter().for_each(|source| source.add(20));
    bench.reply(CommitOutcome::Committed);
    bench.stored();
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let rows = rows_of(&bench.begun());
        assert!(rows.len() <= 1_000, "{} rows", rows.len());
        let whole = rows.chunk_by(|(one, _), (other, _)| one == other);
        let ids: Vec<_> = whole.map(|of_one| (of_one[0].0, of_one.len())).collect();
        assert!(
            ids.iter().all(|(_, count)| *count == 20),
            "all that some have, rather than a share of what each has: {ids:?}"
        );
        seen.extend(ids.iter().map(|(id, _)| *id));
        bench.reply(CommitOutcome::Committed);
        ids.iter().for_each(|_| _ = bench.stored());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=100).collect::<Vec<_>>());
}

#[test]
fn a_source_that_never_answers_holds_nobody_up() {
    let mut bench = Bench::idle();
    let (dead, live) = (bench.source_that(1, false), bench.source(2));
    dead.add(1);
    bench.let_go();
    for ticket in 1..=3 {
        live.add(1);
        bench.begun();
        assert_eq!(bench.stored().1.ticket, ticket);
    }
    assert_eq!(bench.writer.stop(), Ok(()));
}

#[test]
fn an_empty_contribution_answers_a_pull_and_is_told_nothing() {
    let mut bench = Bench::idle();
    bench.let_go();
    let source = bench.source(1);
    source.add(0);
    source.turns.0.send(Box::new(|| {})).unwrap();
    assert!(bench.writer.flush());
    assert!(bench.events.try_recv().is_err());
    source.add(1);
    assert!(bench.writer.flush());
    bench.begun();
    assert_eq!(bench.stored().1.ticket, 2);
}

#[test]
fn stopping_commits_what_is_outstanding_and_closes_the_store() {
    let mut bench = Bench::idle();
    let source = bench.source(1);
    source.add_at_once(1);
    bench.begun();
    source.add(2_500);
    bench.writer.topology(vec![vhost("/")], bench.then("put"));
    bench.let_go();
    assert_eq!(bench.writer.stop(), Ok(()));
    let (mut rows, mut told) = (1, Vec::new());
    loop {
        match bench.next() {
            Event::Commit(batch) => rows += rows_of(&batch).len(),
            Event::Stored(_, stored) => told.push(stored.durable),
            Event::Then(_, durable) => assert!(durable),
            Event::Closed => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rows, 2_501);
    assert!(told.iter().all(|durable| *durable) && told.len() >= 4);

    source.add_at_once(1);
    assert!(!bench.stored().1.durable, "afterwards nothing is durable");
    bench.writer.topology(vec![vhost("/")], bench.then("late"));
    assert!(matches!(bench.next(), Event::Then("late", false)));
    let request = LoadRequest {
        lane: lane(1),
        range: PositionRange { from: Position(0), to: POSITION_MAX },
        rows_max: 1,
        bytes_max: 1,
    };
    let (tell, answer) = channel();
    bench.writer.load(request, Box::new(move |loaded| tell.send(loaded.is_err()).unwrap()));
    assert!(answer.recv_timeout(LIMIT).unwrap());
    assert_eq!(bench.writer.stop(), Ok(()));
}

#[test]
fn stopping_does_not_wait_for_a_disk_that_stays_full() {
    let bench = Bench::idle();
    bench.source(1).add_at_once(1);
    bench.begun();
    let stopping = thread::spawn({
        let writer = bench.writer.clone();
        move || writer.stop()
    });
    let told = loop {
        bench.reply(CommitOutcome::NotCommitted("disk full".into()));
        match bench.next() {
            Event::Commit(_) => {}
            Event::Stored(_, stored) => break stored,
            other => panic!("{other:?}"),
        }
    };
    assert!(!told.durable);
    assert!(stopping.join().unwrap().is_err());
}

#[test]
fn the_writer_ends_with_its_last_handle() {
    let Bench { writer, events, tell, replies, .. } = Bench::idle();
    drop((writer, tell, replies));
    assert!(matches!(events.recv_timeout(LIMIT), Ok(Event::Closed)));
}

#[test]
fn dropped_lanes_are_erased_when_idle_and_between_batches() {
    let mut bench = Bench::idle();
    let source = bench.source(1);
    let drop_lanes = vec![lane(5)];
    let contribution = Contribution { ticket: 1, drop_lanes, ..Contribution::default() };
    bench.writer.contribute(Arc::clone(&source) as Arc<dyn Source>, contribution);
    bench.begun();
    bench.reply(CommitOutcome::Committed);
    bench.stored();
    for _ in 0..3 {
        assert!(matches!(bench.next(), Event::Erase));
    }

    // Never idle: the queue always has more.
    source.add(100_000);
    let drop_lanes = vec![lane(6)];
    let contribution = Contribution { ticket: 2, drop_lanes, more: true, ..Contribution::default() };
    bench.writer.contribute(Arc::clone(&source) as Arc<dyn Source>, contribution);
    bench.let_go();
    let mut erased = 0;
    let mut rows = 0;
    while erased < 3 {
        match bench.next() {
            Event::Erase => erased += 1,
            Event::Commit(batch) => rows += rows_of(&batch).len(),
            _ => {}
        }
    }
    assert!(rows < 100_000, "erased only after all {rows} rows");
    assert_eq!(bench.writer.stop(), Ok(()));
}

#[test]
fn loads_are_answered_and_a_panic_in_one_does_not_stop_the_next() {
    let bench = Bench::idle();
    let load = |queue| {
        let range = PositionRange { from: Position(0), to: POSITION_MAX };
        let request = LoadRequest { lane: lane(queue), range, rows_max: 1, bytes_max: 1 };
        let (tell, answer) = channel();
        bench.writer.load(request, Box::new(move |loaded| tell.send(loaded.map(|loaded| loaded.as_of)).unwrap()));
        answer.recv_timeout(LIMIT).unwrap()
    };
    assert_eq!(load(4), Ok(BatchNo(4)));
    assert!(load(13).is_err());
    assert_eq!(load(5), Ok(BatchNo(5)));
}

#[test]
fn every_contribution_is_told_once_in_order_and_every_row_is_stored() {
    const SOURCES: u64 = 50;
    const ROWS: u64 = 400;
    let disk = MemoryDisk::default();
    let store = MemoryStore::open(disk.clone());
    let writer =
        WriterHandle::start(Box::new(store), BatchNo(0), WriterSettings::default(), SystemClock::shared()).unwrap();
    let (tell, events) = channel();
    let turns = Turns::start();
    let sources: Vec<_> = (0..SOURCES)
        .map(|id| {
            let (writer, events, turns) = (writer.clone(), tell.clone(), turns.clone());
            Arc::new(TestSource {
                offers: Arc::default(),
                id,
                writer,
                events,
                turns,
                pending: Mutex::default(),
                waiting: AtomicUsize::new(0),
                answers: true,
            })
        })
        .collect();
    thread::scope(|scope| {
        for part in sources.chunks(13) {
            scope.spawn(move || {
                for at in 0..ROWS {
                    for source in part {
                        if source.writer.wants_rows() && at % 3 == 0 && !source.pending.lock().unwrap().is_dirty {
                            source.add_at_once(1);
                        } else {
                            source.add(1);
                        }
                    }
                }
            });
        }
    });
    assert!(writer.flush());
    let mut last = vec![0; SOURCES as usize];
    let mut told = 0;
    for event in events.try_iter() {
        let Event::Stored(id, stored) = event else { panic!("only outcomes are told") };
        assert!(stored.durable && stored.ticket > last[id as usize], "in order, once");
        last[id as usize] = stored.ticket;
        told += 1;
    }
    assert!(told > SOURCES);
    let stats = writer.stats();
    assert_eq!((stats.rows_inserted, stats.bytes), (SOURCES * ROWS, SOURCES * ROWS * 100));
    let store = MemoryStore::open(disk);
    for id in 0..SOURCES {
        assert_eq!(positions(&store, lane(id)), (1..=ROWS).collect::<Vec<_>>());
    }
    assert_eq!(writer.stop(), Ok(()));
}

fn group(number: u64, parts: u32) -> Group {
    Group { number, parts }
}

#[test]
fn parts_of_a_group_are_committed_together_beyond_all_limits_and_nothing_overtakes_them() {
    let bench = Bench::start(WriterSettings { rows_max: 2, ..WriterSettings::default() });
    bench.wait_until(WriterHandle::wants_rows);
    let (one, two, other) = (bench.source(1), bench.source(2), bench.source(3));
    one.add_part(3, &[group(7, 2)]);
    other.add_at_once(1);
    thread::sleep(Duration::from_millis(20));
    assert!(bench.events.try_recv().is_err(), "the group is not whole");
    two.add_part(3, &[group(7, 2)]);
    let batch = bench.begun();
    assert_eq!(rows_of(&batch), [(1, 1), (1, 2), (1, 3), (3, 1), (2, 1), (2, 2), (2, 3)]);
    bench.reply(CommitOutcome::Committed);
    let told: Vec<_> = (0..3).map(|_| bench.stored()).collect();
    assert!(told.iter().all(|(_, stored)| stored.durable && stored.batch_no == BatchNo(1)));
}

#[test]
fn a_part_that_fills_a_batch_does_not_keep_the_others_out_while_there_is_other_work() {
    let bench = Bench::start(WriterSettings { rows_max: 2, ..WriterSettings::default() });
    bench.wait_until(WriterHandle::wants_rows);
    let (one, two, other) = (bench.source(1), bench.source(2), bench.source(3));
    let began = Instant::now();
    one.add_part(3, &[group(7, 2)]);
    other.add(1);
    thread::sleep(Duration::from_millis(20));
    two.add_part(3, &[group(7, 2)]);
    let batch = bench.begun();
    assert!(began.elapsed() < ANSWER_PATIENCE_MAX / 2, "{:?}", began.elapsed());
    assert_eq!(rows_of(&batch)[..6], [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]);
}

#[test]
fn every_group_is_whole_whatever_its_size_and_whatever_else_there_is_to_write() {
    const GROUPS: u64 = 300;
    const THREADS: u64 = 3;
    let settings = WriterSettings { rows_max: 4, ..WriterSettings::default() };
    let mut bench = Bench::start(settings);
    bench.let_go();
    let sources: Vec<_> = (0..5).map(|id| bench.source(id)).collect();
    let others: Vec<_> = (5..8).map(|id| bench.source(id)).collect();
    let began = Instant::now();
    let parts: Vec<(u64, u64, u64)> = thread::scope(|scope| {
        let threads = (0..THREADS).map(|thread| {
            let (sources, others) = (&sources, &others);
            scope.spawn(move || {
                let mut random = Random::new(thread);
                let mut parts = Vec::new();
                for number in 0..GROUPS {
                    let number = number * THREADS + thread;
                    let count = 1 + random.next_u64() % 4;
                    let first = random.next_u64();
                    for at in 0..count {
                        let source = &sources[((first + at) % sources.len() as u64) as usize];
                        let ticket = source.add_part(random.next_u64() % 8, &[group(number, count as u32)]);
                        parts.push((number, source.id, ticket));
                        others[(random.next_u64() % others.len() as u64) as usize].add(1 + random.next_u64() % 3);
                        if random.next_u64().is_multiple_of(4) {
                            thread::sleep(Duration::from_micros(random.next_u64() % 300));
                        }
                    }
                }
                parts
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(bench.writer.flush());
    assert!(began.elapsed() < ANSWER_PATIENCE_MAX, "nobody was waited for: {:?}", began.elapsed());
    let stored: HashMap<(u64, u64), BatchNo> = bench
        .events
        .try_iter()
        .filter_map(|event| match event {
            Event::Stored(id, Stored { ticket, batch_no, .. }) => Some(((id, ticket), batch_no)),
            _ => None,
        })
        .collect();
    let mut batches: HashMap<u64, BatchNo> = HashMap::new();
    for (number, id, ticket) in parts {
        let batch_no = stored[&(id, ticket)];
        assert_eq!(*batches.entry(number).or_insert(batch_no), batch_no, "group {number} is torn");
    }
}

#[test]
fn groups_that_cross_each_other_are_one_batch() {
    let bench = Bench::idle();
    let (one, two) = (bench.source(1), bench.source(2));
    one.add_part(1, &[group(1, 2)]);
    two.add_part(1, &[group(2, 2)]);
    two.add_part(1, &[group(1, 2)]);
    assert!(bench.events.try_recv().is_err());
    one.add_part(1, &[group(2, 2), group(3, 1)]);
    assert_eq!(rows_of(&bench.begun()).len(), 4);
}

#[test]
fn a_part_with_nothing_to_write_is_told_all_the_same() {
    let bench = Bench::idle();
    let (one, two) = (bench.source(1), bench.source(2));
    two.add_part(0, &[group(1, 2)]);
    one.add_part(1, &[group(1, 2)]);
    assert_eq!(rows_of(&bench.begun()), [(1, 1)]);
    bench.reply(CommitOutcome::Committed);
    let mut told = [bench.stored().0, bench.stored().0];
    told.sort_unstable();
    assert_eq!(told, [1, 2]);
    two.add_part(0, &[group(2, 1)]);
    assert!(bench.stored().1.durable, "alone it needs no commit");
}

#[test]
fn a_part_that_never_comes_is_waited_for_only_so_long() {
    let bench = Bench::idle();
    let one = bench.source(1);
    let began = Instant::now();
    one.add_part(1, &[group(1, 2)]);
    assert_eq!(rows_of(&bench.begun()), [(1, 1)]);
    assert!(began.elapsed() >= ANSWER_PATIENCE_MAX);
}

/// Hands a row over and commits it on this thread.
fn commit_here(source: &Arc<TestSource>) {
    let offer = Offer::begin(&source.writer, &source.offers);
    source.add_at_once(1);
    assert!(offer.is_taken_up());
    offer.commit();
}

#[test]
fn who_offers_to_commit_what_it_hands_over_does_so_while_the_writer_sleeps() {
    let mut bench = Bench::idle();
    bench.let_go();
    let source = bench.source(1);
    for number in 1..=3 {
        commit_here(&source);
        assert_eq!((bench.begun().batch_no, bench.stored().1.durable), (BatchNo(number), true));
        assert!(bench.writer.wants_rows() && bench.writer.is_idle());
    }
    assert_eq!((bench.writer.stats().batches, bench.writer.stats().batches_inline), (3, 3));
    let offer = Offer::begin(&bench.writer, &bench.offers);
    assert!(!offer.is_taken_up(), "nothing was handed over");
    drop(offer);
    source.add_at_once(1);
    assert_eq!((bench.begun().batch_no, bench.stored().1.durable), (BatchNo(4), true));
    assert_eq!(bench.writer.stats().batches_inline, 3, "an offer is over when it is over");
}

#[test]
fn what_was_handed_over_under_an_offer_that_is_withdrawn_is_the_writers() {
    let mut bench = Bench::idle();
    bench.let_go();
    let source = bench.source(1);
    let offer = Offer::begin(&bench.writer, &bench.offers);
    source.add_at_once(2);
    drop(offer);
    assert_eq!((rows_of(&bench.begun()).len(), bench.stored().1.durable), (2, true));
    assert_eq!(bench.writer.stats().batches_inline, 0);
}

#[test]
fn an_offer_is_to_one_writer() {
    let (mut one, mut other) = (Bench::idle(), Bench::idle());
    one.let_go();
    other.let_go();
    let offer = Offer::begin(&one.writer, &one.offers);
    other.source(1).add_at_once(1);
    assert!(!offer.is_taken_up());
    assert!(other.stored_after_commit());
    drop(offer);
}

#[test]
fn what_others_hand_over_meanwhile_is_the_writers() {
    let bench = Bench::idle();
    let (source, other) = (bench.source(1), bench.source(2));
    thread::scope(|scope| {
        scope.spawn(|| commit_here(&source));
        assert_eq!(rows_of(&bench.begun()), [(1, 1)]);
        assert!(!bench.writer.wants_rows());
        other.add_at_once(3);
        bench.reply(CommitOutcome::Committed);
        assert_eq!(bench.stored().0, 1);
        assert_eq!(rows_of(&bench.begun()), [(2, 1), (2, 2), (2, 3)]);
        bench.reply(CommitOutcome::Committed);
        assert_eq!(bench.stored().0, 2);
    });
    assert_eq!((bench.writer.stats().batches, bench.writer.stats().batches_inline), (2, 1));
}

#[test]
fn a_commit_that_fails_under_an_offer_is_tried_again_by_the_writer() {
    let bench = Bench::idle();
    let source = bench.source(1);
    for (first, is_looked_up) in
        [(CommitOutcome::NotCommitted("no".into()), false), (CommitOutcome::Unknown("perhaps".into()), true)]
    {
        bench.reply(first);
        let before = bench.writer.stats().batches;
        commit_here(&source);
        let tried = bench.begun().batch_no;
        if is_looked_up {
            assert!(matches!(bench.next(), Event::Reopen), "what became of it is asked before it is tried again");
        }
        bench.reply(CommitOutcome::Committed);
        assert_eq!(bench.begun().batch_no, tried);
        let (_, stored) = bench.stored();
        assert!(stored.durable);
        bench.wait_until(WriterHandle::wants_rows);
        assert_eq!(bench.writer.stats().batches, before + 1);
    }
    assert_eq!(bench.writer.stats().batches_inline, 0);
}

#[test]
fn a_stop_waits_for_a_commit_under_an_offer() {
    let bench = Bench::idle();
    let source = bench.source(1);
    thread::scope(|scope| {
        scope.spawn(|| commit_here(&source));
        bench.begun();
        let writer = bench.writer.clone();
        let stopping = scope.spawn(move || writer.stop());
        bench.reply(CommitOutcome::Committed);
        assert!(bench.stored().1.durable);
        assert!(matches!(bench.next(), Event::Closed));
        assert_eq!(stopping.join().unwrap(), Ok(()));
    });
}

#[test]
fn who_offers_leaves_erasing_to_the_writer() {
    let mut bench = Bench::idle();
    bench.let_go();
    let source = bench.source(1);
    let offer = Offer::begin(&bench.writer, &bench.offers);
    let contribution = Contribution { ticket: 1, drop_lanes: vec![lane(1)], rows: 1, ..Contribution::default() };
    bench.writer.contribute(Arc::clone(&source) as Arc<dyn Source>, contribution);
    offer.commit();
    bench.begun();
    assert!(bench.stored().1.durable);
    for _ in 0..3 {
        assert!(matches!(bench.next(), Event::Erase));
    }
}
