//! A store in memory that refuses batches, loses answers and fails reads.

use prontomq::internals::model::random::Random;
use prontomq::internals::server::SimulatedClock;
use prontomq::internals::store::memory::{MemoryDisk, MemoryStore};
use prontomq::internals::store::{
    Batch, BatchNo, CommitOutcome, LoadRequest, LoadedRange, Maintenance, ReadError, RecoveredState, Store, StoreError,
    StoreReader,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What of a hundred calls fails.
const REFUSED: u64 = 3;
const UNKNOWN: u64 = 4;
const UNREAD: u64 = 2;

/// What the store does by itself, and what it has done.
#[derive(Default)]
pub(crate) struct Faults {
    /// The disk is full.
    pub(crate) is_full: AtomicBool,
    /// Nothing fails any more.
    pub(crate) is_well: AtomicBool,
    pub(crate) refused: AtomicU64,
    pub(crate) unknown: AtomicU64,
    pub(crate) unread: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) loads: AtomicU64,
    /// Losses of power in the midst of what no client knew of.
    pub(crate) cut_short: AtomicU64,
}

/// Where messages outlive the broker.
pub(crate) trait Disk {
    /// A store as the next process finds it; the disk has lost what a power failure takes.
    fn open(&mut self, seed: u64, faults: &Arc<Faults>, clock: &SimulatedClock) -> Box<dyn Store>;

    /// Clients learn nothing of what happens from here to the next loss of power. Returns whether it may come at any moment in
    /// between.
    fn hide_from_clients(&mut self) -> bool {
        false
    }

    /// The power fails; the process that has the disk writes nothing more.
    fn lose_power(&mut self) {}
}

impl Disk for MemoryDisk {
    fn open(&mut self, seed: u64, faults: &Arc<Faults>, _clock: &SimulatedClock) -> Box<dyn Store> {
        Box::new(FaultyStore::open(self.clone(), seed, Arc::clone(faults)))
    }
}

struct FaultyStore {
    inner: MemoryStore,
    random: Random,
    faults: Arc<Faults>,
}

impl FaultyStore {
    fn open(disk: MemoryDisk, seed: u64, faults: Arc<Faults>) -> Self {
        Self { inner: MemoryStore::open(disk), random: Random::new(seed), faults }
    }
}

pub(crate) fn add(count: &AtomicU64) {
    count.fetch_add(1, Ordering::Relaxed);
}

/// There is space on a full disk for what gives space back.
fn only_removes(batch: &Batch) -> bool {
    batch.topology.is_empty() && batch.lanes.iter().all(|change| change.inserts.is_empty())
}

impl Store for FaultyStore {
    fn recover(&mut self) -> Result<RecoveredState, StoreError> {
        self.inner.recover()
    }

    fn commit(&mut self, batch: &Batch) -> CommitOutcome {
        let chance = self.random.next_u64() % 100;
        if !self.faults.is_well.load(Ordering::Relaxed) {
            let is_full = self.faults.is_full.load(Ordering::Relaxed) && !only_removes(batch);
            if is_full || chance < REFUSED {
                add(&self.faults.refused);
                return CommitOutcome::NotCommitted("the disk is full".into());
            }
            if chance < REFUSED + UNKNOWN {
                add(&self.faults.unknown);
                if chance.is_multiple_of(2) {
                    self.inner.commit(batch);
                }
                return CommitOutcome::Unknown("a flush failed".into());
            }
        }
        add(&self.faults.batches);
        self.inner.commit(batch)
    }

    fn reopen(&mut self) -> Result<BatchNo, StoreError> {
        match self.random.next_u64() % 4 {
            0 if !self.faults.is_well.load(Ordering::Relaxed) => {
                Err(StoreError::Unusable("it cannot be opened".into()))
            }
            _ => self.inner.reopen(),
        }
    }

    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        let random = Random::new(self.random.clone().next_u64());
        Ok(Box::new(FaultyReader { inner: self.inner.reader()?, random, faults: Arc::clone(&self.faults) }))
    }

    fn maintenance(&mut self) -> Option<&mut dyn Maintenance> {
        self.inner.maintenance()
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Box::new(self.inner).close()
    }
}

struct FaultyReader {
    inner: Box<dyn StoreReader>,
    random: Random,
    faults: Arc<Faults>,
}

impl StoreReader for FaultyReader {
    fn load(&mut self, request: LoadRequest) -> Result<LoadedRange, ReadError> {
        add(&self.faults.loads);
        if self.random.next_u64() % 100 < UNREAD && !self.faults.is_well.load(Ordering::Relaxed) {
            add(&self.faults.unread);
            return Err(ReadError::Failed("a sector cannot be read".into()));
        }
        self.inner.load(request)
    }
}
