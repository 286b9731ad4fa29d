//! The redo log: small batches are committed here first, and moved into SQLite's file later, many at a time.
//!
//! Committing a lone message through SQLite takes two writes to its log, six locks and work on its pages. Here it is
//! one write and one flush. After a crash, the batches that were not moved are those that follow the file's newest
//! batch. Entries of batches that the file has may come before them: a move whose flush failed may be in the file after
//! a crash, although the process that made it continued without it. An entry that does not follow the one before it is
//! older than the last move. The first block of the file identifies it.

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

/// Batches are moved into the file once the first of them has waited this long, in an idle moment.
const MOVED_AFTER: Duration = Duration::from_millis(100);

/// The longest wait after a failed move. It begins with the time above and doubles with each failure.
const MOVED_AGAIN_AFTER_MAX: Duration = Duration::from_secs(2);

/// The beginning of the file, before its salt. The last character is the version of the format.
const WORD: [u8; 16] = *b"ProntoMQ redo  1";

const NOT_OURS: &str = "prontomq.redo is damaged at its beginning, or of another version";

/// An open file whose first block was checked or made.
struct RedoLogFile {
    file: Box<dyn RedoFile>,
    bytes: u64,
    salt: Salt,
    /// Its first block is certain to be on the disk. After a failed flush, reads may come from memory.
    is_flushed: bool,
}

/// The redo log of one store.
pub(super) struct Redo {
    path: PathBuf,
    files: Arc<dyn RedoFiles>,
    clock: Arc<dyn Clock>,
    /// The length of the file. If it is 0, the redo log is not used.
    bytes: u64,
    /// `None` until the file is needed, and after it was removed or discarded.
    opened: Option<RedoLogFile>,
    /// A write has failed: the redo log is not used until the store is opened again.
    is_disabled: bool,
    pending: PendingBatches,
    /// Since when the first pending batch waits.
    since: Option<Monotonic>,
    /// How long pending batches wait.
    wait: Duration,
    /// The offset of the next entry.
    end: u64,
    /// The number of batches that were written.
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

    /// The pending batches, for readers.
    pub(super) fn pending(&self) -> PendingBatches {
        self.pending.clone()
    }

    /// The newest pending batch.
    pub(super) fn newest(&self) -> Option<BatchNo> {
        self.pending.lock().last().map(|batch| batch.batch_no)
    }

    /// The number of batches that were written.
    pub(super) fn batches(&self) -> u64 {
        self.batches
    }

    /// Reads the batches that were not moved: those that follow `last`, the newest in the file.
    ///
    /// Batches behind a gap cannot be used, because batches between are lost. If there are any, the first of them is
    /// returned, a copy of the redo log is kept, and the caller has to [discard](Self::discard) the log.
    pub(super) fn read_batches(&mut self, last: BatchNo) -> io::Result<Option<BatchNo>> {
        let Some(mut opened) = RedoLogFile::open(&*self.files, &self.path)? else { return Ok(None) };
        let mut bytes = AlignedBuffer::new(usize::try_from(opened.bytes / ALIGN as u64).unwrap_or(0) * ALIGN);
        opened.file.read_at(&mut bytes, 0)?;
        let mut found = Vec::new();
        let mut at = ALIGN;
        let mut next = BatchNo(last.0 + 1);
        let mut later = None;
        // The sequence of entries from the beginning of the log: the offset of the next one, and its batch.
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
            // The last process may not have flushed all of it.
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

    /// The path of the copy of a redo log that could not be used.
    pub(super) fn kept_copy(&self) -> PathBuf {
        with_suffix(&self.path, ".kept")
    }

    /// Overwrites the first block, so that no entry is taken for a batch any more.
    pub(super) fn discard(&mut self) -> io::Result<()> {
        let Some(RedoLogFile { file, .. }) = self.opened.take() else { return Ok(()) };
        file.write_at(&AlignedBuffer::new(ALIGN), 0)?;
        file.flush()
    }

    /// Applies the pending batches to the lanes that were read from the file.
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

    /// Writes a batch and flushes it, if the redo log takes such batches and has room. Returns whether it did.
    pub(super) fn write(&mut self, batch: &Batch) -> bool {
        if self.is_disabled || self.bytes == 0 || !entry::takes(batch) {
            return false;
        }
        self.try_write(batch).unwrap_or_else(|error| {
            // After a crash the batch may be found or not. Both are right: its outcome was not reported.
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

    /// In which time the pending batches are to be moved; `None` if there are none.
    pub(super) fn move_due_in(&self) -> Option<Duration> {
        self.since.map(|since| self.wait.saturating_sub(self.now().since(since)))
    }

    /// The pending batches could not be moved: it is tried again after a while.
    pub(super) fn note_refused(&mut self, cause: &Cause) {
        if self.wait == MOVED_AFTER {
            tracing::warn!(error = %chain(cause.as_source()), "the redo log cannot be moved into the file; it is tried again");
        }
        self.wait = (self.wait * 2).min(MOVED_AGAIN_AFTER_MAX);
        self.since = self.since.map(|_| self.now());
    }

    /// The pending batches and `batch`, joined into one; `None` if no batch is pending.
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

    /// The batches up to this one are in the file.
    pub(super) fn note_moved(&mut self, newest: BatchNo) {
        let mut pending = self.pending.lock();
        pending.retain(|batch| batch.batch_no > newest);
        if pending.is_empty() {
            self.end = ALIGN as u64;
            self.since = None;
            self.wait = MOVED_AFTER;
            // A file of another length is replaced.
            self.opened.take_if(|opened| opened.bytes != self.bytes);
        }
    }

    /// Removes the file, to free space on a full disk, unless batches are pending. Returns whether it was removed.
    pub(super) fn remove_file(&mut self) -> bool {
        if !self.pending.lock().is_empty() {
            return false;
        }
        self.opened = None;
        self.files.remove(&self.path).is_ok()
    }

    /// The store was opened again, and this is its newest batch.
    pub(super) fn note_reopened(&mut self, newest: BatchNo) {
        self.note_moved(newest);
        self.is_disabled = false;
        if let Some(opened) = &mut self.opened {
            opened.is_flushed = false;
        }
    }
}

impl RedoLogFile {
    /// `None` if the file does not exist, or was not completely made.
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
        // A file that was not completely made begins with zeros.
        let is_empty = first.iter().all(|byte| *byte == 0);
        if is_empty { Ok(None) } else { Err(io::Error::new(io::ErrorKind::InvalidData, NOT_OURS)) }
    }

    /// Opens the file, or makes one if there is none of that length. No batch in it is pending.
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

/// The number of the first batch in the log, moved or not; `None` if there is none, or it cannot be read.
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
