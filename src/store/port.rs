//! The interface of every store, as traits. What only some stores can do is a trait of its own.

use super::batch::{Batch, BatchNo, PositionRange, Row};
use super::error::{Cause, CopyError, ReadError, StoreError};
use super::records::RecoveredState;
use crate::model::Lane;
use std::path::Path;
use std::time::Duration;

/// The outcome of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// All of it is flushed.
    Committed,
    /// Nothing of it is stored; the same batch may be tried again (a full disk).
    NotCommitted(Cause),
    /// It may be stored or not (an error while flushing): reopen the store and look up the batch number.
    Unknown(Cause),
    /// Another node owns the store now.
    Fenced,
    /// The store cannot go on.
    Fatal(Cause),
}

/// The rows of a range that were read back.
#[derive(Clone, Debug)]
pub struct LoadedRange {
    /// By rising position.
    pub rows: Vec<Row>,
    /// The last batch that wrote the lane, as the read saw it, or a later one. Any batch if the lane does not exist.
    pub as_of: BatchNo,
}

/// The progress of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Pages that were copied.
    pub pages_copied: u64,
    /// Pages in all; the number grows if the store does.
    pub pages: u64,
    /// All pages are copied and the copy is closed. It is not flushed.
    pub is_done: bool,
}

/// The state of a store's files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of its write-ahead log.
    pub log_bytes: u64,
    /// The log is longer than its limit, because another process reads the file and so keeps the log from being emptied.
    pub log_is_pinned: bool,
    /// A write was refused because the disk is full, and there is no space yet.
    pub is_full: bool,
    /// Batches that were committed in the redo log.
    pub redo_batches: u64,
}

/// Properties of a store that its driver depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreTraits {
    /// The calling thread makes the commit itself, in about the time of a flush of the local disk. So a thread of the
    /// runtime may commit.
    pub commits_in_place: bool,
    /// The time of a small batch. A batch waits that long for the answers of queues that were asked for rows.
    pub batch_latency: Duration,
    /// A queue is asked for at least this many rows: fewer are not worth the pages and the lane that they touch.
    pub rows_worth_asking: usize,
    /// The number of threads that read at the same time.
    pub readers: usize,
}

impl StoreTraits {
    /// The properties of a store on the local disk, or in memory.
    pub const LOCAL: Self =
        Self { commits_in_place: true, batch_latency: Duration::from_millis(1), rows_worth_asking: 32, readers: 1 };
}

/// The writing side. Its calls block; the writer's driver owns it.
pub trait Store: Send + 'static {
    /// Reads topology and lanes, and records the start of a process (`boot` rises, `clean` is cleared).
    ///
    /// # Errors
    /// When the store cannot be read, or the start not be recorded.
    fn recover(&mut self) -> Result<RecoveredState, StoreError>;

    /// Makes all of a batch durable, or none of it. A batch whose number is already stored is `Committed`.
    fn commit(&mut self, batch: &Batch) -> CommitOutcome;

    /// After [`CommitOutcome::Unknown`]: closes all files, opens them again, flushes what is in them, and returns the number
    /// of the last batch in them.
    ///
    /// # Errors
    /// When the store cannot be opened now. The call may be repeated.
    fn reopen(&mut self) -> Result<BatchNo, StoreError>;

    /// A new reader, for another thread.
    ///
    /// # Errors
    /// When the store cannot be opened for reading.
    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError>;

    /// The properties that the driver depends on.
    fn traits(&self) -> StoreTraits {
        StoreTraits::LOCAL
    }

    /// The interface for work in idle moments, if the store has such work.
    fn maintenance(&mut self) -> Option<&mut dyn Maintenance> {
        None
    }

    /// The interface for copies, if the store has a file.
    fn backup(&mut self) -> Option<&mut dyn Backup> {
        None
    }

    /// The interface for sizes of files, if the store has files.
    fn file_stats(&self) -> Option<&dyn FileStats> {
        None
    }

    /// Records a stop in good order and closes the store.
    ///
    /// # Errors
    /// When the stop could not be recorded. The store is closed all the same.
    fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// Work for idle moments.
pub trait Maintenance {
    /// Does the work that is due while there is nothing to commit: flushes commits that were not flushed, and keeps the
    /// files small. Returns the time until the next call; if `None`, none is due before the next batch.
    ///
    /// # Errors
    /// A commit may not be flushed: the store is to be reopened.
    fn maintain(&mut self) -> Result<Option<Duration>, StoreError> {
        Ok(None)
    }

    /// Whether rows of dropped lanes or of long removals are still to be erased.
    fn has_dead_rows(&self) -> bool;

    /// Erases up to `rows` dead rows. Returns whether more are left.
    ///
    /// # Errors
    /// When the erasure was not committed.
    fn erase(&mut self, rows: usize) -> Result<bool, StoreError>;
}

/// Copies of everything.
pub trait Backup {
    /// Begins a copy at `target`, which [`Backup::step_copy`] continues. Commits up to its end are part of it. An
    /// earlier copy that is not complete ends.
    ///
    /// # Errors
    /// When the target cannot be written.
    fn begin_copy(&mut self, target: &Path) -> Result<(), CopyError>;

    /// Copies about this many pages.
    ///
    /// # Errors
    /// When no copy is under way, or it cannot go on. End it then.
    fn step_copy(&mut self, pages: u32) -> Result<CopyProgress, CopyError>;

    /// Ends a copy. Without effect if none is under way.
    fn end_copy(&mut self);
}

/// Sizes of files.
pub trait FileStats {
    /// The state of the files, as the store last measured them.
    fn vitals(&self) -> Vitals;
}

/// Which rows to read.
#[derive(Clone, Copy, Debug)]
pub struct LoadRequest {
    /// The lane.
    pub lane: Lane,
    /// The range of positions in it.
    pub range: PositionRange,
    /// The most rows to read.
    pub rows_max: usize,
    /// About the most bytes to read; one row is read at least.
    pub bytes_max: usize,
}

impl LoadRequest {
    /// A request with these fields.
    pub fn new(lane: Lane, range: PositionRange, rows_max: usize, bytes_max: usize) -> Self {
        Self { lane, range, rows_max, bytes_max }
    }
}

/// The reading side. It sees batches that were committed, never one that is being written.
pub trait StoreReader: Send + 'static {
    /// Rows of a range, by rising position.
    ///
    /// # Errors
    /// When the store cannot be read. The call may be repeated.
    fn load(&mut self, request: LoadRequest) -> Result<LoadedRange, ReadError>;
}
