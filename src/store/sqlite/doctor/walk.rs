//! Reading a table of a file that may be damaged: row by row along its keys, around what cannot be read.
//!
//! A damaged page hides a range of keys; the pages around it can still be reached. So after an error the next key that
//! can be read is searched for, first in small steps, then in ever larger ones.

use rusqlite::{Connection, Row, Statement};
use std::ops::RangeInclusive;

/// The largest of the small steps: about the rows in a page of small messages.
const CLOSE_STEP_MAX: i64 = 64;

/// How far the search goes in small steps.
const CLOSE_MAX: i64 = 1 << 20;

/// A table with an integer key, and its columns: the key first.
#[derive(Clone, Copy, Debug)]
pub(super) struct KeyedTable {
    pub(super) table: &'static str,
    pub(super) key: &'static str,
    /// The columns, with the key first, separated by commas.
    pub(super) columns: &'static str,
}

pub(super) const MESSAGES: KeyedTable =
    KeyedTable { table: "message", key: "id", columns: "id, redelivered, expires_at, head, body, stored_at" };
pub(super) const ERASING: KeyedTable = KeyedTable { table: "erasing", key: "first", columns: "first, last" };
pub(super) const LANES: KeyedTable = KeyedTable {
    table: "lane",
    key: "number",
    columns: "number, queue, level, generation, head, tail, count, body_bytes, lent_ceiling, dropped, bodies, batch_no",
};
pub(super) const QUEUES: KeyedTable =
    KeyedTable { table: "queue", key: "id", columns: "id, vhost, name, auto_delete, arguments" };
pub(super) const BODIES: KeyedTable = KeyedTable { table: "body", key: "id", columns: "id, refs, bytes" };
pub(super) const CHUNKS: KeyedTable = KeyedTable { table: "chunk", key: "id", columns: "id, data" };

/// Calls `visit` for every row with a key in the range that can be read, by rising keys, and returns the ranges of keys
/// that cannot be read. Only errors of `visit` end it.
pub(super) fn walk(
    connection: &Connection,
    of: KeyedTable,
    keys: RangeInclusive<i64>,
    mut visit: impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<Vec<RangeInclusive<i64>>> {
    let (mut from, to) = keys.into_inner();
    let mut unreadable = Vec::new();
    loop {
        let next = match stream(connection, of, from..=to, &mut visit)? {
            StreamEnd::ToTheEnd => return Ok(unreadable),
            StreamEnd::BrokenAt(next) => next,
        };
        match first_readable(connection, of, next..=to) {
            Some(readable) => {
                // Each round advances by one key at least, even if SQLite returns a smaller one.
                let last = next.max(readable.saturating_sub(1));
                unreadable.push(next..=last);
                if last == to {
                    return Ok(unreadable);
                }
                from = last + 1;
            }
            None => {
                unreadable.push(next..=to);
                return Ok(unreadable);
            }
        }
    }
}

enum StreamEnd {
    ToTheEnd,
    /// Everything below this key was visited.
    BrokenAt(i64),
}

fn stream(
    connection: &Connection,
    of: KeyedTable,
    keys: RangeInclusive<i64>,
    visit: &mut impl FnMut(&Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<StreamEnd> {
    let mut next = *keys.start();
    let KeyedTable { table, key, columns } = of;
    let text = format!("SELECT {columns} FROM {table} WHERE {key} BETWEEN ?1 AND ?2 ORDER BY {key}");
    let Ok(mut statement) = connection.prepare_cached(&text) else { return Ok(StreamEnd::BrokenAt(next)) };
    let Ok(mut rows) = statement.query([keys.start(), keys.end()]) else { return Ok(StreamEnd::BrokenAt(next)) };
    loop {
        match rows.next() {
            Ok(None) => return Ok(StreamEnd::ToTheEnd),
            Ok(Some(row)) => {
                let key: i64 = row.get(0)?;
                visit(row)?;
                if key == *keys.end() {
                    return Ok(StreamEnd::ToTheEnd);
                }
                next = key + 1;
            }
            Err(_) => return Ok(StreamEnd::BrokenAt(next)),
        }
    }
}

/// The first key at which a row can be read, or behind which there are no rows; `None` if everything up to the end is
/// damaged.
fn first_readable(connection: &Connection, of: KeyedTable, keys: RangeInclusive<i64>) -> Option<i64> {
    let KeyedTable { table, key, columns } = of;
    let find = format!("SELECT {key} FROM {table} WHERE {key} BETWEEN ?1 AND ?2 ORDER BY {key} LIMIT 1");
    let read = format!("SELECT {columns} FROM {table} WHERE {key} = ?1");
    let (mut find, mut read) = (connection.prepare(&find).ok()?, connection.prepare(&read).ok()?);
    let (mut from, to) = keys.into_inner();
    loop {
        match find_from(&mut find, from, to) {
            Probe::Nothing => return Some(from),
            // The row exists, but not all of it can be read.
            Probe::Key(key) if !can_read(&mut read, key) => {
                if key == to {
                    return None;
                }
                from = key + 1;
            }
            Probe::Key(_) => return Some(from),
            Probe::Damage => from = behind_damage(&mut find, from, to)?,
        }
    }
}

enum Probe {
    Key(i64),
    Nothing,
    Damage,
}

fn find_from(find: &mut Statement<'_>, from: i64, to: i64) -> Probe {
    let Ok(mut rows) = find.query([from, to]) else { return Probe::Damage };
    match rows.next() {
        Ok(Some(row)) => row.get(0).map_or(Probe::Damage, Probe::Key),
        Ok(None) => Probe::Nothing,
        Err(_) => Probe::Damage,
    }
}

fn can_read(read: &mut Statement<'_>, key: i64) -> bool {
    read.query([key]).is_ok_and(|mut rows| matches!(rows.next(), Ok(Some(_))))
}

/// The first key behind `from` at which the search works again. At `from` it meets damage.
fn behind_damage(find: &mut Statement<'_>, from: i64, to: i64) -> Option<i64> {
    let (mut damaged, mut step) = (from, 1);
    let mut sound = loop {
        let probe = damaged.saturating_add(step).min(to);
        match find_from(find, probe, to) {
            Probe::Damage if probe == to => return None,
            Probe::Damage => damaged = probe,
            Probe::Key(_) | Probe::Nothing => break probe,
        }
        let is_close = damaged.saturating_sub(from) < CLOSE_MAX;
        step = if is_close { (step * 2).min(CLOSE_STEP_MAX) } else { step.saturating_mul(2) };
    };
    while damaged + 1 < sound {
        let middle = i64::midpoint(damaged, sound);
        match find_from(find, middle, to) {
            Probe::Damage => damaged = middle,
            Probe::Key(_) | Probe::Nothing => sound = middle,
        }
    }
    Some(sound)
}
