//! What one connection adds to the broker's numbers.
//!
//! The connection counts in plain numbers and adds them up once per read or pass: no message touches what all threads share.

use crate::broker::{Counters, Gauges, Link, Publishes, Traffic};
use crate::server::memory::Held;
use crate::server::shared::{Shared, SizesOfRead};
use crate::session::{Output, Session, SessionMetrics};

/// What has been counted of a connection, and how much of it the broker's numbers have.
#[derive(Debug, Default)]
pub(super) struct ConnectionMetrics {
    /// Of this read.
    sizes: SizesOfRead,
    /// Of this read.
    published: Publishes,
    /// Since the last fold, channels excepted.
    traffic: Traffic,
    /// Already added.
    channels_opened: u64,
    /// Already added.
    channels_closed: u64,
    /// Already added.
    tally: SessionMetrics,
    /// Already added.
    held: Held,
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

    /// The socket was read.
    pub(super) fn note_read(&mut self, bytes: usize) {
        self.traffic.reads += 1;
        self.traffic.bytes_in += bytes as u64;
    }

    /// The socket was written to.
    pub(super) fn note_write(&mut self, bytes: usize) {
        self.traffic.writes += 1;
        self.traffic.bytes_out += bytes as u64;
    }

    /// Adds what one read published.
    pub(super) fn fold_publishes(&mut self, shared: &Shared) {
        shared.sizes.fold(&mut self.sizes);
        self.traffic.published += self.published.received;
        shared.broker.counters().fold_publishes(&mut self.published);
    }

    /// Adds what the connection has done since the last call; returns the session's tally. The link is that of a connection
    /// that has opened a vhost.
    pub(super) fn fold(
        &mut self,
        shared: &Shared,
        link: Option<&Link>,
        session: &mut Session,
        out: &mut Output,
    ) -> SessionMetrics {
        let counters = shared.broker.counters();
        let gauges = shared.broker.gauges();
        let opened = session.channels_opened();
        let closed = opened - session.channel_count() as u64;
        let mut done = std::mem::take(&mut self.traffic);
        done.channels_opened = opened - std::mem::replace(&mut self.channels_opened, opened);
        done.channels_closed = closed - std::mem::replace(&mut self.channels_closed, closed);
        done.confirmed = std::mem::take(&mut out.confirmed);
        Counters::add(&counters.reads, done.reads);
        Counters::add(&counters.bytes_in, done.bytes_in);
        Counters::add(&counters.writes, done.writes);
        Counters::add(&counters.bytes_out, done.bytes_out);
        Counters::add(&counters.confirmed, done.confirmed);
        Counters::add(&counters.channels_opened, done.channels_opened);
        Counters::add(&counters.channels_closed, done.channels_closed);
        Gauges::add(&gauges.channels, done.channels_opened.cast_signed() - done.channels_closed.cast_signed());
        if let Some(link) = link {
            link.peer().traffic().add(&done);
        }
        let tally = session.metrics();
        let change = tally - self.tally;
        self.tally = tally;
        Gauges::add(&gauges.publishers, change.publishers);
        Gauges::add(&gauges.unconfirmed, change.unconfirmed);
        Gauges::add(&gauges.uncommitted, change.uncommitted);
        Gauges::add(&gauges.acks_uncommitted, change.acks_uncommitted);
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
