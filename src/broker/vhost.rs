//! One virtual host: its topology, and read indexes beside it.

use super::cell::Cell;
use super::topology::Topology;
use crate::model::Name;
use ahash::RandomState;
use dashmap::DashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A virtual host.
#[derive(Debug)]
pub struct Vhost {
    name: Name,
    topology: Mutex<Topology>,
    /// Queues by name, for the default exchange, consumes and gets.
    queues: DashMap<Name, Arc<Cell>, RandomState>,
    /// Moves whenever an existing answer to "where does this go?" can change.
    epoch: AtomicU64,
}

impl Vhost {
    pub(super) fn new(name: Name) -> Arc<Self> {
        let topology = Mutex::new(Topology::new(name.clone()));
        Arc::new(Self { name, topology, queues: DashMap::default(), epoch: AtomicU64::new(0) })
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The truth. A leaf lock: nothing is called and no other lock taken while it is held.
    pub(super) fn topology(&self) -> MutexGuard<'_, Topology> {
        self.topology.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A queue by name, as bytes off the wire.
    pub fn queue(&self, name: &[u8]) -> Option<Arc<Cell>> {
        self.queues.get(name).map(|entry| Arc::clone(entry.value()))
    }

    /// All queues, in no order.
    pub fn queues(&self) -> Vec<Arc<Cell>> {
        self.queues.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    pub(super) fn index(&self, cell: &Arc<Cell>) {
        self.queues.insert(cell.name().clone(), Arc::clone(cell));
    }

    /// Takes a queue out of the index; route memos that may name it are void.
    pub(super) fn unindex(&self, cell: &Cell) {
        self.queues.remove_if(cell.name().as_bytes(), |_, indexed| indexed.id() == cell.id());
        self.move_epoch();
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(super) fn move_epoch(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }
}
