//! A queue's cell: an inbox, and the state machine that one thread at a time runs.
//!
//! Pushing an input and taking the machine are one locked step. The thread that gets the machine has the turn, and
//! returns the machine only in a locked step that finds the inbox empty. So no input is forgotten, and no thread waits.

use super::armed::ArmedDeadline;
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

/// Takes turns on behalf of callers that must not take them, such as the threads of a store.
pub(super) trait TurnTaker: Send + Sync + 'static {
    /// Gives an input to a queue and takes its turn, now or later on another thread.
    fn submit(self: Arc<Self>, cell: Arc<Cell>, input: QueueInput);
}

/// Queues whose turns are to be tried, in order.
pub(super) type TurnList = VecDeque<Arc<Cell>>;

/// One queue of the node.
pub struct Cell {
    id: QueueId,
    name: Name,
    vhost: Name,
    owner: Option<ConnectionId>,
    turn_taker: Weak<dyn TurnTaker>,
    inbox: Mutex<Inbox>,
    /// The cell is in the writer's list of dirty queues.
    pub(super) is_listed: AtomicBool,
    /// The cell is in the scratch writer's list of dirty queues.
    pub(super) is_listed_for_scratch: AtomicBool,
    /// The cell's source of rows for the scratch store's writer.
    pub(super) scratch_source: OnceLock<Arc<dyn Source>>,
    /// The change that removed the queue from the topology, once it was made.
    pub(super) deletion: OnceLock<ChangeNo>,
    /// When the timers wake the cell.
    pub(super) armed: ArmedDeadline,
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

/// The queue's metrics as of its last turn, for threads that do not have the turn.
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

/// Changes of a queue's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MemoryDelta {
    /// Change of the queue's whole memory, in bytes.
    pub(super) bytes: i64,
    /// Change of the window in bytes: ready messages in memory that the store has or will have.
    pub(super) window_bytes: i64,
    /// Change of the messages that are not written yet.
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
    /// A new cell, and the memory that its queue uses from the start.
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
            is_listed: AtomicBool::new(false),
            is_listed_for_scratch: AtomicBool::new(false),
            scratch_source: OnceLock::new(),
            deletion: OnceLock::new(),
            armed: ArmedDeadline::default(),
            metrics: SharedMetrics::default(),
            counts: SharedCounts::default(),
        };
        let delta = cell.share_metrics(&queue);
        cell.inbox.lock().unwrap_or_else(PoisonError::into_inner).machine = Some(Box::new(queue));
        (Arc::new(cell), delta)
    }

    /// The queue's id, which no other queue of that name has had.
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

    /// The queue's metrics as of its last turn. A concurrent turn may have updated only some of them.
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

    /// Publishes the queue's current metrics. Returns the change of the queue's memory.
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

    /// Counts of the queue's events since it was declared or the broker started.
    pub(crate) fn counts(&self) -> Counts {
        self.counts.read()
    }

    /// Adds the counts of a turn. Only the thread that has the turn may call this.
    pub(super) fn add_counts(&self, done: &Counts) {
        self.counts.add(done);
    }

    /// Number of transient messages that may be spilled to the scratch store, as of the last turn.
    pub(super) fn unspilled_rows(&self) -> usize {
        usize::try_from(self.metrics.unspilled_rows.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Adds an input for the next turn.
    pub(super) fn push(&self, input: impl Into<QueueInput>) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).inputs.push(input.into());
    }

    /// Adds inputs for the next turn, without another input between them.
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

    /// Takes the turn if the inbox has an input and no other thread has the turn.
    pub(super) fn try_turn(&self) -> Option<Turn> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if inbox.inputs.is_empty() { None } else { inbox.take_turn() }
    }

    /// Ends the turn. If new inputs have arrived, the turn goes on with them instead.
    pub(super) fn end_turn(&self, mut turn: Turn) -> Option<Turn> {
        debug_assert!(turn.inputs.is_empty(), "all inputs were applied");
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut inbox.inputs, &mut turn.inputs);
        if turn.inputs.is_empty() {
            // The larger of the two vectors is kept for the next inputs, unless it is very large.
            if turn.inputs.capacity() > inbox.inputs.capacity() && turn.inputs.capacity() <= INPUTS_KEPT {
                std::mem::swap(&mut inbox.inputs, &mut turn.inputs);
            }
            inbox.machine = Some(turn.machine);
            return None;
        }
        Some(turn)
    }

    /// Gives the queue an input on behalf of a caller that must not take turns.
    pub(super) fn submit(self: Arc<Self>, input: impl Into<QueueInput>) {
        if let Some(turn_taker) = self.turn_taker.upgrade() {
            turn_taker.submit(self, input.into());
        }
    }
}

/// An idle inbox keeps room for this many inputs.
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
