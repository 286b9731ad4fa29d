//! Space that the store keeps from a disk that has it, for the moments when it has none.
//!
//! There are two files of it. One is lent to what gives space back at run time: acknowledgements, deletions, erasing. The
//! other only a start may use, so that a broker that has used up the first can still open its files.

use super::files::with_suffix;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// For what gives space back: its pages in the log.
const RUNNING: Reserve = Reserve { suffix: ".reserve", bytes: 8 << 20 };

/// For a start: the log's index, and the pages of what it writes.
const STARTING: Reserve = Reserve { suffix: ".start-reserve", bytes: 256 << 10 };

/// While it has less than this beside the reserves, a disk that was full still is.
const MARGIN: Reserve = Reserve { suffix: ".margin", bytes: 1 << 20 };

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
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()>;

    /// Removes it.
    ///
    /// # Errors
    /// When it is not there, or cannot be removed.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The system's files.
pub(super) struct SystemSpares;

#[derive(Clone, Copy)]
struct Reserve {
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
    pub(super) fn allocate(&self) -> bool {
        // The start's goes first: without it the broker may not come back.
        let is_start_whole = self.allocate_one(STARTING);
        self.allocate_one(RUNNING) && is_start_whole
    }

    /// Gives the one for running away; whether there was any.
    pub(super) fn release(&self) -> bool {
        self.files.remove(&self.path_of(RUNNING)).is_ok()
    }

    /// Gives both away, for a start; whether there was any.
    pub(super) fn release_all(&self) -> bool {
        let was_there = self.files.remove(&self.path_of(STARTING)).is_ok();
        self.release() || was_there
    }

    /// Whether the disk has space beside them.
    pub(super) fn has_margin(&self) -> bool {
        let has_margin = self.allocate_one(MARGIN);
        // It is not there when none of it could be taken.
        let _ = self.files.remove(&self.path_of(MARGIN));
        has_margin
    }

    fn allocate_one(&self, reserve: Reserve) -> bool {
        let path = self.path_of(reserve);
        let whole = reserve.bytes.min(self.bytes_max);
        let has = self.files.bytes(&path);
        let mut bytes = whole;
        while bytes > has && bytes >= LEAST_BYTES.min(whole) {
            if self.files.allocate(&path, bytes).is_ok() {
                return bytes == whole;
            }
            bytes /= 2;
        }
        if has == 0 && whole > 0 {
            // An empty one is of no use.
            let _ = self.files.remove(&path);
        }
        has >= whole
    }

    fn path_of(&self, reserve: Reserve) -> PathBuf {
        with_suffix(&self.path, reserve.suffix)
    }
}

impl SpareFiles for SystemSpares {
    fn bytes(&self, path: &Path) -> u64 {
        std::fs::metadata(path).map_or(0, |found| found.len())
    }

    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        allocate_space(&file, bytes)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

#[cfg(any(target_os = "linux", target_os = "freebsd"))]
fn allocate_space(file: &File, bytes: u64) -> io::Result<()> {
    use rustix::io::Errno;

    let allocated = || rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, bytes);
    match rustix::io::retry_on_intr(allocated) {
        // Not every file system can.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, bytes),
        allocated => Ok(allocated?),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
fn allocate_space(file: &File, bytes: u64) -> io::Result<()> {
    write_zeros(file, bytes)
}

/// Bytes that are written are sure to have their place.
fn write_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file).map(drop)
}
