//! Channels, their permits and queues without a broker: each queue has an inbox, the connection has an inlet, and the
//! test decides in which order they are emptied.

mod any_order;
mod cost;
mod shares;

use super::{ChannelPermits, Grant};
use crate::model::random::Random;
use crate::model::{
    Answer, ChannelKey, ConnectionId, ConsumerKey, ConsumerSlot, Delivery, Holder, LendId, LimitId, LimitKey, Message,
    Monotonic, Name, Notice, Now, QueueId, RequestNo, SettleOutcome, WallMillis,
};
use crate::queue::{
    Consume, ConsumerLimits, Effects, Enqueue, HoldLimits, Permits, QueueCommand, QueueEffect, QueueLimits,
    QueueSettings, QueueState, Requester, WindowLimits,
};
use crate::wire::properties::{Properties, PropertiesWriter};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const CONNECTION: ConnectionId = ConnectionId(1);
const NOW: Now = Now { monotonic: Monotonic(0), wall: WallMillis(0) };

struct Queue {
    state: QueueState,
    inbox: VecDeque<QueueCommand>,
    /// The queue has failed: grants no longer reach it.
    is_gone: bool,
}

/// A delivery that the client has not settled.
#[derive(Clone, Copy, Debug)]
struct LentDelivery {
    queue: QueueId,
    lend: LendId,
    counted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Consumer {
    slot: ConsumerSlot,
    queue: QueueId,
    /// The consumer has a prefetch of its own, which may hold it back.
    has_prefetch: bool,
}

/// The combined state of a channel in its session and its link.
#[derive(Default)]
struct Channel {
    limit: Option<LimitId>,
    last_limit: u32,
    unacked: Vec<LentDelivery>,
    /// Deliveries settled in a transaction that is not committed.
    held_back: Vec<(LentDelivery, SettleOutcome)>,
    consumers: Vec<Consumer>,
    attached: BTreeSet<QueueId>,
}

struct World {
    queues: BTreeMap<QueueId, Queue>,
    channels: BTreeMap<ChannelKey, Channel>,
    permits: BTreeMap<ChannelKey, ChannelPermits>,
    inlet: VecDeque<Notice>,
    /// Queues whose inboxes got inputs, in order.
    woken: Vec<QueueId>,
    numbers: u32,
    /// Number of inputs that queues have taken.
    applied: u64,
    delivered: u64,
    /// Number of deliveries per consumer.
    shares: BTreeMap<ConsumerSlot, u64>,
}

/// The permits of all channels, for one input of one queue.
struct TestPermits<'a> {
    queue: QueueId,
    permits: &'a mut BTreeMap<ChannelKey, ChannelPermits>,
    grants: Vec<(LimitKey, Vec<Grant>)>,
}

impl TestPermits<'_> {
    fn with<T>(
        &mut self,
        limit: LimitKey,
        act: impl FnOnce(&mut ChannelPermits, QueueId, &mut Vec<Grant>) -> T,
    ) -> Option<T> {
        let permits = self.permits.get_mut(&limit.holder.channel).filter(|permits| permits.id() == limit.id)?;
        let mut grants = Vec::new();
        let done = act(permits, self.queue, &mut grants);
        self.grants.push((limit, grants));
        Some(done)
    }
}

impl Permits for TestPermits<'_> {
    fn request(&mut self, limit: LimitKey) -> u32 {
        self.with(limit, |permits, queue, grants| permits.request(queue, grants)).unwrap_or(0)
    }

    fn end_grant(&mut self, limit: LimitKey, unused: u32) {
        self.with(limit, |permits, queue, grants| permits.end_grant(queue, unused, grants));
    }

    fn withdraw(&mut self, limit: LimitKey) -> bool {
        self.with(limit, |permits, queue, _| permits.withdraw(queue)).unwrap_or(true)
    }
}

fn holder(channel: ChannelKey) -> Holder {
    Holder { connection: CONNECTION, channel }
}

fn limits() -> QueueLimits {
    let (hold, window) = (HoldLimits::default(), WindowLimits::default());
    let consumer =
        ConsumerLimits { messages: 1 << 30, messages_max: 1 << 30, bytes_max: 1 << 50, unacked_max: u32::MAX };
    QueueLimits { hold, window, consumer }
}

fn settings(id: QueueId) -> QueueSettings {
    QueueSettings::plain(id, Name::from("/"), Name::from("q"))
}

fn message() -> Message {
    let bytes = PropertiesWriter::new().to_vec();
    Message::new(b"", b"q", &Properties::check(&bytes).expect("written just above"), b"m")
}

impl World {
    fn new() -> Self {
        Self {
            queues: BTreeMap::new(),
            channels: BTreeMap::new(),
            permits: BTreeMap::new(),
            inlet: VecDeque::new(),
            woken: Vec::new(),
            numbers: 0,
            applied: 0,
            delivered: 0,
            shares: BTreeMap::new(),
        }
    }

    fn number(&mut self) -> u32 {
        self.numbers += 1;
        self.numbers
    }

    fn make_queues(&mut self, count: usize) -> Vec<QueueId> {
        (0..count).map(|_| self.make_queue()).collect()
    }

    fn make_queue(&mut self) -> QueueId {
        let id = QueueId(u64::from(self.number()));
        let state = QueueState::new(settings(id), limits(), NOW);
        self.queues.insert(id, Queue { state, inbox: VecDeque::new(), is_gone: false });
        id
    }

    fn open_channel(&mut self) -> ChannelKey {
        let key = ChannelKey { number: 1, incarnation: self.number() };
        self.channels.insert(key, Channel::default());
        key
    }

    fn requester(&mut self, channel: ChannelKey) -> Requester {
        Requester { connection: CONNECTION, channel, request: RequestNo(self.number()) }
    }

    fn push(&mut self, id: QueueId, command: QueueCommand) {
        if let Some(queue) = self.queues.get_mut(&id) {
            queue.inbox.push_back(command);
            self.woken.push(id);
        }
    }

    fn publish(&mut self, queue: QueueId, count: usize) {
        let messages = (0..count).map(|_| Enqueue { message: message(), promise: None }).collect();
        self.push(queue, QueueCommand::Publish(messages));
    }

    // ---- the link --------------------------------------------------------------------------------------------------

    fn consume(&mut self, channel: ChannelKey, queue: QueueId, change: impl FnOnce(&mut Consume)) -> ConsumerSlot {
        let (requester, slot) = (self.requester(channel), ConsumerSlot(self.number()));
        let live = self.channels.get_mut(&channel).expect("it is open");
        live.attached.insert(queue);
        let mut consume = Consume {
            requester,
            key: ConsumerKey { holder: holder(channel), slot },
            tag: Name::from("c"),
            no_ack: false,
            exclusive: false,
            priority: 0,
            prefetch: 0,
            channel_limit: live.limit,
        };
        change(&mut consume);
        let has_prefetch = consume.prefetch > 0 && !consume.no_ack;
        live.consumers.push(Consumer { slot, queue, has_prefetch });
        self.push(queue, QueueCommand::Consume(consume));
        slot
    }

    fn send_grants(&mut self, limit: LimitKey, mut grants: Vec<Grant>) {
        let mut at = 0;
        while let Some(&Grant { queue, permits }) = grants.get(at) {
            at += 1;
            if self.queues.get(&queue).is_some_and(|queue| !queue.is_gone) {
                self.push(queue, QueueCommand::Grant { limit, permits });
            } else if let Some(all) = self.permits.get_mut(&limit.holder.channel) {
                all.revoke(queue, &mut grants);
            }
        }
    }

    fn with_permits(&mut self, channel: ChannelKey, act: impl FnOnce(&mut ChannelPermits, &mut Vec<Grant>)) {
        let Some(permits) = self.permits.get_mut(&channel) else { return };
        let mut grants = Vec::new();
        act(permits, &mut grants);
        let limit = LimitKey { holder: holder(channel), id: permits.id() };
        self.send_grants(limit, grants);
    }

    /// basic.qos with `global`.
    fn limit(&mut self, channel: ChannelKey, limit: u32) {
        let live = self.channels.get_mut(&channel).expect("it is open");
        if live.limit.is_some() && limit > 0 {
            return self.with_permits(channel, |permits, grants| permits.set_limit(limit, grants));
        }
        if live.limit.is_none() && limit == 0 {
            return;
        }
        let begins = limit > 0;
        live.unacked.iter_mut().for_each(|held| held.counted = begins);
        live.held_back.iter_mut().for_each(|(held, _)| held.counted = begins);
        let outstanding = (live.unacked.len() + live.held_back.len()) as u32;
        live.last_limit += 1;
        live.limit = begins.then_some(LimitId(live.last_limit));
        let attached = live.attached.clone();
        match live.limit {
            Some(id) => {
                let permits = ChannelPermits::new(id, limit, outstanding, attached.iter().copied());
                self.permits.insert(channel, permits);
            }
            None => drop(self.permits.remove(&channel)),
        }
        let limit = self.channels[&channel].limit;
        for queue in attached {
            self.push(queue, QueueCommand::ChannelLimit { holder: holder(channel), limit });
        }
    }

    fn settle(&mut self, channel: ChannelKey, held: LentDelivery, outcome: SettleOutcome) {
        self.push(held.queue, QueueCommand::Settle { lends: vec![held.lend], outcome });
        if held.counted {
            self.with_permits(channel, |permits, grants| permits.release(1, grants));
        }
    }

    fn close_channel(&mut self, channel: ChannelKey) {
        self.permits.remove(&channel);
        for queue in self.channels.remove(&channel).expect("it is open").attached {
            self.push(queue, QueueCommand::Detach { holder: holder(channel) });
        }
    }

    // ---- queues and the session ------------------------------------------------------------------------------------

    /// A queue takes the next input of its inbox. Returns whether there was one.
    fn run_queue(&mut self, id: QueueId) -> bool {
        let Self { queues, permits, .. } = self;
        let Some(queue) = queues.get_mut(&id) else { return false };
        let Some(input) = queue.inbox.pop_front() else { return false };
        let mut hand = TestPermits { queue: id, permits, grants: Vec::new() };
        let mut out = Effects::default();
        queue.state.apply(input.into(), NOW, &mut hand, &mut out);
        let grants = hand.grants;
        queue.is_gone |= out.effects.iter().any(|effect| matches!(effect, QueueEffect::Deleted { .. }));
        self.applied += 1;
        for (limit, grants) in grants {
            self.send_grants(limit, grants);
        }
        self.inlet.extend(out.notices.into_iter().map(|(_, notice)| notice));
        true
    }

    /// The session takes the next notice. Returns whether there was one.
    fn run_session(&mut self, takes: bool) -> bool {
        let Some(notice) = self.inlet.pop_front() else { return false };
        match notice {
            Notice::Deliver(delivery) => self.arrive(&delivery, takes),
            Notice::Answer { channel, answer: Answer::Got { delivery, .. }, .. } => {
                let Some(lend) = delivery.lend else { return true };
                match self.channels.get_mut(&channel) {
                    Some(live) => live.unacked.push(LentDelivery { queue: delivery.queue, lend, counted: false }),
                    None => self.push(delivery.queue, QueueCommand::Bounce { lend }),
                }
            }
            Notice::Limited { channel, queue, limit }
                if self.permits.get(&channel).is_some_and(|permits| permits.id() == limit) =>
            {
                self.with_permits(channel, |permits, grants| permits.queue_limited(queue, grants));
            }
            Notice::ConsumerCancelled { channel, consumer } => {
                if let Some(live) = self.channels.get_mut(&channel) {
                    live.consumers.retain(|other| other.slot != consumer);
                }
            }
            _ => {}
        }
        true
    }

    fn arrive(&mut self, delivery: &Delivery, takes: bool) {
        self.delivered += 1;
        *self.shares.entry(delivery.consumer).or_default() += 1;
        let (channel, queue) = (delivery.channel, delivery.queue);
        let Some(lend) = delivery.lend else { return };
        let limit = self.channels.get(&channel).and_then(|live| live.limit);
        match self.channels.get_mut(&channel).filter(|_| takes) {
            Some(live) => {
                live.unacked.push(LentDelivery { queue, lend, counted: limit.is_some() });
                if limit.is_some() && limit != delivery.permit {
                    self.with_permits(channel, |permits, _| permits.count_delivery());
                }
            }
            None => {
                self.push(queue, QueueCommand::Bounce { lend });
                if delivery.permit.is_some() && delivery.permit == limit {
                    self.with_permits(channel, |permits, grants| permits.release(1, grants));
                }
            }
        }
    }

    /// Runs until all inboxes and the inlet are empty.
    fn run_all(&mut self) {
        loop {
            for queue in std::mem::take(&mut self.woken) {
                while self.run_queue(queue) {}
            }
            if !self.run_session(true) && self.woken.is_empty() {
                return;
            }
        }
    }
}
