//! How many publishes and settlements of a connection are under way; for gauges.

use super::channel::Channel;
use super::machine::Session;
use std::ops::{AddAssign, Sub, SubAssign};

/// Counts of one channel, of a connection, or of the difference to an earlier count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Open channels that have published.
    pub publishers: i64,
    /// Publishes that wait for a confirm.
    pub unconfirmed: i64,
    /// Publishes of open transactions.
    pub uncommitted: i64,
    /// Settlements of open transactions.
    pub acks_uncommitted: i64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.publishers += other.publishers;
        self.unconfirmed += other.unconfirmed;
        self.uncommitted += other.uncommitted;
        self.acks_uncommitted += other.acks_uncommitted;
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
    pub fn tally(&mut self) -> Tally {
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
