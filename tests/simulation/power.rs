//! The SQLite store on a disk that loses its power: what was flushed stays, what was not may be lost or torn.

use super::disk::{self, Fault, Files, Replay};
use super::store::{Disk, Faults, add};
use super::vfs::{self, Mount};
use prontomq::internals::model::Clock;
use prontomq::internals::model::random::Random;
use prontomq::internals::server::SimulatedClock;
use prontomq::internals::store::sqlite::{Layer, SqliteSettings, SqliteStore};
use prontomq::internals::store::{
    Batch, BatchNo, CommitOutcome, LoadRequest, LoadedRange, Maintenance, ReadError, RecoveredState, Store, StoreError,
    StoreReader,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tempfile::TempDir;

/// What of a hundred calls fails, if it comes to the operation that is to fail.
const FAILING_COMMITS: u64 = 6;
const FAILING_LOADS: u64 = 4;
const FAILING_REOPENS: u64 = 25;
/// Of each file of space that is kept for a full disk.
const RESERVE_BYTES: u64 = 256 << 10;

/// A disk, and the process that has it mounted.
pub(crate) struct PowerDisk {
    place: TempDir,
    /// What is on it while no process has it.
    files: Files,
    mounted: Option<Mounted>,
}

struct Mounted {
    /// The path is valid for as long as this lives.
    _mount: Mount,
    disk: Arc<disk::Disk>,
    random: Random,
    faults: Arc<Faults>,
    /// Operations of the disk whose effects clients may know, if not all.
    seen: Option<usize>,
}

impl PowerDisk {
    pub(crate) fn new() -> Self {
        Self { place: TempDir::new().unwrap(), files: Files::new(), mounted: None }
    }
}

/// The redo log is short and the write-ahead log is emptied often, so that a loss of power meets both.
fn settings(place: &Path, random: &mut Random, clock: &SimulatedClock) -> SqliteSettings {
    let checkpoint_pages = 1 + (random.next_u64() % 40) as u32;
    let mut settings = SqliteSettings::new(place);
    settings.layer =
        Some(Layer { vfs: vfs::NAME.to_owned(), redo: Arc::new(vfs::DiskFiles), spares: Arc::new(vfs::DiskFiles) });
    settings.reserve_bytes_max = RESERVE_BYTES;
    settings.redo_bytes = (2 + random.next_u64() % 12) * 4_096;
    settings.cache_bytes = 1 << 20;
    settings.checkpoint_pages = checkpoint_pages..=4 * checkpoint_pages;
    settings.clock = Arc::new(clock.clone()) as Arc<dyn Clock>;
    settings
}

impl Disk for PowerDisk {
    fn open(&mut self, seed: u64, faults: &Arc<Faults>, clock: &SimulatedClock) -> Box<dyn Store> {
        let mut random = Random::new(seed);
        let disk = disk::Disk::new(&self.files);
        let mount = Mount::new(self.place.path(), &disk);
        let store = SqliteStore::open(&settings(mount.path(), &mut random, clock)).expect("the store opens");
        let fails = Random::new(random.next_u64());
        let (kept, known) = (Arc::clone(&disk), Arc::clone(faults));
        self.mounted = Some(Mounted { _mount: mount, disk: kept, random, faults: known, seen: None });
        Box::new(PowerStore { inner: store, disk, random: fails, faults: Arc::clone(faults) })
    }

    fn hide_from_clients(&mut self) -> bool {
        if let Some(mounted) = &mut self.mounted {
            mounted.seen = Some(mounted.disk.state().ops.len());
        }
        self.mounted.is_some()
    }

    fn lose_power(&mut self) {
        let Some(Mounted { disk, mut random, faults, seen, .. }) = self.mounted.take() else { return };
        let ops = {
            let mut state = disk.state();
            state.kill();
            std::mem::take(&mut state.ops)
        };
        // In the midst of a commit, if no client can know of it.
        let hidden = seen.map_or(0, |seen| ops.len() - seen);
        let kept = ops.len() - (random.next_u64() % (hidden as u64 + 1)) as usize;
        if kept < ops.len() {
            add(&faults.cut_short);
        }
        let mut replay = Replay::new(&self.files, &ops[..kept], random.next_u64());
        while replay.step().is_some() {}
        self.files = if random.next_u64().is_multiple_of(4) { replay.only_synced() } else { replay.torn() };
    }
}

/// The store on such a disk, of which operations fail.
struct PowerStore {
    inner: SqliteStore,
    disk: Arc<disk::Disk>,
    random: Random,
    faults: Arc<Faults>,
}

impl PowerStore {
    /// Decides what fails of the next commit, and of the work in idle moments that follows it.
    fn draw_faults(&mut self) {
        let (chance, after) = (self.random.next_u64() % 100, self.random.next_u64());
        let is_well = self.faults.is_well.load(Ordering::Relaxed);
        let is_full = !is_well && self.faults.is_full.load(Ordering::Relaxed);
        let mut state = self.disk.state();
        if !is_full {
            state.budget = usize::MAX;
        } else if state.budget == usize::MAX {
            state.budget = state.used();
        }
        state.fault = match chance {
            _ if is_well || chance >= FAILING_COMMITS => Fault::None,
            0 | 1 => Fault::Write((after % 20) as u32),
            _ => Fault::Sync((after % 4) as u32),
        };
    }
}

impl Store for PowerStore {
    fn recover(&mut self) -> Result<RecoveredState, StoreError> {
        self.inner.recover()
    }

    fn commit(&mut self, batch: &Batch) -> CommitOutcome {
        self.draw_faults();
        let outcome = self.inner.commit(batch);
        match outcome {
            CommitOutcome::Committed => add(&self.faults.batches),
            CommitOutcome::NotCommitted(_) => add(&self.faults.refused),
            _ => add(&self.faults.unknown),
        }
        outcome
    }

    fn reopen(&mut self) -> Result<BatchNo, StoreError> {
        let fails = self.random.next_u64() % 100 < FAILING_REOPENS && !self.faults.is_well.load(Ordering::Relaxed);
        self.disk.state().fault = if fails { Fault::Read((self.random.next_u64() % 6) as u32) } else { Fault::None };
        let reopened = self.inner.reopen();
        self.disk.state().fault = Fault::None;
        reopened
    }

    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        let (inner, random) = (self.inner.reader()?, Random::new(self.random.clone().next_u64()));
        let (disk, faults) = (Arc::clone(&self.disk), Arc::clone(&self.faults));
        Ok(Box::new(PowerReader { inner, disk, random, faults }))
    }

    fn maintenance(&mut self) -> Option<&mut dyn Maintenance> {
        self.inner.maintenance()
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        Box::new(self.inner).close()
    }
}

struct PowerReader {
    inner: Box<dyn StoreReader>,
    disk: Arc<disk::Disk>,
    random: Random,
    faults: Arc<Faults>,
}

impl StoreReader for PowerReader {
    fn load(&mut self, request: LoadRequest) -> Result<LoadedRange, ReadError> {
        add(&self.faults.loads);
        let fails = self.random.next_u64() % 100 < FAILING_LOADS && !self.faults.is_well.load(Ordering::Relaxed);
        let fault = if fails { Fault::Read((self.random.next_u64() % 3) as u32) } else { Fault::None };
        let before = std::mem::replace(&mut self.disk.state().fault, fault);
        let loaded = self.inner.load(request);
        self.disk.state().fault = before;
        if loaded.is_err() {
            add(&self.faults.unread);
        }
        loaded
    }
}
