//! The promises of every store, as tests that each implementation runs.

pub(super) mod bodies;
pub(super) mod lanes;
pub(super) mod restarts;
pub(super) mod rows;
pub(super) mod topology;

use super::{
    Batch, BatchNo, CommitOutcome, LaneChange, LaneRecord, LaneState, LoadRequest, LoadedRange, POSITION_MAX,
    PositionRange, RecoveredState, Row, Store,
};
use crate::model::{Lane, Message, Position, QueueId};
use crate::wire::properties::Properties;

/// A directory or a piece of memory, where stores are opened one after the other.
pub(super) trait StoreLocation {
    /// Opens the store as the last one has left it, or an empty one.
    fn open(&self) -> Box<dyn Store>;

    /// Whether the contents of a store outlive it. If not, the promises hold as long as the store is open.
    fn outlives_stores(&self) -> bool {
        true
    }
}

/// Makes one test per promise, for the location that `$make` makes. A store without durability (`of what forgets`) has lanes
/// alone, no topology, and erases nothing later.
macro_rules! contract_tests {
    ($make:expr) => {
        $crate::store::contract::contract_tests!($make; of what forgets);
        $crate::store::contract::contract_tests!($make;
            lanes::lanes_are_found_with_their_last_state,
            lanes::dropped_lanes_are_erased_in_slices,
            restarts::a_good_stop_is_told_from_a_bad_one,
            restarts::the_cluster_has_one_id_for_life,
            bodies::bodies_go_with_dropped_lanes,
            topology::topology_comes_back_as_it_was_put,
            topology::bindings_are_told_apart_by_their_arguments,
            topology::deleted_topology_is_gone,
        );
    };
    ($make:expr; of what forgets) => {
        $crate::store::contract::contract_tests!($make;
            rows::rows_come_back_in_order_and_complete,
            rows::a_load_stops_at_its_limits_and_goes_on_behind,
            rows::removes_take_what_they_name_and_nothing_else,
            rows::rows_inserted_and_removed_in_one_batch_are_gone,
            lanes::a_dropped_lane_is_empty_at_once_and_its_name_is_free,
            lanes::deleting_a_queue_drops_all_its_lanes,
            lanes::deleting_a_queue_takes_what_its_batch_writes_too,
            restarts::a_batch_that_is_stored_is_committed_again_without_effect,
            rows::a_reader_knows_the_last_batch_it_sees,
            bodies::large_bodies_survive,
            bodies::a_body_shared_by_rows_lasts_as_long_as_one_of_them,
            bodies::bodies_are_told_apart_by_message,
            bodies::the_largest_bodies_survive,
            rows::long_ranges_are_gone_at_once,
            rows::extreme_numbers_survive,
            restarts::reopening_keeps_everything,
            lanes::ten_thousand_lanes_are_kept_apart,
        );
    };
    ($make:expr; $($subject:ident::$promise:ident,)*) => {
        $(#[test]
        fn $promise() {
            $crate::store::contract::$subject::$promise(&$make);
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

/// Commits a batch, and repeats and looks it up as the writer's driver does.
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

/// Reopens the store, again while it does not answer.
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

/// Erases a slice; whether more is left.
fn erase(store: &mut dyn Store, rows: usize) -> bool {
    store.maintenance().is_some_and(|store| store.erase(rows).unwrap())
}

fn load(store: &dyn Store, lane: Lane) -> LoadedRange {
    store.reader().unwrap().load(LoadRequest::new(lane, EVERYTHING, usize::MAX, usize::MAX)).unwrap()
}

pub(super) fn positions(store: &dyn Store, lane: Lane) -> Vec<u64> {
    load(store, lane).rows.iter().map(|row| row.position.0).collect()
}

fn open(place: &dyn StoreLocation) -> (Box<dyn Store>, RecoveredState) {
    let mut store = place.open();
    let recovered = store.recover().unwrap();
    (store, recovered)
}

fn reopened(store: Box<dyn Store>, place: &dyn StoreLocation) -> (Box<dyn Store>, RecoveredState) {
    store.close().unwrap();
    open(place)
}

/// The store after a restart, if its contents outlive it.
fn restarted(store: Box<dyn Store>, place: &dyn StoreLocation) -> Box<dyn Store> {
    if place.outlives_stores() { reopened(store, place).0 } else { store }
}

/// As [`restarted`], and checks that the store has these lanes.
#[track_caller]
fn restarted_with(store: Box<dyn Store>, place: &dyn StoreLocation, lanes: &[LaneRecord]) -> Box<dyn Store> {
    if !place.outlives_stores() {
        return store;
    }
    let (store, recovered) = reopened(store, place);
    assert_eq!(sorted(recovered.lanes), sorted(lanes.to_vec()));
    store
}

fn sorted(mut lanes: Vec<LaneRecord>) -> Vec<LaneRecord> {
    lanes.sort_by_key(|record| record.lane);
    lanes
}

/// A body as no other message has it.
pub(super) fn large(seed: u64, len: usize) -> Message {
    message_of((0..len).map(|at| ((at as u64).wrapping_mul(seed | 1) >> 7) as u8).collect())
}

pub(super) fn with_message(lane: Lane, positions: &[u64], message: &Message) -> LaneChange {
    let rows = positions.iter().map(|position| Row { message: message.clone(), ..row(*position) });
    LaneChange { inserts: rows.collect(), ..change(lane) }
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

fn empty_states(lanes: &[Lane]) -> Vec<LaneRecord> {
    lanes.iter().map(|lane| LaneRecord { lane: *lane, state: LaneState::default() }).collect()
}
