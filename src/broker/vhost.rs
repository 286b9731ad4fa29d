//! One virtual host: its topology, and read indexes beside it.

use super::cell::Cell;
use super::object_metrics::SharedExchangeCounts;
use super::topology::{ChangeNo, Changes, ExchangeSnapshot, Progress, Topology, Unhanded};
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
    /// How far the store has come with the topology's journal.
    progress: Progress,
    unhanded: Unhanded,
    /// Queues by name, for the default exchange, consumes and gets.
    queues: DashMap<Name, Arc<Cell>, RandomState>,
    /// Moves whenever an existing answer to "where does this go?" can change.
    epoch: AtomicU64,
    /// Of messages to the default exchange.
    default_exchange_counts: Arc<SharedExchangeCounts>,
}

impl Vhost {
    pub(super) fn recovered(name: Name, unhanded: Unhanded) -> Arc<Self> {
        let topology = Mutex::new(Topology::new(name.clone(), unhanded.clone()));
        Arc::new(Self {
            name,
            topology,
            progress: Progress::default(),
            unhanded,
            queues: DashMap::default(),
            epoch: AtomicU64::new(0),
            default_exchange_counts: Arc::default(),
        })
    }

    /// A vhost that the store does not know: its record begins the journal, and the number is that of the record.
    pub(super) fn created(name: Name, unhanded: Unhanded) -> (Arc<Self>, ChangeNo) {
        let vhost = Self::recovered(name.clone(), unhanded);
        let record = TopologyChange::PutVhost(VhostRecord { name });
        let number = vhost.topology().journal().append(Changes::New(vec![record]));
        (vhost, number)
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What counts the messages to the default exchange.
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

    /// The truth. A leaf lock: nothing is called and no other lock taken while it is held.
    pub(super) fn topology(&self) -> MutexGuard<'_, Topology> {
        self.topology.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- changes -----------------------------------------------------------------------------------------------

    /// Changes topology, and hands the store's part of it to the writer. Returns the number with which that is durable.
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
        self.hand_over(writer);
        Ok(number)
    }

    /// Hands the writer what was appended to the journal before this call, unless it has it.
    pub(super) fn hand_over(self: &Arc<Self>, writer: &WriterHandle) {
        if !self.unhanded.is_any() {
            return;
        }
        let order = self.progress.handing();
        let taken = self.topology().journal().take();
        let Some((changes, up_to)) = taken else { return };
        let vhost = Arc::clone(self);
        let then = Box::new(move |durable| vhost.progress.settle(up_to, durable));
        let refused = writer.submit_topology(changes, then);
        self.unhanded.submitted();
        drop(order);
        if let Err(then) = refused {
            then(false);
        }
    }

    /// Whether a change is known to be durable.
    pub(super) fn is_durable(&self, number: ChangeNo) -> bool {
        self.progress.is_durable(number)
    }

    /// Runs `then` once it is known whether a change is durable: at once if that is known.
    pub(super) fn when_durable(&self, number: ChangeNo, then: impl FnOnce(bool) + Send + 'static) {
        self.progress.when_durable(number, then);
    }

    // ---- indexes -----------------------------------------------------------------------------------------------

    /// A queue by name, as bytes off the wire.
    pub fn queue(&self, name: &[u8]) -> Option<Arc<Cell>> {
        self.queues.get(name).map(|entry| Arc::clone(entry.value()))
    }

    /// All queues, in no order.
    pub fn queues(&self) -> Vec<Arc<Cell>> {
        self.queues.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// Adds a queue that was just put into the topology.
    pub(super) fn index(&self, cell: &Arc<Cell>) {
        self.queues.insert(cell.name().clone(), Arc::clone(cell));
        // It may have been deleted meanwhile, before there was anything to take out of the index.
        let is_there = self.topology().has_queue(cell.name(), cell.id());
        if !is_there {
            self.unindex(cell);
        }
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
