//! Dead letters: how originals leave, and when their promises are kept.

use super::*;
use crate::model::AmqpError;
use crate::queue::{DeadLetterReason, Origin};

fn with_dead_letters() -> Bench {
    Bench::with(QueueSettings { dead_letter_exchange: Some(Name::from("dlx")), ..settings() }, limits())
}

/// A persistent message was rejected; its original is leaving.
fn rejected(bench: &mut Bench) -> Origin {
    bench.publish(&draft("a").persistent().confirmed(1));
    bench.consume(1, 1);
    let given = bench.given();
    bench.settle(&given, Outcome::Rejected);
    let effects = bench.effects();
    let [QueueEffect::DeadLetter { reason: DeadLetterReason::Rejected, leaving: Some(origin), .. }] = &effects[..]
    else {
        panic!("{effects:?}")
    };
    *origin
}

#[test]
fn a_durable_original_stays_until_all_copies_are_safe() {
    let mut bench = with_dead_letters();
    let origin = rejected(&mut bench);
    assert_eq!((bench.queue.ready_count(), bench.queue.unacked_count(), bench.queue.durable_count()), (0, 0, 1));
    bench.apply(QueueInput::CopySettled { leaving: origin.leaving });
    bench.apply(QueueInput::Copies { leaving: origin.leaving, copies: 2 });
    assert!(bench.promised().is_empty(), "its promise passes to the copies");
    bench.apply(QueueInput::CopySettled { leaving: origin.leaving });
    assert_eq!(bench.promised(), [(1, 1, true)]);
    assert_eq!(bench.queue.durable_count(), 0);
    bench.apply(QueueInput::CopySettled { leaving: origin.leaving });
    bench.apply(QueueInput::Copies { leaving: origin.leaving, copies: 0 });
    assert!(bench.promised().is_empty(), "late words are ignored");
}

#[test]
fn without_copies_the_original_goes_at_once() {
    let mut bench = with_dead_letters();
    let origin = rejected(&mut bench);
    bench.apply(QueueInput::Copies { leaving: origin.leaving, copies: 0 });
    assert_eq!(bench.promised(), [(1, 1, true)]);
    assert_eq!(bench.pull().rows, 0, "it was never written");
}

#[test]
fn a_stored_original_keeps_its_row_while_it_is_leaving() {
    let mut bench = with_dead_letters();
    bench.publish(&draft("a").persistent());
    bench.write();
    bench.consume(1, 1);
    let given = bench.given();
    bench.settle(&given, Outcome::Rejected);
    let effects = bench.effects();
    let [QueueEffect::DeadLetter { leaving: Some(origin), .. }] = &effects[..] else { panic!() };
    let leaving = origin.leaving;
    let pulled = bench.write();
    assert_eq!(pulled.removed, 0, "a kill now brings it back");
    assert!(pulled.lanes.iter().all(|change| change.remove_below.is_none() && change.state.count == 1));
    bench.apply(QueueInput::Copies { leaving, copies: 1 });
    bench.apply(QueueInput::CopySettled { leaving });
    let pulled = bench.write();
    assert_eq!((pulled.removed, pulled.lanes[0].state.count), (1, 0));
}

#[test]
fn a_transient_original_is_handed_out_and_forgotten() {
    let mut bench = with_dead_letters();
    bench.publish(&draft("a"));
    bench.consume(1, 1);
    let given = bench.given();
    bench.settle(&given, Outcome::Rejected);
    assert!(matches!(bench.effects()[..], [QueueEffect::DeadLetter { leaving: None, .. }]));
    assert_eq!(bench.out.counts.rejected, 1);
}

#[test]
fn without_an_exchange_for_them_rejected_messages_are_gone() {
    let mut bench = Bench::new();
    bench.publish(&draft("a").persistent().confirmed(1));
    bench.consume(1, 1);
    let given = bench.given();
    bench.settle(&given, Outcome::Rejected);
    assert!(bench.effects().is_empty());
    assert_eq!(bench.promised(), [(1, 1, true)]);
    assert_eq!(bench.queue.durable_count(), 0);
}

#[test]
fn a_copy_tells_the_queue_it_came_from_once_it_is_safe() {
    let mut bench = Bench::new();
    let promise = Promise { owner: PromiseOwner::Queue(QueueId(9)), sequence: 77 };
    let copy = Enqueue { promise: Some(promise), ..draft("a").persistent().enqueue() };
    bench.apply(QueueInput::Publish(vec![copy]));
    assert!(bench.effects().is_empty());
    bench.write();
    assert!(matches!(bench.effects()[..], [QueueEffect::CopySettled { queue: QueueId(9), leaving: 77 }]));
}

#[test]
fn a_failed_queue_refuses_promises_and_answers_for_a_missing_one() {
    let now = Bench::new().now;
    let mut bench = Bench::new();
    bench.queue = QueueState::failed(settings(), limits(), now);
    bench.publish(&draft("a").confirmed(1));
    assert_eq!(bench.promised(), [(1, 1, false)]);
    bench.get(1, true);
    let [Answer::Refused(AmqpError { text, .. })] = &bench.answers()[..] else { panic!() };
    assert_eq!(text, "no queue 'q' in vhost '/'");
}
