//! What every store promises, as tests that each implementation runs.

use super::{
    Batch, BatchNo, BindingRecord, CommitOutcome, Destination, ExchangeRecord, LaneChange, LaneRecord, LaneState,
    LoadRequest, Loaded, POSITION_MAX, PositionRange, QueueRecord, Recovered, Row, Store, TopologyChange, UserRecord,
    VhostRecord,
};
use crate::model::{Lane, Message, Name, Position, QueueId, WallMillis};
use crate::wire::properties::Properties;

/// A place where stores are opened one after the other: a directory, or a piece of memory.
pub(super) trait Place {
    /// Opens a store where the last one left off, or an empty one.
    fn open(&self) -> Box<dyn Store>;

    /// Whether what a store was given outlives it. Where nothing does, promises are kept as long as the store is there.
    fn outlives_stores(&self) -> bool {
        true
    }
}

/// Makes one test per promise, for the place that `$make` makes; of a store that forgets, only for the promises that it
/// gives: it has lanes, and neither topology nor anything that is erased later.
macro_rules! contract_tests {
    ($make:expr) => {
        $crate::store::contract::contract_tests!($make; of what forgets);
        $crate::store::contract::contract_tests!($make;
            lanes_are_found_with_their_last_state,
            dropped_lanes_are_erased_in_slices,
            a_good_stop_is_told_from_a_bad_one,
            the_cluster_has_one_id_for_life,
            bodies_go_with_dropped_lanes,
            topology_comes_back_as_it_was_put,
            bindings_are_told_apart_by_their_arguments,
            deleted_topology_is_gone,
        );
    };
    ($make:expr; of what forgets) => {
        $crate::store::contract::contract_tests!($make;
            rows_come_back_in_order_and_complete,
            a_load_stops_at_its_limits_and_goes_on_behind,
            removes_take_what_they_name_and_nothing_else,
            rows_inserted_and_removed_in_one_batch_are_gone,
            a_dropped_lane_is_empty_at_once_and_its_name_is_free,
            deleting_a_queue_drops_all_its_lanes,
            deleting_a_queue_takes_what_its_batch_writes_too,
            a_batch_that_is_stored_is_committed_again_without_effect,
            a_reader_knows_the_last_batch_it_sees,
            large_bodies_survive,
            a_body_shared_by_rows_lasts_as_long_as_one_of_them,
            bodies_are_told_apart_by_message,
            the_largest_bodies_survive,
            long_ranges_are_gone_at_once,
            extreme_numbers_survive,
            reopening_keeps_everything,
            ten_thousand_lanes_are_kept_apart,
        );
    };
    ($make:expr; $($promise:ident,)*) => {
        $(#[test]
        fn $promise() {
            $crate::store::contract::$promise(&$make);
        })*
    };
}
pub(super) use contract_tests;

pub(super) fn lane(queue: u64) -> Lane {
    Lane { queue: QueueId(queue), level: 0, generation: 0 }
}

pub(super) fn message(text: &str) -> Message {
    message_of(text.as_bytes().to_vec())
}

fn message_of(body: Vec<u8>) -> Message {
    let properties = Properties::check(&[0x10, 0, 2]).expect("delivery mode 2");
    Message::with_body(b"", b"key", &properties, body)
}

pub(super) fn row(position: u64) -> Row {
    let message = message(&format!("row {position}"));
    Row { position: Position(position), redelivered: false, expires_at: None, place: None, message }
}

pub(super) fn change(lane: Lane) -> LaneChange {
    LaneChange {
        lane,
        inserts: Vec::new(),
        remove_below: None,
        remove_ranges: Vec::new(),
        removes: Vec::new(),
        state: LaneState::default(),
    }
}

pub(super) fn inserts(lane: Lane, positions: impl IntoIterator<Item = u64>) -> LaneChange {
    LaneChange { inserts: positions.into_iter().map(row).collect(), ..change(lane) }
}

pub(super) fn batch(number: u64) -> Batch {
    Batch { batch_no: BatchNo(number), topology: Vec::new(), lanes: Vec::new(), drop_lanes: Vec::new() }
}

/// Brings a batch to its outcome, as the writer's driver does.
#[track_caller]
fn commit(store: &mut dyn Store, batch: &Batch) {
    for _ in 0..TRIES_MAX {
        let is_known = match store.commit(batch) {
            CommitOutcome::Committed => return,
            CommitOutcome::NotCommitted(_) => true,
            CommitOutcome::Unknown(_) => false,
            outcome => panic!("{outcome:?}"),
        };
        if !is_known && reopen(store) >= batch.batch_no {
            return;
        }
    }
    panic!("the batch is not committed in {TRIES_MAX} tries");
}

/// Tried again when the store does not answer.
#[track_caller]
fn reopen(store: &mut dyn Store) -> BatchNo {
    (0..TRIES_MAX).find_map(|_| store.reopen().ok()).expect("it opens in some tries")
}

const TRIES_MAX: u32 = 100;

#[track_caller]
fn commit_lanes(store: &mut dyn Store, number: u64, lanes: Vec<LaneChange>) {
    commit(store, &Batch { lanes, ..batch(number) });
}

const EVERYTHING: PositionRange = PositionRange { from: Position(0), to: POSITION_MAX };

/// Whether more is left.
fn erase(store: &mut dyn Store, rows: usize) -> bool {
    store.maintenance().is_some_and(|store| store.erase(rows).unwrap())
}

fn load(store: &dyn Store, lane: Lane) -> Loaded {
    store.reader().unwrap().load(LoadRequest::new(lane, EVERYTHING, usize::MAX, usize::MAX)).unwrap()
}

pub(super) fn positions(store: &dyn Store, lane: Lane) -> Vec<u64> {
    load(store, lane).rows.iter().map(|row| row.position.0).collect()
}

fn open(place: &dyn Place) -> (Box<dyn Store>, Recovered) {
    let mut store = place.open();
    let recovered = store.recover().unwrap();
    (store, recovered)
}

fn reopened(store: Box<dyn Store>, place: &dyn Place) -> (Box<dyn Store>, Recovered) {
    store.close().unwrap();
    open(place)
}

/// The store after a restart, if there is a store then.
fn restarted(store: Box<dyn Store>, place: &dyn Place) -> Box<dyn Store> {
    if place.outlives_stores() { reopened(store, place).0 } else { store }
}

/// The same, with these lanes.
#[track_caller]
fn restarted_with(store: Box<dyn Store>, place: &dyn Place, lanes: &[LaneRecord]) -> Box<dyn Store> {
    if !place.outlives_stores() {
        return store;
    }
    let (store, recovered) = reopened(store, place);
    assert_eq!(sorted(recovered.lanes), sorted(lanes.to_vec()));
    store
}

fn empty_states(lanes: &[Lane]) -> Vec<LaneRecord> {
    lanes.iter().map(|lane| LaneRecord { lane: *lane, state: LaneState::default() }).collect()
}

pub(super) fn rows_come_back_in_order_and_complete(place: &dyn Place) {
    let (mut store, _) = open(place);
    let special = Row { redelivered: true, expires_at: Some(WallMillis(1_234_567)), ..row(7) };
    let change = LaneChange { inserts: vec![row(1), row(2), special], ..change(lane(1)) };
    commit_lanes(store.as_mut(), 1, vec![change, inserts(lane(2), [5])]);
    commit_lanes(store.as_mut(), 2, vec![inserts(lane(1), [9, 10])]);

    let loaded = load(store.as_ref(), lane(1));
    let flags: Vec<_> = loaded.rows.iter().map(|row| (row.position.0, row.redelivered, row.expires_at)).collect();
    let expires_at = Some(WallMillis(1_234_567));
    let expected = [(1, false, None), (2, false, None), (7, true, expires_at), (9, false, None), (10, false, None)];
    assert_eq!(flags, expected);
    assert!(loaded.rows.iter().all(|found| found.message == row(found.position.0).message));
    assert_eq!(positions(store.as_ref(), lane(2)), [5]);
    assert_eq!(positions(store.as_ref(), lane(3)), [0; 0]);
}

pub(super) fn a_load_stops_at_its_limits_and_goes_on_behind(place: &dyn Place) {
    let (mut store, _) = open(place);
    commit_lanes(store.as_mut(), 1, vec![inserts(lane(1), (1..=20).map(|at| at * 3))]);
    let mut reader = store.reader().unwrap();
    let mut found = |from: u64, to: u64, rows_max, bytes_max| -> Vec<u64> {
        let range = PositionRange { from: Position(from), to: Position(to) };
        let loaded = reader.load(LoadRequest::new(lane(1), range, rows_max, bytes_max)).unwrap();
        loaded.rows.iter().map(|row| row.position.0).collect()
    };
    assert_eq!(found(0, 100, 3, usize::MAX), [3, 6, 9]);
    assert_eq!(found(10, 100, 2, usize::MAX), [12, 15]);
    assert_eq!(found(7, 15, 10, usize::MAX), [9, 12, 15]);
    assert_eq!(found(0, 100, 10, 1), [3], "one row at least");
    let size = row(3).message.head_bytes().len();
    assert_eq!(found(0, 8, 10, size + 1), [3, 6]);
    assert_eq!(found(61, 100, 10, usize::MAX), [0; 0]);
    assert_eq!(found(58, u64::MAX, 10, usize::MAX), [60], "to the end");
    assert_eq!(found(9, 8, 10, usize::MAX), [0; 0], "no range");
}

pub(super) fn removes_take_what_they_name_and_nothing_else(place: &dyn Place) {
    let (mut store, _) = open(place);
    let everything = || (1..=30).filter(|at| at % 7 != 0);
    let neighbours = [lane(0), lane(2), Lane { level: 1, ..lane(1) }, Lane { generation: 1, ..lane(1) }];
    let mut lanes: Vec<_> = neighbours.iter().map(|lane| inserts(*lane, everything())).collect();
    lanes.push(inserts(lane(1), everything()));
    commit_lanes(store.as_mut(), 1, lanes);

    let removes = LaneChange {
        remove_below: Some(Position(5)),
        remove_ranges: vec![
            PositionRange { from: Position(9), to: Position(10) },
            PositionRange { from: Position(13), to: Position(15) },
            PositionRange { from: Position(20), to: Position(19) },
        ],
        // 21 is a hole, 99 never was.
        removes: vec![Position(6), Position(21), Position(30), Position(99)],
        ..change(lane(1))
    };
    commit_lanes(store.as_mut(), 2, vec![removes]);
    let left: Vec<u64> = everything().filter(|at| ![1, 2, 3, 4, 6, 9, 10, 13, 15, 30].contains(at)).collect();
    assert_eq!(positions(store.as_ref(), lane(1)), left);
    for neighbour in neighbours {
        assert_eq!(positions(store.as_ref(), neighbour), everything().collect::<Vec<_>>(), "{neighbour:?}");
    }
    let nothing = LaneChange { remove_below: Some(Position(0)), ..change(lane(1)) };
    commit_lanes(store.as_mut(), 3, vec![nothing]);
    assert_eq!(positions(store.as_ref(), lane(1)), left);
    let everything_there = LaneChange { remove_below: Some(Position(u64::MAX)), ..change(lane(1)) };
    commit_lanes(store.as_mut(), 4, vec![everything_there]);
    assert_eq!(positions(store.as_ref(), lane(1)), [0; 0]);
    assert_eq!(positions(store.as_ref(), lane(2)), everything().collect::<Vec<_>>());
}

pub(super) fn rows_inserted_and_removed_in_one_batch_are_gone(place: &dyn Place) {
    let (mut store, _) = open(place);
    let change = LaneChange { removes: vec![Position(2)], ..inserts(lane(1), 1..=3) };
    let again = LaneChange { remove_below: Some(Position(2)), ..self::change(lane(1)) };
    commit_lanes(store.as_mut(), 1, vec![change, again]);
    assert_eq!(positions(store.as_ref(), lane(1)), [3]);
}

fn state(seed: u64) -> LaneState {
    LaneState {
        head: Position(seed),
        tail: Position(seed + 10),
        count: seed + 20,
        body_bytes: seed + 30,
        lent_ceiling: Position(seed + 40),
    }
}

fn sorted(mut lanes: Vec<LaneRecord>) -> Vec<LaneRecord> {
    lanes.sort_by_key(|record| record.lane);
    lanes
}

pub(super) fn lanes_are_found_with_their_last_state(place: &dyn Place) {
    let (mut store, _) = open(place);
    let other = Lane { queue: QueueId(u64::MAX), level: 255, generation: u32::MAX };
    let change = |lane, seed| LaneChange { state: state(seed), ..inserts(lane, [seed]) };
    commit_lanes(store.as_mut(), 1, vec![change(lane(1), 1), change(other, 2)]);
    commit_lanes(store.as_mut(), 2, vec![change(lane(1), 3), change(lane(1), 4)]);
    let (_, recovered) = reopened(store, place);
    let expected = [LaneRecord { lane: lane(1), state: state(4) }, LaneRecord { lane: other, state: state(2) }];
    assert_eq!(sorted(recovered.lanes), expected);
    assert_eq!(recovered.batch_no, BatchNo(2));
}

pub(super) fn a_dropped_lane_is_empty_at_once_and_its_name_is_free(place: &dyn Place) {
    let (mut store, _) = open(place);
    let next = Lane { generation: 1, ..lane(1) };
    commit_lanes(store.as_mut(), 1, vec![inserts(lane(1), 1..=100)]);
    let purge = Batch { lanes: vec![inserts(next, [101])], drop_lanes: vec![lane(1), lane(77)], ..batch(2) };
    commit(store.as_mut(), &purge);
    assert_eq!(positions(store.as_ref(), lane(1)), [0; 0]);
    assert_eq!(positions(store.as_ref(), next), [101]);

    // The same name again, before and after the rows are erased.
    commit_lanes(store.as_mut(), 3, vec![inserts(lane(1), [5])]);
    assert_eq!(positions(store.as_ref(), lane(1)), [5]);
    while erase(&mut *store, 30) {}
    assert_eq!(positions(store.as_ref(), lane(1)), [5]);
    assert_eq!(positions(store.as_ref(), next), [101]);
    commit_lanes(store.as_mut(), 4, vec![inserts(lane(9), [6])]);
    assert_eq!(positions(store.as_ref(), lane(9)), [6]);

    let store = restarted_with(store, place, &empty_states(&[lane(1), next, lane(9)]));
    assert_eq!(positions(store.as_ref(), lane(1)), [5]);
}

pub(super) fn dropped_lanes_are_erased_in_slices(place: &dyn Place) {
    let (mut store, _) = open(place);
    commit_lanes(store.as_mut(), 1, vec![inserts(lane(1), 1..=100), inserts(lane(2), 1..=3)]);
    assert!(!erase(&mut *store, 10), "nothing is dropped");
    commit(store.as_mut(), &Batch { drop_lanes: vec![lane(1)], ..batch(2) });
    // What is left to erase survives a restart.
    assert!(erase(&mut *store, 10));
    let (mut store, _) = reopened(store, place);
    let mut slices = 1;
    while erase(&mut *store, 10) {
        slices += 1;
    }
    assert!((9..=12).contains(&slices), "{slices} slices for 100 rows, 10 each");
    assert_eq!(positions(store.as_ref(), lane(2)), [1, 2, 3]);
}

pub(super) fn deleting_a_queue_drops_all_its_lanes(place: &dyn Place) {
    let (mut store, _) = open(place);
    let lanes = [lane(1), Lane { level: 9, ..lane(1) }, Lane { generation: 3, ..lane(1) }];
    let mut changes: Vec<_> = lanes.iter().map(|lane| inserts(*lane, [1, 2])).collect();
    changes.push(inserts(lane(2), [1]));
    commit_lanes(store.as_mut(), 1, changes);
    commit(store.as_mut(), &Batch { topology: vec![TopologyChange::DeleteQueue(QueueId(1))], ..batch(2) });
    for lane in lanes {
        assert_eq!(positions(store.as_ref(), lane), [0; 0]);
    }
    let store = restarted_with(store, place, &empty_states(&[lane(2)]));
    assert_eq!(positions(store.as_ref(), lane(2)), [1]);
}

pub(super) fn deleting_a_queue_takes_what_its_batch_writes_too(place: &dyn Place) {
    let (mut store, _) = open(place);
    let topology = vec![TopologyChange::DeleteQueue(QueueId(1))];
    let lanes = vec![inserts(lane(1), 1..=3), inserts(lane(2), [1])];
    commit(store.as_mut(), &Batch { topology, lanes, ..batch(1) });
    assert_eq!(positions(store.as_ref(), lane(1)), [0; 0]);
    let store = restarted_with(store, place, &empty_states(&[lane(2)]));
    assert_eq!(positions(store.as_ref(), lane(2)), [1]);
}

pub(super) fn a_batch_that_is_stored_is_committed_again_without_effect(place: &dyn Place) {
    let (mut store, _) = open(place);
    let first = Batch { lanes: vec![LaneChange { state: state(1), ..inserts(lane(1), 1..=3) }], ..batch(1) };
    commit(store.as_mut(), &first);
    commit(store.as_mut(), &first);
    commit_lanes(store.as_mut(), 2, vec![LaneChange { removes: vec![Position(2)], ..change(lane(1)) }]);
    commit(store.as_mut(), &first);
    assert_eq!(positions(store.as_ref(), lane(1)), [1, 3]);
    let mut store = restarted_with(store, place, &empty_states(&[lane(1)]));
    commit(store.as_mut(), &first);
    assert_eq!(positions(store.as_ref(), lane(1)), [1, 3]);
}

pub(super) fn a_reader_knows_the_last_batch_it_sees(place: &dyn Place) {
    let (mut store, _) = open(place);
    let mut reader = store.reader().unwrap();
    for number in 1..=20 {
        // Each batch adds one row, so the rows tell which batches a read saw.
        commit_lanes(store.as_mut(), number, vec![inserts(lane(1), [number])]);
        let loaded = reader.load(LoadRequest::new(lane(1), EVERYTHING, usize::MAX, usize::MAX)).unwrap();
        assert_eq!((loaded.rows.len() as u64, loaded.as_of), (number, BatchNo(number)));
    }
    // And so it is while batches are being committed.
    let writer = std::thread::spawn(move || {
        for number in 21..=60 {
            commit_lanes(store.as_mut(), number, vec![inserts(lane(1), [number])]);
        }
        store
    });
    while !writer.is_finished() {
        let loaded = reader.load(LoadRequest::new(lane(1), EVERYTHING, usize::MAX, usize::MAX)).unwrap();
        assert_eq!(loaded.rows.len() as u64, loaded.as_of.0);
    }
    drop(reader);
    writer.join().unwrap().close().unwrap();
}

pub(super) fn a_good_stop_is_told_from_a_bad_one(place: &dyn Place) {
    let (mut store, first) = open(place);
    assert_eq!((first.boot, first.clean, first.batch_no), (1, true, BatchNo(0)));
    commit_lanes(store.as_mut(), 1, vec![inserts(lane(1), [1])]);
    let (mut store, second) = reopened(store, place);
    assert_eq!((second.boot, second.clean, second.batch_no), (2, true, BatchNo(1)));
    commit_lanes(store.as_mut(), 2, vec![inserts(lane(1), [2])]);
    drop(store);
    let (store, third) = open(place);
    assert_eq!((third.boot, third.clean, third.batch_no), (3, false, BatchNo(2)));
    assert_eq!(positions(store.as_ref(), lane(1)), [1, 2]);
}

pub(super) fn large_bodies_survive(place: &dyn Place) {
    let (mut store, _) = open(place);
    let lengths = [0, 4096, 4097, 16_384, 65_536, 65_537, 10 << 20];
    let body = |len: usize| -> Vec<u8> { (0..len).map(|at| (at * 31 / 7) as u8).collect() };
    let rows =
        lengths.into_iter().zip(1..).map(|(len, position)| Row { message: message_of(body(len)), ..row(position) });
    let change = LaneChange { inserts: rows.collect(), ..change(lane(1)) };
    commit_lanes(store.as_mut(), 1, vec![change]);
    let store = restarted(store, place);
    let loaded = load(store.as_ref(), lane(1));
    assert_eq!(loaded.rows.len(), lengths.len());
    for (row, len) in loaded.rows.iter().zip(lengths) {
        assert!(row.message.body() == body(len), "a body of {len} bytes");
    }
    let mut reader = store.reader().unwrap();
    let bounded = reader.load(LoadRequest::new(lane(1), EVERYTHING, usize::MAX, 20_000)).unwrap();
    assert_eq!(bounded.rows.len(), 4);
}

/// A body as no other message has it.
pub(super) fn large(seed: u64, len: usize) -> Message {
    message_of((0..len).map(|at| ((at as u64).wrapping_mul(seed | 1) >> 7) as u8).collect())
}

pub(super) fn with_message(lane: Lane, positions: &[u64], message: &Message) -> LaneChange {
    let rows = positions.iter().map(|position| Row { message: message.clone(), ..row(*position) });
    LaneChange { inserts: rows.collect(), ..change(lane) }
}

#[track_caller]
fn assert_all_are(store: &dyn Store, lane: Lane, at: &[u64], message: &Message) {
    let rows = load(store, lane).rows;
    assert_eq!(rows.iter().map(|row| row.position.0).collect::<Vec<_>>(), at);
    assert!(rows.iter().all(|row| row.message == *message), "the bodies in {lane:?}");
}

pub(super) fn a_body_shared_by_rows_lasts_as_long_as_one_of_them(place: &dyn Place) {
    for len in [5_000, 65_536, 200_000] {
        let (mut store, recovered) = open(place);
        let number = recovered.batch_no.0;
        let message = large(3, len);
        let all = (1..=4).map(|at| with_message(lane(at), &[1, 2, 3, 4, 5, 6], &message)).collect();
        commit_lanes(store.as_mut(), number + 1, all);
        let removes = vec![
            LaneChange { remove_below: Some(Position(7)), ..change(lane(1)) },
            LaneChange {
                remove_ranges: vec![PositionRange { from: Position(2), to: Position(4) }],
                removes: vec![Position(6), Position(6), Position(99)],
                ..change(lane(2))
            },
            // And what is inserted and removed at once.
            LaneChange { removes: vec![Position(8)], ..with_message(lane(3), &[7, 8], &large(4, len)) },
        ];
        commit_lanes(store.as_mut(), number + 2, removes);
        assert_eq!(positions(store.as_ref(), lane(1)), [0; 0]);
        assert_all_are(store.as_ref(), lane(2), &[1, 5], &message);
        assert_all_are(store.as_ref(), lane(4), &[1, 2, 3, 4, 5, 6], &message);
        let mut store = restarted(store, place);
        commit(store.as_mut(), &Batch { drop_lanes: vec![lane(3), lane(4)], ..batch(number + 3) });
        while erase(&mut *store, 2) {}
        assert_all_are(store.as_ref(), lane(2), &[1, 5], &message);
        let last = LaneChange { remove_below: Some(Position(5)), ..change(lane(2)) };
        commit_lanes(store.as_mut(), number + 4, vec![last]);
        assert_all_are(store.as_ref(), lane(2), &[5], &message);
        commit_lanes(store.as_mut(), number + 5, vec![LaneChange { removes: vec![Position(5)], ..change(lane(2)) }]);
        store.close().unwrap();
    }
}

pub(super) fn bodies_go_with_dropped_lanes(place: &dyn Place) {
    let (mut store, _) = open(place);
    let (kept, dropped) = (large(1, 100_000), large(2, 70_000));
    for number in 1..=20 {
        let lanes =
            vec![with_message(lane(1), &[number], &kept), with_message(lane(2), &[number, number + 100], &dropped)];
        commit_lanes(store.as_mut(), number, lanes);
    }
    let again = with_message(lane(2), &[1], &kept);
    commit(store.as_mut(), &Batch { drop_lanes: vec![lane(2)], ..batch(21) });
    commit_lanes(store.as_mut(), 22, vec![again]);
    assert!(erase(&mut *store, 10));
    let (mut store, _) = reopened(store, place);
    while erase(&mut *store, 10) {}
    assert_all_are(store.as_ref(), lane(1), &(1..=20).collect::<Vec<_>>(), &kept);
    assert_all_are(store.as_ref(), lane(2), &[1], &kept);
}

pub(super) fn bodies_are_told_apart_by_message(place: &dyn Place) {
    let (mut store, _) = open(place);
    let messages: Vec<_> = (1..=20).map(|seed| large(seed, 64_000 + seed as usize * 200)).collect();
    for (number, message) in (1..).zip(&messages) {
        let lanes = vec![with_message(lane(number), &[1], message), with_message(lane(0), &[number], message)];
        commit_lanes(store.as_mut(), number, lanes);
    }
    let store = restarted(store, place);
    for (number, (message, row)) in (1..).zip(messages.iter().zip(load(store.as_ref(), lane(0)).rows)) {
        assert!(row.message == *message);
        assert_all_are(store.as_ref(), lane(number), &[1], message);
    }
}

pub(super) fn the_largest_bodies_survive(place: &dyn Place) {
    let (mut store, _) = open(place);
    let message = large(5, 128 << 20);
    commit_lanes(store.as_mut(), 1, vec![with_message(lane(1), &[1], &message), with_message(lane(2), &[1], &message)]);
    commit_lanes(store.as_mut(), 2, vec![LaneChange { removes: vec![Position(1)], ..change(lane(1)) }]);
    let mut store = restarted(store, place);
    assert_all_are(store.as_ref(), lane(2), &[1], &message);
    commit(store.as_mut(), &Batch { drop_lanes: vec![lane(2)], ..batch(3) });
    while erase(&mut *store, 1_000) {}
    assert_eq!(positions(store.as_ref(), lane(2)), [0; 0]);
}

/// What a batch removes is gone at once for readers and for the next start, however long it takes to erase it.
pub(super) fn long_ranges_are_gone_at_once(place: &dyn Place) {
    let (mut store, _) = open(place);
    commit_lanes(store.as_mut(), 1, vec![inserts(lane(1), 1..=30_000), inserts(lane(2), 1..=10_000)]);
    let range = PositionRange { from: Position(11), to: Position(20_000) };
    let middle = LaneChange { remove_ranges: vec![range], removes: vec![Position(3)], ..change(lane(1)) };
    let front = LaneChange { remove_below: Some(Position(9_991)), ..change(lane(2)) };
    commit_lanes(store.as_mut(), 2, vec![middle, front]);
    let check = |store: &dyn Store| {
        let one = positions(store, lane(1));
        assert_eq!(one.len(), 9 + 10_000);
        assert_eq!(one[..11], [1, 2, 4, 5, 6, 7, 8, 9, 10, 20_001, 20_002]);
        assert_eq!(positions(store, lane(2)), (9_991..=10_000).collect::<Vec<_>>());
        let part = PositionRange { from: Position(5_000), to: Position(20_001) };
        let loaded = store.reader().unwrap().load(LoadRequest::new(lane(1), part, 10, 1 << 20)).unwrap();
        assert_eq!(loaded.rows.iter().map(|row| row.position.0).collect::<Vec<_>>(), [20_001]);
    };
    check(store.as_ref());
    erase(&mut *store, 1_000);
    let mut store = restarted(store, place);
    check(store.as_ref());
    let front = LaneChange { remove_below: Some(Position(9_992)), ..change(lane(2)) };
    commit_lanes(store.as_mut(), 3, vec![front]);
    while erase(&mut *store, 1_000) {}
    assert_eq!(positions(store.as_ref(), lane(2)).len(), 9);
    commit(store.as_mut(), &Batch { drop_lanes: vec![lane(1), lane(2)], ..batch(4) });
    while erase(&mut *store, 1_000) {}
    commit_lanes(store.as_mut(), 5, vec![inserts(lane(3), [1]), inserts(lane(4), [1])]);
    assert_eq!(positions(store.as_ref(), lane(1)).len() + positions(store.as_ref(), lane(4)).len(), 1);
}

pub(super) fn extreme_numbers_survive(place: &dyn Place) {
    let (mut store, _) = open(place);
    let extreme = Lane { queue: QueueId(u64::MAX), level: u8::MAX, generation: u32::MAX };
    let last = Row { expires_at: Some(WallMillis(u64::MAX)), ..row(POSITION_MAX.0) };
    let most = LaneState {
        head: Position(1),
        tail: POSITION_MAX,
        count: u64::MAX,
        body_bytes: u64::MAX,
        lent_ceiling: POSITION_MAX,
    };
    let change = LaneChange { inserts: vec![row(1), last], state: most, ..change(extreme) };
    commit_lanes(store.as_mut(), 1, vec![inserts(lane(0), [0, POSITION_MAX.0]), change, inserts(lane(2), [0])]);
    let removes = LaneChange { remove_below: Some(POSITION_MAX), state: most, ..self::change(extreme) };
    commit_lanes(store.as_mut(), 2, vec![removes]);
    let lanes = [empty_states(&[lane(0), lane(2)]), vec![LaneRecord { lane: extreme, state: most }]].concat();
    let store = restarted_with(store, place, &lanes);
    assert_eq!(positions(store.as_ref(), lane(0)), [0, POSITION_MAX.0]);
    assert_eq!(positions(store.as_ref(), lane(2)), [0]);
    let loaded = load(store.as_ref(), extreme);
    assert_eq!(loaded.rows.len(), 1);
    assert_eq!(loaded.rows[0].expires_at, Some(WallMillis(u64::MAX)));
}

fn queue(id: u64, name: &str) -> QueueRecord {
    QueueRecord {
        vhost: Name::from("/"),
        name: Name::from(name),
        id: QueueId(id),
        auto_delete: id.is_multiple_of(2),
        arguments: vec![0, 0, 0, 0],
    }
}

fn exchange(name: &str) -> ExchangeRecord {
    ExchangeRecord {
        vhost: Name::from("/"),
        name: Name::from(name),
        kind: "topic".into(),
        auto_delete: true,
        internal: false,
        arguments: vec![0, 0, 0, 4, 1, b'a', b't', 1],
    }
}

fn binding(key: &str, arguments: &[u8]) -> BindingRecord {
    BindingRecord {
        vhost: Name::from("/"),
        source: Name::from("logs"),
        destination_kind: Destination::Queue,
        destination: Name::from("q"),
        routing_key: Name::from(key),
        arguments: arguments.to_vec(),
    }
}

fn user(tags: &[&str], vhosts: &[&str]) -> UserRecord {
    UserRecord {
        name: Name::from("guest"),
        password_hash: "c2FsdGhhc2g=".into(),
        hashing_algorithm: "rabbit_password_hashing_sha256".into(),
        tags: tags.iter().map(ToString::to_string).collect(),
        from_settings: tags.len() > 1,
        vhosts: vhosts.iter().map(|name| Name::from(*name)).collect(),
    }
}

pub(super) fn the_cluster_has_one_id_for_life(place: &dyn Place) {
    let (store, first) = open(place);
    assert!(first.cluster_id.starts_with("prontomq-cluster-id-"), "{:?}", first.cluster_id);
    // A stop in good order, and none.
    let (store, second) = reopened(store, place);
    store.close().unwrap();
    let (_, third) = open(place);
    assert_eq!((&second.cluster_id, &third.cluster_id), (&first.cluster_id, &first.cluster_id));
}

pub(super) fn topology_comes_back_as_it_was_put(place: &dyn Place) {
    let (mut store, recovered) = open(place);
    assert!(recovered.vhosts.is_empty() && recovered.users.is_empty() && recovered.exchanges.is_empty());
    let odd = Name::from("quote ' \u{0} \u{1F430}");
    let odd_exchange = ExchangeRecord { name: odd.clone(), internal: true, auto_delete: false, ..exchange("") };
    let topology = vec![
        TopologyChange::PutVhost(VhostRecord { name: Name::from("/") }),
        TopologyChange::PutVhost(VhostRecord { name: odd.clone() }),
        TopologyChange::PutUser(user(&["monitoring"], &["/"])),
        TopologyChange::PutUser(user(&["b", "a"], &["/", odd.as_str()])),
        TopologyChange::PutExchange(ExchangeRecord { kind: "direct".into(), ..exchange("logs") }),
        TopologyChange::PutExchange(exchange("logs")),
        TopologyChange::PutExchange(odd_exchange.clone()),
        TopologyChange::PutQueue(queue(1, "q")),
        TopologyChange::PutQueue(queue(u64::MAX, "last")),
    ];
    commit(store.as_mut(), &Batch { topology, ..batch(1) });
    let (_, mut recovered) = reopened(store, place);
    let sorted = |mut names: Vec<Name>| {
        names.sort();
        names
    };
    let vhosts = recovered.vhosts.into_iter().map(|vhost| vhost.name).collect();
    assert_eq!(sorted(vhosts), sorted(vec![Name::from("/"), odd.clone()]));
    assert_eq!(recovered.users, [user(&["b", "a"], &["/", odd.as_str()])]);
    recovered.exchanges.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(recovered.exchanges, [exchange("logs"), odd_exchange]);
    recovered.queues.sort_by_key(|queue| queue.id);
    assert_eq!(recovered.queues, [queue(1, "q"), queue(u64::MAX, "last")]);
}

pub(super) fn bindings_are_told_apart_by_their_arguments(place: &dyn Place) {
    let (mut store, _) = open(place);
    let to_exchange = BindingRecord { destination_kind: Destination::Exchange, ..binding("a.*", &[0]) };
    let all = [binding("a.*", &[0]), binding("a.*", &[1]), binding("b", &[0]), to_exchange];
    let mut topology: Vec<_> = all.iter().cloned().map(TopologyChange::PutBinding).collect();
    topology.push(TopologyChange::PutBinding(all[0].clone()));
    commit(store.as_mut(), &Batch { topology, ..batch(1) });
    let deletes = [binding("a.*", &[1]), binding("a.*", &[2])];
    let topology = deletes.into_iter().map(TopologyChange::DeleteBinding).collect();
    commit(store.as_mut(), &Batch { topology, ..batch(2) });
    let (_, recovered) = reopened(store, place);
    assert_eq!(recovered.bindings.len(), 3);
    for kept in [&all[0], &all[2], &all[3]] {
        assert!(recovered.bindings.contains(kept), "{kept:?}");
    }
}

pub(super) fn deleted_topology_is_gone(place: &dyn Place) {
    let (mut store, _) = open(place);
    let topology = vec![
        TopologyChange::PutVhost(VhostRecord { name: Name::from("/") }),
        TopologyChange::PutUser(user(&["administrator"], &["/"])),
        TopologyChange::PutExchange(exchange("logs")),
        TopologyChange::PutExchange(exchange("kept")),
        TopologyChange::PutQueue(queue(1, "q")),
    ];
    commit(store.as_mut(), &Batch { topology, lanes: vec![inserts(lane(1), [1])], ..batch(1) });
    let topology = vec![
        TopologyChange::DeleteVhost(Name::from("/")),
        TopologyChange::DeleteUser(Name::from("guest")),
        TopologyChange::DeleteExchange { vhost: Name::from("/"), name: Name::from("logs") },
        TopologyChange::DeleteExchange { vhost: Name::from("other"), name: Name::from("kept") },
        TopologyChange::DeleteQueue(QueueId(1)),
        TopologyChange::PutQueue(queue(2, "q")),
    ];
    commit(store.as_mut(), &Batch { topology, ..batch(2) });
    let (_, recovered) = reopened(store, place);
    assert_eq!((recovered.vhosts, recovered.users), (vec![], vec![]));
    assert_eq!(recovered.exchanges, [exchange("kept")]);
    assert_eq!(recovered.queues, [queue(2, "q")]);
    assert_eq!(recovered.lanes, []);
}

pub(super) fn reopening_keeps_everything(place: &dyn Place) {
    let (mut store, _) = open(place);
    let mut reader = store.reader().unwrap();
    commit_lanes(store.as_mut(), 1, vec![inserts(lane(1), 1..=3)]);
    assert_eq!(reopen(&mut *store), BatchNo(1));
    commit_lanes(store.as_mut(), 2, vec![inserts(lane(1), [4]), inserts(lane(2), [1])]);
    assert_eq!(reopen(&mut *store), BatchNo(2));
    assert_eq!(positions(store.as_ref(), lane(1)), [1, 2, 3, 4]);
    let loaded = reader.load(LoadRequest::new(lane(2), EVERYTHING, usize::MAX, usize::MAX)).unwrap();
    assert_eq!((loaded.rows.len(), loaded.as_of), (1, BatchNo(2)), "a reader goes on across it");
}

pub(super) fn ten_thousand_lanes_are_kept_apart(place: &dyn Place) {
    const LANES: u64 = 10_000;
    let (mut store, _) = open(place);
    let lanes = (0..LANES).map(|at| LaneChange { state: state(at), ..inserts(lane(at), [at + 1]) });
    commit_lanes(store.as_mut(), 1, lanes.collect());
    let drop_lanes = (0..LANES).filter(|at| at % 2 == 1).map(lane).collect();
    commit(store.as_mut(), &Batch { drop_lanes, ..batch(2) });
    while erase(&mut *store, 1_000) {}
    // Their numbers are used again.
    commit_lanes(store.as_mut(), 3, (LANES..LANES + 100).map(|at| inserts(lane(at), [at + 1])).collect());
    let kept = (0..LANES).step_by(2).map(|at| LaneRecord { lane: lane(at), state: state(at) });
    let new = empty_states(&(LANES..LANES + 100).map(lane).collect::<Vec<_>>());
    let store = restarted_with(store, place, &kept.chain(new).collect::<Vec<_>>());
    let mut reader = store.reader().unwrap();
    for at in 0..LANES + 100 {
        let expected: &[u64] = if at < LANES && at % 2 == 1 { &[] } else { &[at + 1] };
        let rows = reader.load(LoadRequest::new(lane(at), EVERYTHING, 10, usize::MAX)).unwrap().rows;
        assert_eq!(rows.iter().map(|row| row.position.0).collect::<Vec<_>>(), expected, "lane {at}");
    }
}
