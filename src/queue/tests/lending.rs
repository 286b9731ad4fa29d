//! Which consumer gets a message, and how messages come back.

use super::*;

#[test]
fn messages_go_out_in_the_order_in_which_they_came() {
    let mut bench = Bench::new();
    bench.publish_all(&["a", "b", "c"]);
    bench.consume(1, 0);
    assert_eq!(bench.bodies(), ["a", "b", "c"]);
    assert_eq!((bench.queue.ready_count(), bench.queue.unacked_count()), (0, 3));
    assert_eq!((bench.queue.ready_bytes(), bench.queue.unacked_bytes()), (0, 3));
}

#[test]
fn consumers_take_turns() {
    let mut bench = Bench::new();
    for connection in 1..=3 {
        bench.consume(connection, 0);
    }
    bench.publish_all(&["a", "b", "c", "d", "e", "f"]);
    let to: Vec<_> = bench.given().into_iter().map(|given| given.connection).collect();
    assert_eq!(to, [1, 2, 3, 1, 2, 3]);
}

#[test]
fn a_consumer_of_higher_priority_goes_first_until_it_is_full() {
    let mut bench = Bench::new();
    bench.consume(1, 0);
    let urgent = Consume { priority: 5, prefetch: 2, ..bench.consumer(2, 1) };
    bench.apply(QueueCommand::Consume(urgent));
    bench.publish_all(&["a", "b", "c"]);
    let given = bench.given();
    assert_eq!(given.iter().map(|given| given.connection).collect::<Vec<_>>(), [2, 2, 1]);
    bench.settle(&given[..1], SettleOutcome::Acknowledged);
    bench.publish_all(&["d"]);
    assert_eq!(bench.given()[0].connection, 2);
}

#[test]
fn higher_levels_go_first_and_each_keeps_its_order() {
    let mut bench = Bench::with(QueueSettings { priority_max: 5, ..settings() }, limits());
    for (body, priority) in [("a", 0), ("b", 3), ("c", 9), ("d", 3), ("e", 5)] {
        bench.publish(&draft(body).priority(priority));
    }
    bench.consume(1, 0);
    assert_eq!(bench.bodies(), ["c", "e", "b", "d", "a"]);
}

#[test]
fn all_levels_of_the_widest_queue_are_kept_apart() {
    let mut bench = Bench::with(QueueSettings { priority_max: 255, ..settings() }, limits());
    for priority in [0, 255, 63, 64, 128] {
        bench.publish(&draft(&priority.to_string()).priority(priority));
    }
    bench.consume(1, 0);
    assert_eq!(bench.bodies(), ["255", "128", "64", "63", "0"]);
}

#[test]
fn prefetch_bounds_unacknowledged_messages() {
    let mut bench = Bench::new();
    bench.consume(1, 2);
    bench.publish_all(&["a", "b", "c", "d"]);
    let given = bench.given();
    assert_eq!(given.len(), 2);
    bench.settle(&given[1..], SettleOutcome::Acknowledged);
    assert_eq!(bench.bodies(), ["c"]);
}

#[test]
fn prefetch_does_not_bound_a_consumer_without_acknowledgements() {
    let mut bench = Bench::new();
    let consume = Consume { prefetch: 1, no_ack: true, ..bench.consumer(1, 1) };
    bench.apply(QueueCommand::Consume(consume));
    bench.publish_all(&["a", "b", "c"]);
    let given = bench.given();
    assert!(given.iter().all(|given| given.lend.is_none()) && given.len() == 3);
    assert_eq!(bench.queue.unacked_count(), 0);
    assert_eq!(bench.out.counts.delivered_auto_ack, 3);
}

#[test]
fn a_channels_own_limit_is_shared_by_its_consumers() {
    let mut bench = Bench::new();
    bench.permits.free.insert(ConnectionId(1), 2);
    for slot in 1..=2 {
        let consume = Consume { channel_limit: Some(LIMIT), ..bench.consumer(1, slot) };
        bench.apply(QueueCommand::Consume(consume));
    }
    bench.publish_all(&["a", "b", "c", "d"]);
    let slots: Vec<_> = bench.given().into_iter().map(|given| given.slot).collect();
    assert_eq!(slots, [1, 2]);
    assert!(!bench.permits.refused.is_empty(), "the queue stands in line for permits");
    bench.grant(1, 1);
    assert_eq!(bench.bodies(), ["c"]);
    bench.apply(QueueCommand::ChannelLimit { holder: holder(1), limit: None });
    assert_eq!(bench.bodies(), ["d"], "without a limit nobody is asked");
}

#[test]
fn a_permit_goes_to_the_consumer_of_the_highest_priority_that_waits() {
    let mut bench = Bench::new();
    bench.permits.free.insert(ConnectionId(1), 0);
    for slot in 1..=3 {
        let consume = Consume { channel_limit: Some(LIMIT), priority: i64::from(slot), ..bench.consumer(1, slot) };
        bench.apply(QueueCommand::Consume(consume));
    }
    // The highest finds no permit, and another channel takes the message before the others are asked.
    let of_other = Consume { priority: 3, ..bench.consumer(2, 1) };
    bench.apply(QueueCommand::Consume(of_other));
    bench.publish_all(&["a"]);
    assert_eq!(bench.given()[0].connection, 2);
    let requester = bench.requester(2);
    bench.apply(QueueCommand::Cancel { requester, key: key(2, 1) });
    bench.grant(1, 1);
    bench.publish_all(&["b"]);
    assert_eq!(bench.given()[0].slot, 3);
}

#[test]
fn a_channel_at_its_limit_leaves_messages_to_others() {
    let mut bench = Bench::new();
    bench.permits.free.insert(ConnectionId(1), 0);
    let consume = Consume { channel_limit: Some(LIMIT), priority: 9, ..bench.consumer(1, 1) };
    bench.apply(QueueCommand::Consume(consume));
    bench.consume(2, 0);
    bench.publish_all(&["a"]);
    assert_eq!(bench.given()[0].connection, 2);
}

#[test]
fn the_window_bounds_unwritten_deliveries_and_grows_for_consumers_that_keep_up() {
    let consumer = ConsumerLimits { messages: 2, messages_max: 3, bytes_max: 1 << 18, unacked_max: u32::MAX };
    let mut bench = Bench::with(settings(), QueueLimits { consumer, ..limits() });
    bench.consume(1, 0);
    bench.publish_all(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    assert_eq!(bench.bodies(), ["a", "b"]);
    bench.apply(QueueCommand::Written { consumer: key(1, 1), count: 2, bytes: 2 });
    assert_eq!(bench.bodies(), ["c", "d", "e"], "twice the window, and at most messages_max");
    bench.apply(QueueCommand::Written { consumer: key(1, 1), count: 1, bytes: 1 });
    assert_eq!(bench.bodies(), ["f"]);
}

#[test]
fn the_window_counts_bytes_and_allows_one_message() {
    let consumer = ConsumerLimits { messages: 64, messages_max: 64, bytes_max: 3, unacked_max: u32::MAX };
    let mut bench = Bench::with(settings(), QueueLimits { consumer, ..limits() });
    bench.consume(1, 0);
    bench.publish_all(&["a long one", "b"]);
    assert_eq!(bench.bodies(), ["a long one"]);
    bench.apply(QueueCommand::Written { consumer: key(1, 1), count: 1, bytes: 10 });
    assert_eq!(bench.bodies(), ["b"]);
}

#[test]
fn a_requeued_message_returns_to_its_place_redelivered() {
    let mut bench = Bench::new();
    bench.publish_all(&["a", "b", "c", "d"]);
    bench.consume(1, 3);
    let given = bench.given();
    bench.apply(QueueCommand::Detach { holder: holder(1) });
    assert_eq!(bench.queue.ready_count(), 4);
    bench.consume(2, 0);
    let again = bench.given();
    assert_eq!(again.iter().map(|given| given.body.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!(again.iter().map(|given| given.redelivered).collect::<Vec<_>>(), [true, true, true, false]);
    bench.settle(&given, SettleOutcome::Acknowledged);
    assert_eq!(bench.queue.unacked_count(), 4, "lendings that ended are ignored");
    assert_eq!(bench.out.counts.redelivered, 3);
}

#[test]
fn a_requeued_message_goes_before_those_behind_it() {
    let mut bench = Bench::new();
    bench.publish_all(&["a", "b", "c", "d"]);
    bench.consume(1, 2);
    let given = bench.given();
    let requester = bench.requester(1);
    bench.apply(QueueCommand::Cancel { requester, key: key(1, 1) });
    bench.settle(&given[1..], SettleOutcome::Requeued);
    bench.settle(&given[..1], SettleOutcome::Requeued);
    bench.consume(2, 0);
    assert_eq!(bench.bodies(), ["a", "b", "c", "d"]);
}

#[test]
fn a_bounced_delivery_returns_untouched_and_gives_its_window_back() {
    let consumer = ConsumerLimits { messages: 1, messages_max: 1, bytes_max: 1 << 18, unacked_max: u32::MAX };
    let mut bench = Bench::with(settings(), QueueLimits { consumer, ..limits() });
    bench.publish_all(&["a"]);
    bench.consume(1, 0);
    let given = bench.given();
    bench.apply(QueueCommand::Bounce { lend: given[0].lend.expect("lent") });
    let again = bench.given();
    assert_eq!((again[0].body.as_str(), again[0].redelivered), ("a", false));
    assert_ne!(again[0].lend, given[0].lend, "each lending has a name of its own");
    bench.apply(QueueCommand::Bounce { lend: given[0].lend.expect("lent") });
    assert_eq!(bench.queue.unacked_count(), 1, "a bounce that comes too late is ignored");
}

#[test]
fn a_cancelled_consumer_keeps_what_it_holds_and_gets_no_more() {
    let mut bench = Bench::new();
    bench.consume(1, 1);
    bench.publish_all(&["a", "b"]);
    let given = bench.given();
    let requester = bench.requester(1);
    bench.apply(QueueCommand::Cancel { requester, key: key(1, 1) });
    assert_eq!((bench.queue.consumer_count(), bench.queue.unacked_count()), (0, 1));
    bench.settle(&given, SettleOutcome::Acknowledged);
    assert_eq!((bench.bodies().len(), bench.queue.ready_count()), (0, 1));
    assert_eq!(bench.out.counts.acknowledged, 1);
}

#[test]
fn cancelling_an_unknown_consumer_is_answered() {
    let mut bench = Bench::new();
    let requester = bench.requester(1);
    bench.apply(QueueCommand::Cancel { requester, key: key(1, 7) });
    assert!(matches!(bench.answers()[..], [Answer::Cancelled]));
}

#[test]
fn a_detach_takes_back_all_deliveries_of_the_channel_and_no_others() {
    let mut bench = Bench::new();
    bench.publish_all(&["a", "b", "c"]);
    bench.get(1, false);
    bench.consume(1, 1);
    bench.consume(2, 1);
    assert_eq!(bench.bodies(), ["a", "b", "c"]);
    bench.apply(QueueCommand::Detach { holder: holder(1) });
    assert_eq!((bench.queue.ready_count(), bench.queue.unacked_count()), (2, 1));
    bench.apply(QueueCommand::Detach { holder: holder(1) });
    assert_eq!((bench.queue.ready_count(), bench.queue.consumer_count()), (2, 1));
}

#[test]
fn an_exclusive_consumer_is_alone() {
    let mut bench = Bench::new();
    bench.consume(1, 0);
    let exclusive = Consume { exclusive: true, ..bench.consumer(2, 1) };
    bench.apply(QueueCommand::Consume(exclusive.clone()));
    let [Answer::Consuming { queue: QueueId(1) }, Answer::Refused(error)] = &bench.answers()[..] else { panic!() };
    assert_eq!(error.text, "queue 'q' in vhost '/' in exclusive use");
    bench.apply(QueueCommand::Detach { holder: holder(1) });
    bench.apply(QueueCommand::Consume(exclusive));
    bench.consume(3, 0);
    assert!(matches!(bench.answers()[..], [Answer::Consuming { .. }, Answer::Refused(_)]));
    bench.apply(QueueCommand::Detach { holder: holder(2) });
    bench.consume(3, 0);
    assert!(matches!(bench.answers()[..], [Answer::Consuming { .. }]));
    assert_eq!(bench.queue.consumer_tags().len(), 1);
}

#[test]
fn get_takes_the_first_message_and_counts_the_others() {
    let mut bench = Bench::new();
    bench.publish_all(&["a", "b"]);
    bench.get(1, true);
    bench.get(1, false);
    bench.get(1, false);
    let answers = bench.answers();
    let [Answer::Got { message_count: 1, .. }, Answer::Got { message_count: 0, .. }, Answer::GetEmpty] = answers[..]
    else {
        panic!("{answers:?}")
    };
    assert_eq!((bench.queue.ready_count(), bench.queue.unacked_count()), (0, 1));
    let counts = bench.out.counts;
    assert_eq!((counts.got_auto_ack, counts.got_manual_ack, counts.get_empty), (1, 1, 1));
}

#[test]
fn status_counts_ready_messages_and_consumers() {
    let mut bench = Bench::new();
    bench.consume(1, 1);
    bench.publish_all(&["a", "b", "c"]);
    let requester = bench.requester(2);
    bench.apply(QueueCommand::Status { requester });
    let answers = bench.answers();
    let declared = |answer: &&Answer| matches!(answer, Answer::QueueDeclared { queue, message_count: 2, consumer_count: 1 } if queue.as_str() == "q");
    assert_eq!(answers.iter().filter(declared).count(), 1);
}

#[test]
fn a_settlement_of_an_earlier_lending_does_not_affect_a_reused_slot() {
    let mut bench = Bench::new();
    bench.consume(1, 1);
    bench.publish_all(&["a"]);
    let first = bench.given();
    bench.settle(&first, SettleOutcome::Acknowledged);
    bench.publish_all(&["b"]);
    let second = bench.given();
    assert_eq!(first[0].lend.map(|lend| lend.slot), second[0].lend.map(|lend| lend.slot));
    bench.settle(&first, SettleOutcome::Rejected);
    assert_eq!(bench.queue.unacked_count(), 1);
}
