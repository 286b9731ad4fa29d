//! The contributions to the writer, and when promises are kept.

use super::*;
use crate::model::Position;
use crate::model::stored::PositionRange;

fn persistent(bench: &mut Bench, bodies: &[&str]) {
    for body in bodies {
        bench.publish(&draft(body).persistent());
    }
}

#[test]
fn transient_messages_keep_their_promise_at_once_and_are_never_written() {
    let mut bench = Bench::new();
    bench.publish(&draft("a").confirmed(1));
    assert_eq!(bench.promised(), [(1, 1, true)]);
    assert!(!bench.queue.is_due() && bench.pull().lanes.is_empty());
}

#[test]
fn a_queue_that_is_not_durable_writes_nothing() {
    let mut bench = Bench::with(QueueSettings { durable: false, ..settings() }, limits());
    bench.publish(&draft("a").persistent().confirmed(1));
    assert_eq!(bench.promised(), [(1, 1, true)]);
    assert!(bench.pull().lanes.is_empty());
}

#[test]
fn a_persistent_message_keeps_its_promise_when_it_is_flushed() {
    let mut bench = Bench::new();
    for sequence in 1..=3 {
        bench.publish(&draft("a").persistent().confirmed(sequence));
    }
    assert!(bench.queue.is_due());
    let pulled = bench.pull();
    assert_eq!((pulled.rows, inserted(&pulled).len()), (3, 3));
    assert!(bench.promised().is_empty());
    bench.stored(pulled.ticket);
    assert_eq!(bench.promised(), [(1, 3, true)], "neighbours are one notice");
    assert!(!bench.queue.is_due());
}

#[test]
fn promises_with_a_gap_are_separate_notices() {
    let mut bench = Bench::new();
    for sequence in [1, 2, 5, 6] {
        bench.publish(&draft("a").confirmed(sequence));
    }
    assert_eq!(bench.promised(), [(1, 2, true), (5, 6, true)]);
}

#[test]
fn a_refused_ticket_refuses_its_promises_and_keeps_the_messages() {
    let mut bench = Bench::with(settings(), QueueLimits { window: SMALL, ..limits() });
    for sequence in 1..=30 {
        bench.publish(&draft("a").persistent().confirmed(sequence));
    }
    let ticket = bench.pull().ticket;
    bench.apply(LocalEvent::Stored { ticket, durable: false });
    assert_eq!(bench.promised(), [(1, 30, false)]);
    let later = bench.pull().ticket;
    bench.stored(later);
    assert_eq!(bench.queue.memory().ready, 30, "nothing is left to a store that has failed");
}

#[test]
fn outcomes_come_in_order_and_one_may_cover_several_tickets() {
    let mut bench = Bench::new();
    bench.publish(&draft("a").persistent().confirmed(1));
    bench.pull();
    bench.publish(&draft("b").persistent().confirmed(2));
    let second = bench.pull().ticket;
    bench.stored(second);
    assert_eq!(bench.promised(), [(1, 2, true)]);
}

#[test]
fn a_message_acknowledged_while_young_is_never_written() {
    let mut bench = Bench::new();
    bench.consume(1, 0);
    bench.publish(&draft("a").persistent().confirmed(1));
    let given = bench.given();
    bench.settle(&given, SettleOutcome::Acknowledged);
    assert_eq!(bench.promised(), [(1, 1, true)]);
    assert_eq!((bench.out.counts.durable_in, bench.out.counts.never_written), (1, 1));
    assert_eq!(bench.pull().rows, 0);
}

#[test]
fn a_lent_young_message_is_held_for_a_moment() {
    let mut bench = Bench::new();
    bench.consume(1, 0);
    bench.publish(&draft("a").persistent());
    bench.given();
    assert!(!bench.queue.is_due());
    let pulled = bench.pull();
    assert_eq!(pulled.rows, 0, "twice the ack time has not passed");
    let deadline = bench.queue.deadline(bench.now).expect("it falls due");
    assert!(deadline <= bench.now.monotonic.plus(HoldLimits::default().hold_max));
    bench.after(deadline.since(bench.now.monotonic));
    bench.apply(LocalEvent::Tick);
    assert!(bench.queue.is_due());
    let pulled = bench.pull();
    assert!(pulled.rows == 1 && pulled.lanes[0].inserts[0].redelivered, "it was handed over before");
}

#[test]
fn nothing_is_held_while_consumers_are_slow() {
    let mut bench = Bench::new();
    bench.consume(1, 0);
    for _ in 0..20 {
        bench.publish(&draft("a").persistent());
        bench.after(Duration::from_millis(100));
        let given = bench.given();
        bench.settle(&given, SettleOutcome::Acknowledged);
    }
    bench.publish(&draft("b").persistent());
    assert!(bench.queue.is_due());
    assert_eq!(bench.pull().rows, 1);
}

#[test]
fn a_held_message_that_comes_back_is_due_at_once() {
    let mut bench = Bench::new();
    bench.consume(1, 0);
    bench.publish(&draft("a").persistent());
    bench.apply(QueueCommand::Detach { holder: holder(1) });
    assert!(bench.queue.is_due());
    assert!(bench.pull().lanes[0].inserts[0].redelivered);
}

#[test]
fn a_pull_keeps_to_its_limits_and_reports_that_more_is_due() {
    let mut bench = Bench::new();
    persistent(&mut bench, &["a", "b", "c"]);
    let first = bench.pull_some(2, 1 << 20);
    assert_eq!((inserted(&first), first.more), (vec!["a".into(), "b".into()], true));
    assert!(bench.queue.is_due());
    let second = bench.pull_some(2, 1);
    assert_eq!((inserted(&second), second.more), (vec!["c".into()], false), "at least one row");
    persistent(&mut bench, &["d", "e"]);
    let third = bench.pull_some(9, 1);
    assert_eq!((inserted(&third), third.more), (vec!["d".into()], true));
}

#[test]
fn changes_of_lanes_carry_their_state() {
    let mut bench = Bench::with(QueueSettings { priority_max: 2, ..settings() }, limits());
    persistent(&mut bench, &["aa", "bbb"]);
    bench.publish(&draft("c").persistent().priority(2));
    let pulled = bench.write();
    let state =
        |at: usize| (pulled.lanes[at].lane.level, pulled.lanes[at].state.count, pulled.lanes[at].state.body_bytes);
    assert_eq!((state(0), state(1)), ((0, 2, 5), (2, 1, 1)));
    assert_eq!(pulled.lanes[0].state.tail, Position(2));
    assert_eq!((bench.queue.durable_count(), bench.queue.durable_bytes()), (3, 6));
}

#[test]
fn acknowledgements_in_order_move_the_watermark_and_others_go_as_keys() {
    let mut bench = Bench::new();
    persistent(&mut bench, &["a", "b", "c", "d"]);
    bench.write();
    bench.consume(1, 0);
    let given = bench.given();
    bench.settle(&given[2..3], SettleOutcome::Acknowledged);
    let pulled = bench.write();
    assert_eq!((pulled.lanes[0].remove_below, &pulled.lanes[0].removes[..]), (None, &[Position(3)][..]));
    bench.settle(&given[..2], SettleOutcome::Acknowledged);
    assert!(!bench.queue.is_due(), "it waits for a commit to ride along");
    bench.tick_after(20);
    assert!(bench.queue.is_due());
    let pulled = bench.write();
    assert_eq!((pulled.lanes[0].remove_below, pulled.lanes[0].removes.len()), (Some(Position(4)), 0));
    assert_eq!((pulled.removed, pulled.lanes[0].state.count, pulled.lanes[0].state.head), (2, 1, Position(4)));
}

#[test]
fn a_stop_in_good_order_leaves_the_exact_ceiling() {
    let mut bench = Bench::new();
    persistent(&mut bench, &["a", "b"]);
    bench.write();
    bench.consume(1, 1);
    bench.write();
    bench.apply(QueueCommand::Detach { holder: holder(1) });
    bench.apply(LocalEvent::Quiesce);
    assert!(bench.queue.is_due());
    assert_eq!(bench.write().lanes[0].state.lent_ceiling, Position(2));
}

#[test]
fn a_purge_abandons_a_lane_without_live_rows() {
    let mut bench = Bench::new();
    persistent(&mut bench, &["a", "b"]);
    bench.write();
    let requester = bench.requester(1);
    bench.apply(QueueCommand::Purge { requester });
    assert!(bench.answers().is_empty(), "it is not flushed yet");
    persistent(&mut bench, &["c"]);
    let pulled = bench.write();
    assert!(matches!(bench.answers()[..], [Answer::Removed { message_count: 2 }]));
    assert_eq!((pulled.drop_lanes.len(), pulled.drop_lanes[0].generation), (1, 0));
    assert_eq!((pulled.lanes[0].lane.generation, pulled.lanes[0].state.count), (1, 1));
    assert_eq!(bench.queue.durable_count(), 1);
}

#[test]
fn a_purge_keeps_lent_messages() {
    let mut bench = Bench::with(settings(), QueueLimits { window: SMALL, ..limits() });
    persistent(&mut bench, &["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m"]);
    bench.write();
    bench.consume(1, 1);
    let given = bench.given();
    assert!(bench.queue.memory().ready < 12, "some of it is only in the store");
    let requester = bench.requester(1);
    bench.apply(QueueCommand::Purge { requester });
    assert!(bench.queue.is_due());
    let pulled = bench.write();
    assert!(bench.answers().iter().any(|answer| matches!(answer, Answer::Removed { message_count: 12 })));
    assert!(pulled.drop_lanes.is_empty());
    let change = &pulled.lanes[0];
    assert_eq!((change.state.count, change.state.body_bytes, pulled.removed), (1, 1, 12));
    let PositionRange { from, to } = change.remove_ranges[0];
    assert!(from > Position(1) && to <= Position(13));
    bench.settle(&given, SettleOutcome::Requeued);
    assert_eq!(bench.bodies(), ["a"]);
}

#[test]
fn a_purge_beside_a_lent_message_is_written_without_waiting_for_another_message() {
    let mut bench = Bench::new();
    persistent(&mut bench, &["a", "b"]);
    bench.write();
    bench.consume(1, 1);
    bench.write();
    let requester = bench.requester(1);
    bench.apply(QueueCommand::Purge { requester });
    assert!(bench.queue.is_due());
    assert_eq!(bench.write().lanes[0].removes, [Position(2)]);
}

#[test]
fn a_purge_of_young_messages_keeps_their_promises_and_writes_nothing() {
    let mut bench = Bench::new();
    bench.publish(&draft("a").persistent().confirmed(1));
    let requester = bench.requester(1);
    bench.apply(QueueCommand::Purge { requester });
    assert_eq!(bench.promised(), [(1, 1, true)]);
    let pulled = bench.pull();
    assert!(pulled.lanes.is_empty() && pulled.drop_lanes.is_empty());
}
