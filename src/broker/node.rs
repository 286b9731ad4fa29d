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
use super::topology::{ChangeNo, Changes, Unhanded};
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
    /// Submits, or does it at once if the caller is a thread of its own: such a caller holds no lock that the work needs.
    fn run(&self, work: Box<dyn FnOnce(Now) + Send>);
}

/// How many things of each kind a vhost may have.
#[derive(Clone, Copy, Debug)]
pub struct VhostLimits {
    /// Queues.
    pub queues: usize,
    /// Exchanges, with those that every vhost has.
    pub exchanges: usize,
    /// Bindings.
    pub bindings: usize,
}

/// Limits of the broker.
#[derive(Clone, Copy, Debug)]
pub struct BrokerSettings {
    /// Of all queues.
    pub queue_limits: QueueLimits,
    /// Of one vhost.
    pub vhost_limits: VhostLimits,
    /// Bytes that the windows of all queues should take; when they take more, they shrink.
    pub windows_bytes: u64,
    /// Bytes of transient messages in memory; what is beyond goes to the scratch store.
    pub transient_bytes: u64,
    /// Bytes yet to be written to the store, or to the scratch store, beyond which publishers wait.
    pub unwritten_bytes_max: u64,
    /// Rows that a turn hands to an idle writer unasked.
    pub batch_rows_max: usize,
    /// And their bytes.
    pub batch_bytes_max: usize,
    /// Whether `x-death` that a publisher brings along is counted on.
    pub trust_published_x_death: bool,
}

/// One node's broker.
pub struct Broker {
    settings: BrokerSettings,
    runner: Arc<dyn Runner>,
    writer: WriterHandle,
    vhosts: DashMap<Name, Arc<Vhost>, RandomState>,
    /// Journals of these that the writer is yet to get.
    unhanded: Unhanded,
    peers: DashMap<ConnectionId, Arc<Peer>, RandomState>,
    cells: DashMap<QueueId, Arc<Cell>, RandomState>,
    numbers: Numbers,
    /// Bytes that queues take; below zero for a moment while they are added up.
    memory: AtomicI64,
    /// Of these, what ready messages take: the windows of all queues.
    windows: AtomicI64,
    flow: Flow,
    scratch: Scratch,
    timers: Timers,
    access: Access,
    totals: Totals,
}

/// What is counted over all queues and connections.
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
    /// A broker without vhosts; `boot` makes its queues' numbers unique among all starts.
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
            unhanded: Unhanded::default(),
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

    /// Its limits.
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

    /// What is open now.
    pub(crate) fn gauges(&self) -> &Gauges {
        &self.totals.gauges
    }

    /// Who may log in, and open which vhost.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// What limits have refused.
    pub fn refusals(&self) -> &RefusalCounters {
        &self.totals.refusals
    }

    pub(super) fn timers(&self) -> &Timers {
        &self.timers
    }

    /// What was done so far.
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

    /// Makes a vhost, if it is missing, in memory and in the store.
    pub fn create_vhost(&self, name: &Name) {
        let mut created = None;
        self.vhosts.entry(name.clone()).or_insert_with(|| {
            let (vhost, number) = Vhost::created(name.clone(), self.unhanded.clone());
            created = Some((Arc::clone(&vhost), number));
            vhost
        });
        if let Some((vhost, number)) = created {
            vhost.hand_over(&self.writer);
            let name = name.clone();
            vhost.when_durable(number, move |durable| {
                if !durable {
                    tracing::error!(vhost = name.as_str(), "the new vhost could not be stored");
                }
            });
        }
    }

    /// Makes a vhost that the store remembers.
    pub(super) fn recover_vhost(&self, name: &Name) -> Arc<Vhost> {
        let make = || Vhost::recovered(name.clone(), self.unhanded.clone());
        Arc::clone(self.vhosts.entry(name.clone()).or_insert_with(make).value())
    }

    /// Hands the writer what its topology has changed so far. Rows of a queue must not be ahead of it.
    pub(super) fn hand_topology_over(&self, vhost: &Name) {
        if self.unhanded.is_any()
            && let Some(vhost) = self.vhost(vhost.as_bytes())
        {
            vhost.hand_over(&self.writer);
        }
    }

    /// A number for a connection that was just accepted.
    pub fn next_connection_id(&self) -> ConnectionId {
        self.numbers.next_connection()
    }

    /// A group of so many contributions to the store.
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

    /// How many connections have opened a vhost.
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

    /// Memory that all queues take, as of their last turns.
    pub fn memory_bytes(&self) -> u64 {
        u64::try_from(self.memory.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Memory that exchanges, bindings and the names of queues take, about.
    pub fn topology_bytes(&self) -> u64 {
        self.vhosts.iter().map(|vhost| vhost.topology().held_bytes()).sum()
    }

    /// Memory that what waits for connections takes. One look at each connection.
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

    /// Whether transient messages take more memory than they may; then the scratch store is opened.
    pub(super) fn is_transient_memory_short(self: &Arc<Self>) -> bool {
        self.flow.is_transient_over() && self.scratch.is_open_or_opens(self)
    }

    /// Whether publishers have to wait for the store, and how long.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// How often the windows of queues are to be halved now: not at all up to half of their budget, then once more for
    /// each tenth of it.
    pub(super) fn window_shrink_steps(&self) -> u32 {
        let used = u64::try_from(self.windows.load(Ordering::Relaxed)).unwrap_or(0);
        let budget = self.settings.windows_bytes;
        let tenths = used.saturating_mul(10) / budget.max(1);
        u32::try_from(tenths.saturating_sub(4)).unwrap_or(u32::MAX).min(WindowLimits::SHRINK_STEPS_MAX)
    }

    /// Makes the cell of a queue; its place in a topology is the caller's. Returns what it takes of memory too.
    pub(super) fn add_cell(self: &Arc<Self>, queue: Kind, owner: Option<ConnectionId>) -> (Arc<Cell>, MemoryDelta) {
        let (cell, delta) = Cell::new(queue, owner, Arc::downgrade(self));
        self.note_memory(delta);
        self.cells.insert(cell.id(), Arc::clone(&cell));
        (cell, delta)
    }

    pub(super) fn forget_cell(&self, id: QueueId) {
        self.cells.remove(&id);
    }

    /// Forgets the cell of a queue that has found no place in a topology, and what it took of memory.
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

    /// Answers a request once a change of topology is durable; with an error if it never will be.
    pub(super) fn answer_durable(&self, requester: Requester, vhost: &Vhost, number: ChangeNo, answer: Answer) {
        let Some(peer) = self.peer(requester.connection) else { return };
        let Requester { channel, request, .. } = requester;
        vhost.when_durable(number, move |durable| {
            let answer = if durable { answer } else { Answer::Refused(AmqpError::internal_error()) };
            peer.notify_one(Notice::Answer { channel, request, answer });
        });
    }

    /// A queue has ended, or outlived its use: takes it out of the topology, and answers who asked for it.
    pub(super) fn queue_deleted(&self, cell: &Arc<Cell>, asked: Option<(Requester, u64)>, list: &mut TurnList) {
        let Some(vhost) = self.vhost(cell.vhost().as_bytes()) else { return };
        let number = self.remove_queue(&vhost, cell, list);
        if let Some((requester, message_count)) = asked {
            self.answer_durable(requester, &vhost, number, Answer::Removed { message_count });
        }
    }

    /// Takes a queue out of its vhost, and has its cell ended. Returns the number with which that is durable, also where
    /// the queue was taken out before.
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

    /// When `tick` wants to be called next; the waker is called when that becomes earlier.
    pub fn next_tick(&self, waker: &Waker) -> Option<crate::model::Monotonic> {
        self.timers.next(waker)
    }

    /// Leaves exact words for the next start in every durable queue. Call it when no connection is left.
    pub fn quiesce(self: &Arc<Self>, now: Now) {
        for cell in self.cells() {
            self.take_turns(&cell, LocalEvent::Quiesce, now);
        }
    }
}
