//! Lendings: which consumer or get is given a message, and how the message comes back.

use super::command::{Consume, Requester};
use super::consumers::{Consumers, NextConsumer};
use super::contents::Contents;
use super::context::Context;
use super::deaths::DeadLetterReason;
use super::entry::{EntryState, Lent, Slot};
use super::expiry::Expired;
use super::settings::ConsumerLimits;
use crate::model::names::queue_in_vhost;
use crate::model::{
    AmqpError, Answer, ConsumerKey, ConsumerSlot, Delivery, Holder, LendId, LimitId, LimitKey, Message, Name, Notice,
    Promise, SettleOutcome,
};
use std::collections::VecDeque;

/// A `basic.get` that waits for the head to be loaded.
#[derive(Clone, Copy, Debug)]
struct WaitingGet {
    requester: Requester,
    no_ack: bool,
}

/// A message for a consumer or a get.
struct Handover {
    message: Message,
    redelivered: bool,
    /// None when the message is given for good.
    lend: Option<LendId>,
}

/// Consumers, waiting gets, and the messages that are lent to them.
#[derive(Debug)]
pub(super) struct Lending {
    consumers: Consumers,
    waiting_gets: VecDeque<WaitingGet>,
    /// Messages that are lent.
    count: u64,
    /// Body bytes of the lent messages.
    body_bytes: u64,
}

impl Lending {
    pub(super) fn new(limits: ConsumerLimits) -> Self {
        Self { consumers: Consumers::new(limits), waiting_gets: VecDeque::new(), count: 0, body_bytes: 0 }
    }

    /// Messages that are lent.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Body bytes of the lent messages.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Registered consumers.
    pub(super) fn consumer_count(&self) -> u32 {
        self.consumers.count()
    }

    pub(super) fn consumer_tags(&self) -> impl Iterator<Item = &Name> {
        self.consumers.iter().map(|consumer| &consumer.tag)
    }

    /// The memory that the consumers take, in bytes.
    pub(super) fn consumers_bytes(&self) -> usize {
        self.consumers.allocated_bytes()
    }

    /// Whether a consumer or a get waits for a message.
    #[inline]
    pub(super) fn is_wanted(&self) -> bool {
        !self.waiting_gets.is_empty() || self.consumers.any_ready()
    }

    /// Whether a message that comes to an empty queue is given to a consumer for good.
    #[inline]
    pub(super) fn next_keeps_nothing(&self) -> bool {
        self.waiting_gets.is_empty() && self.consumers.next_keeps_nothing()
    }

    // ---- giving ------------------------------------------------------------------------------------------------

    /// Gives a message that just came to a consumer without acknowledgements: such a message never becomes an entry.
    pub(super) fn pass_on(
        &mut self,
        message: Message,
        promise: Option<Promise>,
        is_durable: bool,
        cx: &mut Context<'_>,
    ) {
        if is_durable {
            cx.out.counts.durable_in += 1;
            cx.out.counts.never_written += 1;
        }
        if let Some(promise) = promise {
            cx.out.promise(promise, true);
        }
        let taker = self.consumers.next_ready(cx.permits).expect("callers looked");
        self.notify(taker, Handover { message, redelivered: false, lend: None }, cx);
    }

    /// Lends or gives ready messages in order, until no message is ready or no consumer may take one.
    pub(super) fn dispatch(&mut self, contents: &mut Contents, cx: &mut Context<'_>) {
        self.give_out(contents, cx);
        contents.expire_head(Expired::AtOrBefore, self.is_wanted(), cx);
    }

    /// Like `dispatch`, but keeps a message that expires now: the length limit may end it first, with another reason.
    pub(super) fn give_out(&mut self, contents: &mut Contents, cx: &mut Context<'_>) {
        loop {
            contents.expire_head(Expired::Before, self.is_wanted(), cx);
            if contents.ready.count() == 0 {
                while let Some(get) = self.waiting_gets.pop_front() {
                    cx.out.counts.get_empty += 1;
                    cx.out.answer(get.requester, Answer::GetEmpty);
                }
                break;
            }
            if !self.is_wanted() {
                break;
            }
            let Some(slot) = contents.front(cx) else { break };
            if !contents.may_hand_over(slot) {
                break;
            }
            if let Some(get) = self.waiting_gets.pop_front() {
                self.serve_get(get, slot, contents, cx);
                continue;
            }
            let Some(taker) = self.consumers.next_ready(cx.permits) else { break };
            self.deliver(taker, slot, contents, cx);
        }
    }

    #[inline]
    fn deliver(&mut self, taker: NextConsumer, slot: Slot, contents: &mut Contents, cx: &mut Context<'_>) {
        contents.take_front(slot);
        let no_ack = self.consumers.consumer(taker.at).no_ack;
        let handover = self.hand_over(taker.at, no_ack, slot, contents, cx);
        self.notify(taker, handover, cx);
    }

    /// Sends a consumer's connection the delivery.
    #[inline]
    fn notify(&mut self, NextConsumer { at, permit }: NextConsumer, handover: Handover, cx: &mut Context<'_>) {
        let Handover { message, redelivered, lend } = handover;
        let ConsumerKey { holder, slot: consumer } = self.consumers.consumer(at).key;
        if lend.is_none() {
            cx.out.counts.delivered_auto_ack += 1;
        } else {
            cx.out.counts.delivered_manual_ack += 1;
        }
        let (channel, queue, bytes) = (holder.channel, cx.settings.id, message.body_len() as u64);
        let delivery = Delivery { channel, consumer, queue, lend, redelivered, permit, message };
        cx.out.notices.push((holder.connection, Notice::Deliver(delivery)));
        self.consumers.note_delivered(at, bytes);
    }

    fn serve_get(&mut self, get: WaitingGet, slot: Slot, contents: &mut Contents, cx: &mut Context<'_>) {
        contents.take_front(slot);
        let at = self.consumers.gets_of(get.requester.holder());
        let Handover { message, redelivered, lend } = self.hand_over(at, get.no_ack, slot, contents, cx);
        if get.no_ack {
            cx.out.counts.got_auto_ack += 1;
        } else {
            cx.out.counts.got_manual_ack += 1;
        }
        let delivery = Delivery {
            channel: get.requester.channel,
            consumer: ConsumerSlot(0),
            queue: cx.settings.id,
            lend,
            redelivered,
            permit: None,
            message,
        };
        // Expired messages behind this one are not counted.
        contents.expire_head(Expired::AtOrBefore, self.is_wanted(), cx);
        let message_count = contents.shown_ready_count(cx.settings);
        cx.out.answer(get.requester, Answer::Got { delivery, message_count });
    }

    /// A ready message is handed over: lent, or given for good.
    #[inline]
    fn hand_over(
        &mut self,
        at: u32,
        no_ack: bool,
        slot: Slot,
        contents: &mut Contents,
        cx: &mut Context<'_>,
    ) -> Handover {
        let redelivered = contents.entries.at(slot).redelivered;
        if redelivered {
            cx.out.counts.redelivered += 1;
        }
        if no_ack {
            let message = contents.remove(slot, cx);
            return Handover { message, redelivered, lend: None };
        }
        let message = contents.entries.at(slot).message.clone();
        contents.note_lent(slot, cx.now.monotonic);
        let lend = self.consumers.lend(at, slot, &mut contents.entries, cx.now.monotonic);
        self.count += 1;
        self.body_bytes += message.body_len() as u64;
        Handover { message, redelivered, lend: Some(lend) }
    }

    // ---- coming back -------------------------------------------------------------------------------------------

    /// Settles lendings; those that are not current are ignored.
    pub(super) fn settle(
        &mut self,
        lends: &[LendId],
        outcome: SettleOutcome,
        contents: &mut Contents,
        cx: &mut Context<'_>,
    ) {
        for lend in lends {
            let Some(slot) = contents.entries.lent(*lend) else { continue };
            let lent = self.unlend(slot, contents);
            match outcome {
                SettleOutcome::Acknowledged => {
                    cx.out.counts.acknowledged += 1;
                    contents.durable.note_ack(cx.now.monotonic.since(lent.since));
                    contents.remove(slot, cx);
                }
                SettleOutcome::Requeued => contents.put_back(slot, true),
                SettleOutcome::Rejected => {
                    contents.entries.set_state(slot, EntryState::Ready);
                    cx.out.counts.rejected += 1;
                    contents.die(slot, DeadLetterReason::Rejected, cx);
                }
            }
        }
    }

    #[inline]
    fn unlend(&mut self, slot: Slot, contents: &mut Contents) -> Lent {
        self.count -= 1;
        let body_bytes = contents.entries.at(slot).message.body_len() as u64;
        self.body_bytes = self.body_bytes.saturating_sub(body_bytes);
        contents.note_unlent(slot);
        self.consumers.unlend(slot, &mut contents.entries)
    }

    /// A delivery that did not reach the client goes back without the mark `redelivered`.
    pub(super) fn bounce(&mut self, lend: LendId, contents: &mut Contents) {
        if let Some(slot) = contents.entries.lent(lend) {
            let lent = self.unlend(slot, contents);
            let bytes = contents.entries.at(slot).message.body_len() as u64;
            self.consumers.never_written(lent.holding, bytes);
            contents.put_back(slot, false);
        }
    }

    /// Deliveries reached the socket.
    pub(super) fn written(&mut self, consumer: ConsumerKey, count: u32, bytes: u64) {
        self.consumers.written(consumer, count, bytes);
    }

    // ---- consumers and gets ------------------------------------------------------------------------------------

    pub(super) fn consume(&mut self, consume: &Consume, cx: &mut Context<'_>) {
        if self.consumers.exclusive || (consume.exclusive && self.consumers.count() > 0) {
            let queue = queue_in_vhost(cx.settings.name.as_str(), cx.settings.vhost.as_str());
            let error = AmqpError::access_refused(format!("{queue} in exclusive use"));
            return cx.out.answer(consume.requester, Answer::Refused(error));
        }
        self.consumers.register(consume);
        cx.out.answer(consume.requester, Answer::Consuming { queue: cx.settings.id });
    }

    /// Removes a consumer. Returns whether it was the last one.
    pub(super) fn cancel(&mut self, requester: Requester, key: ConsumerKey, cx: &mut Context<'_>) -> bool {
        let was_registered = self.consumers.unregister(key, cx.permits).is_some();
        cx.out.answer(requester, Answer::Cancelled);
        was_registered && self.consumers.count() == 0
    }

    /// Adds a get, which may be served in the same input.
    pub(super) fn get(&mut self, requester: Requester, no_ack: bool) {
        self.waiting_gets.push_back(WaitingGet { requester, no_ack });
    }

    /// A channel has ended: everything it holds goes back. Returns whether its consumers were the last ones.
    pub(super) fn detach(&mut self, holder: Holder, contents: &mut Contents, cx: &mut Context<'_>) -> bool {
        self.waiting_gets.retain(|get| get.requester.holder() != holder);
        let keys = self.consumers.of_holder(holder);
        let mut slots = self.consumers.held_by(holder, &contents.entries);
        for key in &keys {
            self.consumers.unregister(*key, cx.permits);
        }
        slots.sort_by_key(|slot| std::cmp::Reverse(contents.entries.at(*slot).order));
        for slot in slots {
            self.unlend(slot, contents);
            contents.put_back(slot, true);
        }
        !keys.is_empty() && self.consumers.count() == 0
    }

    // ---- limits ------------------------------------------------------------------------------------------------

    /// Sets or removes a channel's own prefetch limit.
    pub(super) fn set_channel_limit(&mut self, holder: Holder, limit: Option<LimitId>) {
        self.consumers.set_channel_limit(holder, limit);
    }

    /// The queue may use permits of a channel until the end of the input.
    pub(super) fn grant(&mut self, limit: LimitKey, granted: u32, cx: &mut Context<'_>) {
        self.consumers.grant(limit, granted, cx.permits);
    }

    /// Gives unused permits back at the end of an input.
    pub(super) fn end_grants(&mut self, cx: &mut Context<'_>) {
        self.consumers.end_grants(cx.permits);
    }

    /// Shrinks the window of each consumer; see `Consumers::shrink_windows`.
    pub(super) fn shrink_windows(&mut self, steps: u32) {
        self.consumers.shrink_windows(steps);
    }

    // ---- the end -----------------------------------------------------------------------------------------------

    /// The queue has ended: consumers are cancelled, and gets refused.
    pub(super) fn end(&mut self, cx: &mut Context<'_>) {
        for key in self.consumers.take_all(cx.permits) {
            let notice = Notice::ConsumerCancelled { channel: key.holder.channel, consumer: key.slot };
            cx.out.notices.push((key.holder.connection, notice));
        }
        while let Some(get) = self.waiting_gets.pop_front() {
            let error = AmqpError::no_queue(cx.settings.name.as_str(), cx.settings.vhost.as_str());
            cx.out.answer(get.requester, Answer::Refused(error));
        }
        (self.count, self.body_bytes) = (0, 0);
    }

    /// Checks that the counts agree with the holders, and with the entries if their table is short.
    pub(super) fn assert_invariants(&self, contents: &Contents) {
        if let Some(held) = self.consumers.lent_if_few() {
            debug_assert_eq!(self.count, held, "lent messages are those of all holders");
        }
        if contents.entries.is_short() {
            let lent = contents.entries.iter().filter(|(_, entry)| matches!(entry.state, EntryState::Lent(_)));
            let bytes: u64 = lent.map(|(_, entry)| entry.message.body_len() as u64).sum();
            debug_assert_eq!(self.body_bytes, bytes, "lent bytes are those of the entries");
        }
    }
}
