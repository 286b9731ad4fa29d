//! The scratch store: where transient messages wait that are beyond their budget. Opened when first needed.

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

/// Opens the scratch store, empty. It may block.
pub(crate) type OpenScratch = Box<dyn Fn() -> Result<WriterHandle, StoreError> + Send + Sync>;

/// The scratch store, once it was opened.
pub(super) struct Scratch {
    open: Option<OpenScratch>,
    /// Somebody is opening it, or has tried.
    begun: AtomicBool,
    writer: OnceLock<WriterHandle>,
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch").field("is_open", &self.writer.get().is_some()).finish()
    }
}

/// A cell as the scratch store's writer knows it.
#[derive(Debug)]
struct ForScratch(Weak<Cell>);

impl Source for ForScratch {
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

fn for_scratch(cell: &Arc<Cell>) -> Arc<dyn Source> {
    Arc::clone(cell.for_scratch.get_or_init(|| Arc::new(ForScratch(Arc::downgrade(cell)))))
}

impl Scratch {
    pub(super) fn new(open: Option<OpenScratch>) -> Self {
        Self { open, begun: AtomicBool::new(false), writer: OnceLock::new() }
    }

    pub(super) fn writer(&self) -> Option<&WriterHandle> {
        self.writer.get()
    }

    /// Whether it can be used; when it is needed for the first time it is opened beside whoever asks.
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

    /// Whether it could be opened.
    fn open(&self) -> bool {
        let Some(open) = &self.open else { return false };
        match open() {
            Ok(writer) => {
                tracing::info!("transient messages beyond limits.transient_bytes wait in the scratch store");
                // Nobody else opens it.
                let _ = self.writer.set(writer);
                true
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "the scratch store cannot be opened: transient messages stay in memory");
                false
            }
        }
    }

    /// At the end of a turn: what it has for the scratch store goes there.
    pub(super) fn serve(&self, cell: &Arc<Cell>, queue: &impl QueueMachine, effects: &mut Effects) {
        let Some(writer) = self.writer() else { return };
        for pulled in effects.spilled.drain(..) {
            if pulled.more {
                cell.listed_for_scratch.store(true, Ordering::Relaxed);
            }
            writer.contribute(for_scratch(cell), contribution(pulled, Vec::new()));
        }
        if queue.wants_scratch() && !cell.listed_for_scratch.swap(true, Ordering::Relaxed) {
            writer.dirty(for_scratch(cell));
        }
    }

    /// A queue is gone, and with it what it has here.
    pub(super) fn forget(&self, cell: &Cell) {
        if let (Some(writer), Some(_)) = (self.writer(), cell.for_scratch.get()) {
            writer.topology(vec![TopologyChange::DeleteQueue(cell.id())], Box::new(|_| {}));
        }
    }
}

impl Broker {
    /// While transient messages take more memory than they may, queues whose turn does not come hand over theirs too. To be
    /// called from time to time.
    pub fn spill_idle_queues(self: &Arc<Self>) {
        if !self.is_transient_memory_short() {
            return;
        }
        let Some(writer) = self.scratch().writer() else { return };
        for cell in self.cells().into_iter().filter(|cell| cell.unspilled_rows() > 0) {
            if !cell.listed_for_scratch.swap(true, Ordering::Relaxed) {
                writer.dirty(for_scratch(&cell));
            }
        }
    }
}
