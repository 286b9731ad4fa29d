//! One batch as one transaction, on prepared statements.

use super::bodies::{self, BatchBodies, BodyPlace};
use super::erasing::{INSERT_RANGE, ROWS_AT_ONCE};
use super::errors::{is_full, is_of_moving};
use super::growth::Growth;
use super::inserts::{INSERTS, Insert, Inserts, Value};
use super::lanes::{LaneNumber, Lanes};
use super::statements::{DELETE_RANGE, run};
use super::topology;
use crate::model::{Lane, WallMillis};
use crate::store::{Batch, BatchNo, Cause, CommitOutcome, LaneChange, LaneState, POSITION_MAX, Row};
use rusqlite::{CachedStatement, Connection, Error, ErrorCode, Result, ffi, params};
use std::ops::RangeInclusive;

const DELETE_ROW: &str = "DELETE FROM message WHERE id = ?1";
const INSERT_LANE: &str = "INSERT INTO lane VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0, ?10, ?11)";
const UPDATE_LANE: &str = "UPDATE lane SET head = ?2, tail = ?3, count = ?4, body_bytes = ?5, lent_ceiling = ?6, bodies = ?7, \
    batch_no = ?8 WHERE number = ?1";
const DROP_LANE: &str = "UPDATE lane SET dropped = 1 WHERE number = ?1";
/// For a batch that writes no lane, or drops one: the lane's row, which has the number, will be deleted.
const NUMBER_BATCH: &str = "UPDATE state SET batch_no = ?1";

/// How rows are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RemovalMode {
    /// Rows are deleted, except in long ranges.
    Now,
    /// All rows are noted as dead and erased in slices. Every page from which a row is deleted is written to the log,
    /// so that deleting may take as much space there as the rows have in the file, before it frees any.
    InSlices,
}

/// Options of a commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommitOptions {
    pub(super) begun: Option<ProcessStart>,
    pub(super) removal: RemovalMode,
    /// The time of the commit. It is only for people who want to know how old a row is.
    pub(super) stored_at: WallMillis,
}

/// Writes the rows and lanes of one batch. Its statements are looked up once per batch.
struct RowWriter<'a> {
    connection: &'a Connection,
    inserts: &'a mut [Insert; INSERTS.len()],
    delete_row: CachedStatement<'a>,
    delete_range: CachedStatement<'a>,
    update_lane: CachedStatement<'a>,
    bodies: BatchBodies,
    batch_no: BatchNo,
    removal: RemovalMode,
    stored_at: i64,
}

impl<'a> RowWriter<'a> {
    fn prepare(
        connection: &'a Connection,
        inserts: &'a mut Inserts,
        batch: &Batch,
        options: CommitOptions,
    ) -> Result<Self> {
        Ok(Self {
            connection,
            inserts: inserts.prepared(connection)?,
            delete_row: connection.prepare_cached(DELETE_ROW)?,
            delete_range: connection.prepare_cached(DELETE_RANGE)?,
            update_lane: connection.prepare_cached(UPDATE_LANE)?,
            bodies: BatchBodies::of(batch),
            batch_no: batch.batch_no,
            removal: options.removal,
            stored_at: i64::try_from(options.stored_at.0).unwrap_or(i64::MAX),
        })
    }
}

/// The start of a process that is to be recorded.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProcessStart {
    pub(super) boot: u32,
}

impl ProcessStart {
    pub(super) fn write(self, connection: &Connection) -> Result<()> {
        connection.prepare_cached("UPDATE state SET boot = ?1, clean = 0")?.execute(params![self.boot]).map(drop)
    }
}

/// Commits a batch. `lanes` changes only if that succeeds. The second result is whether the batch was refused because
/// the disk is full.
pub(super) fn commit(
    connection: &Connection,
    inserts: &mut Inserts,
    lanes: &mut Lanes,
    batch: &Batch,
    options: CommitOptions,
) -> (CommitOutcome, bool) {
    let mut growth = None;
    let (is_full, outcome) = match write(connection, inserts, lanes, batch, options, &mut growth) {
        Ok(()) => match run(connection, "COMMIT") {
            Ok(()) => (false, CommitOutcome::Committed),
            Err(error) => (is_full(&error), outcome_of(connection, error, true)),
        },
        Err(error) => (is_full(&error), outcome_of(connection, error, false)),
    };
    if let (Some(growth), CommitOutcome::NotCommitted(_)) = (&growth, &outcome) {
        growth.give_back(connection);
    }
    if outcome == CommitOutcome::Committed {
        lanes.committed();
        for change in &batch.lanes {
            if let Some(number) = lanes.get(change.lane) {
                lanes.set_head(number, change.state.head);
            }
        }
    } else {
        lanes.rolled_back();
    }
    (outcome, is_full)
}

/// Rolls the transaction back, and returns what the error means for the batch.
fn outcome_of(connection: &Connection, error: Error, while_flushing: bool) -> CommitOutcome {
    if !connection.is_autocommit()
        && let Err(rollback) = run(connection, "ROLLBACK")
        && !connection.is_autocommit()
    {
        return CommitOutcome::Unknown(Cause::new(format!("{error}; rolling back"), rollback));
    }
    if while_flushing && is_of_moving(&error) {
        return CommitOutcome::Unknown("the log could not be moved into the file".into());
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            CommitOutcome::NotCommitted(error.into())
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::CannotOpen) if while_flushing => {
            CommitOutcome::Unknown(error.into())
        }
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory | ErrorCode::CannotOpen) => {
            CommitOutcome::NotCommitted(error.into())
        }
        _ => CommitOutcome::Fatal(error.into()),
    }
}

fn write(
    connection: &Connection,
    inserts: &mut Inserts,
    lanes: &mut Lanes,
    batch: &Batch,
    options: CommitOptions,
    growth: &mut Option<Growth>,
) -> Result<()> {
    run(connection, "BEGIN IMMEDIATE")?;
    let growth = growth.insert(Growth::begin(connection)?);
    if let Some(begun) = options.begun {
        begun.write(connection)?;
    }
    for change in &batch.topology {
        topology::write(connection, change)?;
    }
    if batch.lanes.is_empty() || batch.drops_lanes() {
        connection.prepare_cached(NUMBER_BATCH)?.execute(params![batch.batch_no.0.cast_signed()])?;
    }
    if !batch.lanes.is_empty() {
        let mut rows = RowWriter::prepare(connection, inserts, batch, options)?;
        for change in &batch.lanes {
            rows.write(lanes, change)?;
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
    growth.take(connection)
}

fn drop_lane(connection: &Connection, lanes: &mut Lanes, lane: Lane) -> Result<()> {
    if let Some(number) = lanes.drop_lane(lane) {
        connection.prepare_cached(DROP_LANE)?.execute(params![number.0])?;
    }
    Ok(())
}

impl RowWriter<'_> {
    fn write(&mut self, lanes: &mut Lanes, change: &LaneChange) -> Result<()> {
        let known = lanes.get(change.lane);
        let number = known.or_else(|| lanes.add(change.lane)).ok_or_else(|| beyond_limit("no lane number is free"))?;
        let before = lanes.bodies(number);
        let mut bodies = before;
        for row in &change.inserts {
            bodies += u64::from(self.insert(lanes, number, row)?);
        }
        if let Some(below) = change.remove_below {
            let from = lanes.head(number).min(below);
            let last = number.keys_below(below).into_inner().1;
            self.remove(lanes, &mut bodies, &(number.key(from)..=last))?;
        }
        let below = change.remove_below.unwrap_or_default();
        for range in change.remove_ranges.iter().filter(|range| range.to >= below) {
            // There are no rows beyond the tail.
            let to = if self.removal == RemovalMode::Now { range.to } else { range.to.min(change.state.tail) };
            self.remove(lanes, &mut bodies, &(number.key(range.from.max(below))..=number.key(to)))?;
        }
        match self.removal {
            RemovalMode::Now => {
                for position in &change.removes {
                    let key = number.key(*position);
                    if bodies > 0 {
                        bodies = bodies.saturating_sub(bodies::release(self.connection, key, key)?);
                    }
                    self.delete_row.execute(params![key])?;
                }
            }
            RemovalMode::InSlices => {
                for keys in ranges_of(change.removes.iter().map(|position| number.key(*position)).collect()) {
                    self.note_dead(lanes, &keys)?;
                }
            }
        }
        if bodies != before {
            lanes.set_bodies(number, bodies);
        }
        match known {
            Some(_) => self.update_lane(number, &change.state, bodies),
            None => self.insert_lane(number, change, bodies),
        }
    }

    /// Inserts a row. Returns whether its body is in the table of bodies.
    fn insert(&mut self, lanes: &mut Lanes, number: LaneNumber, row: &Row) -> Result<bool> {
        if row.position > POSITION_MAX {
            return Err(beyond_limit("the lane has no positions left"));
        }
        debug_assert!(row.place.is_none(), "a transient message is for the scratch store");
        let [insert_row, insert_body, insert_chunk] = &mut *self.inserts;
        let place = match row.message.large_body() {
            None => BodyPlace::Row(Value::Null),
            Some(body) => self.bodies.place(body, lanes.last_body(), insert_body, insert_chunk)?,
        };
        let (body, is_elsewhere) = match place {
            BodyPlace::Row(body) => (body, false),
            BodyPlace::Table(id) => (Value::Integer(id), true),
        };
        insert_row.run(&[
            Value::Integer(number.key(row.position)),
            Value::Integer(row.redelivered.into()),
            row.expires_at.map_or(Value::Null, |at| Value::Integer(at.0.cast_signed())),
            Value::Blob(row.message.head_bytes()),
            body,
            Value::Integer(self.stored_at),
        ])?;
        Ok(is_elsewhere)
    }

    /// Removes a range of a lane's rows. `bodies` is the number of the lane's rows whose body is in the table of
    /// bodies. A long range is only noted as dead: every other queue would have to wait while millions of rows are
    /// deleted.
    fn remove(&mut self, lanes: &mut Lanes, bodies: &mut u64, keys: &RangeInclusive<i64>) -> Result<()> {
        let (first, last) = (*keys.start(), *keys.end());
        if first > last {
            return Ok(());
        }
        if self.removal == RemovalMode::InSlices || last.abs_diff(first) > ROWS_AT_ONCE {
            return self.note_dead(lanes, keys);
        }
        if *bodies > 0 {
            *bodies = bodies.saturating_sub(bodies::release(self.connection, first, last)?);
        }
        self.delete_range.execute(params![first, last])?;
        Ok(())
    }

    fn note_dead(&self, lanes: &mut Lanes, keys: &RangeInclusive<i64>) -> Result<()> {
        let (first, last) = (*keys.start(), *keys.end());
        lanes.erase_later(first, last);
        self.connection.prepare_cached(INSERT_RANGE)?.execute(params![first, last])?;
        Ok(())
    }

    fn update_lane(&mut self, number: LaneNumber, state: &LaneState, bodies: u64) -> Result<()> {
        self.update_lane.execute(params![
            number.0,
            state.head.0.cast_signed(),
            state.tail.0.cast_signed(),
            state.count.cast_signed(),
            state.body_bytes.cast_signed(),
            state.lent_ceiling.0.cast_signed(),
            bodies.cast_signed(),
            self.batch_no.0.cast_signed()
        ])?;
        Ok(())
    }

    fn insert_lane(&self, number: LaneNumber, change: &LaneChange, bodies: u64) -> Result<()> {
        let (lane, state) = (change.lane, &change.state);
        self.connection.prepare_cached(INSERT_LANE)?.execute(params![
            number.0,
            lane.queue.0.cast_signed(),
            lane.level,
            lane.generation,
            state.head.0.cast_signed(),
            state.tail.0.cast_signed(),
            state.count.cast_signed(),
            state.body_bytes.cast_signed(),
            state.lent_ceiling.0.cast_signed(),
            bodies.cast_signed(),
            self.batch_no.0.cast_signed()
        ])?;
        Ok(())
    }
}

/// Joins successive keys into ranges.
fn ranges_of(mut keys: Vec<i64>) -> Vec<RangeInclusive<i64>> {
    keys.sort_unstable();
    let mut runs: Vec<RangeInclusive<i64>> = Vec::new();
    for key in keys {
        match runs.last_mut() {
            Some(run) if key <= run.end() + 1 => *run = *run.start()..=key,
            _ => runs.push(key..=key),
        }
    }
    runs
}

fn beyond_limit(what: &str) -> Error {
    Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_TOOBIG), Some(what.into()))
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
            let outcome = outcome_of(&connection, error, while_flushing);
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
