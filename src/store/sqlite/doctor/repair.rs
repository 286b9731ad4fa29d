//! Repairing a file: in place, or by copying everything that can be read into a new one.

use super::examine::{Examination, dead_ranges, keys_of};
use super::finding::Finding;
use super::walk::{BODIES, CHUNKS, KeyedTable, LANES, MESSAGES, QUEUES, walk};
use crate::store::sqlite::files::{flush, flush_folder_of, with_suffix};
use crate::store::sqlite::lanes::POSITION_BITS;
use crate::store::sqlite::opening::{Opening, migrate};
use crate::store::sqlite::runtime::block_on;
use crate::store::sqlite::settings::SqliteSettings;
use crate::store::{BatchNo, Cause, OpenError, POSITION_MAX, StoreError};
use rusqlite::types::{ToSqlOutput, Value};
use rusqlite::{Connection, Result, params, params_from_iter};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The cache of the connection that makes the new file.
const CACHE_BYTES: usize = 16 << 20;

/// Copies the file and its logs, unchanged, beside it.
pub(super) fn keep_copy(file: &Path, redo: &Path) -> io::Result<PathBuf> {
    let names = (1..).map(|number| match number {
        1 => with_suffix(file, ".before-repair"),
        _ => with_suffix(file, &format!(".before-repair-{number}")),
    });
    let kept = names.into_iter().find(|path| !path.exists()).expect("there are numbers enough");
    let copy = |from: &Path, to: &Path| fs::copy(from, to).and_then(|_| flush(to));
    for (log, suffix) in [(with_suffix(file, "-wal"), "-wal"), (redo.to_owned(), "-redo")] {
        if log.exists() {
            copy(&log, &with_suffix(&kept, suffix))?;
        }
    }
    copy(file, &kept)?;
    flush_folder_of(file)?;
    Ok(kept)
}

/// Corrects the counters and removes rows without an owner, in one transaction.
pub(super) fn mend(connection: &mut Connection, examined: &Examination) -> Result<()> {
    let transaction = connection.transaction()?;
    for key in &examined.bad_rows {
        transaction.prepare_cached("DELETE FROM message WHERE id = ?1")?.execute([key])?;
    }
    for finding in &examined.findings {
        match finding {
            Finding::UnknownLane { number, .. } => {
                let (first, last) = keys_of(*number).unwrap_or((i64::MIN, -1));
                transaction.execute("DELETE FROM message WHERE id BETWEEN ?1 AND ?2", [first, last])?;
            }
            // The broker erases its rows.
            Finding::UnknownQueue { lane, .. } => {
                transaction.execute("UPDATE lane SET dropped = 1 WHERE number = ?1", [lane.number])?;
            }
            Finding::OrphanBody { body } | Finding::OrphanChunks { body, .. } => {
                transaction.execute("DELETE FROM body WHERE id = ?1", [body])?;
                transaction.execute("DELETE FROM chunk WHERE id BETWEEN ?1 << 16 AND ?1 << 16 | 0xFFFF", [body])?;
            }
            Finding::BodyRefs { body, found, .. } => {
                transaction.execute("UPDATE body SET refs = ?2 WHERE id = ?1", [body, found])?;
            }
            Finding::Binding { vhost, queue, .. } => {
                let delete = "DELETE FROM binding WHERE destination_kind = 0 AND vhost = ?1 AND destination = ?2";
                transaction.execute(delete, [vhost, queue])?;
            }
            Finding::NoMessage { .. } | Finding::Counters { .. } | Finding::Damaged(_) | Finding::Unreadable { .. } => {
            }
        }
    }
    for (&number, lane) in &examined.lanes {
        let counters = examined.should_be(number, lane);
        if counters != lane.noted {
            let update = "UPDATE lane SET head = ?2, tail = ?3, count = ?4, body_bytes = ?5, bodies = ?6 \
                          WHERE number = ?1";
            let values = [number, counters.head, counters.tail, counters.count, counters.body_bytes, counters.bodies];
            transaction.prepare_cached(update)?.execute(values)?;
        }
    }
    transaction.commit()
}

/// Tables without integer keys, and the order of their keys.
const UNKEYED: [(&str, &[&str]); 6] = [
    ("vhost", &["name"]),
    ("user", &["name"]),
    ("user_tag", &["user", "ordinal"]),
    ("user_vhost", &["user", "ordinal"]),
    ("exchange", &["vhost", "name"]),
    ("binding", &["vhost", "source", "destination_kind", "destination", "routing_key", "arguments"]),
];

/// Makes a new file at `target` with everything that can be read in `source`. The redo log begins with the batch `redo`.
pub(super) fn salvage(source: &Connection, target: &Path, redo: Option<BatchNo>) -> std::result::Result<(), OpenError> {
    let failed = |path: &Path, cause: Cause| StoreError::Unusable(Cause::new(path.display().to_string(), cause));
    for left in [target.to_owned(), with_suffix(target, "-wal"), with_suffix(target, "-shm")] {
        match fs::remove_file(&left) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed(&left, error.into()).into());
            }
            _ => {}
        }
    }
    let opening = Opening::new(target.to_owned(), &SqliteSettings::new(target.parent().unwrap_or(Path::new("."))));
    block_on(async {
        let mut connection = opening.connect(CACHE_BYTES).await?;
        migrate(&mut connection, target).await?;
        sqlx::Connection::close(connection).await.map_err(|error| OpenError::Store(StoreError::Unusable(error.into())))
    })?;
    copy_everything(source, target, redo).map_err(|error| failed(target, error.into()))?;
    Ok(flush(target).map_err(|error| failed(target, error.into()))?)
}

fn copy_everything(source: &Connection, target: &Path, redo: Option<BatchNo>) -> Result<()> {
    let target = Connection::open(target)?;
    // The file is flushed once, at the end.
    target.pragma_update(None, "synchronous", "OFF")?;
    let knows_batch = copy_state(source, &target)?;
    for (table, order) in UNKEYED {
        copy_from_both_ends(source, &target, table, order)?;
    }
    let everything = i64::MIN..=i64::MAX;
    let lost_queues = copy_rows(source, &target, QUEUES, everything.clone())?;
    let lost_lanes = copy_rows(source, &target, LANES, everything.clone())?;
    copy_rows(source, &target, BODIES, everything.clone())?;
    copy_rows(source, &target, CHUNKS, everything)?;
    if let Some(first) = redo.filter(|_| !knows_batch && !lost_lanes) {
        follow_on(&target, first)?;
    }
    if lost_lanes {
        make_lanes(source, &target)?;
    }
    if lost_queues || lost_lanes {
        make_queues(&target)?;
    }
    let mut lanes = Vec::new();
    walk(&target, LANES, i64::MIN..=i64::MAX, |row| {
        lanes.push(row.get::<_, i64>(0)?);
        Ok(())
    })?;
    // Lane by lane, so that damage in one does not hide the next. Rows without a lane are left out.
    for (first, last) in lanes.into_iter().filter_map(keys_of) {
        copy_rows(source, &target, MESSAGES, first..=last)?;
    }
    for range in dead_ranges(source)? {
        target.execute("DELETE FROM message WHERE id BETWEEN ?1 AND ?2", [range.start(), range.end()])?;
    }
    target.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    target.close().map_err(|(_, error)| error)
}

/// Makes lanes for rows whose lane could not be read; their keys have the lane's number. Each of the rows may have been
/// delivered.
fn make_lanes(source: &Connection, target: &Connection) -> Result<()> {
    let mut numbers = BTreeSet::new();
    walk(source, KeyedTable { columns: "id", ..MESSAGES }, 0..=i64::MAX, |row| {
        numbers.insert(row.get::<_, i64>(0)? >> POSITION_BITS);
        Ok(())
    })?;
    let mut add = target.prepare(
        "INSERT OR IGNORE INTO lane (number, queue, level, generation, head, tail, count, body_bytes, lent_ceiling, dropped) \
         VALUES (?1, -1 - ?1, 0, 0, 0, 0, 0, 0, ?2, 0)",
    )?;
    for number in numbers {
        add.execute([number, POSITION_MAX.0.cast_signed()])?;
    }
    Ok(())
}

/// Makes a queue in the vhost `/` for each lane whose queue could not be read. No start gives a queue such a low id.
fn make_queues(target: &Connection) -> Result<()> {
    let orphans = "FROM lane WHERE dropped = 0 AND queue NOT IN (SELECT id FROM queue)";
    target.execute_batch(&format!(
        "BEGIN;
         INSERT OR IGNORE INTO vhost VALUES ('/');
         UPDATE lane SET level = 0, generation = 0, queue = -1 - number WHERE number IN (SELECT number {orphans});
         INSERT INTO queue SELECT number + 1, '/', 'salvaged-' || number, 0, x'00000000' {orphans};
         UPDATE lane SET queue = number + 1 WHERE queue = -1 - number;
         COMMIT",
    ))
}

/// Copies the state. Returns whether it could be read. If not, the broker counts starts and batches from numbers that
/// it has not used.
fn copy_state(source: &Connection, target: &Connection) -> Result<bool> {
    let read = source.query_row("SELECT boot, batch_no FROM state", [], |row| Ok((row.get(0)?, row.get(1)?)));
    let is_read = read.is_ok();
    let (boot, batch_no): (i64, i64) = read.unwrap_or((1 << 20, 1 << 40));
    target.execute("UPDATE state SET boot = ?1, batch_no = ?2, clean = 0", params![boot, batch_no])?;
    // If it cannot be read, the new file has a new id.
    if let Ok(id) = source.query_row("SELECT cluster_id FROM state", [], |row| row.get::<_, String>(0)) {
        target.execute("UPDATE state SET cluster_id = ?1", [id])?;
    }
    Ok(is_read)
}

/// Derives the last batch if the state, which has it, could not be read. If all lanes are known and none has the redo
/// log's first batch, that batch is the next one.
fn follow_on(target: &Connection, first: BatchNo) -> Result<()> {
    let last = first.0.saturating_sub(1).cast_signed();
    let unless_moved = "UPDATE state SET batch_no = ?1 WHERE (SELECT coalesce(max(batch_no), 0) FROM lane) <= ?1";
    target.execute(unless_moved, [last])?;
    Ok(())
}

fn insert(table: &str, columns: usize) -> String {
    let marks = vec!["?"; columns].join(", ");
    format!("INSERT OR IGNORE INTO {table} VALUES ({marks})")
}

/// Copies rows. Returns whether some of them could not be read.
fn copy_rows(source: &Connection, target: &Connection, of: KeyedTable, keys: RangeInclusive<i64>) -> Result<bool> {
    let columns = of.columns.split(',').count();
    let names = of.columns;
    let marks = vec!["?"; columns].join(", ");
    let mut insert = target.prepare(&format!("INSERT OR IGNORE INTO {} ({names}) VALUES ({marks})", of.table))?;
    let transaction = target.unchecked_transaction()?;
    let unreadable = walk(source, of, keys, |row| {
        for at in 0..columns {
            insert.raw_bind_parameter(at + 1, ToSqlOutput::Borrowed(row.get_ref(at)?))?;
        }
        insert.raw_execute()?;
        Ok(())
    })?;
    transaction.commit()?;
    Ok(!unreadable.is_empty())
}

/// Copies rows by rising keys up to a damaged page, and by falling keys down to one.
fn copy_from_both_ends(source: &Connection, target: &Connection, table: &str, order: &[&str]) -> Result<()> {
    let transaction = target.unchecked_transaction()?;
    for direction in ["ASC", "DESC"] {
        let order: Vec<_> = order.iter().map(|column| format!("{column} {direction}")).collect();
        let Ok(mut read) = source.prepare(&format!("SELECT * FROM {table} ORDER BY {}", order.join(", "))) else {
            continue;
        };
        let columns = read.column_count();
        // A file of an older schema has fewer columns.
        let named = format!("{table} ({})", read.column_names().join(", "));
        let mut insert = target.prepare(&insert(&named, columns))?;
        let Ok(mut rows) = read.query([]) else { continue };
        while let Ok(Some(row)) = rows.next() {
            let values: Result<Vec<Value>> = (0..columns).map(|at| row.get(at)).collect();
            insert.execute(params_from_iter(values?))?;
        }
    }
    transaction.commit()
}
