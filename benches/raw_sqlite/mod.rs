//! What SQLite itself costs: the store's own transactions on the store's own file, through the C API and nothing else.
//!
//! Each call does what one batch of the store does: BEGIN IMMEDIATE, the lane's row, the rows (bound without a copy),
//! COMMIT. Not here: looking lanes up, checking positions, outcomes.

#![expect(unsafe_code, reason = "the C API is what is measured")]

use prontomq::internals::model::Message;
use rusqlite::ffi;
use std::ffi::{CStr, c_int};
use std::path::Path;
use std::ptr::null_mut;

const PRAGMAS: &CStr = c"PRAGMA synchronous = FULL; PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 1000;
    PRAGMA journal_size_limit = 67108864; PRAGMA temp_store = MEMORY; PRAGMA mmap_size = 0;
    INSERT INTO lane (number, queue, level, generation, head, tail, count, body_bytes, lent_ceiling, dropped)
    VALUES (0, 1, 0, 0, 0, 0, 0, 0, 0, 0)";

/// The store's layer of the system's files, so that flushes are the same.
const LAYER: &CStr = c"prontomq";

/// One lane (number 0, so that keys are positions) of a file that the store has made.
pub(crate) struct RawSqlite {
    handle: *mut ffi::sqlite3,
    begin: *mut ffi::sqlite3_stmt,
    update_lane: *mut ffi::sqlite3_stmt,
    insert: *mut ffi::sqlite3_stmt,
    delete_range: *mut ffi::sqlite3_stmt,
    commit: *mut ffi::sqlite3_stmt,
}

impl RawSqlite {
    pub(crate) fn open(file: &Path) -> Self {
        let path = std::ffi::CString::new(file.to_str().expect("a plain path")).expect("no zero in it");
        let mut handle = null_mut();
        // SAFETY: the path ends with a zero; the handle is written before it is used.
        unsafe {
            let flags = ffi::SQLITE_OPEN_READWRITE | ffi::SQLITE_OPEN_NOMUTEX;
            assert_eq!(ffi::sqlite3_open_v2(path.as_ptr(), &raw mut handle, flags, LAYER.as_ptr()), ffi::SQLITE_OK);
            let done = ffi::sqlite3_exec(handle, PRAGMAS.as_ptr(), None, null_mut(), null_mut());
            assert_eq!(done, ffi::SQLITE_OK, "{:?}", CStr::from_ptr(ffi::sqlite3_errmsg(handle)));
        }
        let prepare = |text: &CStr| {
            let mut statement = null_mut();
            // SAFETY: the handle is open and the text ends with a zero.
            let code = unsafe {
                let flags = ffi::SQLITE_PREPARE_PERSISTENT;
                ffi::sqlite3_prepare_v3(handle, text.as_ptr(), -1, flags, &raw mut statement, null_mut())
            };
            assert_eq!(code, ffi::SQLITE_OK, "{text:?}");
            statement
        };
        Self {
            handle,
            begin: prepare(c"BEGIN IMMEDIATE"),
            update_lane: prepare(
                c"UPDATE lane SET head = ?2, tail = ?3, count = ?4, body_bytes = ?5, lent_ceiling = ?6,
                  batch_no = ?7 WHERE number = ?1",
            ),
            insert: prepare(c"INSERT INTO message VALUES (?1, ?2, ?3, ?4, ?5, 1, NULL, NULL)"),
            delete_range: prepare(c"DELETE FROM message WHERE id BETWEEN ?1 AND ?2"),
            commit: prepare(c"COMMIT"),
        }
    }

    /// Inserts messages at rising positions.
    pub(crate) fn insert(&mut self, batch_no: i64, first: i64, messages: &[Message]) {
        step(self.begin, &[]);
        step(self.update_lane, &[0, 0, 0, 0, 0, 0, batch_no]);
        for (message, position) in messages.iter().zip(first..) {
            // SAFETY: the statement is prepared, and the message outlives the step that reads its bytes.
            unsafe {
                ffi::sqlite3_bind_int64(self.insert, 1, position);
                ffi::sqlite3_bind_int64(self.insert, 2, 0);
                bind_blob(self.insert, 4, message.head_bytes());
                if let Some(body) = message.large_body() {
                    bind_blob(self.insert, 5, body);
                }
                assert_eq!(ffi::sqlite3_step(self.insert), ffi::SQLITE_DONE);
                ffi::sqlite3_reset(self.insert);
            }
        }
        step(self.commit, &[]);
    }

    /// Removes everything below a position.
    pub(crate) fn remove_below(&mut self, batch_no: i64, below: i64) {
        step(self.begin, &[]);
        step(self.update_lane, &[0, 0, 0, 0, 0, 0, batch_no]);
        step(self.delete_range, &[0, below - 1]);
        step(self.commit, &[]);
    }
}

impl Drop for RawSqlite {
    fn drop(&mut self) {
        // SAFETY: all of them are open, and nobody uses them any more.
        unsafe {
            for statement in [self.begin, self.update_lane, self.insert, self.delete_range, self.commit] {
                ffi::sqlite3_finalize(statement);
            }
            ffi::sqlite3_close(self.handle);
        }
    }
}

fn step(statement: *mut ffi::sqlite3_stmt, values: &[i64]) {
    // SAFETY: the statement is prepared and takes as many numbers as it is given.
    unsafe {
        for (value, at) in values.iter().zip(1..) {
            ffi::sqlite3_bind_int64(statement, at, *value);
        }
        assert_eq!(ffi::sqlite3_step(statement), ffi::SQLITE_DONE);
        ffi::sqlite3_reset(statement);
    }
}

/// # Safety
/// The bytes stay where they are until the statement has been stepped.
unsafe fn bind_blob(statement: *mut ffi::sqlite3_stmt, at: c_int, bytes: &[u8]) {
    let len = c_int::try_from(bytes.len()).expect("a message is smaller");
    // SAFETY: as the caller promises.
    unsafe { ffi::sqlite3_bind_blob(statement, at, bytes.as_ptr().cast(), len, ffi::SQLITE_STATIC()) };
}
