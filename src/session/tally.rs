//! How many publishes and settlements of a connection are under way; for gauges.

use super::basic_methods::ConsumerEntry;
use super::channel::Channel;
use super::machine::Session;
use crate::model::{ConsumerSlot, Name};
use std::ops::{AddAssign, Sub, SubAssign};

/// Counts of one channel, of a connection, or of the difference to an earlier count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
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
    /// Bytes of what else is kept for channels, consumers and pending confirms.
    pub kept_bytes: i64,
}

/// What a consumer takes beside its two places in tables, about: its tag, and the beginning of its deliveries.
const CONSUMER_BYTES: usize = size_of::<ConsumerEntry>() + 2 * size_of::<(Name, ConsumerSlot)>() + 64;

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.publishers += other.publishers;
        self.unconfirmed += other.unconfirmed;
        self.uncommitted += other.uncommitted;
        self.acks_uncommitted += other.acks_uncommitted;
        self.unfinished_bytes += other.unfinished_bytes;
        self.kept_bytes += other.kept_bytes;
    }
}

impl Sub for Tally {
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

impl SubAssign for Tally {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Channel {
    fn tally(&self) -> Tally {
        let len = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
        let transaction = self.transaction.as_ref();
        Tally {
            publishers: self.has_published.into(),
            unconfirmed: len(self.confirms.waiting()),
            uncommitted: transaction.map_or(0, |transaction| len(transaction.publishes.len())),
            acks_uncommitted: transaction.map_or(0, |transaction| len(transaction.settlements.len())),
            unfinished_bytes: len(self.unfinished_bytes()),
            kept_bytes: len(size_of::<Self>()
                + self.consumers.capacity() * CONSUMER_BYTES
                + self.confirms.held_bytes()),
        }
    }
}

impl Session {
    /// Notes that a channel's counts may have changed in this pass.
    pub(super) fn touch(&mut self, number: u16) {
        if let Some(channel) = self.channels.get_mut(number)
            && !channel.touched
        {
            channel.touched = true;
            self.touched.push(number);
        }
    }

    /// A channel goes: so do its counts.
    pub(super) fn untally(&mut self, channel: &Channel) {
        self.tally -= channel.tallied;
    }

    /// The connection's counts; call it at the end of a pass.
    pub(crate) fn tally(&mut self) -> Tally {
        while let Some(number) = self.touched.pop() {
            if let Some(channel) = self.channels.get_mut(number) {
                channel.touched = false;
                let now = channel.tally();
                self.tally += now - channel.tallied;
                channel.tallied = now;
            }
        }
        self.tally
    }
}
