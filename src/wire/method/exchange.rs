//! The exchange class.

use amq_protocol::protocol::exchange::AMQPMethod;

use super::ClientMethod;
use super::layout::Field::{Bits, Short, Shortstr, Table};
use super::layout::{Layout, layout};

pub(super) const CLASS_ID: u16 = 40;

pub(super) const LAYOUTS: &[Layout] = &[
    layout(10, &[Short, Shortstr, Shortstr, Bits, Table]),
    layout(11, &[]),
    layout(20, &[Short, Shortstr, Bits]),
    layout(21, &[]),
    layout(30, &[Short, Shortstr, Shortstr, Shortstr, Bits, Table]),
    layout(31, &[]),
    layout(40, &[Short, Shortstr, Shortstr, Shortstr, Bits, Table]),
    // Not 41: RabbitMQ's numbering.
    layout(51, &[]),
];

pub(super) fn client_method<'a>(method: AMQPMethod) -> Option<ClientMethod<'a>> {
    Some(match method {
        AMQPMethod::Declare(declare) => ClientMethod::ExchangeDeclare(declare),
        AMQPMethod::Delete(delete) => ClientMethod::ExchangeDelete(delete),
        AMQPMethod::Bind(bind) => ClientMethod::ExchangeBind(bind),
        AMQPMethod::Unbind(unbind) => ClientMethod::ExchangeUnbind(unbind),
        _ => return None,
    })
}
