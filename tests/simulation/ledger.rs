//! What the clients of a history were promised, and whether it is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Acknowledgements wait to be written for less than this. A crash may bring back what was acknowledged within it.
const UNWRITTEN_ACKS: Duration = Duration::from_secs(3);

/// A channel of a client, for life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChannelId {
    pub(crate) connection: u64,
    /// Counts the channels of a connection.
    pub(crate) opened: u64,
}

/// What the broker has promised of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promise {
    /// Nothing yet.
    Open,
    /// A confirm, or tx.commit-ok.
    Given { life: u32 },
    /// It was refused, or its transaction rolled back.
    Withdrawn,
}

/// A message, and what became of it in its queue and in the queue for dead letters.
#[derive(Clone, Debug)]
struct Message {
    queue: String,
    persistent: bool,
    priority: u8,
    publisher: ChannelId,
    promise: Promise,
    transaction: Option<u64>,
    /// The broker's life in which it was published.
    life: u32,
    copies: BTreeMap<String, Copy>,
    /// A client rejected it where that discards it.
    is_discarded: bool,
}

/// A message in one queue, as clients saw it.
#[derive(Clone, Debug, Default)]
struct Copy {
    seen: bool,
    deliveries: u32,
    /// The broker's life in which a client saw it last.
    seen_life: u32,
    holder: Option<ChannelId>,
    acked: Option<Acked>,
}

#[derive(Clone, Copy, Debug)]
struct Acked {
    life: u32,
    at: Duration,
    /// Told by tx.commit-ok.
    is_final: bool,
    /// Its connection ended before the broker need have read it.
    may_be_unread: bool,
}

/// An end of the broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crash {
    pub(crate) at: Duration,
    /// Until when something kept the broker from reading or writing: an alarm, a full disk, a commit that failed.
    pub(crate) held_up_until: Duration,
}

/// What one queue is like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kind {
    /// It is there from the beginning to the end, durable, and nothing takes messages out of it but consumers.
    pub(crate) is_safe: bool,
    /// What it drops, rejects or lets expire goes to the queue for dead letters.
    pub(crate) dead_letters: bool,
}

/// A message in a client's hands.
pub(crate) struct Given<'a> {
    pub(crate) queue: &'a str,
    /// Nothing for a get.
    pub(crate) consumer: &'a str,
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) number: u64,
    pub(crate) no_ack: bool,
}

/// A message that a channel holds.
#[derive(Clone, Debug)]
struct Held {
    number: u64,
    queue: String,
    /// Nothing for a get.
    consumer: String,
}

#[derive(Default)]
pub(crate) struct Ledger {
    messages: BTreeMap<u64, Message>,
    kinds: BTreeMap<String, Kind>,
    /// What each channel holds, by tag.
    held: BTreeMap<ChannelId, BTreeMap<u64, Held>>,
    /// Acknowledgements that the broker need not have read.
    unread: BTreeMap<ChannelId, Vec<(u64, String)>>,
    /// The last message of a publisher that a consumer was given for the first time.
    order: BTreeMap<(ChannelId, String, String, ChannelId, u8), u64>,
    /// Publishes so far: by how many of them a message was the last, and a queue got something back.
    published: u64,
    published_at: BTreeMap<u64, u64>,
    returned_at: BTreeMap<String, u64>,
    /// Queues that may get something back at any moment: of channels that are being closed.
    pub(crate) returning: BTreeSet<String>,
    /// When each life ended, and whether the store wrote nothing just before.
    crashes: Vec<Crash>,
    transactions: BTreeMap<u64, Transaction>,
    pub(crate) life: u32,
    pub(crate) seen: Seen,
}

/// How often what happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) deliveries: u64,
    pub(crate) redeliveries: u64,
    pub(crate) confirms: u64,
    pub(crate) refusals: u64,
    pub(crate) dead_letters: u64,
    pub(crate) commits: u64,
    pub(crate) rollbacks: u64,
    pub(crate) torn_off: u64,
}

#[derive(Clone, Debug, Default)]
struct Transaction {
    publishes: Vec<u64>,
    acks: Vec<TransactionAck>,
    /// tx.commit was sent, and its answer has not come.
    is_asked: bool,
    /// Nobody will ever know.
    is_unknown: bool,
}

/// What a transaction acknowledged.
#[derive(Clone, Debug)]
struct TransactionAck {
    channel: ChannelId,
    tag: u64,
    held: Held,
    /// How often clients were given the message by then.
    deliveries: u32,
}

pub(crate) const DEAD: &str = "dead";

impl Ledger {
    pub(crate) fn queue(&mut self, name: &str, kind: Kind) {
        self.kinds.insert(name.to_owned(), kind);
    }

    fn kind(&self, queue: &str) -> Kind {
        self.kinds.get(queue).copied().unwrap_or_default()
    }

    // ---- what clients do

    pub(crate) fn publish(
        &mut self,
        number: u64,
        queue: &str,
        persistent: bool,
        priority: u8,
        publisher: ChannelId,
        transaction: Option<u64>,
    ) {
        let message = Message {
            queue: queue.to_owned(),
            persistent,
            priority,
            publisher,
            promise: Promise::Open,
            transaction,
            life: self.life,
            copies: BTreeMap::new(),
            is_discarded: false,
        };
        self.messages.insert(number, message);
        self.published += 1;
        self.published_at.insert(number, self.published);
        if let Some(transaction) = transaction {
            self.transactions.entry(transaction).or_default().publishes.push(number);
        }
    }

    fn take_held(&mut self, channel: ChannelId, tag: u64, multiple: bool) -> Vec<(u64, Held)> {
        let Some(held) = self.held.get_mut(&channel) else { return Vec::new() };
        let tags: Vec<u64> = if multiple { held.range(..=tag).map(|(tag, _)| *tag).collect() } else { vec![tag] };
        tags.into_iter().filter_map(|tag| Some((tag, held.remove(&tag)?))).collect()
    }

    pub(crate) fn tags(&self, channel: ChannelId) -> Vec<u64> {
        self.held.get(&channel).into_iter().flat_map(|held| held.keys().copied()).collect()
    }

    pub(crate) fn ack(&mut self, channel: ChannelId, tag: u64, multiple: bool, at: Duration, transaction: Option<u64>) {
        for (tag, held) in self.take_held(channel, tag, multiple) {
            if let Some(transaction) = transaction {
                let deliveries = self.copy(held.number, &held.queue).map_or(0, |copy| copy.deliveries);
                let ack = TransactionAck { channel, tag, held, deliveries };
                self.transactions.entry(transaction).or_default().acks.push(ack);
                continue;
            }
            let Held { number, queue, .. } = held;
            self.acked(number, &queue, at, false);
            self.unread.entry(channel).or_default().push((number, queue));
        }
    }

    /// The broker has read all that was sent.
    pub(crate) fn all_is_read(&mut self) {
        self.unread.clear();
    }

    /// A channel's connection is lost: what it sent last may be unread for ever.
    pub(crate) fn connection_lost(&mut self, channel: ChannelId) {
        for (number, queue) in self.unread.remove(&channel).unwrap_or_default() {
            if let Some(acked) = self.copy(number, &queue).and_then(|copy| copy.acked.as_mut()) {
                acked.may_be_unread = true;
            }
        }
    }

    fn acked(&mut self, number: u64, queue: &str, at: Duration, is_final: bool) {
        let acked = Some(Acked { life: self.life, at, is_final, may_be_unread: false });
        if let Some(copy) = self.copy(number, queue) {
            (copy.acked, copy.holder) = (acked, None);
        }
    }

    pub(crate) fn requeue(&mut self, channel: ChannelId, tag: u64, multiple: bool) {
        for (_, Held { number, queue, .. }) in self.take_held(channel, tag, multiple) {
            self.came_back(number, &queue);
        }
    }

    pub(crate) fn reject(&mut self, channel: ChannelId, tag: u64, multiple: bool) {
        for (_, Held { number, queue, .. }) in self.take_held(channel, tag, multiple) {
            let discards = !self.kind(&queue).dead_letters;
            if let Some(copy) = self.copy(number, &queue) {
                copy.holder = None;
            }
            if let Some(message) = self.messages.get_mut(&number) {
                message.is_discarded |= discards;
            }
        }
    }

    /// All that a channel holds goes back: it closed, its connection died, or it asked for that.
    pub(crate) fn give_back(&mut self, channel: ChannelId) {
        for Held { number, queue, .. } in self.held.remove(&channel).unwrap_or_default().into_values() {
            self.came_back(number, &queue);
        }
    }

    /// A channel ends: what it holds goes back, even what it does not know of.
    pub(crate) fn end_channel(&mut self, channel: ChannelId, consumes: &BTreeSet<String>) {
        self.give_back(channel);
        for queue in consumes {
            self.returned_at.insert(queue.clone(), self.published);
        }
    }

    fn came_back(&mut self, number: u64, queue: &str) {
        self.returned_at.insert(queue.to_owned(), self.published);
        if let Some(copy) = self.copy(number, queue) {
            copy.holder = None;
        }
    }

    fn copy(&mut self, number: u64, queue: &str) -> Option<&mut Copy> {
        self.messages.get_mut(&number)?.copies.get_mut(queue)
    }

    pub(crate) fn ask_commit(&mut self, transaction: u64) {
        self.transactions.entry(transaction).or_default().is_asked = true;
    }

    pub(crate) fn committed(&mut self, transaction: u64, at: Duration) {
        self.seen.commits += 1;
        let Some(Transaction { publishes, acks, .. }) = self.transactions.remove(&transaction) else { return };
        for number in publishes {
            self.promised(number, true);
        }
        for TransactionAck { held: Held { number, queue, .. }, .. } in acks {
            self.acked(number, &queue, at, true);
        }
    }

    /// The channel of a transaction ends before its commit is answered: what it acknowledged may be back with others.
    pub(crate) fn release_acks(&mut self, transaction: u64) {
        let acks = self.transactions.get(&transaction).map(|it| it.acks.clone()).unwrap_or_default();
        for TransactionAck { held: Held { number, queue, .. }, .. } in acks {
            self.came_back(number, &queue);
        }
    }

    /// Rolled back, or its channel ended before it was asked to commit. What it acknowledged is held on after a rollback.
    pub(crate) fn rolled_back(&mut self, transaction: u64, channel_lives: bool) {
        let Some(Transaction { publishes, acks, is_asked, .. }) = self.transactions.get(&transaction).cloned() else {
            return;
        };
        if is_asked && !channel_lives {
            self.seen.torn_off += 1;
            self.transactions.get_mut(&transaction).expect("it is there").is_unknown = true;
            let life = self.life;
            for TransactionAck { held: Held { number, queue, .. }, .. } in acks {
                // Either it came back or it is gone.
                self.came_back(number, &queue);
                if let Some(copy) = self.copy(number, &queue).filter(|copy| copy.acked.is_none()) {
                    let at = Duration::ZERO;
                    copy.acked = Some(Acked { life, at, is_final: false, may_be_unread: true });
                }
            }
            return;
        }
        self.transactions.remove(&transaction);
        self.seen.rollbacks += 1;
        for number in publishes {
            self.messages.get_mut(&number).expect("it was published").promise = Promise::Withdrawn;
        }
        for TransactionAck { channel, tag, held, .. } in acks {
            if channel_lives {
                // Not acknowledged after all: the channel has it still.
                self.held.entry(channel).or_default().insert(tag, held);
            } else {
                self.came_back(held.number, &held.queue);
            }
        }
    }

    // ---- what the broker says

    pub(crate) fn promised(&mut self, number: u64, kept: bool) {
        let life = self.life;
        let Some(message) = self.messages.get_mut(&number) else { panic!("{number} was never published") };
        assert_eq!(message.promise, Promise::Open, "message {number} is confirmed once: {message:?}");
        message.promise = if kept { Promise::Given { life } } else { Promise::Withdrawn };
        *(if kept { &mut self.seen.confirms } else { &mut self.seen.refusals }) += 1;
    }

    /// The broker gives a message to a client. Of one whose channel `is_closing` it takes no notice, unless it needs no
    /// acknowledgement: what it has was given back, and may be with another already.
    pub(crate) fn delivered(&mut self, channel: ChannelId, is_closing: bool, given: &Given<'_>, at: Duration) {
        let &Given { queue, consumer, tag, redelivered, number, no_ack } = given;
        if is_closing {
            let life = self.life;
            let copies = self.messages.get_mut(&number).filter(|_| no_ack).map(|message| &mut message.copies);
            if let Some(copies) = copies {
                let acked = Some(Acked { life, at, is_final: false, may_be_unread: false });
                copies
                    .insert(queue.to_owned(), Copy { seen: true, deliveries: 1, seen_life: life, holder: None, acked });
            }
            return;
        }
        let (life, published_at) = (self.life, self.published_at.get(&number).copied().unwrap_or_default());
        let returned = self.returning.contains(queue)
            || self.returned_at.get(queue).is_some_and(|returned| *returned >= published_at);
        let dead_letters = self.messages.get(&number).map(|message| message.queue.clone());
        let of_dead_letters = dead_letters.is_some_and(|queue| self.kind(&queue).dead_letters);
        let Some(message) = self.messages.get_mut(&number) else { panic!("{number} was never published") };
        let crashed = life > message.life;
        let context = format!("message {number} in {queue}, life {life}, at {at:?}: {message:?}");
        assert!(message.queue == queue || (queue == DEAD && of_dead_letters), "it does not belong here: {context}");
        let is_unsure = message.transaction.is_some_and(|it| self.transactions.get(&it).is_some_and(|it| it.is_asked));
        let promised = message.promise;
        assert!(
            message.transaction.is_none() || is_unsure || matches!(promised, Promise::Given { .. }),
            "its transaction is not committed: {context}"
        );
        assert!(promised != Promise::Withdrawn || message.transaction.is_none(), "it was withdrawn: {context}");
        let (priority, publisher) = (message.priority, message.publisher);
        let copy = message.copies.entry(queue.to_owned()).or_default();
        assert!(copy.holder.is_none(), "two have it at once: {context}");
        if let Some(acked) = copy.acked {
            let may_be_lost = acked.may_be_unread || life > acked.life && !acked.is_final;
            assert!(may_be_lost, "it is back after its acknowledgement: {context}");
            let is_young = acked.may_be_unread || {
                let crash = self.crashes[acked.life as usize];
                crash.at < acked.at.max(crash.held_up_until) + UNWRITTEN_ACKS
            };
            assert!(is_young, "an old acknowledgement was lost: {context}");
        }
        if copy.seen {
            // The original may have come back, and gone the same way again.
            let is_new_copy = queue == DEAD && life > copy.seen_life;
            assert!(redelivered || is_new_copy, "it was delivered before: {context}");
        } else if redelivered {
            assert!(crashed || returned, "nobody had it before: {context}");
        }
        self.seen.deliveries += 1;
        self.seen.redeliveries += u64::from(redelivered);
        self.seen.dead_letters += u64::from(queue == DEAD && message.queue != DEAD && !copy.seen);
        (copy.acked, copy.seen_life) = (None, life);
        if no_ack {
            copy.acked = Some(Acked { life, at, is_final: false, may_be_unread: false });
        } else {
            copy.holder = Some(channel);
        }
        copy.deliveries += 1;
        let is_first = !std::mem::replace(&mut copy.seen, true) && !redelivered;
        if !no_ack {
            let held = Held { number, queue: queue.to_owned(), consumer: consumer.to_owned() };
            self.held.entry(channel).or_default().insert(tag, held);
        }
        if is_first && queue != DEAD && !crashed {
            let key = (channel, consumer.to_owned(), queue.to_owned(), publisher, priority);
            let last = self.order.insert(key, number).unwrap_or_default();
            assert!(last < number, "{number} of {queue} comes behind {last}");
        }
    }

    /// The broker has died, and another takes its place.
    pub(crate) fn crashed(&mut self, crash: Crash) {
        self.crashes.push(crash);
        self.life += 1;
        let channels: Vec<ChannelId> = self.held.keys().copied().collect();
        for channel in channels {
            self.give_back(channel);
        }
        let open: Vec<u64> = self.transactions.keys().copied().collect();
        for transaction in open {
            self.rolled_back(transaction, false);
        }
    }

    // ---- at the end, when every queue is drained

    pub(crate) fn check_end(&self) {
        for (number, message) in &self.messages {
            let Message { queue, persistent, promise, copies, is_discarded, .. } = message;
            let Promise::Given { life } = promise else { continue };
            let is_safe = self.kind(queue).is_safe && (*persistent || *life == self.life);
            // It may have been on its way to a consumer that needs no acknowledgement when that ended.
            let ended = self.returned_at.get(queue).is_some_and(|at| *at >= self.published_at[number]);
            let is_safe = is_safe && !(queue == "urgent" && ended);
            let is_done = copies.values().any(|copy| copy.acked.is_some());
            assert!(!is_safe || is_done || *is_discarded, "message {number} was confirmed and is lost: {message:?}");
        }
        for transaction in self.transactions.values().filter(|it| it.is_unknown) {
            self.check_whole(transaction);
        }
    }

    /// A transaction whose outcome was lost is stored as a whole or not at all. A consumer may see a message before its
    /// transaction is stored; one that is seen in a later life was stored. What its queue drops or lets expire at once goes on
    /// as a dead letter, in a transaction of the store of its own; and what "urgent" has may be on its way to a consumer that
    /// needs no acknowledgement.
    fn check_whole(&self, Transaction { publishes, acks, .. }: &Transaction) {
        let is_plain = |queue: &str| self.kind(queue).is_safe && !self.kind(queue).dead_letters && queue != "urgent";
        let parts: Vec<_> = publishes
            .iter()
            .map(|number| (number, &self.messages[number]))
            .filter(|(_, message)| message.persistent && is_plain(&message.queue))
            .collect();
        let is_stored =
            parts.iter().any(|(_, message)| message.copies.values().any(|copy| copy.seen_life > message.life));
        let lost: Vec<_> = parts.iter().filter(|(_, message)| message.copies.is_empty()).collect();
        assert!(!is_stored || lost.is_empty(), "a transaction is torn: of {publishes:?} there is none of {lost:#?}");
        let is_lost = !parts.is_empty() && lost.len() == parts.len();
        for TransactionAck { held: Held { number, queue, .. }, deliveries, .. } in acks {
            let message = &self.messages[number];
            // A dead letter may be there a second time, for its original may have come back.
            if !message.persistent || !is_plain(queue) || queue == DEAD {
                continue;
            }
            let is_back = message.copies[queue].deliveries > *deliveries;
            let was_stored = matches!(message.promise, Promise::Given { .. });
            assert!(
                !is_lost || !was_stored || is_back,
                "{publishes:?} are lost, and the acknowledgement of {number} is kept: {message:?}"
            );
            assert!(
                !is_stored || !is_back,
                "{publishes:?} are kept, and the acknowledgement of {number} is lost: {message:?}"
            );
        }
    }

    /// How many messages of a channel's consumers, or of one of them, are unacknowledged, or acknowledged in a transaction
    /// that was not asked to commit.
    pub(crate) fn outstanding(&self, channel: ChannelId, consumer: Option<&str>) -> usize {
        let counts = |held: &Held| consumer.map_or(!held.consumer.is_empty(), |consumer| held.consumer == consumer);
        let acks = self.transactions.values().filter(|it| !it.is_unknown && !it.is_asked).flat_map(|it| &it.acks);
        let held = self.held.get(&channel).into_iter().flat_map(BTreeMap::values).filter(|held| counts(held)).count();
        held + acks.filter(|ack| ack.channel == channel && counts(&ack.held)).count()
    }
}
