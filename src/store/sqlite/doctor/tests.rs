//! Real damage: pages zeroed, bytes flipped, counters that lie, and what belongs to nobody.

use super::{RepairReport, diagnose, repair};
use crate::model::random::Random;
use crate::model::{Lane, Name, QueueId};
use crate::store::contract::{batch, inserts, message};
use crate::store::sqlite::{SqliteSettings, SqliteStore, database_file};
use crate::store::{
    Batch, BindingRecord, CommitOutcome, Destination, LaneState, LoadRequest, OpenError, POSITION_MAX, Position,
    PositionRange, QueueRecord, RecoveredState, Row, Store, StoreError, TopologyChange, VhostRecord,
};
use rusqlite::{Connection, params};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use tempfile::TempDir;

const PAGE_BYTES: u64 = 16_384;
const LARGE: usize = 150_000;
const QUEUES: u64 = 3;
const MESSAGES: u64 = 400;

fn lane(queue: u64) -> Lane {
    Lane { queue: QueueId(queue << 40), level: (queue % 2) as u8, generation: 0 }
}

/// A clean store: three queues with bindings and messages (the second of each in chunks), and a lane that was dropped.
fn place() -> TempDir {
    let place = TempDir::new().unwrap();
    let mut store = SqliteStore::open(&SqliteSettings::new(place.path())).unwrap();
    store.recover().unwrap();
    let vhost = Name::from("/");
    let mut topology = vec![TopologyChange::PutVhost(VhostRecord { name: vhost.clone() })];
    let mut lanes = Vec::new();
    for number in 1..=QUEUES {
        let (name, arguments) = (Name::from(format!("q{number}")), vec![0; 4]);
        let id = lane(number).queue;
        let record = QueueRecord {
            vhost: vhost.clone(),
            name: name.clone(),
            id,
            auto_delete: false,
            arguments: arguments.clone(),
        };
        topology.push(TopologyChange::PutQueue(record));
        topology.push(TopologyChange::PutBinding(BindingRecord {
            vhost: vhost.clone(),
            source: "amq.direct".into(),
            destination_kind: Destination::Queue,
            destination: name,
            routing_key: "key".into(),
            arguments,
        }));
        let mut change = inserts(lane(number), 1..=MESSAGES);
        for row in &mut change.inserts {
            row.message = message(&body_of(number, row.position.0));
        }
        let bytes = change.inserts.iter().map(|row| row.message.body_len() as u64).sum();
        let (head, tail) = (Position(1), Position(MESSAGES));
        change.state = LaneState { head, tail, count: MESSAGES, body_bytes: bytes, lent_ceiling: Position(5) };
        lanes.push(change);
    }
    lanes.push(inserts(lane(9), 1..=50));
    assert_eq!(store.commit(&Batch { topology, lanes, ..batch(1) }), CommitOutcome::Committed);
    store.commit(&Batch { drop_lanes: vec![lane(9)], ..batch(2) });
    Box::new(store).close().unwrap();
    place
}

/// The second message of each queue is large.
fn body_of(queue: u64, position: u64) -> String {
    if position == 2 { "L".repeat(LARGE) } else { format!("{queue}/{position} {}", "x".repeat(100)) }
}

fn raw(directory: &Path) -> Connection {
    Connection::open(database_file(directory)).unwrap()
}

fn number(directory: &Path, statement: &str) -> i64 {
    raw(directory).query_row(statement, [], |row| row.get(0)).unwrap()
}

fn change(directory: &Path, statement: &str) {
    assert!(raw(directory).execute(statement, []).unwrap() > 0, "nothing was changed by {statement}");
}

fn everything() -> PositionRange {
    PositionRange { from: Position(0), to: POSITION_MAX }
}

/// Opens the store as a broker does.
fn opened(directory: &Path) -> (SqliteStore, RecoveredState) {
    let mut store = SqliteStore::open(&SqliteSettings::new(directory)).unwrap();
    let recovered = store.recover().unwrap();
    (store, recovered)
}

/// The keys of all rows in the file.
fn keys(directory: &Path) -> BTreeSet<i64> {
    let connection = raw(directory);
    let mut statement = connection.prepare("SELECT id FROM message").unwrap();
    let keys = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap);
    keys.collect()
}

/// What the findings say, in one text.
fn findings(directory: &Path) -> String {
    diagnose(directory).unwrap().findings.join("\n")
}

/// Repairs, and makes sure that nothing is wrong afterwards, neither to the doctor nor to a broker.
fn repaired(directory: &Path) -> RepairReport {
    let repaired = repair(directory).unwrap();
    assert!(repaired.after.is_sound(), "{:#?}", repaired.after);
    assert!(diagnose(directory).unwrap().is_sound());
    let (store, recovered) = opened(directory);
    for record in recovered.lanes {
        let rows = rows(&store, record.lane);
        assert_eq!(rows.len() as u64, record.state.count);
        assert!(rows.iter().all(|row| row.position >= record.state.head && row.position <= record.state.tail));
    }
    repaired
}

/// The rows of a lane that a store gives back.
fn rows(store: &SqliteStore, lane: Lane) -> Vec<Row> {
    store.reader().unwrap().load(LoadRequest::new(lane, everything(), usize::MAX, usize::MAX)).unwrap().rows
}

#[test]
fn a_sound_store_is_found_sound_and_left_alone() {
    let place = place();
    let before = fs::read(database_file(place.path())).unwrap();
    let found = diagnose(place.path()).unwrap();
    assert!(found.is_sound(), "{found:#?}");
    assert_eq!((found.queues, found.rows), (QUEUES, QUEUES * MESSAGES + 50));
    let repaired = repair(place.path()).unwrap();
    assert_eq!((repaired.before, repaired.kept), (found, None));
    assert!(fs::read(database_file(place.path())).unwrap() == before);
}

#[test]
fn a_store_that_is_held_or_missing_is_not_looked_over() {
    let place = place();
    let (store, _) = opened(place.path());
    assert_eq!(diagnose(place.path()), Err(OpenError::Locked { pid: Some(std::process::id()) }));
    assert_eq!(repair(place.path()), Err(OpenError::Locked { pid: Some(std::process::id()) }));
    drop(store);
    let empty = TempDir::new().unwrap();
    assert!(matches!(diagnose(empty.path()), Err(OpenError::Missing(_))));
    assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0, "nothing is made");
}

#[test]
fn counters_that_lie_are_counted_anew() {
    let place = place();
    let correct: Vec<_> = opened(place.path()).1.lanes;
    change(
        place.path(),
        "UPDATE lane SET count = count + 7, body_bytes = 1, head = 3, tail = 10, bodies = 5 WHERE number = 1",
    );
    let found = findings(place.path());
    for words in [
        "\"q2\"",
        "the number of messages is noted as 407, and is 400",
        "first position",
        "last position",
        "bytes of bodies",
        "bodies elsewhere",
    ] {
        assert!(found.contains(words), "{found} lacks {words}");
    }
    assert_eq!(number(place.path(), "SELECT count FROM lane WHERE number = 1"), 407, "a diagnosis changes nothing");
    let repaired = repair(place.path()).unwrap();
    assert!(repaired.after.is_sound());
    assert_eq!(opened(place.path()).1.lanes, correct);
    let kept = Connection::open(repaired.kept.unwrap()).unwrap();
    assert_eq!(kept.query_row("SELECT count FROM lane WHERE number = 1", [], |row| row.get::<_, i64>(0)).unwrap(), 407);
    // A tail above the last row and a head below the first are as they may be.
    change(place.path(), "UPDATE lane SET head = 0, tail = 5000 WHERE number = 1");
    assert!(diagnose(place.path()).unwrap().is_sound());
}

#[test]
fn rows_that_are_no_messages_are_listed_and_removed() {
    let place = place();
    let connection = raw(place.path());
    let head: Vec<u8> = connection.query_row("SELECT head FROM message WHERE id = 17", [], |row| row.get(0)).unwrap();
    for (position, at) in [(17, 2), (18, 5), (19, 17)] {
        let mut damaged = head.clone();
        damaged[at] ^= 0xFF;
        connection.execute("UPDATE message SET head = ?2 WHERE id = ?1", params![position, damaged]).unwrap();
    }
    connection.execute("UPDATE message SET body = x'00' WHERE id = 20", []).unwrap();
    connection.execute("UPDATE message SET body = 'text' WHERE id = 21", []).unwrap();
    connection.execute("UPDATE message SET body = 77 WHERE id = 22", []).unwrap();
    drop(connection);
    let found = findings(place.path());
    for position in 17..=22 {
        assert!(found.contains(&format!("\"q1\" of vhost \"/\", level 1: the row at position {position} ")), "{found}");
    }
    assert!(found.contains("names a body that is not there"));
    repaired(place.path());
    let left = keys(place.path());
    assert!((17..=22).all(|key| !left.contains(&key)) && left.contains(&16) && left.contains(&23));
    assert_eq!(number(place.path(), "SELECT count FROM lane WHERE number = 0"), MESSAGES as i64 - 6);
}

#[test]
fn what_belongs_to_nobody_is_listed_and_removed() {
    let place = place();
    let connection = raw(place.path());
    connection
        .execute_batch(
            "INSERT INTO message SELECT 7 << 40 | id, redelivered, expires_at, head, body, stored_at, NULL, NULL FROM message WHERE id = 3;
             INSERT INTO lane VALUES (8, 12345, 0, 0, 0, 1, 1, 5, 0, 0, 0, 0);
             INSERT INTO message SELECT 8 << 40 | 1, redelivered, expires_at, head, body, stored_at, NULL, NULL FROM message WHERE id = 3;
             INSERT INTO binding VALUES ('/', 'amq.topic', 0, 'gone', '#', x'00000000');
             INSERT INTO binding VALUES ('/', 'amq.topic', 1, 'an exchange', '#', x'00000000');
             UPDATE body SET refs = 4 WHERE id = 1;
             INSERT INTO body VALUES (50, 1, 10);
             INSERT INTO chunk VALUES (50 << 16, x'00010203040506070809');
             INSERT INTO chunk VALUES (60 << 16 | 3, x'00');
             DELETE FROM chunk WHERE id = 2 << 16 | 1;",
        )
        .unwrap();
    drop(connection);
    let found = findings(place.path());
    for words in [
        "1 rows belong to the lane 7, which is not there",
        "lane 8 of no queue: 1 rows",
        "\"amq.topic\" has a binding to the queue \"gone\"",
        "body 1: 4 rows are noted to share it, and 1 do",
        "body 50: no row names it",
        "1 chunks belong to the body 60",
        "the row at position 2 names a body of which a part is missing",
        "body 2: no row names it",
    ] {
        assert!(found.contains(words), "{found}\nlacks {words}");
    }
    assert!(!found.contains("an exchange"));
    repaired(place.path());
    assert_eq!(number(place.path(), "SELECT count(*) FROM message WHERE id >> 40 = 7"), 0);
    assert_eq!(number(place.path(), "SELECT dropped FROM lane WHERE number = 8"), 1, "for the broker to erase");
    assert_eq!(number(place.path(), "SELECT count(*) FROM body"), 2);
    assert_eq!(number(place.path(), "SELECT count(*) FROM chunk"), 6);
    assert_eq!(number(place.path(), "SELECT count(*) FROM binding"), QUEUES as i64 + 1);
}

/// What each page is for: table or index, kind, and how many rows it has.
fn pages(directory: &Path) -> BTreeMap<u64, (String, String, u64)> {
    let connection = raw(directory);
    let mut statement = connection.prepare("SELECT pageno, name, pagetype, ncell FROM dbstat").unwrap();
    let page = |row: &rusqlite::Row<'_>| {
        Ok((row.get::<_, i64>(0)? as u64, (row.get(1)?, row.get(2)?, row.get::<_, i64>(3)? as u64)))
    };
    statement.query_map([], page).unwrap().map(Result::unwrap).collect()
}

fn zero(directory: &Path, page: u64) {
    let file = OpenOptions::new().write(true).open(database_file(directory)).unwrap();
    file.write_all_at(&vec![0; PAGE_BYTES as usize], (page - 1) * PAGE_BYTES).unwrap();
}

fn copy_of(original: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    fs::copy(database_file(original), database_file(copy.path())).unwrap();
    copy
}

#[test]
fn whichever_page_is_zeroed_the_others_are_saved() {
    let original = place();
    let (all, pages) = (keys(original.path()), pages(original.path()));
    let count = fs::metadata(database_file(original.path())).unwrap().len() / PAGE_BYTES;
    let leaves = pages.values().filter(|(name, kind, _)| name == "message" && kind == "leaf").count();
    assert!(leaves > 8, "{leaves}");
    for page in 1..=count {
        let place = copy_of(original.path());
        zero(place.path(), page);
        let (name, kind, cells) = pages.get(&page).cloned().unwrap_or_default();
        if page == 1 || name == "sqlite_schema" {
            let OpenError::Store(StoreError::Unusable(why)) = repair(place.path()).unwrap_err() else {
                panic!("another error")
            };
            assert!(why.to_string().contains("what is left is a backup"), "{why}");
            continue;
        }
        if diagnose(place.path()).unwrap().is_sound() {
            // SQLite has no checksums: what a body is made of does not show in the page.
            assert_eq!((name.as_str(), kind.as_str()), ("chunk", "overflow"), "page {page}");
            continue;
        }
        let repaired = repaired(place.path());
        assert!(repaired.kept.is_some_and(|kept| kept.is_file()));
        let left = keys(place.path());
        let lost = all.difference(&left).count() as u64;
        assert!(left.is_subset(&all));
        match (name.as_str(), kind.as_str()) {
            ("message", "leaf") => assert_eq!(lost, cells, "the rows of page {page} and no others"),
            ("message", _) => {}
            // A queue's one message whose body was there.
            ("body" | "chunk", _) => assert!(lost <= QUEUES, "page {page} of {name}: {lost}"),
            _ => assert_eq!(lost, 0, "page {page} of {name:?}"),
        }
    }
}

#[test]
fn messages_whose_queue_is_lost_are_found_in_queues_of_their_own() {
    let original = place();
    for table in ["queue", "lane"] {
        let place = copy_of(original.path());
        let root = number(place.path(), &format!("SELECT rootpage FROM sqlite_schema WHERE name = '{table}'"));
        zero(place.path(), root as u64);
        repaired(place.path());
        let names = "SELECT count(*) FROM v_queues WHERE vhost = '/' AND name GLOB 'salvaged-*' AND messages >= 50";
        // Nobody knows any more that the fourth lane was dropped, when it is the lanes that are lost.
        let expected = if table == "lane" { QUEUES + 1 } else { QUEUES };
        let (store, recovered) = opened(place.path());
        assert_eq!(number(place.path(), names), expected as i64, "{table}");
        let found = recovered.lanes.iter().map(|record| record.state.count).sum::<u64>();
        assert_eq!(found, QUEUES * MESSAGES + if table == "lane" { 50 } else { 0 });
        drop(store);
    }
}

#[test]
fn nothing_that_happens_to_the_bytes_makes_the_doctor_panic_or_lie() {
    let original = place();
    let mut random = Random::new(0x00D0_C701);
    let mut below = move |limit: u64| random.next_u64() % limit;
    let mut mended = 0;
    for round in 0..25 {
        let place = copy_of(original.path());
        let file = OpenOptions::new().write(true).open(database_file(place.path())).unwrap();
        let bytes = file.metadata().unwrap().len();
        for _ in 0..=below(4) {
            let at = below(bytes);
            let garbage: Vec<u8> = (0..=below(200)).map(|_| below(256) as u8).collect();
            file.write_all_at(&garbage, at.min(bytes - garbage.len() as u64)).unwrap();
        }
        drop(file);
        if let Ok(repaired) = repair(place.path()) {
            assert!(repaired.after.is_sound(), "round {round}: {:#?}", repaired.after);
            mended += 1;
        }
    }
    assert!(mended > 12, "only {mended} of 25 could be mended");
}

/// Leaves a row in the redo log, as a kill does; its queue's lane.
fn leave_pending(directory: &Path) -> Lane {
    let (mut store, recovered) = opened(directory);
    let record = recovered.lanes.iter().find(|record| record.lane == lane(1)).unwrap();
    let mut change = inserts(record.lane, [MESSAGES + 1]);
    let body_bytes = change.inserts[0].message.body_len() as u64;
    let LaneState { count, body_bytes: before, .. } = record.state;
    let tail = Position(MESSAGES + 1);
    change.state = LaneState { tail, count: count + 1, body_bytes: before + body_bytes, ..record.state };
    let number = recovered.batch_no.0 + 1;
    assert_eq!(store.commit(&Batch { lanes: vec![change], ..batch(number) }), CommitOutcome::Committed);
    lane(1)
}

#[test]
fn what_waits_in_the_redo_log_is_there_after_a_repair() {
    let counted = place();
    let lane = leave_pending(counted.path());
    change(counted.path(), "UPDATE lane SET count = count + 7");
    // The table `state` has the batch that the redo log follows.
    let damaged = ["message", "state"].map(|table| {
        let place = place();
        leave_pending(place.path());
        let pages = pages(place.path());
        let leaf = pages.iter().rfind(|(_, (name, kind, _))| name == table && kind == "leaf").unwrap();
        // The log of a closed store is empty; the recovery of the next one was written to it.
        raw(place.path()).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        zero(place.path(), *leaf.0);
        place
    });
    for place in [&counted].into_iter().chain(&damaged) {
        let kept = repaired(place.path()).kept.unwrap();
        let mut redo = kept.into_os_string();
        redo.push("-redo");
        assert!(Path::new(&redo).is_file());
        let (store, _) = opened(place.path());
        assert_eq!(rows(&store, lane).last().map(|row| row.position), Some(Position(MESSAGES + 1)));
    }
}

#[test]
fn an_earlier_copy_is_never_overwritten() {
    let place = place();
    for suffix in [".before-repair", ".before-repair-2"] {
        change(place.path(), "UPDATE lane SET count = 1 WHERE number = 1");
        let kept = repair(place.path()).unwrap().kept.unwrap();
        assert!(kept.to_string_lossy().ends_with(&format!("prontomq.sqlite3{suffix}")), "{kept:?}");
    }
}

#[test]
fn rows_that_are_yet_to_be_erased_are_nothing_wrong() {
    let place = place();
    let (mut store, recovered) = opened(place.path());
    let next = recovered.batch_no.0 + 1;
    let lane = lane(1);
    let large = (10_001..=10_002)
        .map(|position| Row { message: message(&body_of(1, 2)), ..inserts(lane, [position]).inserts.remove(0) });
    let mut grown = inserts(lane, 401..=10_000);
    grown.inserts.extend(large);
    let known = recovered.lanes.iter().find(|known| known.lane == lane).unwrap().state;
    let bytes: u64 = grown.inserts.iter().map(|row| row.message.body_len() as u64).sum();
    let tail = Position(10_002);
    grown.state = LaneState { tail, count: 10_002, body_bytes: known.body_bytes + bytes, ..known };
    assert_eq!(store.commit(&Batch { lanes: vec![grown], ..batch(next) }), CommitOutcome::Committed);
    let mut gone = inserts(lane, []);
    gone.remove_ranges = vec![PositionRange { from: Position(401), to: tail }];
    gone.state = LaneState { tail, ..known };
    assert_eq!(store.commit(&Batch { lanes: vec![gone], ..batch(next + 1) }), CommitOutcome::Committed);
    Box::new(store).close().unwrap();
    assert_eq!(number(place.path(), "SELECT count(*) FROM erasing"), 1);
    assert!(number(place.path(), "SELECT count(*) FROM message") > 10_000);
    let diagnosis = diagnose(place.path()).unwrap();
    assert!(diagnosis.findings.is_empty(), "{:?}", diagnosis.findings);
    assert_eq!(number(place.path(), "SELECT count(*) FROM v_messages WHERE queue = 'q1'"), 400);
}
