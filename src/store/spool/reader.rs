//! Reading rows back: their places are looked up under the lock, the bytes are read without it.

use super::index::{Index, RUN_BYTES, Run};
use super::lock;
use crate::model::Position;
use crate::store::record::{Records, message_bytes};
use crate::store::{Cause, LoadRequest, LoadedRange, ReadError, Row, StoreReader};
use std::io::BufReader;
use std::sync::{Arc, Mutex};

pub(super) struct SpoolReader(pub(super) Arc<Mutex<Index>>);

impl StoreReader for SpoolReader {
    fn load(&mut self, request: LoadRequest) -> Result<LoadedRange, ReadError> {
        let LoadRequest { lane, range, rows_max, bytes_max } = request;
        let mut wanted = ReadLimits { rows: rows_max.max(1), bytes: bytes_max.max(1) as u64 };
        let (as_of, runs) = {
            let index = lock(&self.0);
            (index.as_of, index.find(lane, range, wanted.rows as u64, wanted.bytes))
        };
        let mut rows = Vec::new();
        for run in &runs {
            wanted.read(run, &mut rows)?;
        }
        Ok(LoadedRange { rows, as_of })
    }
}

/// The rows and bytes that are still to be read.
struct ReadLimits {
    rows: usize,
    bytes: u64,
}

impl ReadLimits {
    fn read(&mut self, run: &Run, rows: &mut Vec<Row>) -> Result<(), ReadError> {
        let span = run.span;
        let failed = |cause: Cause| {
            let (path, at) = (run.segment.path().display(), span.from);
            ReadError::Failed(Cause::new(format!("{path}, at byte {at}"), cause))
        };
        let stretch = run.segment.stretch(span.from, span.from + span.bytes);
        let mut records = Records::new(BufReader::with_capacity(RUN_BYTES as usize, stretch), span.bytes);
        for position in span.first.0..=span.last.0 {
            if self.rows == 0 || self.bytes == 0 {
                break;
            }
            let row = records.next(Position(position)).map_err(|error| failed(error.into()))?;
            if row.position.0 != position {
                return Err(failed("another row than there should be".into()));
            }
            self.rows -= 1;
            self.bytes = self.bytes.saturating_sub(message_bytes(&row.message));
            rows.push(row);
        }
        Ok(())
    }
}
