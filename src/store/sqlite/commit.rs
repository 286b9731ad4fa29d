//! One batch as one transaction, and slices of erasure, on prepared statements.

use super::lanes::{LaneNumber, Lanes};
use super::topology;
use crate::model::Lane;
use crate::store::{Batch, CommitOutcome, LaneChange, LaneState, POSITION_MAX, Row};
use rusqlite::{CachedStatement, Connection, Error, ErrorCode, OptionalExtension, Result, ffi, params};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const INSERT_ROW: &str = "INSERT INTO message VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const DELETE_ROW: &str = "DELETE FROM message WHERE id = ?1";
const DELETE_RANGE: &str = "DELETE FROM message WHERE id BETWEEN ?1 AND ?2";
const INSERT_LANE: &str = "INSERT INTO lane VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, 0)";
const UPDATE_LANE: &str =
    "UPDATE lane SET head = ?2, tail = ?3, count = ?4, body_bytes = ?5, lent_ceiling = ?6 WHERE number = ?1";
const DROP_LANE: &str = "UPDATE lane SET dropped = 1 WHERE number = ?1";
const DELETE_LANE: &str = "DELETE FROM lane WHERE number = ?1";
const NUMBER_BATCH: &str = "UPDATE state SET batch_no = ?1";
/// The first key beyond a slice of `?3` rows.
const SLICE_END: &str = "SELECT id FROM message WHERE id BETWEEN ?1 AND ?2 ORDER BY id LIMIT 1 OFFSET ?3";

/// Free pages that stay in the file for rows to come.
const FREE_BYTES_KEPT: i64 = 64 << 20;

/// Pages given back to the file system in one slice.
const VACUUM_PAGES: i64 = 128;

/// Statements that rows and lanes need, looked up once per batch.
struct Statements<'a> {
    insert_row: CachedStatement<'a>,
    delete_row: CachedStatement<'a>,
    delete_range: CachedStatement<'a>,
    update_lane: CachedStatement<'a>,
}

impl<'a> Statements<'a> {
    fn prepare(connection: &'a Connection) -> Result<Self> {
        Ok(Self {
            insert_row: connection.prepare_cached(INSERT_ROW)?,
            delete_row: connection.prepare_cached(DELETE_ROW)?,
            delete_range: connection.prepare_cached(DELETE_RANGE)?,
            update_lane: connection.prepare_cached(UPDATE_LANE)?,
        })
    }
}

/// Commits a batch; `lanes` follows only when that succeeds.
pub(super) fn commit(connection: &Connection, lanes: &mut Lanes, batch: &Batch) -> CommitOutcome {
    let outcome = match write(connection, lanes, batch) {
        Ok(()) => match run(connection, "COMMIT") {
            Ok(()) => CommitOutcome::Committed,
            Err(error) => end(connection, &error, true),
        },
        Err(error) => end(connection, &error, false),
    };
    if outcome == CommitOutcome::Committed {
        lanes.committed();
    } else {
        lanes.rolled_back();
    }
    outcome
}

fn run(connection: &Connection, statement: &str) -> Result<()> {
    connection.prepare_cached(statement)?.execute([])?;
    Ok(())
}

/// What an error means for its batch, once the transaction is rolled back.
fn end(connection: &Connection, error: &Error, while_flushing: bool) -> CommitOutcome {
    let text = error.to_string();
    if !connection.is_autocommit()
        && let Err(rollback) = run(connection, "ROLLBACK")
        && !connection.is_autocommit()
    {
        return CommitOutcome::Unknown(format!("{text}; rolling back: {rollback}"));
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            CommitOutcome::NotCommitted(text)
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::CannotOpen) if while_flushing => {
            CommitOutcome::Unknown(text)
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::CannotOpen) => {
            CommitOutcome::NotCommitted(text)
        }
        _ => CommitOutcome::Fatal(text),
    }
}

fn write(connection: &Connection, lanes: &mut Lanes, batch: &Batch) -> Result<()> {
    run(connection, "BEGIN IMMEDIATE")?;
    for change in &batch.topology {
        topology::write(connection, change)?;
    }
    if !batch.lanes.is_empty() {
        let mut statements = Statements::prepare(connection)?;
        let stored_at = wall_millis();
        for change in &batch.lanes {
            write_lane(connection, &mut statements, lanes, change, stored_at)?;
        }
    }
    for lane in &batch.drop_lanes {
        drop_lane(connection, lanes, *lane)?;
    }
    for queue in batch.deleted_queues() {
        for lane in lanes.of_queue(queue) {
            drop_lane(connection, lanes, lane)?;
        }
    }
    connection.prepare_cached(NUMBER_BATCH)?.execute(params![batch.batch_no.0.cast_signed()])?;
    Ok(())
}

/// The wall clock, read once per batch: only for people who ask how old a row is.
fn wall_millis() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn drop_lane(connection: &Connection, lanes: &mut Lanes, lane: Lane) -> Result<()> {
    if let Some(number) = lanes.drop_lane(lane) {
        connection.prepare_cached(DROP_LANE)?.execute(params![number.0])?;
    }
    Ok(())
}

fn write_lane(
    connection: &Connection,
    statements: &mut Statements<'_>,
    lanes: &mut Lanes,
    change: &LaneChange,
    stored_at: i64,
) -> Result<()> {
    let number = match lanes.get(change.lane) {
        Some(number) => {
            update_lane(&mut statements.update_lane, number, &change.state)?;
            number
        }
        None => add_lane(connection, lanes, change)?,
    };
    for row in &change.inserts {
        insert_row(&mut statements.insert_row, number, row, stored_at)?;
    }
    if let Some(below) = change.remove_below {
        let (first, last) = number.keys_below(below).into_inner();
        statements.delete_range.execute(params![first, last])?;
    }
    for range in &change.remove_ranges {
        statements.delete_range.execute(params![number.key(range.from), number.key(range.to)])?;
    }
    for position in &change.removes {
        statements.delete_row.execute(params![number.key(*position)])?;
    }
    Ok(())
}

fn add_lane(connection: &Connection, lanes: &mut Lanes, change: &LaneChange) -> Result<LaneNumber> {
    let number = lanes.add(change.lane).ok_or_else(|| beyond_limit("no lane number is free"))?;
    let (lane, state) = (change.lane, &change.state);
    connection.prepare_cached(INSERT_LANE)?.execute(params![
        number.0,
        lane.queue.0.cast_signed(),
        lane.level,
        lane.generation,
        state.head.0.cast_signed(),
        state.tail.0.cast_signed(),
        state.count.cast_signed(),
        state.body_bytes.cast_signed(),
        state.lent_ceiling.0.cast_signed()
    ])?;
    Ok(number)
}

fn beyond_limit(what: &str) -> Error {
    Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_TOOBIG), Some(what.into()))
}

fn update_lane(statement: &mut CachedStatement<'_>, number: LaneNumber, state: &LaneState) -> Result<()> {
    statement.execute(params![
        number.0,
        state.head.0.cast_signed(),
        state.tail.0.cast_signed(),
        state.count.cast_signed(),
        state.body_bytes.cast_signed(),
        state.lent_ceiling.0.cast_signed()
    ])?;
    Ok(())
}

fn insert_row(statement: &mut CachedStatement<'_>, number: LaneNumber, row: &Row, stored_at: i64) -> Result<()> {
    if row.position > POSITION_MAX {
        return Err(beyond_limit("the lane has no positions left"));
    }
    statement.execute(params![
        number.key(row.position),
        row.redelivered,
        row.expires_at.map(|at| at.0.cast_signed()),
        row.message.head_bytes(),
        row.message.large_body().map(|body| body.as_slice()),
        stored_at
    ])?;
    Ok(())
}

/// Erases up to `rows` rows of dropped lanes in one transaction; whether more is left.
pub(super) fn erase(connection: &Connection, lanes: &mut Lanes, rows: usize) -> Result<bool> {
    if lanes.next_to_erase().is_none() {
        return vacuum(connection);
    }
    let mut budget = rows.max(1);
    while let Some(number) = lanes.next_to_erase() {
        let erased = erase_of(connection, number, budget)?;
        if !erased.all {
            break;
        }
        lanes.erased();
        // An empty lane costs as well.
        budget = budget.saturating_sub(erased.rows.max(1));
        if budget == 0 {
            break;
        }
    }
    Ok(true)
}

struct Erased {
    rows: usize,
    all: bool,
}

/// Each lane in a transaction of its own, so that what is noted in memory is what is committed.
fn erase_of(connection: &Connection, number: LaneNumber, rows: usize) -> Result<Erased> {
    let (first, last) = number.keys().into_inner();
    let erase = || -> Result<Erased> {
        run(connection, "BEGIN IMMEDIATE")?;
        let end = connection
            .prepare_cached(SLICE_END)?
            .query_row(params![first, last, rows as i64], |row| row.get::<_, i64>(0))
            .optional()?;
        let slice_last = end.map_or(last, |end| end - 1);
        let rows = connection.prepare_cached(DELETE_RANGE)?.execute(params![first, slice_last])?;
        if end.is_none() {
            connection.prepare_cached(DELETE_LANE)?.execute(params![number.0])?;
        }
        run(connection, "COMMIT")?;
        Ok(Erased { rows, all: end.is_none() })
    };
    erase().inspect_err(|_| {
        if !connection.is_autocommit() && run(connection, "ROLLBACK").is_err() {
            tracing::warn!("an erasure could not be rolled back");
        }
    })
}

/// Gives a slice of free pages back once most of the file is free; whether more is to be given.
fn vacuum(connection: &Connection) -> Result<bool> {
    let number = |pragma: &str| connection.prepare_cached(pragma)?.query_row([], |row| row.get::<_, i64>(0));
    let (free, pages) = (number("PRAGMA freelist_count")?, number("PRAGMA page_count")?);
    if free * number("PRAGMA page_size")? <= FREE_BYTES_KEPT || free * 2 <= pages {
        return Ok(false);
    }
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({VACUUM_PAGES})"))?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_mean_what_the_port_says() {
        let outcome = |code, while_flushing| {
            let connection = Connection::open_in_memory().unwrap();
            connection.execute_batch("BEGIN; CREATE TABLE t (x)").unwrap();
            let error = Error::SqliteFailure(ffi::Error::new(code), None);
            let outcome = end(&connection, &error, while_flushing);
            assert!(connection.is_autocommit(), "rolled back");
            match outcome {
                CommitOutcome::NotCommitted(_) => "not committed",
                CommitOutcome::Unknown(_) => "unknown",
                CommitOutcome::Fatal(_) => "fatal",
                other => panic!("{other:?}"),
            }
        };
        for (code, before, while_flushing) in [
            (ffi::SQLITE_FULL, "not committed", "not committed"),
            (ffi::SQLITE_BUSY, "not committed", "not committed"),
            (ffi::SQLITE_IOERR_WRITE, "not committed", "unknown"),
            (ffi::SQLITE_IOERR_FSYNC, "not committed", "unknown"),
            (ffi::SQLITE_NOMEM, "not committed", "unknown"),
            (ffi::SQLITE_CORRUPT, "fatal", "fatal"),
            (ffi::SQLITE_NOTADB, "fatal", "fatal"),
            (ffi::SQLITE_READONLY, "fatal", "fatal"),
            (ffi::SQLITE_CONSTRAINT_PRIMARYKEY, "fatal", "fatal"),
        ] {
            assert_eq!((outcome(code, false), outcome(code, true)), (before, while_flushing), "code {code}");
        }
    }
}
