//! The prepared inserts. They bind bytes without copying them. Through rusqlite, which copies them, inserting a row of
//! 16 bytes costs 12 to 15 % more, one of 1 KiB 4 to 10 % (`benches/store_commit.rs`).

use rusqlite::{Connection, Error, Result, ffi};
use std::ffi::{CStr, c_int};
use std::ptr::{self, NonNull};

/// The statements that bind bytes, for [`Inserts`]. Two columns of a message are not used any more: transient messages
/// once were stored in this table too.
pub(super) const INSERTS: [&CStr; 3] =
    [c"INSERT INTO message VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL, NULL)", INSERT_BODY, INSERT_CHUNK];

/// Inserts a body: id, references, bytes.
const INSERT_BODY: &CStr = c"INSERT INTO body VALUES (?1, ?2, ?3)";
/// Inserts a chunk: key, bytes.
const INSERT_CHUNK: &CStr = c"INSERT INTO chunk VALUES (?1, ?2)";

/// The prepared inserts. They are prepared at their first use, because readers do not need them.
#[derive(Default)]
pub(super) struct Inserts(Option<[Insert; INSERTS.len()]>);

impl Inserts {
    /// The statements of [`INSERTS`], in their order. The connection must be the same in every call.
    pub(super) fn prepared(&mut self, connection: &Connection) -> Result<&mut [Insert; INSERTS.len()]> {
        if self.0.is_none() {
            let [row, body, chunk] = INSERTS.map(|text| Insert::prepare(connection, text));
            self.0 = Some([row?, body?, chunk?]);
        }
        Ok(self.0.as_mut().expect("they were just prepared"))
    }
}

/// The value of a parameter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Null,
    Integer(i64),
    Blob(&'a [u8]),
}

/// A prepared statement that does not copy the bytes of its parameters.
pub(super) struct Insert(NonNull<ffi::sqlite3_stmt>);

#[expect(unsafe_code, reason = "rusqlite binds bytes only by copying them")]
// SAFETY: a statement may be used on any thread, by one thread at a time; `run` borrows it mutably.
unsafe impl Send for Insert {}

#[expect(unsafe_code, reason = "rusqlite binds bytes only by copying them")]
impl Insert {
    fn prepare(connection: &Connection, text: &CStr) -> Result<Self> {
        let mut statement = ptr::null_mut();
        // SAFETY: the connection is open, the text ends with a zero, and `Locked` drops this before the connection.
        let code = unsafe {
            let flags = ffi::SQLITE_PREPARE_PERSISTENT;
            let (handle, text) = (connection.handle(), text.as_ptr());
            ffi::sqlite3_prepare_v3(handle, text, -1, flags, &raw mut statement, ptr::null_mut())
        };
        NonNull::new(statement).map(Self).ok_or_else(|| Error::SqliteFailure(ffi::Error::new(code), None))
    }

    /// Runs the statement once, with a value for each parameter.
    pub(super) fn run(&mut self, values: &[Value<'_>]) -> Result<()> {
        let statement = self.0.as_ptr();
        // SAFETY: the statement is prepared and not running. Bytes that are bound outlive this call, and only
        // `sqlite3_step` reads them. No parameter keeps the bytes of an earlier call, since there are as many values as
        // parameters.
        unsafe {
            assert_eq!(ffi::sqlite3_bind_parameter_count(statement) as usize, values.len());
            let mut bound = values.iter().zip(1..).map(|(value, at)| bind(statement, at, *value));
            let code = bound.find(|code| *code != ffi::SQLITE_OK).unwrap_or_else(|| ffi::sqlite3_step(statement));
            let result = if code == ffi::SQLITE_DONE { Ok(()) } else { Err(error(statement, code)) };
            ffi::sqlite3_reset(statement);
            result
        }
    }
}

#[expect(unsafe_code, reason = "rusqlite binds bytes only by copying them")]
impl Drop for Insert {
    fn drop(&mut self) {
        // SAFETY: it is not used any more, and its connection is still open.
        unsafe { ffi::sqlite3_finalize(self.0.as_ptr()) };
    }
}

/// # Safety
/// The statement is prepared and not running, and is stepped only while the bytes live.
#[expect(unsafe_code, reason = "rusqlite binds bytes only by copying them")]
unsafe fn bind(statement: *mut ffi::sqlite3_stmt, at: c_int, value: Value<'_>) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        match value {
            Value::Null => ffi::sqlite3_bind_null(statement, at),
            Value::Integer(number) => ffi::sqlite3_bind_int64(statement, at, number),
            Value::Blob(bytes) => {
                let (start, len) = (bytes.as_ptr().cast(), bytes.len() as u64);
                ffi::sqlite3_bind_blob64(statement, at, start, len, ffi::SQLITE_STATIC())
            }
        }
    }
}

/// # Safety
/// The statement is prepared and was just stepped.
#[expect(unsafe_code, reason = "rusqlite binds bytes only by copying them")]
unsafe fn error(statement: *mut ffi::sqlite3_stmt, code: c_int) -> Error {
    // SAFETY: the handle is that of an open connection; its text is copied before anything else is called.
    let text = unsafe {
        let handle = ffi::sqlite3_db_handle(statement);
        CStr::from_ptr(ffi::sqlite3_errmsg(handle)).to_string_lossy().into_owned()
    };
    Error::SqliteFailure(ffi::Error::new(code), Some(text))
}
