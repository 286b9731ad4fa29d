//! The handling of a full disk: at a start, for a batch that does not fit, and until there is space again.
//!
//! The pages in the log already have their space in the file (`growth`), so that moving the log needs no space and
//! frees the log's own. A removal needs a few pages in the log before it frees any. They come from the emptied log,
//! from dead rows, from the reserve, and as a last resort from the redo log's file.

use super::commit::{self, CommitOptions, ProcessStart, RemovalMode};
use super::errors::is_full;
use super::lanes::Lanes;
use super::maintenance::FileMaintenance;
use super::opening::Opening;
use super::raw::RawConnection;
use super::redo::Redo;
use super::reserve::Reserves;
use crate::model::{Clock, Monotonic};
use crate::store::{Batch, CommitOutcome, OpenError, StoreError};
use rusqlite::Result;
use std::sync::Arc;
use std::time::Duration;

/// How often a full disk is checked for space while there is nothing to commit.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How much space the disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiskSpace {
    /// A write was refused, or a start has needed help. The redo log is not used.
    None { checked_at: Monotonic },
    /// The reserves are smaller than they should be.
    Little,
    /// The reserves are complete.
    Enough,
}

/// Remedies for a start on a full disk, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartHelp {
    ReleaseReserves,
    /// Keeps the index of the log in memory instead of a file. Other processes cannot open the file then.
    IndexInMemory,
}

/// Remedies for a batch that does not fit, in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BatchRemedy {
    /// Moves the log into the file and truncates it.
    EmptyLog,
    /// Erases dead rows and makes the file smaller.
    ReclaimSpace,
    /// Releases the reserve; only for a batch that removes rows.
    ReleaseReserve,
    /// As above, if the reserve is not enough or another program has taken its space. The redo log is made anew when
    /// there is space.
    RemoveRedoLog,
}

/// The space of the disk, as far as the store knows it, and the reserves.
pub(super) struct FullDisk {
    clock: Arc<dyn Clock>,
    reserves: Reserves,
    space: DiskSpace,
}

impl FullDisk {
    pub(super) fn new(reserves: Reserves, clock: Arc<dyn Clock>) -> Self {
        Self { clock, reserves, space: DiskSpace::Little }
    }

    pub(super) fn is_full(&self) -> bool {
        matches!(self.space, DiskSpace::None { .. })
    }

    /// Opens files. If the disk is full, it is tried again with each remedy.
    pub(super) fn open<T>(
        &mut self,
        opening: &mut Opening,
        open: impl Fn(&Opening) -> Result<T, OpenError>,
    ) -> Result<T, OpenError> {
        let mut opened = open(opening);
        for help in [StartHelp::ReleaseReserves, StartHelp::IndexInMemory] {
            if !matches!(opened, Err(OpenError::Store(StoreError::DiskFull(_)))) {
                break;
            }
            self.note_full();
            let has_helped = match help {
                StartHelp::ReleaseReserves => self.release_reserves(),
                StartHelp::IndexInMemory => opening.keep_index_in_memory(),
            };
            if has_helped {
                opened = open(opening);
            }
        }
        opened
    }

    /// Allocates the reserves as far as the disk has space. A full disk counts as full until it has space for both and
    /// a margin.
    pub(super) fn check(&mut self) {
        if self.space == DiskSpace::Enough {
            return;
        }
        let is_whole = self.reserves.allocate();
        match self.space {
            DiskSpace::None { .. } if !is_whole || !self.reserves.has_margin() => return,
            DiskSpace::None { .. } => tracing::info!("the disk has space again"),
            _ => {}
        }
        self.space = if is_whole { DiskSpace::Enough } else { DiskSpace::Little };
    }

    /// The store is open: checks for space, and warns if only consumers can be served.
    pub(super) fn started(&mut self) {
        self.check();
        match self.space {
            DiskSpace::None { .. } => tracing::warn!(
                "the broker has started on a full disk: consumers are served and give space back; what publishers send waits"
            ),
            DiskSpace::Little => tracing::warn!(
                "the disk has less space than the store keeps in reserve: it may be full at any moment, and then only \
                 consumers are served"
            ),
            DiskSpace::Enough => {}
        }
    }

    /// Releases all reserves, for the end or the start of a process. Returns whether there were any.
    pub(super) fn release_reserves(&mut self) -> bool {
        self.note_full();
        self.reserves.release_all()
    }

    fn now(&self) -> Monotonic {
        self.clock.now().monotonic
    }

    fn note_full(&mut self) {
        if !self.is_full() {
            tracing::warn!("the disk is full: only what gives space back is stored until there is space again");
        }
        self.space = DiskSpace::None { checked_at: self.now() };
    }
}

/// The parts of the store that write a batch.
pub(super) struct BatchWriter<'a> {
    pub(super) connection: &'a RawConnection,
    pub(super) lanes: &'a mut Lanes,
    pub(super) maintenance: &'a mut FileMaintenance,
    pub(super) redo: &'a mut Redo,
    pub(super) full: &'a mut FullDisk,
    pub(super) begun: &'a mut Option<ProcessStart>,
}

impl BatchWriter<'_> {
    /// Commits a batch in one transaction, with remedies if there is no space for it.
    pub(super) fn write(&mut self, batch: &Batch) -> CommitOutcome {
        // Even if the batch was committed: a log that may not be flushed must not be used further.
        self.write_with_remedies(batch).unwrap_or_else(|error| CommitOutcome::Unknown(error.into()))
    }

    /// An error means that commits may not be flushed.
    fn write_with_remedies(&mut self, batch: &Batch) -> Result<CommitOutcome> {
        let (mut outcome, mut is_full) = self.try_write(batch);
        for remedy in
            [BatchRemedy::EmptyLog, BatchRemedy::ReclaimSpace, BatchRemedy::ReleaseReserve, BatchRemedy::RemoveRedoLog]
        {
            if !is_full {
                break;
            }
            self.full.note_full();
            if self.apply(remedy, batch)? {
                (outcome, is_full) = self.try_write(batch);
            }
        }
        if self.full.is_full() {
            match outcome {
                // Not later, for there may be no idle moment.
                CommitOutcome::Committed => {
                    self.reclaim_space()?;
                    self.full.check();
                }
                // The transaction that was rolled back has made the log longer, with the space of the reserve.
                CommitOutcome::NotCommitted(_) => {
                    self.maintenance.empty_full_log(self.connection)?;
                    self.full.reserves.allocate();
                }
                _ => {}
            }
        }
        Ok(outcome)
    }

    fn try_write(&mut self, batch: &Batch) -> (CommitOutcome, bool) {
        let removal = if self.full.is_full() { RemovalMode::InSlices } else { RemovalMode::Now };
        let Self { connection, lanes, begun, .. } = self;
        let options = CommitOptions { begun: **begun, removal, stored_at: self.full.clock.now().wall };
        let (outcome, is_full) =
            connection.with_inserts(|connection, inserts| commit::commit(connection, inserts, lanes, batch, options));
        if outcome == CommitOutcome::Committed {
            **begun = None;
        }
        (outcome, is_full)
    }

    /// Applies a remedy. Returns whether another try may succeed.
    fn apply(&mut self, remedy: BatchRemedy, batch: &Batch) -> Result<bool> {
        match remedy {
            // Even if that freed nothing, removals are tried again: from here on they need less space.
            BatchRemedy::EmptyLog => Ok(self.maintenance.empty_full_log(self.connection)? || batch.may_use_reserve()),
            BatchRemedy::ReclaimSpace => {
                self.reclaim_space()?;
                Ok(true)
            }
            BatchRemedy::ReleaseReserve => {
                let is_released = batch.may_use_reserve() && self.full.reserves.release();
                if is_released {
                    self.maintenance.empty_full_log(self.connection)?;
                    tracing::warn!("the disk is full: removals use the space that is kept for them");
                }
                Ok(is_released)
            }
            BatchRemedy::RemoveRedoLog => Ok(batch.may_use_reserve() && self.redo.remove_file()),
        }
    }

    /// Erases dead rows and makes the file smaller.
    fn reclaim_space(&mut self) -> Result<()> {
        self.maintenance.reclaim_space(self.connection, self.lanes, &self.full.reserves)
    }

    /// Erases dead rows after a try that had no space: with the reserve there is some, and the erasure frees it again.
    /// Returns whether rows were erased. An error means that commits may not be flushed.
    pub(super) fn erase_on_full_disk(&mut self) -> Result<bool> {
        let before = self.lanes.next_to_erase();
        self.full.note_full();
        self.reclaim_space()?;
        self.full.check();
        Ok(self.lanes.next_to_erase() != before)
    }

    /// Records the start of the process. On a full disk that may have to wait for the next batch: until then the file
    /// has nothing that this process has numbered.
    pub(super) fn begin(&mut self, begun: ProcessStart) -> Result<()> {
        *self.begun = Some(begun);
        let mut written = self.connection.with(|connection| begun.write(connection));
        if written.as_ref().is_err_and(is_full) {
            self.full.note_full();
            if self.maintenance.empty_full_log(self.connection)? {
                written = self.connection.with(|connection| begun.write(connection));
            }
        }
        if written.as_ref().is_err_and(is_full) && self.full.release_reserves() {
            written = self.connection.with(|connection| begun.write(connection));
        }
        match written {
            Ok(()) => *self.begun = None,
            Err(error) if is_full(&error) => {}
            Err(error) => return Err(error),
        }
        if self.full.is_full() {
            self.reclaim_space()?;
        }
        self.full.started();
        Ok(())
    }

    /// In an idle moment: checks for space if the disk was full. Returns when to check again. An error says that
    /// commits may not be flushed.
    pub(super) fn check(&mut self) -> Result<Option<Duration>> {
        if let DiskSpace::None { checked_at } = self.full.space {
            if let Some(left) = CHECK_INTERVAL.checked_sub(self.full.now().since(checked_at))
                && !left.is_zero()
            {
                return Ok(Some(left));
            }
            self.reclaim_space()?;
            self.full.space = DiskSpace::None { checked_at: self.full.now() };
        }
        self.full.check();
        Ok(self.full.is_full().then_some(CHECK_INTERVAL))
    }
}
