//! A queue's cell: an inbox, and the machine that whoever gets hold of it may run.
//!
//! Pushing a batch and taking the machine are one locked step; who gets the machine has the turn, and puts it back only in
//! the locked step that finds the inbox empty. So no batch is left behind, and nobody waits.

use super::flow::FlowChange;
use super::node::Broker;
use super::scratch::ForScratch;
use super::timers::Armed;
use super::topology::ChangeNo;
use crate::model::{ConnectionId, Name, Now, QueueId};
use crate::queue::{QueueInput, QueueState, Ticket};
use crate::store::commit::{Source, Stored};
use std::ops::Neg;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

/// One queue of the node.
#[derive(Debug)]
pub struct Cell {
    id: QueueId,
    name: Name,
    vhost: Name,
    owner: Option<ConnectionId>,
    broker: Weak<Broker>,
    inbox: Mutex<Inbox>,
    /// Stands in the writer's list of dirty queues.
    pub(super) listed: AtomicBool,
    /// Stands in the list of the scratch store's writer.
    pub(super) listed_for_scratch: AtomicBool,
    /// The cell as that writer knows it.
    pub(super) for_scratch: OnceLock<Arc<ForScratch>>,
    /// The change that takes it out of the topology, once it is made.
    pub(super) deletion: OnceLock<ChangeNo>,
    /// When the timers wake it.
    pub(super) armed: Armed,
    counts: SharedCounts,
}

#[derive(Debug)]
struct Inbox {
    inputs: Vec<QueueInput>,
    machine: Option<Box<Machine>>,
}

/// What travels from turn to turn.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) queue: QueueState,
}

/// A turn: the machine, and the inputs that wait for it.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) machine: Box<Machine>,
    pub(super) inputs: Vec<QueueInput>,
}

#[derive(Debug, Default)]
struct SharedCounts {
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

/// By how much what a queue takes of memory has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Growth {
    /// All of it.
    pub(super) bytes: i64,
    /// Its window: ready messages that the store has or is to have.
    pub(super) window_bytes: i64,
    /// What is yet to be written.
    pub(super) flow: FlowChange,
}

impl Neg for Growth {
    type Output = Self;

    fn neg(self) -> Self {
        Self { bytes: -self.bytes, window_bytes: -self.window_bytes, flow: -self.flow }
    }
}

/// A queue's counts as of its last turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages ready for delivery.
    pub ready: u64,
    /// Their body bytes.
    pub ready_bytes: u64,
    /// Messages in consumers' hands.
    pub unacked: u64,
    /// Their body bytes.
    pub unacked_bytes: u64,
    /// Ready messages that are in memory.
    pub ready_in_memory: u64,
    /// Body bytes of all that is in memory, ready or not.
    pub in_memory_bytes: u64,
    /// Memory that the queue takes in all.
    pub memory_bytes: u64,
    /// Persistent messages of a durable queue, ready or not.
    pub durable: u64,
    /// Their body bytes.
    pub durable_bytes: u64,
    /// Registered consumers.
    pub consumers: u32,
}

impl Cell {
    /// A queue's cell, and what the queue takes of memory from the start.
    pub(super) fn new(queue: QueueState, owner: Option<ConnectionId>, broker: Weak<Broker>) -> (Arc<Self>, Growth) {
        let settings = queue.settings();
        let (id, name, vhost) = (settings.id, settings.name.clone(), settings.vhost.clone());
        let machine = Box::new(Machine { queue });
        let cell = Self {
            id,
            name,
            vhost,
            owner,
            broker,
            inbox: Mutex::new(Inbox { inputs: Vec::new(), machine: None }),
            listed: AtomicBool::new(false),
            listed_for_scratch: AtomicBool::new(false),
            for_scratch: OnceLock::new(),
            deletion: OnceLock::new(),
            armed: Armed::default(),
            counts: SharedCounts::default(),
        };
        let growth = cell.share_counts(&machine.queue);
        cell.inbox.lock().unwrap_or_else(PoisonError::into_inner).machine = Some(machine);
        (Arc::new(cell), growth)
    }

    /// Its incarnation.
    pub fn id(&self) -> QueueId {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The vhost it is in.
    pub fn vhost(&self) -> &Name {
        &self.vhost
    }

    /// The connection it is exclusive to.
    pub fn owner(&self) -> Option<ConnectionId> {
        self.owner
    }

    /// Its counts as of its last turn.
    pub fn counts(&self) -> QueueCounts {
        QueueCounts {
            ready: self.counts.ready.load(Ordering::Relaxed),
            ready_bytes: self.counts.ready_bytes.load(Ordering::Relaxed),
            unacked: self.counts.unacked.load(Ordering::Relaxed),
            unacked_bytes: self.counts.unacked_bytes.load(Ordering::Relaxed),
            ready_in_memory: self.counts.ready_in_memory.load(Ordering::Relaxed),
            in_memory_bytes: self.counts.in_memory_bytes.load(Ordering::Relaxed),
            memory_bytes: self.counts.memory_bytes.load(Ordering::Relaxed),
            durable: self.counts.durable.load(Ordering::Relaxed),
            durable_bytes: self.counts.durable_bytes.load(Ordering::Relaxed),
            consumers: self.counts.consumers.load(Ordering::Relaxed),
        }
    }

    /// Shows the counts as they are now; returns by how much the queue's memory has grown.
    pub(super) fn share_counts(&self, queue: &QueueState) -> Growth {
        let memory = queue.memory();
        self.counts.ready.store(queue.shown_ready_count(), Ordering::Relaxed);
        self.counts.ready_bytes.store(queue.ready_bytes(), Ordering::Relaxed);
        self.counts.unacked.store(queue.unacked_count(), Ordering::Relaxed);
        self.counts.unacked_bytes.store(queue.unacked_bytes(), Ordering::Relaxed);
        self.counts.ready_in_memory.store(memory.ready, Ordering::Relaxed);
        self.counts.in_memory_bytes.store(memory.body_bytes, Ordering::Relaxed);
        let grown = |count: &AtomicU64, now: u64| {
            let before = count.load(Ordering::Relaxed);
            count.store(now, Ordering::Relaxed);
            now.cast_signed() - before.cast_signed()
        };
        let growth = Growth {
            bytes: grown(&self.counts.memory_bytes, memory.bytes),
            window_bytes: grown(&self.counts.window_bytes, memory.window_bytes),
            flow: FlowChange {
                unwritten: grown(&self.counts.unwritten_bytes, memory.unwritten_bytes),
                transient: grown(&self.counts.transient_bytes, memory.transient_bytes),
                unspilled: grown(&self.counts.unspilled_rows, queue.unspilled_rows() as u64),
            },
        };
        self.counts.durable.store(queue.durable_count(), Ordering::Relaxed);
        self.counts.durable_bytes.store(queue.durable_bytes(), Ordering::Relaxed);
        self.counts.consumers.store(queue.consumer_count(), Ordering::Relaxed);
        self.counts.unwritten_rows.store(queue.unwritten_rows(), Ordering::Relaxed);
        growth
    }

    /// Transient messages that may go to the scratch store, as of its last turn.
    pub(super) fn unspilled_rows(&self) -> usize {
        usize::try_from(self.counts.unspilled_rows.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Adds an input for the next turn, whoever takes it.
    pub(super) fn push(&self, input: QueueInput) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).inputs.push(input);
    }

    /// Adds inputs that no other comes between.
    pub(super) fn push_all(&self, inputs: Vec<QueueInput>) {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).inputs.extend(inputs);
    }

    /// Adds an input and takes the turn, if nobody has it.
    pub(super) fn push_and_try(&self, input: QueueInput) -> Option<Turn> {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.inputs.push(input);
        inbox.take_turn()
    }

    /// Takes the turn, if there is something to do and nobody has it.
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

    pub(super) fn broker(&self) -> Option<Arc<Broker>> {
        self.broker.upgrade()
    }

    /// Submits an input to the runtime's threads, for callers that must not run turns.
    pub(super) fn submit(self: Arc<Self>, input: QueueInput) {
        let Some(broker) = self.broker() else { return };
        let runner = Arc::clone(broker.runner());
        runner.run(Box::new(move |now: Now| broker.take_turns(&self, input, now)));
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
        self.submit(QueueInput::Pull { rows_max, bytes_max });
    }

    fn rows_waiting(&self) -> usize {
        self.counts.unwritten_rows.load(Ordering::Relaxed)
    }

    fn stored(self: Arc<Self>, outcome: Stored) {
        let Stored { ticket, durable, .. } = outcome;
        self.submit(QueueInput::Stored { ticket: Ticket(ticket), durable });
    }
}
