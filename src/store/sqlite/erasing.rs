//! Erasing dead rows and giving free pages back to the file system, in slices between commits.

use super::bodies;
use super::errors::is_full;
use super::growth::Growth;
use super::lanes::{DeadRange, Lanes};
use super::statements::{DELETE_RANGE, number, run};
use rusqlite::{Connection, OptionalExtension, Result, params};
use std::time::Duration;

const DELETE_LANE: &str = "DELETE FROM lane WHERE number = ?1";
const UPDATE_BODIES: &str = "UPDATE lane SET bodies = ?2 WHERE number = ?1";
/// The first key behind a slice of `?3` rows.
const SLICE_END: &str = "SELECT id FROM message WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT 1 OFFSET ?3";
/// The keys of a slice, with the bytes of their bodies where these are in a table of their own.
const SLICE_BYTES: &str = "SELECT m.id, coalesce(b.bytes, 0) FROM message m LEFT JOIN body b \
    ON typeof(m.body) = 'integer' AND b.id = m.body WHERE m.id BETWEEN ?1 AND ?2 ORDER BY m.id";

/// Bytes of bodies erased in one slice; a single larger one exceeds it.
const SLICE_BODY_BYTES: i64 = 16 << 20;

/// Free pages that stay in the file for rows to come, while there are batches.
const FREE_BYTES_KEPT: i64 = 64 << 20;

/// Free pages that stay in the file when there have been no batches for a while.
const IDLE_FREE_BYTES_KEPT: i64 = 2 << 20;

/// Pages given back to the file system in one slice between batches.
const VACUUM_PAGES: u32 = 128;

/// How long a commit may have to wait for a slice of an idle moment.
pub(super) const SLICE_TIME: Duration = Duration::from_millis(10);

/// A file with at most this much content, and free pages of more than four times that, is written anew. That takes some
/// 20 ms.
const REWRITTEN_BYTES: i64 = 4 << 20;

/// If a batch removes a range with more keys than this, its rows are erased later, in slices.
pub(super) const ROWS_AT_ONCE: u64 = 4096;

/// Notes a range of rows as dead. Readers leave them out.
pub(super) const INSERT_RANGE: &str = "INSERT INTO erasing VALUES (?1, ?2) \
    ON CONFLICT (first) DO UPDATE SET last = max(last, excluded.last)";
/// Another range with the same first key may be longer. It is still to be erased.
const DELETE_ERASED_RANGE: &str = "DELETE FROM erasing WHERE first = ?1 AND last <= ?2";

/// Erases up to `rows` rows of dropped lanes and dead ranges. Returns whether more are left. The erasure is not
/// flushed, because the next commit would have to wait; the flush of that commit includes it. Rows that a loss of power
/// brings back are still noted as dead.
pub(super) fn erase(connection: &Connection, lanes: &mut Lanes, rows: usize) -> Result<bool> {
    let level = number(connection, "PRAGMA synchronous")?;
    if level <= NORMAL {
        return erase_slice(connection, lanes, rows);
    }
    set_level(connection, NORMAL)?;
    let erased = erase_slice(connection, lanes, rows);
    set_level(connection, level)?;
    erased
}

/// The level at which commits are not flushed, but the log is flushed before it is moved.
const NORMAL: i64 = 1;

fn set_level(connection: &Connection, level: i64) -> Result<()> {
    connection.execute_batch(&format!("PRAGMA synchronous = {level}"))
}

fn erase_slice(connection: &Connection, lanes: &mut Lanes, rows: usize) -> Result<bool> {
    if lanes.next_to_erase().is_none() {
        return vacuum(connection);
    }
    let mut budget = rows.max(1);
    while let Some(erasing) = lanes.next_to_erase() {
        let erased = erase_of(connection, lanes, erasing, budget)?;
        if !erased.all {
            break;
        }
        lanes.erased();
        // An empty lane has a cost, too.
        budget = budget.saturating_sub(erased.rows.max(1));
        if budget == 0 {
            break;
        }
    }
    Ok(true)
}

struct ErasedSlice {
    rows: usize,
    all: bool,
}

/// Erases a slice of one lane or range, in a transaction of its own, so that memory and file agree.
fn erase_of(connection: &Connection, lanes: &mut Lanes, erasing: DeadRange, rows: usize) -> Result<ErasedSlice> {
    let DeadRange { number, first, last, range } = erasing;
    let bodies = lanes.bodies(number);
    let mut growth = None;
    let mut erase = || -> Result<ErasedSlice> {
        run(connection, "BEGIN IMMEDIATE")?;
        let growth = growth.insert(Growth::begin(connection)?);
        let end = if bodies == 0 {
            connection
                .prepare_cached(SLICE_END)?
                .query_row(params![first, last, rows as i64], |row| row.get::<_, i64>(0))
                .optional()?
        } else {
            slice_end(connection, first, last, rows)?
        };
        let slice_last = end.map_or(last, |end| end - 1);
        if bodies > 0 {
            let left = bodies.saturating_sub(bodies::release(connection, first, slice_last)?);
            connection.prepare_cached(UPDATE_BODIES)?.execute(params![number.0, left.cast_signed()])?;
            lanes.set_bodies(number, left);
        }
        let rows = connection.prepare_cached(DELETE_RANGE)?.execute(params![first, slice_last])?;
        match (end, range) {
            (Some(_), _) => {}
            (None, None) => _ = connection.prepare_cached(DELETE_LANE)?.execute(params![number.0])?,
            (None, Some(range)) => _ = connection.prepare_cached(DELETE_ERASED_RANGE)?.execute(params![range, last])?,
        }
        growth.take(connection)?;
        run(connection, "COMMIT")?;
        if let Some(end) = end {
            lanes.erased_before(end);
        }
        Ok(ErasedSlice { rows, all: end.is_none() })
    };
    match erase() {
        Ok(erased) => {
            lanes.committed();
            Ok(erased)
        }
        Err(error) => {
            lanes.rolled_back();
            if !connection.is_autocommit() && run(connection, "ROLLBACK").is_err() {
                tracing::warn!("an erasure could not be rolled back");
            }
            if let Some(growth) = growth.filter(|_| is_full(&error)) {
                growth.give_back(connection);
            }
            Err(error)
        }
    }
}

/// The first key behind a slice of this many rows, or of fewer if their bodies are large.
fn slice_end(connection: &Connection, first: i64, last: i64, rows: usize) -> Result<Option<i64>> {
    let mut statement = connection.prepare_cached(SLICE_BYTES)?;
    let mut found = statement.query(params![first, last])?;
    let (mut count, mut bytes) = (0, 0);
    while let Some(row) = found.next()? {
        if count == rows || bytes >= SLICE_BODY_BYTES {
            return row.get(0).map(Some);
        }
        count += 1;
        bytes += row.get::<_, i64>(1)?;
    }
    Ok(None)
}

/// Gives a slice of free pages back if most of the file is free. Returns whether there are more. It is for moments
/// between batches: pages that will soon be used again stay.
fn vacuum(connection: &Connection) -> Result<bool> {
    let space = FilePages::of(connection)?;
    if space.free * space.page_bytes <= FREE_BYTES_KEPT || space.free * 2 <= space.pages {
        return Ok(false);
    }
    give_back(connection, VACUUM_PAGES)?;
    Ok(true)
}

/// Whether the file can be made smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShrinkProgress {
    /// More pages are to be given back.
    More,
    /// The file is as small as it should be.
    Enough,
}

/// Gives free pages back while the writer is idle: up to `pages` of them, or all at once if the file has little
/// content. (Taking them one by one out of SQLite's list of free pages takes time that grows with their square.)
pub(super) fn shrink(connection: &Connection, pages: u32) -> Result<ShrinkProgress> {
    let space = FilePages::of(connection)?;
    let (free, live) = (space.free * space.page_bytes, (space.pages - space.free) * space.page_bytes);
    if free <= IDLE_FREE_BYTES_KEPT {
        return Ok(ShrinkProgress::Enough);
    }
    if live <= REWRITTEN_BYTES && free > live * 4 {
        connection.execute_batch("VACUUM")?;
    } else {
        give_back(connection, pages)?;
    }
    Ok(ShrinkProgress::More)
}

fn give_back(connection: &Connection, pages: u32) -> Result<()> {
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// Pages of the file.
struct FilePages {
    pages: i64,
    free: i64,
    page_bytes: i64,
}

impl FilePages {
    fn of(connection: &Connection) -> Result<Self> {
        Ok(Self {
            pages: number(connection, "PRAGMA page_count")?,
            free: number(connection, "PRAGMA freelist_count")?,
            page_bytes: number(connection, "PRAGMA page_size")?,
        })
    }
}
