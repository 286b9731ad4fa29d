//! The calls of one connection to the broker. Each returns at once; answers come through the connection's inlet.

use super::access::check_vhost_access;
use super::batches::Batches;
use super::cell::Cell;
use super::cell::TurnList;
use super::commit::TransactionCommit;
use super::counters::RefusalCounters;
use super::exclusive::ExclusiveQueues;
use super::node::Broker;
use super::peer::{Client, Peer};
use super::permits::{ChannelPermits, Grant};
use super::routes::Routes;
use super::vhost::Vhost;
use crate::model::arguments::keys;
use crate::model::command::{BasicConsume, BindTo};
use crate::model::names::queue_in_vhost;
use crate::model::random::Random;
use crate::model::{
    AmqpError, Answer, ChannelKey, Command, ConnectionId, ConsumerKey, ConsumerSlot, Holder, LendId, LimitChange,
    LimitId, LimitKey, Message, Name, NamedLimit, Now, Promise, QueueId, RequestNo, SettleOutcome,
};
use crate::queue::{Consume, Enqueue, QueueCommand, Requester};
use crate::routing::Destination;
use ahash::{AHashMap, AHashSet};
use std::sync::Arc;

/// Consumer arguments of streams, which no kind of queue supports here.
const STREAM_ARGUMENTS: [&str; 3] = ["x-stream-offset", "x-stream-filter", "x-stream-match-unfiltered"];

/// The broker's end of one connection, from the opening of its vhost to its end.
#[derive(Debug)]
pub(crate) struct Link {
    pub(super) broker: Arc<Broker>,
    pub(super) vhost: Arc<Vhost>,
    pub(super) peer: Arc<Peer>,
    routes: Routes,
    batches: Batches,
    /// Permits that the settlements of this read release, by channel.
    released: Vec<(ChannelKey, u32)>,
    pub(super) random: Random,
    attached: AHashMap<ChannelKey, AttachedQueues>,
    /// Number of attached queues, over all channels.
    attached_count: usize,
    /// The prefetch limits of channels that have one.
    limits: AHashMap<ChannelKey, LimitId>,
    pub(super) exclusive: ExclusiveQueues,
}

/// The connection that opens a vhost.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    /// The connection's id.
    pub id: ConnectionId,
    /// The user that has logged in.
    pub user: Name,
    /// The client of the connection.
    pub client: Client,
    /// Seed of the connection's random numbers.
    pub seed: u64,
}

/// Queues that have consumers or unacknowledged messages of a channel, or had some.
#[derive(Debug)]
struct AttachedQueues {
    queues: AHashMap<QueueId, Arc<Cell>>,
    /// At this number, queues without consumers and messages of the channel are removed.
    swept_at: usize,
}

impl Default for AttachedQueues {
    fn default() -> Self {
        Self { queues: AHashMap::new(), swept_at: SWEPT_AT_FIRST }
    }
}

impl AttachedQueues {
    /// The queues in the order of their ids. It is the same in every run, and decides which queue gets something first.
    fn in_order(&self) -> Vec<&Arc<Cell>> {
        let mut cells: Vec<_> = self.queues.values().collect();
        cells.sort_unstable_by_key(|cell| cell.id());
        cells
    }
}

/// Number of attached queues at which the first sweep is due.
const SWEPT_AT_FIRST: usize = 64;

/// When the next sweep is due. It doubles, so that sweeps cost no more than adding the entries did.
fn next_sweep(kept: usize) -> usize {
    (kept * 2).max(SWEPT_AT_FIRST)
}

/// How far a command has come when `Link::command` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum CommandOutcome {
    /// The command is carried out, or its queue will carry it out, and refuses it only if the queue itself is gone by
    /// then.
    Accepted,
    /// The command's queue decides, and may have decided already. The answer comes through the inlet.
    Undecided,
    /// The command was refused, and the refusal is in the inlet. Later commands of the channel must not be carried out.
    Refused,
}

impl Link {
    /// Opens a vhost for a user's connection.
    ///
    /// # Errors
    /// `not_allowed`: the vhost does not exist, or the user may not open it.
    pub(crate) fn open_vhost(broker: &Arc<Broker>, vhost: &str, opening: Opening) -> Result<Self, AmqpError> {
        let Opening { id, user, client, seed } = opening;
        // The users stay locked until the connection is added to the broker; see `access`.
        let users = broker.access().users();
        let vhost = check_vhost_access(&users, user.as_str(), vhost, broker.vhost(vhost.as_bytes()))?;
        Ok(Self::with_peer(broker, Peer::new(id, user).in_vhost(vhost.name().clone()).with_client(client), vhost, seed))
    }

    /// A link without a client, which may open any vhost.
    #[cfg(test)]
    pub(super) fn open(broker: &Arc<Broker>, vhost: Arc<Vhost>, id: ConnectionId, user: Name, seed: u64) -> Self {
        Self::with_peer(broker, Peer::new(id, user).in_vhost(vhost.name().clone()), vhost, seed)
    }

    fn with_peer(broker: &Arc<Broker>, peer: Peer, vhost: Arc<Vhost>, seed: u64) -> Self {
        let peer = Arc::new(peer);
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
            attached_count: 0,
            limits: AHashMap::new(),
            exclusive: ExclusiveQueues::default(),
        }
    }

    /// The connection as the broker sees it, with its inlet.
    pub(crate) fn peer(&self) -> &Arc<Peer> {
        &self.peer
    }

    /// The queue to which the connection published last, or else one from which it consumes.
    pub(crate) fn queue_in_use(&self) -> Option<QueueId> {
        let attached = || self.attached.values().flat_map(|attached| attached.queues.keys().copied()).min();
        self.routes.last_target().or_else(attached)
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

    /// Routes a message and adds it to this read's batches. Returns the number of its queues; each of them owes the
    /// promise.
    ///
    /// # Errors
    /// The exchange is missing or internal.
    pub(crate) fn publish(&mut self, message: Message, promise: Option<Promise>) -> Result<u32, AmqpError> {
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

    /// The names of the queues to which a message is routed now.
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub(crate) fn route(&mut self, message: &Message) -> Result<Vec<Name>, AmqpError> {
        let targets = self.routes.targets(&self.vhost, message)?;
        Ok(targets.iter().map(|cell| cell.name().clone()).collect())
    }

    /// Ends a read: pushes the batches to their queues, and releases the permits of settled deliveries.
    pub(crate) fn flush(&mut self, now: Now) {
        self.routes.fold_counts();
        if self.batches.is_empty() {
            return;
        }
        self.batches.flush(&self.broker, now);
        while let Some((channel, count)) = self.released.pop() {
            self.release(channel, count, now);
        }
    }

    /// Adds the settlement of a delivery to this read's batches, after the read's earlier inputs for that queue. The
    /// delivery holds a permit of its channel if it is `counted`. If it `joins`, the settlement may take effect in one
    /// step with those before it.
    pub(crate) fn settle(
        &mut self,
        channel: ChannelKey,
        queue: QueueId,
        lend: LendId,
        outcome: SettleOutcome,
        counted: bool,
        joins: bool,
    ) {
        let Self { batches, attached, broker, released, .. } = self;
        batches.settle(queue, lend, outcome, joins, || {
            let attached = attached.get(&channel).and_then(|attached| attached.queues.get(&queue));
            attached.map(Arc::clone).or_else(|| broker.cell(queue))
        });
        if counted {
            match released.iter_mut().find(|(released, _)| *released == channel) {
                Some((_, count)) => *count += 1,
                None => released.push((channel, 1)),
            }
        }
    }

    /// Begins the commit of a channel's transaction, after everything that was published before.
    pub(crate) fn commit(&mut self, channel: ChannelKey, now: Now) -> TransactionCommit<'_> {
        self.flush(now);
        TransactionCommit::new(self, channel)
    }

    /// Returns a delivery that the connection could not take, and releases its permit if it belongs to the channel's
    /// current limit.
    pub(crate) fn bounce(
        &mut self,
        channel: ChannelKey,
        queue: QueueId,
        lend: LendId,
        permit: Option<LimitId>,
        now: Now,
    ) {
        self.input(channel, queue, QueueCommand::Bounce { lend }, now);
        if permit.is_some() && permit == self.limits.get(&channel).copied() {
            self.release(channel, 1, now);
        }
    }

    /// Reports that `count` deliveries, with `bytes` bytes, were written to the socket.
    pub(crate) fn note_written(
        &mut self,
        channel: ChannelKey,
        consumer: ConsumerSlot,
        queue: QueueId,
        count: u32,
        bytes: u64,
        now: Now,
    ) {
        let consumer = ConsumerKey { holder: self.holder(channel), slot: consumer };
        self.input(channel, queue, QueueCommand::Written { consumer, count, bytes }, now);
    }

    pub(super) fn release(&mut self, channel: ChannelKey, counted: u32, now: Now) {
        if counted > 0 {
            self.with_permits(channel, now, |permits, grants| permits.release(counted, grants));
        }
    }

    /// Applies `act` to the permits of a channel's limit, if it has one, and runs the queues that are granted permits.
    fn with_permits(&self, channel: ChannelKey, now: Now, act: impl FnOnce(&mut ChannelPermits, &mut Vec<Grant>)) {
        let Some(id) = self.limits.get(&channel).copied() else { return };
        let mut grants = Vec::new();
        self.peer.with_permits(channel, Some(id), |permits| act(permits, &mut grants));
        if !grants.is_empty() {
            let mut list = TurnList::new();
            self.broker.send_grants(&self.peer, LimitKey { holder: self.holder(channel), id }, grants, &mut list);
            self.broker.take_listed(list, now);
        }
    }

    fn input(&mut self, channel: ChannelKey, queue: QueueId, command: QueueCommand, now: Now) {
        if let Some(cell) = self.cell(channel, queue) {
            self.broker.take_turns(&cell, command, now);
        }
    }

    pub(super) fn cell(&self, channel: ChannelKey, queue: QueueId) -> Option<Arc<Cell>> {
        let attached = self.attached.get(&channel).and_then(|attached| attached.queues.get(&queue));
        attached.map(Arc::clone).or_else(|| self.broker.cell(queue))
    }

    // ---- channels ----------------------------------------------------------------------------------------------

    /// Begins, changes or ends the prefetch limit that a channel's consumers share.
    pub(crate) fn change_limit(&mut self, channel: ChannelKey, change: LimitChange, now: Now) {
        match change {
            LimitChange::Begins { id, limit, outstanding } => {
                let queues =
                    self.attached.get(&channel).into_iter().flat_map(|attached| attached.queues.keys().copied());
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
        for cell in self.attached.get(&channel).into_iter().flat_map(AttachedQueues::in_order) {
            cell.push(QueueCommand::ChannelLimit { holder, limit });
            list.push_back(Arc::clone(cell));
        }
        self.broker.take_listed(list, now);
    }

    /// Reports that all deliveries have arrived that a queue made before it applied the channel's limit.
    pub(crate) fn queue_limited(&self, channel: ChannelKey, queue: QueueId, limit: LimitId, now: Now) {
        if self.limits.get(&channel) == Some(&limit) {
            self.with_permits(channel, now, |permits, grants| permits.queue_limited(queue, grants));
        }
    }

    /// Counts a delivery that was on its way when the channel's limit began.
    pub(crate) fn count_delivery(&self, channel: ChannelKey, now: Now) {
        self.with_permits(channel, now, |permits, _| permits.count_delivery());
    }

    /// Ends a channel: its consumers are removed and its unacknowledged messages requeued.
    pub(crate) fn end_channel(&mut self, channel: ChannelKey, now: Now) {
        self.peer.end_limit(channel);
        self.limits.remove(&channel);
        let holder = self.holder(channel);
        let mut list = TurnList::new();
        let attached = self.attached.remove(&channel).unwrap_or_default();
        self.attached_count -= attached.queues.len();
        for cell in attached.in_order() {
            cell.push(QueueCommand::Detach { holder });
            list.push_back(Arc::clone(cell));
        }
        self.broker.take_listed(list, now);
    }

    /// Bytes of memory that the link takes, without its peer.
    pub(crate) fn held_bytes(&self) -> usize {
        let attached = size_of::<(ChannelKey, AttachedQueues)>() + size_of::<(QueueId, Arc<Cell>)>();
        let attached: usize = self.attached_count * attached;
        attached + self.exclusive.held_bytes() + self.routes.held_bytes()
    }

    /// Whether a channel has so many attached queues that `keep_attached` is due before its next command.
    pub(crate) fn is_crowded(&self, channel: ChannelKey) -> bool {
        self.attached.get(&channel).is_some_and(|attached| attached.queues.len() >= attached.swept_at)
    }

    /// Keeps only the attached queues that the channel has in use.
    pub(crate) fn keep_attached(&mut self, channel: ChannelKey, in_use: &AHashSet<QueueId>) {
        if let Some(AttachedQueues { queues, swept_at }) = self.attached.get_mut(&channel) {
            self.attached_count -= queues.len();
            queues.retain(|queue, _| in_use.contains(queue));
            self.attached_count += queues.len();
            *swept_at = next_sweep(queues.len());
            queues.shrink_to(*swept_at);
        }
    }

    /// Ends the connection: ends its channels and deletes its exclusive queues. Returns whether that is complete. If
    /// not, the remaining queues are deleted in slices, and the connection gets `Notice::Ended` after the last one.
    pub(crate) fn end(&mut self, now: Now) -> bool {
        self.flush(now);
        let exclusive = self.exclusive.take();
        // Consumers of these queues end with the queues.
        let ending: AHashSet<QueueId> = exclusive.iter().copied().collect();
        for attached in self.attached.values_mut() {
            let before = attached.queues.len();
            attached.queues.retain(|queue, _| !ending.contains(queue));
            self.attached_count -= before - attached.queues.len();
        }
        let mut channels: Vec<ChannelKey> = self.attached.keys().copied().collect();
        channels.sort_unstable();
        for channel in channels {
            self.end_channel(channel, now);
        }
        self.broker.delete_exclusive(&self.vhost, &self.peer, exclusive, now)
    }

    // ---- commands ----------------------------------------------------------------------------------------------

    /// Carries out a command; its answer comes through the inlet.
    pub(crate) fn command(
        &mut self,
        channel: ChannelKey,
        request: RequestNo,
        command: Command,
        now: Now,
    ) -> CommandOutcome {
        let requester = Requester { connection: self.peer.id(), channel, request };
        self.carry_out(requester, command, now).unwrap_or_else(|error| {
            self.broker.answer(requester, Answer::Refused(error));
            CommandOutcome::Refused
        })
    }

    fn carry_out(&mut self, requester: Requester, command: Command, now: Now) -> Result<CommandOutcome, AmqpError> {
        match command {
            Command::ExchangeDeclare(declare) => {
                let limits = self.broker.settings().vhost_limits;
                self.change_topology(requester, |topology, _| {
                    let checked = topology.check_exchange_room(&declare, &limits);
                    count_refusal(self.broker.refusals(), NamedLimit::VhostExchangesMax, checked)?;
                    topology.declare_exchange(&declare)
                })?;
            }
            Command::ExchangeDelete { exchange, if_unused } => {
                self.change_topology(requester, |topology, _| topology.delete_exchange(&exchange, if_unused))?;
            }
            Command::ExchangeBind(bind) => {
                let destination = Destination::Exchange(bind.destination.clone());
                self.bind(requester, &bind, destination)?;
            }
            Command::QueueBind(bind) => {
                let destination = Destination::Queue(bind.destination.clone());
                self.bind(requester, &bind, destination)?;
            }
            Command::ExchangeUnbind(bind) => {
                let destination = Destination::Exchange(bind.destination.clone());
                self.change_topology(requester, |topology, connection| {
                    topology.unbind(&bind, destination, connection)
                })?;
            }
            Command::QueueUnbind(bind) => {
                let destination = Destination::Queue(bind.destination.clone());
                self.change_topology(requester, |topology, connection| {
                    topology.unbind(&bind, destination, connection)
                })?;
            }
            Command::QueueDeclare(declare) => self.declare_queue(requester, declare, now)?,
            Command::QueuePurge { queue } => {
                let cell = self.usable(&queue)?;
                self.broker.take_turns(&cell, QueueCommand::Purge { requester }, now);
            }
            Command::QueueDelete(delete) => return self.delete_queue(requester, &delete, now),
            Command::BasicConsume(consume) => self.consume(requester, consume, now)?,
            Command::BasicCancel { queue, consumer } => {
                let key = ConsumerKey { holder: requester.holder(), slot: consumer };
                match self.broker.cell(queue) {
                    Some(cell) => self.broker.take_turns(&cell, QueueCommand::Cancel { requester, key }, now),
                    None => self.broker.answer(requester, Answer::Cancelled),
                }
            }
            Command::BasicGet { queue, no_ack } => {
                let cell = self.usable(&queue)?;
                self.attach(requester.channel, &cell);
                self.broker.take_turns(&cell, QueueCommand::Get { requester, no_ack }, now);
            }
        }
        Ok(CommandOutcome::Accepted)
    }

    fn bind(&self, requester: Requester, bind: &BindTo, destination: Destination) -> Result<(), AmqpError> {
        let limits = self.broker.settings().vhost_limits;
        self.change_topology(requester, |topology, connection| {
            let checked = topology.check_binding_room(bind, &destination, &limits);
            count_refusal(self.broker.refusals(), NamedLimit::VhostBindingsMax, checked)?;
            topology.bind(bind, destination, connection)
        })
    }

    fn usable(&self, queue: &Name) -> Result<Arc<Cell>, AmqpError> {
        self.vhost.topology().usable(queue, self.peer.id()).map(|entry| Arc::clone(&entry.cell))
    }

    fn attach(&mut self, channel: ChannelKey, cell: &Arc<Cell>) {
        let attached = self.attached.entry(channel).or_default();
        self.attached_count += usize::from(attached.queues.insert(cell.id(), Arc::clone(cell)).is_none());
    }

    fn consume(&mut self, requester: Requester, consume: BasicConsume, now: Now) -> Result<(), AmqpError> {
        let cell = self.usable(&consume.queue)?;
        let priority = self.consumer_priority(&consume)?;
        self.attach(requester.channel, &cell);
        let command = QueueCommand::Consume(Consume {
            requester,
            key: ConsumerKey { holder: requester.holder(), slot: consume.consumer },
            tag: consume.consumer_tag,
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            priority,
            prefetch: consume.prefetch,
            channel_limit: self.limits.get(&requester.channel).copied(),
        });
        self.broker.take_turns(&cell, command, now);
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

/// Counts what a limit refuses.
pub(super) fn count_refusal(
    counters: &RefusalCounters,
    limit: NamedLimit,
    checked: Result<(), AmqpError>,
) -> Result<(), AmqpError> {
    checked.inspect_err(|_| counters.note(limit))
}
