//! Lanes: their states, dropping and erasing them.

use super::{
    EVERYTHING, StoreLocation, batch, commit, commit_lanes, empty_states, erase, inserts, lane, open, positions,
    reopened, restarted_with, sorted, state,
};
use crate::model::{Lane, QueueId};
use crate::store::{Batch, BatchNo, LaneChange, LaneRecord, LoadRequest, TopologyChange};

pub(in crate::store) fn lanes_are_found_with_their_last_state(place: &dyn StoreLocation) {
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

pub(in crate::store) fn a_dropped_lane_is_empty_at_once_and_its_name_is_free(place: &dyn StoreLocation) {
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

pub(in crate::store) fn dropped_lanes_are_erased_in_slices(place: &dyn StoreLocation) {
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

pub(in crate::store) fn deleting_a_queue_drops_all_its_lanes(place: &dyn StoreLocation) {
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

pub(in crate::store) fn deleting_a_queue_takes_what_its_batch_writes_too(place: &dyn StoreLocation) {
    let (mut store, _) = open(place);
    let topology = vec![TopologyChange::DeleteQueue(QueueId(1))];
    let lanes = vec![inserts(lane(1), 1..=3), inserts(lane(2), [1])];
    commit(store.as_mut(), &Batch { topology, lanes, ..batch(1) });
    assert_eq!(positions(store.as_ref(), lane(1)), [0; 0]);
    let store = restarted_with(store, place, &empty_states(&[lane(2)]));
    assert_eq!(positions(store.as_ref(), lane(2)), [1]);
}

pub(in crate::store) fn ten_thousand_lanes_are_kept_apart(place: &dyn StoreLocation) {
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
