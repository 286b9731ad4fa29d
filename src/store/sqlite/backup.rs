//! Copies of the file: read through SQLite, and flushed before they get their name.
//!
//! Before a migration, and if no broker has the file open, the copy is made in one go. A running broker copies its file
//! step by step between its commits (`raw`).

use super::directory::{Directory, database_file, make, redo_file};
use super::errors::failure_while;
use super::files::{flush, flush_folder_of, with_suffix};
use crate::store::{Cause, CopyError, CopyProgress, StoreError};
use rusqlite::backup::{Backup, Progress, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Pages copied in one step while no broker has the file open.
const PAGES_PER_STEP: i32 = 1_024;

/// A data directory that is being made. It has the suffix `.partial` until all of it is flushed, and is removed if that
/// fails.
#[derive(Debug)]
pub struct BackupTarget {
    target: PathBuf,
    partial: PathBuf,
    is_finished: bool,
}

impl BackupTarget {
    /// Makes an empty directory beside `target`, which must not exist.
    ///
    /// # Errors
    /// When `target` exists, an earlier try has left its directory, or no directory can be made.
    pub fn make(target: &Path) -> Result<Self, CopyError> {
        let exists = |path: &Path| path.symlink_metadata().is_ok();
        if exists(target) {
            return Err(CopyError::TargetExists(target.to_owned()));
        }
        let partial = with_suffix(target, ".partial");
        if exists(&partial) {
            return Err(CopyError::PartialExists(partial));
        }
        make(&partial).map_err(|error| failed(partial.display(), error))?;
        Ok(Self { target: target.to_owned(), partial, is_finished: false })
    }

    /// The path of the copied file.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        database_file(&self.partial)
    }

    /// Copies the redo log, if there is one: its batches may not be in the file.
    fn take(&self, redo: &Path) -> Result<(), CopyError> {
        let copy = redo_file(&self.partial);
        match fs::copy(redo, &copy) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            copied => copied.and_then(|_| flush(&copy)),
        }
        .map_err(|error| failed(format_args!("copying {}", redo.display()), error))
    }

    /// Flushes the copy and gives it its name. Returns its size in bytes. Blocks as long as the disk takes.
    ///
    /// # Errors
    /// When the disk refuses. Then nothing of the copy is left.
    pub fn finish(mut self) -> Result<u64, CopyError> {
        let file = self.file();
        let finish = || {
            flush(&file)?;
            flush(&self.partial)?;
            // If an empty directory has appeared there, it is replaced. Anything else is an error.
            fs::rename(&self.partial, &self.target)?;
            flush_folder_of(&self.target)?;
            fs::metadata(database_file(&self.target)).map(|file| file.len())
        };
        let finished = finish();
        self.is_finished = finished.is_ok();
        finished.map_err(|error| failed(self.target.display(), error))
    }
}

impl Drop for BackupTarget {
    fn drop(&mut self) {
        if !self.is_finished
            && let Err(error) = fs::remove_dir_all(&self.partial)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, partial = %self.partial.display(), "what is left of a backup could not be removed");
        }
    }
}

/// Copies the file of a data directory that no broker has open to a new data directory `target`. Returns the copy's bytes.
///
/// # Errors
/// When the directory is locked or has no store, `target` exists, or the disk refuses.
pub fn back_up(directory: &Path, target: &Path, progress: impl FnMut(CopyProgress)) -> Result<u64, CopyError> {
    let held = Directory::hold_existing(directory)?;
    let target = BackupTarget::make(target)?;
    let file = held.database();
    copy_pages(&file, &target.file(), progress)
        .map_err(|error| failure_while(format!("copying {}", file.display()), error))?;
    target.take(&held.redo())?;
    target.finish()
}

/// Copies the file to `target`. A file there is replaced only once the copy is flushed.
pub(super) fn copy_file(file: &Path, target: &Path) -> Result<(), StoreError> {
    let partial = with_suffix(target, ".partial");
    let failed = |cause: Cause| {
        // What cannot be removed is overwritten by the next attempt.
        let _ = fs::remove_file(&partial);
        StoreError::Unusable(Cause::new(format!("copying {} to {}", file.display(), target.display()), cause))
    };
    copy_pages(file, &partial, |_| {}).map_err(|error| failed(error.into()))?;
    flush(&partial).and_then(|()| fs::rename(&partial, target)).map_err(|error| failed(error.into()))?;
    flush_folder_of(target).map_err(|error| failed(error.into()))
}

/// The error of a copy for one of the system; `what` was being done.
fn failed(what: impl std::fmt::Display, error: io::Error) -> CopyError {
    StoreError::Unusable(Cause::new(what.to_string(), error)).into()
}

fn copy_pages(file: &Path, target: &Path, mut progress: impl FnMut(CopyProgress)) -> rusqlite::Result<()> {
    let source = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut target = open_target(target)?;
    let backup = Backup::new(&source, &mut target)?;
    loop {
        let result = backup.step(PAGES_PER_STEP)?;
        progress(progress_from(&backup.progress(), result == StepResult::Done));
        match result {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            _ => {
                return Err(rusqlite::Error::SqliteFailure(
                    rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY),
                    None,
                ));
            }
        }
    }
}

pub(super) fn progress_from(progress: &Progress, is_done: bool) -> CopyProgress {
    let pages = |pages: i32| u64::try_from(pages).unwrap_or(0);
    let all = pages(progress.pagecount);
    CopyProgress { pages_copied: all.saturating_sub(pages(progress.remaining)), pages: all, is_done }
}

/// Opens the target of a copy, without journal and without flushes: the caller flushes it once at the end.
pub(super) fn open_target(target: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(target)?;
    connection.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    Ok(connection)
}
