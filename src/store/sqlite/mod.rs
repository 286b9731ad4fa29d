//! The store in one SQLite file.
//!
//! sqlx opens and migrates the file and reads topology and lanes at start; from then on the writer's connection is
//! held as a raw handle with prepared statements (`raw`), and readers have connections of their own.

mod backup;
mod bodies;
mod care;
mod commit;
mod directory;
mod doctor;
mod erasing;
mod flushing;
mod full_disk;
mod growth;
mod inserts;
mod lanes;
mod log;
mod opened_file;
mod opening;
mod raw;
mod reader;
mod redo;
mod reserve;
#[cfg(test)]
mod tests;
mod topology;
mod views;

use super::{
    Backup, Batch, BatchNo, Cause, CommitOutcome, CopyError, CopyProgress, FileStats, LaneChange, Maintenance,
    OpenError, Recovered, Store, StoreError, StoreReader, SystemClock, Vitals,
};
use crate::config::Durability;
use crate::model::Clock;
pub use backup::{BackupTarget, back_up};
use care::Care;
use commit::{Begun, is_full};
use directory::Directory;
pub use directory::{database_file, existing_database};
pub use doctor::{Diagnosis, Repaired, diagnose, repair};
use full_disk::{FullDisk, Writing};
use lanes::Lanes;
use opening::{Opening, block_on, failure, failure_while, migrate, unusable};
use raw::RawConnection;
use reader::SqliteReader;
use redo::{Redo, SystemFiles};
pub use redo::{RedoFile, RedoFiles};
pub use reserve::SpareFiles;
use reserve::{Reserves, SystemSpares};
use rusqlite::backup::StepResult;
use sqlx::{Connection, SqliteConnection};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where the file is and what it may cost.
#[derive(Clone)]
pub struct SqliteSettings {
    /// The data directory: made when missing, held by one process at a time.
    pub directory: PathBuf,
    /// Memory for pages on the writer's connection.
    pub cache_bytes: usize,
    /// When what is committed is flushed.
    pub durability: Durability,
    /// At the level `interval`, how long after its commit at most.
    pub durability_interval: Duration,
    /// The write-ahead log should not be longer.
    pub log_bytes_max: u64,
    /// Pages in the write-ahead log before the writer moves them into the file: the fewest, after small batches, whose
    /// successor should not wait for long; the most, after large ones, which take their time anyhow.
    pub checkpoint_pages: RangeInclusive<u32>,
    /// Bytes of the redo log, where small batches are flushed before they are moved into the file; without any they are not.
    pub redo_bytes: u64,
    /// No file of space that is kept for a full disk is longer than this.
    pub reserve_bytes_max: u64,
    /// How files are reached; the system's own way when none.
    pub layer: Option<Layer>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

/// Another way to reach files.
#[derive(Clone)]
pub struct Layer {
    /// What SQLite calls it.
    pub vfs: String,
    /// For the redo log.
    pub redo: Arc<dyn RedoFiles>,
    /// For space that is kept.
    pub spares: Arc<dyn SpareFiles>,
}

impl SqliteSettings {
    /// A directory, and the defaults: a cache of 12 MiB, every commit flushed.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            cache_bytes: 12 << 20,
            durability: Durability::Commit,
            durability_interval: Duration::from_secs(1),
            log_bytes_max: 64 << 20,
            checkpoint_pages: 100..=1_000,
            redo_bytes: 1 << 20,
            reserve_bytes_max: u64::MAX,
            layer: None,
            clock: SystemClock::shared(),
        }
    }
}

/// The writing side of a SQLite file.
pub struct SqliteStore {
    /// None after reopening failed.
    connection: Option<RawConnection>,
    lanes: Lanes,
    last: BatchNo,
    cache_bytes: usize,
    opening: Opening,
    care: Care,
    redo: Redo,
    full: FullDisk,
    /// What is to be noted of this process with the next batch.
    begun: Option<Begun>,
    directory: Directory,
}

impl SqliteStore {
    /// Takes the directory, opens or makes the file and brings it to the newest schema. May be called on any thread;
    /// it blocks.
    pub fn open(settings: &SqliteSettings) -> Result<Self, OpenError> {
        Self::open_held(Directory::hold(&settings.directory)?, settings)
    }

    /// As [`open`](Self::open), of a directory that is held.
    fn open_held(directory: Directory, settings: &SqliteSettings) -> Result<Self, OpenError> {
        let mut opening = Opening::new(directory.database(), settings);
        let mut full = FullDisk::new(reserves_of(settings, &directory), Arc::clone(&settings.clock));
        let cache_bytes = settings.cache_bytes;
        let connection = full.open(&mut opening, |opening| open_file(&directory, opening, cache_bytes))?;
        let mut store = Self {
            connection: None,
            lanes: Lanes::default(),
            last: BatchNo(0),
            cache_bytes,
            care: Care::new(settings, opening.file()),
            redo: redo_of(settings, &directory),
            opening,
            full,
            begun: None,
            directory,
        };
        store.adopt(connection)?;
        store.find_redo()?;
        Ok(store)
    }

    /// Closes the file, as a kill would.
    fn let_go(self) -> Directory {
        self.directory
    }

    /// Takes the batches that the last process did not move into the file.
    fn find_redo(&mut self) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| StoreError::Unusable(Cause::new("the redo log", error));
        if let Some(first) = self.redo.find(self.last).map_err(failed)? {
            tracing::error!(
                newest_in_file = self.last.0,
                first_in_redo_log = first.0,
                kept = %self.redo.kept().display(),
                "the file lacks batches that were stored; later ones in the redo log cannot be used without them"
            );
            self.last = self.redo.newest().unwrap_or(self.last);
            self.need_moved()?;
            self.redo.discard().map_err(failed)?;
        }
        self.last = self.redo.newest().unwrap_or(self.last);
        Ok(())
    }

    /// Reads what the writer has to know, and holds the connection.
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

    /// Whether a batch may wait in the redo log: it needs nothing of the file that it could be denied later.
    fn may_redo(&self, batch: &Batch) -> bool {
        let is_copying = || self.connection.as_ref().is_some_and(RawConnection::is_copying);
        let is_known = |change: &LaneChange| self.lanes.get(change.lane).is_some();
        !self.full.is_full() && batch.lanes.iter().all(is_known) && !is_copying()
    }

    /// Writes a batch into the file, and what is pending before it.
    fn write(&mut self, batch: &Batch) -> CommitOutcome {
        let whole = self.redo.with(Some(batch));
        let outcome = self.write_whole(whole.as_ref().unwrap_or(batch));
        if whole.is_some() && outcome == CommitOutcome::Committed {
            self.redo.moved(batch.batch_no);
        }
        outcome
    }

    /// Moves what is pending into the file.
    fn move_redo(&mut self) -> CommitOutcome {
        let Some(whole) = self.redo.with(None) else { return CommitOutcome::Committed };
        let outcome = self.write_whole(&whole);
        match outcome {
            CommitOutcome::Committed => self.redo.moved(whole.batch_no),
            // Nobody else looks up what became of it.
            CommitOutcome::Unknown(_) => self.let_go_of_unflushed(),
            _ => {}
        }
        outcome
    }

    /// Nobody knows whether what was committed is flushed: the next commit has the file opened again.
    fn let_go_of_unflushed(&mut self) {
        self.directory.note_unflushed();
        self.connection = None;
    }

    /// What an error of housekeeping means for those who asked for it.
    fn failed(&mut self, error: rusqlite::Error) -> StoreError {
        if log::may_be_unflushed(&error) {
            self.let_go_of_unflushed();
        }
        failure(error)
    }

    /// As [`move_redo`](Self::move_redo), for those who need everything in the file.
    fn need_moved(&mut self) -> Result<(), StoreError> {
        match self.move_redo() {
            CommitOutcome::Committed => Ok(()),
            outcome => Err(not_moved(outcome)),
        }
    }

    fn write_whole(&mut self, batch: &Batch) -> CommitOutcome {
        let bounds = self.opening.checkpoint_pages.clone();
        // Erasing fills the log whatever the batches are.
        let erases = self.lanes.next_to_erase().is_some();
        let pages = if erases { *bounds.end() } else { log::pages_for(batch, &bounds) };
        let Some(mut writing) = self.writing() else { return CommitOutcome::Unknown(StoreError::NotOpen.into()) };
        writing.connection.with(|connection| log::move_after_commits(connection, pages));
        let outcome = writing.write(batch);
        if outcome == CommitOutcome::Committed { self.committed() } else { outcome }
    }

    /// None when the file is not open.
    fn writing(&mut self) -> Option<Writing<'_>> {
        let Self { connection, lanes, care, redo, full, begun, .. } = self;
        Some(Writing { connection: connection.as_ref()?, lanes, care, redo, full, begun })
    }

    /// What comes after each commit.
    fn committed(&mut self) -> CommitOutcome {
        let Some(connection) = &self.connection else { return CommitOutcome::Unknown(StoreError::NotOpen.into()) };
        match self.care.committed(connection) {
            Ok(()) => CommitOutcome::Committed,
            Err(error) => CommitOutcome::Unknown(error.into()),
        }
    }
}

impl Store for SqliteStore {
    fn recover(&mut self) -> Result<Recovered, StoreError> {
        let mut connection = self.connection.take().ok_or(StoreError::NotOpen)?.unlock();
        let recovered = block_on(topology::read(&mut connection));
        self.connection = Some(RawConnection::lock(connection)?);
        let (mut recovered, lanes) = recovered.map_err(unusable)?;
        recovered.boot += 1;
        self.lanes = lanes;
        let begun = Begun { boot: recovered.boot };
        self.writing().ok_or(StoreError::NotOpen)?.begin(begun).map_err(|error| self.failed(error))?;
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
        let is_redo = self.may_redo(batch) && self.redo.write(batch);
        let outcome = if is_redo { self.committed() } else { self.write(batch) };
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
        self.redo.reopened(self.last);
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
        self.need_moved()?;
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
                self.full.lend_for_start();
                noted = note();
            }
            // Without it the next start takes this one's end for a kill, which makes no difference to what there is.
            noted.or_else(|error| if is_full(&error) { Ok(()) } else { Err(error) })?;
            move_log()?;
            // There is nothing left to be moved: the last connection to close deletes the log.
            log::leave_at_close(connection, false)
        });
        if let Err(error) = stopped {
            self.directory.note_unflushed();
            return Err(failure(error));
        }
        let closed = block_on(connection.unlock().close()).map_err(unusable);
        // The log has given its space back: the next start needs some.
        self.full.look();
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
            let came_further = self.writing().ok_or(StoreError::NotOpen)?.erase_on_full_disk();
            if came_further.map_err(|error| self.failed(error))? {
                return Ok(true);
            }
            if !has_dead_rows {
                // All is erased. The file gets smaller when there is space to move its pages.
                return Ok(false);
            }
        }
        erased.map_err(|error| self.failed(error))
    }

    fn maintain(&mut self) -> Result<Option<Duration>, StoreError> {
        let look_again = self.writing().ok_or(StoreError::NotOpen)?.look().map_err(|error| self.failed(error))?;
        let connection = self.connection.as_ref().ok_or(StoreError::NotOpen)?;
        let next = self.care.tend(connection).map_err(|error| self.failed(error))?;
        if self.redo.moved_in().is_some_and(|wait| wait.is_zero()) {
            match self.move_redo() {
                CommitOutcome::NotCommitted(cause) => self.redo.refused(&cause),
                CommitOutcome::Committed => {}
                outcome => return Err(not_moved(outcome)),
            }
        }
        Ok([next, look_again, self.redo.moved_in()].into_iter().flatten().min())
    }
}

impl FileStats for SqliteStore {
    fn vitals(&self) -> Vitals {
        Vitals { redo_batches: self.redo.batches(), is_full: self.full.is_full(), ..self.care.vitals }
    }
}

impl Backup for SqliteStore {
    fn begin_copy(&mut self, target: &Path) -> Result<(), CopyError> {
        self.need_moved()?;
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
        // It may be what it wrote first that could not be flushed.
        Err(OpenError::Store(StoreError::Unusable(_))) => directory.note_unflushed(),
        _ => {}
    }
    connection
}

fn reserves_of(settings: &SqliteSettings, directory: &Directory) -> Reserves {
    let files = settings.layer.as_ref().map_or_else(|| Arc::new(SystemSpares) as _, |layer| Arc::clone(&layer.spares));
    Reserves::new(files, directory.reserves(), settings.reserve_bytes_max)
}

/// Where flushing a commit is left out, there is nothing that it could save.
fn redo_of(settings: &SqliteSettings, directory: &Directory) -> Redo {
    let files = settings.layer.as_ref().map_or_else(|| Arc::new(SystemFiles) as _, |layer| Arc::clone(&layer.redo));
    let bytes = if settings.durability == Durability::Commit { settings.redo_bytes } else { 0 };
    Redo::new(directory.redo(), files, bytes, Arc::clone(&settings.clock))
}

/// What an outcome other than `Committed` means for those who need the redo log's batches in the file.
fn not_moved(outcome: CommitOutcome) -> StoreError {
    let what = "the redo log could not be moved into the file";
    match outcome {
        CommitOutcome::NotCommitted(cause) | CommitOutcome::Unknown(cause) | CommitOutcome::Fatal(cause) => {
            StoreError::Unusable(Cause::new(what, cause))
        }
        CommitOutcome::Committed | CommitOutcome::Fenced => StoreError::Unusable(what.into()),
    }
}

/// Makes sure that the log is on the disk, on a connection that does nothing else: one of sqlx's begins with a small write,
/// and moves the log when that fails and it is the last to close.
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
