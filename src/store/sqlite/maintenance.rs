//! What the file needs beside batches: flushes that the level of durability left out, a write-ahead log that stays short,
//! and its size following what is in it.

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

/// Without commits for so long, the writer is idle and the file is made smaller.
const IDLE_AFTER: Duration = Duration::from_secs(1);

/// How often the log's length is looked at while there are commits, and emptying it is tried again while it is too long.
const LOG_INTERVAL: Duration = Duration::from_millis(250);

/// Our own reads end within it; who reads for longer is somebody else.
const READS_LAST: Duration = Duration::from_secs(1);

/// A log of this length is emptied when the writer is idle.
const IDLE_LOG_BYTES: u64 = 4 << 20;

/// Making room on a full disk takes no longer than about this.
const RECLAIM_TIME: Duration = Duration::from_secs(2);

/// And goes in slices of so much.
const RECLAIM_SLICE: Slice = Slice { rows: 1_000, pages: 64 };

/// What is erased or given back in one transaction: the less, the shorter the log that it needs.
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

/// The state of a file's upkeep.
pub(super) struct FileMaintenance {
    clock: Arc<dyn Clock>,
    durability: Durability,
    interval: Duration,
    file: PathBuf,
    log: PathBuf,
    log_bytes_max: u64,
    /// The first commit that is not flushed.
    unflushed_since: Option<Monotonic>,
    last_commit: Monotonic,
    log_seen_at: Monotonic,
    /// The log has been too long since then, and could not be emptied.
    too_long_since: Option<Monotonic>,
    /// There were commits since the file was made as small as it gets.
    may_shrink: bool,
    /// Pages given back in one slice.
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
            log_seen_at: now,
            too_long_since: None,
            may_shrink: true,
            slice: 128,
            vitals: Vitals::default(),
        }
    }

    /// After a commit: what cannot wait for an idle moment, since there may be none.
    pub(super) fn committed(&mut self, connection: &RawConnection) -> Result<()> {
        let now = self.clock.now().monotonic;
        self.last_commit = now;
        self.may_shrink = true;
        if now.since(self.log_seen_at) >= LOG_INTERVAL {
            connection.with(|connection| self.look_at_log(connection, now))?;
        }
        if self.durability == Durability::Interval {
            let since = *self.unflushed_since.get_or_insert(now);
            if now.since(since) >= self.interval {
                connection.with(|connection| self.flush(connection))?;
            }
        }
        Ok(())
    }

    /// When there is nothing to commit: does what is due, and says when to be called again.
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
            if now.since(self.log_seen_at) >= LOG_INTERVAL {
                connection.with(|connection| self.look_at_log(connection, now))?;
            }
            at(LOG_INTERVAL);
        }
        if self.may_shrink {
            match IDLE_AFTER.checked_sub(now.since(self.last_commit)) {
                Some(left) if !left.is_zero() => at(left),
                // A copy that is under way would begin anew.
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

    /// Flushes what was committed without.
    fn flush(&mut self, connection: &Connection) -> Result<()> {
        log::flush(connection)?;
        self.unflushed_since = None;
        Ok(())
    }

    /// Empties a log that is too long, or finds out that somebody keeps it.
    fn look_at_log(&mut self, connection: &Connection, now: Monotonic) -> Result<()> {
        self.log_seen_at = now;
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

    /// Moves the log into the file and cuts it to nothing; `false` when a reader needs it. Waits for nobody.
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

    /// On a full disk: empties the log, which needs no space and gives its own back; whether it is empty. An error says that
    /// what was committed may not be flushed.
    pub(super) fn empty_full_log(&mut self, connection: &RawConnection) -> Result<bool> {
        match connection.with(|connection| self.empty_log(connection)) {
            Err(error) if !may_be_unflushed(&error) => {
                tracing::warn!(%error, "the log could not be emptied");
                Ok(false)
            }
            emptied => emptied,
        }
    }

    /// On a full disk: erases what is dead and gives its pages back. Where there is no space for the log of that, the reserve
    /// is lent. An error says that what was committed may not be flushed.
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

    /// What is written to the log is moved at once: there may be no room for much of it, and only then does the file become
    /// smaller.
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

    /// A log that does not fit into the file, of a version that took no place for it there, does once the file is smaller.
    fn try_to_empty_log(&mut self, connection: &Connection) -> Result<()> {
        match self.empty_log(connection) {
            Err(error) if !is_full(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Gives a slice of free pages back; whether there are more. Nothing depends on it, so that errors only end it, unless
    /// they say that what was committed may not be flushed.
    fn shrink(&mut self, connection: &Connection, now: Monotonic) -> Result<bool> {
        let shrunk = shrink(connection, self.slice).and_then(|shrunk| {
            if shrunk == ShrinkProgress::Enough {
                // A file that was made smaller is so once the log that says it is moved.
                if len_of(&self.log) > IDLE_LOG_BYTES || len_of(&self.file) > file_bytes(connection)? {
                    self.empty_log(connection)?;
                }
                self.look_at_log(connection, now)?;
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

/// The other processes that hold a lock on the log's index: those that read, or have the file open at least.
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
