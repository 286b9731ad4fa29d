//! A disk without a free byte: the store opens on it after a crash at any operation, consumers can drain it, and then there
//! is space again.

use crate::disk::{Disk, Files, Mark};
use crate::model::Model;
use crate::vfs::Mount;
use crate::{Checker, Figures, base, crash, histories, in_parallel, open};
use prontomq::internals::model::random::Random;
use prontomq::internals::store::{Batch, CommitOutcome, Maintenance, Store, StoreError};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Batches until the disk is full, if it is not before.
const FILLING: u64 = 40;

/// What gives all space back is taken after so many tries.
const TRIES: usize = 10;

/// Fills a disk until a batch is refused; the store after each batch.
fn fill(place: &Path, disk: &Arc<Disk>, random: &mut Random) -> Vec<Model> {
    let mount = Mount::new(place, disk);
    let mut store = open(mount.path(), 1 + (random.next_u64() % 40) as u32).unwrap();
    store.recover().unwrap();
    let mut models = vec![Model::default()];
    {
        let mut state = disk.state();
        state.budget = state.used() + (random.next_u64() % 2_000_000) as usize;
    }
    for number in 1..=FILLING {
        let (batch, next) = models.last().unwrap().batch(number, random);
        match store.commit(&batch) {
            CommitOutcome::Committed => models.push(next),
            CommitOutcome::NotCommitted(_) => break,
            other => panic!("batch {number}: {other:?}"),
        }
    }
    if random.next_u64().is_multiple_of(3) {
        // Closing may find no space, and is a kill then.
        let _ = Box::new(store).close();
    }
    disk.state().kill();
    models
}

/// The files of a full disk as a kill leaves them, with or without the space that the store has kept.
fn files_of(disk: &Disk, keeps_reserves: bool) -> Files {
    let state = disk.state();
    let files = state.names.iter().filter(|(name, _)| keeps_reserves || !name.ends_with("reserve"));
    files.map(|(name, inode)| (name.clone(), state.files[*inode].bytes.clone())).collect()
}

/// Erases what is dead. The reserve of this small disk may be too small for one large row: then a mebibyte must be enough.
fn erase_all(store: &mut dyn Maintenance, disk: &Disk, seed: u64) {
    let mut is_helped = false;
    loop {
        match store.erase(1_000) {
            Ok(true) => {}
            Ok(false) => return,
            Err(StoreError::DiskFull(_)) if !is_helped => {
                is_helped = true;
                disk.state().budget += 1 << 20;
            }
            Err(error) => panic!("seed {seed}: with space nothing is erased either: {error}"),
        }
    }
}

fn commit(store: &mut dyn Store, disk: &Disk, batch: &Batch, number: u64) -> bool {
    disk.mark(Mark::Begun(number));
    let is_committed = (0..TRIES).any(|_| store.commit(batch) == CommitOutcome::Committed);
    if is_committed {
        disk.mark(Mark::Committed(number));
    }
    is_committed
}

/// Histories on a disk whose last byte somebody has. With the reserves the broker that filled it needs nobody to drain it.
fn drained(what: &str, keeps_reserves: bool) {
    let figures = Figures::default();
    let (alone, helped) = (AtomicUsize::new(0), AtomicUsize::new(0));
    in_parallel(histories(6), |place, seed| {
        let mut random = Random::new(seed);
        let filled = Disk::new(&base(place));
        let mut models = fill(place, &filled, &mut random);
        let files = files_of(&filled, keeps_reserves);
        let last = models.len() as u64 - 1;
        let disk = Disk::new(&files);
        disk.fill();
        let mount = Mount::new(place, &disk);
        let mut store = open(mount.path(), 10).unwrap();
        assert_eq!(store.recover().unwrap().batch_no.0, last, "seed {seed}");
        let (batch, next) = models.last().unwrap().drained(last + 1);
        if batch.lanes.is_empty() {
            // It was full before there was anything.
            return;
        }
        models.push(next);
        let mut is_drained = commit(&mut store, &disk, &batch, last + 1);
        alone.fetch_add(usize::from(is_drained), Ordering::Relaxed);
        if !is_drained {
            assert!(!keeps_reserves, "seed {seed}: what gives space back is refused");
            helped.fetch_add(1, Ordering::Relaxed);
            disk.state().budget += 1 << 20;
            is_drained = commit(&mut store, &disk, &batch, last + 1);
        }
        assert!(is_drained, "seed {seed}: with space it is refused as well");
        erase_all(&mut store, &disk, seed);
        let (batch, next) = models.last().unwrap().batch(last + 2, &mut random);
        models.push(next);
        if !commit(&mut store, &disk, &batch, last + 2) {
            // There was little more than the store keeps for itself.
            disk.state().budget += 1 << 20;
            assert!(commit(&mut store, &disk, &batch, last + 2), "seed {seed}: nothing is stored any more");
        }
        drop(store);
        let ops = std::mem::take(&mut disk.state().ops);
        let mut checker = Checker::new(place, &models, &figures);
        (checker.is_full, checker.first) = (true, last);
        crash(checker, &files, &ops, seed);
    });
    let (alone, helped) = (alone.into_inner(), helped.into_inner());
    println!("{what}: {alone} drained on a disk without a free byte, {helped} with a mebibyte of it");
    assert!(alone + helped > 0, "no history was drained");
    figures.tell(what);
}

#[test]
fn a_full_disk_is_opened_and_drained_and_a_crash_at_any_point_of_it_leaves_whole_batches() {
    drained("full disks", true);
}

#[test]
fn a_full_disk_is_opened_when_somebody_else_has_the_space_that_the_store_had_kept() {
    drained("full disks without reserves", false);
}
