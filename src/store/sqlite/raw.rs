//! The connection that sqlx opened, locked and spoken to directly: sqlx costs ten times as much per small row; the
//! statements that insert, which bind bytes where they are: through rusqlite, which copies them first, inserting a row of
//! 16 bytes costs 12 to 15 % more, one of 1 KiB 4 to 10 % (`benches/store_commit.rs`); and a copy of the file, taken step by
//! step on the same handle.

use super::commit::INSERTS;
use super::opening::block_on;
use rusqlite::backup::{Backup, Progress, StepResult};
use rusqlite::{Connection, Error, Result, ffi};
use self_cell::{MutBorrow, self_cell};
use sqlx::SqliteConnection;
use sqlx::sqlite::LockedSqliteHandle;
use std::cell::RefCell;
use std::ffi::{CStr, c_int};
use std::ptr::{self, NonNull};

/// The lock, and connections on its handle. The order of the fields is that of their end: what runs, statements, the lock.
struct Locked<'a> {
    copy: Option<Copying>,
    inserts: RefCell<Inserts>,
    connection: Connection,
    lock: LockedSqliteHandle<'a>,
}

self_cell!(
    struct Owned {
        owner: MutBorrow<SqliteConnection>,
        #[not_covariant]
        dependent: Locked,
    }
);

/// An open connection, held for direct calls until [`RawConnection::unlock`].
pub(super) struct RawConnection(Owned);

impl RawConnection {
    pub(super) fn lock(connection: SqliteConnection) -> std::result::Result<Self, String> {
        Owned::try_new(MutBorrow::new(connection), |owner| {
            let mut lock = block_on(owner.borrow_mut().lock_handle()).map_err(|error| error.to_string())?;
            let connection = on_handle(&mut lock).map_err(|error| error.to_string())?;
            Ok(Locked { copy: None, inserts: RefCell::default(), connection, lock })
        })
        .map(Self)
    }

    pub(super) fn with<T>(&self, run: impl FnOnce(&Connection) -> T) -> T {
        self.0.with_dependent(|_, locked| run(&locked.connection))
    }

    /// Begins to copy the file into `target`. What this connection commits from now on gets into the copy, and does not
    /// make it begin anew.
    pub(super) fn begin_copy(&mut self, target: Connection) -> Result<()> {
        self.0.with_dependent_mut(|_, locked| {
            locked.copy = None;
            let source = on_handle(&mut locked.lock)?;
            locked.copy = Some(Copying::begin(source, target)?);
            Ok(())
        })
    }

    /// Copies up to so many pages; whether that were the last ones. None when no copy is under way.
    pub(super) fn step_copy(&mut self, pages: i32) -> Option<Result<(Progress, StepResult)>> {
        self.0.with_dependent_mut(|_, locked| {
            let copy = locked.copy.as_ref()?;
            Some(copy.step(pages))
        })
    }

    /// Closes the copy.
    pub(super) fn end_copy(&mut self) {
        self.0.with_dependent_mut(|_, locked| locked.copy = None);
    }

    /// With the statements that insert.
    pub(super) fn with_inserts<T>(&self, run: impl FnOnce(&Connection, &mut Inserts) -> T) -> T {
        self.0.with_dependent(|_, locked| run(&locked.connection, &mut locked.inserts.borrow_mut()))
    }

    /// Gives the connection back to sqlx.
    pub(super) fn unlock(self) -> SqliteConnection {
        self.0.into_owner().into_inner()
    }
}

/// From where, and whereto.
struct Ends {
    source: Connection,
    target: Connection,
}

type Running<'a> = Backup<'a, 'a>;

self_cell!(
    struct EndsAndBackup {
        owner: MutBorrow<Ends>,
        #[not_covariant]
        dependent: Running,
    }
);

/// A copy under way.
struct Copying(EndsAndBackup);

#[expect(unsafe_code, reason = "a backup is a pointer to rusqlite, which does not say that it may change threads")]
// SAFETY: SQLite ties a backup to its two connections, not to a thread. Both connections are `Send`; the source's handle
// is the one that `Locked` holds, and a `Copying` never leaves its `Locked`, so that they change threads together and
// only `&mut RawConnection` reaches them.
unsafe impl Send for Copying {}

impl Copying {
    fn begin(source: Connection, target: Connection) -> Result<Self> {
        EndsAndBackup::try_new(MutBorrow::new(Ends { source, target }), |ends| {
            let Ends { source, target } = ends.borrow_mut();
            Backup::new(source, target)
        })
        .map(Self)
    }

    fn step(&self, pages: i32) -> Result<(Progress, StepResult)> {
        self.0.with_dependent(|_, backup| {
            let result = backup.step(pages)?;
            Ok((backup.progress(), result))
        })
    }
}

#[expect(unsafe_code, reason = "sqlx hands out its handle only as a pointer")]
fn on_handle(lock: &mut LockedSqliteHandle<'_>) -> Result<Connection> {
    // SAFETY: the handle is open and ours alone while `lock` lives, and `Locked` drops the connections, which do not
    // close the handle, before the lock. Both crates are built on the same libsqlite3-sys.
    unsafe { Connection::from_handle(lock.as_raw_handle().as_ptr()) }
}

/// The statements that insert, prepared at their first use: readers have none.
#[derive(Default)]
pub(super) struct Inserts(Option<[Insert; INSERTS.len()]>);

impl Inserts {
    /// Those of [`INSERTS`], in their order, on the connection that these belong to.
    pub(super) fn prepared(&mut self, connection: &Connection) -> Result<&mut [Insert; INSERTS.len()]> {
        if self.0.is_none() {
            let [row, body, chunk] = INSERTS.map(|text| Insert::prepare(connection, text));
            self.0 = Some([row?, body?, chunk?]);
        }
        Ok(self.0.as_mut().expect("they were just prepared"))
    }
}

/// What a parameter is bound to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Null,
    Integer(i64),
    Blob(&'a [u8]),
}

/// A prepared statement whose bytes are not copied.
pub(super) struct Insert(NonNull<ffi::sqlite3_stmt>);

#[expect(unsafe_code, reason = "rusqlite binds bytes only by copying them")]
// SAFETY: a statement may be used on any thread, by one at a time; `run` needs it mutably.
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

    /// Runs it once with a value for each of its parameters.
    pub(super) fn run(&mut self, values: &[Value<'_>]) -> Result<()> {
        let statement = self.0.as_ptr();
        // SAFETY: the statement is prepared and not running. What is bound without a copy outlives this call, only
        // `sqlite3_step` reads it, and a parameter that is not bound anew is not left from an earlier call, since there
        // are as many values as parameters.
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
        // SAFETY: nobody uses it any more, and its connection is still open.
        unsafe { ffi::sqlite3_finalize(self.0.as_ptr()) };
    }
}

/// # Safety
/// The statement is prepared and not running, and is stepped only while the bytes are there.
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
