//! The redo log: small batches are written here first, and moved into SQLite's file later, many at a time.
//!
//! To commit a lone message through SQLite takes two writes to its log, six locks and the way through its pages; here it is one
//! write and one flush. After a crash the entries that follow the file's newest batch are what was not moved. They may stand
//! behind some that the file has: a move whose flush failed may be in the file after a crash, while the process that
//! made it went on without it. One that does not follow the entry before it is of a time before the last move. The first
//! block of the log's file says what it is.

mod entry;
mod file;
mod pending;
#[cfg(test)]
mod tests;

pub(crate) use file::SystemFiles;
pub use file::{RedoFile, RedoFiles};
pub(super) use pending::{Overlay, PendingBatches};

use super::files::with_suffix;
use crate::model::{Clock, Monotonic};
use crate::store::{Batch, BatchNo, Cause, RecoveredState, chain};
use entry::{ALIGN, EntryRead, Salt};
use file::AlignedBuffer;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Batches are moved into the file when the first of them has waited for so long, and there is time.
const MOVED_AFTER: Duration = Duration::from_millis(100);

/// The longest that is waited when they could not be moved; the first time so long as above, then twice as long each time.
const MOVED_AGAIN_AFTER_MAX: Duration = Duration::from_secs(2);

/// How the file begins, before its salt; the last letter is the version of what follows.
const WORD: [u8; 16] = *b"ProntoMQ redo  1";

const NOT_OURS: &str = "prontomq.redo is damaged at its beginning, or of another version";

/// A file whose beginning is known.
struct RedoLogFile {
    file: Box<dyn RedoFile>,
    bytes: u64,
    salt: Salt,
    /// Its beginning is on the disk: what is read from a file may come from memory, after a flush that failed.
    is_flushed: bool,
}

/// The redo log of one store.
pub(super) struct Redo {
    path: PathBuf,
    files: Arc<dyn RedoFiles>,
    clock: Arc<dyn Clock>,
    /// How long it should be; none is written when that is nothing.
    bytes: u64,
    /// None until something is to be written or read, and after it could not be.
    opened: Option<RedoLogFile>,
    /// Something could not be written: it is left alone until the store is opened again.
    is_disabled: bool,
    pending: PendingBatches,
    /// Since when the first of them waits.
    since: Option<Monotonic>,
    /// How long it is to wait.
    wait: Duration,
    /// Where the next entry goes.
    end: u64,
    /// How many were written.
    batches: u64,
    draft: Vec<u8>,
    buffer: AlignedBuffer,
}

impl Redo {
    pub(super) fn new(path: PathBuf, files: Arc<dyn RedoFiles>, bytes: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            path,
            files,
            clock,
            bytes: bytes / ALIGN as u64 * ALIGN as u64,
            opened: None,
            is_disabled: false,
            pending: PendingBatches::default(),
            since: None,
            wait: MOVED_AFTER,
            end: ALIGN as u64,
            batches: 0,
            draft: Vec::new(),
            buffer: AlignedBuffer::new(padded(entry::BYTES_MAX)),
        }
    }

    fn now(&self) -> Monotonic {
        self.clock.now().monotonic
    }

    /// For readers.
    pub(super) fn pending(&self) -> PendingBatches {
        self.pending.clone()
    }

    /// The newest batch that is to be moved.
    pub(super) fn newest(&self) -> Option<BatchNo> {
        self.pending.lock().last().map(|batch| batch.batch_no)
    }

    /// How many batches were written.
    pub(super) fn batches(&self) -> u64 {
        self.batches
    }

    /// Finds the batches that were not moved: those that follow `last`, the newest in the file.
    ///
    /// Batches that come later still cannot be used, for some between are lost: the first of them, if there are any. A copy
    /// is kept then, and the log is to be [discarded](Self::discard).
    pub(super) fn read_batches(&mut self, last: BatchNo) -> io::Result<Option<BatchNo>> {
        let Some(mut opened) = RedoLogFile::open(&*self.files, &self.path)? else { return Ok(None) };
        let mut bytes = AlignedBuffer::new(usize::try_from(opened.bytes / ALIGN as u64).unwrap_or(0) * ALIGN);
        opened.file.read_at(&mut bytes, 0)?;
        let mut found = Vec::new();
        let mut at = ALIGN;
        let mut next = BatchNo(last.0 + 1);
        let mut later = None;
        // Entries that follow each other from where the log begins: where the next one is, and its number.
        let mut row = (ALIGN, None);
        while at < bytes.len() {
            match entry::take(&bytes[at..], opened.salt)? {
                EntryRead::Entry(batch, len)
                    if at == row.0 && row.1.map_or(batch.batch_no <= next, |number| number == batch.batch_no) =>
                {
                    at += padded(len);
                    row = (at, Some(BatchNo(batch.batch_no.0 + 1)));
                    if batch.batch_no == next {
                        next.0 += 1;
                        found.push(batch);
                        self.end = at as u64;
                    }
                    continue;
                }
                EntryRead::Entry(batch, _) if batch.batch_no >= next => later = later.or(Some(batch.batch_no)),
                _ => {}
            }
            at += ALIGN;
        }
        if later.is_some() {
            let mut kept = File::create(self.kept_copy())?;
            kept.write_all(&bytes)?;
            kept.sync_all()?;
        }
        if !found.is_empty() {
            // Nobody knows whether the last process could flush all of it.
            let end = usize::try_from(self.end).expect("it lies within the file");
            opened.file.write_at(&bytes[..end], 0)?;
            opened.file.flush()?;
            opened.is_flushed = true;
        }
        self.opened = Some(opened);
        self.since = (!found.is_empty()).then(|| self.now());
        *self.pending.lock() = found;
        Ok(later)
    }

    /// Where the copy is of one that could not be used.
    pub(super) fn kept_copy(&self) -> PathBuf {
        with_suffix(&self.path, ".kept")
    }

    /// Makes sure that nothing in the file passes for a batch, be its number the next.
    pub(super) fn discard(&mut self) -> io::Result<()> {
        let Some(RedoLogFile { file, .. }) = self.opened.take() else { return Ok(()) };
        file.write_at(&AlignedBuffer::new(ALIGN), 0)?;
        file.flush()
    }

    /// Lanes as they were found in the file become what the batches make of them.
    pub(super) fn bring_forward(&self, recovered: &mut RecoveredState) {
        let pending = self.pending.lock();
        let Some(newest) = pending.last() else { return };
        recovered.batch_no = recovered.batch_no.max(newest.batch_no);
        let states: HashMap<_, _> =
            pending.iter().flat_map(|batch| &batch.lanes).map(|change| (change.lane, change.state)).collect();
        for record in &mut recovered.lanes {
            record.state = states.get(&record.lane).copied().unwrap_or(record.state);
        }
    }

    /// Writes a batch and flushes it, if it is one for the redo log, and there is room; whether it did.
    pub(super) fn write(&mut self, batch: &Batch) -> bool {
        if self.is_disabled || self.bytes == 0 || !entry::takes(batch) {
            return false;
        }
        self.try_write(batch).unwrap_or_else(|error| {
            // Whoever reads the file finds the batch there, or does not: nobody was told of it yet.
            tracing::warn!(%error, file = %self.path.display(), "the redo log cannot be written, and is done without");
            self.is_disabled = true;
            false
        })
    }

    fn try_write(&mut self, batch: &Batch) -> io::Result<bool> {
        let opened = match &mut self.opened {
            Some(opened) => opened,
            None => self.opened.insert(RedoLogFile::open_or_make(&*self.files, &self.path, self.bytes)?),
        };
        entry::put(&mut self.draft, opened.salt, batch);
        let (len, padded) = (self.draft.len(), padded(self.draft.len()));
        if len > entry::BYTES_MAX || self.end + padded as u64 > opened.bytes {
            return Ok(false);
        }
        self.buffer[..len].copy_from_slice(&self.draft);
        self.buffer[len..padded].fill(0);
        if !opened.is_flushed {
            opened.file.write_at(&first_block(opened.salt), 0)?;
        }
        opened.file.write_at(&self.buffer[..padded], self.end)?;
        opened.file.flush()?;
        opened.is_flushed = true;
        self.end += padded as u64;
        self.batches += 1;
        self.since = self.since.or(Some(self.clock.now().monotonic));
        let batch = batch.clone();
        self.pending.lock().push(batch);
        Ok(true)
    }

    /// When the batches are to be moved, counted from now; none when there are none.
    pub(super) fn move_due_in(&self) -> Option<Duration> {
        self.since.map(|since| self.wait.saturating_sub(self.now().since(since)))
    }

    /// They could not be moved: it is tried again after a while.
    pub(super) fn note_refused(&mut self, cause: &Cause) {
        if self.wait == MOVED_AFTER {
            tracing::warn!(error = %chain(cause.as_source()), "the redo log cannot be moved into the file; it is tried again");
        }
        self.wait = (self.wait * 2).min(MOVED_AGAIN_AFTER_MAX);
        self.since = self.since.map(|_| self.now());
    }

    /// One batch of all those that are to be moved and this one, if there are any.
    pub(super) fn joined_with(&self, batch: Option<&Batch>) -> Option<Batch> {
        let pending = self.pending.lock();
        let newest = pending.last()?.batch_no;
        let lanes = pending.iter().chain(batch).flat_map(|batch| batch.lanes.iter().cloned()).collect();
        drop(pending);
        let mut whole = match batch {
            Some(Batch { batch_no, topology, drop_lanes, lanes: _ }) => {
                Batch { batch_no: *batch_no, topology: topology.clone(), lanes, drop_lanes: drop_lanes.clone() }
            }
            None => Batch { batch_no: newest, topology: Vec::new(), lanes, drop_lanes: Vec::new() },
        };
        whole.join_lanes();
        Some(whole)
    }

    /// All of them are in the file, up to this one at least.
    pub(super) fn note_moved(&mut self, newest: BatchNo) {
        let mut pending = self.pending.lock();
        pending.retain(|batch| batch.batch_no > newest);
        if pending.is_empty() {
            self.end = ALIGN as u64;
            self.since = None;
            self.wait = MOVED_AFTER;
            // One of another length is made anew.
            self.opened.take_if(|opened| opened.bytes != self.bytes);
        }
    }

    /// Gives the file's space back to a full disk, if nothing in it is to be moved; whether there was any.
    pub(super) fn remove_file(&mut self) -> bool {
        if !self.pending.lock().is_empty() {
            return false;
        }
        self.opened = None;
        self.files.remove(&self.path).is_ok()
    }

    /// The store is opened again, and has this batch as its newest.
    pub(super) fn note_reopened(&mut self, newest: BatchNo) {
        self.note_moved(newest);
        self.is_disabled = false;
        if let Some(opened) = &mut self.opened {
            opened.is_flushed = false;
        }
    }
}

impl RedoLogFile {
    /// None when there is no such file, or it was not made to its end.
    fn open(files: &dyn RedoFiles, path: &Path) -> io::Result<Option<Self>> {
        let file = match files.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let bytes = file.bytes()?;
        if bytes < ALIGN as u64 {
            return Ok(None);
        }
        let mut first = AlignedBuffer::new(ALIGN);
        file.read_at(&mut first, 0)?;
        let (word, rest) = first.split_at(WORD.len());
        let salt = Salt(*rest.first_chunk().expect("a block is longer"));
        if word == WORD {
            return Ok(Some(Self { file, bytes, salt, is_flushed: false }));
        }
        // One that was not made to its end begins with zeros.
        let is_empty = first.iter().all(|byte| *byte == 0);
        if is_empty { Ok(None) } else { Err(io::Error::new(io::ErrorKind::InvalidData, NOT_OURS)) }
    }

    /// Makes the file where there is none of that length; nothing that counts is in it.
    fn open_or_make(files: &dyn RedoFiles, path: &Path, bytes: u64) -> io::Result<Self> {
        if let Some(opened) = Self::open(files, path)?
            && opened.bytes == bytes
        {
            return Ok(opened);
        }
        let file = files.make(path, bytes)?;
        let salt = Salt(getrandom::u64().map_err(io::Error::other)?.to_le_bytes());
        Ok(Self { file, bytes, salt, is_flushed: false })
    }
}

/// The number of the batch that the log begins with, be it moved or not; none where there is none, or it cannot be read.
pub(super) fn first_batch(path: &Path) -> Option<BatchNo> {
    let opened = RedoLogFile::open(&SystemFiles, path).ok()??;
    let len = usize::try_from(opened.bytes).ok()?.checked_sub(ALIGN)?.min(padded(entry::BYTES_MAX)) / ALIGN * ALIGN;
    let mut bytes = AlignedBuffer::new(len);
    opened.file.read_at(&mut bytes, ALIGN as u64).ok()?;
    match entry::take(&bytes, opened.salt).ok()? {
        EntryRead::Entry(batch, _) => Some(batch.batch_no),
        EntryRead::Nothing => None,
    }
}

fn first_block(salt: Salt) -> AlignedBuffer {
    let mut block = AlignedBuffer::new(ALIGN);
    block[..WORD.len()].copy_from_slice(&WORD);
    block[WORD.len()..][..salt.0.len()].copy_from_slice(&salt.0);
    block
}

fn padded(len: usize) -> usize {
    len.next_multiple_of(ALIGN)
}
