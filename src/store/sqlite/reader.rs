//! Reading rows back, on a connection of its own. Each read sees the state as of one batch, and reports which.

use super::bodies;
use super::errors::failure;
use super::lanes::{LaneNumber, position_of};
use super::opening::Opening;
use super::raw::RawConnection;
use super::redo::{Overlay, PendingBatches};
use super::runtime::block_on;
use crate::model::{Lane, Message, Position, WallMillis};
use crate::store::{
    BatchNo, Cause, LaneChange, LoadRequest, LoadedRange, PositionRange, ReadError, Row, StoreError, StoreReader,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, params};

/// The cache of a reader. It is small: ranges are read once.
const CACHE_BYTES: usize = 2 << 20;

pub(super) struct SqliteReader {
    connection: RawConnection,
    pending: PendingBatches,
}

impl SqliteReader {
    pub(super) fn open(opening: &Opening, pending: PendingBatches) -> Result<Self, StoreError> {
        let connection = block_on(opening.connect(CACHE_BYTES))?;
        let raw = RawConnection::lock(connection)?;
        raw.with(|connection| connection.execute_batch("PRAGMA query_only = 1")).map_err(failure)?;
        Ok(Self { connection: raw, pending })
    }
}

impl StoreReader for SqliteReader {
    fn load(&mut self, request: LoadRequest) -> Result<LoadedRange, ReadError> {
        let pending = self.pending.changes_of(request.lane);
        self.connection.with(|connection| {
            // Dropping the transaction ends the read. There is nothing to roll back.
            let transaction = connection.unchecked_transaction()?;
            load(&transaction, pending, request)
        })
    }
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.into())
    }
}

fn load(
    connection: &Connection,
    pending: Vec<(BatchNo, LaneChange)>,
    request: LoadRequest,
) -> Result<LoadedRange, ReadError> {
    let LoadRequest { lane, range, rows_max, bytes_max } = request;
    let mut found = RowBuffer { rows: Vec::new(), bytes: 0, rows_max: rows_max.max(1), bytes_max: bytes_max.max(1) };
    let Some((number, as_of)) = find(connection, lane)? else {
        return Ok(LoadedRange { rows: found.rows, as_of: BatchNo(0) });
    };
    let overlay = Overlay::new(pending, as_of);
    let as_of = overlay.as_of;
    read_rows(connection, number, range, overlay, &mut found)?;
    Ok(LoadedRange { rows: found.rows, as_of })
}

/// The rows that were read, up to the limits of the request.
struct RowBuffer {
    rows: Vec<Row>,
    bytes: usize,
    rows_max: usize,
    bytes_max: usize,
}

impl RowBuffer {
    fn is_enough(&self) -> bool {
        self.rows.len() >= self.rows_max || self.bytes >= self.bytes_max
    }

    fn add(&mut self, row: Row) {
        self.bytes += row.message.head_bytes().len() + row.message.large_body().map_or(0, |body| body.len());
        self.rows.push(row);
    }

    fn add_pending(&mut self, overlay: &mut Overlay, to: Position) {
        while !self.is_enough()
            && let Some(row) = overlay.next_until(to)
        {
            self.add(row);
        }
    }
}

/// A lane's number, and the last batch that wrote it.
fn find(connection: &Connection, lane: Lane) -> rusqlite::Result<Option<(LaneNumber, BatchNo)>> {
    let statement =
        "SELECT number, batch_no FROM lane WHERE queue = ?1 AND level = ?2 AND generation = ?3 AND dropped = 0";
    let key = params![lane.queue.0.cast_signed(), lane.level, lane.generation];
    connection
        .prepare_cached(statement)?
        .query_row(key, |row| Ok((LaneNumber(row.get(0)?), BatchNo(row.get::<_, i64>(1)?.cast_unsigned()))))
        .optional()
}

/// Reads rows by rising position, merged with those of the redo log.
fn read_rows(
    connection: &Connection,
    number: LaneNumber,
    range: PositionRange,
    mut overlay: Overlay,
    found: &mut RowBuffer,
) -> Result<(), ReadError> {
    overlay.begin_at(range.from);
    let mut statement = connection.prepare_cached(ROWS)?;
    for (first, last) in living(connection, number, range)? {
        let mut rows = statement.query(params![first, last])?;
        while !found.is_enough()
            && let Some(row) = rows.next()?
        {
            let position = position_of(row.get(0)?);
            found.add_pending(&mut overlay, position);
            if !found.is_enough() && !overlay.removes(position) {
                found.add(row_from(connection, row)?);
            }
        }
    }
    found.add_pending(&mut overlay, range.to);
    Ok(())
}

const ROWS: &str = "SELECT id, redelivered, expires_at, head, body FROM message \
    WHERE id BETWEEN ?1 AND ?2 ORDER BY id";
/// Dead ranges that overlap a range.
const DEAD: &str = "SELECT first, last FROM erasing WHERE first <= ?2 AND last >= ?1 ORDER BY first";

/// The parts of a range whose rows are not dead.
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

fn row_from(connection: &Connection, row: &rusqlite::Row<'_>) -> Result<Row, ReadError> {
    let fields = || -> rusqlite::Result<(Position, bool, Option<i64>)> {
        Ok((position_of(row.get(0)?), row.get(1)?, row.get(2)?))
    };
    let (position, redelivered, expires_at) = fields()?;
    let damaged =
        |what: Cause| ReadError::Failed(Cause::new(format!("the row at position {} is damaged", position.0), what));
    let head = row.get_ref(3)?;
    let head = head.as_blob().map_err(|error| damaged(error.into()))?;
    let body = match row.get_ref(4)? {
        ValueRef::Null => None,
        ValueRef::Blob(body) => Some(body.to_vec()),
        ValueRef::Integer(id) => {
            let body = bodies::read(connection, id)?;
            Some(body.ok_or_else(|| damaged("a part of its body is missing".into()))?)
        }
        ValueRef::Real(_) | ValueRef::Text(_) => return Err(damaged("its body is no body".into())),
    };
    let message = Message::from_stored(head, body).ok_or_else(|| damaged("it is no message".into()))?;
    let expires_at = expires_at.map(|at| WallMillis(at.cast_unsigned()));
    Ok(Row { position, redelivered, expires_at, place: None, message })
}
