//! The connection that sqlx opened, locked and spoken to directly: sqlx costs ten times as much per small row.

use super::opening::block_on;
use rusqlite::Connection;
use self_cell::{MutBorrow, self_cell};
use sqlx::SqliteConnection;
use sqlx::sqlite::LockedSqliteHandle;

/// The lock, and a connection on its handle. The order of the fields is that of their end: statements first.
struct Locked<'a> {
    connection: Connection,
    _lock: LockedSqliteHandle<'a>,
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
    pub(super) fn lock(connection: SqliteConnection) -> Result<Self, String> {
        Owned::try_new(MutBorrow::new(connection), |owner| {
            let mut lock = block_on(owner.borrow_mut().lock_handle()).map_err(|error| error.to_string())?;
            let connection = on_handle(&mut lock).map_err(|error| error.to_string())?;
            Ok(Locked { connection, _lock: lock })
        })
        .map(Self)
    }

    pub(super) fn with<T>(&self, run: impl FnOnce(&Connection) -> T) -> T {
        self.0.with_dependent(|_, locked| run(&locked.connection))
    }

    /// Gives the connection back to sqlx.
    pub(super) fn unlock(self) -> SqliteConnection {
        self.0.into_owner().into_inner()
    }
}

#[expect(unsafe_code, reason = "sqlx hands out its handle only as a pointer")]
fn on_handle(lock: &mut LockedSqliteHandle<'_>) -> rusqlite::Result<Connection> {
    // SAFETY: the handle is open and ours alone while `lock` lives, and `Locked` drops the connection, which does not
    // close the handle, before the lock. Both crates are built on the same libsqlite3-sys.
    unsafe { Connection::from_handle(lock.as_raw_handle().as_ptr()) }
}
