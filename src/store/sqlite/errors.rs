//! What the errors of SQLite mean for the store.

use crate::store::{Cause, StoreError};
use rusqlite::{Error, ErrorCode, ffi};

/// Whether there was no space left.
pub(super) fn is_full(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Whether a statement's error is that of moving the log after it: SQLite hands out no other code.
pub(super) fn is_of_moving(error: &Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_ERROR)
}

/// Whether what the log holds may not be on the disk after a statement's error, though later flushes succeed: from here on
/// nothing may be moved before the file was opened again.
pub(super) fn may_be_unflushed(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) || is_of_moving(error)
}

/// What opening, migrating and reading at start may meet: damage, a full disk, or anything else.
pub(super) fn unusable(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse().ok());
    failure_of(code, error)
}

/// As [`unusable`], of SQLite's own errors.
pub(super) fn failure(error: Error) -> StoreError {
    failure_of(code_of(&error), error)
}

/// As [`failure`], of an error that came up while this was done.
pub(super) fn failure_while(what: impl Into<String>, error: Error) -> StoreError {
    failure_of(code_of(&error), Cause::new(what, error))
}

fn code_of(error: &Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

/// By SQLite's extended code.
fn failure_of(code: Option<i32>, cause: impl Into<Cause>) -> StoreError {
    let cause = cause.into();
    // There is no space for the index of the log.
    if code == Some(ffi::SQLITE_IOERR_SHMSIZE) {
        return StoreError::DiskFull(cause);
    }
    // The lowest byte of an extended code is the plain one.
    match code.map(|code| code & 0xFF) {
        Some(ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB) => StoreError::Damaged(cause),
        Some(ffi::SQLITE_FULL) => StoreError::DiskFull(cause),
        _ => StoreError::Unusable(cause),
    }
}
