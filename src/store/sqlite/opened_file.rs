//! A file by the handle that SQLite has open. Closing another handle of the same file would end SQLite's locks.

#![expect(unsafe_code, reason = "SQLite hands its files out only through C functions")]

use rusqlite::{Connection, Error, Result, ffi};
use std::ffi::{CStr, c_int};
use std::ptr::null_mut;

/// Bytes of a page of the database.
pub(super) const PAGE_BYTES: u32 = 16_384;

const MAIN: &CStr = c"main";

/// SQLite itself calls these methods without a check.
const ALL_HAVE_IT: &str = "every file can be read, written, cut and flushed";

/// The database's file, or its write-ahead log.
pub(super) struct OpenedFile<'a> {
    file: *mut ffi::sqlite3_file,
    methods: &'a ffi::sqlite3_io_methods,
}

impl<'a> OpenedFile<'a> {
    /// The database's file; `None` if it is not open.
    pub(super) fn database_of(connection: &'a Connection) -> Result<Option<Self>> {
        Self::of(connection, ffi::SQLITE_FCNTL_FILE_POINTER)
    }

    /// The write-ahead log; `None` if it is not open.
    pub(super) fn log_of(connection: &'a Connection) -> Result<Option<Self>> {
        Self::of(connection, ffi::SQLITE_FCNTL_JOURNAL_POINTER)
    }

    fn of(connection: &'a Connection, which: c_int) -> Result<Option<Self>> {
        let mut file: *mut ffi::sqlite3_file = null_mut();
        // SAFETY: the connection is open and no other thread uses it. SQLite writes a pointer into `file`; the file
        // stays open, and its methods stay in place, as long as the connection is borrowed.
        unsafe {
            let to = (&raw mut file).cast();
            check(ffi::sqlite3_file_control(connection.handle(), MAIN.as_ptr(), which, to))?;
            if file.is_null() {
                return Ok(None);
            }
            Ok((*file).pMethods.as_ref().map(|methods| Self { file, methods }))
        }
    }

    pub(super) fn len(&self) -> Result<i64> {
        let mut len = 0;
        // SAFETY: the file is open.
        check(unsafe { self.methods.xFileSize.expect(ALL_HAVE_IT)(self.file, &raw mut len) })?;
        Ok(len)
    }

    /// Reads at most 128 KiB less one byte: the limit of SQLite's own layer.
    pub(super) fn read_at(&self, piece: &mut [u8], at: i64) -> Result<()> {
        let count = piece.len() as c_int;
        // SAFETY: the file is open, and there are this many bytes in the piece.
        check(unsafe { self.methods.xRead.expect(ALL_HAVE_IT)(self.file, piece.as_mut_ptr().cast(), count, at) })
    }

    /// Writes, within the limit of [`read_at`](Self::read_at).
    pub(super) fn write_at(&self, piece: &[u8], at: i64) -> Result<()> {
        let count = piece.len() as c_int;
        // SAFETY: the file is open, and there are this many bytes in the piece.
        check(unsafe { self.methods.xWrite.expect(ALL_HAVE_IT)(self.file, piece.as_ptr().cast(), count, at) })
    }

    pub(super) fn cut(&self, len: i64) -> Result<()> {
        // SAFETY: the file is open.
        check(unsafe { self.methods.xTruncate.expect(ALL_HAVE_IT)(self.file, len) })
    }

    pub(super) fn flush(&self) -> Result<()> {
        // SAFETY: the file is open.
        check(unsafe { self.methods.xSync.expect(ALL_HAVE_IT)(self.file, ffi::SQLITE_SYNC_NORMAL) })
    }
}

fn check(code: c_int) -> Result<()> {
    if code == ffi::SQLITE_OK { Ok(()) } else { Err(Error::SqliteFailure(ffi::Error::new(code), None)) }
}
