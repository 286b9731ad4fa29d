//! Opens the store that the settings name, and the scratch store when it is needed.

use super::translate::{scratch_writer_settings, sqlite_settings, writer_settings};
use crate::broker::OpenScratch;
use crate::config::{Durability, Settings, StoreKind, StoreSettings};
use crate::model::Clock;
use crate::store::commit::WriterHandle;
use crate::store::memory::{MemoryDisk, MemoryStore};
use crate::store::spool::SpoolStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{OpenError, RecoveredState, Store};
use std::sync::Arc;

/// Opens the store and starts its writer. Blocks.
///
/// # Errors
/// The errors of `Store::recover`, and those of opening a store of this kind.
pub(super) fn open_store(
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> Result<(WriterHandle, RecoveredState), OpenError> {
    let mut store: Box<dyn Store> = match settings.store.kind {
        StoreKind::Sqlite => {
            log_durability(&settings.store);
            Box::new(SqliteStore::open(&sqlite_settings(settings))?)
        }
        StoreKind::Memory => {
            tracing::warn!("store.kind is memory: all messages, queues and exchanges are lost when the broker stops");
            Box::new(MemoryStore::open(MemoryDisk::default()))
        }
    };
    let recovered = store.recover()?;
    let writer = WriterHandle::start(store, recovered.batch_no, writer_settings(settings), clock)?;
    Ok((writer, recovered))
}

/// Logs the level of durability, as a warning if it is below `commit`.
fn log_durability(store: &StoreSettings) {
    match store.durability {
        Durability::Commit => {
            tracing::info!(durability = "commit", "confirmed persistent messages are flushed to the disk");
        }
        Durability::Interval => tracing::warn!(
            durability = "interval",
            interval = ?store.durability_interval,
            "a power failure may lose confirmed messages of the last interval"
        ),
        Durability::Off => {
            tracing::warn!(durability = "off", "a power failure may lose all confirmed messages and damage the store");
        }
    }
}

/// Returns how to open the scratch store; `None` if the broker keeps no files. Deletes the files that an earlier
/// process left in it.
pub(super) fn scratch_store(settings: &Settings, clock: Arc<dyn Clock>) -> Option<OpenScratch> {
    if !settings.keeps_files() {
        return None;
    }
    let directory = SpoolStore::directory_below(&settings.data_dir);
    if let Err(error) = SpoolStore::clear(&directory) {
        tracing::warn!(%error, "files that an earlier process left in the scratch store cannot be deleted");
    }
    let writer = scratch_writer_settings(settings);
    Some(Box::new(move || {
        let mut store = SpoolStore::open(&directory)?;
        let recovered = store.recover()?;
        WriterHandle::start(Box::new(store), recovered.batch_no, writer, Arc::clone(&clock))
    }))
}
