//! What is in the redo log counts like what is in the file: for readers, after a kill, and when it is moved.

use super::entry::{self, EntryRead, Salt};
use super::{ALIGN, WORD};
use super::{RedoFile, RedoFiles, SystemFiles};
use crate::model::random::Random;
use crate::model::{Lane, Message, Name, Position, QueueId};
use crate::store::contract::{batch, change, inserts, lane, large, row};
use crate::store::sqlite::reserve::SystemSpares;
use crate::store::sqlite::{BackupTarget, Layer, SqliteSettings, SqliteStore, back_up, diagnose};
use crate::store::{
    Backup, Batch, BatchNo, CommitOutcome, LaneChange, LaneState, LoadRequest, Maintenance, POSITION_MAX,
    PositionRange, QueueRecord, Row, Store, TopologyChange, VhostRecord,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

const EVERYTHING: PositionRange = PositionRange { from: Position(0), to: POSITION_MAX };

/// What a lane should be like.
#[derive(Default)]
struct Known {
    state: LaneState,
    rows: BTreeSet<u64>,
}

impl Known {
    /// The change that appends so many rows, some of them behind a gap.
    fn append(&mut self, lane: Lane, count: u64, random: &mut Random) -> LaneChange {
        let mut positions = Vec::new();
        for _ in 0..count {
            self.state.tail.0 += 1 + u64::from(random.next_u64().is_multiple_of(4));
            positions.push(self.state.tail.0);
        }
        let appended = inserts(lane, positions.iter().copied());
        self.rows.extend(positions);
        self.changed(appended)
    }

    /// The change that removes some rows, in one way or another.
    fn remove(&mut self, lane: Lane, random: &mut Random) -> LaneChange {
        let mut removal = change(lane);
        let at = random.next_u64() % (self.state.tail.0 + 1);
        match random.next_u64() % 4 {
            0 => removal.removes = self.rows.pop_first().map(Position).into_iter().collect(),
            1 => {
                self.rows.remove(&at);
                removal.removes.push(Position(at));
            }
            2 => {
                self.rows.retain(|position| !(at..=at + 2).contains(position));
                removal.remove_ranges.push(PositionRange { from: Position(at), to: Position(at + 2) });
            }
            _ => {
                let below = self.rows.iter().nth(1).copied().unwrap_or_default();
                self.rows = self.rows.split_off(&below);
                removal.remove_below = Some(Position(below));
            }
        }
        self.changed(removal)
    }

    fn changed(&mut self, change: LaneChange) -> LaneChange {
        self.state.head = self.rows.first().map_or(self.state.tail, |first| Position(*first));
        self.state.count = self.rows.len() as u64;
        self.state.body_bytes = self.rows.iter().map(|position| row(*position).message.body_len() as u64).sum();
        LaneChange { state: self.state, ..change }
    }
}

/// Batches at random, most of which are small changes of a lane or two.
fn random_batch(number: u64, known: &mut BTreeMap<Lane, Known>, random: &mut Random) -> Batch {
    let mut batch = batch(number);
    let lane = lane(1 + u64::from(random.next_u64().is_multiple_of(6)));
    let mut of = |lane: Lane, random: &mut Random, count: u64| {
        let known = known.entry(lane).or_default();
        if count == 0 { known.remove(lane, random) } else { known.append(lane, count, random) }
    };
    match random.next_u64() % 24 {
        0 => {
            batch.drop_lanes = vec![lane];
            known.remove(&lane);
        }
        1 => batch.topology = vec![TopologyChange::PutVhost(VhostRecord { name: format!("v{number}").into() })],
        2 => batch.lanes = vec![of(lane, random, 80)],
        3..=5 => batch.lanes = vec![of(lane, random, 2), of(Lane { level: 1, ..lane }, random, 1)],
        6..=12 => batch.lanes = vec![of(lane, random, 0)],
        _ => {
            let count = 1 + random.next_u64() % 3;
            batch.lanes = vec![of(lane, random, count)];
        }
    }
    batch
}

fn open(settings: &SqliteSettings) -> SqliteStore {
    SqliteStore::open(settings).unwrap()
}

fn commit(store: &mut SqliteStore, batch: &Batch) {
    assert_eq!(store.commit(batch), CommitOutcome::Committed);
}

fn pending(store: &SqliteStore) -> usize {
    store.redo.pending().lock().len()
}

/// A store with two queues, a lane of one of them known to the file.
fn with_queues(settings: &SqliteSettings) -> SqliteStore {
    let mut store = open(settings);
    store.recover().unwrap();
    let queue = |id: u64| {
        let (vhost, name) = (Name::from("/"), Name::from(id.to_string()));
        let arguments = Vec::new();
        TopologyChange::PutQueue(QueueRecord { id: QueueId(id), vhost, name, auto_delete: false, arguments })
    };
    commit(&mut store, &Batch { topology: vec![queue(1), queue(2)], ..batch(1) });
    store
}

/// Small batches, the first of which makes the lane known to the file.
fn append(store: &mut SqliteStore, known: &mut Known, numbers: impl IntoIterator<Item = u64>) {
    for number in numbers {
        let lanes = vec![known.append(lane(1), 1, &mut Random::new(number))];
        commit(store, &Batch { lanes, ..batch(number) });
    }
}

fn loaded(store: &SqliteStore, lane: Lane) -> (BatchNo, BTreeSet<u64>) {
    let loaded = store.reader().unwrap().load(LoadRequest::new(lane, EVERYTHING, usize::MAX, usize::MAX)).unwrap();
    (loaded.as_of, loaded.rows.iter().map(|row| row.position.0).collect())
}

#[test]
fn what_is_pending_is_read_recovered_and_moved_like_anything_else() {
    let mut random = Random::new(4);
    let (mut waited, mut filled) = (0, 0);
    for round in 0..12 {
        let place = TempDir::new().unwrap();
        let mut settings = SqliteSettings::new(place.path());
        settings.redo_bytes = 4_096 * (2 + round * 2);
        let mut store = with_queues(&settings);
        let mut reader = store.reader().unwrap();
        let mut known: BTreeMap<Lane, Known> = BTreeMap::new();
        for number in 2..=200 {
            let batch = random_batch(number, &mut known, &mut random);
            let before = pending(&store);
            commit(&mut store, &batch);
            filled += usize::from(before > 0 && entry::takes(&batch) && pending(&store) == 0);
            if let [change] = &batch.lanes[..] {
                let rows = &known[&change.lane].rows;
                let from = random.next_u64() % (known[&change.lane].state.tail.0 + 2);
                let range = PositionRange { from: Position(from), to: Position(from + random.next_u64() % 40) };
                let rows_max = 1 + (random.next_u64() % 12) as usize;
                let found = reader.load(LoadRequest::new(change.lane, range, rows_max, usize::MAX)).unwrap();
                assert_eq!(found.as_of, BatchNo(number));
                let expected = rows.range(range.from.0..=range.to.0).copied().take(rows_max);
                assert!(found.rows.iter().map(|row| row.position.0).eq(expected));
                assert!(found.rows.iter().all(|found| found.message == row(found.position.0).message));
            }
            waited += pending(&store);
            let last = match random.next_u64() % 24 {
                // As a kill leaves it.
                0 => {
                    drop((reader, store));
                    assert!(diagnose(place.path()).unwrap().is_sound());
                    store = open(&settings);
                    reader = store.reader().unwrap();
                    let recovered = store.recover().unwrap();
                    let found: BTreeMap<_, _> =
                        recovered.lanes.iter().map(|record| (record.lane, record.state)).collect();
                    let expected = known.iter().map(|(lane, known)| (*lane, known.state));
                    assert!(found.into_iter().eq(expected), "after batch {number}");
                    recovered.batch_no
                }
                1 => store.reopen().unwrap(),
                2 => {
                    commit(&mut store, &batch);
                    store.require_moved().unwrap();
                    assert_eq!(pending(&store), 0);
                    BatchNo(number)
                }
                3 => {
                    drop(reader);
                    Box::new(store).close().unwrap();
                    store = open(&settings);
                    reader = store.reader().unwrap();
                    store.recover().unwrap().batch_no
                }
                _ => BatchNo(number),
            };
            assert_eq!(last, BatchNo(number));
        }
        for (lane, known) in &known {
            assert_eq!(loaded(&store, *lane).1, known.rows);
        }
        drop(reader);
        Box::new(store).close().unwrap();
    }
    assert!(waited > 2_000 && filled > 100, "{waited} batches waited, {filled} times the log was full");
}

#[test]
fn pending_batches_are_moved_after_a_while() {
    let place = TempDir::new().unwrap();
    let mut store = with_queues(&SqliteSettings::new(place.path()));
    let mut known = Known::default();
    append(&mut store, &mut known, 2..=5);
    assert_eq!(pending(&store), 3);
    let mut next = store.maintain().unwrap().expect("there is something to do");
    assert!(next <= super::MOVED_AFTER);
    while pending(&store) > 0 {
        std::thread::sleep(next);
        next = store.maintain().unwrap().unwrap_or_default();
    }
    let raw = rusqlite::Connection::open(place.path().join("prontomq.sqlite3")).unwrap();
    let messages = raw.query_row("SELECT messages FROM v_store", [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(messages, 4);
}

#[test]
fn a_batch_that_is_cut_off_ends_what_is_found() {
    let place = TempDir::new().unwrap();
    let settings = SqliteSettings::new(place.path());
    let mut store = with_queues(&settings);
    let mut known = Known::default();
    append(&mut store, &mut known, 2..=6);
    drop(store);
    let file = place.path().join("prontomq.redo");
    let mut bytes = fs::read(&file).unwrap();
    // The fourth of them: batches 3 to 5 stay.
    bytes[4 * 4_096 + 100] ^= 1;
    fs::write(&file, bytes).unwrap();
    let mut store = open(&settings);
    assert_eq!(store.recover().unwrap().batch_no, BatchNo(5));
    let (as_of, rows) = loaded(&store, lane(1));
    assert_eq!((as_of, rows.len()), (BatchNo(5), 4));
}

#[test]
fn what_does_not_follow_the_file_is_kept_aside_and_never_used() {
    let place = TempDir::new().unwrap();
    let settings = SqliteSettings::new(place.path());
    let file = place.path().join("prontomq.sqlite3");
    let mut store = with_queues(&settings);
    let mut known = Known::default();
    append(&mut store, &mut known, 2..=4);
    Box::new(store).close().unwrap();
    let old = fs::read(&file).unwrap();
    let mut store = open(&settings);
    store.recover().unwrap();
    commit(&mut store, &Batch { lanes: vec![known.append(lane(1), 100, &mut Random::new(1))], ..batch(5) });
    append(&mut store, &mut known, 6..=8);
    drop(store);
    // The file is put back, and its log is lost: batch 5 is nowhere.
    for name in ["prontomq.sqlite3-wal", "prontomq.sqlite3-shm"] {
        fs::remove_file(place.path().join(name)).unwrap();
    }
    fs::write(&file, old).unwrap();

    let mut store = open(&settings);
    assert_eq!(store.recover().unwrap().batch_no, BatchNo(4));
    assert!(place.path().join("prontomq.redo.kept").is_file());
    // With this one it would follow.
    commit(&mut store, &Batch { lanes: vec![inserts(lane(1), 1_000..1_100)], ..batch(5) });
    drop(store);
    let mut store = open(&settings);
    assert_eq!(store.recover().unwrap().batch_no, BatchNo(5));
    assert_eq!(loaded(&store, lane(1)).1.len(), 103);
}

#[test]
fn batches_behind_some_that_the_file_has_are_found() {
    let place = TempDir::new().unwrap();
    let settings = SqliteSettings::new(place.path());
    let redo = place.path().join("prontomq.redo");
    let mut store = with_queues(&settings);
    let mut known = Known::default();
    append(&mut store, &mut known, 2..=6);
    let whole = fs::read(&redo).unwrap();
    // Up to here a move went into the file, of which its process knows nothing after a flush that failed.
    drop(store);
    let mut from = whole.clone();
    let cut =
        (1..whole.len() / ALIGN).map(|block| block * ALIGN).find(|at| first_batch_at(&whole, *at) == Some(BatchNo(4)));
    from[cut.unwrap()..].fill(0);
    fs::write(&redo, from).unwrap();
    let store = open(&settings);
    assert_eq!(store.last, BatchNo(3));
    Box::new(store).close().unwrap();
    fs::write(&redo, whole).unwrap();

    let mut store = open(&settings);
    assert_eq!((pending(&store), store.recover().unwrap().batch_no), (3, BatchNo(6)), "4 to 6 stand behind 2 and 3");
    append(&mut store, &mut known, 7..=8);
    drop(store);
    let mut store = open(&settings);
    assert_eq!(store.recover().unwrap().batch_no, BatchNo(8));
    assert!(!place.path().join("prontomq.redo.kept").exists());
}

/// The number of the batch whose entry stands at an offset of a log's bytes.
fn first_batch_at(bytes: &[u8], at: usize) -> Option<BatchNo> {
    let salt = Salt(*bytes[WORD.len()..].first_chunk().unwrap());
    match entry::take(&bytes[at..], salt).unwrap() {
        EntryRead::Entry(batch, _) => Some(batch.batch_no),
        EntryRead::Nothing => None,
    }
}

#[test]
fn a_copy_has_what_is_pending() {
    let place = TempDir::new().unwrap();
    let mut store = with_queues(&SqliteSettings::new(place.path()));
    let mut known = Known::default();
    append(&mut store, &mut known, 2..=5);
    // Of a running broker; while it is made, nothing waits.
    let target = BackupTarget::make(&place.path().join("running")).unwrap();
    store.begin_copy(&target.file()).unwrap();
    append(&mut store, &mut known, 6..=7);
    while !store.step_copy(1_000).unwrap().is_done {}
    target.finish().unwrap();
    let of_running = known.rows.clone();
    append(&mut store, &mut known, 8..=9);
    assert_eq!(pending(&store), 2);
    // Of one that was killed.
    drop(store);
    back_up(place.path(), &place.path().join("killed"), |_| {}).unwrap();
    for (name, rows) in [("running", of_running), ("killed", known.rows)] {
        let mut store = open(&SqliteSettings::new(place.path().join(name)));
        store.recover().unwrap();
        assert_eq!(loaded(&store, lane(1)).1, rows, "{name}");
    }
}

/// A file that refuses to be written or flushed when the test sets that.
struct Fails(Box<dyn RedoFile>, Arc<AtomicBool>, bool);

impl RedoFile for Fails {
    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        self.0.read_at(bytes, at)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        if !self.2 && self.1.load(Ordering::Relaxed) {
            Err(io::ErrorKind::Other.into())
        } else {
            self.0.write_at(bytes, at)
        }
    }

    fn flush(&self) -> io::Result<()> {
        if self.2 && self.1.load(Ordering::Relaxed) { Err(io::ErrorKind::Other.into()) } else { self.0.flush() }
    }
}

struct Failing {
    now: Arc<AtomicBool>,
    flushes: bool,
}

impl RedoFiles for Failing {
    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemFiles.remove(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn RedoFile>> {
        Ok(Box::new(Fails(SystemFiles.open(path)?, Arc::clone(&self.now), self.flushes)))
    }

    fn make(&self, path: &Path, len: u64) -> io::Result<Box<dyn RedoFile>> {
        Ok(Box::new(Fails(SystemFiles.make(path, len)?, Arc::clone(&self.now), self.flushes)))
    }
}

#[test]
fn a_redo_log_that_cannot_be_written_is_done_without() {
    for flushes in [false, true] {
        let place = TempDir::new().unwrap();
        let now = Arc::new(AtomicBool::new(false));
        let redo = Arc::new(Failing { now: Arc::clone(&now), flushes });
        let layer = Some(Layer { vfs: "unix".to_owned(), redo, spares: Arc::new(SystemSpares) });
        let settings = SqliteSettings { layer, ..SqliteSettings::new(place.path()) };
        let mut store = with_queues(&settings);
        let mut known = Known::default();
        append(&mut store, &mut known, 2..=5);
        assert_eq!(pending(&store), 3);
        now.store(true, Ordering::Relaxed);
        append(&mut store, &mut known, 6..=8);
        assert_eq!(pending(&store), 0);
        now.store(false, Ordering::Relaxed);
        // Once more, where there may be what was written and not flushed.
        assert_eq!(store.reopen().unwrap(), BatchNo(8));
        append(&mut store, &mut known, 9..=10);
        assert_eq!(pending(&store), 2);
        drop(store);
        let mut store = open(&settings);
        assert_eq!(store.recover().unwrap().batch_no, BatchNo(10));
        assert_eq!(loaded(&store, lane(1)), (BatchNo(10), known.rows));
    }
}

fn put(salt: Salt, batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::new();
    entry::put(&mut bytes, salt, batch);
    bytes
}

fn some_batch() -> Batch {
    let other =
        Row { redelivered: true, expires_at: Some(crate::model::WallMillis(7)), message: large(3, 5_000), ..row(9) };
    let state = LaneState { head: Position(1), tail: Position(9), count: 2, body_bytes: 3, lent_ceiling: Position(4) };
    let removal = LaneChange {
        inserts: vec![row(8), other],
        remove_below: Some(Position(3)),
        remove_ranges: vec![PositionRange { from: Position(4), to: Position(6) }],
        removes: vec![Position(7)],
        state,
        ..change(Lane { queue: QueueId(u64::MAX), level: 9, generation: 3 })
    };
    Batch { lanes: vec![removal, inserts(lane(2), 1..=3)], ..batch(77) }
}

#[test]
fn an_entry_says_what_was_put_into_it() {
    let (salt, batch) = (Salt(*b"saltsalt"), some_batch());
    let bytes = put(salt, &batch);
    let Ok(EntryRead::Entry(found, len)) = entry::take(&bytes, salt) else { panic!("it is not found") };
    assert_eq!(len, bytes.len());
    assert_eq!(format!("{found:?}"), format!("{batch:?}"));
}

#[test]
fn an_entry_that_was_changed_or_cut_is_none() {
    let salt = Salt(*b"saltsalt");
    let bytes = put(salt, &some_batch());
    let is_nothing = |bytes: &[u8], salt: Salt| matches!(entry::take(bytes, salt), Ok(EntryRead::Nothing));
    for at in 0..bytes.len() {
        assert!(is_nothing(&bytes[..at], salt), "cut at {at}");
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        assert!(is_nothing(&changed, salt), "changed at {at}");
    }
    assert!(is_nothing(&bytes, Salt(*b"saltsalu")), "of another file");
}

#[test]
fn whole_bytes_that_are_no_batch_are_an_error() {
    let salt = Salt(*b"saltsalt");
    let bytes = put(salt, &some_batch());
    let content = &bytes[24..];
    for cut in 0..content.len() {
        let found = entry::take(&entry::sealed(salt, BatchNo(1), &content[..cut]), salt);
        assert!(found.is_err(), "cut to {cut}");
    }
}

#[test]
fn a_message_that_looks_like_an_entry_is_none() {
    let place = TempDir::new().unwrap();
    let settings = SqliteSettings::new(place.path());
    let mut store = with_queues(&settings);
    let mut known = Known::default();
    append(&mut store, &mut known, 2..=3);
    // Entries of a file whose salt somebody would have to know, at every eighth byte.
    let file = fs::read(place.path().join("prontomq.redo")).unwrap();
    let salt = Salt(*file[16..].first_chunk().unwrap());
    let guessed = Salt(salt.0.map(|byte| byte ^ 1));
    let body = put(guessed, &Batch { lanes: vec![inserts(lane(1), 900..=901)], ..batch(5) }).repeat(40);
    let message = Message::with_body(b"", b"key", &crate::wire::properties::Properties::check(&[0, 0]).unwrap(), body);
    let forged = Row { message, ..row(known.state.tail.0 + 1) };
    commit(&mut store, &Batch { lanes: vec![LaneChange { inserts: vec![forged], ..change(lane(1)) }], ..batch(4) });
    assert_eq!(pending(&store), 2);
    drop(store);
    let mut store = open(&settings);
    assert_eq!(store.recover().unwrap().batch_no, BatchNo(4));
}
