//! The connection that sqlx opened, locked and used through its raw handle: sqlx costs ten times as much per small row.
//! And a copy of its file, made step by step on the same handle.

use super::errors::{failure, unusable};
use super::inserts::Inserts;
use super::runtime::block_on;
use crate::store::StoreError;
use rusqlite::backup::{Backup, Progress, StepResult};
use rusqlite::{Connection, Result};
use self_cell::{MutBorrow, self_cell};
use sqlx::SqliteConnection;
use sqlx::sqlite::LockedSqliteHandle;
use std::cell::RefCell;

/// The lock, and connections on its handle. Fields are dropped in this order: the copy, the statements, the connection,
/// the lock.
struct LockedConnection<'a> {
    copy: Option<FileCopy>,
    inserts: RefCell<Inserts>,
    connection: Connection,
    lock: LockedSqliteHandle<'a>,
}

self_cell!(
    struct OwnedConnection {
        owner: MutBorrow<SqliteConnection>,
        #[not_covariant]
        dependent: LockedConnection,
    }
);

/// An open connection, locked for direct calls until [`RawConnection::unlock`].
pub(super) struct RawConnection(OwnedConnection);

impl RawConnection {
    pub(super) fn lock(connection: SqliteConnection) -> std::result::Result<Self, StoreError> {
        OwnedConnection::try_new(MutBorrow::new(connection), |owner| {
            let mut lock = block_on(owner.borrow_mut().lock_handle()).map_err(unusable)?;
            let connection = on_handle(&mut lock).map_err(failure)?;
            super::log::leave_at_close(&connection, true).map_err(failure)?;
            Ok(LockedConnection { copy: None, inserts: RefCell::default(), connection, lock })
        })
        .map(Self)
    }

    pub(super) fn with<T>(&self, run: impl FnOnce(&Connection) -> T) -> T {
        self.0.with_dependent(|_, locked| run(&locked.connection))
    }

    /// As [`with`](Self::with), with the prepared inserts.
    pub(super) fn with_inserts<T>(&self, run: impl FnOnce(&Connection, &mut Inserts) -> T) -> T {
        self.0.with_dependent(|_, locked| run(&locked.connection, &mut locked.inserts.borrow_mut()))
    }

    /// Begins to copy the file into `target`. Later commits of this connection become part of the copy, and do not make
    /// it start over.
    pub(super) fn begin_copy(&mut self, target: Connection) -> Result<()> {
        self.0.with_dependent_mut(|_, locked| {
            locked.copy = None;
            let source = on_handle(&mut locked.lock)?;
            locked.copy = Some(FileCopy::begin(source, target)?);
            Ok(())
        })
    }

    /// Copies up to this many pages. `None` if no copy is under way.
    pub(super) fn step_copy(&mut self, pages: i32) -> Option<Result<(Progress, StepResult)>> {
        self.0.with_dependent_mut(|_, locked| {
            let copy = locked.copy.as_ref()?;
            Some(copy.step(pages))
        })
    }

    pub(super) fn is_copying(&self) -> bool {
        self.0.with_dependent(|_, locked| locked.copy.is_some())
    }

    /// Ends the copy.
    pub(super) fn end_copy(&mut self) {
        self.0.with_dependent_mut(|_, locked| locked.copy = None);
    }

    /// Returns the connection to sqlx.
    pub(super) fn unlock(self) -> SqliteConnection {
        self.0.into_owner().into_inner()
    }
}

/// Source and target of a copy.
struct CopyEnds {
    source: Connection,
    target: Connection,
}

type RunningBackup<'a> = Backup<'a, 'a>;

self_cell!(
    struct EndsAndBackup {
        owner: MutBorrow<CopyEnds>,
        #[not_covariant]
        dependent: RunningBackup,
    }
);

/// A copy under way.
struct FileCopy(EndsAndBackup);

#[expect(unsafe_code, reason = "a backup is a pointer to rusqlite, which does not say that it may change threads")]
// SAFETY: SQLite ties a backup to its two connections, not to a thread. Both connections are `Send`. The source's
// handle is that of the `LockedConnection`, and a `FileCopy` never leaves its `LockedConnection`: they change threads
// together, and only `&mut RawConnection` reaches them.
unsafe impl Send for FileCopy {}

impl FileCopy {
    fn begin(source: Connection, target: Connection) -> Result<Self> {
        EndsAndBackup::try_new(MutBorrow::new(CopyEnds { source, target }), |ends| {
            let CopyEnds { source, target } = ends.borrow_mut();
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
    // SAFETY: the handle is open, and no one else uses it while `lock` lives. `LockedConnection` drops the connections
    // before the lock, and they do not close the handle. Both crates are built on the same libsqlite3-sys.
    unsafe { Connection::from_handle(lock.as_raw_handle().as_ptr()) }
}
