//! Why a store does not do what it is asked for: one type per operation, each with the error of the layer below it.
//!
//! A message is that of its own level. [`chain`] prints it with everything behind it.

use std::error::Error;
use std::fmt::{self, Debug, Display, Formatter};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;

/// The error of a layer below: of the system, of SQLite, or a description. A clone is the same error.
#[derive(Clone)]
pub struct Cause(Arc<dyn Error + Send + Sync>);

impl Cause {
    /// A cause with a description of what was being done, with `source` behind it.
    pub(crate) fn new(what: impl Into<String>, source: impl Into<Self>) -> Self {
        Self(Arc::new(Context { what: what.into(), source: source.into() }))
    }

    /// The error as the source of another one.
    pub(crate) fn as_source(&self) -> &(dyn Error + 'static) {
        &*self.0
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Cause {
    fn from(error: E) -> Self {
        Self(error.into().into())
    }
}

impl Deref for Cause {
    type Target = dyn Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl Debug for Cause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Debug::fmt(&self.0, f)
    }
}

impl Display for Cause {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, f)
    }
}

/// Causes are equal if their messages are.
impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        chain(self.as_source()).to_string() == chain(other.as_source()).to_string()
    }
}

impl Eq for Cause {}

/// What was being done when an error came up.
#[derive(Debug)]
struct Context {
    what: String,
    source: Cause,
}

impl Display for Context {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for Context {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.source.as_source())
    }
}

/// An error and everything behind it, in one line.
pub fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Display + use<'e> {
    fmt::from_fn(move |f| {
        write!(f, "{error}")?;
        let mut next = behind(error);
        while let Some(source) = next {
            write!(f, ": {source}")?;
            next = behind(source);
        }
        Ok(())
    })
}

/// The source of an error, if its message is not part of the error's own. SQLite's libraries repeat it.
pub(crate) fn behind<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e (dyn Error + 'static)> {
    let is_of_sqlite = error.is::<rusqlite::Error>() || error.is::<sqlx::Error>();
    if is_of_sqlite { None } else { error.source() }
}

/// Why a store that is open cannot be recovered, maintained, opened again or closed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// The system or the file refuses what the store needs.
    Unusable(Cause),
    /// There is no space left for what it takes.
    DiskFull(Cause),
    /// What is in the file is not what was written there.
    Damaged(Cause),
    /// The file could not be opened again after an error, and is closed.
    NotOpen,
    /// The store was given up after an error.
    GivenUp,
    /// A mistake of ours: code of the store or of its writer panicked.
    Panicked,
}

impl Display for StoreError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(cause) => write!(f, "{cause}"),
            Self::DiskFull(_) => f.write_str("there is no space left on the disk"),
            Self::Damaged(_) => f.write_str("the store's file is damaged"),
            Self::NotOpen => f.write_str("the file is not open"),
            Self::GivenUp => f.write_str("the store has failed"),
            Self::Panicked => f.write_str("the store panicked"),
        }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Unusable(cause) => behind(cause.as_source()),
            Self::DiskFull(cause) | Self::Damaged(cause) => Some(cause.as_source()),
            Self::NotOpen | Self::GivenUp | Self::Panicked => None,
        }
    }
}

/// Why a store could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// Held by another process.
    Locked {
        /// The holder, if its number is known.
        pid: Option<u32>,
    },
    /// Written by a newer version.
    NewerSchema {
        /// Found in the file.
        found: i64,
        /// The newest that this binary knows.
        known: i64,
    },
    /// Written by an older version, and to be opened without being changed.
    OlderSchema {
        /// Found in the file.
        found: i64,
        /// The newest that this binary knows.
        known: i64,
    },
    /// There is no store in this directory.
    Missing(PathBuf),
    /// The files of the store cannot be used.
    Store(StoreError),
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Display for OpenError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { pid: Some(pid) } => write!(f, "the data directory is held by process {pid}"),
            Self::Locked { pid: None } => f.write_str("the data directory is held by another process"),
            Self::NewerSchema { found, known } => {
                write!(f, "written by a newer version: its schema is {found}, the newest known here is {known}")
            }
            Self::OlderSchema { found, known } => {
                write!(f, "its schema is {found}; prontomq serve migrates it to {known}, then it can be looked over")
            }
            Self::Missing(directory) => {
                write!(f, "no store in {}; give its directory with --data-dir", directory.display())
            }
            Self::Store(error) => write!(f, "{error}"),
        }
    }
}

impl Error for OpenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Store(error) => error.source(),
            _ => None,
        }
    }
}

/// Why rows could not be read back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// The file cannot be read, or what was read is no row.
    Failed(Cause),
    /// The store is closed.
    Closed,
    /// A mistake of ours: the reader panicked.
    Panicked,
}

impl Display for ReadError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(_) => f.write_str("reading the store failed"),
            Self::Closed => f.write_str("the store is closed"),
            Self::Panicked => f.write_str("the reader panicked"),
        }
    }
}

impl Error for ReadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Failed(cause) => Some(cause.as_source()),
            Self::Closed | Self::Panicked => None,
        }
    }
}

/// Why a store is not copied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyError {
    /// The store has no file.
    NotSupported,
    /// Another copy is under way.
    AlreadyRunning,
    /// The writer stops, and the copy with it.
    Stopping,
    /// The copy ended when the file was opened again after an error.
    NotRunning,
    /// Something has the name that the copy is to have.
    TargetExists(PathBuf),
    /// Another backup has the directory in which the copy is made, or was killed and has left it.
    PartialExists(PathBuf),
    /// The store cannot be opened.
    Open(OpenError),
    /// The store, or the disk that the copy is made on, has failed.
    Store(StoreError),
}

impl From<OpenError> for CopyError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<StoreError> for CopyError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Display for CopyError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported => f.write_str("there is no file that could be copied"),
            Self::AlreadyRunning => f.write_str("another backup is under way"),
            Self::Stopping => f.write_str("the broker stops"),
            Self::NotRunning => f.write_str("the copy was given up when the file was opened again"),
            Self::TargetExists(path) => write!(f, "{} exists already", path.display()),
            Self::PartialExists(path) => {
                let why = "is of a backup that is still running or that was killed; in that case remove it";
                write!(f, "{} {why}", path.display())
            }
            Self::Open(error) => write!(f, "{error}"),
            Self::Store(error) => write!(f, "{error}"),
        }
    }
}

impl Error for CopyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Open(error) => error.source(),
            Self::Store(error) => error.source(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, CopyError, OpenError, StoreError, chain};
    use std::error::Error;
    use std::io;

    #[test]
    fn each_message_of_a_chain_is_printed_once() {
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let error = CopyError::Open(OpenError::Store(StoreError::DiskFull(Cause::new("copying a to b", full()))));
        let text = format!("there is no space left on the disk: copying a to b: {}", full());
        assert_eq!(chain(&error).to_string(), text);
        let unusable = OpenError::Store(StoreError::Unusable(Cause::new("copying a to b", full())));
        assert_eq!(chain(&unusable).to_string(), format!("copying a to b: {}", full()));
    }

    #[test]
    fn a_message_of_sqlite_is_printed_once() {
        let failure = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(10), Some("disk I/O error".into()));
        assert_eq!(chain(&StoreError::Unusable(failure.into())).to_string(), "disk I/O error");
        let failure = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(11), Some("malformed".into()));
        let damaged = StoreError::Damaged(Cause::new("a.sqlite3", failure));
        assert_eq!(chain(&damaged).to_string(), "the store's file is damaged: a.sqlite3: malformed");
    }

    #[test]
    fn the_error_of_the_system_can_be_reached() {
        let error = StoreError::Unusable(Cause::new("a.sqlite3", io::Error::from(io::ErrorKind::NotFound)));
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        assert_eq!(source.map(io::Error::kind), Some(io::ErrorKind::NotFound));
        let StoreError::Unusable(cause) = StoreError::Unusable(io::Error::from(io::ErrorKind::NotFound).into()) else {
            panic!("another error")
        };
        assert!(cause.downcast_ref::<io::Error>().is_some());
    }
}
