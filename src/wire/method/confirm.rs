//! The confirm class.

use amq_protocol::protocol::confirm::AMQPMethod;

use super::client_method::ClientMethod;
use super::layout::Field::Bits;
use super::layout::{Layout, layout};

pub(super) const CLASS_ID: u16 = 85;

pub(super) const LAYOUTS: &[Layout] = &[layout(10, &[Bits]), layout(11, &[])];

pub(super) fn client_method<'a>(method: AMQPMethod) -> Option<ClientMethod<'a>> {
    match method {
        AMQPMethod::Select(select) => Some(ClientMethod::ConfirmSelect(select)),
        AMQPMethod::SelectOk(_) => None,
    }
}
