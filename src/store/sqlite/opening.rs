//! Opening and migrating the file, through sqlx.

use super::backup::copy_file;
use super::errors::unusable;
use super::files::with_suffix;
use super::flushing::{LogIndex, layer};
use super::log::leave_at_close;
use super::opened_file::PAGE_BYTES;
use super::settings::SqliteSettings;
use crate::config::Durability;
use crate::store::{OpenError, StoreError};
use rusqlite::OpenFlags;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, Row, SqlSafeStr, SqliteConnection};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The schemas up to the newest that this binary knows, with their scripts.
pub(super) const SCHEMAS: [(&str, &str); 4] = [
    ("first", include_str!("schema_1.sql")),
    ("stored_at, shared bodies and chunks", include_str!("schema_2.sql")),
    ("batches noted in lanes", include_str!("schema_3.sql")),
    ("the cluster's id, users of the settings", include_str!("schema_4.sql")),
];

/// SQLite's number for the mode that gives free pages back step by step.
const INCREMENTAL: i64 = 2;

/// How long a connection waits for a lock of another one.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How connections to the file are opened.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    file: PathBuf,
    durability: Durability,
    pub(super) checkpoint_pages: RangeInclusive<u32>,
    log_bytes_kept: u64,
    /// SQLite's name for the layer that reaches the files.
    vfs: String,
    /// Where the index of the log is, if the layer is ours.
    index: Option<LogIndex>,
}

impl Opening {
    pub(super) fn new(file: PathBuf, settings: &SqliteSettings) -> Self {
        let (vfs, index) = match &settings.layer {
            Some(layer) => (layer.vfs.clone(), None),
            None => (layer(LogIndex::InFile).to_owned(), Some(LogIndex::InFile)),
        };
        Self {
            file,
            durability: settings.durability,
            checkpoint_pages: settings.checkpoint_pages.clone(),
            log_bytes_kept: settings.log_bytes_max,
            vfs,
            index,
        }
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// From here on the index of the log is in this process's memory, if the layer is ours. Other processes cannot open
    /// the file then. Returns whether that is a change.
    pub(super) fn keep_index_in_memory(&mut self) -> bool {
        let can = self.index == Some(LogIndex::InFile);
        if can {
            tracing::warn!(
                "there is no space for the index of the log: other programs cannot read the store until the next start"
            );
            self.vfs = layer(LogIndex::InMemory).to_owned();
            self.index = Some(LogIndex::InMemory);
        }
        can
    }

    /// A connection to an existing file that has not read or written anything yet.
    pub(super) fn connect_plainly(&self) -> rusqlite::Result<rusqlite::Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        rusqlite::Connection::open_with_flags_and_vfs(&self.file, flags, self.vfs.as_str())
    }

    /// Whether the file exists and gives free pages back step by step.
    fn is_incremental(&self) -> bool {
        let found = self.connect_plainly().and_then(|connection| {
            leave_at_close(&connection, true)?;
            connection.query_row("PRAGMA auto_vacuum", [], |row| row.get::<_, i64>(0))
        });
        found.is_ok_and(|found| found == INCREMENTAL)
    }

    pub(super) async fn connect(&self, cache_bytes: usize) -> Result<SqliteConnection, StoreError> {
        let synchronous = match self.durability {
            Durability::Commit => SqliteSynchronous::Full,
            Durability::Interval => SqliteSynchronous::Normal,
            Durability::Off => SqliteSynchronous::Off,
        };
        let mut options = SqliteConnectOptions::new()
            .filename(&self.file)
            .create_if_missing(true)
            .page_size(PAGE_BYTES)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(synchronous)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("cache_size", format!("-{}", cache_bytes / 1024))
            .pragma("wal_autocheckpoint", "0")
            .pragma("journal_size_limit", self.log_bytes_kept.to_string())
            .pragma("temp_store", "MEMORY")
            .pragma("mmap_size", "0")
            .vfs(self.vfs.clone())
            .thread_name(|_| "pronto-sqlite".into());
        if !self.is_incremental() {
            // Setting the mode writes even if it does not change: on a full disk the file could not be opened.
            options = options.auto_vacuum(SqliteAutoVacuum::Incremental);
        }
        SqliteConnection::connect_with(&options).await.map_err(unusable)
    }
}

/// Brings the file to the newest schema, once a copy of it is made. Refuses one that is newer.
pub(super) async fn migrate(connection: &mut SqliteConnection, file: &Path) -> Result<(), OpenError> {
    let known = SCHEMAS.len() as i64;
    let found = schema_of(connection).await.map_err(unusable)?;
    if found > known {
        return Err(OpenError::NewerSchema { found, known });
    }
    if 0 < found && found < known && was_used(connection).await.map_err(unusable)? {
        let kept = with_suffix(file, &format!(".schema-{found}.backup"));
        tracing::info!(from = found, to = known, kept = %kept.display(), "migrating the file; first it is copied");
        copy_file(file, &kept)?;
    }
    Ok(run(connection, &SCHEMAS).await?)
}

/// Runs the scripts that were not run on the file yet.
pub(super) async fn run(
    connection: &mut SqliteConnection,
    schemas: &[(&'static str, &'static str)],
) -> Result<(), StoreError> {
    let migrations = schemas.iter().zip(1..).map(|(&(name, script), version)| {
        Migration::new(version, name.into(), MigrationType::Simple, script.into_sql_str(), false)
    });
    let migrator = Migrator::with_migrations(migrations.collect());
    migrator.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => unusable(error),
        other => StoreError::Unusable(other.into()),
    })
}

/// Whether a broker has ever run on the file. If not, making it was interrupted, and there is nothing to copy.
async fn was_used(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let boot = sqlx::query("SELECT boot FROM state").fetch_one(connection).await?;
    Ok(boot.try_get::<i64, _>(0)? > 0)
}

async fn schema_of(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    let tables = "SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'";
    let is_new = sqlx::query(tables).fetch_one(&mut *connection).await?.try_get::<i64, _>(0)? == 0;
    if is_new {
        return Ok(0);
    }
    let newest = "SELECT coalesce(max(version), 0) FROM _sqlx_migrations";
    sqlx::query(newest).fetch_one(connection).await?.try_get(0)
}
