//! The scratch store, which holds transient messages beyond their memory budget. It is opened when first needed.

use super::cell::Cell;
use super::contribution::contribution;
use super::kind::QueueMachine;
use super::node::Broker;
use crate::queue::{Effects, LocalEvent, Ticket};
use crate::store::commit::{ContributionOutcome, Source, WriterHandle};
use crate::store::{StoreError, TopologyChange, chain};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

/// Opens an empty scratch store. It may block.
pub(crate) type OpenScratch = Box<dyn Fn() -> Result<WriterHandle, StoreError> + Send + Sync>;

/// The scratch store, which may not be open yet.
pub(super) struct Scratch {
    open: Option<OpenScratch>,
    /// A thread is opening the store, or has tried to.
    begun: AtomicBool,
    writer: OnceLock<WriterHandle>,
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("is_open", &self.writer.get().is_some()).finish()
    }
}

/// A cell's source of rows for the scratch store's writer.
#[derive(Debug)]
struct ScratchSource(Weak<Cell>);

impl Source for ScratchSource {
    fn pull(self: Arc<Self>, rows_max: usize, bytes_max: usize) {
        if let Some(cell) = self.0.upgrade() {
            cell.submit(LocalEvent::Spill { rows_max, bytes_max });
        }
    }

    fn rows_waiting(&self) -> usize {
        self.0.upgrade().map_or(0, |cell| cell.unspilled_rows())
    }

    fn stored(self: Arc<Self>, outcome: ContributionOutcome) {
        if let Some(cell) = self.0.upgrade() {
            cell.submit(LocalEvent::Spilled { ticket: Ticket(outcome.ticket), durable: outcome.durable });
        }
    }
}

fn scratch_source(cell: &Arc<Cell>) -> Arc<dyn Source> {
    Arc::clone(cell.scratch_source.get_or_init(|| Arc::new(ScratchSource(Arc::downgrade(cell)))))
}

impl Scratch {
    pub(super) fn new(open: Option<OpenScratch>) -> Self {
        Self { open, begun: AtomicBool::new(false), writer: OnceLock::new() }
    }

    pub(super) fn writer(&self) -> Option<&WriterHandle> {
        self.writer.get()
    }

    /// Whether the store is open. The first call starts to open it in the background.
    pub(super) fn is_open_or_opens(&self, broker: &Arc<Broker>) -> bool {
        if self.writer.get().is_some() {
            return true;
        }
        if self.open.is_some() && !self.begun.swap(true, Ordering::Relaxed) {
            let opening = Arc::clone(broker);
            broker.runner().run(Box::new(move |_| {
                if opening.scratch().open() {
                    opening.flow().begin_spilling();
                }
            }));
        }
        false
    }

    /// Opens the store. Returns whether it could be opened.
    fn open(&self) -> bool {
        let Some(open) = &self.open else { return false };
        match open() {
            Ok(writer) => {
                tracing::info!("transient messages beyond limits.transient_bytes are spilled to the scratch store");
                // `begun` lets only one thread get here, so the cell is empty.
                let _ = self.writer.set(writer);
                true
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "the scratch store cannot be opened: transient messages stay in memory");
                false
            }
        }
    }

    /// Contributes the rows that a turn spills to the scratch store. Called at the end of the turn.
    pub(super) fn serve(&self, cell: &Arc<Cell>, queue: &impl QueueMachine, effects: &mut Effects) {
        let Some(writer) = self.writer() else { return };
        for pulled in effects.spilled.drain(..) {
            if pulled.more {
                cell.is_listed_for_scratch.store(true, Ordering::Relaxed);
            }
            writer.contribute(scratch_source(cell), contribution(pulled, Vec::new()));
        }
        if queue.wants_scratch() && !cell.is_listed_for_scratch.swap(true, Ordering::Relaxed) {
            writer.dirty(scratch_source(cell));
        }
    }

    /// Deletes the rows of a deleted queue from the store.
    pub(super) fn forget(&self, cell: &Cell) {
        if let (Some(writer), Some(_)) = (self.writer(), cell.scratch_source.get()) {
            writer.topology(vec![TopologyChange::DeleteQueue(cell.id())], Box::new(|_| {}));
        }
    }
}

impl Broker {
    /// Makes idle queues spill too, while transient messages exceed their budget. Must be called periodically, since a
    /// queue otherwise spills only in its turns.
    pub fn spill_idle_queues(self: &Arc<Self>) {
        if !self.is_transient_memory_short() {
            return;
        }
        let Some(writer) = self.scratch().writer() else { return };
        for cell in self.cells().into_iter().filter(|cell| cell.unspilled_rows() > 0) {
            if !cell.is_listed_for_scratch.swap(true, Ordering::Relaxed) {
                writer.dirty(scratch_source(&cell));
            }
        }
    }
}
