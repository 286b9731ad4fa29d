//! One virtual host: its topology, and read indexes.

use super::cell::Cell;
use super::object_metrics::SharedExchangeCounts;
use super::topology::{ChangeNo, Changes, ExchangeSnapshot, PendingJournals, Progress, Topology};
use crate::model::{AmqpError, Name};
use crate::routing::ExchangeKind;
use crate::store::commit::WriterHandle;
use crate::store::{TopologyChange, VhostRecord};
use ahash::RandomState;
use dashmap::DashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A virtual host.
#[derive(Debug)]
pub struct Vhost {
    name: Name,
    topology: Mutex<Topology>,
    /// How much of the topology's journal the store has committed.
    progress: Progress,
    pending_journals: PendingJournals,
    /// Queues by name, for the default exchange, consumes and gets.
    queues: DashMap<Name, Arc<Cell>, RandomState>,
    /// Rises whenever a remembered route may become wrong.
    epoch: AtomicU64,
    /// Counts of messages to the default exchange.
    default_exchange_counts: Arc<SharedExchangeCounts>,
}

impl Vhost {
    pub(super) fn recovered(name: Name, pending_journals: PendingJournals) -> Arc<Self> {
        let topology = Mutex::new(Topology::new(name.clone(), pending_journals.clone()));
        Arc::new(Self {
            name,
            topology,
            progress: Progress::default(),
            pending_journals,
            queues: DashMap::default(),
            epoch: AtomicU64::new(0),
            default_exchange_counts: Arc::default(),
        })
    }

    /// A vhost that the store does not have yet. Its record is the first change of the journal, whose number is
    /// returned.
    pub(super) fn created(name: Name, pending_journals: PendingJournals) -> (Arc<Self>, ChangeNo) {
        let vhost = Self::recovered(name.clone(), pending_journals);
        let record = TopologyChange::PutVhost(VhostRecord { name });
        let number = vhost.topology().journal().append(Changes::New(vec![record]));
        (vhost, number)
    }

    /// The name of the vhost.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Counts of messages to the default exchange.
    pub(super) fn default_exchange_counts(&self) -> &Arc<SharedExchangeCounts> {
        &self.default_exchange_counts
    }

    /// All exchanges, the default one first.
    pub(super) fn exchange_snapshots(&self) -> Vec<ExchangeSnapshot> {
        let default = ExchangeSnapshot {
            vhost: self.name.clone(),
            name: Name::from(""),
            kind: ExchangeKind::Direct,
            durable: true,
            auto_delete: false,
            internal: false,
            counts: self.default_exchange_counts.read(),
        };
        let mut exchanges = vec![default];
        exchanges.extend(self.topology().exchange_snapshots());
        exchanges
    }

    /// The topology, locked. A leaf lock: no callback runs and no other lock is taken while it is held.
    pub(super) fn topology(&self) -> MutexGuard<'_, Topology> {
        self.topology.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- changes -----------------------------------------------------------------------------------------------

    /// Changes the topology, and submits the change to the writer. Returns the number of the change with which the
    /// result is durable.
    pub(super) fn change(
        self: &Arc<Self>,
        writer: &WriterHandle,
        change: impl FnOnce(&mut Topology) -> Result<Changes, AmqpError>,
    ) -> Result<ChangeNo, AmqpError> {
        let number = {
            let mut topology = self.topology();
            let changes = change(&mut topology)?;
            topology.journal().append(changes)
        };
        self.submit_journal(writer);
        Ok(number)
    }

    /// Submits the journal's changes to the writer, unless the writer has them already.
    pub(super) fn submit_journal(self: &Arc<Self>, writer: &WriterHandle) {
        if !self.pending_journals.is_any() {
            return;
        }
        let order = self.progress.submission();
        let taken = self.topology().journal().take();
        let Some((changes, up_to)) = taken else { return };
        let vhost = Arc::clone(self);
        let on_outcome = Box::new(move |durable| vhost.progress.note_outcome(up_to, durable));
        let refused = writer.submit_topology(changes, on_outcome);
        self.pending_journals.note_submitted();
        drop(order);
        if let Err(on_outcome) = refused {
            on_outcome(false);
        }
    }

    /// Whether a change is known to be durable.
    pub(super) fn is_durable(&self, number: ChangeNo) -> bool {
        self.progress.is_durable(number)
    }

    /// Calls `on_outcome` once it is known whether a change is durable; at once if it is known already.
    pub(super) fn when_durable(&self, number: ChangeNo, on_outcome: impl FnOnce(bool) + Send + 'static) {
        self.progress.when_durable(number, on_outcome);
    }

    // ---- indexes -----------------------------------------------------------------------------------------------

    /// A queue by name, given as the bytes of a frame.
    pub fn queue(&self, name: &[u8]) -> Option<Arc<Cell>> {
        self.queues.get(name).map(|entry| Arc::clone(entry.value()))
    }

    /// All queues, in no order.
    pub fn queues(&self) -> Vec<Arc<Cell>> {
        self.queues.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// Adds a queue to the index that was just added to the topology.
    pub(super) fn index(&self, cell: &Arc<Cell>) {
        self.queues.insert(cell.name().clone(), Arc::clone(cell));
        // Another thread may have deleted the queue meanwhile, and found no entry to remove from the index.
        let is_there = self.topology().has_queue(cell.name(), cell.id());
        if !is_there {
            self.unindex(cell);
        }
    }

    /// Removes a queue from the index. Remembered routes become void, since they may contain the queue.
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
