//! The methods of class basic except basic.publish, and deliveries.

use super::channel::Channel;
use super::effect::{Effect, Output};
use super::machine::Session;
use super::outlet::Outlet;
use super::requests::RequestKind;
use super::unacked::UnackedDelivery;
use crate::model::command::BasicConsume;
use crate::model::{AmqpError, ChannelKey, Command, ConsumerSlot, Delivery, Name, NamedLimit, SettleOutcome};
use crate::wire::method::{BasicAck, BasicNack, BasicQos, BasicReject, MethodId, WithTable};
use crate::wire::writer::{ConsumerPrefix, write_deliver, write_method};
use amq_protocol::protocol::{AMQPClass, basic};

/// The pseudo-queue of direct reply-to.
pub(super) const REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// Begins the tags that the broker makes up.
const GENERATED_TAG: &str = "amq.ctag-";

impl Session {
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
        if channel.consumers.has_tag(&tag) {
            return Err(AmqpError::not_allowed(format!("attempt to reuse consumer tag '{tag}'")));
        }
        let consumer = channel.consumers.add(&tag, ConsumerPrefix::new(number, tag.as_bytes()));
        let command = Command::BasicConsume(BasicConsume {
            queue,
            consumer,
            consumer_tag: tag,
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            prefetch: channel.prefetch.per_consumer(),
            arguments: table.into(),
        });
        let kind = RequestKind::Consume { consumer, nowait: consume.nowait };
        channel.request(id, kind, command, out);
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
        match channel.consumers.find(&tag) {
            Some((consumer, queue)) => {
                let kind = RequestKind::Cancel { tag, nowait: cancel.nowait };
                channel.request(id, kind, Command::BasicCancel { queue, consumer }, out);
            }
            None => write_cancel_ok(number, &tag, cancel.nowait, out),
        }
        Ok(())
    }

    /// A queue ended, and its consumer with it.
    pub(super) fn consumer_cancelled(&mut self, key: ChannelKey, consumer: ConsumerSlot, out: &mut Output) {
        let notify = self.client.wants_cancel_notify;
        let Some(channel) = self.live(key) else { return };
        if channel.hold_cancel(consumer) {
            return;
        }
        let Some(entry) = channel.consumers.remove(consumer) else { return };
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
        channel.request(id, RequestKind::Get, Command::BasicGet { queue, no_ack: get.no_ack }, out);
        self.backpressure.begin_get(self.settings.gets_in_flight_max);
        Ok(())
    }

    /// A delivery for a consumer: written, or given back to its queue when the consumer is gone.
    pub(super) fn deliver(&mut self, delivery: &Delivery, outlet: &mut dyn Outlet, out: &mut Output) {
        let key = delivery.channel;
        if let Some(channel) = self.channels.get_mut(key.number)
            && channel.is_live(key)
            && let Some(entry) = channel.consumers.get_mut(delivery.consumer)
        {
            let (tag, content) = (channel.unacked.next_tag(), delivery.message.content());
            write_deliver(&mut out.bytes, &entry.prefix, tag, delivery.redelivered, content, self.tuning.payload_max);
            entry.unreported += 1;
            entry.unreported_bytes += content.body.len() as u64;
            let limit = channel.prefetch.shared().filter(|_| delivery.lend.is_some());
            if limit.is_some() && limit != delivery.permit {
                outlet.count_delivery(key);
            }
            channel.unacked.note(tag, delivery, limit.is_some());
            if !channel.listings.to_report {
                channel.listings.to_report = true;
                self.due.to_report.push(key.number);
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
        let mut one = |tag: u64, delivered: UnackedDelivery| match transaction {
            Some(transaction) => transaction.settlements.push((tag, delivered, outcome)),
            None => outlet.settle(key, delivered.settlement(outcome, std::mem::replace(&mut continues, true))),
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
        channel.unacked.take_all(&mut |_, delivered: UnackedDelivery| {
            outlet.settle(key, delivered.settlement(SettleOutcome::Requeued, std::mem::replace(&mut continues, true)));
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

fn negative(requeue: bool) -> SettleOutcome {
    if requeue { SettleOutcome::Requeued } else { SettleOutcome::Rejected }
}

pub(super) fn write_cancel_ok(number: u16, tag: &Name, nowait: bool, out: &mut Output) {
    if !nowait {
        let ok = basic::CancelOk { consumer_tag: tag.as_str().into() };
        write_method(&mut out.bytes, number, AMQPClass::Basic(basic::AMQPMethod::CancelOk(ok)));
    }
}
