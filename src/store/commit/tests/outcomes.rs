//! What becomes of a batch that the store refuses, loses or cannot take.

use super::{Bench, Event, Reply, group, rows_of, vhost};
use crate::model::Position;
use crate::store::commit::{Contribution, ContributionOutcome, WriterHandle, WriterSettings, WriterState};
use crate::store::contract::{change, lane};
use crate::store::{BatchNo, CommitOutcome, LaneState};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn a_batch_that_was_not_committed_is_tried_again_with_what_has_come_meanwhile() {
    let bench = Bench::idle();
    let source = bench.source(1);
    source.add_at_once(3);
    let first = bench.begun();
    bench.reply(CommitOutcome::NotCommitted("disk full".into()));
    for _ in 0..3 {
        let again = bench.begun();
        assert_eq!(again.batch_no, first.batch_no);
        assert!(rows_of(&again).starts_with(&rows_of(&first)));
        let stats = bench.writer.stats();
        assert_eq!((stats.state, stats.last_error.as_deref()), (WriterState::Retrying, Some("disk full")));
        source.add(1);
        bench.reply(CommitOutcome::NotCommitted("disk full".into()));
    }
    let mut rows = rows_of(&bench.begun());
    bench.reply(CommitOutcome::Committed);
    // What came last is in this batch or in the next one.
    while rows.len() < 6 {
        match bench.next() {
            Event::Commit(next) => {
                rows.extend(rows_of(&next));
                bench.reply(CommitOutcome::Committed);
            }
            Event::Stored(1, stored) => assert!(stored.durable),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rows, (1..=6).map(|row| (1, row)).collect::<Vec<_>>());
    assert!(bench.writer.flush());
    let stats = bench.writer.stats();
    assert_eq!((stats.state, stats.retries, stats.rows_inserted), (WriterState::Ok, 4, 6));
    assert_eq!(stats.commit_buckets.iter().sum::<u64>(), stats.batches);
}

#[test]
fn rows_that_are_acknowledged_while_the_store_refuses_them_are_not_written() {
    let bench = Bench::idle();
    let source = bench.source(1);
    source.add_at_once(3);
    bench.begun();
    let mut change = change(lane(1));
    change.removes = vec![Position(1), Position(3)];
    change.state = LaneState { count: 1, ..LaneState::default() };
    let removal = Contribution { ticket: 2, lanes: vec![change], rows: 2, ..Contribution::default() };
    bench.writer.contribute(source, removal);
    bench.reply(CommitOutcome::NotCommitted("disk full".into()));
    let mut batch = bench.begun();
    while rows_of(&batch).len() == 3 {
        bench.reply(CommitOutcome::NotCommitted("disk full".into()));
        batch = bench.begun();
    }
    assert_eq!((batch.batch_no, batch.lanes.len(), rows_of(&batch)), (BatchNo(1), 1, vec![(1, 2)]));
    assert_eq!(batch.lanes[0].state.count, 1);
    bench.reply(CommitOutcome::Committed);
    let told = [bench.stored(), bench.stored()];
    assert_eq!(told.map(|(_, stored)| (stored.ticket, stored.durable)), [(1, true), (2, true)]);
}

#[test]
fn what_only_removes_rows_is_committed_while_the_rows_to_insert_are_refused() {
    let bench = Bench::idle();
    let (source, other) = (bench.source(1), bench.source(2));
    source.add_at_once(3);
    bench.begun();
    bench.reply(CommitOutcome::Committed);
    bench.stored();
    bench.wait_until(WriterHandle::wants_rows);
    // Rows that do not fit, in the same lane and in another, and acknowledgements of rows that the store has.
    source.add_at_once(2);
    bench.begun();
    other.add_at_once(1);
    let mut change = change(lane(1));
    change.removes = vec![Position(1), Position(3)];
    change.state = LaneState { tail: Position(5), count: 3, ..LaneState::default() };
    let removal = Contribution { ticket: 3, lanes: vec![change], rows: 2, ..Contribution::default() };
    bench.writer.contribute(Arc::clone(&source) as _, removal);
    let full = || CommitOutcome::NotCommitted("disk full".into());
    bench.reply(full());
    let removals = loop {
        let batch = bench.begun();
        if rows_of(&batch).is_empty() {
            break batch;
        }
        bench.reply(full());
    };
    assert_eq!((removals.batch_no, removals.lanes.len()), (BatchNo(2), 1));
    assert_eq!(removals.lanes[0].removes, [Position(1), Position(3)]);
    assert_eq!(removals.lanes[0].state, LaneState { tail: Position(5), count: 1, ..LaneState::default() });
    bench.reply(CommitOutcome::Committed);
    let rest = bench.begun();
    assert_eq!((rest.batch_no, rows_of(&rest).len()), (BatchNo(3), 3), "the next number");
    assert!(rest.lanes.iter().all(|change| change.removes.is_empty()));
    bench.reply(CommitOutcome::Committed);
    for _ in 0..3 {
        assert_eq!((bench.stored().1.batch_no, true), (BatchNo(3), true));
    }
    bench.wait_until(WriterHandle::wants_rows);
    source.add_at_once(1);
    assert_eq!(bench.begun().batch_no, BatchNo(4));
}

#[test]
fn removals_of_a_group_wait_for_the_rest_of_it_on_a_full_disk_too() {
    let bench = Bench::idle();
    let (source, other) = (bench.source(1), bench.source(2));
    let mut change = change(lane(1));
    change.removes = vec![Position(1)];
    let groups = vec![group(1, 2)];
    let removal = Contribution { ticket: 1, lanes: vec![change], rows: 1, groups, ..Contribution::default() };
    bench.writer.contribute(Arc::clone(&source) as _, removal);
    other.add_part(1, &[group(1, 2)]);
    for _ in 0..4 {
        let batch = bench.begun();
        assert_eq!((batch.batch_no, rows_of(&batch)), (BatchNo(1), vec![(2, 1)]), "whole each time");
        bench.reply(CommitOutcome::NotCommitted("disk full".into()));
    }
}

#[test]
fn an_unknown_outcome_is_looked_up() {
    let bench = Bench::idle();
    let source = bench.source(1);
    source.add_at_once(1);
    bench.begun();
    *bench.last_on_disk.lock().unwrap() = BatchNo(1);
    bench.reply(CommitOutcome::Unknown("flush failed".into()));
    assert!(matches!(bench.next(), Event::Reopen));
    assert_eq!(
        bench.stored(),
        (1, ContributionOutcome { ticket: 1, batch_no: BatchNo(1), durable: true }),
        "it was there"
    );

    source.add_at_once(1);
    assert_eq!(bench.begun().batch_no, BatchNo(2));
    bench.reply(CommitOutcome::Unknown("flush failed".into()));
    assert!(matches!(bench.next(), Event::Reopen));
    assert_eq!(bench.begun().batch_no, BatchNo(2), "it was not there");
    bench.reply(CommitOutcome::Committed);
    assert_eq!(bench.stored(), (1, ContributionOutcome { ticket: 2, batch_no: BatchNo(2), durable: true }));
}

#[test]
fn a_store_that_never_knows_is_given_up() {
    let give_up_after = Duration::from_millis(300);
    let bench = Bench::start(WriterSettings { give_up_after, ..WriterSettings::default() });
    let began = Instant::now();
    bench.source(1).add_at_once(1);
    let told = loop {
        match bench.next() {
            Event::Commit(_) => bench.reply(CommitOutcome::Unknown("flush failed".into())),
            Event::Stored(_, stored) => break stored,
            _ => {}
        }
    };
    assert!(!told.durable && began.elapsed() >= give_up_after);
    assert_eq!(bench.writer.stats().state, WriterState::Failed);
}

fn fails_for_good(reply: Reply) {
    let bench = Bench::idle();
    let (first, second) = (bench.source(1), bench.source(2));
    first.add_at_once(1);
    bench.begun();
    second.add_at_once(1);
    bench.writer.topology(vec![vhost("/")], bench.then("put"));
    bench.replies.as_ref().unwrap().send(reply).unwrap();
    assert_eq!(bench.stored(), (1, ContributionOutcome { ticket: 1, batch_no: BatchNo(1), durable: false }));
    assert!(matches!(bench.next(), Event::Then("put", false)));
    let (id, stored) = bench.stored();
    assert_eq!((id, stored.ticket, stored.durable), (2, 1, false));
    second.add(1);
    assert!(!bench.stored().1.durable);
    bench.writer.topology(vec![vhost("/")], bench.then("later"));
    assert!(matches!(bench.next(), Event::Then("later", false)));
    bench.wait_until(WriterHandle::wants_rows);
    bench.writer.topology(Vec::new(), bench.then("barrier"));
    assert!(matches!(bench.next(), Event::Then("barrier", false)));
    assert!(!bench.writer.flush());
    assert!(bench.writer.stop().is_err());
}

#[test]
fn after_a_fatal_outcome_nothing_is_durable() {
    fails_for_good(Reply::Outcome(CommitOutcome::Fatal("corrupt".into())));
}

#[test]
fn a_fenced_store_makes_nothing_durable() {
    fails_for_good(Reply::Outcome(CommitOutcome::Fenced));
}

#[test]
fn a_panic_in_the_store_leaves_nobody_waiting() {
    fails_for_good(Reply::Panic);
}
