//! The answers to methods, and how a channel goes on after one: answers are written in the order of their methods, then the
//! frames that were parked behind them are carried out.

use super::channel::Stage;
use super::effect::{Effect, Output};
use super::fault::Fault;
use super::machine::Session;
use super::outlet::Outlet;
use super::requests::{PendingRequest, RequestKind};
use crate::model::{AmqpError, Answer, ChannelKey, Now, RequestNo};
use crate::wire::frame::Frame;
use crate::wire::method::MethodId;
use crate::wire::writer::{write_get_ok, write_method};
use amq_protocol::protocol::{AMQPClass, basic, exchange, queue};

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
        let Some(pending) = channel.requests.get_mut(request) else { return };
        pending.answer = Some(answer);
        let is_get = pending.kind == RequestKind::Get;
        self.proceed(key.number, now, outlet, out);
        if is_get {
            self.end_gets(1);
            self.resume(now, outlet, out);
        }
    }

    /// A command was handed to its queue, and only its answer shows whether it is carried out.
    pub(crate) fn undecided(&mut self, key: ChannelKey, request: RequestNo) {
        if let Some(channel) = self.live(key) {
            channel.requests.mark_undecided(request);
        }
    }

    /// Sets whether more output waits than should. When it no longer does, what was held back goes on.
    pub(crate) fn set_output_waits(&mut self, waits: bool, now: Now, outlet: &mut dyn Outlet, out: &mut Output) {
        if self.backpressure.set_output_waits(waits) && !waits {
            self.resume(now, outlet, out);
            self.end_draining(now, out);
        }
    }

    /// Carries out what was held back, until a channel is held back again: the next answer to a get, or room in the output,
    /// lets the other channels go on.
    pub(super) fn resume(&mut self, now: Now, outlet: &mut dyn Outlet, out: &mut Output) {
        while let Some(number) = self.backpressure.next_stalled() {
            let Some(channel) = self.channels.get_mut(number) else { continue };
            channel.listings.stalled = false;
            self.proceed(number, now, outlet, out);
            if self.channels.get(number).is_some_and(|channel| channel.listings.stalled) {
                return;
            }
        }
    }

    /// Writes the answers that are next in order, then carries out the frames that were parked behind them.
    pub(super) fn proceed(&mut self, number: u16, now: Now, outlet: &mut dyn Outlet, out: &mut Output) {
        loop {
            if !self.has_channels() {
                return;
            }
            let Some(channel) = self.channels.get_mut(number) else { return };
            if channel.stage == Stage::Closing {
                return;
            }
            if let Some(pending) = channel.requests.pop_answered() {
                let method = pending.method;
                if let Err(error) = self.write_answer(number, pending, out) {
                    return self.fail(number, &error, Some(method), now, outlet, out);
                }
                continue;
            }
            if channel.consumers.has_cancelled() && !channel.requests.has_waiting() {
                let (key, cancelled) = (channel.key, channel.consumers.take_cancelled());
                cancelled.into_iter().for_each(|consumer| self.consumer_cancelled(key, consumer, out));
                continue;
            }
            let Some(frame) = channel.requests.next_parked(number) else { return };
            if self.backpressure.holds_back(&frame, channel) {
                return self.backpressure.stall(channel);
            }
            let parked = channel.requests.pop_parked().expect("looked at above");
            self.backpressure.unpark(parked.held_bytes());
            if parked.is_channel_close() {
                let mut rest = self.take_parked(number);
                rest.push_front(parked);
                return self.replay(number, rest, now, outlet, out);
            }
            let frame = Frame { kind: parked.kind, channel: number, payload: &parked.payload };
            self.mark_active(number);
            if let Err(Fault { error, method }) = self.handle(frame, &[], outlet, out) {
                return self.fail(number, &error, method, now, outlet, out);
            }
        }
    }

    fn write_answer(&mut self, number: u16, pending: PendingRequest, out: &mut Output) -> Result<(), AmqpError> {
        let payload_max = self.tuning.payload_max;
        let channel = self.channel(number);
        match (pending.kind, pending.answer.expect("only answered ones are taken")) {
            (RequestKind::Consume { consumer, .. }, Answer::Refused(error)) => {
                channel.consumers.remove(consumer);
                Err(error)
            }
            (RequestKind::Cancel { tag, nowait }, _) => {
                // The queue has removed the consumer: no delivery for it follows.
                channel.consumers.remove_tag(&tag);
                super::basic_methods::write_cancel_ok(number, &tag, nowait, out);
                Ok(())
            }
            (_, Answer::Refused(error)) => Err(error),
            (RequestKind::Consume { consumer, nowait }, Answer::Consuming { queue }) => {
                if let Some(entry) = channel.consumers.get_mut(consumer) {
                    entry.queue = Some(queue);
                    if !nowait {
                        let consumer_tag = entry.tag.as_str().into();
                        let ok = basic::AMQPMethod::ConsumeOk(basic::ConsumeOk { consumer_tag });
                        write_method(&mut out.bytes, number, AMQPClass::Basic(ok));
                    }
                }
                Ok(())
            }
            (RequestKind::Get, Answer::Got { delivery, message_count }) => {
                let tag = channel.unacked.next_tag();
                let count = u32::try_from(message_count).unwrap_or(u32::MAX);
                let content = delivery.message.content();
                write_get_ok(&mut out.bytes, number, tag, delivery.redelivered, count, content, payload_max);
                channel.unacked.note(tag, &delivery, false);
                Ok(())
            }
            (RequestKind::Get, _) => {
                let empty = basic::AMQPMethod::GetEmpty(basic::GetEmpty {});
                write_method(&mut out.bytes, number, AMQPClass::Basic(empty));
                Ok(())
            }
            (RequestKind::Topology { nowait }, answer) => {
                if let Answer::QueueDeclared { queue, .. } = &answer {
                    channel.last_queue = Some(queue.clone());
                }
                if !nowait {
                    write_topology_ok(number, pending.method, answer, out);
                }
                Ok(())
            }
            (RequestKind::Commit, _) => self.commit_answered(number, out),
            (RequestKind::Consume { .. }, _) => Ok(()),
        }
    }
}

/// A message that answers a get of a channel that has closed goes back to its queue.
fn bounce_answer(channel: ChannelKey, answer: Answer, out: &mut Output) {
    if let Answer::Got { delivery, .. } = answer
        && let Some(lend) = delivery.lend
    {
        out.effects.push(Effect::Bounce { channel, queue: delivery.queue, lend, permit: delivery.permit });
    }
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
