//! Crashes and faults of a disk in memory, at every point of random histories of batches.
//!
//! `PRONTOMQ_CRASH_HISTORIES=3000 cargo test --release --test crash -- --nocapture` is the long run; it prints its figures.
//!
//! After each crash the store opens, and holds what it held after some batch: the last one that was committed, or the one
//! that was on its way. Nothing else will do: half a batch, a batch that is lost, a row that is back.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]
#![allow(
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "figures are for people who run it by hand; and sizes in it are small"
)]

mod disk;
mod model;
mod vfs;

use disk::{Disk, Fault, Files, Mark, Op, Replay};
use model::Model;
use prontomq::model::random::Random;
use prontomq::store::sqlite::{SqliteSettings, SqliteStore};
use prontomq::store::{CommitOutcome, Store};
use rusqlite::{Connection, OpenFlags};
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;
use vfs::Mount;

const BATCHES: u64 = 8;

fn histories(default: usize) -> usize {
    std::env::var("PRONTOMQ_CRASH_HISTORIES").map_or(default, |count| count.parse().unwrap())
}

/// Log and file change places often, so that crashes meet checkpoints too.
fn settings(place: &Path, checkpoint_pages: u32) -> SqliteSettings {
    let mut settings = SqliteSettings::new(place);
    settings.vfs = Some(vfs::NAME.to_owned());
    settings.cache_bytes = 1 << 20;
    settings.checkpoint_pages = checkpoint_pages;
    settings
}

fn open(place: &Path, checkpoint_pages: u32) -> Result<SqliteStore, String> {
    SqliteStore::open(&settings(place, checkpoint_pages)).map_err(|error| error.to_string())
}

/// The files of a store that was made and closed.
fn base(place: &Path) -> Files {
    let disk = Disk::new(&Files::new());
    let mount = Mount::new(place, &disk);
    let mut store = open(mount.path(), 1_000).unwrap();
    store.recover().unwrap();
    Box::new(store).close().unwrap();
    let state = disk.state();
    state.names.iter().map(|(name, inode)| (name.clone(), state.files[*inode].bytes.clone())).collect()
}

/// Opens what a crash has left; it must be the store after one of these batches.
fn check(place: &Path, files: &Files, models: &[Model], allowed: std::ops::RangeInclusive<u64>) -> Result<(), String> {
    let disk = Disk::new(files);
    let mount = Mount::new(place, &disk);
    let mut store = open(mount.path(), 1_000)?;
    let recovered = store.recover().map_err(|error| error.to_string())?;
    let last = recovered.batch_no.0;
    if !allowed.contains(&last) {
        return Err(format!("batch {last} is the last, not one of {allowed:?}"));
    }
    let found = Model::of(&store, &recovered)?;
    if found != models[last as usize] {
        return Err(format!("after batch {last}: {found:?} instead of {:?}", models[last as usize]));
    }
    consistent(mount.path())
}

/// What SQLite and the file's own numbers say.
fn consistent(place: &Path) -> Result<(), String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let failed = |error: rusqlite::Error| error.to_string();
    let connection =
        Connection::open_with_flags_and_vfs(place.join("prontomq.sqlite3"), flags, vfs::NAME).map_err(failed)?;
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(failed)?;
    if verdict != "ok" {
        return Err(verdict);
    }
    for (what, wrong) in [
        (
            "references",
            "SELECT count(*) FROM body WHERE refs != (SELECT count(*) FROM message WHERE body = body.id \
                        AND typeof(body) = 'integer')",
        ),
        (
            "bodies of lanes",
            "SELECT count(*) FROM lane WHERE bodies != (SELECT count(*) FROM message \
                             WHERE id >> 40 = number AND typeof(body) = 'integer')",
        ),
        (
            "counts",
            "SELECT count(*) FROM lane WHERE dropped = 0 AND count != (SELECT count(*) FROM message \
                    WHERE id >> 40 = number)",
        ),
        ("lanes of rows", "SELECT count(*) FROM message WHERE id >> 40 NOT IN (SELECT number FROM lane)"),
        ("bodies of chunks", "SELECT count(*) FROM chunk WHERE id >> 16 NOT IN (SELECT id FROM body)"),
    ] {
        let count: i64 = connection.query_row(wrong, [], |row| row.get(0)).map_err(failed)?;
        if count != 0 {
            return Err(format!("{count} wrong {what}"));
        }
    }
    Ok(())
}

/// Runs a history; the store after each of its batches.
fn run(place: &Path, disk: &Arc<Disk>, random: &mut Random) -> Vec<Model> {
    let checkpoint_pages = 1 + (random.next_u64() % 40) as u32;
    let mount = Mount::new(place, disk);
    let mut store = open(mount.path(), checkpoint_pages).unwrap();
    store.recover().unwrap();
    let mut models = vec![Model::default()];
    for number in 1..=BATCHES {
        let (batch, next) = models.last().unwrap().batch(number, random);
        models.push(next);
        disk.mark(Mark::Begun(number));
        assert_eq!(store.commit(&batch), CommitOutcome::Committed);
        disk.mark(Mark::Committed(number));
        match random.next_u64() % 8 {
            0 | 1 => _ = store.erase(1 + (random.next_u64() % 5) as usize).unwrap(),
            2 => {
                Box::new(store).close().unwrap();
                store = open(mount.path(), checkpoint_pages).unwrap();
                store.recover().unwrap();
            }
            3 => assert_eq!(store.reopen().unwrap().0, number),
            _ => {}
        }
    }
    while store.erase(1_000).unwrap() {}
    Box::new(store).close().unwrap();
    models
}

/// Crashes at every point of a history; how many different disks that made.
fn crash(place: &Path, base: &Files, ops: &[Op], models: &[Model], random: &mut Random) -> usize {
    let mut replay = Replay::new(base, ops);
    let (mut begun, mut committed, mut crashes, mut seen) = (0, 0, 0, 0);
    let mut at = 0;
    loop {
        let mut images = vec![("only synced", replay.only_synced()), ("all written", replay.all_written())];
        images.push(("torn", replay.torn(random)));
        for (what, files) in images {
            let mut hasher = DefaultHasher::new();
            (&files, begun, committed).hash(&mut hasher);
            if what == "only synced" && std::mem::replace(&mut seen, hasher.finish()) == hasher.finish() {
                continue;
            }
            if let Err(error) = check(place, &files, models, committed..=begun) {
                panic!("{what} at op {at} of {}, {:?}: {error}", ops.len(), ops.get(at.max(1) - 1));
            }
            crashes += 1;
        }
        match replay.step() {
            Some(Op::Mark(Mark::Begun(number))) => begun = *number,
            Some(Op::Mark(Mark::Committed(number))) => committed = *number,
            Some(_) => {}
            None => return crashes,
        }
        at += 1;
    }
}

/// Runs histories on two threads; each has a seed, which a failure tells.
fn in_parallel(count: usize, each: impl Fn(&Path, u64) + Sync) {
    let seed =
        std::env::var("PRONTOMQ_CRASH_SEED").map_or_else(|_| getrandom::u64().unwrap(), |seed| seed.parse().unwrap());
    println!("PRONTOMQ_CRASH_SEED={seed}");
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let place = TempDir::new().unwrap();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        break;
                    }
                    each(place.path(), seed.wrapping_add(at as u64));
                }
            });
        }
    });
}

#[test]
fn after_a_crash_at_any_point_there_is_what_was_committed_and_nothing_else() {
    let crashes = AtomicUsize::new(0);
    let count = histories(6);
    in_parallel(count, |place, seed| {
        let base = base(place);
        let mut random = Random::new(seed);
        let disk = Disk::new(&base);
        let models = run(place, &disk, &mut random);
        let ops = disk.state().ops.clone();
        crashes.fetch_add(crash(place, &base, &ops, &models, &mut random), Ordering::Relaxed);
    });
    println!("{count} histories, {} crashes", crashes.into_inner());
}

#[test]
fn a_crash_while_the_file_is_made_leaves_one_that_opens() {
    let place = TempDir::new().unwrap();
    let disk = Disk::new(&Files::new());
    let mount = Mount::new(place.path(), &disk);
    let mut store = open(mount.path(), 1_000).unwrap();
    store.recover().unwrap();
    Box::new(store).close().unwrap();
    let ops = disk.state().ops.clone();
    let crashes = crash(place.path(), &Files::new(), &ops, &[Model::default()], &mut Random::new(1));
    println!("{crashes} crashes");
}

/// Runs a history in which something fails now and then; every outcome is taken at its word.
fn run_with_faults(
    place: &Path,
    base: &Files,
    disk: &Arc<Disk>,
    random: &mut Random,
    fault: impl Fn(&mut Random, &mut disk::State),
) {
    let mount = Mount::new(place, disk);
    let mut store = open(mount.path(), 1 + (random.next_u64() % 20) as u32).unwrap();
    store.recover().unwrap();
    let mut model = Model::default();
    let mut reader = store.reader().unwrap();
    for number in 1..=BATCHES {
        let (batch, next) = model.batch(number, random);
        model = next;
        fault(random, &mut disk.state());
        let mut tries = 0;
        loop {
            tries += 1;
            assert!(tries < 20, "batch {number} never goes through");
            match store.commit(&batch) {
                CommitOutcome::Committed => break,
                CommitOutcome::NotCommitted(_) => disk.state().budget = usize::MAX,
                CommitOutcome::Unknown(_) => {
                    disk.state().budget = usize::MAX;
                    if store.reopen().is_ok_and(|last| last.0 == number) {
                        break;
                    }
                }
                other => panic!("batch {number}: {other:?}"),
            }
        }
        {
            let mut state = disk.state();
            (state.fault, state.budget) = (Fault::None, usize::MAX);
        }
        // Housekeeping may fail, and then goes on.
        fault(random, &mut disk.state());
        let _ = store.erase(3);
        let range =
            prontomq::store::PositionRange { from: prontomq::model::Position(0), to: prontomq::store::POSITION_MAX };
        let lane = prontomq::model::Lane { queue: prontomq::model::QueueId(1), level: 0, generation: 0 };
        let _ = reader.load(lane, range, 10, 1_000_000);
        let mut state = disk.state();
        (state.fault, state.budget) = (Fault::None, usize::MAX);
    }
    // As it is, and after a loss of power now.
    let mut expected = vec![Model::default(); BATCHES as usize];
    expected.push(model);
    let ops = disk.state().ops.clone();
    let mut replay = Replay::new(base, &ops);
    while replay.step().is_some() {}
    for (what, files) in [("all written", replay.all_written()), ("only synced", replay.only_synced())] {
        if let Err(error) = check(place, &files, &expected, BATCHES..=BATCHES) {
            panic!("{what} at the end: {error}");
        }
    }
}

#[test]
fn a_full_disk_confirms_nothing_falsely_and_goes_on_when_there_is_space() {
    faults(|random, state| {
        state.budget = state.used() + (random.next_u64() % 200_000) as usize;
    });
}

#[test]
fn failing_writes_confirm_nothing_falsely() {
    faults(|random, state| state.fault = Fault::Write((random.next_u64() % 30) as u32));
}

#[test]
fn failing_flushes_confirm_nothing_falsely() {
    faults(|random, state| state.fault = Fault::Sync((random.next_u64() % 4) as u32));
}

#[test]
fn failing_reads_confirm_nothing_falsely() {
    faults(|random, state| state.fault = Fault::Read((random.next_u64() % 10) as u32));
}

fn faults(fault: impl Fn(&mut Random, &mut disk::State) + Sync) {
    let fired = AtomicUsize::new(0);
    let count = histories(40);
    in_parallel(count, |place, seed| {
        let base = base(place);
        let disk = Disk::new(&base);
        run_with_faults(place, &base, &disk, &mut Random::new(seed), |random, state| {
            if std::mem::take(&mut state.fired) {
                fired.fetch_add(1, Ordering::Relaxed);
            }
            fault(random, state);
        });
    });
    let fired = fired.into_inner();
    println!("{count} histories, {fired} faults");
    assert!(fired > 0, "nothing failed");
}
