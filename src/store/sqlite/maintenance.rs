//! Maintenance of the file: flushes that the level of durability has left out, a short write-ahead log, and a file that
//! shrinks with its contents.

use super::erasing::{SLICE_TIME, ShrinkProgress, erase, shrink};
use super::errors::{is_full, may_be_unflushed};
use super::files::with_suffix;
use super::lanes::Lanes;
use super::log;
use super::opening::BUSY_TIMEOUT;
use super::raw::RawConnection;
use super::reserve::Reserves;
use super::settings::SqliteSettings;
use super::statements::number;
use crate::config::Durability;
use crate::model::{Clock, Monotonic};
use crate::store::Vitals;
use rusqlite::{Connection, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// After this time without commits the writer is idle, and the file is made smaller.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// How often the log's length is checked while there are commits, and how often emptying it is tried while it is too long.
const LOG_INTERVAL: Duration = Duration::from_millis(250);

/// Reads of this process end within this time. If one lasts longer, another process reads.
const READS_LAST: Duration = Duration::from_secs(1);

/// A log of this length is emptied when the writer is idle.
const IDLE_LOG_BYTES: u64 = 4 << 20;

/// Reclaiming space on a full disk takes about this time at most.
const RECLAIM_TIME: Duration = Duration::from_secs(2);

/// The first slice of reclaiming space.
const RECLAIM_SLICE: Slice = Slice { rows: 1_000, pages: 64 };

/// Rows erased, or pages given back, in one transaction. A smaller slice needs less log.
#[derive(Clone, Copy, Debug)]
struct Slice {
    rows: usize,
    pages: u32,
}

impl Slice {
    fn smaller(self) -> Self {
        Self { rows: (self.rows / 4).max(1), pages: (self.pages / 4).max(1) }
    }
}

/// Maintains one file.
pub(super) struct FileMaintenance {
    clock: Arc<dyn Clock>,
    durability: Durability,
    interval: Duration,
    file: PathBuf,
    log: PathBuf,
    log_bytes_max: u64,
    /// When the first commit was made that is not flushed.
    unflushed_since: Option<Monotonic>,
    last_commit: Monotonic,
    log_checked_at: Monotonic,
    /// Since when the log is too long and cannot be emptied.
    too_long_since: Option<Monotonic>,
    /// There were commits since the file was last made as small as possible.
    may_shrink: bool,
    /// Pages to give back in one slice.
    slice: u32,
    pub(super) vitals: Vitals,
}

impl FileMaintenance {
    pub(super) fn new(settings: &SqliteSettings, file: &Path) -> Self {
        let now = settings.clock.now().monotonic;
        Self {
            clock: Arc::clone(&settings.clock),
            durability: settings.durability,
            interval: settings.durability_interval,
            log: with_suffix(file, "-wal"),
            file: file.to_owned(),
            log_bytes_max: settings.log_bytes_max,
            unflushed_since: None,
            last_commit: now,
            log_checked_at: now,
            too_long_since: None,
            may_shrink: true,
            slice: 128,
            vitals: Vitals::default(),
        }
    }

    /// The maintenance after a commit that cannot wait for an idle moment, since there may be none.
    pub(super) fn committed(&mut self, connection: &RawConnection) -> Result<()> {
        let now = self.clock.now().monotonic;
        self.last_commit = now;
        self.may_shrink = true;
        if now.since(self.log_checked_at) >= LOG_INTERVAL {
            connection.with(|connection| self.check_log(connection, now))?;
        }
        if self.durability == Durability::Interval {
            let since = *self.unflushed_since.get_or_insert(now);
            if now.since(since) >= self.interval {
                connection.with(|connection| self.flush(connection))?;
            }
        }
        Ok(())
    }

    /// The maintenance in an idle moment. Returns when the next call is due, if ever.
    pub(super) fn maintain(&mut self, connection: &RawConnection) -> Result<Option<Duration>> {
        let now = self.clock.now().monotonic;
        let mut next = None;
        let mut at = |wait: Duration| next = Some(next.map_or(wait, |next: Duration| next.min(wait)));
        if let Some(since) = self.unflushed_since {
            match self.interval.checked_sub(now.since(since)) {
                Some(left) if !left.is_zero() => at(left),
                _ => connection.with(|connection| self.flush(connection))?,
            }
        }
        if self.too_long_since.is_some() {
            if now.since(self.log_checked_at) >= LOG_INTERVAL {
                connection.with(|connection| self.check_log(connection, now))?;
            }
            at(LOG_INTERVAL);
        }
        if self.may_shrink {
            match IDLE_AFTER.checked_sub(now.since(self.last_commit)) {
                Some(left) if !left.is_zero() => at(left),
                // A copy that is under way would start over.
                _ if connection.is_copying() => at(IDLE_AFTER),
                _ => {
                    if connection.with(|connection| self.shrink(connection, now))? {
                        at(Duration::ZERO);
                    }
                }
            }
        }
        Ok(next)
    }

    /// Flushes commits that were not flushed.
    fn flush(&mut self, connection: &Connection) -> Result<()> {
        log::flush(connection)?;
        self.unflushed_since = None;
        Ok(())
    }

    /// Measures the log, and empties it if it is too long. Warns if another process keeps it from being emptied.
    fn check_log(&mut self, connection: &Connection, now: Monotonic) -> Result<()> {
        self.log_checked_at = now;
        self.vitals.log_bytes = len_of(&self.log);
        self.vitals.file_bytes = file_bytes(connection)?;
        if self.vitals.log_bytes > self.log_bytes_max && !self.empty_log(connection)? {
            let since = *self.too_long_since.get_or_insert(now);
            if now.since(since) >= READS_LAST && !self.vitals.log_is_pinned {
                self.vitals.log_is_pinned = true;
                tracing::warn!(
                    bytes = self.vitals.log_bytes,
                    limit = self.log_bytes_max,
                    processes = ?readers_of(&self.log),
                    "the write-ahead log cannot be emptied: another process has the file open and reads what was there \
                     before; publishers wait until it is done"
                );
            }
            return Ok(());
        }
        self.too_long_since = None;
        if self.vitals.log_is_pinned {
            self.vitals.log_is_pinned = false;
            tracing::info!(bytes = self.vitals.log_bytes, "the write-ahead log is short again");
        }
        Ok(())
    }

    /// Moves the log into the file and truncates it. `false` if a reader needs it; there is no waiting for readers.
    fn empty_log(&mut self, connection: &Connection) -> Result<bool> {
        connection.busy_timeout(Duration::ZERO)?;
        let is_busy = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0));
        connection.busy_timeout(BUSY_TIMEOUT)?;
        if is_busy? {
            return Ok(false);
        }
        self.vitals.log_bytes = len_of(&self.log);
        // The log was flushed before it was moved.
        self.unflushed_since = None;
        Ok(true)
    }

    /// On a full disk: empties the log, which needs no space and frees the log's own. Returns whether the log is empty.
    /// An error means that commits may not be flushed.
    pub(super) fn empty_full_log(&mut self, connection: &RawConnection) -> Result<bool> {
        match connection.with(|connection| self.empty_log(connection)) {
            Err(error) if !may_be_unflushed(&error) => {
                tracing::warn!(%error, "the log could not be emptied");
                Ok(false)
            }
            emptied => emptied,
        }
    }

    /// On a full disk: erases dead rows and gives their pages back. If there is no space for the log of that, the reserve is
    /// released. An error means that commits may not be flushed.
    pub(super) fn reclaim_space(
        &mut self,
        connection: &RawConnection,
        lanes: &mut Lanes,
        reserves: &Reserves,
    ) -> Result<()> {
        match self.try_to_reclaim(connection, lanes, reserves) {
            Err(error) if !may_be_unflushed(&error) => {
                tracing::warn!(%error, "the file and its log could not be made smaller");
                Ok(())
            }
            made => made,
        }
    }

    fn try_to_reclaim(&mut self, connection: &RawConnection, lanes: &mut Lanes, reserves: &Reserves) -> Result<()> {
        let began = self.clock.now().monotonic;
        let mut is_released = false;
        let mut slice = RECLAIM_SLICE;
        while self.clock.now().monotonic.since(began) < RECLAIM_TIME {
            match connection.with(|connection| self.reclaim_slice(connection, lanes, slice)) {
                Ok(ShrinkProgress::Enough) => break,
                Ok(ShrinkProgress::More) => {}
                Err(error) if is_full(&error) && !is_released && reserves.release() => is_released = true,
                Err(error) if is_full(&error) && slice.rows > 1 => slice = slice.smaller(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Erases or gives back one slice, and empties the log: there may be no space for a longer log, and the file
    /// becomes smaller only when the log is moved.
    fn reclaim_slice(&mut self, connection: &Connection, lanes: &mut Lanes, slice: Slice) -> Result<ShrinkProgress> {
        self.try_to_empty_log(connection)?;
        let shrunk = if lanes.next_to_erase().is_some() {
            erase(connection, lanes, slice.rows)?;
            ShrinkProgress::More
        } else {
            shrink(connection, slice.pages)?
        };
        self.try_to_empty_log(connection)?;
        Ok(shrunk)
    }

    /// Empties the log; a full disk is no error. The log of an older version may need space that the file has only once
    /// it is smaller.
    fn try_to_empty_log(&mut self, connection: &Connection) -> Result<()> {
        match self.empty_log(connection) {
            Err(error) if !is_full(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Gives a slice of free pages back. Returns whether there are more. Nothing depends on it, so that an error only
    /// ends it, unless the error means that commits may not be flushed.
    fn shrink(&mut self, connection: &Connection, now: Monotonic) -> Result<bool> {
        let shrunk = shrink(connection, self.slice).and_then(|shrunk| {
            if shrunk == ShrinkProgress::Enough {
                // The file itself becomes smaller when the log is moved.
                if len_of(&self.log) > IDLE_LOG_BYTES || len_of(&self.file) > file_bytes(connection)? {
                    self.empty_log(connection)?;
                }
                self.check_log(connection, now)?;
            }
            Ok(shrunk)
        });
        let took = self.clock.now().monotonic.since(now);
        if took > SLICE_TIME {
            self.slice = (self.slice / 2).max(8);
        } else if took * 4 < SLICE_TIME {
            self.slice = (self.slice * 2).min(1_024);
        }
        match shrunk {
            Ok(ShrinkProgress::More) => return Ok(true),
            Ok(ShrinkProgress::Enough) => {}
            Err(error) if may_be_unflushed(&error) => return Err(error),
            Err(error) => tracing::warn!(%error, "the file could not be made smaller"),
        }
        self.may_shrink = false;
        Ok(false)
    }
}

fn len_of(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

fn file_bytes(connection: &Connection) -> Result<u64> {
    let pages = number(connection, "PRAGMA page_count")?;
    Ok((pages * number(connection, "PRAGMA page_size")?).cast_unsigned())
}

/// Other processes that have a lock on the log's index: they read, or at least have the file open.
#[cfg(target_os = "linux")]
fn readers_of(log: &Path) -> Vec<u32> {
    use std::os::unix::fs::MetadataExt;
    let index = log.with_extension("sqlite3-shm");
    let (Ok(index), Ok(locks)) = (std::fs::metadata(index), std::fs::read_to_string("/proc/locks")) else {
        return Vec::new();
    };
    let own = std::process::id();
    let mut processes: Vec<u32> = locks
        .lines()
        .filter_map(|line| {
            // 1: POSIX  ADVISORY  READ 4711 fe:00:123456 123 123
            let fields: Vec<_> = line.split_whitespace().collect();
            let inode = fields.get(5)?.rsplit(':').next()?.parse::<u64>().ok()?;
            (inode == index.ino()).then(|| fields[4].parse().ok())?
        })
        .filter(|process| *process != own)
        .collect();
    processes.sort_unstable();
    processes.dedup();
    processes
}

#[cfg(not(target_os = "linux"))]
fn readers_of(_log: &Path) -> Vec<u32> {
    Vec::new()
}
