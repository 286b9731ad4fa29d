//! The write-ahead log: when it is moved into the file, and what makes it safe after a flush that failed.
//!
//! After a failed flush the system takes pages for clean that never reached the disk, and a later flush leaves them
//! out. Frames that are read back from the log look intact. But if they are partly moved into the file, a loss of power
//! leaves neither the frames nor the pages that they replace. So nothing is moved before the log's bytes are written
//! again and flushed.

#![expect(unsafe_code, reason = "SQLite reports on moving the log only through C functions")]

use super::opened_file::{OpenedFile, PAGE_BYTES};
use crate::store::Batch;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Result, ffi};
use std::ffi::{c_char, c_int, c_void};
use std::ops::RangeInclusive;
use std::ptr::{self, null_mut};

/// Bytes of the log that are written again in one call. The limit of SQLite's own layer is 128 KiB less one byte.
const PIECE_BYTES: usize = 1 << 16;

/// The next batch waits while the log is moved, the longer the longer the log. So the log is moved after this many
/// batches of about the same size, within bounds.
const BATCHES_PER_MOVE: usize = 16;

/// The pages that the log may have before a batch moves it.
pub(super) fn pages_for(batch: &Batch, bounds: &RangeInclusive<u32>) -> u32 {
    let rows = batch.lanes.iter().flat_map(|change| &change.inserts);
    let bytes: usize = rows.map(|row| row.message.head_bytes().len() + row.message.body_len()).sum();
    let pages = bytes / PAGE_BYTES as usize + batch.lanes.len();
    u32::try_from(pages * BATCHES_PER_MOVE).unwrap_or(u32::MAX).clamp(*bounds.start(), *bounds.end())
}

/// Sets whether a connection leaves the log in place when it closes: a failure to move it then would not be reported.
pub(super) fn leave_at_close(connection: &Connection, leaves: bool) -> Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, leaves).map(drop)
}

/// From here on a commit moves the log into the file, as far as readers allow, if the log has this many pages after it.
/// SQLite can do so itself, but does not report a failure. Here the statement that commits fails, although it has
/// committed (`is_of_moving` in `errors`).
pub(super) fn move_after_commits(connection: &Connection, pages: u32) {
    // SAFETY: the connection is open; the third argument is a number, and `committed` uses it as one.
    unsafe { ffi::sqlite3_wal_hook(connection.handle(), Some(committed), ptr::without_provenance_mut(pages as usize)) };
}

unsafe extern "C" fn committed(
    pages_max: *mut c_void,
    db: *mut ffi::sqlite3,
    name: *const c_char,
    pages: c_int,
) -> c_int {
    if usize::try_from(pages).is_ok_and(|pages| pages < pages_max.addr()) {
        return ffi::SQLITE_OK;
    }
    // SAFETY: SQLite calls this with an open connection and the name of one of its databases.
    let code =
        unsafe { ffi::sqlite3_wal_checkpoint_v2(db, name, ffi::SQLITE_CHECKPOINT_PASSIVE, null_mut(), null_mut()) };
    // It is no failure if a reader or a full disk keeps the log from being moved.
    if code & 0xFF != ffi::SQLITE_IOERR {
        return ffi::SQLITE_OK;
    }
    tracing::error!(error = %ffi::Error::new(code), "the log could not be moved into the file");
    code
}

/// Writes the log's bytes again and flushes them. They do not change, so that concurrent readers are not affected.
pub(super) fn rewrite(connection: &Connection) -> Result<()> {
    // Reading opens the log.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let Some(file) = OpenedFile::log_of(connection)? else { return Ok(()) };
    let len = file.len()?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < len {
        // At most `PIECE_BYTES`.
        let count = (len - at).min(PIECE_BYTES as i64);
        let piece = &mut piece[..count as usize];
        file.read_at(piece, at)?;
        file.write_at(piece, at)?;
        at += count;
    }
    file.flush()
}

/// Flushes commits that were not flushed.
pub(super) fn flush(connection: &Connection) -> Result<()> {
    OpenedFile::log_of(connection)?.map_or(Ok(()), |file| file.flush())
}
