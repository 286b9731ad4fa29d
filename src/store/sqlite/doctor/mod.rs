//! Checking and repairing a store while no broker runs on it.
//!
//! `examine` reads everything once and compares it; `walk` reads around damaged pages. `repair` corrects the file in
//! place if SQLite can still write it, and otherwise copies everything that can be read into a new file. A copy of the
//! old file is always kept.

mod examine;
mod finding;
mod repair;
#[cfg(test)]
mod tests;
mod walk;

use super::directory::Directory;
use super::errors::failure;
use super::files::{flush_folder_of, with_suffix};
use super::opening::SCHEMAS;
use super::redo::first_batch;
use super::settings::SqliteSettings;
use super::store::SqliteStore;
use crate::store::{BatchNo, Cause, OpenError, StoreError};
use examine::{Examination, examine};
use finding::Remedy;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The result of checking a store, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// The number of queues in it.
    pub queues: u64,
    /// The number of rows that can be read.
    pub rows: u64,
    /// The faults, one sentence each.
    pub findings: Vec<String>,
    /// The actions of a repair, once for each kind of fault.
    pub remedies: Vec<String>,
}

impl Diagnosis {
    fn of(examined: &Examination) -> Self {
        let remedies: BTreeSet<Remedy> = examined.findings.iter().map(finding::Finding::remedy).collect();
        Self {
            queues: examined.queues.len() as u64,
            rows: examined.rows,
            findings: examined.findings.iter().map(ToString::to_string).collect(),
            remedies: remedies.iter().map(ToString::to_string).collect(),
        }
    }

    /// Whether there are no faults.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// The result of a repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairReport {
    /// The faults before the repair.
    pub before: Diagnosis,
    /// The faults after the repair.
    pub after: Diagnosis,
    /// The copy of the old file; `None` if there were no faults.
    pub kept: Option<PathBuf>,
}

/// Checks a store and changes nothing.
///
/// # Errors
/// When a broker runs on it, or the file cannot be read at all.
pub fn diagnose(directory: &Path) -> Result<Diagnosis, OpenError> {
    let held = Directory::hold_existing(directory)?;
    let connection = open(&held.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(Diagnosis::of(&look(&connection)?))
}

/// Checks a store and repairs it, once a copy of it is made.
///
/// # Errors
/// When a broker runs on it, the file cannot be read at all, or the disk refuses. The file is unchanged then.
pub fn repair(directory: &Path) -> Result<RepairReport, OpenError> {
    let held = Directory::hold_existing(directory)?;
    let file = held.database();
    let examined = {
        let connection = open(&file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        look(&connection)?
    };
    let before = Diagnosis::of(&examined);
    if before.is_sound() {
        return Ok(RepairReport { after: before.clone(), before, kept: None });
    }
    let kept = repair::keep_copy(&file, &held.redo()).map_err(|error| unusable(&file, error))?;
    let is_damaged = examined.findings.iter().any(|finding| finding.remedy() == Remedy::Salvage);
    if is_damaged {
        salvage(&file, first_batch(&held.redo()))?;
    }
    // The redo log's batches must be in the file before rows are counted.
    let mut store = SqliteStore::open_held(held, &SqliteSettings::new(directory))?;
    store.require_moved()?;
    let _held = store.into_directory();
    let mended = look(&open(&file, OpenFlags::SQLITE_OPEN_READ_ONLY)?)?;
    let mut connection = open(&file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    repair::mend(&mut connection, &mended).map_err(|error| unusable(&file, error))?;
    let after = Diagnosis::of(&look(&connection)?);
    connection.close().map_err(|(_, error)| unusable(&file, error))?;
    Ok(RepairReport { before, after, kept: Some(kept) })
}

/// Replaces the file by one with everything that can be read.
fn salvage(file: &Path, redo: Option<BatchNo>) -> Result<(), OpenError> {
    let new = with_suffix(file, ".salvaged");
    {
        let source = open(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // The log must be empty before another file takes the place of the one that it belongs to. Moving its pages does not
        // read any of the file.
        source.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(|error| unusable(file, error))?;
        repair::salvage(&source, &new, redo)?;
    }
    for beside in ["-wal", "-shm"] {
        // As a rule, SQLite has removed them already.
        let _ = fs::remove_file(with_suffix(file, beside));
    }
    Ok(fs::rename(&new, file).and_then(|()| flush_folder_of(file)).map_err(|error| unusable(file, error))?)
}

fn open(file: &Path, flags: OpenFlags) -> Result<Connection, OpenError> {
    let open = || {
        let connection = Connection::open_with_flags(file, flags)?;
        connection.pragma_update(None, "cell_size_check", true)?;
        let schema = schema_of(&connection)?;
        Ok((connection, schema))
    };
    let (connection, schema) = open().map_err(|error| beyond_repair(file, error))?;
    let known = SCHEMAS.len() as i64;
    match schema {
        found if found > known => Err(OpenError::NewerSchema { found, known }),
        found if found < known => Err(OpenError::OlderSchema { found, known }),
        _ => Ok(connection),
    }
}

/// The schema of the file. If the list of migrations itself is damaged, the newest schema is recognized by a column of it.
fn schema_of(connection: &Connection) -> rusqlite::Result<i64> {
    let newest = connection.query_row("SELECT max(version) FROM _sqlx_migrations", [], |row| row.get::<_, i64>(0));
    newest.or_else(|error| {
        let added = "SELECT count(*) FROM pragma_table_info('lane') WHERE name = 'batch_no'";
        match connection.query_row(added, [], |row| row.get::<_, i64>(0))? {
            0 => Err(error),
            _ => Ok(SCHEMAS.len() as i64),
        }
    })
}

fn look(connection: &Connection) -> Result<Examination, StoreError> {
    examine(connection).map_err(|error| StoreError::Unusable(Cause::new("reading the store failed", error)))
}

fn beyond_repair(file: &Path, error: rusqlite::Error) -> StoreError {
    let file = file.display();
    match failure(error) {
        StoreError::DiskFull(cause) => StoreError::DiskFull(Cause::new(file.to_string(), cause)),
        StoreError::Damaged(cause) | StoreError::Unusable(cause) => {
            let why = "its beginning, without which nothing in it is found, cannot be read";
            StoreError::Unusable(Cause::new(format!("{file}: {why}; what is left is a backup"), cause))
        }
        other => other,
    }
}

fn unusable(file: &Path, error: impl Into<Cause>) -> StoreError {
    StoreError::Unusable(Cause::new(file.display().to_string(), error))
}
