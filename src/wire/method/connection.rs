//! The connection class.

use amq_protocol::protocol::connection::AMQPMethod;

use super::client_method::{ClientMethod, WithTable};
use super::layout::Field::{Bits, Long, Longstr, Octet, Short, Shortstr, Table};
use super::layout::{Layout, layout};
use crate::wire::table;

pub(super) const CLASS_ID: u16 = 10;

pub(super) const LAYOUTS: &[Layout] = &[
    layout(10, &[Octet, Octet, Table, Longstr, Longstr]),
    layout(11, &[Table, Shortstr, Longstr, Shortstr]),
    layout(20, &[Longstr]),
    layout(21, &[Longstr]),
    layout(30, &[Short, Long, Short]),
    layout(31, &[Short, Long, Short]),
    layout(40, &[Shortstr, Shortstr, Bits]),
    layout(41, &[Shortstr]),
    layout(50, &[Short, Shortstr, Short, Short]),
    layout(51, &[]),
    layout(60, &[Shortstr]),
    layout(61, &[]),
    layout(70, &[Longstr, Shortstr]),
    layout(71, &[]),
];

pub(super) fn client_method(method: AMQPMethod, table: table::Table<'_>) -> Option<ClientMethod<'_>> {
    Some(match method {
        AMQPMethod::StartOk(method) => ClientMethod::ConnectionStartOk(WithTable { method, table }),
        AMQPMethod::SecureOk(secure_ok) => ClientMethod::ConnectionSecureOk(secure_ok),
        AMQPMethod::TuneOk(tune_ok) => ClientMethod::ConnectionTuneOk(tune_ok),
        AMQPMethod::Open(open) => ClientMethod::ConnectionOpen(open),
        AMQPMethod::Close(close) => ClientMethod::ConnectionClose(close),
        AMQPMethod::CloseOk(_) => ClientMethod::ConnectionCloseOk,
        AMQPMethod::UpdateSecret(update_secret) => ClientMethod::ConnectionUpdateSecret(update_secret),
        _ => return None,
    })
}
