//! Errors that close channels and connections: counted by reply code and logged.

use crate::model::{ReplyCode, Scope};
use crate::session::Failure;
use std::sync::atomic::{AtomicU64, Ordering};

/// Errors so far, each by the place of its code in `ReplyCode::ERRORS`.
#[derive(Debug, Default)]
pub(super) struct Errors {
    channel: [AtomicU64; ReplyCode::ERRORS.len()],
    connection: [AtomicU64; ReplyCode::ERRORS.len()],
}

impl Errors {
    fn of(&self, scope: Scope) -> &[AtomicU64; ReplyCode::ERRORS.len()] {
        match scope {
            Scope::Channel => &self.channel,
            Scope::Connection => &self.connection,
        }
    }

    pub(super) fn count(&self, scope: Scope, code: ReplyCode) {
        if let Some(at) = ReplyCode::ERRORS.iter().position(|error| *error == code) {
            self.of(scope)[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// By the order of `ReplyCode::ERRORS`.
    #[cfg(feature = "metrics")]
    pub(super) fn counts(&self, scope: Scope) -> [u64; ReplyCode::ERRORS.len()] {
        self.of(scope).each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

/// Whose error it was.
pub(super) struct Culprit<'a> {
    pub(super) connection: u64,
    pub(super) client: std::net::SocketAddr,
    pub(super) name: &'a str,
    pub(super) user: &'a str,
    pub(super) vhost: &'a str,
}

/// Logs an error as RabbitMQ does: at once, with the client and the text that the client is sent.
pub(super) fn log(failure: &Failure, culprit: &Culprit<'_>) {
    let Culprit { connection, client, name, user, vhost } = culprit;
    let Failure { channel, operation, error } = failure;
    let (code, text) = (error.code.number(), error.reply_text());
    match error.scope {
        Scope::Channel => {
            tracing::warn!(connection, %client, name, user, vhost, channel, operation, code, text, "channel error");
        }
        // The broker or its operator wants it so.
        Scope::Connection if error.code == ReplyCode::ConnectionForced => {
            tracing::info!(connection, %client, name, user, vhost, code, text, "connection forced to close");
        }
        Scope::Connection => {
            tracing::warn!(connection, %client, name, user, vhost, channel, operation, code, text, "connection error");
        }
    }
}
