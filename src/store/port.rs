//! What every store can do, as traits; and what only some can do, as traits of their own.

use super::batch::{Batch, BatchNo, PositionRange, Row};
use super::error::{Cause, CopyError, ReadError, StoreError};
use super::records::RecoveredState;
use crate::model::Lane;
use std::path::Path;
use std::time::Duration;

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// All of it is flushed.
    Committed,
    /// None of it is; the same batch may be tried again (a full disk).
    NotCommitted(Cause),
    /// Nobody knows: reopen and look up the batch number (an error while flushing).
    Unknown(Cause),
    /// Another home owns these queues now.
    Fenced,
    /// The store cannot go on.
    Fatal(Cause),
}

/// Rows read back.
#[derive(Clone, Debug)]
pub struct LoadedRange {
    /// By rising position.
    pub rows: Vec<Row>,
    /// The last batch that wrote the lane, as the read saw it, or a later one; of a lane that is not there, any.
    pub as_of: BatchNo,
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Pages that are copied.
    pub pages_copied: u64,
    /// Pages in all; may grow while the store does.
    pub pages: u64,
    /// Everything is copied, though not flushed, and the copy is closed.
    pub is_done: bool,
}

/// How a store's files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of its write-ahead log.
    pub log_bytes: u64,
    /// The log is longer than it should be, and somebody else's reading keeps it from being emptied.
    pub log_is_pinned: bool,
    /// Something was refused for want of space, and there is none yet.
    pub is_full: bool,
    /// Batches that were flushed in the redo log.
    pub redo_batches: u64,
}

/// How a store works, for those that drive it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreTraits {
    /// A commit takes about as long as a flush of the local disk, and the calling thread makes it: a thread of the runtime
    /// may commit.
    pub commits_in_place: bool,
    /// About how long a small batch takes at least: a batch waits as long for the answers of queues that were asked.
    pub batch_latency: Duration,
    /// A queue is asked for at least so many rows: fewer are not worth the pages and the lane that they touch.
    pub rows_worth_asking: usize,
    /// How many threads read at the same time.
    pub readers: usize,
}

impl StoreTraits {
    /// Of a store on the local disk, or in memory.
    pub const LOCAL: Self =
        Self { commits_in_place: true, batch_latency: Duration::from_millis(1), rows_worth_asking: 32, readers: 1 };
}

/// The writing side: blocking, owned by the writer's driver.
pub trait Store: Send + 'static {
    /// Reads topology and lanes, and notes that a process has begun (`boot` rises, `clean` is cleared).
    ///
    /// # Errors
    /// When the store cannot be read, or the beginning not be noted.
    fn recover(&mut self) -> Result<RecoveredState, StoreError>;

    /// Makes all of a batch durable, or none of it. A batch whose number is already stored is `Committed`.
    fn commit(&mut self, batch: &Batch) -> CommitOutcome;

    /// After [`CommitOutcome::Unknown`]: lets go of everything, opens again, makes sure that what is found is flushed,
    /// and returns the number of the last batch found.
    ///
    /// # Errors
    /// When the store cannot be opened now; it may be tried again.
    fn reopen(&mut self) -> Result<BatchNo, StoreError>;

    /// A reader of its own, for another thread.
    ///
    /// # Errors
    /// When the store cannot be opened for reading.
    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError>;

    /// How it works.
    fn traits(&self) -> StoreTraits {
        StoreTraits::LOCAL
    }

    /// The face for work in idle moments, if there is such work.
    fn maintenance(&mut self) -> Option<&mut dyn Maintenance> {
        None
    }

    /// The face for copies of everything, if there is a file to copy.
    fn backup(&mut self) -> Option<&mut dyn Backup> {
        None
    }

    /// The face for the sizes of files, if there are files.
    fn file_stats(&self) -> Option<&dyn FileStats> {
        None
    }

    /// Notes a stop in good order and releases the store.
    ///
    /// # Errors
    /// When the stop could not be noted; the store is released all the same.
    fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// Work for idle moments.
pub trait Maintenance {
    /// Does what is due when there is nothing to commit: flushing what was committed without, keeping the files small.
    /// Returns how long until the next call; if `None`, then not before the next batch.
    ///
    /// # Errors
    /// What was committed may not be flushed: the store is to be reopened.
    fn maintain(&mut self) -> Result<Option<Duration>, StoreError> {
        Ok(None)
    }

    /// Whether rows are left to be erased, of dropped lanes or of long removals.
    fn has_dead_rows(&self) -> bool;

    /// Erases up to `rows` dead rows; whether more are left.
    ///
    /// # Errors
    /// When the erasure was not committed.
    fn erase(&mut self, rows: usize) -> Result<bool, StoreError>;
}

/// Copies of everything.
pub trait Backup {
    /// Begins a copy at `target`, which [`Backup::step_copy`] takes further. What is committed until its end is part of it.
    /// A copy that was under way is given up.
    ///
    /// # Errors
    /// When the target cannot be written.
    fn begin_copy(&mut self, target: &Path) -> Result<(), CopyError>;

    /// Copies about so many pages.
    ///
    /// # Errors
    /// When no copy is under way, or it cannot go on; it is to be ended then.
    fn step_copy(&mut self, pages: u32) -> Result<CopyProgress, CopyError>;

    /// Gives a copy up; without effect when none is under way.
    fn end_copy(&mut self);
}

/// Sizes of files.
pub trait FileStats {
    /// How the files are, as the store last saw them.
    fn vitals(&self) -> Vitals;
}

/// Which rows to read.
#[derive(Clone, Copy, Debug)]
pub struct LoadRequest {
    /// The lane.
    pub lane: Lane,
    /// Where in it.
    pub range: PositionRange,
    /// At most so many rows.
    pub rows_max: usize,
    /// And about so many bytes; one row at least.
    pub bytes_max: usize,
}

impl LoadRequest {
    /// A request of these parts, in the order of the fields.
    pub fn new(lane: Lane, range: PositionRange, rows_max: usize, bytes_max: usize) -> Self {
        Self { lane, range, rows_max, bytes_max }
    }
}

/// The reading side: sees what was flushed, never what is being written.
pub trait StoreReader: Send + 'static {
    /// Rows of a range, by rising position.
    ///
    /// # Errors
    /// When the store cannot be read; it may be tried again.
    fn load(&mut self, request: LoadRequest) -> Result<LoadedRange, ReadError>;
}
