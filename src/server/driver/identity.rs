//! A connection in log lines: its client, user and vhost, how it ended, and the errors that closed it or its channels.

use crate::model::{ReplyCode, Scope};
use crate::session::{Ending, Failure};
use std::net::SocketAddr;

/// The connection that a log line is about. Before the login, user and vhost are the refused ones, or empty.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionIdentity<'a> {
    pub(super) connection: u64,
    pub(super) client: SocketAddr,
    /// The name that the client gave the connection; may be empty.
    pub(super) name: &'a str,
    pub(super) user: &'a str,
    pub(super) vhost: &'a str,
}

impl ConnectionIdentity<'_> {
    /// Logs that the connection has opened this vhost.
    pub(super) fn log_opened(&self, vhost: &str) {
        let Self { connection, client, name, user, .. } = self;
        tracing::info!(connection, %client, name, user, vhost, "connection opened");
    }

    /// Logs the end of the connection. A client that left before it logged in is most likely a health check, and is
    /// logged at `debug` only.
    pub(super) fn log_closed(&self, ending: Option<&Ending>, has_logged_in: bool) {
        let Self { connection, client, name, user, vhost } = self;
        let reason = match ending {
            Some(Ending::ByClient(code, text)) => format!("closed by the client: {code} {text}"),
            Some(Ending::ByBroker(text)) => format!("closed by the broker: {text}"),
            Some(Ending::MissedHeartbeats) => "missed heartbeats from the client".to_owned(),
            Some(Ending::Handshake(why)) => format!("handshake failed: {why}"),
            None => "the client closed the socket without a close".to_owned(),
        };
        match ending {
            None if !has_logged_in => tracing::debug!(connection, %client, reason, "connection closed"),
            // The client's program or its network may be at fault.
            None | Some(Ending::MissedHeartbeats) => {
                tracing::warn!(connection, %client, name, user, vhost, reason, "connection closed");
            }
            Some(_) => tracing::info!(connection, %client, name, user, vhost, reason, "connection closed"),
        }
    }

    /// Logs an error as RabbitMQ does: immediately, with the client and the text that is sent to the client.
    pub(super) fn log_failure(&self, failure: &Failure) {
        let Self { connection, client, name, user, vhost } = self;
        let Failure { channel, operation, error } = failure;
        let (code, text) = (error.code.number(), error.reply_text());
        match error.scope {
            Scope::Channel => {
                tracing::warn!(connection, %client, name, user, vhost, channel, operation, code, text, "channel error");
            }
            // The broker or its operator closes the connection on purpose.
            Scope::Connection if error.code == ReplyCode::ConnectionForced => {
                tracing::info!(connection, %client, name, user, vhost, code, text, "connection forced to close");
            }
            Scope::Connection => {
                tracing::warn!(connection, %client, name, user, vhost, channel, operation, code, text, "connection error");
            }
        }
    }
}
