//! What the errors of SQLite mean for the store.

use crate::store::{Cause, StoreError};
use rusqlite::{Error, ErrorCode, ffi};

/// Whether there was no space left.
pub(super) fn is_full(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Whether moving the log after a commit has failed, not the commit itself. SQLite then reports just this code.
pub(super) fn is_of_moving(error: &Error) -> bool {
    error.sqlite_error().is_some_and(|error| error.extended_code == ffi::SQLITE_ERROR)
}

/// Whether the log's contents may not be on the disk after this error, even if later flushes succeed. Then nothing may
/// be moved out of the log before the file was opened again.
pub(super) fn may_be_unflushed(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) || is_of_moving(error)
}

/// The error of the store for one of sqlx, while opening, migrating or reading at start.
pub(super) fn unusable(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(|error| error.code()).and_then(|code| code.parse().ok());
    failure_of(code, error)
}

/// The error of the store for one of SQLite.
pub(super) fn failure(error: Error) -> StoreError {
    failure_of(code_of(&error), error)
}

/// As [`failure`]; `what` was being done.
pub(super) fn failure_while(what: impl Into<String>, error: Error) -> StoreError {
    failure_of(code_of(&error), Cause::new(what, error))
}

fn code_of(error: &Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

/// Classifies an error by SQLite's extended code.
fn failure_of(code: Option<i32>, cause: impl Into<Cause>) -> StoreError {
    let cause = cause.into();
    // SQLite has no plain code for a disk that has no space for the index of the log.
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
