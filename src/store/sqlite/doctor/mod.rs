//! Looking a store over while no broker runs on it, and mending it.
//!
//! `examine` reads everything once and compares it; `walk` reads around damaged pages; `repair` mends in place what SQLite
//! can still write, and otherwise salvages what can be read into a new file. The old file is always kept.

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

/// What was found in a store, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnosis {
    /// Queues that it holds.
    pub queues: u64,
    /// Rows that can be read.
    pub rows: u64,
    /// What is wrong, a sentence each.
    pub findings: Vec<String>,
    /// What a repair does about it, once for each kind of finding.
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

    /// Nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// What a repair found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepairReport {
    /// What the file was like.
    pub before: Diagnosis,
    /// What it is like now.
    pub after: Diagnosis,
    /// Where the file as it was lies now; none when nothing was wrong.
    pub kept: Option<PathBuf>,
}

/// Looks a store over and changes nothing.
///
/// # Errors
/// When a broker runs on it, or it cannot be read at all.
pub fn diagnose(directory: &Path) -> Result<Diagnosis, OpenError> {
    let held = Directory::hold_existing(directory)?;
    let connection = open(&held.database(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    Ok(Diagnosis::of(&look(&connection)?))
}

/// Looks a store over and mends it, once a copy of it is made.
///
/// # Errors
/// When a broker runs on it, it cannot be read at all, or the disk refuses. The file is what it was then.
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
    // What is counted anew must have it all.
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

/// Replaces the file by one of everything that can be read.
fn salvage(file: &Path, redo: Option<BatchNo>) -> Result<(), OpenError> {
    let new = with_suffix(file, ".salvaged");
    {
        let source = open(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // The log must be gone before another file takes the place of the one that it belongs to. Moving its pages reads
        // none of them.
        source.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(|error| unusable(file, error))?;
        repair::salvage(&source, &new, redo)?;
    }
    for beside in ["-wal", "-shm"] {
        // SQLite has removed them as a rule.
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

/// Where the list of migrations is damaged itself, the newest schema is told by what it added.
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
