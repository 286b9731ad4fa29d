//! Bodies outside their rows: shared by several rows of one batch, or too large for one value and kept in chunks.
//!
//! The table `body` has its length and the number of rows that refer to it, `chunk` its bytes, 64 KiB at a time. All
//! rows that share a body are of one batch. Removing a row releases its reference; the last one removes the body.

use super::inserts::{Insert, Value};
use crate::store::Batch;
use rusqlite::{Connection, Error, OptionalExtension, Result, params};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// A larger body is kept in chunks of this size.
const CHUNK_BYTES: usize = 64 << 10;

/// Bits of a chunk's key that number the chunks of one body.
const INDEX_BITS: u32 = 16;

const NAMED_IN_RANGE: &str =
    "SELECT body FROM message WHERE id BETWEEN ?1 AND ?2 AND typeof(body) = 'integer' ORDER BY id";
const RELEASE: &str = "UPDATE body SET refs = refs - ?2 WHERE id = ?1 RETURNING refs";
const DELETE_BODY: &str = "DELETE FROM body WHERE id = ?1";
const DELETE_CHUNKS: &str = "DELETE FROM chunk WHERE id BETWEEN ?1 AND ?2";
const BYTES: &str = "SELECT bytes FROM body WHERE id = ?1";
const CHUNKS: &str = "SELECT data FROM chunk WHERE id BETWEEN ?1 AND ?2 ORDER BY id";

/// The keys of a body's chunks, first and last.
fn keys(id: i64) -> (i64, i64) {
    (id << INDEX_BITS, (id << INDEX_BITS) | ((1 << INDEX_BITS) - 1))
}

/// The large bodies of one batch, by the address of their bytes.
pub(super) struct BatchBodies {
    found: HashMap<*const Vec<u8>, BodyUse>,
}

#[derive(Default)]
struct BodyUse {
    rows: i64,
    id: Option<i64>,
}

/// Where the body of a row is stored.
pub(super) enum BodyPlace<'a> {
    /// In the row.
    Row(Value<'a>),
    /// In the table `body`, under this id.
    Table(i64),
}

impl BatchBodies {
    /// Counts the rows of a batch that share a body.
    pub(super) fn of(batch: &Batch) -> Self {
        let mut found = HashMap::<_, BodyUse>::new();
        for row in batch.lanes.iter().flat_map(|change| &change.inserts) {
            if let Some(body) = row.message.large_body() {
                found.entry(Arc::as_ptr(body)).or_default().rows += 1;
            }
        }
        Self { found }
    }

    /// Decides where the large body of a row is stored. Writes the body if the row is the first of those that share it.
    /// `last_id` is the last id of a body.
    pub(super) fn place<'a>(
        &mut self,
        body: &'a Arc<Vec<u8>>,
        last_id: &mut i64,
        insert_body: &mut Insert,
        insert_chunk: &mut Insert,
    ) -> Result<BodyPlace<'a>> {
        let found = self.found.entry(Arc::as_ptr(body)).or_default();
        if found.rows <= 1 && body.len() <= CHUNK_BYTES {
            return Ok(BodyPlace::Row(Value::Blob(body)));
        }
        if let Some(id) = found.id {
            return Ok(BodyPlace::Table(id));
        }
        *last_id += 1;
        let id = *last_id;
        let bytes = i64::try_from(body.len()).unwrap_or(i64::MAX);
        insert_body.run(&[Value::Integer(id), Value::Integer(found.rows), Value::Integer(bytes)])?;
        for (chunk, key) in body.chunks(CHUNK_BYTES).zip(keys(id).0..) {
            insert_chunk.run(&[Value::Integer(key), Value::Blob(chunk)])?;
        }
        found.id = Some(id);
        Ok(BodyPlace::Table(id))
    }
}

/// Releases the references of a range of rows that are about to be deleted, and deletes bodies without references.
/// Returns how many rows had one.
pub(super) fn release(connection: &Connection, first: i64, last: i64) -> Result<u64> {
    let mut references = BTreeMap::<i64, i64>::new();
    let mut statement = connection.prepare_cached(NAMED_IN_RANGE)?;
    let mut rows = statement.query(params![first, last])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        *references.entry(row.get(0)?).or_default() += 1;
        count += 1;
    }
    for (id, released) in references {
        let left = connection.prepare_cached(RELEASE)?.query_row(params![id, released], |row| row.get::<_, i64>(0));
        // A body that does not exist cannot be deleted.
        if left.optional()?.is_some_and(|left| left <= 0) {
            let (first, last) = keys(id);
            connection.prepare_cached(DELETE_CHUNKS)?.execute(params![first, last])?;
            connection.prepare_cached(DELETE_BODY)?.execute(params![id])?;
        }
    }
    Ok(count)
}

/// Reads a body. `None` if a part of it is missing.
pub(super) fn read(connection: &Connection, id: i64) -> Result<Option<Vec<u8>>> {
    let bytes = connection.prepare_cached(BYTES)?.query_row(params![id], |row| row.get::<_, i64>(0)).optional()?;
    let Some(bytes) = bytes.and_then(|bytes| usize::try_from(bytes).ok()) else { return Ok(None) };
    let mut body = Vec::new();
    // The file may be damaged and the number wrong.
    if body.try_reserve_exact(bytes).is_err() {
        return Ok(None);
    }
    let (first, last) = keys(id);
    let mut statement = connection.prepare_cached(CHUNKS)?;
    let mut chunks = statement.query(params![first, last])?;
    while let Some(row) = chunks.next()? {
        let chunk = row
            .get_ref(0)?
            .as_blob()
            .map_err(|error| Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, error.into()))?;
        if body.len() + chunk.len() > bytes {
            return Ok(None);
        }
        body.extend_from_slice(chunk);
    }
    Ok((body.len() == bytes).then_some(body))
}
