//! The writer against a store whose every commit the test answers, and against the store in memory.

mod batches;
mod beside;
mod groups;
mod inline;
mod outcomes;
mod stopping;
mod topology;

use crate::model::Name;
use crate::store::commit::{
    Completion, Contribution, ContributionOutcome, InlineCommits, Source, WriterHandle, WriterSettings,
};
use crate::store::contract::{inserts, lane};
use crate::store::{
    Batch, BatchNo, CommitOutcome, Group, LoadRequest, LoadedRange, Maintenance, ReadError, RecoveredState, Store,
    StoreError, StoreReader, SystemClock, TopologyChange, VhostRecord,
};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

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
    Stored(u64, ContributionOutcome),
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
    fn recover(&mut self) -> Result<RecoveredState, StoreError> {
        Ok(RecoveredState::default())
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
    fn load(&mut self, request: LoadRequest) -> Result<LoadedRange, ReadError> {
        let lane = request.lane;
        assert!(lane.queue.0 != 13, "as the test wants it");
        Ok(LoadedRange { rows: Vec::new(), as_of: BatchNo(lane.queue.0) })
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
    pending: Mutex<SourceState>,
    waiting: AtomicUsize,
    answers: bool,
}

#[derive(Default)]
struct SourceState {
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

    fn hand_over(self: &Arc<Self>, pending: &mut SourceState, rows: Vec<u64>) {
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

    fn stored(self: Arc<Self>, outcome: ContributionOutcome) {
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
    fn stored(&self) -> (u64, ContributionOutcome) {
        match self.next() {
            Event::Stored(id, stored) => (id, stored),
            other => panic!("an outcome is reported, not {other:?}"),
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

    fn then(&self, name: &'static str) -> Completion {
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

fn group(number: u64, parts: u32) -> Group {
    Group { number, parts }
}
