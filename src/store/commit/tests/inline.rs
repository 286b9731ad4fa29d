//! Batches that a caller's thread commits.

use super::{Bench, Event, Offer, TestSource, rows_of};
use crate::store::commit::{Contribution, Source, WriterHandle};
use crate::store::contract::lane;
use crate::store::{BatchNo, CommitOutcome};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Hands a row over and commits it on this thread.
fn commit_here(source: &Arc<TestSource>) {
    let offer = Offer::begin(&source.writer, &source.offers);
    source.add_at_once(1);
    assert!(offer.is_taken_up());
    offer.commit();
}

#[test]
fn who_offers_to_commit_what_it_hands_over_does_so_while_the_writer_sleeps() {
    let mut bench = Bench::idle();
    bench.let_go();
    let source = bench.source(1);
    for number in 1..=3 {
        commit_here(&source);
        assert_eq!((bench.begun().batch_no, bench.stored().1.durable), (BatchNo(number), true));
        assert!(bench.writer.wants_rows() && bench.writer.is_idle());
    }
    assert_eq!((bench.writer.stats().batches, bench.writer.stats().batches_inline), (3, 3));
    let offer = Offer::begin(&bench.writer, &bench.offers);
    assert!(!offer.is_taken_up(), "nothing was handed over");
    drop(offer);
    source.add_at_once(1);
    assert_eq!((bench.begun().batch_no, bench.stored().1.durable), (BatchNo(4), true));
    assert_eq!(bench.writer.stats().batches_inline, 3, "an offer is over when it is over");
}

#[test]
fn what_was_handed_over_under_an_offer_that_is_withdrawn_is_the_writers() {
    let mut bench = Bench::idle();
    bench.let_go();
    let source = bench.source(1);
    let offer = Offer::begin(&bench.writer, &bench.offers);
    source.add_at_once(2);
    drop(offer);
    assert_eq!((rows_of(&bench.begun()).len(), bench.stored().1.durable), (2, true));
    assert_eq!(bench.writer.stats().batches_inline, 0);
}

#[test]
fn an_offer_is_to_one_writer() {
    let (mut one, mut other) = (Bench::idle(), Bench::idle());
    one.let_go();
    other.let_go();
    let offer = Offer::begin(&one.writer, &one.offers);
    other.source(1).add_at_once(1);
    assert!(!offer.is_taken_up());
    assert!(other.stored_after_commit());
    drop(offer);
}

#[test]
fn what_others_hand_over_meanwhile_is_the_writers() {
    let bench = Bench::idle();
    let (source, other) = (bench.source(1), bench.source(2));
    thread::scope(|scope| {
        scope.spawn(|| commit_here(&source));
        assert_eq!(rows_of(&bench.begun()), [(1, 1)]);
        assert!(!bench.writer.wants_rows());
        other.add_at_once(3);
        bench.reply(CommitOutcome::Committed);
        assert_eq!(bench.stored().0, 1);
        assert_eq!(rows_of(&bench.begun()), [(2, 1), (2, 2), (2, 3)]);
        bench.reply(CommitOutcome::Committed);
        assert_eq!(bench.stored().0, 2);
    });
    assert_eq!((bench.writer.stats().batches, bench.writer.stats().batches_inline), (2, 1));
}

#[test]
fn a_commit_that_fails_under_an_offer_is_tried_again_by_the_writer() {
    let bench = Bench::idle();
    let source = bench.source(1);
    for (first, is_looked_up) in
        [(CommitOutcome::NotCommitted("no".into()), false), (CommitOutcome::Unknown("perhaps".into()), true)]
    {
        bench.reply(first);
        let before = bench.writer.stats().batches;
        commit_here(&source);
        let tried = bench.begun().batch_no;
        if is_looked_up {
            assert!(matches!(bench.next(), Event::Reopen), "what became of it is asked before it is tried again");
        }
        bench.reply(CommitOutcome::Committed);
        assert_eq!(bench.begun().batch_no, tried);
        let (_, stored) = bench.stored();
        assert!(stored.durable);
        bench.wait_until(WriterHandle::wants_rows);
        assert_eq!(bench.writer.stats().batches, before + 1);
    }
    assert_eq!(bench.writer.stats().batches_inline, 0);
}

/// Others hand rows over, and the writer's thread wakes, while a caller's thread commits a batch that fails.
#[test]
fn what_others_hand_over_meanwhile_comes_after_a_commit_that_fails() {
    for (first, is_looked_up) in
        [(CommitOutcome::NotCommitted("no".into()), false), (CommitOutcome::Unknown("perhaps".into()), true)]
    {
        let bench = Bench::idle();
        let (source, other) = (bench.source(1), bench.source(2));
        thread::scope(|scope| {
            scope.spawn(|| commit_here(&source));
            assert_eq!(bench.begun().batch_no, BatchNo(1));
            other.add_at_once(1);
            // Long enough for the writer's thread to begin a batch, if it would.
            thread::sleep(Duration::from_millis(20));
            assert!(!bench.writer.is_idle());
            bench.reply(first);
            if is_looked_up {
                assert!(matches!(bench.next(), Event::Reopen));
            }
            bench.reply(CommitOutcome::Committed);
            assert_eq!(bench.begun().batch_no, BatchNo(1), "it is tried again first");
            assert_eq!(bench.stored().0, 1);
            if is_looked_up {
                bench.reply(CommitOutcome::Committed);
                assert_eq!(bench.begun().batch_no, BatchNo(2));
            }
            assert_eq!(bench.stored().0, 2, "a batch that was refused takes in what came meanwhile");
        });
    }
}

#[test]
fn a_stop_waits_for_a_commit_under_an_offer() {
    let bench = Bench::idle();
    let source = bench.source(1);
    thread::scope(|scope| {
        scope.spawn(|| commit_here(&source));
        bench.begun();
        let writer = bench.writer.clone();
        let stopping = scope.spawn(move || writer.stop());
        bench.reply(CommitOutcome::Committed);
        assert!(bench.stored().1.durable);
        assert!(matches!(bench.next(), Event::Closed));
        assert_eq!(stopping.join().unwrap(), Ok(()));
    });
}

#[test]
fn who_offers_leaves_erasing_to_the_writer() {
    let mut bench = Bench::idle();
    bench.let_go();
    let source = bench.source(1);
    let offer = Offer::begin(&bench.writer, &bench.offers);
    let contribution = Contribution { ticket: 1, drop_lanes: vec![lane(1)], rows: 1, ..Contribution::default() };
    bench.writer.contribute(Arc::clone(&source) as Arc<dyn Source>, contribution);
    offer.commit();
    bench.begun();
    assert!(bench.stored().1.durable);
    for _ in 0..3 {
        assert!(matches!(bench.next(), Event::Erase));
    }
}
