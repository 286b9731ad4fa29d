//! Where the file is, what it may cost, and how files are reached.

use super::redo::RedoFiles;
use super::reserve::SpareFiles;
use crate::config::Durability;
use crate::model::Clock;
use crate::store::SystemClock;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where the file is and what it may cost.
#[derive(Clone)]
pub struct SqliteSettings {
    /// The data directory: made when missing, held by one process at a time.
    pub directory: PathBuf,
    /// Memory for pages on the writer's connection.
    pub cache_bytes: usize,
    /// When what is committed is flushed.
    pub durability: Durability,
    /// At the level `interval`, how long after its commit at most.
    pub durability_interval: Duration,
    /// The write-ahead log should not be longer.
    pub log_bytes_max: u64,
    /// Pages in the write-ahead log before the writer moves them into the file: the fewest, after small batches, whose
    /// successor should not wait for long; the most, after large ones, which take their time anyhow.
    pub checkpoint_pages: RangeInclusive<u32>,
    /// Bytes of the redo log, where small batches are flushed before they are moved into the file; without any they are not.
    pub redo_bytes: u64,
    /// No file of space that is kept for a full disk is longer than this.
    pub reserve_bytes_max: u64,
    /// How files are reached; the system's own way when none.
    pub layer: Option<Layer>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
}

/// Another way to reach files.
#[derive(Clone)]
pub struct Layer {
    /// What SQLite calls it.
    pub vfs: String,
    /// For the redo log.
    pub redo: Arc<dyn RedoFiles>,
    /// For space that is kept.
    pub spares: Arc<dyn SpareFiles>,
}

impl SqliteSettings {
    /// A directory, and the defaults: a cache of 12 MiB, every commit flushed.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            cache_bytes: 12 << 20,
            durability: Durability::Commit,
            durability_interval: Duration::from_secs(1),
            log_bytes_max: 64 << 20,
            checkpoint_pages: 100..=1_000,
            redo_bytes: 1 << 20,
            reserve_bytes_max: u64::MAX,
            layer: None,
            clock: SystemClock::shared(),
        }
    }
}
