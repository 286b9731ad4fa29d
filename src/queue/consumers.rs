//! The consumers of a queue: whose turn it is, and which messages each holds.
//!
//! A consumer is in the ring of its priority while it may take a message. It leaves the ring when its prefetch or its window is
//! used up, and comes back to the end of the ring when it may take again. While its channel has no permit for it, it waits with
//! the channel's other consumers (`permits`). A channel's consumers in the rings come before its waiting ones: they have a
//! higher priority, or the same and an earlier turn.

use super::command::Consume;
use super::entry::{Entries, EntryState, Lent, NONE, Slot};
use super::permits::{LimitedChannel, Permits, Standing};
use super::rings::Rings;
use super::settings::ConsumerLimits;
use crate::model::{ConsumerKey, Holder, LendId, LimitId, LimitKey, Monotonic, Name};
use ahash::AHashMap;

/// Debug builds count the lendings with every input, if there are no more holders than this.
const HOLDINGS_COUNTED_MAX: usize = 64;

/// A registered consumer.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) key: ConsumerKey,
    pub(super) tag: Name,
    pub(super) no_ack: bool,
    priority: i64,
    prefetch: u32,
    /// The channel has a limit, and counts this consumer in `Consumers::limited`.
    channel_limited: bool,
    unwritten: u32,
    unwritten_bytes: u64,
    window: u32,
    place: WaitPlace,
}

/// Where a consumer waits for its turn, if it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WaitPlace {
    /// Nowhere: it may take no message.
    Away,
    /// In the ring of its priority.
    Ready,
    /// Among the consumers of its channel that wait for a permit.
    Waiting,
}

/// The consumer that is given the next message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NextConsumer {
    /// The index of its holding.
    pub(super) at: u32,
    /// The channel limit of which it has got a permit.
    pub(super) permit: Option<LimitId>,
}

/// The messages that one consumer, or the gets of one channel, hold.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) holder: Holder,
    /// None once cancelled, and for gets.
    pub(super) consumer: Option<Consumer>,
    first: Slot,
    pub(super) lent: u32,
}

#[derive(Debug)]
pub(super) struct Consumers {
    limits: ConsumerLimits,
    /// Largest window of any consumer, in messages.
    window_max: u32,
    holdings: Vec<Option<Holding>>,
    vacant: Vec<u32>,
    by_key: AHashMap<ConsumerKey, u32>,
    gets: AHashMap<Holder, u32>,
    /// Consumers that may take a message.
    ready: Rings,
    /// Channels with a limit of their own that have consumers, or that still stand in line for permits.
    limited: AHashMap<Holder, LimitedChannel>,
    /// The channels among `limited` that were granted permits in this input.
    granted: Vec<Holder>,
    pub(super) exclusive: bool,
}

impl Consumers {
    pub(super) fn new(limits: ConsumerLimits) -> Self {
        Self {
            limits,
            window_max: limits.messages_max,
            holdings: Vec::new(),
            vacant: Vec::new(),
            by_key: AHashMap::new(),
            gets: AHashMap::new(),
            ready: Rings::default(),
            limited: AHashMap::new(),
            granted: Vec::new(),
            exclusive: false,
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.by_key.len() as u32
    }

    /// The memory that the consumers take, in bytes.
    pub(super) fn allocated_bytes(&self) -> usize {
        self.holdings.capacity() * size_of::<Option<Holding>>()
            + self.by_key.capacity() * size_of::<(ConsumerKey, u32)>()
            + self.gets.capacity() * size_of::<(Holder, u32)>()
    }

    fn add(&mut self, holding: Holding) -> u32 {
        if let Some(at) = self.vacant.pop() {
            self.holdings[at as usize] = Some(holding);
            return at;
        }
        self.holdings.push(Some(holding));
        (self.holdings.len() - 1) as u32
    }

    pub(super) fn holding(&self, at: u32) -> &Holding {
        self.holdings[at as usize].as_ref().expect("a lent entry's holding exists")
    }

    /// The consumer of a holding in a ring.
    pub(super) fn consumer(&self, at: u32) -> &Consumer {
        self.holding(at).consumer.as_ref().expect("rings list living consumers")
    }

    fn holding_mut(&mut self, at: u32) -> &mut Holding {
        self.holdings[at as usize].as_mut().expect("a lent entry's holding exists")
    }

    /// Divides the largest window by 4^`steps`, but not below the initial size. A consumer with a larger window comes back to its
    /// ring once enough of its deliveries are written.
    pub(super) fn shrink_windows(&mut self, steps: u32) {
        self.window_max = (self.limits.messages_max >> (2 * steps)).max(self.limits.messages);
    }

    /// How many messages all holders hold; none if there are too many holders to count with every input.
    pub(super) fn lent_if_few(&self) -> Option<u64> {
        (self.holdings.len() <= HOLDINGS_COUNTED_MAX)
            .then(|| self.holdings.iter().flatten().map(|holding| u64::from(holding.lent)).sum())
    }

    pub(super) fn register(&mut self, consume: &Consume) {
        let consumer = Consumer {
            key: consume.key,
            tag: consume.tag.clone(),
            no_ack: consume.no_ack,
            priority: consume.priority,
            prefetch: match consume.prefetch {
                _ if consume.no_ack => 0,
                0 => self.limits.unacked_max,
                prefetch => prefetch.min(self.limits.unacked_max),
            },
            channel_limited: consume.channel_limit.is_some(),
            unwritten: 0,
            unwritten_bytes: 0,
            window: self.limits.messages,
            place: WaitPlace::Away,
        };
        if let Some(id) = consume.channel_limit {
            self.limited.entry(consume.key.holder).or_insert_with(|| LimitedChannel::new(id)).consumers += 1;
        }
        let holding = Holding { holder: consume.key.holder, consumer: Some(consumer), first: NONE, lent: 0 };
        let at = self.add(holding);
        self.by_key.insert(consume.key, at);
        self.exclusive |= consume.exclusive;
        self.requeue_in_ring(at);
    }

    /// Ends a consumer; what it holds stays lent.
    pub(super) fn unregister(&mut self, key: ConsumerKey, permits: &mut dyn Permits) -> Option<Consumer> {
        let at = self.by_key.remove(&key)?;
        let consumer = self.holding_mut(at).consumer.take().expect("listed consumers are alive");
        match consumer.place {
            WaitPlace::Ready => self.ready.remove(consumer.priority, at),
            WaitPlace::Away | WaitPlace::Waiting => self.ready.drop_empty(),
        }
        if consumer.channel_limited {
            self.leave_limited(key.holder, &consumer, at, permits);
        }
        if self.by_key.is_empty() {
            self.exclusive = false;
        }
        self.drop_if_idle(at);
        Some(consumer)
    }

    fn drop_if_idle(&mut self, at: u32) {
        let holding = self.holding(at);
        if holding.lent == 0 && holding.consumer.is_none() {
            let holder = holding.holder;
            if self.gets.get(&holder) == Some(&at) {
                self.gets.remove(&holder);
            }
            self.holdings[at as usize] = None;
            self.vacant.push(at);
        }
    }

    fn may_take(&self, at: u32) -> bool {
        let holding = self.holding(at);
        holding.consumer.as_ref().is_some_and(|consumer| {
            (consumer.prefetch == 0 || holding.lent < consumer.prefetch)
                && consumer.unwritten < consumer.window.min(self.window_max)
                && consumer.unwritten_bytes < self.limits.bytes_max
        })
    }

    /// Puts a consumer that may take again into its ring, or behind the waiting consumers of its channel.
    fn requeue_in_ring(&mut self, at: u32) {
        if !self.may_take(at) || self.consumer(at).place != WaitPlace::Away {
            return;
        }
        let Self { holdings, limited, .. } = self;
        let holding = holdings[at as usize].as_mut().expect("looked at just above");
        let consumer = holding.consumer.as_mut().expect("looked at just above");
        if consumer.channel_limited
            && let Some(channel) = limited.get_mut(&holding.holder)
            && channel.is_to_wait(consumer.priority)
        {
            consumer.place = WaitPlace::Waiting;
            return channel.waiting.push_back(consumer.priority, at);
        }
        self.enter_ring(at);
    }

    fn enter_ring(&mut self, at: u32) {
        let Self { holdings, limited, ready, .. } = self;
        let holding = holdings[at as usize].as_mut().expect("callers looked");
        let consumer = holding.consumer.as_mut().expect("callers looked");
        consumer.place = WaitPlace::Ready;
        ready.push_back(consumer.priority, at);
        if consumer.channel_limited
            && let Some(channel) = limited.get_mut(&holding.holder)
        {
            channel.ready += 1;
        }
    }

    pub(super) fn any_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether the next consumer may take a message, and needs not acknowledge it.
    pub(super) fn next_keeps_nothing(&self) -> bool {
        self.ready.front().is_some_and(|at| {
            let consumer = self.consumer(at);
            consumer.no_ack && !consumer.channel_limited
        })
    }

    /// Takes the next consumer out of its ring; `note_delivered` or `requeue_in_ring` decide where it goes. Consumers whose
    /// channel has no permit leave the ring until it has one.
    pub(super) fn next_ready(&mut self, permits: &mut dyn Permits) -> Option<NextConsumer> {
        while let Some(at) = self.ready.pop_front() {
            let holding = self.holdings[at as usize].as_mut().expect("rings list living consumers");
            let consumer = holding.consumer.as_mut().expect("rings list living consumers");
            consumer.place = WaitPlace::Away;
            if !consumer.channel_limited {
                return Some(NextConsumer { at, permit: None });
            }
            let channel = self.limited.get_mut(&holding.holder).expect("a limited consumer's channel is listed");
            channel.ready -= 1;
            if channel.acquire(holding.holder, consumer.no_ack, permits, &mut self.granted) {
                let permit = (!consumer.no_ack).then_some(channel.id);
                return Some(NextConsumer { at, permit });
            }
            let holder = holding.holder;
            self.stop_channel(holder, at);
        }
        None
    }

    /// A channel has no permit: its consumers leave the rings, and wait for one in the order of their turns. `first` has left
    /// its ring already.
    fn stop_channel(&mut self, holder: Holder, first: u32) {
        let Self { holdings, limited, ready, .. } = self;
        let channel = limited.get_mut(&holder).expect("a limited consumer's channel is listed");
        let of_channel = |at| holdings[at as usize].as_ref().is_some_and(|holding| holding.holder == holder);
        let others = if channel.ready == 0 { Vec::new() } else { ready.take(of_channel) };
        channel.ready = 0;
        for at in others.into_iter().rev().chain([first]) {
            let holding = holdings[at as usize].as_mut().expect("rings list living consumers");
            let consumer = holding.consumer.as_mut().expect("rings list living consumers");
            consumer.place = WaitPlace::Waiting;
            channel.waiting.push_front(consumer.priority, at);
        }
    }

    /// Makes as many waiting consumers of a channel ready as have permits.
    fn wake_waiting(&mut self, holder: Holder) {
        loop {
            let Some(channel) = self.limited.get_mut(&holder) else { return };
            if channel.ready >= channel.ready_wanted() {
                return;
            }
            let Some(at) = channel.waiting.pop_front() else { return };
            let Some(consumer) = &mut self.holding_mut(at).consumer else { continue };
            consumer.place = WaitPlace::Away;
            if self.may_take(at) {
                self.enter_ring(at);
            }
        }
    }

    /// Removes a consumer that was just unregistered from the count of its channel.
    fn leave_limited(&mut self, holder: Holder, consumer: &Consumer, at: u32, permits: &mut dyn Permits) {
        let Some(channel) = self.limited.get_mut(&holder) else { return };
        channel.consumers -= 1;
        match consumer.place {
            WaitPlace::Ready => channel.ready -= 1,
            WaitPlace::Waiting => channel.waiting.remove(consumer.priority, at),
            WaitPlace::Away => {}
        }
        if channel.consumers > 0 {
            return self.wake_waiting(holder);
        }
        let limit = LimitKey { holder, id: channel.id };
        // If the queue cannot leave the line any more, it gives back the permits that it is granted.
        if channel.standing != Standing::Asked || permits.withdraw(limit) {
            self.limited.remove(&holder);
        }
    }

    /// The queue is granted permits, which it may use until the end of the input.
    pub(super) fn grant(&mut self, limit: LimitKey, granted: u32, permits: &mut dyn Permits) {
        match self.limited.get_mut(&limit.holder).filter(|channel| channel.id == limit.id) {
            Some(channel) if channel.consumers > 0 => {
                channel.standing = Standing::Granted(granted);
                self.granted.push(limit.holder);
                self.wake_waiting(limit.holder);
            }
            known => {
                if known.is_some() {
                    self.limited.remove(&limit.holder);
                }
                permits.end_grant(limit, granted);
            }
        }
    }

    /// Gives unused permits back at the end of an input.
    pub(super) fn end_grants(&mut self, permits: &mut dyn Permits) {
        while let Some(holder) = self.granted.pop() {
            let Some(channel) = self.limited.get_mut(&holder) else { continue };
            if let Standing::Granted(unused) = channel.standing {
                channel.standing = Standing::Idle;
                permits.end_grant(LimitKey { holder, id: channel.id }, unused);
            }
        }
    }

    /// Counts a delivery to a consumer, and puts the consumer back into its ring if it may take more.
    pub(super) fn note_delivered(&mut self, at: u32, bytes: u64) {
        let holding = self.holding_mut(at);
        if let Some(consumer) = &mut holding.consumer {
            consumer.unwritten += 1;
            consumer.unwritten_bytes += bytes;
        }
        let (holder, limited) =
            (holding.holder, holding.consumer.as_ref().is_some_and(|consumer| consumer.channel_limited));
        self.requeue_in_ring(at);
        if limited {
            self.wake_waiting(holder);
        }
    }

    /// Deliveries reached the socket.
    pub(super) fn written(&mut self, key: ConsumerKey, count: u32, bytes: u64) {
        let Some(at) = self.by_key.get(&key).copied() else { return };
        let most = self.limits.messages_max;
        let Some(consumer) = &mut self.holding_mut(at).consumer else { return };
        if consumer.unwritten >= consumer.window {
            consumer.window = (consumer.window * 2).min(most);
        }
        consumer.unwritten = consumer.unwritten.saturating_sub(count);
        consumer.unwritten_bytes = consumer.unwritten_bytes.saturating_sub(bytes);
        self.requeue_in_ring(at);
    }

    /// A delivery came back without having reached the socket.
    pub(super) fn never_written(&mut self, at: u32, bytes: u64) {
        let Some(holding) = &mut self.holdings[at as usize] else { return };
        if let Some(consumer) = &mut holding.consumer {
            consumer.unwritten = consumer.unwritten.saturating_sub(1);
            consumer.unwritten_bytes = consumer.unwritten_bytes.saturating_sub(bytes);
            self.requeue_in_ring(at);
        }
    }

    /// The holding of a channel's gets, made on first use.
    pub(super) fn gets_of(&mut self, holder: Holder) -> u32 {
        if let Some(at) = self.gets.get(&holder) {
            return *at;
        }
        let at = self.add(Holding { holder, consumer: None, first: NONE, lent: 0 });
        self.gets.insert(holder, at);
        at
    }

    /// Lends an entry to a holding.
    pub(super) fn lend(&mut self, at: u32, slot: Slot, entries: &mut Entries, now: Monotonic) -> LendId {
        let generation = entries.next_generation();
        let holding = self.holding_mut(at);
        let next = std::mem::replace(&mut holding.first, slot);
        holding.lent += 1;
        if let Some(lent) = entries.lent_mut(next) {
            lent.previous = slot;
        }
        let lent = Lent { generation, holding: at, previous: NONE, next, since: now };
        entries.set_state(slot, EntryState::Lent(lent));
        LendId { slot: slot.0, generation }
    }

    /// Ends a lending: the holder has one less, and its consumer may take again.
    pub(super) fn unlend(&mut self, slot: Slot, entries: &mut Entries) -> Lent {
        let EntryState::Lent(lent) = entries.at(slot).state else { unreachable!("callers checked the lending") };
        if let Some(next) = entries.lent_mut(lent.next) {
            next.previous = lent.previous;
        }
        let holding = self.holding_mut(lent.holding);
        if lent.previous == NONE {
            holding.first = lent.next;
        } else if let Some(previous) = entries.lent_mut(lent.previous) {
            previous.next = lent.next;
        }
        let holding = self.holding_mut(lent.holding);
        holding.lent -= 1;
        if holding.consumer.is_some() {
            self.requeue_in_ring(lent.holding);
        } else {
            self.drop_if_idle(lent.holding);
        }
        lent
    }

    /// The consumers of a channel, the oldest first.
    pub(super) fn of_holder(&self, holder: Holder) -> Vec<ConsumerKey> {
        let mut keys: Vec<_> = self.by_key.keys().filter(|key| key.holder == holder).copied().collect();
        keys.sort_unstable_by_key(|key| key.slot);
        keys
    }

    /// All messages that a channel holds, in no order.
    pub(super) fn held_by(&self, holder: Holder, entries: &Entries) -> Vec<Slot> {
        let mut slots = Vec::new();
        for holding in self.holdings.iter().flatten().filter(|holding| holding.holder == holder) {
            let mut at = holding.first;
            while at != NONE {
                slots.push(at);
                let EntryState::Lent(lent) = entries.at(at).state else { unreachable!("chains link lent entries") };
                at = lent.next;
            }
        }
        slots
    }

    /// Sets or removes a channel's own limit. Permits of an earlier limit are void.
    pub(super) fn set_channel_limit(&mut self, holder: Holder, limit: Option<LimitId>) {
        let mut channel = limit.map(LimitedChannel::new);
        let mut waited = self.limited.remove(&holder).map(|channel| channel.waiting).unwrap_or_default();
        for key in self.of_holder(holder) {
            let at = self.by_key[&key];
            let Some(consumer) = &mut self.holding_mut(at).consumer else { continue };
            consumer.channel_limited = limit.is_some();
            if let Some(channel) = &mut channel {
                channel.consumers += 1;
                channel.ready += u32::from(consumer.place == WaitPlace::Ready);
            }
        }
        if let Some(channel) = channel.filter(|channel| channel.consumers > 0) {
            self.limited.insert(holder, channel);
        }
        while let Some(at) = waited.pop_front() {
            if let Some(consumer) = &mut self.holding_mut(at).consumer {
                consumer.place = WaitPlace::Away;
            }
            self.requeue_in_ring(at);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Consumer> {
        self.by_key.values().filter_map(|at| self.holding(*at).consumer.as_ref())
    }

    /// Removes all consumers, because the queue ends.
    pub(super) fn take_all(&mut self, permits: &mut dyn Permits) -> Vec<ConsumerKey> {
        let mut keys: Vec<_> = self.by_key.keys().copied().collect();
        keys.sort_by_key(|key| (key.holder, key.slot));
        for key in &keys {
            self.unregister(*key, permits);
        }
        keys
    }
}
