//! The queue class.

use amq_protocol::protocol::queue::AMQPMethod;

use super::client_method::{ClientMethod, WithTable};
use super::layout::Field::{Bits, Long, Short, Shortstr, Table};
use super::layout::{Layout, layout};
use crate::wire::table;

pub(super) const CLASS_ID: u16 = 50;

pub(super) const LAYOUTS: &[Layout] = &[
    layout(10, &[Short, Shortstr, Bits, Table]),
    layout(11, &[Shortstr, Long, Long]),
    layout(20, &[Short, Shortstr, Shortstr, Shortstr, Bits, Table]),
    layout(21, &[]),
    layout(30, &[Short, Shortstr, Bits]),
    layout(31, &[Long]),
    layout(40, &[Short, Shortstr, Bits]),
    layout(41, &[Long]),
    layout(50, &[Short, Shortstr, Shortstr, Shortstr, Table]),
    layout(51, &[]),
];

pub(super) fn client_method(method: AMQPMethod, table: table::Table<'_>) -> Option<ClientMethod<'_>> {
    Some(match method {
        AMQPMethod::Declare(method) => ClientMethod::QueueDeclare(WithTable { method, table }),
        AMQPMethod::Bind(method) => ClientMethod::QueueBind(WithTable { method, table }),
        AMQPMethod::Purge(purge) => ClientMethod::QueuePurge(purge),
        AMQPMethod::Delete(delete) => ClientMethod::QueueDelete(delete),
        AMQPMethod::Unbind(method) => ClientMethod::QueueUnbind(WithTable { method, table }),
        _ => return None,
    })
}
