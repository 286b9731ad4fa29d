//! A queue's cell: an inbox, and the machine that any thread may run.
//!
//! Pushing a batch and taking the machine are one locked step. The thread that gets the machine has the turn, and puts the
//! machine back only in the locked step that finds the inbox empty. So no batch is left behind, and no thread waits.

use super::armed::Armed;
use super::flow::FlowChange;
use super::kind::{Kind, QueueMachine};
use super::object_metrics::SharedCounts;
use super::topology::ChangeNo;
use crate::model::{ConnectionId, Name, QueueId};
use crate::queue::{Counts, LocalEvent, QueueInput, QueueMemory, QueueMetrics, Ticket};
use crate::store::commit::{ContributionOutcome, Source};
use std::collections::VecDeque;
use std::fmt;
use std::ops::Neg;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// Takes turns for callers that must not: the threads of a store.
pub(super) trait TurnTaker: Send + Sync + 'static {
    /// Gives an input to a queue and takes its turn, soon and on another thread or at once.
    fn submit(self: Arc<Self>, cell: Arc<Cell>, input: QueueInput);
}

/// Queues whose turn is to be tried.
pub(super) type TurnList = VecDeque<Arc<Cell>>;

/// One queue of the node.
pub struct Cell {
    id: QueueId,
    name: Name,
    vhost: Name,
    owner: Option<ConnectionId>,
    turn_taker: Weak<dyn TurnTaker>,
    inbox: Mutex<Inbox>,
    /// Stands in the writer's list of dirty queues.
    pub(super) listed: AtomicBool,
    /// Stands in the list of the scratch store's writer.
    pub(super) listed_for_scratch: AtomicBool,
    /// The cell as that writer knows it.
    pub(super) for_scratch: OnceLock<Arc<dyn Source>>,
    /// The change that takes it out of the topology, once it is made.
    pub(super) deletion: OnceLock<ChangeNo>,
    /// When the timers wake it.
    pub(super) armed: Armed,
    metrics: SharedMetrics,
    counts: SharedCounts,
}

#[derive(Debug)]
struct Inbox {
    inputs: Vec<QueueInput>,
    machine: Option<Box<Kind>>,
}

/// A turn: the machine, and the inputs that wait for it.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) machine: Box<Kind>,
    pub(super) inputs: Vec<QueueInput>,
}

/// `QueueMetrics` as of the last turn, for readers that do not have the turn.
#[derive(Debug, Default)]
struct SharedMetrics {
    ready: AtomicU64,
    ready_bytes: AtomicU64,
    unacked: AtomicU64,
    unacked_bytes: AtomicU64,
    ready_in_memory: AtomicU64,
    in_memory_bytes: AtomicU64,
    memory_bytes: AtomicU64,
    window_bytes: AtomicU64,
    transient_bytes: AtomicU64,
    unwritten_bytes: AtomicU64,
    unwritten_rows: AtomicUsize,
    unspilled_rows: AtomicU64,
    durable: AtomicU64,
    durable_bytes: AtomicU64,
    consumers: AtomicU32,
}

/// By how much the memory of a queue has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MemoryDelta {
    /// All of its memory.
    pub(super) bytes: i64,
    /// The window: ready messages that the store has or is to have.
    pub(super) window_bytes: i64,
    /// What is not written yet.
    pub(super) flow: FlowChange,
}

impl Neg for MemoryDelta {
    type Output = Self;

    fn neg(self) -> Self {
        Self { bytes: -self.bytes, window_bytes: -self.window_bytes, flow: -self.flow }
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cell").field("id", &self.id).field("vhost", &self.vhost).field("name", &self.name).finish()
    }
}

impl Cell {
    /// A queue's cell, and the memory that the queue takes from the start.
    pub(super) fn new(
        queue: Kind,
        owner: Option<ConnectionId>,
        turn_taker: Weak<impl TurnTaker>,
    ) -> (Arc<Self>, MemoryDelta) {
        let settings = queue.settings();
        let (id, name, vhost) = (settings.id, settings.name.clone(), settings.vhost.clone());
        let cell = Self {
            id,
            name,
            vhost,
            owner,
            turn_taker,
            inbox: Mutex::new(Inbox { inputs: Vec::new(), machine: None }),
            listed: AtomicBool::new(false),
            listed_for_scratch: AtomicBool::new(false),
            for_scratch: OnceLock::new(),
            deletion: OnceLock::new(),
            armed: Armed::default(),
            metrics: SharedMetrics::default(),
            counts: SharedCounts::default(),
        };
        let delta = cell.share_metrics(&queue);
        cell.inbox.lock().unwrap_or_else(PoisonError::into_inner).machine = Some(Box::new(queue));
        (Arc::new(cell), delta)
    }

    /// The queue's incarnation.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// The queue's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The queue's vhost.
    pub fn vhost(&self) -> &Name {
        &self.vhost
    }

    /// The connection that has the queue exclusively.
    pub fn owner(&self) -> Option<ConnectionId> {
        self.owner
    }

    /// The queue's numbers as of its last turn. Those of one moment may be mixed with those of the next.
    pub fn metrics(&self) -> QueueMetrics {
        let load = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let shared = &self.metrics;
        QueueMetrics {
            ready: load(&shared.ready),
            ready_bytes: load(&shared.ready_bytes),
            unacked: load(&shared.unacked),
            unacked_bytes: load(&shared.unacked_bytes),
            durable: load(&shared.durable),
            durable_bytes: load(&shared.durable_bytes),
            consumers: shared.consumers.load(Ordering::Relaxed),
            unwritten_rows: shared.unwritten_rows.load(Ordering::Relaxed),
            unspilled_rows: self.unspilled_rows(),
            memory: QueueMemory {
                ready: load(&shared.ready_in_memory),
                body_bytes: load(&shared.in_memory_bytes),
                window_bytes: load(&shared.window_bytes),
                transient_bytes: load(&shared.transient_bytes),
                unwritten_bytes: load(&shared.unwritten_bytes),
                bytes: load(&shared.memory_bytes),
            },
        }
    }

    /// Shows the numbers as they are now; returns by how much the queue's memory has changed.
    pub(super) fn share_metrics(&self, queue: &impl QueueMachine) -> MemoryDelta {
        let now = queue.metrics();
        let shared = &self.metrics;
        let store = |number: &AtomicU64, now: u64| number.store(now, Ordering::Relaxed);
        store(&shared.ready, now.ready);
        store(&shared.ready_bytes, now.ready_bytes);
        store(&shared.unacked, now.unacked);
        store(&shared.unacked_bytes, now.unacked_bytes);
        store(&shared.durable, now.durable);
        store(&shared.durable_bytes, now.durable_bytes);
        store(&shared.ready_in_memory, now.memory.ready);
        store(&shared.in_memory_bytes, now.memory.body_bytes);
        shared.consumers.store(now.consumers, Ordering::Relaxed);
        shared.unwritten_rows.store(now.unwritten_rows, Ordering::Relaxed);
        let changed = |number: &AtomicU64, now: u64| {
            let before = number.load(Ordering::Relaxed);
            number.store(now, Ordering::Relaxed);
            now.cast_signed() - before.cast_signed()
        };
        MemoryDelta {
            bytes: changed(&shared.memory_bytes, now.memory.bytes),
            window_bytes: changed(&shared.window_bytes, now.memory.window_bytes),
            flow: FlowChange {
                unwritten: changed(&shared.unwritten_bytes, now.memory.unwritten_bytes),
                transient: changed(&shared.transient_bytes, now.memory.transient_bytes),
                unspilled: changed(&shared.unspilled_rows, now.unspilled_rows as u64),
            },
        }
    }

    /// What the queue has done since it was declared, or since the broker started.
    pub(crate) fn counts(&self) -> Counts {
        self.counts.read()
    }

    /// Adds what a turn has done. To be called by the thread that has the turn.
    pub(super) fn add_counts(&self, done: &Counts) {
        self.counts.add(done);
    }

    /// Transient messages that may go to the scratch store, as of the last turn.
    pub(super) fn unspilled_rows(&self) -> usize {
        usize::try_from(self.metrics.unspilled_rows.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Adds an input for the next turn.
    pub(super) fn push(&self, input: impl Into<QueueInput>) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).inputs.push(input.into());
    }

    /// Adds inputs that no other comes between.
    pub(super) fn push_all(&self, inputs: Vec<impl Into<QueueInput>>) {
        let inputs = inputs.into_iter().map(Into::into);
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).inputs.extend(inputs);
    }

    /// Adds an input and takes the turn, unless another thread has it.
    pub(super) fn push_and_try(&self, input: impl Into<QueueInput>) -> Option<Turn> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.inputs.push(input.into());
        inbox.take_turn()
    }

    /// Takes the turn, if there is an input and no other thread has the turn.
    pub(super) fn try_turn(&self) -> Option<Turn> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.inputs.is_empty() { None } else { inbox.take_turn() }
    }

    /// Ends the turn, unless more has come: then the turn goes on with that.
    pub(super) fn end_turn(&self, mut turn: Turn) -> Option<Turn> {
        debug_assert!(turn.inputs.is_empty(), "all inputs were applied");
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut inbox.inputs, &mut turn.inputs);
        if turn.inputs.is_empty() {
            // The larger vector stays behind for the next inputs, unless it is very large.
            if turn.inputs.capacity() > inbox.inputs.capacity() && turn.inputs.capacity() <= INPUTS_KEPT {
                std::mem::swap(&mut inbox.inputs, &mut turn.inputs);
            }
            inbox.machine = Some(turn.machine);
            return None;
        }
        Some(turn)
    }

    /// Submits an input to the runtime's threads, for callers that must not run turns.
    pub(super) fn submit(self: Arc<Self>, input: impl Into<QueueInput>) {
        if let Some(turn_taker) = self.turn_taker.upgrade() {
            turn_taker.submit(self, input.into());
        }
    }
}

/// Inputs that an idle inbox keeps room for.
const INPUTS_KEPT: usize = 64;

impl Inbox {
    fn take_turn(&mut self) -> Option<Turn> {
        let machine = self.machine.take()?;
        Some(Turn { machine, inputs: std::mem::take(&mut self.inputs) })
    }
}

impl Source for Cell {
    fn pull(self: Arc<Self>, rows_max: usize, bytes_max: usize) {
        self.submit(LocalEvent::Pull { rows_max, bytes_max });
    }

    fn rows_waiting(&self) -> usize {
        self.metrics.unwritten_rows.load(Ordering::Relaxed)
    }

    fn stored(self: Arc<Self>, outcome: ContributionOutcome) {
        let ContributionOutcome { ticket, durable, .. } = outcome;
        self.submit(LocalEvent::Stored { ticket: Ticket(ticket), durable });
    }
}
