//! The methods a client may send, read from a method frame's payload.
//!
//! Methods that come once per message are borrowed and parsed here; the others are checked field by field against their
//! layout, which bounds how deep their tables nest and names the fault, and are then parsed into amq-protocol's types.
//! Each class has a file with its layouts and its part of [`ClientMethod`].

mod access;
mod basic;
mod channel;
mod client_method;
mod confirm;
mod connection;
mod exchange;
mod layout;
mod names;
mod queue;
mod tx;

use std::fmt::{self, Display, Formatter};

use amq_protocol::protocol::{self as amqp, AMQPClass};
pub use client_method::{BasicAck, BasicNack, BasicPublish, BasicQos, BasicReject, ClientMethod, MethodId, WithTable};
use layout::{Fault, Layout};

use super::erlang::Octets;
use super::table::{Table, TableError};

/// A reply text is a shortstr, so not more bytes of undecodable fields are printed.
const PRINTED_BYTES_MAX: usize = 255;

/// A fault of a method frame's payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MethodError {
    /// The payload is too short to name a method.
    NoMethod,
    /// No class and method have these numbers.
    Unknown(MethodId),
    /// The fields do not fit the layout, or bytes are left over; 501 with this explanation.
    Malformed {
        /// The method.
        method: MethodId,
        /// The explanation: `cannot decode <<1,2,3>>`, cut to the length of a reply text.
        text: String,
    },
    /// A shortstr is not UTF-8; 501.
    NotUtf8(MethodId),
    /// An argument table cannot be read.
    Table {
        /// The method.
        method: MethodId,
        /// The fault of the table.
        error: TableError,
    },
}

impl MethodError {
    /// The method that the close names, if the payload names one.
    #[must_use]
    pub const fn method(&self) -> Option<MethodId> {
        match self {
            Self::NoMethod => None,
            Self::Unknown(method)
            | Self::Malformed { method, .. }
            | Self::NotUtf8(method)
            | Self::Table { method, .. } => Some(*method),
        }
    }
}

/// RabbitMQ's explanation, if it has one: the reply text after `FRAME_ERROR - `.
impl Display for MethodError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMethod => f.write_str("unknown_frame"),
            Self::Unknown(MethodId { class_id, method_id }) => write!(f, "unknown method {class_id}.{method_id}"),
            Self::Malformed { text, .. } => f.write_str(text),
            Self::NotUtf8(_) => f.write_str("Malformed UTF-8 in shortstr"),
            Self::Table { error, .. } => error.fmt(f),
        }
    }
}

impl std::error::Error for MethodError {}

impl<'a> ClientMethod<'a> {
    /// Reads a method frame's payload, all of it.
    ///
    /// # Errors
    /// See [`MethodError`].
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Self, MethodError> {
        let method = MethodId::of(payload).ok_or(MethodError::NoMethod)?;
        let fields = payload.get(4..).unwrap_or_default();
        if method.class_id == basic::CLASS_ID
            && let Some(parsed) = basic::parse_borrowed(method.method_id, fields)
        {
            return parsed.ok_or_else(|| malformed(method, fields));
        }
        parse_owned(method, payload, fields)
    }
}

fn parse_owned<'a>(method: MethodId, payload: &'a [u8], fields: &'a [u8]) -> Result<ClientMethod<'a>, MethodError> {
    let layout = layouts(method.class_id)
        .iter()
        .find(|layout| layout.method_id == method.method_id)
        .ok_or(MethodError::Unknown(method))?;
    let table_at = layout.check(fields).map_err(|fault| match fault {
        Fault::Shape => malformed(method, fields),
        Fault::NotUtf8 => MethodError::NotUtf8(method),
        Fault::Table(error) => MethodError::Table { method, error },
    })?;
    // The table keeps its bytes; amq-protocol reads the other fields, with an empty table in its place.
    let table = table_at.clone().map_or(Table::default(), |at| Table::from_checked(&fields[at]));
    let without_table = table_at.filter(|at| !at.is_empty()).map(|at| {
        let (before, length) = (&payload[..payload.len() - fields.len() + at.start], [0; 4]);
        [&before[..before.len() - length.len()], &length, &fields[at.end..]].concat()
    });
    // The layout fits and the texts are UTF-8: amq-protocol finds no other fault.
    let (_, class) =
        amqp::parse_class(without_table.as_deref().unwrap_or(payload)).map_err(|_| malformed(method, fields))?;
    Ok(client_method(class, table).unwrap_or(ClientMethod::ServerOnly(method)))
}

fn layouts(class_id: u16) -> &'static [Layout] {
    match class_id {
        connection::CLASS_ID => connection::LAYOUTS,
        channel::CLASS_ID => channel::LAYOUTS,
        access::CLASS_ID => access::LAYOUTS,
        exchange::CLASS_ID => exchange::LAYOUTS,
        queue::CLASS_ID => queue::LAYOUTS,
        basic::CLASS_ID => basic::LAYOUTS,
        confirm::CLASS_ID => confirm::LAYOUTS,
        tx::CLASS_ID => tx::LAYOUTS,
        _ => &[],
    }
}

fn client_method(class: AMQPClass, table: Table<'_>) -> Option<ClientMethod<'_>> {
    match class {
        AMQPClass::Connection(method) => connection::client_method(method, table),
        AMQPClass::Channel(method) => channel::client_method(method),
        AMQPClass::Access(method) => access::client_method(method),
        AMQPClass::Exchange(method) => exchange::client_method(method, table),
        AMQPClass::Queue(method) => queue::client_method(method, table),
        AMQPClass::Basic(method) => basic::client_method(method, table),
        AMQPClass::Confirm(method) => confirm::client_method(method),
        AMQPClass::Tx(method) => tx::client_method(&method),
    }
}

#[cold]
fn malformed(method: MethodId, fields: &[u8]) -> MethodError {
    let printed = &fields[..fields.len().min(PRINTED_BYTES_MAX)];
    MethodError::Malformed { method, text: format!("cannot decode {}", Octets(printed)) }
}

#[cfg(test)]
mod tests;
