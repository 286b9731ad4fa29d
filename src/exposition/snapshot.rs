//! The broker's numbers at one moment. Counters count since the process started and never fall.

use super::series::Labels;
use crate::model::{Refusals, ReplyCode};
use std::time::Duration;

use super::bounds::{COMMIT_SECONDS_BOUNDS, MESSAGE_SIZE_BOUNDS};
use super::histogram::Histogram;
use super::process::Process;

/// All numbers that a scrape shows.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// When the process started.
    pub start: Start,
    /// The operating system's numbers of the process.
    pub process: Process,
    /// The alarms, and their limits.
    pub alarms: Alarms,
    /// The memory that clients use.
    pub memory: Memory,
    /// Counts of refusals by limits.
    pub refusals: Refusals,
    /// Publishes over AMQP 0-9-1.
    pub publishing: Publishing,
    /// Deliveries from queues to AMQP 0-9-1 consumers.
    pub delivery: Delivery,
    /// Messages that died in queues with a dead-letter exchange.
    pub dead_lettered: Deaths,
    /// Messages that died in queues without a dead-letter exchange.
    pub discarded: Deaths,
    /// Connections.
    pub connections: Connections,
    /// Channels.
    pub channels: Channels,
    /// Errors that closed channels and connections.
    pub errors: Errors,
    /// The log, and the clients of the metrics listener.
    pub surroundings: Surroundings,
    /// Queues and their messages.
    pub queues: Queues,
    /// The store.
    pub store: Store,
}

/// When the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Start {
    /// Seconds since the Unix epoch.
    pub seconds: f64,
    /// The time since then.
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
    /// Bytes of clients' memory above which the memory alarm is raised.
    pub memory_limit_bytes: u64,
    /// Resident bytes of the process above which the memory alarm is raised.
    pub resident_limit_bytes: u64,
    /// Bytes of free disk below which the disk alarm is raised.
    pub disk_limit_bytes: u64,
}

/// Bytes of memory that clients use; their sum is compared with the limit of the alarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Queues and their messages.
    pub queues: u64,
    /// Incomplete contents, and open transactions.
    pub unfinished: u64,
    /// Buffers of input and output.
    pub buffers: u64,
    /// Channels with their consumers and pending confirms.
    pub channels: u64,
    /// Notices that wait in the inlets of connections.
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
    /// Messages published on channels in confirm mode.
    pub received_confirm: u64,
    /// Copies put into queues.
    pub routed: u64,
    /// Messages that no queue took, and that were dropped.
    pub unroutable_dropped: u64,
    /// Mandatory messages that no queue took, and that were returned.
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
    /// To consumers without acknowledgement.
    pub consume_auto_ack: u64,
    /// By `basic.get` with acknowledgement.
    pub get_manual_ack: u64,
    /// By `basic.get` without acknowledgement.
    pub get_auto_ack: u64,
    /// `basic.get` on an empty queue.
    pub get_empty: u64,
    /// Deliveries marked `redelivered`.
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

/// Counters of messages that died in queues, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deaths {
    /// The queue exceeded its limits.
    pub maxlen: u64,
    /// The message expired.
    pub expired: u64,
    /// A consumer rejected the message.
    pub rejected: u64,
}

/// Connections, open and over time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connections {
    /// Open now.
    pub open: u64,
    /// Opened so far.
    pub opened: u64,
    /// Closed so far, for any reason.
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

/// Counters of errors, in the order of [`ReplyCode::ERRORS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Errors {
    /// Errors that closed a channel.
    pub channel: [u64; ReplyCode::ERRORS.len()],
    /// Errors that closed a connection.
    pub connection: [u64; ReplyCode::ERRORS.len()],
}

/// The log, and the clients of the metrics listener.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// Log lines that could not be written.
    pub log_lines_dropped: u64,
    /// Connections of the metrics listener that are open.
    pub metrics_connections: u64,
    /// Connections of the metrics listener that were refused because of its limit.
    pub metrics_connections_refused: u64,
}

/// Queues and their messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Queues {
    /// Existing queues.
    pub count: u64,
    /// Declarations so far, including those of existing queues.
    pub declared: u64,
    /// Created so far.
    pub created: u64,
    /// Deleted so far.
    pub deleted: u64,
    /// Messages ready to be delivered.
    pub ready: u64,
    /// Body bytes of ready messages.
    pub ready_bytes: u64,
    /// Messages delivered and not acknowledged.
    pub unacked: u64,
    /// Body bytes of unacknowledged messages.
    pub unacked_bytes: u64,
    /// Persistent messages, ready or unacknowledged.
    pub persistent: u64,
    /// Body bytes of persistent messages.
    pub persistent_bytes: u64,
    /// Ready messages whose bodies are in memory.
    pub ready_in_memory: u64,
    /// Unacknowledged messages whose bodies are in memory.
    pub unacked_in_memory: u64,
    /// Body bytes of messages in memory.
    pub in_memory_bytes: u64,
    /// Bytes of memory that queues use.
    pub memory_bytes: u64,
}

/// The store.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Store {
    /// Transactions committed.
    pub batches: u64,
    /// Transactions that failed and were retried.
    pub commit_failures: u64,
    /// Messages written.
    pub rows_written: u64,
    /// Written messages that were removed.
    pub rows_removed: u64,
    /// Messages read back.
    pub rows_read: u64,
    /// Body bytes written.
    pub bytes_written: u64,
    /// Seconds from the beginning of a transaction to its flush.
    pub commit_seconds: Histogram,
    /// Copies of persistent messages put into durable queues.
    pub persistent: u64,
    /// Of `persistent`, the copies that were consumed before they were written, and so never are.
    pub persistent_never_written: u64,
    /// Messages yet to be written.
    pub backlog: u64,
    /// A transaction keeps failing and is retried; nothing is confirmed meanwhile.
    pub is_retrying: bool,
    /// The store has failed for good: nothing is stored any more.
    pub has_failed: bool,
    /// Reads that failed.
    pub read_failures: u64,
    /// The files of the store.
    pub files: StoreFiles,
    /// The durability of confirmed messages, as the label `level`.
    pub durability: Labels,
}

/// The files of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoreFiles {
    /// Bytes of the database file.
    pub bytes: u64,
    /// Bytes of the write-ahead log.
    pub log_bytes: u64,
    /// Whether another process pins the write-ahead log, so that it cannot be emptied.
    pub log_is_pinned: bool,
    /// Transactions in the redo log that are not moved into the database yet.
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
