//! The methods of class exchange.

use super::effect::Output;
use super::machine::Session;
use super::requests::RequestKind;
use crate::model::command::{BindTo, ExchangeDeclare};
use crate::model::{AmqpError, Command, Name};
use crate::wire::method::{MethodId, WithTable};
use amq_protocol::protocol::exchange;

/// A name without its line ends, which declarations and bindings ignore.
pub(super) fn clean_name(name: &str) -> Name {
    if name.contains(['\r', '\n']) { Name::from(name.replace(['\r', '\n'], "")) } else { Name::from(name) }
}

impl Session {
    pub(super) fn exchange_declare(
        &mut self,
        number: u16,
        id: MethodId,
        WithTable { method: declare, table }: WithTable<'_, exchange::Declare>,
        out: &mut Output,
    ) -> Result<(), AmqpError> {
        let command = Command::ExchangeDeclare(ExchangeDeclare {
            exchange: clean_name(declare.exchange.as_str()),
            kind: Name::from(declare.kind.as_str()),
            passive: declare.passive,
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            arguments: table.into(),
        });
        self.channel(number).request(id, RequestKind::Topology { nowait: declare.nowait }, command, out);
        Ok(())
    }

    pub(super) fn exchange_delete(
        &mut self,
        number: u16,
        id: MethodId,
        delete: &exchange::Delete,
        out: &mut Output,
    ) -> Result<(), AmqpError> {
        let exchange = clean_name(delete.exchange.as_str());
        let command = Command::ExchangeDelete { exchange, if_unused: delete.if_unused };
        self.channel(number).request(id, RequestKind::Topology { nowait: delete.nowait }, command, out);
        Ok(())
    }

    pub(super) fn exchange_bind(
        &mut self,
        number: u16,
        id: MethodId,
        WithTable { method: bind, table }: WithTable<'_, exchange::Bind>,
        out: &mut Output,
    ) -> Result<(), AmqpError> {
        let command = Command::ExchangeBind(BindTo {
            source: clean_name(bind.source.as_str()),
            destination: clean_name(bind.destination.as_str()),
            routing_key: Name::from(bind.routing_key.as_str()),
            arguments: table.into(),
        });
        self.channel(number).request(id, RequestKind::Topology { nowait: bind.nowait }, command, out);
        Ok(())
    }

    pub(super) fn exchange_unbind(
        &mut self,
        number: u16,
        id: MethodId,
        WithTable { method: unbind, table }: WithTable<'_, exchange::Unbind>,
        out: &mut Output,
    ) -> Result<(), AmqpError> {
        let command = Command::ExchangeUnbind(BindTo {
            source: clean_name(unbind.source.as_str()),
            destination: clean_name(unbind.destination.as_str()),
            routing_key: Name::from(unbind.routing_key.as_str()),
            arguments: table.into(),
        });
        self.channel(number).request(id, RequestKind::Topology { nowait: unbind.nowait }, command, out);
        Ok(())
    }
}
