//! The data directory, which one process at a time has locked.

use crate::store::{Cause, OpenError, StoreError};
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

const DATABASE_FILE: &str = "prontomq.sqlite3";
const LOCK_FILE: &str = "prontomq.lock";

/// It exists while the log may not be on the disk. It need not be flushed itself: after a loss of power there is no
/// page that the system could take for clean.
const UNFLUSHED_FILE: &str = "prontomq.unflushed";

/// The beginning of the names of files that reserve space.
const RESERVES: &str = "prontomq";

/// The redo log.
const REDO_FILE: &str = "prontomq.redo";

/// A data directory that this process has locked. The lock is the operating system's and ends with its holder. The
/// process id in the file is only for people.
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    pub(super) fn hold(path: &Path) -> Result<Self, OpenError> {
        let unusable = |error: std::io::Error| no_access("write in", path, error);
        make(path).map_err(unusable)?;
        let mut options = OpenOptions::new();
        let mut lock =
            options.read(true).write(true).create(true).truncate(false).open(path.join(LOCK_FILE)).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked { pid: holder(&mut lock) }),
            Err(TryLockError::Error(error)) => return Err(unusable(error)),
        }
        if let Err(error) = sign(&mut lock) {
            // The disk may be full. The process id is only for people.
            tracing::warn!(%error, "the lock file does not say which process holds it");
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// As [`hold`](Self::hold), for a directory that must have a store.
    pub(super) fn hold_existing(path: &Path) -> Result<Self, OpenError> {
        existing_database(path)?;
        Self::hold(path)
    }

    pub(super) fn database(&self) -> PathBuf {
        database_file(&self.path)
    }

    /// The redo log.
    pub(super) fn redo(&self) -> PathBuf {
        redo_file(&self.path)
    }

    /// The beginning of the paths of files that reserve space.
    pub(super) fn reserves(&self) -> PathBuf {
        self.path.join(RESERVES)
    }

    /// Records that a flush has failed, for this process or a later one.
    pub(super) fn note_unflushed(&self) {
        if let Err(error) = File::create(self.path.join(UNFLUSHED_FILE)) {
            tracing::error!(%error, "it could not be noted that a flush has failed: do not restart before one succeeds");
        }
    }

    pub(super) fn is_unflushed(&self) -> bool {
        self.path.join(UNFLUSHED_FILE).exists()
    }

    /// Records that everything is flushed again.
    pub(super) fn note_flushed(&self) {
        // If it cannot be removed, the next start flushes once more.
        let _ = std::fs::remove_file(self.path.join(UNFLUSHED_FILE));
    }
}

/// The file in a data directory.
#[must_use]
pub fn database_file(directory: &Path) -> PathBuf {
    directory.join(DATABASE_FILE)
}

/// The file of a data directory that must have a store.
///
/// # Errors
/// When there is none, or this user may not read it.
pub fn existing_database(directory: &Path) -> Result<PathBuf, OpenError> {
    let file = database_file(directory);
    match file.metadata() {
        Ok(found) if !found.is_file() => {
            Err(StoreError::Unusable(format!("{} is not a file", file.display()).into()).into())
        }
        // It is not opened: closing it again would end the locks of this process on it.
        Ok(_) => match rustix::fs::access(&file, rustix::fs::Access::READ_OK) {
            Ok(()) => Ok(file),
            Err(error) => Err(no_access("read", &file, error.into())),
        },
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(OpenError::Missing(directory.to_owned()))
        }
        Err(error) => Err(no_access("read", &file, error)),
    }
}

/// The error of a file or directory that cannot be used. If a permission is missing, the message names the user who has it.
fn no_access(verb: &str, path: &Path, error: std::io::Error) -> OpenError {
    let path = path.display();
    let what = match error.kind() {
        ErrorKind::PermissionDenied => {
            format!("no permission to {verb} {path} (run this as the user that the broker runs as)")
        }
        _ => path.to_string(),
    };
    StoreError::Unusable(Cause::new(what, error)).into()
}

/// The redo log in a data directory.
pub(super) fn redo_file(directory: &Path) -> PathBuf {
    directory.join(REDO_FILE)
}

/// Makes the directory if it is missing, for its owner alone: it will contain messages and password hashes.
pub(super) fn make(path: &Path) -> std::io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn sign(lock: &mut File) -> std::io::Result<()> {
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    writeln!(lock, "{}", std::process::id())
}

fn holder(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}
