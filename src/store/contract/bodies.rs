//! Large bodies, and bodies that rows share.

use super::{
    EVERYTHING, StoreLocation, batch, change, commit, commit_lanes, erase, lane, large, load, message_of, open,
    positions, reopened, restarted, row, with_message,
};
use crate::model::{Lane, Message, Position};
use crate::store::{Batch, LaneChange, LoadRequest, PositionRange, Row, Store};

pub(in crate::store) fn large_bodies_survive(place: &dyn StoreLocation) {
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

#[track_caller]
fn assert_all_are(store: &dyn Store, lane: Lane, at: &[u64], message: &Message) {
    let rows = load(store, lane).rows;
    assert_eq!(rows.iter().map(|row| row.position.0).collect::<Vec<_>>(), at);
    assert!(rows.iter().all(|row| row.message == *message), "the bodies in {lane:?}");
}

pub(in crate::store) fn a_body_shared_by_rows_lasts_as_long_as_one_of_them(place: &dyn StoreLocation) {
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

pub(in crate::store) fn bodies_go_with_dropped_lanes(place: &dyn StoreLocation) {
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

pub(in crate::store) fn bodies_are_told_apart_by_message(place: &dyn StoreLocation) {
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

pub(in crate::store) fn the_largest_bodies_survive(place: &dyn StoreLocation) {
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
