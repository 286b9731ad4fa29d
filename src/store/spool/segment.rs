//! Segments: files of records, written at their end and read anywhere. A segment exists as long as a lane has a row in it.

use super::index::{Run, Span};
use crate::store::Row;
use crate::store::record;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A segment takes no more records once it has this many bytes. A longer record gets a segment of its own.
const SEGMENT_BYTES: u64 = 32 << 20;

/// The most memory of the buffer that is kept for the next batch.
const HEADS_BYTES_KEPT: usize = 4 << 20;

/// A file of records. It is deleted with the last run in it.
pub(super) struct Segment {
    file: File,
    path: PathBuf,
    bytes: AtomicU64,
    /// The bytes of all segments.
    all_bytes: Arc<AtomicU64>,
}

impl Segment {
    fn create(path: PathBuf, all_bytes: Arc<AtomicU64>) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        Ok(Self { file, path, bytes: AtomicU64::new(0), all_bytes })
    }

    /// The bytes from one offset to another.
    pub(super) fn stretch(&self, from: u64, to: u64) -> Stretch<'_> {
        Stretch { file: &self.file, at: from, to }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all parts, one after the other.
    fn write_at(&self, at: u64, mut parts: &mut [IoSlice<'_>]) -> io::Result<()> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(at))?;
        let mut end = at;
        // Empty parts at the front are skipped: a write of no bytes counts as failed.
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            match file.write_vectored(parts) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    IoSlice::advance_slices(&mut parts, written);
                    end += written as u64;
                    self.note_bytes(self.bytes.load(Ordering::Relaxed).max(end));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Truncates the file. If that fails, the bytes behind the end are overwritten later, or deleted with the file.
    fn cut(&self, at: u64) {
        if self.file.set_len(at).is_ok() {
            self.note_bytes(at);
        }
    }

    fn note_bytes(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        self.all_bytes.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.note_bytes(0);
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "a file of the scratch store cannot be deleted");
        }
    }
}

/// A part of a segment, read from its beginning.
pub(super) struct Stretch<'s> {
    file: &'s File,
    at: u64,
    to: u64,
}

impl Read for Stretch<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.to - self.at).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..left], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Appends rows to segments.
pub(super) struct Appender {
    directory: PathBuf,
    /// The number of segments that were ever made.
    made: u64,
    current: Option<Arc<Segment>>,
    /// The offset of the next record in the current segment.
    end: u64,
    /// An empty buffer, for the next batch.
    heads: Vec<u8>,
    all_bytes: Arc<AtomicU64>,
}

/// Records that are written to the current segment in one call.
struct Draft<'b> {
    /// The offset of the first one.
    from: u64,
    /// The records without their large bodies.
    heads: Vec<u8>,
    /// Large bodies, each with the length of `heads` before it.
    bodies: Vec<(usize, &'b [u8])>,
}

impl Appender {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory, made: 0, current: None, end: 0, heads: Vec::new(), all_bytes: Arc::default() }
    }

    /// The bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        self.all_bytes.load(Ordering::Relaxed)
    }

    /// Writes rows. Returns their places, lane by lane. After an error none of them is written.
    pub(super) fn write(&mut self, lanes: &[&[Row]]) -> io::Result<Vec<Vec<Run>>> {
        if self.current.as_mut().is_some_and(|segment| Arc::get_mut(segment).is_some()) {
            // No row lives in it and no reader uses it: it is overwritten from its beginning.
            self.end = 0;
        }
        let before = (self.current.clone(), self.end);
        let mut draft = Draft { from: self.end, heads: std::mem::take(&mut self.heads), bodies: Vec::new() };
        let runs = lanes.iter().map(|rows| self.put(rows, &mut draft)).collect::<io::Result<_>>();
        let written = runs.and_then(|runs| self.flush(&mut draft).map(|()| runs));
        if written.is_err() {
            (self.current, self.end) = before;
            if let Some(segment) = &self.current {
                segment.cut(self.end);
            }
        }
        draft.heads.clear();
        draft.heads.shrink_to(HEADS_BYTES_KEPT);
        self.heads = draft.heads;
        written
    }

    /// Adds the rows of one lane.
    fn put<'b>(&mut self, rows: &'b [Row], draft: &mut Draft<'b>) -> io::Result<Vec<Run>> {
        let mut runs: Vec<Run> = Vec::new();
        for row in rows {
            let bytes = record::HEADER_BYTES as u64 + record::message_bytes(&row.message);
            let segment = self.with_room(bytes, draft)?;
            let span = Span::of_record(row.position, self.end, bytes);
            if !runs.last_mut().is_some_and(|last| last.join(&segment, &span)) {
                runs.push(Run { segment, span });
            }
            record::put(&mut draft.heads, row);
            draft.bodies.extend(row.message.large_body().map(|body| (draft.heads.len(), body.as_slice())));
            self.end += bytes;
        }
        Ok(runs)
    }

    /// A segment that takes a record of this length: the current one, or a new one.
    fn with_room(&mut self, bytes: u64, draft: &mut Draft<'_>) -> io::Result<Arc<Segment>> {
        match &self.current {
            Some(segment) if self.end == 0 || self.end + bytes <= SEGMENT_BYTES => Ok(Arc::clone(segment)),
            _ => {
                self.flush(draft)?;
                self.made += 1;
                let path = self.directory.join(format!("{:08}.spool", self.made));
                let segment = Arc::new(Segment::create(path, Arc::clone(&self.all_bytes))?);
                (self.current, self.end, draft.from) = (Some(Arc::clone(&segment)), 0, 0);
                Ok(segment)
            }
        }
    }

    /// Writes the draft.
    fn flush(&self, draft: &mut Draft<'_>) -> io::Result<()> {
        let Some(segment) = &self.current else { return Ok(()) };
        let mut parts = Vec::with_capacity(2 * draft.bodies.len() + 1);
        let mut written = 0;
        for (at, body) in draft.bodies.drain(..) {
            parts.extend([IoSlice::new(&draft.heads[written..at]), IoSlice::new(body)]);
            written = at;
        }
        parts.push(IoSlice::new(&draft.heads[written..]));
        segment.write_at(draft.from, &mut parts)?;
        draft.heads.clear();
        draft.from = self.end;
        Ok(())
    }
}
