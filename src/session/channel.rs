//! One channel: whether it is open, what it waits for, and what is parked behind that.
//!
//! A method that the broker answers makes its channel wait; frames behind it are parked, except that topology methods
//! follow topology methods (a thousand declarations, bindings or deletions are a few commits), as long as none of them is
//! refused: that is known at once, and the answers only wait until it is durable. Answers are written in the order of their methods.

use super::basic_methods::ConsumerEntry;
use super::confirms::Confirms;
use super::content::Content;
use super::effect::{Effect, Failure, Output};
use super::machine::{Fault, Session};
use super::outlet::Outlet;
use super::tally::Tally;
use super::transaction::Transaction;
use super::unacked::Unacked;
use crate::model::{AmqpError, Answer, ChannelKey, Command, ConsumerSlot, LimitId, Name, Now, RequestNo};
use crate::wire::frame::{Frame, FrameKind};
use crate::wire::method::{ClientMethod, MethodId};
use crate::wire::writer::{write_channel_close, write_get_ok, write_method};
use ahash::AHashMap;
use amq_protocol::protocol::{AMQPClass, access, basic, channel, exchange, queue};
use std::collections::VecDeque;

const CHANNEL_CLOSE: MethodId = MethodId { class_id: 20, method_id: 40 };
const QUEUE_DECLARE: MethodId = MethodId { class_id: 50, method_id: 10 };
const QUEUE_DELETE: MethodId = MethodId { class_id: 50, method_id: 40 };

/// Whether a channel is in business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Open.
    Open,
    /// channel.close was sent; everything but close and close-ok is discarded.
    Closing,
}

/// A method that waits for its answer.
#[derive(Debug)]
pub(super) struct Pending {
    request: RequestNo,
    method: MethodId,
    what: Awaited,
    answer: Option<Answer>,
    /// Only its answer will tell whether it is carried out.
    is_undecided: bool,
}

impl Pending {
    /// Whether topology methods behind it can be carried out before it is answered: it was carried out itself.
    fn may_be_followed(&self) -> bool {
        let is_carried_out = match &self.answer {
            None => !self.is_undecided,
            Some(answer) => !matches!(answer, Answer::Refused(_)),
        };
        is_carried_out && matches!(self.what, Awaited::Topology { .. })
    }
}

/// What is to be done with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// A topology method; whether the client wants to hear of it.
    Topology {
        /// Nothing is sent on success.
        nowait: bool,
    },
    /// basic.consume.
    Consume {
        /// The consumer that was registered in advance.
        consumer: ConsumerSlot,
        /// Nothing is sent on success.
        nowait: bool,
    },
    /// basic.cancel of this tag.
    Cancel {
        /// The tag.
        tag: Name,
        /// Nothing is sent.
        nowait: bool,
    },
    /// basic.get.
    Get,
    /// tx.commit: answered by its promises, not by a notice.
    Commit,
}

/// A frame that waits for an answer to what came before it.
#[derive(Debug)]
pub(super) struct Parked {
    kind: FrameKind,
    payload: Vec<u8>,
}

/// One channel of a connection.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) key: ChannelKey,
    pub(super) stage: Stage,
    pub(super) content: Content,
    requests: RequestNo,
    waiting: VecDeque<Pending>,
    parked: VecDeque<Parked>,
    /// Names the queue when a method leaves it empty.
    pub(super) last_queue: Option<Name>,
    pub(super) prefetch: u32,
    /// The limit that its consumers share.
    pub(super) limit: Option<LimitId>,
    pub(super) last_limit: LimitId,
    pub(super) consumers: AHashMap<ConsumerSlot, ConsumerEntry>,
    pub(super) consumer_tags: AHashMap<Name, ConsumerSlot>,
    pub(super) consumer_slots: u32,
    /// Consumers whose queue this channel is deleting: they are told after delete-ok, as RabbitMQ does it.
    cancelled: Vec<ConsumerSlot>,
    pub(super) delivery_tag: u64,
    pub(super) unacked: Unacked,
    pub(super) confirms: Confirms,
    pub(super) transaction: Option<Transaction>,
    /// A publish came on it.
    pub(super) has_published: bool,
    /// Its counts as they were last summed up, and whether they may have changed since.
    pub(super) tallied: Tally,
    pub(super) touched: bool,
    /// Listed among the channels whose parked frames wait for room in the output, or for gets to be answered.
    pub(super) is_stalled: bool,
    /// Listed among the channels with something to confirm.
    pub(super) confirm_noted: bool,
    /// Listed among the channels with deliveries to report.
    pub(super) report_noted: bool,
}

impl Channel {
    pub(super) fn new(key: ChannelKey) -> Self {
        Self {
            key,
            stage: Stage::Open,
            content: Content::default(),
            requests: RequestNo(0),
            waiting: VecDeque::new(),
            parked: VecDeque::new(),
            last_queue: None,
            prefetch: 0,
            limit: None,
            last_limit: LimitId(0),
            consumers: AHashMap::new(),
            consumer_tags: AHashMap::new(),
            consumer_slots: 0,
            cancelled: Vec::new(),
            delivery_tag: 0,
            unacked: Unacked::default(),
            confirms: Confirms::default(),
            transaction: None,
            has_published: false,
            tallied: Tally::default(),
            touched: false,
            is_stalled: false,
            confirm_noted: false,
            report_noted: false,
        }
    }

    /// Whether it is this incarnation and not closing.
    pub(super) fn is_live(&self, key: ChannelKey) -> bool {
        self.key == key && self.stage == Stage::Open
    }

    pub(super) fn next_delivery_tag(&mut self) -> u64 {
        self.delivery_tag += 1;
        self.delivery_tag
    }

    /// Whether a frame has to wait for answers first.
    pub(super) fn must_park(&self, frame: &Frame<'_>) -> bool {
        if self.stage == Stage::Closing || (self.waiting.is_empty() && self.parked.is_empty()) {
            return false;
        }
        let follows = self.parked.is_empty()
            && self.content.is_idle()
            && frame.kind == FrameKind::Method
            && is_topology(frame.payload)
            && self.waiting.iter().all(Pending::may_be_followed)
            && (self.knows_last_queue() || !names_last_queue(frame.payload));
        !follows
    }

    /// Whether a method waits for its answer, or frames wait behind one.
    pub(super) fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || !self.parked.is_empty()
    }

    /// Gets that wait for their answers.
    fn gets_waiting(&self) -> u32 {
        let gets = self.waiting.iter().filter(|pending| pending.what == Awaited::Get && pending.answer.is_none());
        gets.count() as u32
    }

    /// Whether "the last queue" is one already, and will not be another once what waits is answered.
    fn knows_last_queue(&self) -> bool {
        self.last_queue.is_some() && self.waiting.iter().all(|pending| pending.method != QUEUE_DECLARE)
    }

    /// Whether a commit waits for its promises.
    pub(super) fn is_committing(&self) -> bool {
        self.waiting.iter().any(|pending| pending.what == Awaited::Commit)
    }

    /// Whether a consumer's end must wait until a queue.delete of this channel is answered; remembered if so.
    pub(super) fn hold_cancel(&mut self, consumer: ConsumerSlot) -> bool {
        let deleting = self.waiting.iter().any(|pending| pending.method == QUEUE_DELETE);
        if deleting {
            self.cancelled.push(consumer);
        }
        deleting
    }

    pub(super) fn forget_commit(&mut self) {
        self.waiting.retain(|pending| pending.what != Awaited::Commit);
    }

    /// Keeps a frame for later; returns what it weighs.
    pub(super) fn park(&mut self, frame: &Frame<'_>) -> usize {
        self.parked.push_back(Parked { kind: frame.kind, payload: frame.payload.to_vec() });
        parked_bytes(frame.payload)
    }

    /// Notes a method whose answer is to come, and hands it over.
    pub(super) fn request(&mut self, method: MethodId, what: Awaited, command: Command, out: &mut Output) {
        let request = self.note_request(method, what);
        out.command(self.key, request, command);
    }

    pub(super) fn note_request(&mut self, method: MethodId, what: Awaited) -> RequestNo {
        self.requests = RequestNo(self.requests.0.wrapping_add(1));
        let request = self.requests;
        self.waiting.push_back(Pending { request, method, what, answer: None, is_undecided: false });
        request
    }

    /// A commit's promises are all in.
    pub(super) fn commit_settled(&mut self) {
        if let Some(pending) = self.waiting.iter_mut().find(|pending| pending.what == Awaited::Commit) {
            pending.answer = Some(Answer::Done);
        }
    }

    fn next_answered(&mut self) -> Option<Pending> {
        self.waiting
            .front()
            .is_some_and(|pending| pending.answer.is_some())
            .then(|| self.waiting.pop_front().expect("looked at above"))
    }

    /// The first frame that is parked, if no answer is waited for.
    fn next_parked(&self) -> Option<Frame<'_>> {
        let parked = self.parked.front().filter(|_| self.waiting.is_empty())?;
        Some(Frame { kind: parked.kind, channel: self.key.number, payload: &parked.payload })
    }
}

/// A parked frame also costs its place in the list.
fn parked_bytes(payload: &[u8]) -> usize {
    payload.len() + size_of::<Parked>()
}

fn is_channel_close(parked: &Parked) -> bool {
    parked.kind == FrameKind::Method && MethodId::of(&parked.payload) == Some(CHANNEL_CLOSE)
}

/// A declaration, binding or deletion; a purge waits for its queue.
fn is_topology(payload: &[u8]) -> bool {
    matches!(
        MethodId::of(payload),
        Some(MethodId { class_id: 40, .. } | MethodId { class_id: 50, method_id: 10 | 20 | 40 | 50 })
    )
}

/// Whether a queue method but a declaration names no queue, and so means the last one that was declared: which that is has
/// to be known. Line ends do not count.
fn names_last_queue(payload: &[u8]) -> bool {
    const NAME: usize = 6;
    let is_declaration = MethodId::of(payload) == Some(QUEUE_DECLARE);
    let name = payload.get(NAME).and_then(|len| payload.get(NAME + 1..)?.get(..usize::from(*len)));
    let is_of_queue = payload.starts_with(&QUEUE_DECLARE.class_id.to_be_bytes());
    is_of_queue && !is_declaration && name.is_none_or(|name| name.iter().all(|byte| matches!(byte, b'\r' | b'\n')))
}

impl Session {
    /// The answer to a command has come.
    pub(super) fn answer(
        &mut self,
        key: ChannelKey,
        request: RequestNo,
        answer: Answer,
        now: Now,
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) {
        let takes_answers = self.has_channels();
        let Some(channel) = self.channels.get_mut(key.number).filter(|channel| channel.key == key) else {
            return bounce_answer(key, answer, out);
        };
        if channel.stage == Stage::Closing || !takes_answers {
            return bounce_answer(key, answer, out);
        }
        let Some(pending) = channel.waiting.iter_mut().find(|pending| pending.request == request) else { return };
        pending.answer = Some(answer);
        let is_get = pending.what == Awaited::Get;
        self.proceed(key.number, now, outlet, out);
        if is_get {
            self.end_gets(1);
            self.resume(now, outlet, out);
        }
    }

    /// A command was handed to its queue, and only its answer will tell whether it is carried out.
    pub(crate) fn undecided(&mut self, key: ChannelKey, request: RequestNo) {
        if let Some(channel) = self.live(key)
            && let Some(pending) = channel.waiting.iter_mut().find(|pending| pending.request == request)
        {
            pending.is_undecided = true;
        }
    }

    /// Writes the answers whose turn it is, then takes up what was parked behind them.
    pub(super) fn proceed(&mut self, number: u16, now: Now, outlet: &mut dyn Outlet, out: &mut Output) {
        loop {
            if !self.has_channels() {
                return;
            }
            let Some(channel) = self.channels.get_mut(number) else { return };
            if channel.stage == Stage::Closing {
                return;
            }
            if let Some(pending) = channel.next_answered() {
                let method = pending.method;
                if let Err(error) = self.write_answer(number, pending, out) {
                    return self.fail(number, &error, Some(method), now, outlet, out);
                }
                continue;
            }
            if !channel.cancelled.is_empty() && channel.waiting.is_empty() {
                let (key, cancelled) = (channel.key, std::mem::take(&mut channel.cancelled));
                cancelled.into_iter().for_each(|consumer| self.consumer_cancelled(key, consumer, out));
                continue;
            }
            let Some(frame) = channel.next_parked() else { return };
            if self.restraint.holds_back(&frame, channel) {
                return self.restraint.stall(channel);
            }
            let parked = channel.parked.pop_front().expect("looked at above");
            self.parked_bytes = self.parked_bytes.saturating_sub(parked_bytes(&parked.payload));
            if is_channel_close(&parked) {
                let mut rest = self.take_parked(number);
                rest.push_front(parked);
                return self.replay(number, rest, now, outlet, out);
            }
            let frame = Frame { kind: parked.kind, channel: number, payload: &parked.payload };
            self.touch(number);
            if let Err(Fault { error, method }) = self.handle(frame, &[], outlet, out) {
                return self.fail(number, &error, method, now, outlet, out);
            }
        }
    }

    fn write_answer(&mut self, number: u16, pending: Pending, out: &mut Output) -> Result<(), AmqpError> {
        let payload_max = self.payload_max;
        let channel = self.channel(number);
        match (pending.what, pending.answer.expect("only answered ones are taken")) {
            (Awaited::Consume { consumer, .. }, Answer::Refused(error)) => {
                if let Some(entry) = channel.consumers.remove(&consumer) {
                    channel.consumer_tags.remove(&entry.tag);
                }
                Err(error)
            }
            (Awaited::Cancel { tag, nowait }, _) => {
                self.forget_consumer(number, &tag);
                super::basic_methods::write_cancel_ok(number, &tag, nowait, out);
                Ok(())
            }
            (_, Answer::Refused(error)) => Err(error),
            (Awaited::Consume { consumer, nowait }, Answer::Consuming { queue }) => {
                if let Some(entry) = channel.consumers.get_mut(&consumer) {
                    entry.queue = Some(queue);
                    if !nowait {
                        let consumer_tag = entry.tag.as_str().into();
                        let ok = basic::AMQPMethod::ConsumeOk(basic::ConsumeOk { consumer_tag });
                        write_method(&mut out.bytes, number, AMQPClass::Basic(ok));
                    }
                }
                Ok(())
            }
            (Awaited::Get, Answer::Got { delivery, message_count }) => {
                let tag = channel.next_delivery_tag();
                let count = u32::try_from(message_count).unwrap_or(u32::MAX);
                let content = delivery.message.content();
                write_get_ok(&mut out.bytes, number, tag, delivery.redelivered, count, content, payload_max);
                channel.unacked.note(tag, &delivery, false);
                Ok(())
            }
            (Awaited::Get, _) => {
                let empty = basic::AMQPMethod::GetEmpty(basic::GetEmpty {});
                write_method(&mut out.bytes, number, AMQPClass::Basic(empty));
                Ok(())
            }
            (Awaited::Topology { nowait }, answer) => {
                if let Answer::QueueDeclared { queue, .. } = &answer {
                    channel.last_queue = Some(queue.clone());
                }
                if !nowait {
                    write_topology_ok(number, pending.method, answer, out);
                }
                Ok(())
            }
            (Awaited::Commit, _) => self.commit_answered(number, out),
            (Awaited::Consume { .. }, _) => Ok(()),
        }
    }

    /// channel.close: all the channel holds goes back.
    pub(super) fn channel_close(&mut self, number: u16, outlet: &mut dyn Outlet, out: &mut Output) {
        self.flush_confirms_of(number, out);
        self.drop_channel(number, outlet);
        let ok = channel::AMQPMethod::CloseOk(channel::CloseOk {});
        write_method(&mut out.bytes, number, AMQPClass::Channel(ok));
    }

    /// The broker closes the channel with an error.
    pub(super) fn channel_fail(
        &mut self,
        number: u16,
        error: &AmqpError,
        method: Option<MethodId>,
        now: Now,
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) {
        if self.channels.get(number).is_none_or(|channel| channel.stage == Stage::Closing) {
            return;
        }
        // Confirms that were already earned go out before the close.
        self.flush_confirms_of(number, out);
        let channel = self.channel(number);
        let key = channel.key;
        let parked = self.take_parked(number);
        let channel = self.channel(number);
        let mut ended = std::mem::replace(channel, Channel::new(key));
        channel.is_stalled = ended.is_stalled;
        channel.stage = Stage::Closing;
        channel.content = std::mem::take(&mut ended.content).discarded();
        self.untally(&ended);
        let gets = ended.gets_waiting();
        self.end_gets(gets);
        write_channel_close(&mut out.bytes, number, error.code.number(), &error.reply_text(), method);
        let operation = method.map_or("", MethodId::name);
        out.failures.push(Failure { channel: number, operation, error: error.clone() });
        outlet.end_channel(key);
        self.replay(number, parked, now, outlet, out);
        if gets > 0 {
            self.resume(now, outlet, out);
        }
    }

    /// Takes away what is parked on a channel.
    pub(super) fn take_parked(&mut self, number: u16) -> VecDeque<Parked> {
        let Some(channel) = self.channels.get_mut(number) else { return VecDeque::new() };
        let parked = std::mem::take(&mut channel.parked);
        let bytes: usize = parked.iter().map(|parked| parked_bytes(&parked.payload)).sum();
        self.parked_bytes = self.parked_bytes.saturating_sub(bytes);
        parked
    }

    /// Takes frames that were parked on a channel which has closed since, or closes, as if they came now: behind an error
    /// they are thrown away, and behind a close of the client they may open the channel again.
    fn replay(&mut self, number: u16, parked: VecDeque<Parked>, now: Now, outlet: &mut dyn Outlet, out: &mut Output) {
        for Parked { kind, payload } in parked {
            if !self.has_channels() {
                return;
            }
            self.channel_frame(Frame { kind, channel: number, payload: &payload }, &[], now, outlet, out);
        }
    }

    fn drop_channel(&mut self, number: u16, outlet: &mut dyn Outlet) {
        let Some(channel) = self.channels.remove(number) else { return };
        debug_assert!(!channel.is_busy(), "a close waits for what came before it");
        self.untally(&channel);
        outlet.end_channel(channel.key);
    }

    pub(super) fn method_while_channel_closes(&mut self, number: u16, method: &ClientMethod<'_>, out: &mut Output) {
        match method {
            ClientMethod::ChannelCloseOk => {
                if let Some(channel) = self.channels.remove(number) {
                    self.untally(&channel);
                }
            }
            ClientMethod::ChannelClose(_) => {
                let ok = channel::AMQPMethod::CloseOk(channel::CloseOk {});
                write_method(&mut out.bytes, number, AMQPClass::Channel(ok));
            }
            ClientMethod::BasicPublish(_) => self.channel(number).content.begin_discarded(),
            _ => {}
        }
    }

    pub(super) fn channel_flow(&self, number: u16, active: bool, out: &mut Output) -> Result<(), AmqpError> {
        if !active {
            return Err(AmqpError::not_implemented("active=false"));
        }
        let ok = channel::AMQPMethod::FlowOk(channel::FlowOk { active });
        write_method(&mut out.bytes, number, AMQPClass::Channel(ok));
        Ok(())
    }

    pub(super) fn access_request(&self, number: u16, out: &mut Output) {
        let ok = access::AMQPMethod::RequestOk(access::RequestOk {});
        write_method(&mut out.bytes, number, AMQPClass::Access(ok));
    }
}

/// A message that answers a get too late goes back.
fn bounce_answer(channel: ChannelKey, answer: Answer, out: &mut Output) {
    if let Answer::Got { delivery, .. } = answer
        && let Some(lend) = delivery.lend
    {
        out.effects.push(Effect::Bounce { channel, queue: delivery.queue, lend, permit: delivery.permit });
    }
}

pub(super) fn write_open_ok(number: u16, out: &mut Output) {
    let ok = channel::AMQPMethod::OpenOk(channel::OpenOk {});
    write_method(&mut out.bytes, number, AMQPClass::Channel(ok));
}

fn write_topology_ok(number: u16, method: MethodId, answer: Answer, out: &mut Output) {
    use {exchange::AMQPMethod as Exchange, queue::AMQPMethod as Queue};
    let count = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    let class = match (method.class_id, method.method_id, answer) {
        (40, 10, _) => AMQPClass::Exchange(Exchange::DeclareOk(exchange::DeclareOk {})),
        (40, 20, _) => AMQPClass::Exchange(Exchange::DeleteOk(exchange::DeleteOk {})),
        (40, 30, _) => AMQPClass::Exchange(Exchange::BindOk(exchange::BindOk {})),
        (40, 40, _) => AMQPClass::Exchange(Exchange::UnbindOk(exchange::UnbindOk {})),
        (50, 10, Answer::QueueDeclared { queue, message_count, consumer_count }) => {
            let message_count = count(message_count);
            let queue = queue.as_str().into();
            AMQPClass::Queue(Queue::DeclareOk(queue::DeclareOk { queue, message_count, consumer_count }))
        }
        (50, 20, _) => AMQPClass::Queue(Queue::BindOk(queue::BindOk {})),
        (50, 50, _) => AMQPClass::Queue(Queue::UnbindOk(queue::UnbindOk {})),
        (50, 30, Answer::Removed { message_count }) => {
            AMQPClass::Queue(Queue::PurgeOk(queue::PurgeOk { message_count: count(message_count) }))
        }
        (50, 40, Answer::Removed { message_count }) => {
            AMQPClass::Queue(Queue::DeleteOk(queue::DeleteOk { message_count: count(message_count) }))
        }
        (class, method, answer) => unreachable!("{class}.{method} is not answered by {answer:?}"),
    };
    write_method(&mut out.bytes, number, class);
}
