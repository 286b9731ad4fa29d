//! Copies of the file that are whole: read through SQLite, flushed before they are called by their name.

use crate::store::StoreError;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Pages copied in one step when nobody else wants the file.
const PAGES_PER_STEP: i32 = 1_024;

/// Copies the file to `target`, replacing what is there only once the copy is flushed.
pub(super) fn copy_file(file: &Path, target: &Path) -> Result<(), StoreError> {
    let partial = with_suffix(target, ".partial");
    let failed = |error: &dyn std::fmt::Display| {
        // What cannot be removed is overwritten by the next attempt.
        let _ = fs::remove_file(&partial);
        StoreError::Unusable(format!("copying {} to {}: {error}", file.display(), target.display()))
    };
    copy_pages(file, &partial).map_err(|error| failed(&error))?;
    flush(&partial).and_then(|()| fs::rename(&partial, target)).map_err(|error| failed(&error))?;
    flush_folder_of(target).map_err(|error| failed(&error))
}

fn copy_pages(file: &Path, target: &Path) -> rusqlite::Result<()> {
    let source = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let mut target = open_target(target)?;
    let backup = Backup::new(&source, &mut target)?;
    while backup.step(PAGES_PER_STEP)? != StepResult::Done {}
    Ok(())
}

/// A file for pages to be copied into: without journal and without flushes, since whoever copies flushes it once.
fn open_target(target: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(target)?;
    connection.pragma_update_and_check(None, "journal_mode", "OFF", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "OFF")?;
    Ok(connection)
}

fn flush(file: &Path) -> std::io::Result<()> {
    File::open(file)?.sync_all()
}

fn flush_folder_of(file: &Path) -> std::io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// The path with something behind its name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}
