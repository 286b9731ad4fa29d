//! The store of one SQLite file: the traits of the port, implemented with the other files of this folder.

use super::commit::ProcessStart;
use super::directory::Directory;
use super::errors::{failure, failure_while, is_full, may_be_unflushed, unusable};
use super::full_disk::{BatchWriter, FullDisk};
use super::lanes::Lanes;
use super::maintenance::FileMaintenance;
use super::opening::{Opening, migrate};
use super::raw::RawConnection;
use super::reader::SqliteReader;
use super::redo::{Redo, SystemFiles};
use super::reserve::{Reserves, SystemSpares};
use super::runtime::block_on;
use super::settings::SqliteSettings;
use super::{backup, erasing, log, topology, views};
use crate::config::Durability;
use crate::store::{
    Backup, Batch, BatchNo, Cause, CommitOutcome, CopyError, CopyProgress, FileStats, LaneChange, Maintenance,
    OpenError, RecoveredState, Store, StoreError, StoreReader, Vitals,
};
use rusqlite::backup::StepResult;
use sqlx::{Connection, SqliteConnection};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// The writing side of a SQLite file.
pub struct SqliteStore {
    /// `None` if the file could not be opened again.
    pub(super) connection: Option<RawConnection>,
    lanes: Lanes,
    pub(super) last: BatchNo,
    cache_bytes: usize,
    opening: Opening,
    maintenance: FileMaintenance,
    pub(super) redo: Redo,
    full: FullDisk,
    /// The start of this process, if it could not be recorded yet.
    begun: Option<ProcessStart>,
    pub(super) directory: Directory,
}

impl SqliteStore {
    /// Locks the directory, opens or makes the file and brings it to the newest schema. It blocks, and may be called on any
    /// thread.
    pub fn open(settings: &SqliteSettings) -> Result<Self, OpenError> {
        Self::open_held(Directory::hold(&settings.directory)?, settings)
    }

    /// As [`open`](Self::open), for a directory that is already locked.
    pub(super) fn open_held(directory: Directory, settings: &SqliteSettings) -> Result<Self, OpenError> {
        let mut opening = Opening::new(directory.database(), settings);
        let mut full = FullDisk::new(reserves_of(settings, &directory), Arc::clone(&settings.clock));
        let cache_bytes = settings.cache_bytes;
        let connection = full.open(&mut opening, |opening| open_file(&directory, opening, cache_bytes))?;
        let mut store = Self {
            connection: None,
            lanes: Lanes::default(),
            last: BatchNo(0),
            cache_bytes,
            maintenance: FileMaintenance::new(settings, opening.file()),
            redo: redo_of(settings, &directory),
            opening,
            full,
            begun: None,
            directory,
        };
        store.adopt(connection)?;
        store.read_redo_log()?;
        Ok(store)
    }

    /// Closes the file without a stop in good order, as a kill does, and keeps the directory locked.
    pub(super) fn into_directory(self) -> Directory {
        self.directory
    }

    /// Reads the batches that the last process did not move into the file.
    fn read_redo_log(&mut self) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| StoreError::Unusable(Cause::new("the redo log", error));
        if let Some(first) = self.redo.read_batches(self.last).map_err(failed)? {
            tracing::error!(
                newest_in_file = self.last.0,
                first_in_redo_log = first.0,
                kept = %self.redo.kept_copy().display(),
                "the file lacks batches that were stored; later ones in the redo log cannot be used without them"
            );
            self.last = self.redo.newest().unwrap_or(self.last);
            self.require_moved()?;
            self.redo.discard().map_err(failed)?;
        }
        self.last = self.redo.newest().unwrap_or(self.last);
        Ok(())
    }

    /// Reads the last batch and the lanes, and takes the connection over.
    fn adopt(&mut self, mut connection: SqliteConnection) -> Result<(), StoreError> {
        let known = block_on(async {
            let last = topology::read_state(&mut connection).await?.batch_no;
            let (_, lanes) = topology::read_lanes(&mut connection).await?;
            Ok::<_, sqlx::Error>((last, lanes))
        });
        (self.last, self.lanes) = known.map_err(unusable)?;
        let connection = RawConnection::lock(connection)?;
        connection.with(|connection| log::move_after_commits(connection, *self.opening.checkpoint_pages.start()));
        self.connection = Some(connection);
        Ok(())
    }

    /// Whether a batch may wait in the redo log: moving it into the file later cannot be refused.
    fn may_use_redo_log(&self, batch: &Batch) -> bool {
        let is_copying = || self.connection.as_ref().is_some_and(RawConnection::is_copying);
        let is_known = |change: &LaneChange| self.lanes.get(change.lane).is_some();
        !self.full.is_full() && batch.lanes.iter().all(is_known) && !is_copying()
    }

    /// Writes a batch into the file, together with the redo log's batches before it.
    fn write(&mut self, batch: &Batch) -> CommitOutcome {
        let whole = self.redo.joined_with(Some(batch));
        let outcome = self.write_to_file(whole.as_ref().unwrap_or(batch));
        if whole.is_some() && outcome == CommitOutcome::Committed {
            self.redo.note_moved(batch.batch_no);
        }
        outcome
    }

    /// Moves the redo log's batches into the file.
    fn move_redo_log(&mut self) -> CommitOutcome {
        let Some(whole) = self.redo.joined_with(None) else { return CommitOutcome::Committed };
        let outcome = self.write_to_file(&whole);
        match outcome {
            CommitOutcome::Committed => self.redo.note_moved(whole.batch_no),
            // No caller looks up the outcome of a move.
            CommitOutcome::Unknown(_) => self.close_unflushed(),
            _ => {}
        }
        outcome
    }

    /// Closes the file because commits may not be flushed. The next commit makes the caller reopen it.
    fn close_unflushed(&mut self) {
        self.directory.note_unflushed();
        self.connection = None;
    }

    /// The error of the store for an error of maintenance.
    fn failed(&mut self, error: rusqlite::Error) -> StoreError {
        if may_be_unflushed(&error) {
            self.close_unflushed();
        }
        failure(error)
    }

    /// As [`move_redo_log`](Self::move_redo_log); any other outcome than success is an error.
    pub(super) fn require_moved(&mut self) -> Result<(), StoreError> {
        match self.move_redo_log() {
            CommitOutcome::Committed => Ok(()),
            outcome => Err(not_moved(outcome)),
        }
    }

    fn write_to_file(&mut self, batch: &Batch) -> CommitOutcome {
        let bounds = self.opening.checkpoint_pages.clone();
        // Erasing fills the log, however small the batches are.
        let erases = self.lanes.next_to_erase().is_some();
        let pages = if erases { *bounds.end() } else { log::pages_for(batch, &bounds) };
        let Some(mut writer) = self.batch_writer() else { return CommitOutcome::Unknown(StoreError::NotOpen.into()) };
        writer.connection.with(|connection| log::move_after_commits(connection, pages));
        let outcome = writer.write(batch);
        if outcome == CommitOutcome::Committed { self.after_commit() } else { outcome }
    }

    /// `None` if the file is not open.
    fn batch_writer(&mut self) -> Option<BatchWriter<'_>> {
        let Self { connection, lanes, maintenance, redo, full, begun, .. } = self;
        Some(BatchWriter { connection: connection.as_ref()?, lanes, maintenance, redo, full, begun })
    }

    /// The maintenance after each commit.
    fn after_commit(&mut self) -> CommitOutcome {
        let Some(connection) = &self.connection else { return CommitOutcome::Unknown(StoreError::NotOpen.into()) };
        match self.maintenance.committed(connection) {
            Ok(()) => CommitOutcome::Committed,
            Err(error) => CommitOutcome::Unknown(error.into()),
        }
    }
}

impl Store for SqliteStore {
    fn recover(&mut self) -> Result<RecoveredState, StoreError> {
        let mut connection = self.connection.take().ok_or(StoreError::NotOpen)?.unlock();
        let recovered = block_on(topology::read(&mut connection));
        self.connection = Some(RawConnection::lock(connection)?);
        let (mut recovered, lanes) = recovered.map_err(unusable)?;
        recovered.boot += 1;
        self.lanes = lanes;
        let begun = ProcessStart { boot: recovered.boot };
        self.batch_writer().ok_or(StoreError::NotOpen)?.begin(begun).map_err(|error| self.failed(error))?;
        self.redo.bring_forward(&mut recovered);
        self.last = recovered.batch_no;
        Ok(recovered)
    }

    fn commit(&mut self, batch: &Batch) -> CommitOutcome {
        if self.connection.is_none() {
            return CommitOutcome::Unknown(StoreError::NotOpen.into());
        }
        if batch.batch_no <= self.last {
            return CommitOutcome::Committed;
        }
        let is_redo = self.may_use_redo_log(batch) && self.redo.write(batch);
        let outcome = if is_redo { self.after_commit() } else { self.write(batch) };
        match outcome {
            CommitOutcome::Committed => self.last = batch.batch_no,
            CommitOutcome::Unknown(_) => self.directory.note_unflushed(),
            _ => {}
        }
        outcome
    }

    fn reopen(&mut self) -> Result<BatchNo, StoreError> {
        self.directory.note_unflushed();
        self.connection = None;
        let cache_bytes = self.cache_bytes;
        let opened = self.full.open(&mut self.opening, |opening| {
            flush_log(opening)?;
            Ok(block_on(opening.connect(cache_bytes))?)
        });
        let connection = opened.map_err(|error| match error {
            OpenError::Store(error) => error,
            other => StoreError::Unusable(other.into()),
        })?;
        self.directory.note_flushed();
        self.adopt(connection)?;
        self.redo.note_reopened(self.last);
        self.last = self.redo.newest().unwrap_or(self.last);
        Ok(self.last)
    }

    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        Ok(Box::new(SqliteReader::open(&self.opening, self.redo.pending())?))
    }

    fn maintenance(&mut self) -> Option<&mut dyn Maintenance> {
        Some(self)
    }

    fn backup(&mut self) -> Option<&mut dyn Backup> {
        Some(self)
    }

    fn file_stats(&self) -> Option<&dyn FileStats> {
        Some(self)
    }

    fn close(mut self: Box<Self>) -> Result<(), StoreError> {
        self.require_moved()?;
        let connection = self.connection.take().ok_or(StoreError::NotOpen)?;
        let stopped = connection.with(|connection| {
            let note = || connection.execute("UPDATE state SET clean = 1", []).map(drop);
            let move_log = || {
                let mut moved = connection.prepare("PRAGMA wal_checkpoint(TRUNCATE)")?;
                moved.query_row([], |_| Ok(()))
            };
            let mut noted = note();
            if noted.as_ref().is_err_and(is_full) {
                move_log()?;
                self.full.release_reserves();
                noted = note();
            }
            // If it cannot be recorded, the next start takes this stop for a kill. No data depends on that.
            noted.or_else(|error| if is_full(&error) { Ok(()) } else { Err(error) })?;
            move_log()?;
            // The log is empty. The last connection that closes deletes it.
            log::leave_at_close(connection, false)
        });
        if let Err(error) = stopped {
            self.directory.note_unflushed();
            return Err(failure(error));
        }
        let closed = block_on(connection.unlock().close()).map_err(unusable);
        // The log has given its space back. The next start needs some of it as its reserve.
        self.full.check();
        closed
    }
}

impl Maintenance for SqliteStore {
    fn has_dead_rows(&self) -> bool {
        self.lanes.next_to_erase().is_some()
    }

    fn erase(&mut self, rows: usize) -> Result<bool, StoreError> {
        let connection = self.connection.as_ref().ok_or(StoreError::NotOpen)?;
        let erased = connection.with(|connection| erasing::erase(connection, &mut self.lanes, rows));
        if erased.as_ref().is_err_and(is_full) {
            let has_dead_rows = self.has_dead_rows();
            let came_further = self.batch_writer().ok_or(StoreError::NotOpen)?.erase_on_full_disk();
            if came_further.map_err(|error| self.failed(error))? {
                return Ok(true);
            }
            if !has_dead_rows {
                // All dead rows are erased. The file shrinks once there is space to move its pages.
                return Ok(false);
            }
        }
        erased.map_err(|error| self.failed(error))
    }

    fn maintain(&mut self) -> Result<Option<Duration>, StoreError> {
        let check_again =
            self.batch_writer().ok_or(StoreError::NotOpen)?.check().map_err(|error| self.failed(error))?;
        let connection = self.connection.as_ref().ok_or(StoreError::NotOpen)?;
        let next = self.maintenance.maintain(connection).map_err(|error| self.failed(error))?;
        if self.redo.move_due_in().is_some_and(|wait| wait.is_zero()) {
            match self.move_redo_log() {
                CommitOutcome::NotCommitted(cause) => self.redo.note_refused(&cause),
                CommitOutcome::Committed => {}
                outcome => return Err(not_moved(outcome)),
            }
        }
        Ok([next, check_again, self.redo.move_due_in()].into_iter().flatten().min())
    }
}

impl FileStats for SqliteStore {
    fn vitals(&self) -> Vitals {
        Vitals { redo_batches: self.redo.batches(), is_full: self.full.is_full(), ..self.maintenance.vitals }
    }
}

impl Backup for SqliteStore {
    fn begin_copy(&mut self, target: &Path) -> Result<(), CopyError> {
        self.require_moved()?;
        let connection = self.connection.as_mut().ok_or(StoreError::NotOpen)?;
        let begun = backup::open_target(target).and_then(|target| connection.begin_copy(target));
        Ok(begun.map_err(|error| failure_while(target.display().to_string(), error))?)
    }

    fn step_copy(&mut self, pages: u32) -> Result<CopyProgress, CopyError> {
        let connection = self.connection.as_mut().ok_or(StoreError::NotOpen)?;
        let step = connection.step_copy(i32::try_from(pages).unwrap_or(i32::MAX)).ok_or(CopyError::NotRunning)?;
        let (progress, result) = step.map_err(failure)?;
        let is_done = result == StepResult::Done;
        if is_done {
            connection.end_copy();
        }
        Ok(backup::progress_from(&progress, is_done))
    }

    fn end_copy(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.end_copy();
        }
    }
}

/// Opens or makes the file and brings it to the newest schema.
fn open_file(directory: &Directory, opening: &Opening, cache_bytes: usize) -> Result<SqliteConnection, OpenError> {
    let was_unflushed = directory.is_unflushed();
    if was_unflushed {
        flush_log(opening)?;
    }
    let connection = block_on(async {
        let mut connection = opening.connect(cache_bytes).await?;
        migrate(&mut connection, opening.file()).await?;
        views::put(&mut connection).await.map_err(unusable)?;
        Ok(connection)
    });
    match &connection {
        Ok(_) if was_unflushed => directory.note_flushed(),
        // Its first write may be the one that could not be flushed.
        Err(OpenError::Store(StoreError::Unusable(_))) => directory.note_unflushed(),
        _ => {}
    }
    connection
}

fn reserves_of(settings: &SqliteSettings, directory: &Directory) -> Reserves {
    let files = settings.layer.as_ref().map_or_else(|| Arc::new(SystemSpares) as _, |layer| Arc::clone(&layer.spares));
    Reserves::new(files, directory.reserves(), settings.reserve_bytes_max)
}

/// The redo log saves time of flushes: it is used only if every commit is flushed.
fn redo_of(settings: &SqliteSettings, directory: &Directory) -> Redo {
    let files = settings.layer.as_ref().map_or_else(|| Arc::new(SystemFiles) as _, |layer| Arc::clone(&layer.redo));
    let bytes = if settings.durability == Durability::Commit { settings.redo_bytes } else { 0 };
    Redo::new(directory.redo(), files, bytes, Arc::clone(&settings.clock))
}

/// The error if the redo log's batches could not be moved into the file.
fn not_moved(outcome: CommitOutcome) -> StoreError {
    let what = "the redo log could not be moved into the file";
    match outcome {
        CommitOutcome::NotCommitted(cause) | CommitOutcome::Unknown(cause) | CommitOutcome::Fatal(cause) => {
            StoreError::Unusable(Cause::new(what, cause))
        }
        CommitOutcome::Committed | CommitOutcome::Fenced => StoreError::Unusable(what.into()),
    }
}

/// Flushes the log, on a plain connection: a connection of sqlx begins with a small write, and moves the log if that
/// write fails and it is the last one to close.
fn flush_log(opening: &Opening) -> Result<(), StoreError> {
    let connection = opening.connect_plainly();
    let flushed = connection.and_then(|connection| {
        log::leave_at_close(&connection, true)?;
        log::rewrite(&connection)
    });
    flushed.map_err(|error| match failure(error) {
        StoreError::Unusable(cause) => StoreError::Unusable(Cause::new("the log could not be flushed anew", cause)),
        other => other,
    })
}
