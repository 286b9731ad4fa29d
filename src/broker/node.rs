//! All vhosts, connections and queues of one node, and its store.

use super::access::Access;
use super::cell::TurnList;
use super::cell::{Cell, MemoryDelta};
use super::counters::{Counters, RefusalCounters};
use super::flow::{Flow, FlowLimits};
use super::gauges::Gauges;
use super::kind::Kind;
use super::numbers::Numbers;
use super::peer::Peer;
use super::scratch::{OpenScratch, Scratch};
use super::timers::Timers;
use super::topology::{ChangeNo, Changes, PendingJournals};
use super::vhost::Vhost;
use crate::model::{AmqpError, Answer, ConnectionId, Name, Notice, Now, QueueId};
use crate::queue::{LocalEvent, QueueLimits, Requester, WindowLimits};
use crate::store::Group;
use crate::store::commit::WriterHandle;
use ahash::RandomState;
use dashmap::DashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::Waker;

/// Runs work, with the time at which it begins.
pub trait Runner: Send + Sync + 'static {
    /// Queues the work, or runs it on the caller's thread if that is a thread of a store: such a caller holds no lock
    /// that the work needs.
    fn run(&self, work: Box<dyn FnOnce(Now) + Send>);
}

/// Limits of one vhost.
#[derive(Clone, Copy, Debug)]
pub struct VhostLimits {
    /// Most queues.
    pub queues: usize,
    /// Most exchanges, including the predeclared ones.
    pub exchanges: usize,
    /// Most bindings.
    pub bindings: usize,
}

/// Settings of the broker.
#[derive(Clone, Copy, Debug)]
pub struct BrokerSettings {
    /// Limits of each queue.
    pub queue_limits: QueueLimits,
    /// Limits of each vhost.
    pub vhost_limits: VhostLimits,
    /// Budget in bytes of the windows of all queues; beyond half of it, windows shrink.
    pub windows_bytes: u64,
    /// Budget in bytes of transient messages in memory; messages beyond it are spilled to the scratch store.
    pub transient_bytes: u64,
    /// Bytes yet to be written to the store, or to the scratch store, beyond which publishers wait.
    pub unwritten_bytes_max: u64,
    /// Most rows that a turn contributes to an idle writer without being pulled.
    pub batch_rows_max: usize,
    /// Most bytes of such rows.
    pub batch_bytes_max: usize,
    /// Whether an `x-death` header from a publisher is trusted.
    pub trust_published_x_death: bool,
}

/// One node's broker.
pub struct Broker {
    settings: BrokerSettings,
    runner: Arc<dyn Runner>,
    writer: WriterHandle,
    vhosts: DashMap<Name, Arc<Vhost>, RandomState>,
    /// Counts the vhosts' journals that have changes which the writer does not have yet.
    pending_journals: PendingJournals,
    peers: DashMap<ConnectionId, Arc<Peer>, RandomState>,
    cells: DashMap<QueueId, Arc<Cell>, RandomState>,
    numbers: Numbers,
    /// Bytes of memory that queues take; may be below zero for a moment, while several threads update it.
    memory: AtomicI64,
    /// Bytes of memory that the windows of all queues take.
    windows: AtomicI64,
    flow: Flow,
    scratch: Scratch,
    timers: Timers,
    access: Access,
    totals: Totals,
}

/// Counters and gauges over all queues and connections.
#[derive(Debug, Default)]
struct Totals {
    counters: Counters,
    gauges: Gauges,
    refusals: RefusalCounters,
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("vhosts", &self.vhosts.len()).field("queues", &self.cells.len()).finish()
    }
}

impl Broker {
    /// A broker without vhosts. `boot` is the number of this start; it makes queue ids unique among all starts.
    pub(super) fn new(
        settings: BrokerSettings,
        runner: Arc<dyn Runner>,
        writer: WriterHandle,
        scratch: Option<OpenScratch>,
        boot: u32,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            runner,
            writer,
            vhosts: DashMap::default(),
            pending_journals: PendingJournals::default(),
            peers: DashMap::default(),
            cells: DashMap::default(),
            numbers: Numbers::new(boot),
            memory: AtomicI64::new(0),
            windows: AtomicI64::new(0),
            flow: Flow::new(FlowLimits {
                unwritten: settings.unwritten_bytes_max,
                transient: settings.transient_bytes,
            }),
            scratch: Scratch::new(scratch),
            timers: Timers::default(),
            access: Access::default(),
            totals: Totals::default(),
        })
    }

    /// The broker's settings.
    pub fn settings(&self) -> &BrokerSettings {
        &self.settings
    }

    pub(super) fn runner(&self) -> &Arc<dyn Runner> {
        &self.runner
    }

    /// The store's writer.
    pub fn writer(&self) -> &WriterHandle {
        &self.writer
    }

    /// The gauges over all connections.
    pub(crate) fn gauges(&self) -> &Gauges {
        &self.totals.gauges
    }

    /// The users, and their rights to vhosts.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// The counts of refusals by limits.
    pub fn refusals(&self) -> &RefusalCounters {
        &self.totals.refusals
    }

    pub(super) fn timers(&self) -> &Timers {
        &self.timers
    }

    /// The counters since the start.
    pub fn counters(&self) -> &Counters {
        &self.totals.counters
    }

    // ---- vhosts, connections, queues ---------------------------------------------------------------------------

    /// A vhost by name.
    pub fn vhost(&self, name: &[u8]) -> Option<Arc<Vhost>> {
        self.vhosts.get(name).map(|entry| Arc::clone(entry.value()))
    }

    /// All vhosts, in no order.
    pub fn vhosts(&self) -> Vec<Arc<Vhost>> {
        self.vhosts.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// Creates a vhost in memory and in the store, unless it exists.
    pub fn create_vhost(&self, name: &Name) {
        let mut created = None;
        self.vhosts.entry(name.clone()).or_insert_with(|| {
            let (vhost, number) = Vhost::created(name.clone(), self.pending_journals.clone());
            created = Some((Arc::clone(&vhost), number));
            vhost
        });
        if let Some((vhost, number)) = created {
            vhost.submit_journal(&self.writer);
            let name = name.clone();
            vhost.when_durable(number, move |durable| {
                if !durable {
                    tracing::error!(vhost = name.as_str(), "the new vhost could not be stored");
                }
            });
        }
    }

    /// Creates a vhost of the store in memory, unless it exists.
    pub(super) fn recover_vhost(&self, name: &Name) -> Arc<Vhost> {
        let make = || Vhost::recovered(name.clone(), self.pending_journals.clone());
        Arc::clone(self.vhosts.entry(name.clone()).or_insert_with(make).value())
    }

    /// Submits the vhost's topology changes so far to the writer. Rows of a queue must not precede the queue's record.
    pub(super) fn submit_topology(&self, vhost: &Name) {
        if self.pending_journals.is_any()
            && let Some(vhost) = self.vhost(vhost.as_bytes())
        {
            vhost.submit_journal(&self.writer);
        }
    }

    /// A new id for a connection that was just accepted.
    pub fn next_connection_id(&self) -> ConnectionId {
        self.numbers.next_connection()
    }

    /// A new group of `parts` contributions to the store.
    pub(super) fn new_group(&self, parts: usize) -> Group {
        Group { number: self.numbers.next_group(), parts: u32::try_from(parts).unwrap_or(u32::MAX) }
    }

    pub(super) fn next_queue_id(&self) -> QueueId {
        self.numbers.next_queue()
    }

    pub(super) fn peer(&self, id: ConnectionId) -> Option<Arc<Peer>> {
        self.peers.get(&id).map(|entry| Arc::clone(entry.value()))
    }

    /// All connections that have opened a vhost.
    pub fn peers(&self) -> Vec<Arc<Peer>> {
        self.peers.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// Number of connections that have opened a vhost.
    pub fn peer_count(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn add_peer(&self, peer: &Arc<Peer>) {
        self.peers.insert(peer.id(), Arc::clone(peer));
    }

    pub(super) fn remove_peer(&self, id: ConnectionId) {
        self.peers.remove(&id);
    }

    pub(super) fn cell(&self, id: QueueId) -> Option<Arc<Cell>> {
        self.cells.get(&id).map(|entry| Arc::clone(entry.value()))
    }

    /// All queues, in no order.
    pub fn cells(&self) -> Vec<Arc<Cell>> {
        self.cells.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// Bytes of memory that all queues take, as of their last turns.
    pub fn memory_bytes(&self) -> u64 {
        u64::try_from(self.memory.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Estimated bytes of memory that exchanges, bindings and queue names take.
    pub fn topology_bytes(&self) -> u64 {
        self.vhosts.iter().map(|vhost| vhost.topology().held_bytes()).sum()
    }

    /// Bytes of memory that the notices in all inlets take. Visits each connection.
    pub fn inlet_bytes(&self) -> u64 {
        self.peers.iter().map(|peer| peer.held_bytes()).sum()
    }

    pub(super) fn note_memory(&self, delta: MemoryDelta) {
        if delta.bytes != 0 {
            self.memory.fetch_add(delta.bytes, Ordering::Relaxed);
        }
        if delta.window_bytes != 0 {
            self.windows.fetch_add(delta.window_bytes, Ordering::Relaxed);
        }
        self.flow.note(delta.flow);
    }

    pub(super) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Whether transient messages exceed their budget and the scratch store is open. If it is not open, this starts to
    /// open it.
    pub(super) fn is_transient_memory_short(self: &Arc<Self>) -> bool {
        self.flow.is_transient_over() && self.scratch.is_open_or_opens(self)
    }

    /// The flow control of publishers.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// By how many steps the windows of queues must shrink now: none up to half of their budget, then one more for each
    /// tenth of it.
    pub(super) fn window_shrink_steps(&self) -> u32 {
        let used = u64::try_from(self.windows.load(Ordering::Relaxed)).unwrap_or(0);
        let budget = self.settings.windows_bytes;
        let tenths = used.saturating_mul(10) / budget.max(1);
        u32::try_from(tenths.saturating_sub(4)).unwrap_or(u32::MAX).min(WindowLimits::SHRINK_STEPS_MAX)
    }

    /// Creates the cell of a queue, and returns it with the memory that it takes. The caller adds the queue to the
    /// topology.
    pub(super) fn add_cell(self: &Arc<Self>, queue: Kind, owner: Option<ConnectionId>) -> (Arc<Cell>, MemoryDelta) {
        let (cell, delta) = Cell::new(queue, owner, Arc::downgrade(self));
        self.note_memory(delta);
        self.cells.insert(cell.id(), Arc::clone(&cell));
        (cell, delta)
    }

    pub(super) fn forget_cell(&self, id: QueueId) {
        self.cells.remove(&id);
    }

    /// Forgets the cell of a queue that was not added to the topology, and its memory.
    pub(super) fn drop_new_cell(&self, id: QueueId, delta: MemoryDelta) {
        self.forget_cell(id);
        self.note_memory(-delta);
    }

    // ---- answers -----------------------------------------------------------------------------------------------

    /// Answers a request at once.
    pub(super) fn answer(&self, requester: Requester, answer: Answer) {
        if let Some(peer) = self.peer(requester.connection) {
            let Requester { channel, request, .. } = requester;
            peer.notify_one(Notice::Answer { channel, request, answer });
        }
    }

    /// Answers a request once a change of topology is durable. If the store fails first, answers with an error.
    pub(super) fn answer_durable(&self, requester: Requester, vhost: &Vhost, number: ChangeNo, answer: Answer) {
        let Some(peer) = self.peer(requester.connection) else { return };
        let Requester { channel, request, .. } = requester;
        vhost.when_durable(number, move |durable| {
            let answer = if durable { answer } else { Answer::Refused(AmqpError::internal_error()) };
            peer.notify_one(Notice::Answer { channel, request, answer });
        });
    }

    /// Removes a deleted or unused queue from the topology. A requester gets the answer with its message count.
    pub(super) fn finish_deletion(&self, cell: &Arc<Cell>, request: Option<(Requester, u64)>, list: &mut TurnList) {
        let Some(vhost) = self.vhost(cell.vhost().as_bytes()) else { return };
        let number = self.remove_queue(&vhost, cell, list);
        if let Some((requester, message_count)) = request {
            self.answer_durable(requester, &vhost, number, Answer::Removed { message_count });
        }
    }

    /// Removes a queue from its vhost, and ends its cell. Returns the change with which the removal is durable, even if
    /// the queue was removed before.
    pub(super) fn remove_queue(&self, vhost: &Arc<Vhost>, cell: &Arc<Cell>, list: &mut TurnList) -> ChangeNo {
        let mut is_removed = false;
        let removal = vhost.change(&self.writer, |topology| {
            let changes = topology.remove_queue(cell.name(), cell.id());
            is_removed = changes.is_some();
            Ok(changes.unwrap_or(Changes::Earlier))
        });
        let number = removal.expect("a removal is not refused");
        if is_removed {
            let _ = cell.deletion.set(number);
            vhost.unindex(cell);
            self.forget_cell(cell.id());
            self.scratch.forget(cell);
            cell.push(LocalEvent::End);
            list.push_back(Arc::clone(cell));
            Counters::add(&self.totals.counters.queues_deleted, 1);
        }
        number
    }

    // ---- time --------------------------------------------------------------------------------------------------

    /// Wakes the queues whose deadline has passed.
    pub fn tick(self: &Arc<Self>, now: Now) {
        for cell in self.timers.take_due(now.monotonic) {
            self.take_turns(&cell, LocalEvent::Tick, now);
        }
    }

    /// When `tick` must be called next. The waker is called if an earlier deadline appears.
    pub fn next_tick(&self, waker: &Waker) -> Option<crate::model::Monotonic> {
        self.timers.next(waker)
    }

    /// Makes every durable queue store its exact state for the next start. Call this when no connection is left.
    pub fn quiesce(self: &Arc<Self>, now: Now) {
        for cell in self.cells() {
            self.take_turns(&cell, LocalEvent::Quiesce, now);
        }
    }
}
