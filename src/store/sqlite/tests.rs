//! The contract, and what only a file can show: locks, copies, damage and newer schemas.

use super::opening;
use super::runtime::block_on;
use super::{SqliteSettings, SqliteStore};
use crate::model::{Message, Position, WallMillis};
use crate::store::contract::{
    StoreLocation, batch, change, contract_tests, inserts, lane, large, message, positions, with_message,
};
use crate::store::{
    Backup, Batch, BatchNo, CommitOutcome, LaneChange, LaneRecord, LaneState, LoadRequest, Maintenance, OpenError,
    POSITION_MAX, PositionRange, ReadError, Store, StoreError,
};
use rusqlite::params;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

impl StoreLocation for TempDir {
    fn open(&self) -> Box<dyn Store> {
        Box::new(open_in(self.path()).unwrap())
    }
}

contract_tests!(TempDir::new().unwrap());

fn open_in(directory: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(&SqliteSettings::new(directory))
}

fn error_in(directory: &Path) -> OpenError {
    open_in(directory).err().expect("the store must not open")
}

fn raw(directory: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(directory.join("prontomq.sqlite3")).unwrap()
}

#[test]
fn a_live_holder_is_named_and_a_dead_one_does_not_matter() {
    let place = TempDir::new().unwrap();
    let store = open_in(place.path()).unwrap();
    assert_eq!(error_in(place.path()), OpenError::Locked { pid: Some(std::process::id()) });
    drop(store);
    // What a killed process leaves behind, be its number that of a living one.
    fs::write(place.path().join("prontomq.lock"), "1\n").unwrap();
    let store = open_in(place.path()).unwrap();
    assert_eq!(fs::read_to_string(place.path().join("prontomq.lock")).unwrap(), format!("{}\n", std::process::id()));
    drop(store);
}

#[cfg(unix)]
#[test]
fn a_data_directory_is_made_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = TempDir::new().unwrap();
    let directory = place.path().join("new/data");
    drop(open_in(&directory).unwrap());
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_row_beyond_the_last_position_is_refused_and_not_squeezed_in() {
    let place = TempDir::new().unwrap();
    let mut store = open_in(place.path()).unwrap();
    store.recover().unwrap();
    let outcome = store.commit(&Batch { lanes: vec![inserts(lane(1), [POSITION_MAX.0 + 1])], ..batch(1) });
    assert!(matches!(outcome, CommitOutcome::Fatal(_)), "{outcome:?}");
    assert_eq!(positions(&store, lane(1)), [0; 0]);
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let place = TempDir::new().unwrap();
    drop(open_in(place.path()).unwrap());
    let add = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
               VALUES (7, 'later', 1, x'00', 0)";
    raw(place.path()).execute(add, []).unwrap();
    assert_eq!(error_in(place.path()), OpenError::NewerSchema { found: 7, known: opening::SCHEMAS.len() as i64 });
}

/// A file as version 1 left it: its script alone, and rows as it wrote them.
fn file_of_schema_1(directory: &Path) {
    let file = directory.join("prontomq.sqlite3");
    block_on(async {
        let opening = opening::Opening::new(file, &SqliteSettings::new(directory));
        let mut connection = opening.connect(1 << 20).await.unwrap();
        opening::run(&mut connection, &opening::SCHEMAS[..1]).await.unwrap();
    });
    let connection = raw(directory);
    connection.execute("INSERT INTO lane VALUES (4, 1, 0, 0, 1, 3, 3, 5021, 2, 0)", []).unwrap();
    for (position, message) in (1..).zip(messages_of_schema_1()) {
        let values =
            params![(4_i64 << 40) | position, message.head_bytes(), message.large_body().map(|body| body.as_slice())];
        connection.execute("INSERT INTO message VALUES (?1, 0, 77, ?2, ?3)", values).unwrap();
    }
    connection.execute("INSERT INTO queue VALUES (1, '/', 'old', 0, x'00000000')", []).unwrap();
    connection.execute("UPDATE state SET boot = 3, batch_no = 9", []).unwrap();
}

fn messages_of_schema_1() -> [Message; 3] {
    ["a small one".to_owned(), "x".repeat(5_000), "the last".to_owned()].map(|body| message(&body))
}

#[test]
fn an_older_schema_is_migrated_with_everything_in_it_after_a_copy() {
    let place = TempDir::new().unwrap();
    file_of_schema_1(place.path());
    let mut store = open_in(place.path()).unwrap();
    let recovered = store.recover().unwrap();
    assert_eq!((recovered.batch_no, recovered.boot, recovered.queues.len()), (BatchNo(9), 4, 1));
    let state =
        LaneState { head: Position(1), tail: Position(3), count: 3, body_bytes: 5_021, lent_ceiling: Position(2) };
    assert_eq!(recovered.lanes, [LaneRecord { lane: lane(1), state }]);
    let everything = PositionRange { from: Position(0), to: POSITION_MAX };
    let rows =
        store.reader().unwrap().load(LoadRequest::new(lane(1), everything, usize::MAX, usize::MAX)).unwrap().rows;
    assert!(rows.iter().all(|row| row.expires_at == Some(WallMillis(77))));
    let found: Vec<_> = rows.into_iter().map(|row| row.message).collect();
    assert_eq!(found, messages_of_schema_1());
    assert_eq!(store.commit(&Batch { lanes: vec![inserts(lane(1), [4])], ..batch(10) }), CommitOutcome::Committed);
    Box::new(store).close().unwrap();
    let stored_at = |position: i64| -> Option<i64> {
        let statement = "SELECT stored_at FROM message WHERE id = ?1";
        raw(place.path()).query_row(statement, [(4_i64 << 40) | position], |row| row.get(0)).unwrap()
    };
    assert_eq!(stored_at(3), None, "nobody knows when that was");
    assert!(stored_at(4).is_some_and(|at| at > 1_600_000_000_000));

    // The copy is what it was before, and what its version could go on with.
    let kept = rusqlite::Connection::open(place.path().join("prontomq.sqlite3.schema-1.backup")).unwrap();
    let number = |statement: &str| kept.query_row(statement, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(number("SELECT max(version) FROM _sqlx_migrations"), 1);
    assert_eq!(number("SELECT count(*) FROM message"), 3);
    assert_eq!(number("SELECT count(*) FROM pragma_table_info('message')"), 5);
    assert_eq!(kept.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
    assert!(!place.path().join("prontomq.sqlite3.schema-1.backup.partial").exists());
}

#[test]
fn a_file_that_cannot_be_copied_is_not_migrated() {
    let place = TempDir::new().unwrap();
    file_of_schema_1(place.path());
    // A folder is in the way.
    fs::create_dir(place.path().join("prontomq.sqlite3.schema-1.backup")).unwrap();
    let OpenError::Store(StoreError::Unusable(why)) = error_in(place.path()) else { panic!("another error") };
    assert!(why.to_string().contains("schema-1.backup"), "{why}");
    let columns = "SELECT count(*) FROM pragma_table_info('message')";
    assert_eq!(raw(place.path()).query_row(columns, [], |row| row.get::<_, i64>(0)).unwrap(), 5);
}

#[test]
fn the_file_is_laid_out_as_intended() {
    let place = TempDir::new().unwrap();
    let store = open_in(place.path()).unwrap();
    let pragma = |name: &str| -> i64 { raw(place.path()).pragma_query_value(None, name, |row| row.get(0)).unwrap() };
    assert_eq!((pragma("page_size"), pragma("auto_vacuum")), (16_384, 2));
    let own = |name: &str| -> String {
        let read = |connection: &rusqlite::Connection| {
            connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0)).unwrap()
        };
        format!("{:?}", store.connection.as_ref().unwrap().with(read))
    };
    assert_eq!(own("synchronous"), "Integer(2)");
    assert_eq!(own("journal_mode"), "Text(\"wal\")");
    assert_eq!(own("cache_size"), "Integer(-12288)");
}

#[test]
fn the_log_is_moved_into_the_file_once_it_has_so_many_pages() {
    let place = TempDir::new().unwrap();
    let mut store =
        SqliteStore::open(&SqliteSettings { checkpoint_pages: 40..=40, ..SqliteSettings::new(place.path()) }).unwrap();
    store.recover().unwrap();
    for number in 1..=400 {
        assert_eq!(
            store.commit(&Batch { lanes: vec![inserts(lane(1), [number])], ..batch(number) }),
            CommitOutcome::Committed
        );
    }
    let log = fs::metadata(place.path().join("prontomq.sqlite3-wal")).unwrap().len();
    assert!((16_384..60 * 16_408).contains(&log), "{log} bytes");
}

#[test]
fn a_failed_flush_is_made_up_for_by_the_next_start() {
    let place = TempDir::new().unwrap();
    let mut store = open_in(place.path()).unwrap();
    store.recover().unwrap();
    store.commit(&Batch { lanes: vec![inserts(lane(1), [1])], ..batch(1) });
    store.directory.note_unflushed();
    drop(store);
    assert!(place.path().join("prontomq.unflushed").exists());
    let mut store = open_in(place.path()).unwrap();
    assert!(!place.path().join("prontomq.unflushed").exists());
    assert_eq!(store.recover().unwrap().batch_no, BatchNo(1));
    assert_eq!(positions(&store, lane(1)), [1]);
}

#[test]
fn a_batch_stays_known_when_the_lane_that_it_wrote_is_gone() {
    let place = TempDir::new().unwrap();
    let mut store = open_in(place.path()).unwrap();
    store.recover().unwrap();
    let both = Batch { lanes: vec![inserts(lane(1), [1])], drop_lanes: vec![lane(1)], ..batch(1) };
    assert_eq!(store.commit(&both), CommitOutcome::Committed);
    while store.erase(100).unwrap() {}
    assert_eq!(raw(place.path()).query_row("SELECT count(*) FROM lane", [], |row| row.get::<_, i64>(0)), Ok(0));
    assert_eq!(store.reopen().unwrap(), BatchNo(1));
}

#[test]
fn something_else_in_the_file_is_refused() {
    let place = TempDir::new().unwrap();
    fs::write(
        place.path().join("prontomq.sqlite3"),
        "this is no database, and long enough to be looked at".repeat(100),
    )
    .unwrap();
    assert!(matches!(error_in(place.path()), OpenError::Store(StoreError::Damaged(_))));
}

#[test]
fn a_copy_taken_at_any_moment_holds_whole_batches() {
    let place = TempDir::new().unwrap();
    let mut store = open_in(place.path()).unwrap();
    store.recover().unwrap();
    for number in 1..=12 {
        let lanes = vec![inserts(lane(1), number * 10..number * 10 + 10), inserts(lane(number), [1])];
        assert_eq!(store.commit(&Batch { lanes, ..batch(number) }), CommitOutcome::Committed);

        let copy = TempDir::new().unwrap();
        for name in ["prontomq.sqlite3", "prontomq.sqlite3-wal"] {
            fs::copy(place.path().join(name), copy.path().join(name)).unwrap();
        }
        let mut copied = open_in(copy.path()).unwrap();
        let recovered = copied.recover().unwrap();
        assert_eq!((recovered.batch_no, recovered.clean), (BatchNo(number), false));
        assert_eq!(positions(&copied, lane(1)).len() as u64, number * 10 + 1);
        drop(copied);
    }

    // The log cut short in the middle of its last batch: that batch is gone, whole, and no other.
    let copy = TempDir::new().unwrap();
    fs::copy(place.path().join("prontomq.sqlite3"), copy.path().join("prontomq.sqlite3")).unwrap();
    let log = fs::read(place.path().join("prontomq.sqlite3-wal")).unwrap();
    fs::write(copy.path().join("prontomq.sqlite3-wal"), &log[..log.len() - 100]).unwrap();
    let mut copied = open_in(copy.path()).unwrap();
    assert_eq!(copied.recover().unwrap().batch_no, BatchNo(11));
    assert_eq!(positions(&copied, lane(12)), [0; 0]);
    assert_eq!(positions(&copied, lane(1)).len(), 111);
}

const CHILD_DIRECTORY: &str = "PRONTOMQ_TEST_STORE_DIRECTORY";

#[test]
#[ignore = "the child of the next test, which kills it"]
fn commits_until_killed() {
    let directory = std::env::var_os(CHILD_DIRECTORY).expect("its parent names the directory");
    let mut store = open_in(Path::new(&directory)).unwrap();
    let first = store.recover().unwrap().batch_no.0 + 1;
    for number in first.. {
        let removes = LaneChange { removes: vec![Position(number * 10)], ..change(lane(1)) };
        let lanes = vec![inserts(lane(1), number * 10..number * 10 + 4), removes];
        assert_eq!(store.commit(&Batch { lanes, ..batch(number) }), CommitOutcome::Committed);
        println!("stored {number}");
    }
}

#[test]
fn what_was_committed_survives_kills_and_nothing_else_does() {
    let place = TempDir::new().unwrap();
    let mut printed = 0;
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "store::sqlite::tests::commits_until_killed"])
            .env(CHILD_DIRECTORY, place.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let enough = printed + 40;
        while printed < enough {
            printed = number_in(&lines.next().expect("the child goes on").unwrap()).unwrap_or(printed);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it printed since the last look.
        printed = lines.filter_map(|line| number_in(&line.ok()?)).last().unwrap_or(printed);

        let mut store = open_in(place.path()).unwrap();
        let recovered = store.recover().unwrap();
        assert!(!recovered.clean, "round {round}");
        let last = recovered.batch_no.0;
        assert!(last == printed || last == printed + 1, "printed {printed}, found {last}");
        let expected: Vec<_> = (1..=last).flat_map(|number| number * 10 + 1..number * 10 + 4).collect();
        assert_eq!(positions(&store, lane(1)), expected);
        printed = last;
        drop(store);
    }
}

fn number_in(line: &str) -> Option<u64> {
    // The test harness writes into the same line now and then.
    line.split_once("stored ")?.1.parse().ok()
}

/// A limit on pages is what a full disk is to SQLite.
fn limit_pages(store: &SqliteStore, pages: i64) {
    let set = |connection: &rusqlite::Connection| {
        connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |row| row.get::<_, i64>(0)).unwrap()
    };
    store.connection.as_ref().unwrap().with(set);
}

#[test]
fn a_full_disk_commits_nothing_and_the_same_batch_goes_through_later() {
    let place = TempDir::new().unwrap();
    let mut store = open_in(place.path()).unwrap();
    store.recover().unwrap();
    store.commit(&Batch { lanes: vec![inserts(lane(1), 1..=3)], ..batch(1) });
    limit_pages(&store, 1);
    let large = Batch {
        lanes: vec![inserts(lane(2), 1..=5_000), inserts(lane(1), [4])],
        drop_lanes: vec![lane(1)],
        ..batch(2)
    };
    assert!(matches!(store.commit(&large), CommitOutcome::NotCommitted(_)));
    assert_eq!(positions(&store, lane(1)), [1, 2, 3]);
    assert_eq!(positions(&store, lane(2)), [0; 0]);
    limit_pages(&store, 1_000_000);
    assert_eq!(store.commit(&large), CommitOutcome::Committed);
    assert_eq!(positions(&store, lane(2)).len(), 5_000);
    assert_eq!(positions(&store, lane(1)), [0; 0]);
    assert_eq!(Box::new(store).close(), Ok(()));
}

/// Whole pages: SQLite has no checksums that would show damage within one.
fn damage_second_half(directory: &Path) {
    let file = directory.join("prontomq.sqlite3");
    let mut bytes = fs::read(&file).unwrap();
    let half = bytes.len() / 2 / 16_384 * 16_384;
    bytes[half..].fill(0xA5);
    fs::write(&file, bytes).unwrap();
}

#[test]
fn damage_is_fatal_to_the_writer_and_told_by_the_reader() {
    let place = TempDir::new().unwrap();
    let mut store = open_in(place.path()).unwrap();
    store.recover().unwrap();
    store.commit(&Batch { lanes: vec![inserts(lane(1), 1..=20_000)], ..batch(1) });
    Box::new(store).close().unwrap();
    damage_second_half(place.path());

    let mut store = open_in(place.path()).unwrap();
    store.recover().unwrap();
    let everything = PositionRange { from: Position(0), to: POSITION_MAX };
    let read = store.reader().unwrap().load(LoadRequest::new(lane(1), everything, usize::MAX, usize::MAX));
    assert!(matches!(read, Err(ReadError::Failed(_))), "{} rows", read.map_or(0, |loaded| loaded.rows.len()));
    let range = PositionRange { from: Position(17_000), to: Position(19_000) };
    let removes = LaneChange { remove_ranges: vec![range], ..change(lane(1)) };
    // The redo log has it; the file does not take it.
    assert_eq!(store.commit(&Batch { lanes: vec![removes], ..batch(2) }), CommitOutcome::Committed);
    let outcome = store.commit(&Batch { lanes: vec![inserts(lane(1), 20_001..=20_100)], ..batch(3) });
    assert!(matches!(outcome, CommitOutcome::Fatal(_)), "{outcome:?}");
}

/// Bodies, chunks, and what lanes say of them.
fn bodies_in(directory: &Path) -> (i64, i64, i64) {
    let connection = raw(directory);
    let number = |statement: &str| connection.query_row(statement, [], |row| row.get::<_, i64>(0)).unwrap();
    let wrong = "SELECT count(*) FROM body WHERE refs != (SELECT count(*) FROM message WHERE body = body.id \
                 AND typeof(body) = 'integer')";
    assert_eq!(number(wrong), 0, "references");
    let wrong = "SELECT count(*) FROM lane WHERE bodies != (SELECT count(*) FROM message WHERE id >> 40 = number \
                 AND typeof(body) = 'integer')";
    assert_eq!(number(wrong), 0, "lanes");
    let orphans = "SELECT count(*) FROM chunk WHERE id >> 16 NOT IN (SELECT id FROM body)";
    assert_eq!(number(orphans), 0, "chunks without a body");
    let rows = "SELECT coalesce(sum(bodies), 0) FROM lane";
    (number("SELECT count(*) FROM body"), number("SELECT count(*) FROM chunk"), number(rows))
}

#[test]
fn bodies_are_written_once_and_erased_with_their_last_row() {
    let place = TempDir::new().unwrap();
    let mut store = open_in(place.path()).unwrap();
    store.recover().unwrap();
    let commit = |store: &mut SqliteStore, batch: Batch| {
        assert_eq!(store.commit(&batch), CommitOutcome::Committed);
        store.require_moved().unwrap();
        bodies_in(place.path())
    };
    let (inline, shared, chunked) = (large(1, 60_000), large(2, 60_000), large(3, 200_000));
    let lanes = vec![
        with_message(lane(1), &[1], &inline),
        with_message(lane(1), &[2], &shared),
        with_message(lane(2), &[1, 2], &shared),
        with_message(lane(2), &[3], &chunked),
        with_message(lane(3), &[3], &chunked),
        inserts(lane(4), 1..=10),
    ];
    assert_eq!(commit(&mut store, Batch { lanes, ..batch(1) }), (2, 1 + 4, 5));
    let lanes = vec![LaneChange { remove_below: Some(Position(3)), ..change(lane(2)) }];
    assert_eq!(commit(&mut store, Batch { lanes, ..batch(2) }), (2, 5, 3));
    // In a later batch it is another body.
    assert_eq!(
        commit(&mut store, Batch { lanes: vec![with_message(lane(4), &[11], &chunked)], ..batch(3) }),
        (3, 9, 4)
    );
    let lanes = vec![LaneChange { removes: vec![Position(2)], ..change(lane(1)) }];
    assert_eq!(commit(&mut store, Batch { lanes, ..batch(4) }), (2, 8, 3));
    assert_eq!(commit(&mut store, Batch { drop_lanes: vec![lane(2), lane(4)], ..batch(5) }), (2, 8, 3));
    while store.erase(3).unwrap() {}
    assert_eq!(bodies_in(place.path()), (1, 4, 1));
    let range = PositionRange { from: Position(0), to: Position(3) };
    let lanes = vec![LaneChange { remove_ranges: vec![range], ..change(lane(3)) }];
    assert_eq!(commit(&mut store, Batch { lanes, ..batch(6) }), (0, 0, 0));
}

#[test]
fn a_body_with_a_missing_chunk_is_damage() {
    let place = TempDir::new().unwrap();
    let mut store = open_in(place.path()).unwrap();
    store.recover().unwrap();
    store.commit(&Batch { lanes: vec![with_message(lane(1), &[1], &large(3, 200_000))], ..batch(1) });
    raw(place.path()).execute("DELETE FROM chunk WHERE id & 65535 = 2", []).unwrap();
    let everything = PositionRange { from: Position(0), to: POSITION_MAX };
    let read = store.reader().unwrap().load(LoadRequest::new(lane(1), everything, usize::MAX, usize::MAX));
    assert!(matches!(&read, Err(ReadError::Failed(why)) if why.to_string().contains("position 1")), "{read:?}");
}

#[test]
fn a_copy_taken_in_steps_holds_what_is_committed_between_them_and_pins_no_log() {
    let place = TempDir::new().unwrap();
    let mut store = open_in(place.path()).unwrap();
    store.recover().unwrap();
    store.commit(&Batch { lanes: vec![inserts(lane(1), 1..=5_000)], ..batch(1) });
    let copy = TempDir::new().unwrap();
    store.begin_copy(&copy.path().join("prontomq.sqlite3")).unwrap();
    let (mut number, mut copied) = (1, 0);
    loop {
        let progress = store.step_copy(2).unwrap();
        assert!(progress.pages_copied > copied, "it began anew after batch {number}");
        copied = progress.pages_copied;
        if progress.is_done {
            break;
        }
        number += 1;
        // Rows behind and before what is copied already; a new page from time to time.
        let removes = LaneChange { removes: vec![Position(number), Position(5_000 - number)], ..change(lane(1)) };
        let lanes = vec![removes, inserts(lane(number), 1..=3)];
        assert_eq!(store.commit(&Batch { lanes, ..batch(number) }), CommitOutcome::Committed);
        let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
        let is_busy =
            |connection: &rusqlite::Connection| connection.query_row(checkpoint, [], |row| row.get::<_, bool>(0));
        assert!(!store.connection.as_ref().unwrap().with(is_busy).unwrap(), "a read is open");
    }
    assert!(number > 10, "too few steps to show anything");
    assert!(store.step_copy(1).is_err(), "it is closed");
    let mut copied = open_in(copy.path()).unwrap();
    assert_eq!(copied.recover().unwrap().batch_no, BatchNo(number));
    for of in 1..=number {
        assert_eq!(positions(&copied, lane(of)), positions(&store, lane(of)));
    }
}

#[test]
fn reopening_gives_a_copy_up() {
    let place = TempDir::new().unwrap();
    let mut store = open_in(place.path()).unwrap();
    store.recover().unwrap();
    store.begin_copy(&place.path().join("copy")).unwrap();
    store.reopen().unwrap();
    assert!(store.step_copy(1).is_err());
    Box::new(store).close().unwrap();
}

#[test]
fn the_store_opens_on_a_runtimes_thread() {
    let place = TempDir::new().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut store = open_in(place.path()).unwrap();
        store.recover().unwrap();
        Box::new(store).close().unwrap();
    });
}

#[test]
fn a_file_that_is_mostly_free_shrinks() {
    let place = TempDir::new().unwrap();
    let mut store = open_in(place.path()).unwrap();
    store.recover().unwrap();
    let body = "x".repeat(4_000);
    for number in 1..=30_u64 {
        let mut change = inserts(lane(1), number * 1_000..(number + 1) * 1_000);
        for row in &mut change.inserts {
            row.message = message(&body);
        }
        assert_eq!(store.commit(&Batch { lanes: vec![change], ..batch(number) }), CommitOutcome::Committed);
    }
    store.commit(&Batch { drop_lanes: vec![lane(1)], ..batch(31) });
    while store.erase(5_000).unwrap() {}
    Box::new(store).close().unwrap();
    let bytes = fs::metadata(place.path().join("prontomq.sqlite3")).unwrap().len();
    assert!(bytes < 70 << 20, "{bytes} bytes are left");
}
