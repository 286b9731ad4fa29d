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

mod content;
mod damage;
mod disk;
mod full;
mod model;
mod vfs;

use disk::{Disk, Fault, Files, Mark, Op, Replay};
use model::Model;
use prontomq::Durability;
use prontomq::internals::model::random::Random;
use prontomq::internals::model::{Lane, Position, QueueId};
use prontomq::internals::store::sqlite::{Layer, SqliteSettings, SqliteStore};
use prontomq::internals::store::{Backup, CommitOutcome, LoadRequest, Maintenance, POSITION_MAX, PositionRange, Store};
use rusqlite::{Connection, OpenFlags};
use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use vfs::Mount;

const BATCHES: u64 = 8;
const DATABASE: &str = "prontomq.sqlite3";
const REDO: &str = "prontomq.redo";

/// Of each file of space that is kept. The disk is copied at every crash point.
const RESERVE_BYTES: u64 = 256 << 10;

fn histories(default: usize) -> usize {
    std::env::var("PRONTOMQ_CRASH_HISTORIES").map_or(default, |count| count.parse().unwrap())
}

/// Log and file change places often, so that crashes meet checkpoints too.
fn settings(place: &Path, checkpoint_pages: u32) -> SqliteSettings {
    let mut settings = SqliteSettings::new(place);
    settings.layer =
        Some(Layer { vfs: vfs::NAME.to_owned(), redo: Arc::new(vfs::DiskFiles), spares: Arc::new(vfs::DiskFiles) });
    settings.reserve_bytes_max = RESERVE_BYTES;
    // Room for some batches, so that it is full now and then; another one at the next opening.
    settings.redo_bytes = u64::from(2 + checkpoint_pages % 12) * 4_096;
    settings.cache_bytes = 1 << 20;
    settings.checkpoint_pages = checkpoint_pages..=4 * checkpoint_pages;
    settings
}

fn open(place: &Path, checkpoint_pages: u32) -> Result<SqliteStore, String> {
    open_with(&settings(place, checkpoint_pages))
}

fn open_with(settings: &SqliteSettings) -> Result<SqliteStore, String> {
    SqliteStore::open(settings).map_err(|error| error.to_string())
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

/// What was looked at.
#[derive(Default)]
struct Figures {
    histories: AtomicUsize,
    crashes: AtomicUsize,
    /// Those that left files which no earlier one of their history had left.
    distinct: AtomicUsize,
    /// Those that were opened by the store and compared with the model, row by row.
    opened: AtomicUsize,
    faults: AtomicUsize,
    violations: AtomicUsize,
}

impl Figures {
    fn begin(&self) {
        self.histories.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a case, and a violation if it was one.
    fn check(&self, seed: u64, what: &str, result: Result<(), String>) {
        self.crashes.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = result {
            self.violations.fetch_add(1, Ordering::Relaxed);
            println!("seed {seed}, {what}: {error}");
        }
    }

    /// Says them; fails when there was a violation.
    fn tell(&self, what: &str) {
        let [histories, crashes, distinct, opened, faults, violations] =
            [&self.histories, &self.crashes, &self.distinct, &self.opened, &self.faults, &self.violations]
                .map(|count| count.load(Ordering::Relaxed));
        println!(
            "{what}: {histories} histories, {faults} faults, {crashes} crash points, {distinct} of them distinct, \
             {opened} compared row by row, {violations} violations"
        );
        assert_eq!(violations, 0, "violations");
    }
}

/// Of files whose content, as SQLite recovers it, was compared before, every so-manieth is compared all the same.
const COMPARED_AGAIN: usize = 16;

/// Opens what crashes of one history have left: it must be the store after some batch.
struct Checker<'a> {
    place: &'a Path,
    models: &'a [Model],
    figures: &'a Figures,
    /// The last batch, by the digest of the files.
    images: HashMap<u64, u64>,
    /// The last batch, by the digest of the content that SQLite recovers from the files, and of the redo log.
    contents: HashMap<u64, u64>,
    repeated: usize,
    /// What is committed may be lost with the power until it is marked as flushed.
    flushes_later: bool,
    /// It opens what it finds on a disk without a free byte.
    is_full: bool,
    /// The last batch in the files that a history begins with.
    first: u64,
}

impl<'a> Checker<'a> {
    fn new(place: &'a Path, models: &'a [Model], figures: &'a Figures) -> Self {
        figures.begin();
        Self {
            place,
            models,
            figures,
            images: HashMap::new(),
            contents: HashMap::new(),
            repeated: 0,
            flushes_later: false,
            is_full: false,
            first: 0,
        }
    }

    fn check(&mut self, files: &Files, allowed: RangeInclusive<u64>) -> Result<(), String> {
        self.figures.crashes.fetch_add(1, Ordering::Relaxed);
        let mut hasher = DefaultHasher::new();
        files.hash(&mut hasher);
        let image = hasher.finish();
        let last = match self.images.get(&image) {
            Some(last) => *last,
            None => {
                let last = self.last_batch(files)?;
                self.images.insert(image, last);
                last
            }
        };
        if allowed.contains(&last) { Ok(()) } else { Err(format!("batch {last} is the last, not one of {allowed:?}")) }
    }

    fn last_batch(&mut self, files: &Files) -> Result<u64, String> {
        self.figures.distinct.fetch_add(1, Ordering::Relaxed);
        let disk = Disk::new(files);
        let mount = Mount::new(self.place, &disk);
        let content = vfs::content_digest(&mount.path().join(DATABASE)).map(|content| {
            let mut hasher = DefaultHasher::new();
            (content, files.get(REDO)).hash(&mut hasher);
            hasher.finish()
        });
        if let Some(last) = content.and_then(|content| self.contents.get(&content)) {
            self.repeated += 1;
            if !self.repeated.is_multiple_of(COMPARED_AGAIN) {
                return Ok(*last);
            }
        }
        let last = open_and_compare(self.place, files, self.models, self.is_full)?;
        self.figures.opened.fetch_add(1, Ordering::Relaxed);
        self.contents.extend(content.map(|content| (content, last)));
        Ok(last)
    }
}

/// The last batch that is there; everything must be as it was after it.
fn open_and_compare(place: &Path, files: &Files, models: &[Model], is_full: bool) -> Result<u64, String> {
    let disk = Disk::new(files);
    if is_full {
        disk.fill();
    }
    let mount = Mount::new(place, &disk);
    let mut store = open(mount.path(), 1_000)?;
    let recovered = store.recover().map_err(|error| error.to_string())?;
    let last = recovered.batch_no.0;
    let found = Model::of(&store, &recovered)?;
    match models.get(last as usize) {
        Some(model) if *model == found => consistent(mount.path()).map(|()| last),
        model => Err(format!("after batch {last}: {found:?} instead of {model:?}")),
    }
}

/// What SQLite and the file's own numbers say.
fn consistent(place: &Path) -> Result<(), String> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let failed = |error: rusqlite::Error| error.to_string();
    let connection = Connection::open_with_flags_and_vfs(place.join(DATABASE), flags, vfs::NAME).map_err(failed)?;
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
                    WHERE id >> 40 = number AND NOT EXISTS (SELECT 1 FROM erasing WHERE id BETWEEN first AND last))",
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

/// Crashes at every point of a history.
fn crash(mut checker: Checker<'_>, base: &Files, ops: &[Op], seed: u64) {
    let mut replay = Replay::new(base, ops, seed);
    let [mut begun, mut committed, mut flushed] = [checker.first; 3];
    for at in 0_usize.. {
        let after_power_loss = if checker.flushes_later { flushed } else { committed };
        for (what, files, first) in [
            ("only synced", replay.only_synced(), after_power_loss),
            ("all written", replay.all_written(), committed),
            ("torn", replay.torn(), after_power_loss),
        ] {
            if let Err(error) = checker.check(&files, first..=begun) {
                checker.figures.violations.fetch_add(1, Ordering::Relaxed);
                println!(
                    "seed {seed}, {what} at op {at} of {}: {error}; {:?}",
                    ops.len(),
                    &ops[at.saturating_sub(9)..at]
                );
                return;
            }
        }
        match replay.step() {
            Some(Op::Mark(Mark::Begun(number))) => begun = *number,
            Some(Op::Mark(Mark::Committed(number))) => committed = *number,
            Some(Op::Mark(Mark::Flushed(number))) => flushed = *number,
            Some(_) => {}
            None => return,
        }
    }
}

/// Runs histories on some threads; each has a seed, which a failure tells.
fn in_parallel(count: usize, each: impl Fn(&Path, u64) + Sync) {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<u64>().unwrap());
    let seed = number("PRONTOMQ_CRASH_SEED").unwrap_or_else(|| getrandom::u64().unwrap());
    println!("PRONTOMQ_CRASH_SEED={seed}");
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..number("PRONTOMQ_CRASH_THREADS").unwrap_or(2) {
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
    let figures = Figures::default();
    in_parallel(histories(6), |place, seed| {
        let base = base(place);
        let disk = Disk::new(&base);
        let models = run(place, &disk, &mut Random::new(seed));
        let ops = std::mem::take(&mut disk.state().ops);
        crash(Checker::new(place, &models, &figures), &base, &ops, seed);
    });
    figures.tell("crashes");
}

/// What a loss of power may take at the level `interval`: the newest batches, none of them older than the interval. What is
/// left is whole, and the end of a process takes nothing.
#[test]
fn at_the_level_interval_a_loss_of_power_takes_no_more_than_the_interval() {
    const INTERVAL: Duration = Duration::from_millis(1);
    let figures = Figures::default();
    let lost = AtomicUsize::new(0);
    in_parallel(histories(6), |place, seed| {
        let mut random = Random::new(seed);
        let base = base(place);
        let disk = Disk::new(&base);
        let mount = Mount::new(place, &disk);
        let mut settings = settings(mount.path(), 1 + (random.next_u64() % 40) as u32);
        settings.durability = Durability::Interval;
        // Longer than any test, or so short that it is over soon.
        let is_short = random.next_u64().is_multiple_of(2);
        settings.durability_interval = if is_short { INTERVAL } else { Duration::from_secs(3_600) };
        let mut store = open_with(&settings).unwrap();
        store.recover().unwrap();
        let mut models = vec![Model::default()];
        for number in 1..=BATCHES {
            let (batch, next) = models.last().unwrap().batch(number, &mut random);
            models.push(next);
            disk.mark(Mark::Begun(number));
            assert_eq!(store.commit(&batch), CommitOutcome::Committed);
            let committed = Instant::now();
            disk.mark(Mark::Committed(number));
            // The last one stays as it is: there is something to lose.
            let step = if number == BATCHES { 3 } else { random.next_u64() % 4 };
            match step {
                0 if is_short => {
                    while committed.elapsed() <= INTERVAL {
                        std::thread::yield_now();
                    }
                    store.maintain().unwrap();
                    disk.mark(Mark::Flushed(number));
                }
                1 => {
                    Box::new(store).close().unwrap();
                    disk.mark(Mark::Flushed(number));
                    store = open_with(&settings).unwrap();
                    store.recover().unwrap();
                }
                2 => {
                    store.reopen().unwrap();
                    disk.mark(Mark::Flushed(number));
                }
                _ => {}
            }
        }
        drop(store);
        let ops = std::mem::take(&mut disk.state().ops);
        let mut replay = Replay::new(&base, &ops, seed);
        while replay.step().is_some() {}
        let mut checker = Checker::new(place, &models, &figures);
        lost.fetch_add((BATCHES - checker.last_batch(&replay.only_synced()).unwrap()) as usize, Ordering::Relaxed);
        checker.flushes_later = true;
        crash(checker, &base, &ops, seed);
    });
    let lost = lost.into_inner();
    println!("{lost} batches were lost with the power at the end of histories");
    assert!(lost > 0, "the level makes no difference");
    figures.tell("level interval");
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
    let figures = Figures::default();
    crash(Checker::new(place.path(), &[Model::default()], &figures), &Files::new(), &ops, 1);
    figures.tell("crashes while the file is made");
}

/// Runs a history in which something fails now and then; every outcome is taken at its word. Returns the store after each of
/// its batches.
fn run_with_faults(
    place: &Path,
    disk: &Arc<Disk>,
    random: &mut Random,
    fault: impl Fn(&mut Random, &mut disk::State),
) -> Vec<Model> {
    let mut mount = Mount::new(place, disk);
    let checkpoint_pages = 1 + (random.next_u64() % 20) as u32;
    let mut store = open(mount.path(), checkpoint_pages).unwrap();
    store.recover().unwrap();
    let mut models = vec![Model::default()];
    // Without one, reopening reads the log anew.
    let mut reader = random.next_u64().is_multiple_of(2).then(|| store.reader().unwrap());
    for number in 1..=BATCHES {
        let (batch, next) = models.last().unwrap().batch(number, random);
        models.push(next);
        disk.mark(Mark::Begun(number));
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
                    if random.next_u64().is_multiple_of(3) {
                        mount = mount.kill(place, disk);
                        disk.state().fault = Fault::None;
                        (store, reader) = (open(mount.path(), checkpoint_pages).unwrap(), None);
                        if store.recover().unwrap().batch_no.0 == number {
                            break;
                        }
                    } else if store.reopen().is_ok_and(|last| last.0 == number) {
                        break;
                    }
                }
                other => panic!("batch {number}: {other:?}"),
            }
        }
        disk.mark(Mark::Committed(number));
        {
            let mut state = disk.state();
            (state.fault, state.budget) = (Fault::None, usize::MAX);
        }
        // Housekeeping may fail, and then goes on.
        fault(random, &mut disk.state());
        let _ = store.erase(3);
        if store.maintain().is_err() {
            let _ = store.reopen();
        }
        if random.next_u64().is_multiple_of(4) {
            // It moves what is pending.
            let _ = store.begin_copy(&place.join(format!("copy-{number}")));
            store.end_copy();
        }
        let range = PositionRange { from: Position(0), to: POSITION_MAX };
        let lane = Lane { queue: QueueId(1), level: 0, generation: 0 };
        if let Some(reader) = &mut reader {
            let _ = reader.load(LoadRequest::new(lane, range, 10, 1_000_000));
        }
        let mut state = disk.state();
        (state.fault, state.budget) = (Fault::None, usize::MAX);
    }
    models
}

#[test]
fn a_full_disk_confirms_nothing_falsely_and_goes_on_when_there_is_space() {
    faults("a full disk", |random, state| {
        state.budget = state.used() + (random.next_u64() % 200_000) as usize;
    });
}

/// What makes room on a full disk flushes as well, and it is not the batch's own flush that fails.
#[test]
fn failing_flushes_on_a_full_disk_confirm_nothing_falsely() {
    faults("failing flushes on a full disk", |random, state| {
        state.budget = state.used() + (random.next_u64() % 50_000) as usize;
        state.fault = Fault::Sync((random.next_u64() % 8) as u32);
    });
}

#[test]
fn failing_writes_confirm_nothing_falsely() {
    faults("failing writes", |random, state| state.fault = Fault::Write((random.next_u64() % 30) as u32));
}

#[test]
fn failing_flushes_confirm_nothing_falsely() {
    faults("failing flushes", |random, state| state.fault = Fault::Sync((random.next_u64() % 4) as u32));
}

#[test]
fn failing_reads_confirm_nothing_falsely() {
    faults("failing reads", |random, state| state.fault = Fault::Read((random.next_u64() % 10) as u32));
}

/// Faults, and beside them a crash at every point.
fn faults(what: &str, fault: impl Fn(&mut Random, &mut disk::State) + Sync) {
    let figures = Figures::default();
    in_parallel(histories(6), |place, seed| {
        let base = base(place);
        let disk = Disk::new(&base);
        let models = run_with_faults(place, &disk, &mut Random::new(seed), |random, state| {
            figures.faults.fetch_add(usize::from(std::mem::take(&mut state.fired)), Ordering::Relaxed);
            fault(random, state);
        });
        let ops = std::mem::take(&mut disk.state().ops);
        crash(Checker::new(place, &models, &figures), &base, &ops, seed);
    });
    assert!(figures.faults.load(Ordering::Relaxed) > 0, "nothing failed");
    figures.tell(what);
}
