//! Reading rows back, on a connection of its own: a read sees one moment, and says which.

use super::bodies;
use super::lanes::{LaneNumber, position_of};
use super::opening::{Opening, block_on};
use super::raw::RawConnection;
use crate::model::{Lane, Message, Position, WallMillis};
use crate::store::{BatchNo, Loaded, PositionRange, Row, StoreError, StoreReader};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

/// A reader's cache: ranges are read once.
const CACHE_BYTES: usize = 2 << 20;

pub(super) struct SqliteReader(RawConnection);

impl SqliteReader {
    pub(super) fn open(opening: &Opening) -> Result<Self, StoreError> {
        let connection = block_on(opening.connect(CACHE_BYTES))?;
        let raw = RawConnection::lock(connection).map_err(StoreError::Unusable)?;
        raw.with(|connection| connection.execute_batch("PRAGMA query_only = 1")).map_err(|error| failed(&error))?;
        Ok(Self(raw))
    }
}

impl StoreReader for SqliteReader {
    fn load(
        &mut self,
        lane: Lane,
        range: PositionRange,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Loaded, StoreError> {
        self.0.with(|connection| {
            // Dropping it ends the read; there is nothing to roll back.
            let transaction = connection.unchecked_transaction().map_err(|error| failed(&error))?;
            load(&transaction, lane, range, rows_max, bytes_max)
        })
    }
}

fn failed(error: &rusqlite::Error) -> StoreError {
    StoreError::Read(error.to_string())
}

fn load(
    connection: &Connection,
    lane: Lane,
    range: PositionRange,
    rows_max: usize,
    bytes_max: usize,
) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded { rows: Vec::new(), as_of: BatchNo(0) };
    if let Some((number, as_of)) = find(connection, lane).map_err(|error| failed(&error))? {
        loaded.as_of = as_of;
        read_rows(connection, number, range, rows_max, bytes_max, &mut loaded.rows)?;
    }
    Ok(loaded)
}

/// A lane's number, and the last batch that wrote it.
fn find(connection: &Connection, lane: Lane) -> rusqlite::Result<Option<(LaneNumber, BatchNo)>> {
    let statement = "SELECT number, max(batch_no, coalesce((SELECT max(batch_no) FROM message \
        WHERE id > lane.number << 40 | lane.tail AND id <= lane.number << 40 | 0xFFFFFFFFFF), 0)) \
        FROM lane WHERE queue = ?1 AND level = ?2 AND generation = ?3 AND dropped = 0";
    let key = params![lane.queue.0.cast_signed(), lane.level, lane.generation];
    connection
        .prepare_cached(statement)?
        .query_row(key, |row| Ok((LaneNumber(row.get(0)?), BatchNo(row.get::<_, i64>(1)?.cast_unsigned()))))
        .optional()
}

fn read_rows(
    connection: &Connection,
    number: LaneNumber,
    range: PositionRange,
    rows_max: usize,
    bytes_max: usize,
    found: &mut Vec<Row>,
) -> Result<(), StoreError> {
    let mut statement = connection.prepare_cached(ROWS).map_err(|error| failed(&error))?;
    let mut bytes = 0;
    for (first, last) in living(connection, number, range).map_err(|error| failed(&error))? {
        let mut rows = statement.query(params![first, last]).map_err(|error| failed(&error))?;
        while found.len() < rows_max.max(1)
            && bytes < bytes_max.max(1)
            && let Some(row) = rows.next().map_err(|error| failed(&error))?
        {
            let row = row_from(connection, row)?;
            bytes += row.message.head_bytes().len() + row.message.large_body().map_or(0, |body| body.len());
            found.push(row);
        }
    }
    Ok(())
}

const ROWS: &str = "SELECT id, redelivered, expires_at, head, body FROM message \
    WHERE id BETWEEN ?1 AND ?2 ORDER BY id";
/// Dead ranges that a range meets.
const DEAD: &str = "SELECT first, last FROM erasing WHERE first <= ?2 AND last >= ?1 ORDER BY first";

/// The keys of a range, without those whose rows are dead and yet to be erased.
fn living(connection: &Connection, number: LaneNumber, range: PositionRange) -> rusqlite::Result<Vec<(i64, i64)>> {
    let (mut first, last) = (number.key(range.from), number.key(range.to));
    let mut living = Vec::with_capacity(1);
    let mut statement = connection.prepare_cached(DEAD)?;
    let mut dead = statement.query(params![first, last])?;
    while let Some(row) = dead.next()? {
        let (dead_first, dead_last): (i64, i64) = (row.get(0)?, row.get(1)?);
        if dead_first > first {
            living.push((first, dead_first - 1));
        }
        first = first.max(dead_last.saturating_add(1));
    }
    if first <= last {
        living.push((first, last));
    }
    Ok(living)
}

fn row_from(connection: &Connection, row: &rusqlite::Row<'_>) -> Result<Row, StoreError> {
    let fields = || -> rusqlite::Result<(Position, bool, Option<i64>)> {
        Ok((position_of(row.get(0)?), row.get(1)?, row.get(2)?))
    };
    let (position, redelivered, expires_at) = fields().map_err(|error| failed(&error))?;
    let damaged = |what: String| StoreError::Read(format!("the row at position {} is damaged: {what}", position.0));
    let head = row.get_ref(3).map_err(|error| failed(&error))?;
    let head = head.as_blob().map_err(|error| damaged(error.to_string()))?;
    let body = match row.get_ref(4).map_err(|error| failed(&error))? {
        ValueRef::Null => None,
        ValueRef::Blob(body) => Some(body.to_vec()),
        ValueRef::Integer(id) => {
            let body = bodies::read(connection, id).map_err(|error| failed(&error))?;
            Some(body.ok_or_else(|| damaged("a part of its body is missing".into()))?)
        }
        ValueRef::Real(_) | ValueRef::Text(_) => return Err(damaged("its body is no body".into())),
    };
    let message = Message::from_stored(head, body).ok_or_else(|| damaged("it is no message".into()))?;
    let expires_at = expires_at.map(|at| WallMillis(at.cast_unsigned()));
    Ok(Row { position, redelivered, expires_at, place: None, message })
}
