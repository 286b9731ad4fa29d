//! The methods of class queue.

use super::channel::Channel;
use super::effect::Output;
use super::exchange_methods::clean_name;
use super::machine::Session;
use super::requests::RequestKind;
use crate::model::command::{BindTo, QueueDeclare, QueueDelete};
use crate::model::{AmqpError, Command, Name};
use crate::wire::method::{MethodId, WithTable};
use amq_protocol::protocol::queue;

impl Session {
    pub(super) fn queue_declare(
        &mut self,
        number: u16,
        id: MethodId,
        WithTable { method: declare, table }: WithTable<'_, queue::Declare>,
        out: &mut Output,
    ) -> Result<(), AmqpError> {
        let command = Command::QueueDeclare(QueueDeclare {
            queue: clean_name(declare.queue.as_str()),
            passive: declare.passive,
            durable: declare.durable,
            exclusive: declare.exclusive,
            auto_delete: declare.auto_delete,
            arguments: table.into(),
        });
        self.channel(number).request(id, RequestKind::Topology { nowait: declare.nowait }, command, out);
        Ok(())
    }

    pub(super) fn queue_bind(
        &mut self,
        number: u16,
        id: MethodId,
        WithTable { method: bind, table }: WithTable<'_, queue::Bind>,
        out: &mut Output,
    ) -> Result<(), AmqpError> {
        let channel = self.channel(number);
        let (destination, routing_key) = channel.queue_and_key(bind.queue.as_str(), bind.routing_key.as_str())?;
        let source = clean_name(bind.exchange.as_str());
        let arguments = table.into();
        let command = Command::QueueBind(BindTo { source, destination, routing_key, arguments });
        channel.request(id, RequestKind::Topology { nowait: bind.nowait }, command, out);
        Ok(())
    }

    pub(super) fn queue_unbind(
        &mut self,
        number: u16,
        id: MethodId,
        WithTable { method: unbind, table }: WithTable<'_, queue::Unbind>,
        out: &mut Output,
    ) -> Result<(), AmqpError> {
        let channel = self.channel(number);
        let (destination, routing_key) = channel.queue_and_key(unbind.queue.as_str(), unbind.routing_key.as_str())?;
        let source = clean_name(unbind.exchange.as_str());
        let arguments = table.into();
        let command = Command::QueueUnbind(BindTo { source, destination, routing_key, arguments });
        channel.request(id, RequestKind::Topology { nowait: false }, command, out);
        Ok(())
    }

    pub(super) fn queue_purge(
        &mut self,
        number: u16,
        id: MethodId,
        purge: &queue::Purge,
        out: &mut Output,
    ) -> Result<(), AmqpError> {
        let channel = self.channel(number);
        let queue = channel.queue_or_last(purge.queue.as_str())?;
        channel.request(id, RequestKind::Topology { nowait: purge.nowait }, Command::QueuePurge { queue }, out);
        Ok(())
    }

    pub(super) fn queue_delete(
        &mut self,
        number: u16,
        id: MethodId,
        delete: &queue::Delete,
        out: &mut Output,
    ) -> Result<(), AmqpError> {
        let channel = self.channel(number);
        let queue = channel.queue_or_last(clean_name(delete.queue.as_str()).as_str())?;
        let delete_queue = QueueDelete { queue, if_unused: delete.if_unused, if_empty: delete.if_empty };
        let kind = RequestKind::Topology { nowait: delete.nowait };
        channel.request(id, kind, Command::QueueDelete(delete_queue), out);
        Ok(())
    }
}

impl Channel {
    /// The queue and the key of a binding. If the method names neither, both are the name of the queue declared last.
    fn queue_and_key(&self, queue: &str, routing_key: &str) -> Result<(Name, Name), AmqpError> {
        let named = self.queue_or_last(clean_name(queue).as_str())?;
        let key = if queue.is_empty() && routing_key.is_empty() { named.clone() } else { Name::from(routing_key) };
        Ok((named, key))
    }
}
