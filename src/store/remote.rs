//! A store behind a network, for tests: commits take time, answers get lost, and another node may take the store over.

use super::commit::{Contribution, ContributionOutcome, Source, WriterHandle, WriterSettings};
use super::contract::{StoreLocation, contract_tests, inserts, lane};
use super::memory::{MemoryDisk, MemoryStore};
use super::{
    Batch, BatchNo, CommitOutcome, LoadRequest, LoadedRange, Maintenance, POSITION_MAX, PositionRange, ReadError,
    RecoveredState, Store, StoreError, StoreReader, StoreTraits, SystemClock,
};
use crate::model::random::Random;
use crate::model::{Position, QueueId};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

/// The number of readers.
const READERS: usize = 4;

/// A database that several nodes can reach.
#[derive(Clone, Default)]
struct Database {
    disk: MemoryDisk,
    /// The epoch of the node that owns it: the last that connected.
    epoch: Arc<AtomicU64>,
}

/// One node's connection to the database.
struct RemoteStore {
    inner: MemoryStore,
    database: Database,
    epoch: u64,
    random: Random,
}

impl Database {
    fn connect(&self) -> RemoteStore {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        let inner = MemoryStore::open(self.disk.clone());
        RemoteStore { inner, database: self.clone(), epoch, random: Random::new(epoch) }
    }
}

impl RemoteStore {
    fn is_fenced(&self) -> bool {
        self.database.epoch.load(Ordering::SeqCst) != self.epoch
    }
}

impl Store for RemoteStore {
    fn recover(&mut self) -> Result<RecoveredState, StoreError> {
        self.inner.recover()
    }

    fn commit(&mut self, batch: &Batch) -> CommitOutcome {
        if self.is_fenced() {
            return CommitOutcome::Fenced;
        }
        let chance = self.random.next_u64() % 100;
        thread::sleep(Duration::from_micros(self.random.next_u64() % 300));
        match chance {
            0..10 => CommitOutcome::NotCommitted("the server has no space".into()),
            10..20 => CommitOutcome::Unknown("the connection was lost on the way there".into()),
            20..30 => {
                assert_eq!(self.inner.commit(batch), CommitOutcome::Committed);
                CommitOutcome::Unknown("the connection was lost on the way back".into())
            }
            _ => self.inner.commit(batch),
        }
    }

    fn reopen(&mut self) -> Result<BatchNo, StoreError> {
        match self.random.next_u64() % 4 {
            0 => Err(StoreError::Unusable("the server does not answer".into())),
            _ => self.inner.reopen(),
        }
    }

    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        self.inner.reader()
    }

    fn traits(&self) -> StoreTraits {
        let batch_latency = Duration::from_millis(3);
        StoreTraits { commits_in_place: false, batch_latency, rows_worth_asking: 100, readers: READERS }
    }

    fn maintenance(&mut self) -> Option<&mut dyn Maintenance> {
        self.inner.maintenance()
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Box::new(self.inner).close()
    }
}

impl StoreLocation for Database {
    fn open(&self) -> Box<dyn Store> {
        Box::new(self.connect())
    }
}

contract_tests!(Database::default());

/// A queue that only receives outcomes.
struct OutcomeReceiver(Sender<ContributionOutcome>);

impl Source for OutcomeReceiver {
    fn pull(self: Arc<Self>, _rows_max: usize, _bytes_max: usize) {}

    fn rows_waiting(&self) -> usize {
        0
    }

    fn stored(self: Arc<Self>, outcome: ContributionOutcome) {
        self.0.send(outcome).expect("the test listens");
    }
}

fn start(store: RemoteStore) -> WriterHandle {
    WriterHandle::start(Box::new(store), BatchNo(0), WriterSettings::default(), SystemClock::shared()).unwrap()
}

fn contribution(ticket: u64) -> Contribution {
    Contribution { ticket, lanes: vec![inserts(lane(1), [ticket])], rows: 1, bytes: 100, ..Contribution::default() }
}

const EVERYTHING: PositionRange = PositionRange { from: Position(0), to: POSITION_MAX };

#[test]
fn lost_answers_cost_time_and_nothing_else() {
    let database = Database::default();
    let writer = start(database.connect());
    let (sender, outcomes) = channel();
    let source: Arc<dyn Source> = Arc::new(OutcomeReceiver(sender));
    for ticket in 1..=200 {
        writer.contribute(Arc::clone(&source), contribution(ticket));
        if ticket % 3 == 0 {
            assert!(writer.flush());
        }
    }
    assert!(writer.flush());
    let received: Vec<(u64, bool)> =
        (0..200).map(|_| outcomes.recv().unwrap()).map(|it| (it.ticket, it.durable)).collect();
    assert_eq!(received, (1..=200).map(|ticket| (ticket, true)).collect::<Vec<_>>());
    writer.stop().unwrap();
    let mut reader = database.connect().reader().unwrap();
    let rows = reader.load(LoadRequest::new(lane(1), EVERYTHING, 1000, usize::MAX)).unwrap().rows;
    assert_eq!(rows.iter().map(|row| row.position.0).collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
}

#[test]
fn a_node_whose_store_was_taken_over_stores_nothing_more_and_refuses_what_it_has() {
    let database = Database::default();
    let writer = start(database.connect());
    let (sender, outcomes) = channel();
    let source: Arc<dyn Source> = Arc::new(OutcomeReceiver(sender));
    writer.contribute(Arc::clone(&source), contribution(1));
    assert!(writer.flush() && outcomes.recv().unwrap().durable);
    let other = database.connect();
    for ticket in 2..=5 {
        writer.contribute(Arc::clone(&source), contribution(ticket));
        assert!(!outcomes.recv().unwrap().durable);
    }
    let trouble = writer.stats().trouble().unwrap_or_default();
    assert!(trouble.contains("another home owns the store"), "{trouble}");
    assert!(writer.stop().is_err());
    let rows = other.reader().unwrap().load(LoadRequest::new(lane(1), EVERYTHING, 10, usize::MAX)).unwrap().rows;
    assert_eq!(rows.len(), 1);
}

/// A reader that answers once all readers of the store have a request.
struct BarrierReader(Arc<Barrier>);

impl StoreReader for BarrierReader {
    fn load(&mut self, request: LoadRequest) -> Result<LoadedRange, ReadError> {
        self.0.wait();
        Ok(LoadedRange { rows: Vec::new(), as_of: BatchNo(request.lane.queue.0) })
    }
}

/// A store whose readers wait for one another.
struct BarrierStore(RemoteStore, Arc<Barrier>);

impl Store for BarrierStore {
    fn recover(&mut self) -> Result<RecoveredState, StoreError> {
        self.0.recover()
    }

    fn commit(&mut self, batch: &Batch) -> CommitOutcome {
        self.0.commit(batch)
    }

    fn reopen(&mut self) -> Result<BatchNo, StoreError> {
        self.0.reopen()
    }

    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        Ok(Box::new(BarrierReader(Arc::clone(&self.1))))
    }

    fn traits(&self) -> StoreTraits {
        self.0.traits()
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Box::new(self.0).close()
    }
}

#[test]
fn as_many_loads_are_under_way_as_there_are_readers() {
    let store = BarrierStore(Database::default().connect(), Arc::new(Barrier::new(READERS)));
    let writer =
        WriterHandle::start(Box::new(store), BatchNo(0), WriterSettings::default(), SystemClock::shared()).unwrap();
    let (sender, outcomes) = channel();
    for queue in 0..READERS as u64 {
        let sender = sender.clone();
        let lane = crate::model::Lane { queue: QueueId(queue), level: 0, generation: 0 };
        let then = move |loaded: Result<LoadedRange, ReadError>| sender.send(loaded.unwrap().as_of.0).unwrap();
        writer.load(LoadRequest::new(lane, EVERYTHING, 1, 1), Box::new(then));
    }
    let mut received: Vec<u64> =
        (0..READERS).map(|_| outcomes.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
    received.sort_unstable();
    assert_eq!(received, [0, 1, 2, 3]);
    writer.stop().unwrap();
}
