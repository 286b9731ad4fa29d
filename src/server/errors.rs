//! Counts the errors that close channels and connections, by reply code.

use crate::model::{ReplyCode, Scope};
use std::sync::atomic::{AtomicU64, Ordering};

/// Errors since the start, indexed by the position of their code in `ReplyCode::ERRORS`.
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

    /// The counts, in the order of `ReplyCode::ERRORS`.
    #[cfg(feature = "metrics")]
    pub(super) fn counts(&self, scope: Scope) -> [u64; ReplyCode::ERRORS.len()] {
        self.of(scope).each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}
