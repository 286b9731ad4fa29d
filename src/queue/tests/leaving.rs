//! Dead letters: how originals leave, and when their promises are kept.

use super::*;
use crate::model::AmqpError;
use crate::model::stored::Group;
use crate::queue::{DeadLetterReason, Origin};

fn with_dead_letters() -> Bench {
    Bench::with(QueueSettings { dead_letter_exchange: Some(Name::from("dlx")), ..settings() }, limits())
}

/// A persistent message was rejected; its original is leaving.
fn rejected(bench: &mut Bench) -> Origin {
    bench.publish(&draft("a").persistent().confirmed(1));
    bench.consume(1, 1);
    let given = bench.given();
    bench.settle(&given, SettleOutcome::Rejected);
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
    bench.apply(QueueCommand::CopySettled { leaving: origin.leaving });
    bench.apply(QueueCommand::Copies { leaving: origin.leaving, copies: 2 });
    assert!(bench.promised().is_empty(), "its promise passes to the copies");
    bench.apply(QueueCommand::CopySettled { leaving: origin.leaving });
    assert_eq!(bench.promised(), [(1, 1, true)]);
    assert_eq!(bench.queue.durable_count(), 0);
    bench.apply(QueueCommand::CopySettled { leaving: origin.leaving });
    bench.apply(QueueCommand::Copies { leaving: origin.leaving, copies: 0 });
    assert!(bench.promised().is_empty(), "late words are ignored");
}

#[test]
fn without_copies_the_original_goes_at_once() {
    let mut bench = with_dead_letters();
    let origin = rejected(&mut bench);
    bench.apply(QueueCommand::Copies { leaving: origin.leaving, copies: 0 });
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
    bench.settle(&given, SettleOutcome::Rejected);
    let effects = bench.effects();
    let [QueueEffect::DeadLetter { leaving: Some(origin), .. }] = &effects[..] else { panic!() };
    let leaving = origin.leaving;
    let pulled = bench.write();
    assert_eq!(pulled.removed, 0, "a kill now brings it back");
    assert!(pulled.lanes.iter().all(|change| change.remove_below.is_none() && change.state.count == 1));
    bench.apply(QueueCommand::Copies { leaving, copies: 1 });
    bench.apply(QueueCommand::CopySettled { leaving });
    let pulled = bench.write();
    assert_eq!((pulled.removed, pulled.lanes[0].state.count), (1, 0));
}

#[test]
fn a_transient_original_is_handed_out_and_forgotten() {
    let mut bench = with_dead_letters();
    bench.publish(&draft("a"));
    bench.consume(1, 1);
    let given = bench.given();
    bench.settle(&given, SettleOutcome::Rejected);
    assert!(matches!(bench.effects()[..], [QueueEffect::DeadLetter { leaving: None, .. }]));
    assert_eq!(bench.out.counts.rejected, 1);
}

#[test]
fn without_an_exchange_for_them_rejected_messages_are_gone() {
    let mut bench = Bench::new();
    bench.publish(&draft("a").persistent().confirmed(1));
    bench.consume(1, 1);
    let given = bench.given();
    bench.settle(&given, SettleOutcome::Rejected);
    assert!(bench.effects().is_empty());
    assert_eq!(bench.promised(), [(1, 1, true)]);
    assert_eq!(bench.queue.durable_count(), 0);
}

#[test]
fn a_copy_that_leaves_before_it_is_written_is_reported_to_its_original_queue() {
    let mut bench = Bench::new();
    let promise = Promise { owner: PromiseOwner::Queue(QueueId(9)), sequence: 77 };
    let copy = Enqueue { promise: Some(promise), ..draft("a").persistent().enqueue() };
    bench.apply(QueueCommand::Publish(vec![copy]));
    assert!(bench.effects().is_empty());
    bench.get(1, true);
    assert!(matches!(bench.effects()[..], [QueueEffect::CopySettled { queue: QueueId(9), leaving: 77 }]));
    assert_eq!(bench.pull().rows, 0);
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

#[test]
fn an_original_goes_with_the_commit_of_its_copy_and_its_promise_is_kept_then() {
    let mut bench = with_dead_letters();
    bench.publish(&draft("a").persistent().confirmed(1));
    let first = bench.pull();
    bench.consume(1, 1);
    let given = bench.given();
    bench.stored(first.ticket);
    bench.promised();
    bench.settle(&given, SettleOutcome::Rejected);
    let effects = bench.effects();
    let [QueueEffect::DeadLetter { leaving: Some(origin), .. }] = &effects[..] else { panic!() };
    let leaving = origin.leaving;
    bench.apply(QueueCommand::Copies { leaving, copies: 1 });
    let group = Group { number: 3, parts: 2 };
    bench.apply(LocalEvent::Replaced { leaving: vec![leaving], group });
    let part = bench.out.pulled.pop().expect("a part of the group");
    assert_eq!((part.group, part.removed, part.lanes[0].state.count), (Some(group), 1, 0));
    assert_eq!(bench.queue.durable_count(), 0);
}

#[test]
fn the_promise_of_an_original_that_was_never_written_waits_for_the_commit_of_its_copy() {
    let mut bench = with_dead_letters();
    let leaving = rejected(&mut bench).leaving;
    bench.apply(QueueCommand::Copies { leaving, copies: 2 });
    for number in 1..=2 {
        assert!(bench.promised().is_empty(), "a copy is not safe");
        bench.apply(LocalEvent::Replaced { leaving: vec![leaving], group: Group { number, parts: 2 } });
    }
    let [first, second] = &bench.out.pulled[..] else { panic!("each copy has its group") };
    let (first, second) = (first.ticket, second.ticket);
    assert!(bench.promised().is_empty());
    bench.stored(first);
    assert!(bench.promised().is_empty());
    bench.stored(second);
    assert_eq!(bench.promised(), [(1, 1, true)]);
}

#[test]
fn a_copy_on_its_way_to_the_store_names_its_original() {
    let mut bench = Bench::new();
    let owner = PromiseOwner::Queue(QueueId(9));
    let Enqueue { message, .. } = draft("copy").persistent().enqueue();
    bench.apply(QueueCommand::Publish(vec![Enqueue { message, promise: Some(Promise { owner, sequence: 5 }) }]));
    let pulled = bench.pull();
    assert_eq!(pulled.replaces, [Origin { queue: QueueId(9), leaving: 5 }]);
    bench.stored(pulled.ticket);
    assert!(bench.effects().is_empty(), "the original is gone already");
}

#[test]
fn a_queue_that_has_ended_gives_its_part_of_a_group() {
    let mut bench = with_dead_letters();
    bench.apply(LocalEvent::End);
    let group = Group { number: 1, parts: 2 };
    bench.apply(LocalEvent::Replaced { leaving: vec![1], group });
    bench.apply(LocalEvent::Seal { group, promise: Some(draft("").confirmed(4).enqueue().promise.unwrap()) });
    assert!(bench.out.pulled.iter().all(|part| part.group == Some(group) && part.lanes.is_empty()));
    assert_eq!((bench.out.pulled.len(), bench.promised()), (2, vec![(4, 4, true)]));
}

#[test]
fn a_seal_includes_lent_messages() {
    let mut bench = Bench::new();
    bench.consume(1, 0);
    bench.publish(&draft("a").persistent());
    assert_eq!(bench.pull().rows, 0, "it may be acknowledged in a moment");
    bench.apply(LocalEvent::Seal { group: Group { number: 1, parts: 1 }, promise: None });
    assert_eq!(bench.out.pulled.pop().map(|part| part.rows), Some(1));
}
