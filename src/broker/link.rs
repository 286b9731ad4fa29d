//! What one connection does to the broker. Everything here returns at once; answers come through the connection's inlet.

use super::batches::Batches;
use super::cell::Cell;
use super::commit::TransactionCommit;
use super::counters::Counters;
use super::node::Broker;
use super::peer::Peer;
use super::permits::{ChannelPermits, Grant};
use super::queue_arguments::{self, Declared};
use super::routes::Routes;
use super::topology::{QueueEntry, Topology};
use super::turns::TurnList;
use super::vhost::Vhost;
use crate::model::arguments::keys;
use crate::model::command::{BasicConsume, BindTo, QueueDeclare, QueueDelete};
use crate::model::names::queue_in_vhost;
use crate::model::random::Random;
use crate::model::{
    AmqpError, Answer, ChannelKey, Command, ConnectionId, ConsumerKey, ConsumerSlot, Holder, LendId, LimitChange,
    LimitId, LimitKey, Message, Name, Now, Promise, QueueId, RequestNo,
};
use crate::queue::{Consume, Enqueue, Outcome, QueueInput, QueueState, Requester};
use crate::routing::Destination;
use crate::store::{QueueRecord, TopologyChange};
use ahash::{AHashMap, AHashSet};
use std::sync::Arc;

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
    routes: Routes,
    batches: Batches,
    /// Permits that the settlements of this read give back.
    released: Vec<(ChannelKey, u32)>,
    random: Random,
    /// Queues that hold something for a channel, or may.
    attached: AHashMap<ChannelKey, AHashSet<QueueId>>,
    /// Their cells, and those of whatever else the connection settles.
    cells: AHashMap<QueueId, Arc<Cell>>,
    /// The prefetch limits of channels that have one.
    limits: AHashMap<ChannelKey, LimitId>,
    exclusive: Vec<Name>,
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
            routes: Routes::default(),
            batches: Batches::default(),
            released: Vec::new(),
            random: Random::new(seed),
            attached: AHashMap::new(),
            cells: AHashMap::new(),
            limits: AHashMap::new(),
            exclusive: Vec::new(),
        }
    }

    /// Where the connection's notices arrive.
    pub fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    pub(super) fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    pub(super) fn vhost(&self) -> &Vhost {
        &self.vhost
    }

    pub(super) fn holder(&self, channel: ChannelKey) -> Holder {
        Holder { connection: self.peer.id(), channel }
    }

    // ---- messages ----------------------------------------------------------------------------------------------

    /// Routes a message and adds it to this read's batches. Returns how many queues it goes to; each owes the promise.
    ///
    /// # Errors
    /// The exchange is missing, or closed to clients.
    pub fn publish(&mut self, message: Message, promise: Option<Promise>) -> Result<u32, AmqpError> {
        let targets = self.routes.targets(&self.vhost, &message)?;
        if let [only] = targets {
            self.batches.publish(only, Enqueue { message, promise });
            return Ok(1);
        }
        for cell in targets {
            self.batches.publish(cell, Enqueue { message: message.clone(), promise });
        }
        Ok(u32::try_from(targets.len()).unwrap_or(u32::MAX))
    }

    /// The names of the queues that a message goes to now.
    ///
    /// # Errors
    /// As `publish`.
    pub fn route(&mut self, message: &Message) -> Result<Vec<Name>, AmqpError> {
        let targets = self.routes.targets(&self.vhost, message)?;
        Ok(targets.iter().map(|cell| cell.name().clone()).collect())
    }

    /// The end of a read: the batches go to their queues, and permits of settled deliveries come back.
    pub fn flush(&mut self, now: Now) {
        if self.batches.is_empty() {
            return;
        }
        self.batches.flush(&self.broker, now);
        while let Some((channel, count)) = self.released.pop() {
            self.release(channel, count, now);
        }
    }

    /// Adds the settlement of a delivery to this read's batches, behind what it brought for that queue before; `counted`
    /// says that it held a permit of its channel.
    pub fn settle(&mut self, channel: ChannelKey, queue: QueueId, lend: LendId, outcome: Outcome, counted: bool) {
        let Self { batches, cells, broker, released, .. } = self;
        batches.settle(queue, lend, outcome, || cells.get(&queue).map(Arc::clone).or_else(|| broker.cell(queue)));
        if counted {
            match released.iter_mut().find(|(released, _)| *released == channel) {
                Some((_, count)) => *count += 1,
                None => released.push((channel, 1)),
            }
        }
    }

    /// A transaction of a channel takes effect behind what was published before.
    pub fn commit(&mut self, channel: ChannelKey, now: Now) -> TransactionCommit<'_> {
        self.flush(now);
        TransactionCommit::new(self, channel)
    }

    /// Gives back a delivery that the connection could not take, and its permit if it holds one of the channel's limit.
    pub fn bounce(&mut self, channel: ChannelKey, queue: QueueId, lend: LendId, permit: Option<LimitId>, now: Now) {
        self.input(queue, QueueInput::Bounce { lend }, now);
        if permit.is_some() && permit == self.limits.get(&channel).copied() {
            self.release(channel, 1, now);
        }
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
        self.input(queue, QueueInput::Written { consumer, count, bytes }, now);
    }

    pub(super) fn release(&mut self, channel: ChannelKey, counted: u32, now: Now) {
        if counted > 0 {
            self.with_permits(channel, now, |permits, grants| permits.release(counted, grants));
        }
    }

    /// Does something to the permits of a channel's limit, if it has one, and lets the queues run that are granted some.
    fn with_permits(&self, channel: ChannelKey, now: Now, act: impl FnOnce(&mut ChannelPermits, &mut Vec<Grant>)) {
        let Some(id) = self.limits.get(&channel).copied() else { return };
        let mut grants = Vec::new();
        self.peer.with_permits(channel, Some(id), |permits| act(permits, &mut grants));
        if !grants.is_empty() {
            let mut list = TurnList::new();
            self.broker.hand_grants(&self.peer, LimitKey { holder: self.holder(channel), id }, grants, &mut list);
            self.broker.take_listed(list, now);
        }
    }

    fn input(&mut self, queue: QueueId, input: QueueInput, now: Now) {
        if let Some(cell) = self.cell(queue) {
            self.broker.take_turns(&cell, input, now);
        }
    }

    pub(super) fn cell(&self, queue: QueueId) -> Option<Arc<Cell>> {
        self.cells.get(&queue).map(Arc::clone).or_else(|| self.broker.cell(queue))
    }

    // ---- channels ----------------------------------------------------------------------------------------------

    /// The prefetch limit that a channel's consumers share comes, changes or goes.
    pub fn change_limit(&mut self, channel: ChannelKey, change: LimitChange, now: Now) {
        match change {
            LimitChange::Begins { id, limit, outstanding } => {
                let queues = self.attached.get(&channel).into_iter().flatten().copied();
                let queues = queues.filter(|queue| self.cells.contains_key(queue));
                self.peer.begin_limit(channel, ChannelPermits::new(id, limit, outstanding, queues));
                self.limits.insert(channel, id);
                self.limit_queues(channel, Some(id), now);
            }
            LimitChange::Becomes(limit) => {
                self.with_permits(channel, now, |permits, grants| permits.set_limit(limit, grants));
            }
            LimitChange::Ends => {
                self.limits.remove(&channel);
                self.peer.end_limit(channel);
                self.limit_queues(channel, None, now);
            }
        }
    }

    fn limit_queues(&self, channel: ChannelKey, limit: Option<LimitId>, now: Now) {
        let holder = self.holder(channel);
        let mut list = TurnList::new();
        for cell in self.attached.get(&channel).into_iter().flatten().filter_map(|queue| self.cells.get(queue)) {
            cell.push(QueueInput::ChannelLimit { holder, limit });
            list.push_back(Arc::clone(cell));
        }
        self.broker.take_listed(list, now);
    }

    /// All that a queue delivered before it applied the channel's limit has arrived.
    pub fn queue_limited(&self, channel: ChannelKey, queue: QueueId, limit: LimitId, now: Now) {
        if self.limits.get(&channel) == Some(&limit) {
            self.with_permits(channel, now, |permits, grants| permits.queue_limited(queue, grants));
        }
    }

    /// A delivery has arrived that was on its way when the channel's limit began.
    pub fn count_delivery(&self, channel: ChannelKey, now: Now) {
        self.with_permits(channel, now, |permits, _| permits.count_delivery());
    }

    /// A channel has ended: all it holds goes back to its queues.
    pub fn end_channel(&mut self, channel: ChannelKey, now: Now) {
        self.peer.end_limit(channel);
        self.limits.remove(&channel);
        let holder = self.holder(channel);
        let mut list = TurnList::new();
        for queue in self.attached.remove(&channel).unwrap_or_default() {
            if let Some(cell) = self.cells.get(&queue) {
                cell.push(QueueInput::Detach { holder });
                list.push_back(Arc::clone(cell));
            }
        }
        self.broker.take_listed(list, now);
        if self.attached.is_empty() {
            self.cells.clear();
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
        self.attached.entry(channel).or_default().insert(cell.id());
        self.cells.entry(cell.id()).or_insert_with(|| Arc::clone(cell));
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
                    self.exclusive.push(declare.queue.clone());
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
            channel_limit: self.limits.get(&requester.channel).copied(),
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
        value.as_integer().ok_or_else(|| {
            let of = value.type_name();
            let text = format!("invalid arg 'x-priority' for {}: \"expected integer, got {of}\"", at());
            AmqpError::precondition_failed(text)
        })
    }
}

enum Declaration {
    Existing(Arc<Cell>),
    New(Vec<TopologyChange>),
}
