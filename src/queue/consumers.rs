//! Who takes from a queue, in whose turn, and what each holds.
//!
//! A consumer is in the ring of its priority while it may take; it leaves the ring when its prefetch, its written-window
//! or its channel's limit is reached, and comes back at the end of the ring when that lifts.

use super::entry::{Entries, EntryState, Lent, NONE, Slot};
use super::input::Consume;
use super::settings::ConsumerLimits;
use super::state::Permits;
use crate::model::{ConsumerKey, Holder, LendId, Monotonic, Name};
use ahash::AHashMap;
use std::collections::VecDeque;

/// A registered consumer.
#[derive(Debug)]
pub(super) struct Consumer {
    pub(super) key: ConsumerKey,
    pub(super) tag: Name,
    pub(super) no_ack: bool,
    priority: i64,
    prefetch: u32,
    channel_limited: bool,
    unwritten: u32,
    unwritten_bytes: u64,
    window: u32,
    in_ring: bool,
}

/// What one consumer, or the gets of one channel, hold.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) holder: Holder,
    /// None once cancelled, and for gets.
    pub(super) consumer: Option<Consumer>,
    first: Slot,
    pub(super) lent: u32,
}

#[derive(Debug)]
struct Ring {
    priority: i64,
    ready: VecDeque<u32>,
}

#[derive(Debug)]
pub(super) struct Consumers {
    limits: ConsumerLimits,
    /// However far a consumer's own window has grown.
    window_max: u32,
    holdings: Vec<Option<Holding>>,
    vacant: Vec<u32>,
    by_key: AHashMap<ConsumerKey, u32>,
    gets: AHashMap<Holder, u32>,
    /// One for each priority of living consumers, the highest first; they may be empty.
    rings: Vec<Ring>,
    /// How many consumers are in rings.
    ready: usize,
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
            rings: Vec::new(),
            ready: 0,
            exclusive: false,
        }
    }

    pub(super) fn count(&self) -> u32 {
        self.by_key.len() as u32
    }

    /// What they take of memory.
    pub(super) fn held_bytes(&self) -> usize {
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

    /// The consumer of a holding that a ring lists.
    pub(super) fn consumer(&self, at: u32) -> &Consumer {
        self.holding(at).consumer.as_ref().expect("rings list living consumers")
    }

    fn holding_mut(&mut self, at: u32) -> &mut Holding {
        self.holdings[at as usize].as_mut().expect("a lent entry's holding exists")
    }

    /// Quarters the windows so many times, yet not below a quarter of what they begin with, while memory runs short.
    /// One that is fuller comes back to its ring as what it was given is written.
    pub(super) fn squeeze(&mut self, quarterings: u32) {
        self.window_max = (self.limits.messages_max >> (2 * quarterings)).max(self.limits.messages.div_ceil(4));
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
            channel_limited: consume.channel_limited,
            unwritten: 0,
            unwritten_bytes: 0,
            window: self.limits.messages,
            in_ring: false,
        };
        let holding = Holding { holder: consume.key.holder, consumer: Some(consumer), first: NONE, lent: 0 };
        let at = self.add(holding);
        self.by_key.insert(consume.key, at);
        self.exclusive |= consume.exclusive;
        self.enter_ring(at);
    }

    /// Ends a consumer; what it holds stays lent.
    pub(super) fn unregister(&mut self, key: ConsumerKey) -> Option<Consumer> {
        let at = self.by_key.remove(&key)?;
        let consumer = self.holding_mut(at).consumer.take().expect("listed consumers are alive");
        if consumer.in_ring
            && let Some(ring) = self.rings.iter_mut().find(|ring| ring.priority == consumer.priority)
        {
            ring.ready.retain(|other| *other != at);
            self.ready -= 1;
        }
        let Self { rings, holdings, .. } = self;
        rings.retain(|ring| {
            let mut living = holdings.iter().flatten().filter_map(|holding| holding.consumer.as_ref());
            living.any(|consumer| consumer.priority == ring.priority)
        });
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

    fn enter_ring(&mut self, at: u32) {
        let Some(consumer) = &mut self.holdings[at as usize].as_mut().expect("checked by callers").consumer else {
            return;
        };
        if consumer.in_ring {
            return;
        }
        consumer.in_ring = true;
        self.ready += 1;
        let priority = consumer.priority;
        match self.rings.iter_mut().find(|ring| ring.priority == priority) {
            Some(ring) => ring.ready.push_back(at),
            None => {
                let place = self.rings.partition_point(|ring| ring.priority > priority);
                self.rings.insert(place, Ring { priority, ready: VecDeque::from([at]) });
            }
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

    fn reconsider(&mut self, at: u32) {
        if self.may_take(at) {
            self.enter_ring(at);
        }
    }

    pub(super) fn any_ready(&self) -> bool {
        self.ready > 0
    }

    /// Whether the consumer whose turn it is may take a message, and takes it for good.
    pub(super) fn next_keeps_nothing(&self) -> bool {
        let next = self.rings.iter().find_map(|ring| ring.ready.front());
        next.is_some_and(|at| {
            let consumer = self.consumer(*at);
            consumer.no_ack && !consumer.channel_limited
        })
    }

    /// Takes the consumer whose turn it is out of its ring; `after_lending` or `reconsider` decide where it goes.
    /// Consumers whose channel is at its limit leave the ring until a permit is free. The flag tells whether a permit of
    /// the channel was taken.
    pub(super) fn next_ready(&mut self, permits: &mut dyn Permits) -> Option<(u32, bool)> {
        while let Some(at) = self.rings.iter_mut().find_map(|ring| ring.ready.pop_front()) {
            self.ready -= 1;
            let holding = self.holdings[at as usize].as_mut().expect("rings list living consumers");
            let consumer = holding.consumer.as_mut().expect("rings list living consumers");
            consumer.in_ring = false;
            if !consumer.channel_limited {
                return Some((at, false));
            }
            if permits.take(holding.holder, !consumer.no_ack) {
                return Some((at, !consumer.no_ack));
            }
        }
        None
    }

    /// A delivery was handed to the consumer: counts it, and lets the consumer queue up again if it may take more.
    pub(super) fn after_delivery(&mut self, at: u32, bytes: u64) {
        let holding = self.holding_mut(at);
        if let Some(consumer) = &mut holding.consumer {
            consumer.unwritten += 1;
            consumer.unwritten_bytes += bytes;
        }
        self.reconsider(at);
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
        self.reconsider(at);
    }

    /// A delivery came back without having reached the socket.
    pub(super) fn never_written(&mut self, at: u32, bytes: u64) {
        let Some(holding) = &mut self.holdings[at as usize] else { return };
        if let Some(consumer) = &mut holding.consumer {
            consumer.unwritten = consumer.unwritten.saturating_sub(1);
            consumer.unwritten_bytes = consumer.unwritten_bytes.saturating_sub(bytes);
            self.reconsider(at);
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
        if next != NONE
            && let EntryState::Lent(lent) = &mut entries.at_mut(next).state
        {
            lent.previous = slot;
        }
        entries.at_mut(slot).state =
            EntryState::Lent(Lent { generation, holding: at, previous: NONE, next, since: now });
        LendId { slot: slot.0, generation }
    }

    /// Ends a lending: the holder has one less, and its consumer may take again.
    pub(super) fn unlend(&mut self, slot: Slot, entries: &mut Entries) -> Lent {
        let EntryState::Lent(lent) = entries.at(slot).state else { unreachable!("callers checked the lending") };
        if lent.next != NONE
            && let EntryState::Lent(next) = &mut entries.at_mut(lent.next).state
        {
            next.previous = lent.previous;
        }
        let holding = self.holding_mut(lent.holding);
        if lent.previous == NONE {
            holding.first = lent.next;
        } else if let EntryState::Lent(previous) = &mut entries.at_mut(lent.previous).state {
            previous.next = lent.next;
        }
        let holding = self.holding_mut(lent.holding);
        holding.lent -= 1;
        if holding.consumer.is_some() {
            self.reconsider(lent.holding);
        } else {
            self.drop_if_idle(lent.holding);
        }
        lent
    }

    /// The consumers of a channel.
    pub(super) fn of_holder(&self, holder: Holder) -> Vec<ConsumerKey> {
        self.by_key.keys().filter(|key| key.holder == holder).copied().collect()
    }

    /// Everything that a channel holds, in no order.
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

    pub(super) fn set_channel_limited(&mut self, holder: Holder, limited: bool) {
        for key in self.of_holder(holder) {
            let at = self.by_key[&key];
            if let Some(consumer) = &mut self.holding_mut(at).consumer {
                consumer.channel_limited = limited;
            }
            self.reconsider(at);
        }
    }

    /// A channel may have permits again: its consumers queue up.
    pub(super) fn permit_free(&mut self, holder: Holder) {
        for key in self.of_holder(holder) {
            self.reconsider(self.by_key[&key]);
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Consumer> {
        self.by_key.values().filter_map(|at| self.holding(*at).consumer.as_ref())
    }

    /// All consumers leave at once, because the queue ends.
    pub(super) fn take_all(&mut self) -> Vec<ConsumerKey> {
        let mut keys: Vec<_> = self.by_key.keys().copied().collect();
        keys.sort_by_key(|key| (key.holder, key.slot));
        for key in &keys {
            self.unregister(*key);
        }
        keys
    }
}
