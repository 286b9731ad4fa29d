//! How many publishes and settlements of a connection are not complete, and the memory they take.

use std::ops::{AddAssign, Sub, SubAssign};

/// Counts of one channel, of a connection, or of the difference to an earlier count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionMetrics {
    /// Open channels that have published.
    pub publishers: i64,
    /// Publishes that wait for a confirm.
    pub unconfirmed: i64,
    /// Publishes of open transactions.
    pub uncommitted: i64,
    /// Settlements of open transactions.
    pub acks_uncommitted: i64,
    /// Bytes of contents and transactions that are not complete.
    pub unfinished_bytes: i64,
    /// Bytes of everything else that is kept for channels, consumers and pending confirms.
    pub kept_bytes: i64,
}

impl AddAssign for SessionMetrics {
    fn add_assign(&mut self, other: Self) {
        self.publishers += other.publishers;
        self.unconfirmed += other.unconfirmed;
        self.uncommitted += other.uncommitted;
        self.acks_uncommitted += other.acks_uncommitted;
        self.unfinished_bytes += other.unfinished_bytes;
        self.kept_bytes += other.kept_bytes;
    }
}

impl Sub for SessionMetrics {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            publishers: self.publishers - other.publishers,
            unconfirmed: self.unconfirmed - other.unconfirmed,
            uncommitted: self.uncommitted - other.uncommitted,
            acks_uncommitted: self.acks_uncommitted - other.acks_uncommitted,
            unfinished_bytes: self.unfinished_bytes - other.unfinished_bytes,
            kept_bytes: self.kept_bytes - other.kept_bytes,
        }
    }
}

impl SubAssign for SessionMetrics {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}
