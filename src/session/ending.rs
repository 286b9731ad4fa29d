//! Why and how a connection ends: the plain types. `closing` acts on them.

use crate::model::AmqpError;
use crate::wire::method::MethodId;

/// Why a connection ended, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client closed it with this code and text.
    ByClient(u16, String),
    /// The broker closed it with this error.
    ByBroker(String),
    /// No byte came from the client for two heartbeats or longer.
    MissedHeartbeats,
    /// The handshake failed, or was not finished in time.
    Handshake(String),
}

/// How a connection closes once its channels have drained.
#[derive(Clone, Debug)]
pub(super) enum Close {
    /// The client asked for it.
    ByClient,
    /// The client has closed its end of the socket: it sends nothing more, but may still read.
    HungUp,
    /// The broker sends connection.close.
    Error {
        error: Box<AmqpError>,
        method: Option<MethodId>,
        origin: ErrorOrigin,
        /// The input has lost its frame boundaries: nothing that follows can be read, not even close-ok.
        is_unreadable: bool,
    },
}

/// Where an error occurred, for the log. A close does not always name it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ErrorOrigin {
    /// The channel that the frame came on.
    pub(super) channel: u16,
    /// The method's AMQP name; empty when no method caused the error.
    pub(super) operation: &'static str,
}

impl ErrorOrigin {
    pub(super) fn on_channel(channel: u16, method: Option<MethodId>) -> Self {
        Self { channel, operation: method.map_or("", MethodId::name) }
    }
}
