//! One connection's part in the broker's counters and gauges.
//!
//! The connection counts in plain numbers, and adds them to the shared ones once per read or pass. So no message
//! touches memory that threads share.

use crate::broker::{Counters, Gauges, Link, Publishes, Traffic};
use crate::server::memory::ConnectionMemory;
use crate::server::shared::{ReadSizes, Shared};
use crate::session::{Output, Session, SessionMetrics};

/// The counts of a connection, and the part of them that the broker's numbers already include.
#[derive(Debug, Default)]
pub(super) struct ConnectionMetrics {
    /// Body sizes of this read's messages.
    sizes: ReadSizes,
    /// Publishes of this read.
    published: Publishes,
    /// Traffic since the last `fold`, without channels.
    traffic: Traffic,
    /// Opened channels that the broker's numbers include.
    channels_opened: u64,
    /// Closed channels that the broker's numbers include.
    channels_closed: u64,
    /// The session's metrics as the broker's numbers include them.
    session: SessionMetrics,
    /// The connection's memory as the broker's sum includes it.
    memory: ConnectionMemory,
}

impl ConnectionMetrics {
    /// Counts a message that went to `queues` queues.
    pub(super) fn note_publish(&mut self, body_bytes: usize, mandatory: bool, queues: u32) {
        self.sizes.record(body_bytes);
        self.published.note(mandatory, queues);
    }

    /// Counts the message as one to confirm, if it is one.
    pub(super) fn note_promise(&mut self, to_be_confirmed: bool) {
        self.published.received_confirm += u64::from(to_be_confirmed);
    }

    /// Counts a read from the socket.
    pub(super) fn note_read(&mut self, bytes: usize) {
        self.traffic.reads += 1;
        self.traffic.bytes_in += bytes as u64;
    }

    /// Counts a write to the socket.
    pub(super) fn note_write(&mut self, bytes: usize) {
        self.traffic.writes += 1;
        self.traffic.bytes_out += bytes as u64;
    }

    /// Adds the publishes of one read to the broker's numbers.
    pub(super) fn fold_publishes(&mut self, shared: &Shared) {
        shared.sizes.fold(&mut self.sizes);
        self.traffic.published += self.published.received;
        shared.broker.counters().fold_publishes(&mut self.published);
    }

    /// Adds everything since the last call to the broker's numbers, and returns the session's metrics. `link` is `Some`
    /// once the connection has opened a vhost.
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
        let now = session.metrics();
        let change = now - self.session;
        self.session = now;
        Gauges::add(&gauges.publishers, change.publishers);
        Gauges::add(&gauges.unconfirmed, change.unconfirmed);
        Gauges::add(&gauges.uncommitted, change.uncommitted);
        Gauges::add(&gauges.acks_uncommitted, change.acks_uncommitted);
        shared.broker.refusals().fold(&mut out.refusals);
        now
    }

    /// Updates the broker's sum with the memory that the connection uses now.
    pub(super) fn fold_memory(&mut self, shared: &Shared, memory: ConnectionMemory) {
        shared.memory.fold(&mut self.memory, memory);
    }

    /// The connection's memory as the broker's sum includes it.
    pub(super) fn memory(&self) -> ConnectionMemory {
        self.memory
    }
}
