//! The write-ahead log: when it is moved into the file, and what makes it safe after a flush that failed.
//!
//! After such a flush the system holds pages for clean that never reached the disk, and a later flush leaves them out. Frames
//! that are then read back from the log look well; once they are half moved into the file, a loss of power finds neither
//! them nor the pages that they replace. So nothing is moved before the log's bytes are written anew and flushed.

#![expect(unsafe_code, reason = "SQLite tells of moving the log only through C functions")]

use super::opened_file::{OpenedFile, PAGE_BYTES};
use crate::store::Batch;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Result, ffi};
use std::ffi::{c_char, c_int, c_void};
use std::ops::RangeInclusive;
use std::ptr::{self, null_mut};

/// Bytes of the log that are written anew at a time. SQLite's own layer takes no more than 128 KiB less one at once.
const PIECE_BYTES: usize = 1 << 16;

/// Moving the log keeps the next batch waiting, the longer the more there is: so it happens after so many batches of about
/// the same size, within bounds.
const BATCHES_PER_MOVE: usize = 16;

/// How many pages the log may have before a batch moves it.
pub(super) fn pages_for(batch: &Batch, bounds: &RangeInclusive<u32>) -> u32 {
    let rows = batch.lanes.iter().flat_map(|change| &change.inserts);
    let bytes: usize = rows.map(|row| row.message.head_bytes().len() + row.message.body_len()).sum();
    let pages = bytes / PAGE_BYTES as usize + batch.lanes.len();
    u32::try_from(pages * BATCHES_PER_MOVE).unwrap_or(u32::MAX).clamp(*bounds.start(), *bounds.end())
}

/// Lets a connection leave the log as it is when it closes: nobody would hear that moving it has failed.
pub(super) fn leave_at_close(connection: &Connection, leaves: bool) -> Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, leaves).map(drop)
}

/// From here on a commit after which the log has so many pages moves it into the file, as far as readers allow. SQLite
/// does so by itself, but keeps quiet when it fails; here the statement that commits fails, though it has committed
/// (`is_of_moving` in `errors`).
pub(super) fn move_after_commits(connection: &Connection, pages: u32) {
    // SAFETY: the connection is open; the third argument is a number, which `committed` takes for one.
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
    // A reader, or a full disk, leaves the log as it is.
    if code & 0xFF != ffi::SQLITE_IOERR {
        return ffi::SQLITE_OK;
    }
    tracing::error!(error = %ffi::Error::new(code), "the log could not be moved into the file");
    code
}

/// Writes the log's bytes once more and flushes them. Those that read it meanwhile see what they would have seen.
pub(super) fn rewrite(connection: &Connection) -> Result<()> {
    // Reading opens the log.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    let Some(file) = OpenedFile::log_of(connection)? else { return Ok(()) };
    let len = file.len()?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut at = 0;
    while at < len {
        // No more than a piece.
        let count = (len - at).min(PIECE_BYTES as i64);
        let piece = &mut piece[..count as usize];
        file.read_at(piece, at)?;
        file.write_at(piece, at)?;
        at += count;
    }
    file.flush()
}

/// Flushes what was committed without.
pub(super) fn flush(connection: &Connection) -> Result<()> {
    OpenedFile::log_of(connection)?.map_or(Ok(()), |file| file.flush())
}
