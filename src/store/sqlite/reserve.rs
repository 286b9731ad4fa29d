//! Reserves: disk space that the store allocates in time, for the moments when the disk is full.
//!
//! There are two files. One is released at run time, for operations that free space: acknowledgements, deletions,
//! erasing. The other is only for a start, so that a broker that has used up the first can still open its files.

use super::files::with_suffix;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// For operations that free space: their pages in the log.
const RUNNING: Reserve = Reserve { suffix: ".reserve", bytes: 8 << 20 };

/// For a start: the log's index, and the pages that a start writes.
const STARTING: Reserve = Reserve { suffix: ".start-reserve", bytes: 256 << 10 };

/// A disk that was full counts as full until it has this much space beside the reserves.
const MARGIN: Reserve = Reserve { suffix: ".margin", bytes: 1 << 20 };

/// A smaller reserve is not worth a file.
const LEAST_BYTES: u64 = 64 << 10;

/// Files that only reserve space.
pub trait SpareFiles: Send + Sync {
    /// The length of the file; 0 if it does not exist.
    fn bytes(&self, path: &Path) -> u64;

    /// Makes the file this long, if it is shorter, and allocates the space on the disk.
    ///
    /// # Errors
    /// When the disk does not have the space.
    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()>;

    /// Removes the file.
    ///
    /// # Errors
    /// When it does not exist, or cannot be removed.
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
    /// The common beginning of their paths.
    path: PathBuf,
    /// The most bytes of one file: a disk in memory is small.
    bytes_max: u64,
}

impl Reserves {
    pub(super) fn new(files: Arc<dyn SpareFiles>, path: PathBuf, bytes_max: u64) -> Self {
        Self { files, path, bytes_max }
    }

    /// Allocates both, or as much as the disk has. Returns whether both are complete.
    pub(super) fn allocate(&self) -> bool {
        // The reserve for a start comes first: without it the broker may not start again.
        let is_start_whole = self.allocate_one(STARTING);
        self.allocate_one(RUNNING) && is_start_whole
    }

    /// Releases the reserve for the run time. Returns whether there was any.
    pub(super) fn release(&self) -> bool {
        self.files.remove(&self.path_of(RUNNING)).is_ok()
    }

    /// Releases both, for a start. Returns whether there was any.
    pub(super) fn release_all(&self) -> bool {
        let was_there = self.files.remove(&self.path_of(STARTING)).is_ok();
        self.release() || was_there
    }

    /// Whether the disk has more space than the reserves.
    pub(super) fn has_margin(&self) -> bool {
        let has_margin = self.allocate_one(MARGIN);
        // It does not exist if nothing could be allocated.
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
            // An empty file is of no use.
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
        // Not every file system can allocate space.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, bytes),
        allocated => Ok(allocated?),
    }
}

#[cfg(not(any(target_os = "linux", target_os = "freebsd")))]
fn allocate_space(file: &File, bytes: u64) -> io::Result<()> {
    write_zeros(file, bytes)
}

/// Written bytes are certain to have space on the disk.
fn write_zeros(mut file: &File, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(io::repeat(0), bytes), &mut file).map(drop)
}
