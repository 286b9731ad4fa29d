//! The exchange class.

use amq_protocol::protocol::exchange::AMQPMethod;

use super::client_method::{ClientMethod, WithTable};
use super::layout::Field::{Bits, Short, Shortstr, Table};
use super::layout::{Layout, layout};
use crate::wire::table;

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

pub(super) fn client_method(method: AMQPMethod, table: table::Table<'_>) -> Option<ClientMethod<'_>> {
    Some(match method {
        AMQPMethod::Declare(method) => ClientMethod::ExchangeDeclare(WithTable { method, table }),
        AMQPMethod::Delete(delete) => ClientMethod::ExchangeDelete(delete),
        AMQPMethod::Bind(method) => ClientMethod::ExchangeBind(WithTable { method, table }),
        AMQPMethod::Unbind(method) => ClientMethod::ExchangeUnbind(WithTable { method, table }),
        _ => return None,
    })
}
