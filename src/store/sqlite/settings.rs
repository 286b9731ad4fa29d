//! The settings of a SQLite store.

use super::redo::RedoFiles;
use super::reserve::SpareFiles;
use crate::config::Durability;
use crate::model::Clock;
use crate::store::SystemClock;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The settings of a SQLite store.
#[derive(Clone)]
pub struct SqliteSettings {
    /// The data directory. It is made if it is missing; one process at a time holds it.
    pub directory: PathBuf,
    /// Memory for cached pages of the writer's connection.
    pub cache_bytes: usize,
    /// When commits are flushed.
    pub durability: Durability,
    /// At the level `interval`: the longest time between a commit and its flush.
    pub durability_interval: Duration,
    /// The length that the write-ahead log should not exceed.
    pub log_bytes_max: u64,
    /// Pages in the write-ahead log before the writer moves them into the file: the fewest after small batches, whose
    /// successors should not wait for long; the most after large batches, which take long in any case.
    pub checkpoint_pages: RangeInclusive<u32>,
    /// Bytes of the redo log, where small batches are committed before they are moved into the file. None: there is no redo
    /// log.
    pub redo_bytes: u64,
    /// The most bytes of each file that reserves space for a full disk.
    pub reserve_bytes_max: u64,
    /// Another way to reach files; `None` for the system's own.
    pub layer: Option<Layer>,
    /// The source of the time.
    pub clock: Arc<dyn Clock>,
}

/// Another way to reach files.
#[derive(Clone)]
pub struct Layer {
    /// SQLite's name for it.
    pub vfs: String,
    /// Reaches the redo log.
    pub redo: Arc<dyn RedoFiles>,
    /// Reaches the files that reserve space.
    pub spares: Arc<dyn SpareFiles>,
}

impl SqliteSettings {
    /// The defaults for a directory: a cache of 12 MiB, every commit flushed.
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
