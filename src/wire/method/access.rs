//! The access class.

use amq_protocol::protocol::access::AMQPMethod;

use super::client_method::ClientMethod;
use super::layout::Field::{Bits, Short, Shortstr};
use super::layout::{Layout, layout};

pub(super) const CLASS_ID: u16 = 30;

pub(super) const LAYOUTS: &[Layout] = &[layout(10, &[Shortstr, Bits]), layout(11, &[Short])];

pub(super) fn client_method<'a>(method: AMQPMethod) -> Option<ClientMethod<'a>> {
    match method {
        AMQPMethod::Request(request) => Some(ClientMethod::AccessRequest(request)),
        AMQPMethod::RequestOk(_) => None,
    }
}
