//! What one connection adds to the broker's numbers.
//!
//! The connection counts in plain numbers and adds them up once per read or pass: no message touches what all threads share.

use crate::broker::{Counters, Publishes};
use crate::server::memory::Held;
use crate::server::shared::{Shared, SizesOfRead};
use crate::session::{Output, Session, Tally};
use std::sync::atomic::{AtomicI64, Ordering};

/// What has been counted of a connection, and how much of it the broker's numbers have.
#[derive(Debug, Default)]
pub(super) struct ConnectionMetrics {
    /// Of this read.
    sizes: SizesOfRead,
    /// Of this read.
    published: Publishes,
    /// Already added.
    channels: ChannelTotals,
    /// Already added.
    tally: Tally,
    /// Already added.
    held: Held,
}

/// Channels of a connection, from its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ChannelTotals {
    opened: u64,
    closed: u64,
}

impl ConnectionMetrics {
    /// A message went to so many queues.
    pub(super) fn note_publish(&mut self, body_bytes: usize, mandatory: bool, queues: u32) {
        self.sizes.record(body_bytes);
        self.published.note(mandatory, queues);
    }

    /// The message is to be confirmed, or not.
    pub(super) fn note_promise(&mut self, to_be_confirmed: bool) {
        self.published.received_confirm += u64::from(to_be_confirmed);
    }

    /// Adds what one read published.
    pub(super) fn fold_publishes(&mut self, shared: &Shared) {
        shared.sizes.fold(&mut self.sizes);
        shared.broker.counters().fold_publishes(&mut self.published);
    }

    /// Adds what the session has done since the last call; returns its tally.
    pub(super) fn fold(&mut self, shared: &Shared, session: &mut Session, out: &mut Output) -> Tally {
        let counters = shared.broker.counters();
        let gauges = &shared.gauges;
        let opened = session.channels_opened();
        let channels = ChannelTotals { opened, closed: opened - session.channel_count() as u64 };
        if channels != self.channels {
            let (opened, closed) = (channels.opened - self.channels.opened, channels.closed - self.channels.closed);
            Counters::add(&counters.channels_opened, opened);
            Counters::add(&counters.channels_closed, closed);
            add(&gauges.channels, opened.cast_signed() - closed.cast_signed());
            self.channels = channels;
        }
        let tally = session.tally();
        let change = tally - self.tally;
        self.tally = tally;
        add(&gauges.publishers, change.publishers);
        add(&gauges.unconfirmed, change.unconfirmed);
        add(&gauges.uncommitted, change.uncommitted);
        add(&gauges.acks_uncommitted, change.acks_uncommitted);
        Counters::add(&counters.confirmed, std::mem::take(&mut out.confirmed));
        shared.broker.refusals().fold(&mut out.refusals);
        tally
    }

    /// The connection holds so much memory now.
    pub(super) fn fold_memory(&mut self, shared: &Shared, held: Held) {
        shared.memory.fold(&mut self.held, held);
    }

    /// The memory that the broker's numbers have of the connection.
    pub(super) fn held(&self) -> Held {
        self.held
    }
}

fn add(gauge: &AtomicI64, change: i64) {
    if change != 0 {
        gauge.fetch_add(change, Ordering::Relaxed);
    }
}
