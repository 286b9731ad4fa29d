//! The contract as far as it is for a store that forgets, and what only its files can show.

use super::SpoolStore;
use crate::model::stored::OrderKey;
use crate::model::{Lane, Position, WallMillis};
use crate::store::contract::{
    StoreLocation, batch, change, contract_tests, inserts, lane, large, message, positions, row, with_message,
};
use crate::store::memory::{MemoryDisk, MemoryStore};
use crate::store::record::{HEADER_BYTES, message_bytes};
use crate::store::{
    Batch, BatchNo, CommitOutcome, FileStats, LaneChange, LoadRequest, POSITION_MAX, PositionRange, ReadError, Row,
    Store, TopologyChange, VhostRecord,
};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> PathBuf {
        SpoolStore::directory_below(self.0.path())
    }

    fn store(&self) -> SpoolStore {
        SpoolStore::open(&self.path()).unwrap()
    }

    /// The segments' lengths.
    fn segments(&self) -> Vec<u64> {
        segments(&self.path()).iter().map(|path| fs::metadata(path).unwrap().len()).collect()
    }
}

impl StoreLocation for Folder {
    fn open(&self) -> Box<dyn Store> {
        Box::new(self.store())
    }

    fn outlives_stores(&self) -> bool {
        false
    }
}

contract_tests!(Folder::new(); of what forgets);

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn commit(store: &mut SpoolStore, number: u64, lanes: Vec<LaneChange>) -> CommitOutcome {
    store.commit(&Batch { lanes, ..batch(number) })
}

const EVERYTHING: PositionRange = PositionRange { from: Position(0), to: POSITION_MAX };

fn load(store: &dyn Store, lane: Lane) -> Result<Vec<Row>, ReadError> {
    Ok(store.reader().unwrap().load(LoadRequest::new(lane, EVERYTHING, usize::MAX, usize::MAX))?.rows)
}

fn below(position: u64) -> Vec<LaneChange> {
    vec![LaneChange { remove_below: Some(Position(position)), ..change(lane(1)) }]
}

const MIB: u64 = 1 << 20;

fn mebibytes(positions: impl IntoIterator<Item = u64>) -> LaneChange {
    with_message(lane(1), &positions.into_iter().collect::<Vec<_>>(), &large(7, MIB as usize))
}

#[test]
fn a_row_comes_back_with_all_that_it_has() {
    let folder = Folder::new();
    let mut store = folder.store();
    let place = Some(OrderKey { behind: Position(77), nth: 3 });
    let rows = [
        Row { place, ..row(1) },
        Row { place, redelivered: true, expires_at: Some(WallMillis(5)), message: large(1, 50_000), ..row(2) },
        Row { message: large(2, 5_000).into_dead_letter(None), ..row(3) },
    ];
    commit(&mut store, 1, vec![LaneChange { inserts: rows.to_vec(), ..change(lane(1)) }]);
    let found = load(&store, lane(1)).unwrap();
    let fields = |row: &Row| (row.position, row.redelivered, row.expires_at, row.place, row.message.clone());
    assert_eq!(found.iter().map(fields).collect::<Vec<_>>(), rows.iter().map(fields).collect::<Vec<_>>());
    assert!(found[2].message.is_dead_letter());
}

#[test]
fn a_segment_is_deleted_as_soon_as_nothing_lives_in_it() {
    let folder = Folder::new();
    let mut store = folder.store();
    // 31 fit one segment.
    for at in 1..=100 {
        assert_eq!(commit(&mut store, at, vec![mebibytes([at])]), CommitOutcome::Committed);
    }
    let full = folder.segments();
    assert_eq!(full.len(), 4);
    assert_eq!(store.vitals().file_bytes, full.iter().sum::<u64>());
    commit(&mut store, 101, below(32));
    assert_eq!(folder.segments(), full[1..]);
    assert_eq!(store.vitals().file_bytes, full[1..].iter().sum::<u64>());
    assert_eq!(positions(&store, lane(1)), (32..=100).collect::<Vec<_>>());
    commit(&mut store, 102, below(93));
    assert_eq!(folder.segments(), full[2..], "one row of the third lives, and all of the last");
    commit(&mut store, 103, below(101));
    assert_eq!(folder.segments(), full[3..], "the one that is written to stays");
}

#[test]
fn an_empty_segment_begins_anew() {
    let folder = Folder::new();
    let mut store = folder.store();
    for number in 1..=100 {
        let lanes = vec![LaneChange { remove_below: Some(Position(number)), ..mebibytes([number]) }];
        commit(&mut store, 2 * number, lanes);
        assert_eq!(positions(&store, lane(1)), [number]);
        commit(&mut store, 2 * number + 1, below(number + 1));
    }
    let record = HEADER_BYTES as u64 + message_bytes(&large(7, MIB as usize));
    assert_eq!(folder.segments(), [record]);
    assert_eq!(store.vitals().file_bytes, record);
}

#[test]
fn memory_follows_the_bytes_and_not_the_rows() {
    let folder = Folder::new();
    let mut store = folder.store();
    for number in 0..100 {
        commit(&mut store, number + 1, vec![inserts(lane(1), number * 100 + 1..=number * 100 + 100)]);
    }
    assert_eq!(positions(&store, lane(1)), (1..=10_000).collect::<Vec<_>>());
    let runs = super::lock(&store.index).find(lane(1), EVERYTHING, u64::MAX, u64::MAX).len();
    let bytes = store.vitals().file_bytes;
    assert!(runs as u64 <= bytes / super::index::RUN_BYTES * 2, "{runs} runs for {bytes} bytes");
}

#[test]
fn what_is_refused_leaves_nothing_behind_and_may_come_again() {
    let folder = Folder::new();
    let mut store = folder.store();
    commit(&mut store, 1, vec![mebibytes(1..=20)]);
    let before = folder.segments();
    // There is room for eleven more in this segment; the next one's disk is full.
    symlink("/dev/full", folder.path().join("00000002.spool")).unwrap();
    let refused = || vec![LaneChange { remove_below: Some(Position(3)), ..mebibytes(21..=40) }, inserts(lane(2), [1])];
    let outcome = commit(&mut store, 2, refused());
    assert!(matches!(outcome, CommitOutcome::NotCommitted(_)), "{outcome:?}");
    assert_eq!(positions(&store, lane(1)), (1..=20).collect::<Vec<_>>());
    assert_eq!(positions(&store, lane(2)), [0; 0]);
    assert_eq!(store.reader().unwrap().load(LoadRequest::new(lane(1), EVERYTHING, 1, 1)).unwrap().as_of, BatchNo(1));
    assert_eq!((folder.segments(), store.vitals().file_bytes), (before.clone(), before[0]));
    assert_eq!(commit(&mut store, 2, refused()), CommitOutcome::Committed);
    let rows = load(&store, lane(1)).unwrap();
    assert_eq!(rows.iter().map(|row| row.position.0).collect::<Vec<_>>(), (3..=40).collect::<Vec<_>>());
    assert!(rows.iter().all(|row| row.message == large(7, MIB as usize)));
    assert_eq!(positions(&store, lane(2)), [1]);
}

#[test]
fn no_room_for_a_new_segment_is_a_refusal_too() {
    let folder = Folder::new();
    let mut store = folder.store();
    fs::remove_dir(folder.path()).unwrap();
    let outcome = commit(&mut store, 1, vec![inserts(lane(1), [1])]);
    assert!(matches!(outcome, CommitOutcome::NotCommitted(_)), "{outcome:?}");
    fs::create_dir(folder.path()).unwrap();
    assert_eq!(commit(&mut store, 1, vec![inserts(lane(1), [1])]), CommitOutcome::Committed);
    assert_eq!(positions(&store, lane(1)), [1]);
}

#[test]
fn rows_that_their_batch_removes_need_no_space() {
    let folder = Folder::new();
    let mut store = folder.store();
    let lanes = vec![
        LaneChange { remove_below: Some(Position(10)), ..mebibytes(1..=10) },
        with_message(lane(2), &[1], &large(1, MIB as usize)),
        with_message(lane(3), &[1], &large(1, MIB as usize)),
    ];
    let topology = vec![TopologyChange::DeleteQueue(lane(3).queue)];
    assert_eq!(
        store.commit(&Batch { lanes, topology, drop_lanes: vec![lane(2)], ..batch(1) }),
        CommitOutcome::Committed
    );
    let bytes = store.vitals().file_bytes;
    assert!((MIB..2 * MIB).contains(&bytes), "{bytes} bytes");
    assert_eq!(positions(&store, lane(1)), [10]);
}

#[test]
fn topology_is_refused() {
    let folder = Folder::new();
    let mut store = folder.store();
    let put = TopologyChange::PutVhost(VhostRecord { name: "/".into() });
    let outcome = store.commit(&Batch { topology: vec![put], ..batch(1) });
    assert!(matches!(outcome, CommitOutcome::Fatal(_)), "{outcome:?}");
}

#[test]
fn damaged_bytes_are_an_error_and_never_more() {
    let folder = Folder::new();
    let mut store = folder.store();
    let rows = vec![row(1), Row { message: large(1, 5_000), ..row(2) }, row(3)];
    commit(&mut store, 1, vec![LaneChange { inserts: rows, ..change(lane(1)) }]);
    let path = &segments(&folder.path())[0];
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    let whole = fs::read(path).unwrap();
    let mut refused = 0;
    for at in (0..300).chain(whole.len() - 200..whole.len()) {
        for flip in [0xFF, 0x01, 0x80] {
            file.write_all_at(&[whole[at] ^ flip], at as u64).unwrap();
            match load(&store, lane(1)) {
                Ok(rows) => assert_eq!(rows.len(), 3, "byte {at}"),
                Err(ReadError::Failed(_)) => refused += 1,
                Err(other) => panic!("{other:?}"),
            }
            file.write_all_at(&whole[at..=at], at as u64).unwrap();
        }
    }
    assert!(refused > 200, "{refused}");
    for len in (0..whole.len()).step_by(17) {
        file.set_len(len as u64).unwrap();
        assert!(matches!(load(&store, lane(1)), Err(ReadError::Failed(_))), "{len} bytes");
    }
    fs::write(path, &whole).unwrap();
    assert_eq!(positions(&store, lane(1)), [1, 2, 3]);
}

#[test]
fn nothing_outlives_it() {
    let folder = Folder::new();
    let mut store = folder.store();
    commit(&mut store, 1, vec![inserts(lane(1), [1])]);
    assert_eq!(fs::metadata(folder.path()).unwrap().permissions().mode() & 0o777, 0o700);
    // Of a killed process something is left.
    std::mem::forget(store);
    assert_eq!(folder.segments().len(), 1);
    let store = folder.store();
    assert_eq!(folder.segments().len(), 0);
    assert_eq!(positions(&store, lane(1)), [0; 0]);
    Box::new(store).close().unwrap();
    assert!(!folder.path().exists());
}

/// A source of numbers that are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn change(&mut self, at: u64, next: &mut u64) -> LaneChange {
        let mut rows = Vec::new();
        for _ in 0..self.below(30) {
            *next += 1 + u64::from(self.below(8) == 0);
            let message = match self.below(20) {
                0 => large(*next, 4_097 + self.below(60_000) as usize),
                len => message(&"x".repeat(len as usize * 40)),
            };
            rows.push(Row { message, ..row(*next) });
        }
        let any = |numbers: &mut Self| Position(next.saturating_sub(numbers.below(200)));
        let rare = |numbers: &mut Self| numbers.below(4) == 0;
        LaneChange {
            inserts: rows,
            remove_below: rare(self).then(|| any(self)),
            remove_ranges: (0..self.below(3)).map(|_| PositionRange { from: any(self), to: any(self) }).collect(),
            removes: (0..self.below(3)).map(|_| any(self)).collect(),
            ..change(lane(at))
        }
    }
}

#[test]
fn any_course_of_changes_leaves_what_it_leaves_in_memory() {
    let folder = Folder::new();
    let mut numbers = Numbers(1);
    for history in 0..20 {
        let (mut spool, mut memory) = (folder.store(), MemoryStore::open(MemoryDisk::default()));
        let mut nexts = [0; 4];
        for number in 1..=100 {
            let mut any_change = |_| {
                let at = numbers.below(4);
                numbers.change(at, &mut nexts[at as usize])
            };
            let lanes = (0..6).map(&mut any_change).collect();
            let drop_lanes = (0..u64::from(numbers.below(10) == 0)).map(|_| lane(numbers.below(4))).collect();
            let batch = Batch { lanes, drop_lanes, ..batch(number) };
            assert_eq!(spool.commit(&batch), CommitOutcome::Committed);
            assert_eq!(memory.commit(&batch), CommitOutcome::Committed);
            for (at, next) in (0..).zip(nexts) {
                let from = Position(numbers.below(next + 1));
                let range = PositionRange { from, to: Position(from.0 + numbers.below(300)) };
                let (rows, bytes) = (1 + numbers.below(300) as usize, 1 + numbers.below(100_000) as usize);
                let found = |store: &dyn Store| -> Vec<_> {
                    let loaded = store.reader().unwrap().load(LoadRequest::new(lane(at), range, rows, bytes)).unwrap();
                    assert_eq!(loaded.as_of, batch.batch_no);
                    loaded.rows.into_iter().map(|row| (row.position, row.message)).collect()
                };
                assert_eq!(found(&spool), found(&memory), "history {history}, batch {number}, lane {at}, {range:?}");
            }
        }
        let drop_lanes = (0..4).map(lane).collect();
        spool.commit(&Batch { drop_lanes, ..batch(101) });
        assert!(folder.segments().len() <= 1, "nothing lives");
        Box::new(spool).close().unwrap();
    }
}
