//! The scratch store: rows in files that are only appended to, with an index in memory. Nothing is flushed, and no row
//! outlives the process.
//!
//! It has lanes alone: no topology, and no counters of lanes. `record` is a row as bytes, `segment` the files, `index`
//! has the places of the rows of a lane, `reader` reads them.

mod index;
mod reader;

mod segment;
#[cfg(test)]
mod tests;

use super::{
    Batch, BatchNo, Cause, CommitOutcome, FileStats, LaneChange, RecoveredState, Row, Store, StoreError, StoreReader,
    TopologyChange, Vitals,
};
use crate::model::Lane;
use index::Index;
use reader::SpoolReader;
use segment::Appender;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The writing side of the files in one directory.
pub struct SpoolStore {
    directory: PathBuf,
    appender: Appender,
    index: Arc<Mutex<Index>>,
}

impl SpoolStore {
    /// Its directory: a folder of its own in the data directory.
    #[must_use]
    pub fn directory_below(data_directory: &Path) -> PathBuf {
        data_directory.join("scratch")
    }

    /// Deletes a directory and the files that an earlier process has left in it.
    pub fn clear(directory: &Path) -> Result<(), StoreError> {
        match std::fs::remove_dir_all(directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(unusable(directory, error)),
            _ => Ok(()),
        }
    }

    /// An empty store in a directory that no other store uses.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        Self::clear(directory)?;
        // Messages are for their owner alone.
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(|error| unusable(directory, error))?;
        Ok(Self {
            directory: directory.to_owned(),
            appender: Appender::new(directory.to_owned()),
            index: Arc::default(),
        })
    }
}

fn unusable(directory: &Path, error: io::Error) -> StoreError {
    StoreError::Unusable(Cause::new(directory.display().to_string(), error))
}

fn lock(index: &Mutex<Index>) -> MutexGuard<'_, Index> {
    index.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for SpoolStore {
    fn recover(&mut self) -> Result<RecoveredState, StoreError> {
        Ok(RecoveredState { boot: 1, clean: true, ..RecoveredState::default() })
    }

    fn commit(&mut self, batch: &Batch) -> CommitOutcome {
        if batch.batch_no <= lock(&self.index).as_of {
            return CommitOutcome::Committed;
        }
        if batch.topology.iter().any(|change| !matches!(change, TopologyChange::DeleteQueue(_))) {
            return CommitOutcome::Fatal("topology is not for a store that forgets".into());
        }
        let inserts: Vec<&[Row]> = batch.lanes.iter().map(|change| living(batch, change)).collect();
        let runs = match self.appender.write(&inserts) {
            Ok(runs) => runs,
            Err(error) => return CommitOutcome::NotCommitted(Cause::new(self.directory.display().to_string(), error)),
        };
        let dead = lock(&self.index).apply(batch, runs);
        drop(dead);
        CommitOutcome::Committed
    }

    fn reopen(&mut self) -> Result<BatchNo, StoreError> {
        // No outcome is ever unknown.
        Ok(lock(&self.index).as_of)
    }

    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        Ok(Box::new(SpoolReader(Arc::clone(&self.index))))
    }

    fn file_stats(&self) -> Option<&dyn FileStats> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        let Self { directory, appender, index } = *self;
        drop(appender);
        *lock(&index) = Index::default();
        Self::clear(&directory)
    }
}

impl FileStats for SpoolStore {
    fn vitals(&self) -> Vitals {
        Vitals { file_bytes: self.appender.bytes(), ..Vitals::default() }
    }
}

/// The rows of a change that the same batch does not remove. A full disk may refuse a batch for long; the more messages
/// are consumed meanwhile, the fewer rows are left to write.
fn living<'b>(batch: &Batch, change: &'b LaneChange) -> &'b [Row] {
    let Lane { queue, .. } = change.lane;
    if batch.drop_lanes.contains(&change.lane) || batch.deleted_queues().any(|deleted| deleted == queue) {
        return &[];
    }
    let below = change.remove_below.unwrap_or_default();
    &change.inserts[change.inserts.partition_point(|row| row.position < below)..]
}
