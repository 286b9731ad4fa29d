//! Deletion, auto-delete, and the answers of an ended queue.

use super::*;

fn delete(bench: &mut Bench, if_unused: bool, if_empty: bool) {
    let requester = bench.requester(5);
    bench.apply(QueueCommand::Delete { requester, if_unused, if_empty });
}

fn refusal(bench: &mut Bench) -> String {
    match &bench.answers()[..] {
        [Answer::Refused(error)] => error.text.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_queue_with_messages_is_not_deleted_if_empty() {
    let mut bench = Bench::new();
    bench.publish_all(&["a"]);
    delete(&mut bench, false, true);
    assert_eq!(refusal(&mut bench), "queue 'q' in vhost '/' not empty");
    assert!(!bench.queue.has_ended());
}

#[test]
fn a_queue_with_consumers_is_not_deleted_if_unused() {
    let mut bench = Bench::new();
    bench.consume(1, 0);
    bench.answers();
    delete(&mut bench, true, false);
    assert_eq!(refusal(&mut bench), "queue 'q' in vhost '/' in use");
}

#[test]
fn lent_messages_do_not_keep_a_queue() {
    let mut bench = Bench::new();
    bench.publish_all(&["a"]);
    bench.get(1, false);
    delete(&mut bench, true, true);
    assert!(matches!(bench.effects()[..], [QueueEffect::Deleted { message_count: 0, .. }]));
}

#[test]
fn a_deletion_keeps_promises_cancels_consumers_and_counts_messages() {
    let mut bench = Bench::new();
    bench.publish(&draft("a").persistent().confirmed(1));
    bench.pull();
    bench.publish(&draft("b").persistent().confirmed(2));
    bench.publish(&draft("c").persistent().confirmed(3));
    let exclusive = Consume { prefetch: 1, ..bench.consumer(1, 4) };
    bench.apply(QueueCommand::Consume(exclusive));
    delete(&mut bench, false, false);
    assert!(matches!(bench.effects()[..], [QueueEffect::Deleted { message_count: 2, .. }]));
    assert_eq!(bench.promised(), [(1, 3, true)]);
    let is_cancel = |(connection, notice): &(ConnectionId, Notice)| {
        *connection == ConnectionId(1) && matches!(notice, Notice::ConsumerCancelled { consumer: ConsumerSlot(4), .. })
    };
    assert_eq!(bench.out.notices.iter().filter(|notice| is_cancel(notice)).count(), 1);
    assert!(bench.queue.has_ended() && !bench.queue.is_due());
    assert_eq!((bench.queue.ready_count(), bench.queue.unacked_count(), bench.queue.durable_count()), (0, 0, 0));
    assert_eq!(bench.queue.deadline(bench.now), None);
}

#[test]
fn an_ended_queue_answers_as_if_it_had_been_empty_just_before_and_refuses_the_rest() {
    let mut bench = Bench::new();
    bench.apply(LocalEvent::End);
    bench.publish(&draft("a").confirmed(1));
    assert_eq!(bench.promised(), [(1, 1, true)]);
    bench.consume(1, 0);
    bench.get(1, true);
    let requester = bench.requester(1);
    bench.apply(QueueCommand::Status { requester });
    bench.apply(QueueCommand::Purge { requester });
    bench.apply(QueueCommand::Cancel { requester, key: key(1, 1) });
    delete(&mut bench, false, false);
    let answers = bench.answers();
    let refused = answers.iter().filter(|answer| matches!(answer, Answer::Refused(_))).count();
    assert_eq!(refused, 2);
    let counts = |answer: &Answer| match answer {
        Answer::QueueDeclared { message_count, .. } | Answer::Removed { message_count } => Some(*message_count),
        _ => None,
    };
    assert_eq!(answers[2..].iter().map(counts).collect::<Vec<_>>(), [Some(0), Some(0), None]);
    // A second deletion is answered when the first one is durable.
    assert!(matches!(bench.effects()[..], [QueueEffect::Deleted { message_count: 0, .. }]));
    let pulled = bench.pull();
    assert!(pulled.lanes.is_empty() && !pulled.more);
    let events = [LocalEvent::Tick, LocalEvent::Quiesce, LocalEvent::End].map(QueueInput::from);
    for input in events.into_iter().chain([QueueCommand::Detach { holder: holder(1) }.into()]) {
        bench.apply(input);
    }
    assert!(bench.out.notices.is_empty() && bench.effects().is_empty());
}

#[test]
fn waiting_gets_are_refused_when_the_queue_ends() {
    let mut bench = Bench::with(settings(), QueueLimits { window: SMALL, ..limits() });
    let lane = crate::model::Lane { queue: QueueId(1), level: 0, generation: 0 };
    let state = crate::model::stored::LaneState { count: 1, ..Default::default() };
    bench.queue.recover_lane(lane, state, bench.now);
    bench.get(1, true);
    bench.apply(LocalEvent::End);
    assert!(matches!(bench.answers()[..], [Answer::Refused(_)]));
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer() {
    let mut bench = Bench::with(QueueSettings { auto_delete: true, ..settings() }, limits());
    bench.consume(1, 0);
    bench.consume(2, 0);
    let requester = bench.requester(1);
    bench.apply(QueueCommand::Cancel { requester, key: key(1, 1) });
    assert!(bench.effects().is_empty());
    bench.apply(QueueCommand::Detach { holder: holder(2) });
    bench.apply(QueueCommand::Detach { holder: holder(2) });
    assert!(matches!(bench.effects()[..], [QueueEffect::Unused]));
}
