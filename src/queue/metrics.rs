//! The numbers of a queue for listings and metrics, and the memory that it takes.

use super::contents::Contents;
use super::entry::Entries;
use super::lending::Lending;
use std::ops::AddAssign;

/// Memory of a message beside its body and its entry, about, in bytes: address, properties, the allocation itself.
const MESSAGE_OVERHEAD_BYTES: u64 = 96;
/// Memory of an unacknowledged delivery in its channel, spare capacity included, in bytes.
const UNACKED_BYTES: u64 = 64;

/// The part of a queue that is in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueMemory {
    /// Ready messages; the others are only in the store.
    pub ready: u64,
    /// Body bytes of all messages, ready or not.
    pub body_bytes: u64,
    /// Bytes of the ready messages that the store has or is to have.
    pub window_bytes: u64,
    /// Bytes of transient messages, and of their entries.
    pub transient_bytes: u64,
    /// Bytes of messages that the store is to have and has not flushed.
    pub unwritten_bytes: u64,
    /// All bytes: the queue itself, its table of entries, its messages.
    pub bytes: u64,
}

/// The numbers of a queue after an input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueMetrics {
    /// Messages ready for delivery, without those that are to be dropped.
    pub ready: u64,
    /// Body bytes of the ready messages.
    pub ready_bytes: u64,
    /// Messages that consumers and gets hold.
    pub unacked: u64,
    /// Body bytes of the messages that consumers and gets hold.
    pub unacked_bytes: u64,
    /// Persistent messages of a durable queue, ready or not.
    pub durable: u64,
    /// Body bytes of the durable messages.
    pub durable_bytes: u64,
    /// Registered consumers.
    pub consumers: u32,
    /// Rows that are not submitted to the writer; those that consumers hold may not be due yet.
    pub unwritten_rows: usize,
    /// Transient messages that may go to the scratch store.
    pub unspilled_rows: usize,
    /// The part of the queue that is in memory.
    pub memory: QueueMemory,
}

impl AddAssign for QueueMemory {
    fn add_assign(&mut self, other: Self) {
        self.ready += other.ready;
        self.body_bytes += other.body_bytes;
        self.window_bytes += other.window_bytes;
        self.transient_bytes += other.transient_bytes;
        self.unwritten_bytes += other.unwritten_bytes;
        self.bytes += other.bytes;
    }
}

impl AddAssign for QueueMetrics {
    fn add_assign(&mut self, other: Self) {
        self.ready += other.ready;
        self.ready_bytes += other.ready_bytes;
        self.unacked += other.unacked;
        self.unacked_bytes += other.unacked_bytes;
        self.durable += other.durable;
        self.durable_bytes += other.durable_bytes;
        self.consumers += other.consumers;
        self.unwritten_rows += other.unwritten_rows;
        self.unspilled_rows += other.unspilled_rows;
        self.memory += other.memory;
    }
}

impl QueueMemory {
    /// Reads the numbers of each level. `own_bytes` is the size of the queue without its parts on the heap.
    pub(super) fn of(contents: &Contents, lending: &Lending, own_bytes: usize) -> Self {
        let Contents { entries, ready, durable, spill } = contents;
        let (mut in_memory, mut body_bytes) = (ready.count(), ready.body_bytes() + lending.body_bytes());
        let (mut window_bytes, mut durable_count) = (0, durable.count());
        for level in ready.levels() {
            window_bytes += level.window_bytes() as u64;
            durable_count = durable_count.saturating_sub(level.durable_middle().map_or(0, |middle| middle.count));
            for middle in level.middles() {
                in_memory -= middle.count;
                body_bytes = body_bytes.saturating_sub(middle.body_bytes);
            }
        }
        let transient = (in_memory + lending.count()).saturating_sub(durable_count);
        // Stored messages have details more often than transient ones.
        let with_details = entries.with_details() as u64;
        let stored_with_details = with_details.min(durable_count);
        let table = |entries: u64, details: u64| {
            entries * Entries::ENTRY_BYTES as u64 + details * Entries::DETAILS_BYTES as u64
        };
        let own_of_stored = table(durable_count, stored_with_details) + durable.list_bytes() as u64;
        let own = (own_bytes + entries.table_bytes() + lending.consumers_bytes()) as u64;
        Self {
            ready: in_memory,
            body_bytes,
            window_bytes: window_bytes.saturating_sub(spill.transient_bytes()) + own_of_stored,
            transient_bytes: spill.transient_bytes() + table(transient, with_details - stored_with_details),
            unwritten_bytes: durable.unwritten_bytes(),
            bytes: own
                + body_bytes
                + (in_memory + lending.count()) * MESSAGE_OVERHEAD_BYTES
                + lending.count() * UNACKED_BYTES,
        }
    }
}
