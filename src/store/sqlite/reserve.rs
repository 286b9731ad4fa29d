//! Space that the store keeps from a disk that has it, for the moments when it has none.
//!
//! There are two files of it. One is lent to what gives space back at run time: acknowledgements, deletions, erasing. The
//! other only a start may use, so that a broker that has used up the first can still open its files.

use super::backup::with_suffix;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// For what gives space back: its pages in the log.
const RUNNING: Kept = Kept { suffix: ".reserve", bytes: 8 << 20 };

/// For a start: the log's index, and the pages of what it writes.
const STARTING: Kept = Kept { suffix: ".start-reserve", bytes: 256 << 10 };

/// While it has less than this beside the reserves, a disk that was full still is.
const MARGIN: Kept = Kept { suffix: ".margin", bytes: 1 << 20 };

/// Less than this is not worth a file.
const LEAST_BYTES: u64 = 64 << 10;

/// Files that only take up space.
pub trait SpareFiles: Send + Sync {
    /// How long it is; nothing when it is not there.
    fn bytes(&self, path: &Path) -> u64;

    /// Makes it so long, if it is shorter. The space is taken from the disk.
    ///
    /// # Errors
    /// When the disk does not have it.
    fn keep(&self, path: &Path, bytes: u64) -> io::Result<()>;

    /// Removes it.
    ///
    /// # Errors
    /// When it is not there, or cannot be removed.
    fn give(&self, path: &Path) -> io::Result<()>;
}

/// The system's files.
pub(super) struct SystemSpares;

#[derive(Clone, Copy)]
struct Kept {
    suffix: &'static str,
    bytes: u64,
}

/// Both reserves of one store.
pub(super) struct Reserves {
    files: Arc<dyn SpareFiles>,
    /// Their common beginning.
    path: PathBuf,
    /// The longest that one may be: a disk in memory is small.
    bytes_max: u64,
}

impl Reserves {
    pub(super) fn new(files: Arc<dyn SpareFiles>, path: PathBuf, bytes_max: u64) -> Self {
        Self { files, path, bytes_max }
    }

    /// Takes both, or as much as the disk has; whether they are whole.
    pub(super) fn keep(&self) -> bool {
        // The start's goes first: without it the broker may not come back.
        let is_start_whole = self.take(STARTING);
        self.take(RUNNING) && is_start_whole
    }

    /// Gives the one for running away; whether there was any.
    pub(super) fn lend(&self) -> bool {
        self.files.give(&self.path_of(RUNNING)).is_ok()
    }

    /// Gives both away, for a start; whether there was any.
    pub(super) fn lend_for_start(&self) -> bool {
        let was_there = self.files.give(&self.path_of(STARTING)).is_ok();
        self.lend() || was_there
    }

    /// Whether the disk has space beside them.
    pub(super) fn is_more_left(&self) -> bool {
        let is_more_left = self.take(MARGIN);
        // It is not there when none of it could be taken.
        let _ = self.files.give(&self.path_of(MARGIN));
        is_more_left
    }

    fn take(&self, kept: Kept) -> bool {
        let path = self.path_of(kept);
        let whole = kept.bytes.min(self.bytes_max);
        let has = self.files.bytes(&path);
        let mut bytes = whole;
        while bytes > has && bytes >= LEAST_BYTES.min(whole) {
            if self.files.keep(&path, bytes).is_ok() {
                return bytes == whole;
            }
            bytes /= 2;
        }
        if has == 0 && whole > 0 {
            // An empty one is of no use.
            let _ = self.files.give(&path);
        }
        has >= whole
    }

    fn path_of(&self, kept: Kept) -> PathBuf {
        with_suffix(&self.path, kept.suffix)
    }
}

impl SpareFiles for SystemSpares {
    fn bytes(&self, path: &Path) -> u64 {
        std::fs::metadata(path).map_or(0, |found| found.len())
    }

    fn keep(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        allocate(&file, bytes)
    }

    fn give(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

#[cfg(any(target_os = "linux", target_os = "freebsd"))]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::io::Errno;

    let allocated = || rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes);
    match rustix::io::retry_on_intr(allocated) {
        // Not every file system can.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, bytes),
        allocated => Ok(allocated?),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    write_zeros(file, bytes)
}

/// Bytes that are written are sure to have their place.
fn write_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file).map(drop)
}
