//! The tx class.

use amq_protocol::protocol::tx::AMQPMethod;

use super::client_method::ClientMethod;
use super::layout::{Layout, layout};

pub(super) const CLASS_ID: u16 = 90;

pub(super) const LAYOUTS: &[Layout] =
    &[layout(10, &[]), layout(11, &[]), layout(20, &[]), layout(21, &[]), layout(30, &[]), layout(31, &[])];

pub(super) fn client_method<'a>(method: &AMQPMethod) -> Option<ClientMethod<'a>> {
    Some(match method {
        AMQPMethod::Select(_) => ClientMethod::TxSelect,
        AMQPMethod::Commit(_) => ClientMethod::TxCommit,
        AMQPMethod::Rollback(_) => ClientMethod::TxRollback,
        _ => return None,
    })
}
