//! Head, stored middle, tail: which rows are read back, and how a damaged store is detected.

use super::*;
use crate::model::stored::{LaneState, PositionRange, Row};
use crate::model::{Lane, Position};

const LANE: Lane = Lane { queue: QueueId(1), level: 0, generation: 0 };

fn small() -> Bench {
    Bench::with(settings(), QueueLimits { window: SMALL, ..limits() })
}

fn rows(positions: impl IntoIterator<Item = u64>) -> Vec<Row> {
    let row = |position: u64| Row {
        position: Position(position),
        redelivered: false,
        expires_at: None,
        place: None,
        message: draft(&format!("{position}")).persistent().enqueue().message,
    };
    positions.into_iter().map(row).collect()
}

/// A queue that the store remembers with these rows of one body byte each.
fn recovered(count: u64, lent_ceiling: u64) -> Bench {
    let mut bench = small();
    let (head, tail) = (Position(1), Position(count));
    let state = LaneState { head, tail, count, body_bytes: count, lent_ceiling: Position(lent_ceiling) };
    bench.queue.recover_lane(LANE, state, bench.now);
    bench
}

fn load_of(bench: &mut Bench) -> (u64, PositionRange, usize) {
    let effects = bench.effects();
    let [QueueEffect::Load { lane: LANE, load, durable: Some(range), scratch: None, rows_max, .. }] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    (*load, *range, *rows_max)
}

/// Answers a load, and flushes the ceiling that the rows wait for.
fn loaded(bench: &mut Bench, load: u64, rows: Option<Vec<Row>>) {
    loaded_only(bench, load, rows);
    if bench.queue.is_due() {
        bench.write();
    }
}

fn loaded_only(bench: &mut Bench, load: u64, rows: Option<Vec<Row>>) {
    let rows = rows.map(|durable| LoadedRows { durable: Some(durable), scratch: None });
    bench.apply(LocalEvent::Loaded { level: 0, load, rows });
}

#[test]
fn a_start_reads_one_row_which_may_have_to_expire() {
    let mut bench = recovered(9, 0);
    assert_eq!((bench.queue.ready_count(), bench.queue.ready_bytes(), bench.queue.memory().ready), (9, 9, 0));
    assert_eq!((bench.queue.durable_count(), bench.queue.durable_bytes()), (9, 9));
    assert!(bench.effects().is_empty());
    bench.apply(LocalEvent::Tick);
    let (load, _, rows_max) = load_of(&mut bench);
    assert_eq!(rows_max, 1);
    loaded(&mut bench, load, Some(rows(1..=1)));
    assert!(bench.effects().is_empty());
    assert_eq!((bench.queue.ready_count(), bench.queue.memory().ready), (9, 1));
}

#[test]
fn messages_that_expired_while_the_broker_was_down_end_a_window_at_a_time() {
    let mut bench = recovered(9, 0);
    bench.apply(LocalEvent::Tick);
    let expired =
        |rows: Vec<Row>| rows.into_iter().map(|row| Row { expires_at: Some(WallMillis(10)), ..row }).collect();
    let mut rows_max = Vec::new();
    while bench.queue.ready_count() > 0 {
        let (load, range, most) = load_of(&mut bench);
        rows_max.push(most);
        loaded(&mut bench, load, Some(expired(rows((range.from.0..=range.to.0).take(most)))));
    }
    assert_eq!((bench.out.counts.expired, rows_max[0]), (9, 1));
    assert!(rows_max[1..].iter().all(|most| *most > 1), "{rows_max:?}");
}

#[test]
fn gets_and_consumers_wait_in_order_for_the_head() {
    let mut bench = recovered(9, 0);
    bench.get(1, false);
    bench.consume(2, 2);
    let (load, range, rows_max) = load_of(&mut bench);
    assert_eq!((range, rows_max), (PositionRange { from: Position(1), to: Position(9) }, SMALL.head_entries));
    assert!(bench.given().is_empty());
    loaded(&mut bench, load, Some(rows(1..=4)));
    let given = bench.given();
    let who: Vec<_> = given.iter().map(|given| (given.connection, given.body.as_str())).collect();
    assert_eq!(who, [(1, "1"), (2, "2"), (2, "3")]);
    let (_, range, rows_max) = load_of(&mut bench);
    assert_eq!((range.from, rows_max), (Position(5), 2), "half a window is read ahead");
}

#[test]
fn a_get_that_waits_is_forgotten_with_its_channel() {
    let mut bench = recovered(3, 0);
    bench.get(1, true);
    let (load, ..) = load_of(&mut bench);
    bench.apply(QueueCommand::Detach { holder: holder(1) });
    loaded(&mut bench, load, Some(rows(1..=3)));
    assert!(bench.given().is_empty());
    assert_eq!(bench.queue.ready_count(), 3);
}

#[test]
fn rows_below_the_ceiling_come_back_redelivered() {
    let mut bench = recovered(3, 3);
    bench.consume(1, 0);
    let (load, ..) = load_of(&mut bench);
    loaded(&mut bench, load, Some(rows(1..=3)));
    let flags: Vec<_> = bench.given().iter().map(|given| given.redelivered).collect();
    assert_eq!(flags, [true, true, false]);
}

#[test]
fn the_lent_ceiling_is_written_ahead_of_deliveries() {
    let mut bench = small();
    for at in 0..40 {
        bench.publish(&draft(&at.to_string()).persistent());
    }
    let pulled = bench.pull();
    let ceiling = pulled.lanes[0].state.lent_ceiling;
    assert_eq!(ceiling, Position(64), "sixteen windows, with the first rows");
    bench.consume(1, 0);
    let given = bench.given();
    assert_eq!(given.len(), 40, "the batch that brings the rows brings the ceiling");
    assert!(!bench.queue.is_due(), "one ceiling is under way");
    bench.stored(pulled.ticket);
    bench.publish(&draft("one more").persistent());
    bench.settle(&given, SettleOutcome::Acknowledged);
    assert_eq!(bench.write().lanes[0].state.lent_ceiling, Position(41 + 64), "half the way there, the next one");
}

#[test]
fn a_message_above_the_ceiling_waits_until_a_higher_one_is_flushed() {
    let mut bench = recovered(2, 2);
    bench.consume(1, 0);
    let (load, ..) = load_of(&mut bench);
    loaded_only(&mut bench, load, Some(rows(1..=2)));
    assert_eq!(bench.given().iter().map(|given| given.redelivered).collect::<Vec<_>>(), [true]);
    assert!(bench.queue.is_due());
    let pulled = bench.pull();
    assert!(pulled.lanes[0].state.lent_ceiling > Position(2));
    assert!(bench.given().is_empty(), "a kill could still come before the flush");
    bench.stored(pulled.ticket);
    assert_eq!(bench.given().iter().map(|given| given.redelivered).collect::<Vec<_>>(), [false]);
}

#[test]
fn the_first_batch_of_a_process_brings_a_ceiling_so_that_a_full_disk_lets_consumers_in() {
    let mut bench = small();
    let at = Position(100_000);
    let state = LaneState { head: at, tail: at, count: 1, body_bytes: 1, lent_ceiling: at.next() };
    bench.queue.recover_lane(LANE, state, bench.now);
    bench.publish(&draft("x").persistent());
    assert_eq!(bench.write().lanes[0].state.lent_ceiling, Position(100_001 + 64));
}

#[test]
fn a_ceiling_written_ahead_does_not_mark_later_messages() {
    let mut bench = recovered(0, 1000);
    for at in 1..=20 {
        bench.publish(&draft(&at.to_string()).persistent());
    }
    bench.write();
    bench.consume(1, 0);
    let mut seen = bench.given();
    while seen.len() < 20 {
        let (load, range, rows_max) = load_of(&mut bench);
        let found = rows((range.from.0..=range.to.0).take(rows_max));
        loaded(&mut bench, load, Some(found));
        seen.extend(bench.given());
    }
    assert!(seen.iter().all(|given| !given.redelivered));
}

#[test]
fn a_long_tail_leaves_memory_once_it_is_flushed() {
    let mut bench = small();
    for _ in 0..20 {
        bench.publish(&draft("a").persistent());
    }
    let pulled = bench.pull();
    assert_eq!(bench.queue.memory().ready, 20);
    bench.stored(pulled.ticket);
    assert_eq!((bench.queue.memory().ready, bench.queue.ready_count()), (10, 20));
}

#[test]
fn a_load_from_before_a_purge_is_ignored() {
    let mut bench = recovered(9, 0);
    bench.consume(1, 0);
    let (load, ..) = load_of(&mut bench);
    let requester = bench.requester(2);
    bench.apply(QueueCommand::Purge { requester });
    loaded(&mut bench, load, Some(rows(1..=4)));
    assert!(bench.given().is_empty());
    assert_eq!(bench.queue.ready_count(), 0);
    loaded(&mut bench, load + 7, Some(rows(1..=4)));
    bench.apply(LocalEvent::Loaded { level: 9, load, rows: None });
    assert_eq!(bench.queue.ready_count(), 0);
}

#[test]
fn a_read_that_failed_is_tried_again_after_a_second() {
    let mut bench = recovered(2, 0);
    bench.consume(1, 0);
    let (load, ..) = load_of(&mut bench);
    loaded(&mut bench, load, None);
    bench.publish_all(&["behind"]);
    assert!(bench.effects().is_empty(), "a store that cannot read is left alone");
    assert_eq!(bench.queue.deadline(bench.now), Some(bench.now.monotonic.plus(Duration::from_secs(1))));
    bench.tick_after(1000);
    let (load, ..) = load_of(&mut bench);
    loaded(&mut bench, load, Some(rows(1..=2)));
    assert_eq!(bench.bodies(), ["1", "2", "behind"]);
}

#[test]
fn missing_rows_are_reported_and_the_counts_corrected() {
    let mut bench = recovered(9, 0);
    bench.consume(1, 0);
    let (load, ..) = load_of(&mut bench);
    loaded(&mut bench, load, Some(rows(1..=2)));
    assert_eq!(bench.queue.ready_count(), 7, "the bytes may have been too many");
    let (load, range, _) = load_of(&mut bench);
    assert_eq!(range.from, Position(3));
    loaded_only(&mut bench, load, Some(Vec::new()));
    let effects = bench.effects();
    let [QueueEffect::Miscounted { lane: LANE, rows: -7, body_bytes: -7 }] = effects[..] else { panic!("{effects:?}") };
    assert_eq!((bench.queue.ready_count(), bench.queue.ready_bytes()), (0, 0));
    assert_eq!((bench.queue.durable_count(), bench.queue.durable_bytes()), (2, 2));
    let state = bench.write().lanes[0].state;
    assert_eq!((state.count, state.body_bytes), (2, 2), "the store gets the corrected numbers");
}

#[test]
fn rows_beyond_the_count_are_reported_and_delivered() {
    let mut bench = recovered(2, 0);
    bench.consume(1, 0);
    let (load, ..) = load_of(&mut bench);
    loaded(&mut bench, load, Some(rows(1..=3)));
    assert!(matches!(bench.effects()[..], [QueueEffect::Miscounted { rows: 1, body_bytes: 1, .. }]));
    assert_eq!((bench.bodies().len(), bench.queue.unacked_count(), bench.queue.durable_count()), (3, 3, 3));
}

#[test]
fn requeued_rows_return_before_those_still_in_the_store() {
    let mut bench = recovered(9, 0);
    bench.consume(1, 3);
    let (load, ..) = load_of(&mut bench);
    loaded(&mut bench, load, Some(rows(1..=4)));
    let given = bench.given();
    bench.settle(&given[1..2], SettleOutcome::Requeued);
    assert_eq!(bench.bodies(), ["2"]);
}

#[test]
fn positions_that_came_back_behind_one_still_lent_are_forgotten() {
    let mut out = super::super::positions::AwayPositions::default();
    (1..=1000).for_each(|position| out.insert(Position(position)));
    (2..=1000).for_each(|position| out.remove(Position(position)));
    assert!(out.len() < 200, "{} positions are remembered for one", out.len());
    out.insert(Position(500));
    out.remove(Position(1));
    assert!(!out.is_empty());
    out.remove(Position(500));
    assert!(out.is_empty());
}

#[test]
fn a_shrunk_head_drops_its_back_from_memory() {
    let window = WindowLimits { head_entries_min: 2, ..WindowLimits::default() };
    for (consumers, kept) in [(0, 1), (1, 64)] {
        let mut bench = Bench::with(settings(), QueueLimits { window, ..limits() });
        (0..consumers).for_each(|number| bench.consume(number, 1));
        for at in 1..=200 + consumers {
            bench.publish(&draft(&at.to_string()).persistent());
        }
        bench.write();
        assert_eq!(bench.queue.memory().ready, 200);
        bench.queue.shrink_windows(WindowLimits::SHRINK_STEPS_MAX);
        bench.publish(&draft("last").persistent());
        bench.write();
        assert_eq!((bench.queue.ready_count(), bench.queue.memory().ready), (201, kept), "{consumers} consumers");
        bench.get(7, true);
        assert_eq!(bench.bodies().last(), Some(&(consumers + 1).to_string()));
    }
}

#[test]
fn a_large_message_behind_small_ones_is_read_once() {
    let window = WindowLimits { head_entries: 16, head_bytes: 1 << 10, ..SMALL };
    let mut bench = Bench::with(settings(), QueueLimits { window, ..limits() });
    let large = "x".repeat(8 << 10);
    let bodies = ["1", "2", "3", "4", &large];
    let rows = bodies.iter().zip(rows(1..=5)).map(|(body, row)| {
        let message = draft(body).persistent().enqueue().message;
        Row { message, ..row }
    });
    let body_bytes = 4 + large.len() as u64;
    let state = LaneState { head: Position(1), tail: Position(5), count: 5, body_bytes, lent_ceiling: Position(0) };
    bench.queue.recover_lane(LANE, state, bench.now);
    bench.consume(1, 1);
    let (load, ..) = load_of(&mut bench);
    loaded(&mut bench, load, Some(rows.collect()));
    for body in bodies {
        assert!(bench.effects().is_empty(), "nothing is read again");
        let given = bench.given();
        assert_eq!(given.iter().map(|given| given.body.as_str()).collect::<Vec<_>>(), [body]);
        bench.settle(&given, SettleOutcome::Acknowledged);
        bench.write();
    }
    assert_eq!(bench.queue.durable_count(), 0);
}

/// A queue that the store remembers with one row, so many positions before the last one.
fn near_the_end(left: u64) -> Bench {
    let mut bench = small();
    let at = Position(Position::MAX.0 - left);
    let body_bytes = at.0.to_string().len() as u64;
    let state = LaneState { head: at, tail: at, count: 1, body_bytes, lent_ceiling: at.next() };
    bench.queue.recover_lane(LANE, state, bench.now);
    bench.apply(LocalEvent::Tick);
    let (load, _, _) = load_of(&mut bench);
    loaded(&mut bench, load, Some(rows([at.0])));
    bench
}

#[test]
fn a_lane_without_positions_refuses_and_is_renewed_once_it_is_empty() {
    let mut bench = near_the_end(2);
    for sequence in 1..=4 {
        bench.publish(&draft("x").persistent().confirmed(sequence));
    }
    let effects = bench.effects();
    assert!(matches!(effects[..], [QueueEffect::NoPositions { lane: LANE }]), "reported once: {effects:?}");
    assert_eq!(bench.promised(), [(3, 4, false)]);
    let pulled = bench.write();
    assert_eq!(bench.promised(), [(1, 2, true)]);
    assert_eq!(pulled.lanes[0].inserts.last().unwrap().position, Position::MAX);
    bench.publish(&draft("transient"));
    assert_eq!(bench.queue.ready_count(), 4, "what is not stored needs no position");

    bench.consume(1, 10);
    bench.write();
    let given = bench.given();
    assert_eq!(given.len(), 4);
    bench.publish(&draft("x").persistent().confirmed(5));
    assert_eq!(bench.promised(), [(5, 5, false)], "something of it is still out");

    bench.settle(&given, SettleOutcome::Acknowledged);
    bench.publish(&draft("anew").persistent().confirmed(6));
    bench.apply(QueueCommand::Detach { holder: holder(1) });
    let pulled = bench.write();
    assert_eq!(pulled.drop_lanes, [LANE]);
    let change = &pulled.lanes[0];
    assert_eq!((change.lane.generation, change.inserts[0].position), (1, Position(1)));
    assert_eq!((change.state.count, change.state.tail, change.remove_below), (1, Position(1), None));
    assert_eq!(bench.promised(), [(6, 6, true)]);
}

#[test]
fn a_lane_whose_positions_run_low_is_renewed_when_it_is_empty() {
    let mut bench = near_the_end(1 << 37);
    bench.consume(1, 10);
    let given = bench.given();
    bench.settle(&given, SettleOutcome::Acknowledged);
    bench.publish(&draft("x").persistent());
    let given = bench.given();
    assert!(!given[0].redelivered);
    bench.apply(QueueCommand::Detach { holder: holder(1) });
    let pulled = bench.write();
    assert_eq!((pulled.drop_lanes.len(), pulled.lanes[0].lane.generation), (1, 1));
    assert_eq!(pulled.lanes[0].inserts[0].position, Position(1));
}
