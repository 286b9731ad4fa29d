//! The broker in numbers at one moment. Counters count since the process began and never fall.

use super::series::Labels;
use crate::model::{Refusals, ReplyCode};
use std::time::Duration;

use super::bounds::{COMMIT_SECONDS_BOUNDS, MESSAGE_SIZE_BOUNDS};
use super::histogram::Histogram;
use super::process::Process;

/// Everything that a scrape shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// When the process began.
    pub start: Start,
    /// What the operating system says.
    pub process: Process,
    /// What is in force.
    pub alarms: Alarms,
    /// What clients take of memory.
    pub memory: Memory,
    /// What limits have refused.
    pub refusals: Refusals,
    /// Publishes over AMQP 0-9-1.
    pub publishing: Publishing,
    /// Deliveries from queues to AMQP 0-9-1 consumers.
    pub delivery: Delivery,
    /// Messages that died in queues with a dead-letter exchange.
    pub dead_lettered: Deaths,
    /// Messages that died in queues without one.
    pub discarded: Deaths,
    /// Connections.
    pub connections: Connections,
    /// Channels.
    pub channels: Channels,
    /// Errors that closed channels and connections.
    pub errors: Errors,
    /// The log, and the clients of the metrics listener.
    pub surroundings: Surroundings,
    /// Queues and what they hold.
    pub queues: Queues,
    /// The store.
    pub store: Store,
}

/// When the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Start {
    /// Seconds since the Unix epoch.
    pub seconds: f64,
    /// How long ago that is.
    pub uptime: Duration,
}

/// Alarms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alarms {
    /// Too much memory is in use: publishers are blocked.
    pub memory: bool,
    /// Too little disk is free: publishers are blocked.
    pub disk: bool,
    /// No file descriptor is left for a connection.
    pub file_descriptors: bool,
    /// Bytes that clients take of memory at which the alarm goes off.
    pub memory_limit_bytes: u64,
    /// Resident bytes of the process at which it does.
    pub resident_limit_bytes: u64,
    /// Bytes of free disk at which the alarm goes off.
    pub disk_limit_bytes: u64,
}

/// Bytes of memory that clients take; their sum is held against the limit of the alarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Queues and their messages.
    pub queues: u64,
    /// Contents and transactions that are not complete.
    pub unfinished: u64,
    /// Input and output of sockets.
    pub buffers: u64,
    /// Channels and what belongs to them.
    pub channels: u64,
    /// What waits for connections.
    pub inlets: u64,
    /// Exchanges, bindings, names.
    pub topology: u64,
    /// How often free memory was given back to the system.
    pub trims: u64,
}

/// Counters of publishes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Publishing {
    /// Messages published.
    pub received: u64,
    /// Of those, on channels in confirm mode.
    pub received_confirm: u64,
    /// Copies put into queues.
    pub routed: u64,
    /// Messages that went nowhere and were dropped.
    pub unroutable_dropped: u64,
    /// Mandatory messages that went nowhere and were returned.
    pub unroutable_returned: u64,
    /// Publishes confirmed.
    pub confirmed: u64,
    /// Open channels that have published.
    pub publishers: u64,
    /// Body sizes in bytes.
    pub size_bytes: Histogram,
}

impl Default for Publishing {
    fn default() -> Self {
        Self {
            received: 0,
            received_confirm: 0,
            routed: 0,
            unroutable_dropped: 0,
            unroutable_returned: 0,
            confirmed: 0,
            publishers: 0,
            size_bytes: Histogram::new(MESSAGE_SIZE_BOUNDS),
        }
    }
}

/// Counters of deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// To consumers that acknowledge.
    pub consume_manual_ack: u64,
    /// To consumers that do not.
    pub consume_auto_ack: u64,
    /// By `basic.get` with acknowledgement.
    pub get_manual_ack: u64,
    /// By `basic.get` without.
    pub get_auto_ack: u64,
    /// `basic.get` that found nothing.
    pub get_empty: u64,
    /// Of all deliveries, those that were not the first.
    pub redelivered: u64,
    /// Messages acknowledged.
    pub acknowledged: u64,
}

impl Delivery {
    /// All deliveries.
    pub(crate) fn delivered(&self) -> u64 {
        self.consume_manual_ack + self.consume_auto_ack + self.get_manual_ack + self.get_auto_ack
    }
}

/// Counters of messages that queues gave up, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deaths {
    /// The queue was full.
    pub maxlen: u64,
    /// Their time was up.
    pub expired: u64,
    /// A consumer refused them.
    pub rejected: u64,
}

/// Connections, open and over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connections {
    /// Open now.
    pub open: u64,
    /// Opened so far.
    pub opened: u64,
    /// Closed so far, in whatever way.
    pub closed: u64,
    /// Bytes read from sockets.
    pub incoming_bytes: u64,
    /// Bytes written to sockets.
    pub outgoing_bytes: u64,
    /// Reads from sockets.
    pub incoming_packets: u64,
    /// Writes to sockets.
    pub outgoing_packets: u64,
    /// Log-ins that succeeded.
    pub auth_succeeded: u64,
    /// Log-ins that failed.
    pub auth_failed: u64,
}

/// Channels, open and over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Channels {
    /// Open now.
    pub open: u64,
    /// Opened so far.
    pub opened: u64,
    /// Closed so far.
    pub closed: u64,
    /// Consumers.
    pub consumers: u64,
    /// Deliveries that wait for an acknowledgement.
    pub unacked: u64,
    /// Publishes that wait for a confirm.
    pub unconfirmed: u64,
    /// Publishes of open transactions.
    pub uncommitted: u64,
    /// Acknowledgements of open transactions.
    pub acks_uncommitted: u64,
}

/// Counters of errors that closed something, by the order of [`ReplyCode::ERRORS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Errors {
    /// A channel.
    pub channel: [u64; ReplyCode::ERRORS.len()],
    /// A connection.
    pub connection: [u64; ReplyCode::ERRORS.len()],
}

/// The log, and the clients of the metrics listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// Log lines that could not be written.
    pub log_lines_dropped: u64,
    /// Connections of the metrics listener that are open.
    pub metrics_connections: u64,
    /// Connections of the metrics listener that were one too many.
    pub metrics_connections_refused: u64,
}

/// Queues and what they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queues {
    /// There now.
    pub count: u64,
    /// Declarations so far, of queues that were there already too.
    pub declared: u64,
    /// Made so far.
    pub created: u64,
    /// Deleted so far.
    pub deleted: u64,
    /// Messages ready to be delivered.
    pub ready: u64,
    /// Their body bytes.
    pub ready_bytes: u64,
    /// Messages delivered and not acknowledged.
    pub unacked: u64,
    /// Their body bytes.
    pub unacked_bytes: u64,
    /// Of all messages, the persistent ones.
    pub persistent: u64,
    /// Their body bytes.
    pub persistent_bytes: u64,
    /// Ready messages whose bodies are in memory.
    pub ready_in_memory: u64,
    /// Unacknowledged messages whose bodies are in memory.
    pub unacked_in_memory: u64,
    /// Body bytes of both.
    pub in_memory_bytes: u64,
    /// Memory of the queues themselves.
    pub memory_bytes: u64,
}

/// The store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Store {
    /// Transactions committed.
    pub batches: u64,
    /// Transactions that failed and were tried again.
    pub commit_failures: u64,
    /// Messages written.
    pub rows_written: u64,
    /// Messages removed that had been written.
    pub rows_removed: u64,
    /// Messages read back.
    pub rows_read: u64,
    /// Body bytes written.
    pub bytes_written: u64,
    /// Seconds from the beginning of a transaction to its flush.
    pub commit_seconds: Histogram,
    /// Copies of persistent messages put into durable queues.
    pub persistent: u64,
    /// Of those, consumed before they were written, which they then never are.
    pub persistent_never_written: u64,
    /// Messages that wait to be written.
    pub backlog: u64,
    /// A transaction keeps failing; nothing is confirmed meanwhile.
    pub is_retrying: bool,
    /// Nothing is stored any more.
    pub has_failed: bool,
    /// Reads that failed.
    pub read_failures: u64,
    /// Its files.
    pub files: StoreFiles,
    /// What a confirm means, as the label `level`.
    pub durability: Labels,
}

/// The files of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreFiles {
    /// Bytes of the file.
    pub bytes: u64,
    /// Bytes of its write-ahead log.
    pub log_bytes: u64,
    /// Another process keeps the log from being emptied.
    pub log_is_pinned: bool,
    /// Transactions flushed in the redo log before they are moved into the file.
    pub redo_batches: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            batches: 0,
            commit_failures: 0,
            rows_written: 0,
            rows_removed: 0,
            rows_read: 0,
            bytes_written: 0,
            commit_seconds: Histogram::new(COMMIT_SECONDS_BOUNDS),
            persistent: 0,
            persistent_never_written: 0,
            backlog: 0,
            is_retrying: false,
            has_failed: false,
            read_failures: 0,
            files: StoreFiles::default(),
            durability: &[("level", "commit")],
        }
    }
}
