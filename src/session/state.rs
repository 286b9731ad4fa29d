//! The states of a connection, from its protocol header to its closed socket.

use super::ending::Close;
use crate::model::{Monotonic, Name};

/// The state of a connection.
#[derive(Debug)]
pub(super) enum State {
    /// From the protocol header to connection.open.
    Handshake(Handshake),
    /// The vhost is open: channels may be opened and used.
    Running,
    /// Nothing more is read. Channels carry out what the client sent before; then this close follows.
    Draining {
        /// How the connection closes after that.
        close: Close,
        /// When waiting for the channels ends.
        until: Monotonic,
    },
    /// The client asked to close; its exclusive queues are being deleted.
    Ending,
    /// The client's close was answered. The client is left to close the socket; a second close is answered again.
    Ended {
        /// When the broker closes the socket itself.
        until: Monotonic,
    },
    /// connection.close was sent; only close-ok matters.
    Closing {
        /// When waiting for close-ok ends.
        until: Monotonic,
    },
    /// The connection fails without any method being sent; the socket is closed after a delay.
    SilentClose {
        /// When the socket is closed.
        at: Monotonic,
    },
    /// The socket is to be closed.
    Closed,
}

/// The steps of the handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Handshake {
    /// The eight bytes of the protocol header are awaited.
    Header,
    /// connection.start was sent.
    Starting,
    /// The login is being checked, with this mechanism.
    Authenticating(String),
    /// connection.tune was sent.
    Tuning,
    /// tune-ok has come.
    Opening,
    /// The vhost is being opened.
    OpeningVhost(Name),
}
