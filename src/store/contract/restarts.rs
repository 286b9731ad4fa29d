//! What a store knows of earlier batches and processes.

use super::{
    EVERYTHING, StoreLocation, batch, change, commit, commit_lanes, empty_states, inserts, lane, open, positions,
    reopen, reopened, restarted_with, state,
};
use crate::model::Position;
use crate::store::{Batch, BatchNo, LaneChange, LoadRequest};

pub(in crate::store) fn a_batch_that_is_stored_is_committed_again_without_effect(place: &dyn StoreLocation) {
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

pub(in crate::store) fn a_good_stop_is_told_from_a_bad_one(place: &dyn StoreLocation) {
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

pub(in crate::store) fn reopening_keeps_everything(place: &dyn StoreLocation) {
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

pub(in crate::store) fn the_cluster_has_one_id_for_life(place: &dyn StoreLocation) {
    let (store, first) = open(place);
    assert!(first.cluster_id.starts_with("prontomq-cluster-id-"), "{:?}", first.cluster_id);
    // A stop in good order, and none.
    let (store, second) = reopened(store, place);
    store.close().unwrap();
    let (_, third) = open(place);
    assert_eq!((&second.cluster_id, &third.cluster_id), (&first.cluster_id, &first.cluster_id));
}
