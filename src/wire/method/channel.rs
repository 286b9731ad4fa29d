//! The channel class.

use amq_protocol::protocol::channel::AMQPMethod;

use super::client_method::ClientMethod;
use super::layout::Field::{Bits, Longstr, Short, Shortstr};
use super::layout::{Layout, layout};

pub(super) const CLASS_ID: u16 = 20;

pub(super) const LAYOUTS: &[Layout] = &[
    layout(10, &[Shortstr]),
    layout(11, &[Longstr]),
    layout(20, &[Bits]),
    layout(21, &[Bits]),
    layout(40, &[Short, Shortstr, Short, Short]),
    layout(41, &[]),
];

/// flow-ok is not accepted: the broker never sends flow, and RabbitMQ answers it with 503.
pub(super) fn client_method<'a>(method: AMQPMethod) -> Option<ClientMethod<'a>> {
    Some(match method {
        AMQPMethod::Open(_) => ClientMethod::ChannelOpen,
        AMQPMethod::Flow(flow) => ClientMethod::ChannelFlow(flow),
        AMQPMethod::Close(close) => ClientMethod::ChannelClose(close),
        AMQPMethod::CloseOk(_) => ClientMethod::ChannelCloseOk,
        _ => return None,
    })
}
