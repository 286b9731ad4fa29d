//! The methods of class basic.

use super::channel::{Awaited, Channel};
use super::content::{Content, Started, whole_content};
use super::effect::{Effect, Output, Publish, RoutedMessage};
use super::machine::{Fault, Session};
use super::outlet::Outlet;
use super::unacked::Delivered;
use crate::model::command::BasicConsume;
use crate::model::{
    AmqpError, ChannelKey, Command, ConsumerSlot, Delivery, Message, Name, NamedLimit, QueueId, ReplyCode,
    SettleOutcome,
};
use crate::wire::method::{BasicAck, BasicNack, BasicPublish, BasicQos, BasicReject, MethodId, WithTable};
use crate::wire::properties::Properties;
use crate::wire::writer::{ConsumerPrefix, write_deliver, write_method, write_return};
use amq_protocol::protocol::{AMQPClass, basic};

/// basic.publish, as closes name it.
pub(super) const PUBLISH: MethodId = MethodId { class_id: 60, method_id: 40 };
/// The pseudo-queue of direct reply-to.
const REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// Begins the tags that the broker makes up.
const GENERATED_TAG: &str = "amq.ctag-";

/// A consumer of a channel.
#[derive(Debug)]
pub(super) struct ConsumerEntry {
    pub(super) tag: Name,
    pub(super) prefix: ConsumerPrefix,
    /// Known once the queue has answered.
    pub(super) queue: Option<QueueId>,
    unreported: u32,
    unreported_bytes: u64,
}

/// What follows a publish. `size` is the body's length as it was announced; the body is empty when that was too much.
pub(super) struct PublishContent<'a> {
    pub(super) properties: &'a [u8],
    pub(super) body: PublishBody<'a>,
    pub(super) size: u64,
}

/// The body of a publish: still in the read buffer, or gathered.
pub(super) enum PublishBody<'a> {
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
}

impl Session {
    /// basic.publish: with its content at once where that lies behind it, else frame by frame. Returns how much of
    /// `behind` was used.
    pub(super) fn basic_publish(
        &mut self,
        number: u16,
        publish: &BasicPublish<'_>,
        behind: &[u8],
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) -> Result<usize, Fault> {
        // One that is too large is read to its end before its channel closes.
        let most = self.settings.message_bytes_max;
        match whole_content(behind, number, self.payload_max).filter(|whole| whole.body.len() as u64 <= most) {
            Some(whole) => {
                let (properties, size) = (whole.properties, whole.body.len() as u64);
                let content = PublishContent { properties, body: PublishBody::Borrowed(whole.body), size };
                let used = whole.used;
                self.published_whole(number, publish, content, outlet, out).map(|()| used).inspect_err(|_| {
                    // Its content is still to be read past.
                    self.channel(number).content.begin_discarded();
                })
            }
            None => {
                self.channel(number).content = Content::Header(Started::of(publish));
                Ok(0)
            }
        }
    }

    /// A publish is complete: it goes to its queues, or into the channel's transaction.
    pub(super) fn published_whole(
        &mut self,
        number: u16,
        publish: &BasicPublish<'_>,
        content: PublishContent<'_>,
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) -> Result<(), Fault> {
        let blame = |error| Fault { error, method: Some(PUBLISH) };
        let PublishContent { properties, body, size } = content;
        if publish.immediate {
            return Err(blame(AmqpError::not_implemented("immediate=true")));
        }
        let most = self.settings.message_bytes_max;
        if size > most {
            out.refusals.note(NamedLimit::MessageBytesMax);
            let text = format!("message size {size} is larger than configured max size {most}");
            return Err(blame(AmqpError::precondition_failed(text)));
        }
        let properties = Properties::check(properties).map_err(|_| Fault::of(AmqpError::internal_error()))?;
        let fault = self.publish_fault(&properties);
        let (exchange, routing_key) = (publish.exchange, publish.routing_key);
        let message = match body {
            PublishBody::Borrowed(body) => Message::new(exchange, routing_key, &properties, body),
            PublishBody::Owned(body) => Message::with_body(exchange, routing_key, &properties, body),
        };
        if let Some(fault) = fault {
            // A missing exchange is reported first, as RabbitMQ does it.
            return Err(blame(outlet.route(&message).err().unwrap_or(fault)));
        }
        let channel = self.channels.get_mut(number).expect("the publish came on an open channel");
        channel.has_published = true;
        let (key, mandatory) = (channel.key, publish.mandatory);
        if let Some(transaction) = &mut channel.transaction {
            let queues = outlet.route(&message).map_err(blame)?;
            transaction.add_publish(RoutedMessage { message, mandatory, queues });
        } else {
            let sequence = channel.confirms.next_sequence();
            let returnable = mandatory.then(|| message.clone());
            let parts = outlet.publish(Publish { channel: key, message, mandatory, sequence }).map_err(blame)?;
            self.published(number, sequence, parts, returnable.as_ref(), out);
        }
        self.block_if_alarmed(out);
        Ok(())
    }

    /// A publish goes to so many queues. With none it is confirmed at once, and a mandatory one returned before that.
    fn published(
        &mut self,
        number: u16,
        sequence: Option<u64>,
        parts: u32,
        returnable: Option<&Message>,
        out: &mut Output,
    ) {
        let returned = returnable.filter(|_| parts == 0);
        if let Some(message) = returned {
            // Confirms that are due stay in front of the return, so that the next one is the returned message's own.
            self.flush_confirms_of(number, out);
            self.write_return(number, message, out);
        }
        let Some(sequence) = sequence else { return };
        let channel = self.channel(number);
        channel.confirms.set_parts(sequence, parts);
        if parts > 0 {
            return;
        }
        channel.confirms.promised(sequence, sequence, true);
        if returned.is_some() {
            self.flush_confirms_of(number, out);
        } else {
            self.note_to_confirm(number);
        }
    }

    /// Returns a mandatory message that no queue took.
    pub(super) fn write_return(&self, number: u16, message: &Message, out: &mut Output) {
        let code = ReplyCode::NoRoute;
        write_return(&mut out.bytes, number, code.number(), code.name(), message.content(), self.payload_max);
    }

    /// What is wrong with a message, to be reported once its exchange was found in order.
    fn publish_fault(&self, properties: &Properties<'_>) -> Option<AmqpError> {
        if properties.reply_to() == Some(REPLY_TO.as_bytes()) {
            return Some(AmqpError::not_implemented("direct reply-to"));
        }
        if let Err(error) = properties.expiration_ms() {
            let text = String::from_utf8_lossy(properties.expiration().unwrap_or_default());
            return Some(AmqpError::precondition_failed(format!("invalid expiration '{text}': {error}")));
        }
        if let Some(headers) = properties.headers() {
            for name in ["CC", "BCC"] {
                if headers.get(name.as_bytes()).is_some() {
                    return Some(AmqpError::not_implemented(format!("{name} header")));
                }
            }
        }
        let user = self.client.user.as_ref().map_or("", Name::as_str);
        match properties.user_id() {
            Some(claimed) if claimed != user.as_bytes() && !self.client.may_impersonate => {
                let claimed = String::from_utf8_lossy(claimed);
                Some(AmqpError::precondition_failed(format!(
                    "user_id property set to '{claimed}' but authenticated user was '{user}'"
                )))
            }
            _ => None,
        }
    }

    pub(super) fn basic_consume(
        &mut self,
        number: u16,
        id: MethodId,
        WithTable { method: consume, table }: WithTable<'_, basic::Consume>,
        out: &mut Output,
    ) -> Result<(), AmqpError> {
        if consume.queue.as_str() == REPLY_TO {
            return Err(AmqpError::not_implemented("direct reply-to"));
        }
        let tag = if consume.consumer_tag.as_str().is_empty() {
            self.random.generated_name(GENERATED_TAG)
        } else {
            consume.consumer_tag.to_string()
        };
        let tag = Name::from(tag);
        let most = self.settings.channel_consumers_max;
        let channel = self.channel(number);
        if channel.consumers.len() >= most as usize {
            out.refusals.note(NamedLimit::ChannelConsumersMax);
            return Err(AmqpError::not_allowed(format!("reached maximum ({most}) of consumers per channel")));
        }
        let queue = channel.queue_or_last(consume.queue.as_str())?;
        if channel.consumer_tags.contains_key(&tag) {
            return Err(AmqpError::not_allowed(format!("attempt to reuse consumer tag '{tag}'")));
        }
        channel.consumer_slots += 1;
        let consumer = ConsumerSlot(channel.consumer_slots);
        let entry = ConsumerEntry {
            tag: tag.clone(),
            prefix: ConsumerPrefix::new(number, tag.as_bytes()),
            queue: None,
            unreported: 0,
            unreported_bytes: 0,
        };
        channel.consumers.insert(consumer, entry);
        channel.consumer_tags.insert(tag.clone(), consumer);
        let command = Command::BasicConsume(BasicConsume {
            queue,
            consumer,
            consumer_tag: tag,
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            prefetch: channel.prefetch,
            arguments: table.into(),
        });
        let what = Awaited::Consume { consumer, nowait: consume.nowait };
        channel.request(id, what, command, out);
        Ok(())
    }

    pub(super) fn basic_cancel(
        &mut self,
        number: u16,
        id: MethodId,
        cancel: &basic::Cancel,
        out: &mut Output,
    ) -> Result<(), AmqpError> {
        let channel = self.channel(number);
        let tag = Name::from(cancel.consumer_tag.as_str());
        let known = channel.consumer_tags.get(&tag).copied();
        let queue = known.and_then(|slot| channel.consumers.get(&slot)).and_then(|entry| entry.queue);
        match (known, queue) {
            (Some(consumer), Some(queue)) => {
                let what = Awaited::Cancel { tag, nowait: cancel.nowait };
                channel.request(id, what, Command::BasicCancel { queue, consumer }, out);
            }
            _ => write_cancel_ok(number, &tag, cancel.nowait, out),
        }
        Ok(())
    }

    /// The queue has let the consumer go: no delivery for it follows.
    pub(super) fn forget_consumer(&mut self, number: u16, tag: &Name) {
        let channel = self.channel(number);
        if let Some(slot) = channel.consumer_tags.remove(tag) {
            channel.consumers.remove(&slot);
        }
    }

    /// A queue ended and took the consumer with it.
    pub(super) fn consumer_cancelled(&mut self, key: ChannelKey, consumer: ConsumerSlot, out: &mut Output) {
        let notify = self.client.wants_cancel_notify;
        let Some(channel) = self.live(key) else { return };
        if channel.hold_cancel(consumer) {
            return;
        }
        let Some(entry) = channel.consumers.remove(&consumer) else { return };
        channel.consumer_tags.remove(&entry.tag);
        if notify {
            let cancel = basic::Cancel { consumer_tag: entry.tag.as_str().into(), nowait: true };
            write_method(&mut out.bytes, key.number, AMQPClass::Basic(basic::AMQPMethod::Cancel(cancel)));
        }
    }

    pub(super) fn basic_get(
        &mut self,
        number: u16,
        id: MethodId,
        get: &basic::Get,
        out: &mut Output,
    ) -> Result<(), AmqpError> {
        let most = self.settings.channel_unacked_max;
        let channel = self.channel(number);
        let queue = channel.queue_or_last(get.queue.as_str())?;
        if !get.no_ack && channel.unacked.len() >= most as usize {
            out.refusals.note(NamedLimit::ChannelUnackedMax);
            let text = format!("reached maximum ({most}) of unacknowledged deliveries per channel");
            return Err(AmqpError::limit_reached(text));
        }
        channel.request(id, Awaited::Get, Command::BasicGet { queue, no_ack: get.no_ack }, out);
        self.begin_get();
        Ok(())
    }

    /// A delivery for a consumer: written, or given back when it comes too late.
    pub(super) fn deliver(&mut self, delivery: &Delivery, outlet: &mut dyn Outlet, out: &mut Output) {
        let key = delivery.channel;
        if let Some(channel) = self.channels.get_mut(key.number)
            && channel.is_live(key)
            && let Some(entry) = channel.consumers.get_mut(&delivery.consumer)
        {
            channel.delivery_tag += 1;
            let (tag, content) = (channel.delivery_tag, delivery.message.content());
            write_deliver(&mut out.bytes, &entry.prefix, tag, delivery.redelivered, content, self.payload_max);
            entry.unreported += 1;
            entry.unreported_bytes += content.body.len() as u64;
            let limit = channel.limit.filter(|_| delivery.lend.is_some());
            if limit.is_some() && limit != delivery.permit {
                outlet.count_delivery(key);
            }
            channel.unacked.note(tag, delivery, limit.is_some());
            if !channel.report_noted {
                channel.report_noted = true;
                self.to_report.push(key.number);
            }
        } else if let Some(lend) = delivery.lend {
            let (queue, permit) = (delivery.queue, delivery.permit);
            out.effects.push(Effect::Bounce { channel: key, queue, lend, permit });
        }
    }

    pub(super) fn basic_ack(&mut self, number: u16, ack: BasicAck, outlet: &mut dyn Outlet) -> Result<(), AmqpError> {
        let BasicAck { delivery_tag, multiple } = ack;
        self.settle(number, delivery_tag, multiple, SettleOutcome::Acknowledged, outlet)
    }

    pub(super) fn basic_nack(
        &mut self,
        number: u16,
        nack: BasicNack,
        outlet: &mut dyn Outlet,
    ) -> Result<(), AmqpError> {
        let BasicNack { delivery_tag, multiple, requeue } = nack;
        self.settle(number, delivery_tag, multiple, negative(requeue), outlet)
    }

    pub(super) fn basic_reject(
        &mut self,
        number: u16,
        reject: BasicReject,
        outlet: &mut dyn Outlet,
    ) -> Result<(), AmqpError> {
        self.settle(number, reject.delivery_tag, false, negative(reject.requeue), outlet)
    }

    fn settle(
        &mut self,
        number: u16,
        tag: u64,
        multiple: bool,
        outcome: SettleOutcome,
        outlet: &mut dyn Outlet,
    ) -> Result<(), AmqpError> {
        let channel = self.channel(number);
        let key = channel.key;
        let Channel { unacked, transaction, .. } = channel;
        let mut continues = false;
        let mut one = |tag: u64, delivered: Delivered| match transaction {
            Some(transaction) => transaction.settlements.push((tag, delivered, outcome)),
            None => outlet.settle(key, delivered.settled(outcome, std::mem::replace(&mut continues, true))),
        };
        let known = if multiple { unacked.take_up_to(tag, &mut one) } else { unacked.take(tag, &mut one) };
        if known { Ok(()) } else { Err(AmqpError::precondition_failed(format!("unknown delivery tag {tag}"))) }
    }

    pub(super) fn basic_recover(
        &mut self,
        number: u16,
        requeue: bool,
        answered: bool,
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) -> Result<(), AmqpError> {
        if !requeue {
            return Err(AmqpError::not_implemented("requeue=false"));
        }
        let channel = self.channel(number);
        let key = channel.key;
        let mut continues = false;
        channel.unacked.take_all(&mut |_, delivered: Delivered| {
            outlet.settle(key, delivered.settled(SettleOutcome::Requeued, std::mem::replace(&mut continues, true)));
        });
        if answered {
            let ok = basic::AMQPMethod::RecoverOk(basic::RecoverOk {});
            write_method(&mut out.bytes, number, AMQPClass::Basic(ok));
        }
        Ok(())
    }

    pub(super) fn basic_qos(
        &mut self,
        number: u16,
        qos: BasicQos,
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) -> Result<(), AmqpError> {
        if qos.prefetch_size != 0 {
            return Err(AmqpError::not_implemented(format!("prefetch_size!=0 ({})", qos.prefetch_size)));
        }
        self.channel(number).set_prefetch(qos, outlet);
        let ok = basic::AMQPMethod::QosOk(basic::QosOk {});
        write_method(&mut out.bytes, number, AMQPClass::Basic(ok));
        Ok(())
    }
}

impl Channel {
    /// The queue that a method names, or the last declared one where it names none.
    pub(super) fn queue_or_last(&self, queue: &str) -> Result<Name, AmqpError> {
        if !queue.is_empty() {
            return Ok(Name::from(queue));
        }
        self.last_queue.clone().ok_or_else(|| AmqpError::not_found("no previously declared queue"))
    }

    /// Tells the queues what was flushed, so that they may send more.
    pub(super) fn report_written(&mut self, out: &mut Output) {
        self.report_noted = false;
        let (channel, from) = (self.key, out.effects.len());
        for (consumer, entry) in &mut self.consumers {
            let Some(queue) = entry.queue.filter(|_| entry.unreported > 0) else { continue };
            let count = std::mem::take(&mut entry.unreported);
            let bytes = std::mem::take(&mut entry.unreported_bytes);
            out.effects.push(Effect::Written { channel, consumer: *consumer, queue, count, bytes });
        }
        // The same order at every run: that of the map differs.
        out.effects[from..].sort_unstable_by_key(|effect| match effect {
            Effect::Written { consumer, .. } => Some(*consumer),
            _ => None,
        });
    }
}

fn negative(requeue: bool) -> SettleOutcome {
    if requeue { SettleOutcome::Requeued } else { SettleOutcome::Rejected }
}

pub(super) fn write_cancel_ok(number: u16, tag: &Name, nowait: bool, out: &mut Output) {
    if !nowait {
        let ok = basic::CancelOk { consumer_tag: tag.as_str().into() };
        write_method(&mut out.bytes, number, AMQPClass::Basic(basic::AMQPMethod::CancelOk(ok)));
    }
}
