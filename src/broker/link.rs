//! What one connection does to the broker. Everything here returns at once; answers come through the connection's inlet.

use super::cell::Cell;
use super::counters::Counters;
use super::node::Broker;
use super::peer::Peer;
use super::publish::{Publisher, Routed};
use super::queue_arguments::{self, Declared};
use super::topology::{QueueEntry, Topology};
use super::turns::TurnList;
use super::vhost::Vhost;
use crate::model::arguments::{integer, keys, type_name};
use crate::model::command::{BasicConsume, BindTo, QueueDeclare, QueueDelete};
use crate::model::names::queue_in_vhost;
use crate::model::random::Random;
use crate::model::{
    AmqpError, Answer, ChannelKey, Command, ConnectionId, ConsumerKey, ConsumerSlot, Holder, LendId, Message, Name,
    Now, Promise, PromiseOwner, QueueId, RequestNo,
};
use crate::queue::{Consume, Outcome, QueueInput, QueueState, Requester};
use crate::routing::Destination;
use crate::store::{QueueRecord, TopologyChange};
use ahash::{AHashMap, AHashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// Begins the names that the broker makes up for queues.
const GENERATED_NAME: &str = "amq.gen-";
/// Consumer arguments of streams, which no queue here takes.
const STREAM_ARGUMENTS: [&str; 3] = ["x-stream-offset", "x-stream-filter", "x-stream-match-unfiltered"];

/// The broker's end of one connection, from the opening of its vhost to its end.
#[derive(Debug)]
pub struct Link {
    broker: Arc<Broker>,
    vhost: Arc<Vhost>,
    peer: Arc<Peer>,
    publisher: Publisher,
    random: Random,
    attached: AHashMap<ChannelKey, Attached>,
    /// Of all channels.
    attached_count: usize,
    limited: AHashSet<ChannelKey>,
    /// Exclusive queues that it declared; some may be gone.
    exclusive: Vec<Name>,
    /// As many of these names are looked through for queues that are gone.
    exclusive_swept_at: usize,
    /// The settlements of the transaction that is being committed.
    transaction: Option<Vec<(QueueId, Settled)>>,
}

/// Queues that hold something for a channel, or did.
#[derive(Debug)]
struct Attached {
    queues: AHashMap<QueueId, Arc<Cell>>,
    /// As many of them are looked through for those that hold nothing.
    swept_at: usize,
}

impl Default for Attached {
    fn default() -> Self {
        Self { queues: AHashMap::new(), swept_at: SWEPT_AT_FIRST }
    }
}

/// What the name of an exclusive queue takes, about.
const EXCLUSIVE_BYTES: usize = size_of::<Name>() + 64;

/// So many entries are kept, in use or not, before the first look.
const SWEPT_AT_FIRST: usize = 64;

/// When to look again: the looks cost no more than the entries that were added.
fn next_sweep(kept: usize) -> usize {
    (kept * 2).max(SWEPT_AT_FIRST)
}

/// Deliveries settled inside a transaction, and what they free once it is sealed.
#[derive(Debug)]
struct Settled {
    channel: ChannelKey,
    input: QueueInput,
    counted: u32,
}

impl Link {
    /// A connection has opened a vhost.
    pub fn open(broker: &Arc<Broker>, vhost: Arc<Vhost>, id: ConnectionId, user: Name, seed: u64) -> Self {
        let peer = Arc::new(Peer::new(id, user));
        broker.add_peer(&peer);
        Self {
            broker: Arc::clone(broker),
            vhost,
            peer,
            publisher: Publisher::default(),
            random: Random::new(seed),
            attached: AHashMap::new(),
            attached_count: 0,
            limited: AHashSet::new(),
            exclusive: Vec::new(),
            exclusive_swept_at: SWEPT_AT_FIRST,
            transaction: None,
        }
    }

    /// Where the connection's notices arrive.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    fn holder(&self, channel: ChannelKey) -> Holder {
        Holder { connection: self.peer.id(), channel }
    }

    // ---- messages ----------------------------------------------------------------------------------------------

    /// Routes a message and adds it to this read's batches. The promise is owed by each queue that takes it.
    pub fn publish(&mut self, message: Message, promise: Option<Promise>) -> Result<Routed, AmqpError> {
        self.publisher.publish(&self.vhost, message, promise)
    }

    /// Whether a message could be published.
    pub fn check_publish(&mut self, message: &Message) -> Result<(), AmqpError> {
        self.publisher.check(&self.vhost, message)
    }

    /// The end of a read: the batches go to their queues.
    pub fn flush(&mut self, now: Now) {
        self.publisher.flush(&self.broker, now);
    }

    /// Settles deliveries of one queue; `counted` of them held a permit of their channel.
    pub fn settle(
        &mut self,
        channel: ChannelKey,
        queue: QueueId,
        lends: Vec<LendId>,
        outcome: Outcome,
        counted: u32,
        now: Now,
    ) {
        let input = QueueInput::Settle { lends, outcome };
        if let Some(settlements) = &mut self.transaction {
            settlements.push((queue, Settled { channel, input, counted }));
            return;
        }
        self.input(channel, queue, input, now);
        self.release(channel, counted, now);
    }

    /// A transaction's publishes and settlements follow; they are held back until `seal`.
    pub fn begin_transaction(&mut self, now: Now) {
        self.flush(now);
        self.transaction = Some(Vec::new());
    }

    /// The transaction goes to its queues, and from them to the store as one group. Each of these queues owes the channel a
    /// promise numbered 0; returns how many there are.
    pub fn seal(&mut self, channel: ChannelKey, now: Now) -> u32 {
        let mut inputs: Vec<(Arc<Cell>, Vec<QueueInput>)> = Vec::new();
        for (cell, messages) in self.publisher.take_batches() {
            inputs.push((cell, vec![QueueInput::Publish(messages)]));
        }
        let mut freed = Vec::new();
        for (queue, Settled { channel, input, counted }) in self.transaction.take().unwrap_or_default() {
            freed.push((channel, counted));
            match inputs.iter_mut().find(|(cell, _)| cell.id() == queue) {
                Some((_, inputs)) => inputs.push(input),
                None => inputs.extend(self.cell(channel, queue).map(|cell| (cell, vec![input]))),
            }
        }
        let parts = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
        let group = self.broker.new_group(inputs.len());
        let promise = Some(Promise { owner: PromiseOwner::Channel(self.holder(channel)), sequence: 0 });
        let mut list = TurnList::new();
        for (cell, mut inputs) in inputs {
            inputs.push(QueueInput::Seal { group, promise });
            cell.push_all(inputs);
            list.push_back(cell);
        }
        self.broker.take_listed(list, now);
        for (channel, counted) in freed {
            self.release(channel, counted, now);
        }
        parts
    }

    /// Gives back a delivery that the connection could not take.
    pub fn bounce(&mut self, channel: ChannelKey, queue: QueueId, lend: LendId, counted: bool, now: Now) {
        self.input(channel, queue, QueueInput::Bounce { lend }, now);
        self.release(channel, u32::from(counted), now);
    }

    /// Deliveries reached the socket.
    pub fn written(
        &mut self,
        channel: ChannelKey,
        consumer: ConsumerSlot,
        queue: QueueId,
        count: u32,
        bytes: u64,
        now: Now,
    ) {
        let consumer = ConsumerKey { holder: self.holder(channel), slot: consumer };
        self.input(channel, queue, QueueInput::Written { consumer, count, bytes }, now);
    }

    fn release(&mut self, channel: ChannelKey, counted: u32, now: Now) {
        let waiting = self.peer.release_permits(channel, counted);
        self.permits_free(channel, waiting, now);
    }

    fn permits_free(&mut self, channel: ChannelKey, waiting: Vec<QueueId>, now: Now) {
        let holder = self.holder(channel);
        for queue in waiting {
            self.input(channel, queue, QueueInput::PermitFree { holder }, now);
        }
    }

    fn input(&mut self, channel: ChannelKey, queue: QueueId, input: QueueInput, now: Now) {
        if let Some(cell) = self.cell(channel, queue) {
            self.broker.take_turns(&cell, input, now);
        }
    }

    fn cell(&self, channel: ChannelKey, queue: QueueId) -> Option<Arc<Cell>> {
        let attached = self.attached.get(&channel).and_then(|attached| attached.queues.get(&queue));
        attached.map(Arc::clone).or_else(|| self.broker.cell(queue))
    }

    // ---- channels ----------------------------------------------------------------------------------------------

    /// Sets the limit that a channel's consumers share; 0 takes it away.
    pub fn limit_channel(&mut self, channel: ChannelKey, limit: u32, outstanding: u32, now: Now) {
        let waiting = self.peer.set_limit(channel, limit, outstanding);
        let limited = limit > 0;
        if limited {
            self.limited.insert(channel);
        } else {
            self.limited.remove(&channel);
        }
        let holder = self.holder(channel);
        let attached = self.attached.get(&channel).into_iter().flat_map(|attached| attached.queues.values());
        for cell in attached {
            self.broker.take_turns(cell, QueueInput::ChannelLimit { holder, limited }, now);
        }
        self.permits_free(channel, waiting, now);
    }

    /// A channel has ended: all it holds goes back to its queues.
    pub fn end_channel(&mut self, channel: ChannelKey, now: Now) {
        self.peer.set_limit(channel, 0, 0);
        self.limited.remove(&channel);
        let holder = self.holder(channel);
        let mut list = TurnList::new();
        let attached = self.attached.remove(&channel).unwrap_or_default().queues;
        self.attached_count -= attached.len();
        for cell in attached.into_values() {
            cell.push(QueueInput::Detach { holder });
            list.push_back(cell);
        }
        self.broker.take_listed(list, now);
    }

    /// What it takes of memory beside its peer.
    pub fn held_bytes(&self) -> usize {
        let attached = size_of::<(ChannelKey, Attached)>() + size_of::<(QueueId, Arc<Cell>)>();
        let attached: usize = self.attached_count * attached;
        attached + self.exclusive.capacity() * EXCLUSIVE_BYTES + self.publisher.held_bytes()
    }

    /// Whether a channel is attached to so many queues that `keep_attached` is due, before its next command.
    pub fn is_crowded(&self, channel: ChannelKey) -> bool {
        self.attached.get(&channel).is_some_and(|attached| attached.queues.len() >= attached.swept_at)
    }

    /// All queues but these hold nothing for the channel.
    pub fn keep_attached(&mut self, channel: ChannelKey, in_use: &AHashSet<QueueId>) {
        if let Some(Attached { queues, swept_at }) = self.attached.get_mut(&channel) {
            self.attached_count -= queues.len();
            queues.retain(|queue, _| in_use.contains(queue));
            self.attached_count += queues.len();
            *swept_at = next_sweep(queues.len());
            queues.shrink_to(*swept_at);
        }
    }

    /// The connection has ended: all its channels have, and its exclusive queues are deleted.
    pub fn end(&mut self, now: Now) {
        self.flush(now);
        let channels: Vec<ChannelKey> = self.attached.keys().copied().collect();
        for channel in channels {
            self.end_channel(channel, now);
        }
        let mut list = TurnList::new();
        for name in std::mem::take(&mut self.exclusive) {
            let cell = self.vhost.queue(name.as_bytes()).filter(|cell| cell.owner() == Some(self.peer.id()));
            if let Some(cell) = cell {
                self.broker.remove_queue(&cell, &mut list);
            }
        }
        self.broker.take_listed(list, now);
        self.broker.remove_peer(self.peer.id());
    }

    // ---- commands ----------------------------------------------------------------------------------------------

    /// Carries out a command; its answer comes through the inlet.
    pub fn command(&mut self, channel: ChannelKey, request: RequestNo, command: Command, now: Now) {
        let requester = Requester { connection: self.peer.id(), channel, request };
        if let Err(error) = self.carry_out(requester, command, now) {
            self.broker.answer_durable(requester, Vec::new(), Answer::Refused(error));
        }
    }

    fn carry_out(&mut self, requester: Requester, command: Command, now: Now) -> Result<(), AmqpError> {
        match command {
            Command::ExchangeDeclare(declare) => {
                let limits = self.broker.settings().vhost_limits;
                let checked = self.vhost.topology().check_exchange_room(&declare, &limits);
                refusable(&self.broker.counters().exchanges_refused, checked)?;
                let changes = self.vhost.topology().declare_exchange(&declare)?;
                self.vhost.move_epoch();
                self.broker.answer_durable(requester, changes, Answer::Done);
            }
            Command::ExchangeDelete { exchange, if_unused } => {
                let changes = self.vhost.topology().delete_exchange(&exchange, if_unused)?;
                self.vhost.move_epoch();
                self.broker.answer_durable(requester, changes, Answer::Done);
            }
            Command::ExchangeBind(bind) => {
                let destination = Destination::Exchange(bind.destination.clone());
                self.bind(requester, &bind, destination)?;
            }
            Command::QueueBind(bind) => {
                self.check_owner(&bind.destination)?;
                let destination = Destination::Queue(bind.destination.clone());
                self.bind(requester, &bind, destination)?;
            }
            Command::ExchangeUnbind(unbind) => {
                let destination = Destination::Exchange(unbind.destination.clone());
                self.unbind(requester, &unbind, destination)?;
            }
            Command::QueueUnbind(unbind) => {
                let destination = Destination::Queue(unbind.destination.clone());
                self.unbind(requester, &unbind, destination)?;
            }
            Command::QueueDeclare(declare) => self.declare_queue(requester, declare, now)?,
            Command::QueuePurge { queue } => {
                let cell = self.usable(&queue)?;
                self.broker.take_turns(&cell, QueueInput::Purge { requester }, now);
            }
            Command::QueueDelete(delete) => self.delete_queue(requester, &delete, now)?,
            Command::BasicConsume(consume) => self.consume(requester, consume, now)?,
            Command::BasicCancel { queue, consumer } => {
                let key = ConsumerKey { holder: requester.holder(), slot: consumer };
                match self.broker.cell(queue) {
                    Some(cell) => self.broker.take_turns(&cell, QueueInput::Cancel { requester, key }, now),
                    None => self.broker.answer_durable(requester, Vec::new(), Answer::Cancelled),
                }
            }
            Command::BasicGet { queue, no_ack } => {
                let cell = self.usable(&queue)?;
                self.attach(requester.channel, &cell);
                self.broker.take_turns(&cell, QueueInput::Get { requester, no_ack }, now);
            }
        }
        Ok(())
    }

    fn bind(&self, requester: Requester, bind: &BindTo, destination: Destination) -> Result<(), AmqpError> {
        let limits = self.broker.settings().vhost_limits;
        let checked = self.vhost.topology().check_binding_room(bind, &destination, &limits);
        refusable(&self.broker.counters().bindings_refused, checked)?;
        let changes = self.vhost.topology().bind(bind, destination)?;
        self.vhost.move_epoch();
        self.broker.answer_durable(requester, changes, Answer::Done);
        Ok(())
    }

    fn unbind(&self, requester: Requester, unbind: &BindTo, destination: Destination) -> Result<(), AmqpError> {
        let changes = self.vhost.topology().unbind(unbind, destination, self.peer.id())?;
        self.vhost.move_epoch();
        self.broker.answer_durable(requester, changes, Answer::Done);
        Ok(())
    }

    /// A queue that is there must not be another connection's.
    fn check_owner(&self, queue: &Name) -> Result<(), AmqpError> {
        match self.vhost.topology().queue(queue.as_bytes()) {
            Some(entry) => entry.check_owner(queue, self.vhost.name().as_str(), self.peer.id()),
            None => Ok(()),
        }
    }

    fn usable(&self, queue: &Name) -> Result<Arc<Cell>, AmqpError> {
        self.vhost.topology().usable(queue, self.peer.id()).map(|entry| Arc::clone(&entry.cell))
    }

    fn attach(&mut self, channel: ChannelKey, cell: &Arc<Cell>) {
        let attached = self.attached.entry(channel).or_default();
        self.attached_count += usize::from(attached.queues.insert(cell.id(), Arc::clone(cell)).is_none());
    }

    fn note_exclusive(&mut self, queue: Name) {
        self.exclusive.push(queue);
        if self.exclusive.len() < self.exclusive_swept_at {
            return;
        }
        let (vhost, connection) = (&self.vhost, self.peer.id());
        let is_there = |name: &Name| vhost.queue(name.as_bytes()).is_some_and(|cell| cell.owner() == Some(connection));
        let mut kept = AHashSet::new();
        self.exclusive.retain(|name| is_there(name) && kept.insert(name.clone()));
        self.exclusive_swept_at = next_sweep(self.exclusive.len());
        self.exclusive.shrink_to(self.exclusive_swept_at);
    }

    fn declare_queue(&mut self, requester: Requester, declare: QueueDeclare, now: Now) -> Result<(), AmqpError> {
        Counters::add(&self.broker.counters().queues_declared, u64::from(!declare.passive));
        if declare.passive {
            let cell = self.usable(&declare.queue)?;
            self.broker.take_turns(&cell, QueueInput::Status { requester }, now);
            return Ok(());
        }
        let name = if declare.queue.is_empty() {
            Name::from(self.random.generated_name(GENERATED_NAME))
        } else {
            Topology::check_queue_name(declare.queue.as_str())?;
            declare.queue.clone()
        };
        let declare = QueueDeclare { queue: name, ..declare };
        match self.insert_queue(&declare, now)? {
            Declaration::Existing(cell) => self.broker.take_turns(&cell, QueueInput::Status { requester }, now),
            Declaration::New(changes) => {
                Counters::add(&self.broker.counters().queues_created, 1);
                if declare.exclusive {
                    self.note_exclusive(declare.queue.clone());
                }
                let answer = Answer::QueueDeclared { queue: declare.queue, message_count: 0, consumer_count: 0 };
                self.broker.answer_durable(requester, changes, answer);
            }
        }
        Ok(())
    }

    /// Looks for the queue and makes it in one step, so that two connections that declare it make one.
    fn insert_queue(&self, declare: &QueueDeclare, now: Now) -> Result<Declaration, AmqpError> {
        let (connection, vhost) = (self.peer.id(), self.vhost.name());
        let mut topology = self.vhost.topology();
        if let Some(entry) = topology.queue(declare.queue.as_bytes()) {
            entry.check_owner(&declare.queue, vhost.as_str(), connection)?;
            entry.check_equivalent(declare, vhost.as_str())?;
            return Ok(Declaration::Existing(Arc::clone(&entry.cell)));
        }
        let checked = topology.check_queue_room(&declare.queue, &self.broker.settings().vhost_limits);
        refusable(&self.broker.counters().queues_refused, checked)?;
        let durable = declare.durable && !declare.exclusive;
        let declared = Declared {
            id: self.broker.next_queue_id(),
            name: declare.queue.clone(),
            vhost: vhost.clone(),
            durable,
            auto_delete: declare.auto_delete,
        };
        let settings = queue_arguments::settings(declared, &declare.arguments)?;
        let (id, timed) = (settings.id, settings.expires.is_some());
        let queue = QueueState::new(settings, self.broker.settings().queue_limits, now);
        let cell = self.broker.add_cell(queue, declare.exclusive.then_some(connection));
        let entry = QueueEntry {
            cell: Arc::clone(&cell),
            durable,
            auto_delete: declare.auto_delete,
            arguments: declare.arguments.clone(),
        };
        topology.insert_queue(declare.queue.clone(), entry);
        drop(topology);
        self.vhost.index(&cell);
        if timed {
            self.broker.take_turns(&cell, QueueInput::Tick, now);
        }
        let record = QueueRecord {
            vhost: vhost.clone(),
            name: declare.queue.clone(),
            id,
            auto_delete: declare.auto_delete,
            arguments: declare.arguments.encode(),
        };
        Ok(Declaration::New(if durable { vec![TopologyChange::PutQueue(record)] } else { Vec::new() }))
    }

    fn delete_queue(&mut self, requester: Requester, delete: &QueueDelete, now: Now) -> Result<(), AmqpError> {
        self.check_owner(&delete.queue)?;
        match self.vhost.queue(delete.queue.as_bytes()) {
            Some(cell) => {
                let QueueDelete { if_unused, if_empty, .. } = *delete;
                self.broker.take_turns(&cell, QueueInput::Delete { requester, if_unused, if_empty }, now);
            }
            None => self.broker.answer_durable(requester, Vec::new(), Answer::Removed { message_count: 0 }),
        }
        Ok(())
    }

    fn consume(&mut self, requester: Requester, consume: BasicConsume, now: Now) -> Result<(), AmqpError> {
        let cell = self.usable(&consume.queue)?;
        let priority = self.consumer_priority(&consume)?;
        self.attach(requester.channel, &cell);
        let input = QueueInput::Consume(Consume {
            requester,
            key: ConsumerKey { holder: requester.holder(), slot: consume.consumer },
            tag: consume.consumer_tag,
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            priority,
            prefetch: consume.prefetch,
            channel_limited: self.limited.contains(&requester.channel),
        });
        self.broker.take_turns(&cell, input, now);
        Ok(())
    }

    fn consumer_priority(&self, consume: &BasicConsume) -> Result<i64, AmqpError> {
        let at = || queue_in_vhost(consume.queue.as_str(), self.vhost.name().as_str());
        if let Some(key) = STREAM_ARGUMENTS.into_iter().find(|key| consume.arguments.get(key).is_some()) {
            let text = format!("invalid arg '{key}' for {} of queue type rabbit_classic_queue", at());
            return Err(AmqpError::precondition_failed(text));
        }
        let Some(value) = consume.arguments.get(keys::CONSUMER_PRIORITY) else { return Ok(0) };
        integer(value).ok_or_else(|| {
            let of = type_name(value);
            let text = format!("invalid arg 'x-priority' for {}: \"expected integer, got {of}\"", at());
            AmqpError::precondition_failed(text)
        })
    }
}

/// Counts what a limit refuses.
fn refusable(counter: &AtomicU64, checked: Result<(), AmqpError>) -> Result<(), AmqpError> {
    checked.inspect_err(|_| Counters::add(counter, 1))
}

enum Declaration {
    Existing(Arc<Cell>),
    New(Vec<TopologyChange>),
}
