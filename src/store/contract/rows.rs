//! Rows: read back in order, removed, and at their limits.

use super::{
    EVERYTHING, StoreLocation, batch, change, commit, commit_lanes, empty_states, erase, inserts, lane, load, open,
    positions, restarted, restarted_with, row,
};
use crate::model::{Lane, Position, QueueId, WallMillis};
use crate::store::{
    Batch, BatchNo, LaneChange, LaneRecord, LaneState, LoadRequest, POSITION_MAX, PositionRange, Row, Store,
};

pub(in crate::store) fn rows_come_back_in_order_and_complete(place: &dyn StoreLocation) {
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

pub(in crate::store) fn a_load_stops_at_its_limits_and_goes_on_behind(place: &dyn StoreLocation) {
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

pub(in crate::store) fn removes_take_what_they_name_and_nothing_else(place: &dyn StoreLocation) {
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

pub(in crate::store) fn rows_inserted_and_removed_in_one_batch_are_gone(place: &dyn StoreLocation) {
    let (mut store, _) = open(place);
    let change = LaneChange { removes: vec![Position(2)], ..inserts(lane(1), 1..=3) };
    let again = LaneChange { remove_below: Some(Position(2)), ..super::change(lane(1)) };
    commit_lanes(store.as_mut(), 1, vec![change, again]);
    assert_eq!(positions(store.as_ref(), lane(1)), [3]);
}

pub(in crate::store) fn a_reader_knows_the_last_batch_it_sees(place: &dyn StoreLocation) {
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

/// What a batch removes is gone at once for readers and for the next start, however long it takes to erase it.
pub(in crate::store) fn long_ranges_are_gone_at_once(place: &dyn StoreLocation) {
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

pub(in crate::store) fn extreme_numbers_survive(place: &dyn StoreLocation) {
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
    let removes = LaneChange { remove_below: Some(POSITION_MAX), state: most, ..super::change(extreme) };
    commit_lanes(store.as_mut(), 2, vec![removes]);
    let lanes = [empty_states(&[lane(0), lane(2)]), vec![LaneRecord { lane: extreme, state: most }]].concat();
    let store = restarted_with(store, place, &lanes);
    assert_eq!(positions(store.as_ref(), lane(0)), [0, POSITION_MAX.0]);
    assert_eq!(positions(store.as_ref(), lane(2)), [0]);
    let loaded = load(store.as_ref(), extreme);
    assert_eq!(loaded.rows.len(), 1);
    assert_eq!(loaded.rows[0].expires_at, Some(WallMillis(u64::MAX)));
}
