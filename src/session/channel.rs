//! One channel: whether it is open, what it waits for, and what is parked behind that.
//!
//! A method that the broker answers makes its channel wait; frames behind it are parked, except that topology methods
//! follow topology methods (a thousand declarations are a few commits). Answers are written in the order of their methods.

use super::basic_methods::ConsumerEntry;
use super::confirms::Confirms;
use super::content::Content;
use super::effect::{Effect, Output};
use super::machine::{Fault, Session};
use super::tally::Tally;
use super::transaction::Transaction;
use super::unacked::Unacked;
use crate::model::{AmqpError, Answer, ChannelKey, Command, ConsumerSlot, Name, Now, RequestNo};
use crate::wire::frame::{Frame, FrameKind};
use crate::wire::method::{ClientMethod, MethodId};
use crate::wire::writer::{write_channel_close, write_get_ok, write_method};
use ahash::AHashMap;
use amq_protocol::protocol::{AMQPClass, access, basic, channel, exchange, queue};
use std::collections::VecDeque;

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

#[derive(Debug)]
struct Parked {
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
    pub(super) channel_limited: bool,
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
            channel_limited: false,
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
            && self.waiting.iter().all(|pending| matches!(pending.what, Awaited::Topology { .. }));
        !follows
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
        self.waiting.push_back(Pending { request, method, what, answer: None });
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

    fn unpark(&mut self) -> Option<Parked> {
        if self.waiting.is_empty() { self.parked.pop_front() } else { None }
    }
}

/// A parked frame also costs its place in the list.
fn parked_bytes(payload: &[u8]) -> usize {
    payload.len() + size_of::<Parked>()
}

fn is_topology(payload: &[u8]) -> bool {
    // queue.declare by the broker's choice of name or for the last name is answered before it is used, so queue methods
    // that may name "the last queue" wait; exchange methods and named declarations follow.
    matches!(MethodId::of(payload), Some(MethodId { class_id: 40, .. } | MethodId { class_id: 50, method_id: 10 }))
}

impl Session {
    fn handle_parked(&mut self, frame: Frame<'_>, out: &mut Output) -> Result<(), Fault> {
        self.handle(frame, &[], out).map(|_| ())
    }

    /// The answer to a command has come.
    pub(super) fn answer(&mut self, key: ChannelKey, request: RequestNo, answer: Answer, now: Now, out: &mut Output) {
        let Some(channel) = self.channels.get_mut(key.number).filter(|channel| channel.key == key) else {
            return bounce_answer(key, answer, out);
        };
        if channel.stage == Stage::Closing {
            return bounce_answer(key, answer, out);
        }
        if let Some(pending) = channel.waiting.iter_mut().find(|pending| pending.request == request) {
            pending.answer = Some(answer);
        }
        self.proceed(key.number, now, out);
    }

    /// Writes the answers whose turn it is, then takes up what was parked behind them.
    pub(super) fn proceed(&mut self, number: u16, now: Now, out: &mut Output) {
        loop {
            let Some(channel) = self.channels.get_mut(number) else { return };
            if channel.stage == Stage::Closing {
                return;
            }
            if let Some(pending) = channel.next_answered() {
                let method = pending.method;
                if let Err(error) = self.write_answer(number, pending, out) {
                    return self.fail(number, &error, Some(method), now, out);
                }
                continue;
            }
            if !channel.cancelled.is_empty() && channel.waiting.is_empty() {
                let (key, cancelled) = (channel.key, std::mem::take(&mut channel.cancelled));
                cancelled.into_iter().for_each(|consumer| self.consumer_cancelled(key, consumer, out));
                continue;
            }
            let Some(parked) = channel.unpark() else { return };
            self.parked_bytes = self.parked_bytes.saturating_sub(parked_bytes(&parked.payload));
            let frame = Frame { kind: parked.kind, channel: number, payload: &parked.payload };
            self.touch(number);
            if let Err(Fault { error, method }) = self.handle_parked(frame, out) {
                return self.fail(number, &error, method, now, out);
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
                channel.unacked.note(tag, &delivery);
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
    pub(super) fn channel_close(&mut self, number: u16, out: &mut Output) {
        self.flush_confirms(out);
        self.drop_channel(number, out);
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
        out: &mut Output,
    ) {
        // Confirms that were already earned go out before the close.
        self.flush_confirms(out);
        let Some(channel) = self.channels.get_mut(number) else { return };
        if channel.stage == Stage::Closing {
            return;
        }
        let parked: usize = channel.parked.iter().map(|parked| parked_bytes(&parked.payload)).sum();
        self.parked_bytes = self.parked_bytes.saturating_sub(parked);
        let key = channel.key;
        let mut ended = std::mem::replace(channel, Channel::new(key));
        channel.stage = Stage::Closing;
        channel.content = std::mem::take(&mut ended.content).discarded();
        self.untally(&ended);
        write_channel_close(&mut out.bytes, number, error.code.number(), &error.reply_text(), method);
        out.effects.push(Effect::ChannelEnded { channel: key });
        self.skip_parked(number, ended.parked, now, out);
    }

    /// Frames behind a method that failed are not carried out. Where they end within a content its rest is still to come.
    fn skip_parked(&mut self, number: u16, parked: VecDeque<Parked>, now: Now, out: &mut Output) {
        for Parked { kind, payload } in parked {
            let frame = Frame { kind, channel: number, payload: &payload };
            let content = &mut self.channel(number).content;
            if content.is_idle() {
                if kind == FrameKind::Method && MethodId::of(&payload) == Some(super::basic_methods::PUBLISH) {
                    content.begin_discarded();
                }
            } else if let Err(Fault { error, method }) = self.content_frame(frame, out) {
                return self.fail(number, &error, method, now, out);
            }
        }
    }

    fn drop_channel(&mut self, number: u16, out: &mut Output) {
        let Some(channel) = self.channels.remove(number) else { return };
        let parked: usize = channel.parked.iter().map(|parked| parked_bytes(&parked.payload)).sum();
        self.parked_bytes = self.parked_bytes.saturating_sub(parked);
        self.untally(&channel);
        out.effects.push(Effect::ChannelEnded { channel: channel.key });
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
        out.effects.push(Effect::Bounce { channel, queue: delivery.queue, lend, counted: delivery.counted });
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
