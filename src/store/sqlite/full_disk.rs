//! What is done about a disk that is full: at a start, about a batch that does not fit, and until there is space again.
//!
//! What the log holds has its place in the file (`growth`), so that moving the log needs no space and gives the log's own
//! back. What gives space back needs a few pages in the log before it does. They come from what the log gave back, from
//! dead rows, from the reserve, and in the end from the redo log's file.

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

/// How often a full disk is looked at while there is nothing to commit.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How much space there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DiskSpace {
    /// Something was refused for want of it, or a start has needed help. What is stored is flushed in the database alone.
    None { looked_at: Monotonic },
    /// The reserves are not whole.
    Little,
    /// There was enough for the reserves.
    Enough,
}

/// What helps a start on a full disk, in the order in which it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StartHelp {
    ReleaseReserves,
    /// The index of the log is kept in memory instead of a file, which keeps other processes out.
    IndexInMemory,
}

/// What helps a batch that does not fit, in the order in which it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    /// Moves the log and cuts it to nothing.
    EmptyLog,
    /// Erases what is dead, and makes the file smaller.
    ReclaimSpace,
    /// Only for what gives space back.
    ReleaseReserve,
    /// As above, when the reserve is not enough or somebody else has it. Another file is made when there is space.
    RemoveRedoLog,
}

/// A disk's space, as the store knows it.
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

    /// Opens files. What fails for want of space is tried again with all that helps.
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

    /// Takes the reserves if the disk has them to give. It is full no more when it has them, and some space beside them.
    pub(super) fn look(&mut self) {
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

    /// A start is done: says whether it is one for consumers only.
    pub(super) fn started(&mut self) {
        self.look();
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

    /// Gives all reserves away, for what comes at the end or at the beginning of a process.
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
        self.space = DiskSpace::None { looked_at: self.now() };
    }
}

/// What writing a batch takes of the store.
pub(super) struct BatchWriter<'a> {
    pub(super) connection: &'a RawConnection,
    pub(super) lanes: &'a mut Lanes,
    pub(super) maintenance: &'a mut FileMaintenance,
    pub(super) redo: &'a mut Redo,
    pub(super) full: &'a mut FullDisk,
    pub(super) begun: &'a mut Option<ProcessStart>,
}

impl BatchWriter<'_> {
    /// Commits a batch in one transaction, with what helps when there is no space for it.
    pub(super) fn write(&mut self, batch: &Batch) -> CommitOutcome {
        // Whatever the batch's own outcome was: nothing more is to be done to a log that may not be flushed.
        self.write_with_help(batch).unwrap_or_else(|error| CommitOutcome::Unknown(error.into()))
    }

    /// An error says that what was committed may not be flushed.
    fn write_with_help(&mut self, batch: &Batch) -> Result<CommitOutcome> {
        let (mut outcome, mut is_full) = self.try_write(batch);
        for remedy in [Remedy::EmptyLog, Remedy::ReclaimSpace, Remedy::ReleaseReserve, Remedy::RemoveRedoLog] {
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
                // At once, for there may be no idle moment.
                CommitOutcome::Committed => {
                    self.reclaim_space()?;
                    self.full.look();
                }
                // What was rolled back has made the log longer, at the expense of the reserve.
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

    /// Whether trying again may now succeed.
    fn apply(&mut self, remedy: Remedy, batch: &Batch) -> Result<bool> {
        match remedy {
            // Even if that gave nothing back: it needs less space from here on.
            Remedy::EmptyLog => Ok(self.maintenance.empty_full_log(self.connection)? || batch.may_use_reserve()),
            Remedy::ReclaimSpace => {
                self.reclaim_space()?;
                Ok(true)
            }
            Remedy::ReleaseReserve => {
                let is_released = batch.may_use_reserve() && self.full.reserves.release();
                if is_released {
                    self.maintenance.empty_full_log(self.connection)?;
                    tracing::warn!("the disk is full: removals use the space that is kept for them");
                }
                Ok(is_released)
            }
            Remedy::RemoveRedoLog => Ok(batch.may_use_reserve() && self.redo.remove_file()),
        }
    }

    /// Erases what is dead and makes the file smaller.
    fn reclaim_space(&mut self) -> Result<()> {
        self.maintenance.reclaim_space(self.connection, self.lanes, &self.full.reserves)
    }

    /// An erasure that had no space: with the reserve it has, and gives it back. Whether it came any further. An error says
    /// that what was committed may not be flushed.
    pub(super) fn erase_on_full_disk(&mut self) -> Result<bool> {
        let before = self.lanes.next_to_erase();
        self.full.note_full();
        self.reclaim_space()?;
        self.full.look();
        Ok(self.lanes.next_to_erase() != before)
    }

    /// Notes that a process has begun. On a full disk that is done with the next batch: until then nothing that it has
    /// numbered is in the file.
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

    /// While there is nothing to commit: looks for space, if there was none. When to look again. An error says that what was
    /// committed may not be flushed.
    pub(super) fn look(&mut self) -> Result<Option<Duration>> {
        if let DiskSpace::None { looked_at } = self.full.space {
            if let Some(left) = LOOK_INTERVAL.checked_sub(self.full.now().since(looked_at))
                && !left.is_zero()
            {
                return Ok(Some(left));
            }
            self.reclaim_space()?;
            self.full.space = DiskSpace::None { looked_at: self.full.now() };
        }
        self.full.look();
        Ok(self.full.is_full().then_some(LOOK_INTERVAL))
    }
}
