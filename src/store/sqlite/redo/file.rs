//! The file of the redo log: made once, at its full length, and overwritten again and again.
//!
//! It bypasses the system's cache where the system allows that, which costs a third less than going through it. The
//! cache has no use here: the file is read once, after a crash.

use super::entry::ALIGN;
use crate::store::sqlite::files::flush_folder_of;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// A file of a fixed length. Offsets, lengths and the addresses of buffers are multiples of 4 KiB.
pub trait RedoFile: Send {
    /// Its length in bytes.
    ///
    /// # Errors
    /// Errors of the system.
    fn bytes(&self) -> io::Result<u64>;

    /// Fills a buffer from an offset.
    ///
    /// # Errors
    /// When the file cannot be read, or ends before.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()>;

    /// Writes at an offset.
    ///
    /// # Errors
    /// When not all bytes could be written.
    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()>;

    /// Flushes everything that was written.
    ///
    /// # Errors
    /// When it is not certain that everything is on the disk.
    fn flush(&self) -> io::Result<()>;
}

/// Opens, makes and removes such files.
pub trait RedoFiles: Send + Sync {
    /// Opens a file that exists.
    ///
    /// # Errors
    /// Errors of the system, `NotFound` among them.
    fn open(&self, path: &Path) -> io::Result<Box<dyn RedoFile>>;

    /// Makes a file of `len` zeros that survives a loss of power. It replaces an existing one.
    ///
    /// # Errors
    /// Errors of the system.
    fn make(&self, path: &Path, len: u64) -> io::Result<Box<dyn RedoFile>>;

    /// Removes a file.
    ///
    /// # Errors
    /// When it does not exist, or cannot be removed.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// The system's files.
pub(crate) struct SystemFiles;

impl RedoFiles for SystemFiles {
    fn open(&self, path: &Path) -> io::Result<Box<dyn RedoFile>> {
        first_that_works(|past_cache| {
            let file = open(OpenOptions::new().read(true).write(true), path, past_cache)?;
            if file.metadata()?.len() >= ALIGN as u64 {
                RedoFile::read_at(&file, &mut AlignedBuffer::new(ALIGN), 0)?;
            }
            Ok(file)
        })
    }

    fn make(&self, path: &Path, len: u64) -> io::Result<Box<dyn RedoFile>> {
        let made = first_that_works(|past_cache| {
            let file = open(OpenOptions::new().read(true).write(true).create(true).truncate(true), path, past_cache)?;
            let zeros = AlignedBuffer::new(usize::try_from(len).unwrap_or(usize::MAX));
            RedoFile::write_at(&file, &zeros, 0)?;
            file.sync_all()?;
            flush_folder_of(path)?;
            Ok(file)
        });
        if made.is_err() {
            // On a full disk it would take the remaining space.
            let _ = std::fs::remove_file(path);
        }
        made
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }
}

/// Opens a file past the cache, or else through it. Not every file system allows the first; some refuse it only when a
/// read is tried.
fn first_that_works(open: impl Fn(bool) -> io::Result<File>) -> io::Result<Box<dyn RedoFile>> {
    let opened =
        open(true).or_else(|error| if error.kind() == io::ErrorKind::InvalidInput { open(false) } else { Err(error) });
    opened.map(|file| Box::new(file) as _)
}

#[cfg(target_os = "linux")]
fn open(options: &mut OpenOptions, path: &Path, past_cache: bool) -> io::Result<File> {
    let flags = if past_cache { rustix::fs::OFlags::DIRECT } else { rustix::fs::OFlags::empty() };
    options.mode(0o600).custom_flags(flags.bits().cast_signed()).open(path)
}

#[cfg(not(target_os = "linux"))]
fn open(options: &mut OpenOptions, path: &Path, _: bool) -> io::Result<File> {
    options.mode(0o600).open(path)
}

impl RedoFile for File {
    fn bytes(&self) -> io::Result<u64> {
        self.metadata().map(|found| found.len())
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(bytes, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn flush(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Bytes at an address that is a multiple of [`ALIGN`]. They are zeros at first.
pub(super) struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl AlignedBuffer {
    pub(super) fn new(len: usize) -> Self {
        let bytes = vec![0; len + ALIGN];
        let start = bytes.as_ptr().align_offset(ALIGN);
        Self { bytes, start, len }
    }
}

impl std::ops::Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..][..self.len]
    }
}

impl std::ops::DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..][..self.len]
    }
}
