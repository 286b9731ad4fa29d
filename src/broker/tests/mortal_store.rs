//! A store that refuses some batches at first, and may die at one of them.

use crate::model::QueueId;
use crate::model::random::Random;
use crate::store::memory::{MemoryDisk, MemoryStore};
use crate::store::{
    Batch, BatchNo, CommitOutcome, Maintenance, RecoveredState, Store, StoreError, StoreReader, TopologyChange,
};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// When the store dies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Death {
    /// The number of the batch at which the store dies, counted from the start.
    pub(super) batch: u64,
    /// Whether this batch is flushed first, so that only its outcome is lost.
    pub(super) keeps_batch: bool,
}

/// Faults in the order of batches.
pub(super) type Faults = Arc<Mutex<Vec<String>>>;

pub(super) struct MortalStore {
    inner: MemoryStore,
    death: Option<Death>,
    random: Random,
    batches: u64,
    declared: HashSet<QueueId>,
    deleted: HashSet<QueueId>,
    faults: Faults,
}

impl MortalStore {
    pub(super) fn new(disk: MemoryDisk, death: Option<Death>, seed: u64, faults: Faults) -> Self {
        let (declared, deleted) = (HashSet::new(), HashSet::new());
        Self { inner: MemoryStore::open(disk), death, random: Random::new(seed), batches: 0, declared, deleted, faults }
    }

    /// Checks that no row is written before its queue's record or after its queue's deletion.
    fn check_order(&mut self, batch: &Batch) {
        for change in &batch.topology {
            match change {
                TopologyChange::PutQueue(queue) => drop(self.declared.insert(queue.id)),
                TopologyChange::DeleteQueue(queue) => drop(self.deleted.insert(*queue)),
                _ => {}
            }
        }
        let here: HashSet<QueueId> = batch.deleted_queues().collect();
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        for lane in &batch.lanes {
            let queue = lane.lane.queue;
            if !self.declared.contains(&queue) {
                faults.push(format!("batch {}: rows of {queue:?} without its record", batch.batch_no.0));
            }
            if self.deleted.contains(&queue) && !here.contains(&queue) {
                faults.push(format!("batch {}: rows of {queue:?} behind its deletion", batch.batch_no.0));
            }
        }
    }
}

impl Store for MortalStore {
    fn recover(&mut self) -> Result<RecoveredState, StoreError> {
        self.inner.recover()
    }

    fn commit(&mut self, batch: &Batch) -> CommitOutcome {
        match self.random.next_u64() % 16 {
            0 => return CommitOutcome::NotCommitted("no room for a moment".into()),
            1..=8 => std::thread::yield_now(),
            _ => {}
        }
        self.batches += 1;
        let dies = self.death.filter(|death| death.batch <= self.batches);
        if dies.is_none_or(|death| death.keeps_batch && death.batch == self.batches) {
            self.check_order(batch);
            self.inner.commit(batch);
        }
        if dies.is_some() { CommitOutcome::Fatal("the store dies".into()) } else { CommitOutcome::Committed }
    }

    fn reopen(&mut self) -> Result<BatchNo, StoreError> {
        self.inner.reopen()
    }

    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        self.inner.reader()
    }

    fn maintenance(&mut self) -> Option<&mut dyn Maintenance> {
        self.inner.maintenance()
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Box::new(self.inner).close()
    }
}
