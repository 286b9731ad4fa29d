//! Length limits.

use super::*;
use crate::model::Position;
use crate::model::stored::Row;
use crate::queue::{DeadLetterReason, LoadedRows, Overflow};

fn of_two(overflow: Overflow) -> QueueSettings {
    QueueSettings { length_max: Some(2), overflow, ..settings() }
}

#[test]
fn drop_head_drops_the_oldest_and_confirms_it() {
    let mut bench = Bench::with(of_two(Overflow::DropHead), limits());
    for (body, sequence) in [("a", 1), ("b", 2), ("c", 3)] {
        bench.publish(&draft(body).persistent().confirmed(sequence));
    }
    assert_eq!(bench.promised(), [(1, 1, true)]);
    assert_eq!(bench.out.counts.overflowed, 1);
    bench.consume(1, 0);
    assert_eq!(bench.bodies(), ["b", "c"]);
}

#[test]
fn drop_head_drops_from_the_highest_level() {
    let settings = QueueSettings { priority_max: 5, ..of_two(Overflow::DropHead) };
    let mut bench = Bench::with(settings, limits());
    for (body, priority) in [("low", 0), ("high", 5), ("middle", 2)] {
        bench.publish(&draft(body).priority(priority));
    }
    bench.consume(1, 0);
    assert_eq!(bench.bodies(), ["middle", "low"]);
}

#[test]
fn only_ready_messages_count() {
    let mut bench = Bench::with(of_two(Overflow::DropHead), limits());
    bench.consume(1, 2);
    bench.publish_all(&["a", "b", "c", "d"]);
    assert_eq!((bench.queue.ready_count(), bench.queue.unacked_count()), (2, 2));
    bench.apply(QueueCommand::Detach { holder: holder(1) });
    assert_eq!(bench.queue.ready_count(), 2, "what comes back may be too much");
    bench.consume(2, 0);
    let bodies = bench.bodies();
    assert_eq!(bodies[bodies.len() - 2..], ["c", "d"]);
}

#[test]
fn bytes_are_limited_too() {
    let mut bench = Bench::with(QueueSettings { length_bytes_max: Some(5), ..settings() }, limits());
    bench.publish_all(&["aaa", "bb", "c"]);
    assert_eq!((bench.queue.ready_count(), bench.queue.ready_bytes()), (2, 3));
    bench.publish_all(&["larger than all"]);
    assert_eq!((bench.queue.ready_count(), bench.queue.ready_bytes()), (0, 0));
}

#[test]
fn reject_publish_refuses_the_new_one() {
    let mut bench = Bench::with(of_two(Overflow::RejectPublish), limits());
    for (body, sequence) in [("a", 1), ("b", 2), ("c", 3), ("d", 4)] {
        bench.publish(&draft(body).confirmed(sequence));
    }
    assert_eq!(bench.promised(), [(1, 2, true), (3, 4, false)]);
    assert_eq!((bench.queue.ready_count(), bench.effects().len()), (2, 0));
}

#[test]
fn reject_publish_dlx_dead_letters_what_it_refuses() {
    let settings =
        QueueSettings { dead_letter_exchange: Some(Name::from("dlx")), ..of_two(Overflow::RejectPublishDeadLetter) };
    let mut bench = Bench::with(settings, limits());
    bench.publish_all(&["a", "b"]);
    bench.publish(&draft("c").persistent().confirmed(1));
    assert_eq!(bench.promised(), [(1, 1, false)]);
    let [QueueEffect::DeadLetter { message, reason: DeadLetterReason::MaxLength, leaving: None }] =
        &bench.effects()[..]
    else {
        panic!()
    };
    assert_eq!(body(message), "c");
}

#[test]
fn drop_head_dead_letters_what_it_drops() {
    let settings = QueueSettings { dead_letter_exchange: Some(Name::from("dlx")), ..of_two(Overflow::DropHead) };
    let mut bench = Bench::with(settings, limits());
    bench.publish_all(&["a", "b", "c"]);
    let [QueueEffect::DeadLetter { message, reason: DeadLetterReason::MaxLength, .. }] = &bench.effects()[..] else {
        panic!()
    };
    assert_eq!(body(message), "a");
}

#[test]
fn a_drop_at_the_head_ends_expired_messages_behind_it() {
    let mut bench = Bench::with(QueueSettings { priority_max: 1, ..of_two(Overflow::DropHead) }, limits());
    bench.publish(&draft("low").expiration(1));
    bench.publish(&draft("high").priority(1));
    bench.after(Duration::from_millis(1));
    bench.publish(&draft("new"));
    assert_eq!((bench.out.counts.overflowed, bench.out.counts.expired, bench.queue.ready_count()), (1, 1, 1));
}

#[test]
fn a_message_that_returns_to_a_full_queue_is_dropped_not_delivered() {
    let mut bench = Bench::with(of_two(Overflow::DropHead), limits());
    bench.consume(1, 0);
    bench.publish_all(&["a", "b", "c", "d"]);
    let given = bench.given();
    assert_eq!(given.len(), 4, "what a waiting consumer takes never counts");
    bench.settle(&given, SettleOutcome::Requeued);
    assert_eq!((bench.bodies(), bench.out.counts.overflowed), (vec!["c".to_owned(), "d".to_owned()], 2));
}

#[test]
fn with_length_and_time_to_live_of_zero_the_length_is_the_reason() {
    let settings = QueueSettings { length_max: Some(0), message_ttl_ms: Some(0), ..settings() };
    let mut bench = Bench::with(settings, limits());
    bench.publish_all(&["a"]);
    assert_eq!((bench.out.counts.overflowed, bench.out.counts.expired), (1, 0));
}

#[test]
fn while_the_head_is_read_back_to_be_dropped_the_queue_shows_no_more_than_its_length() {
    let small = WindowLimits { head_entries: 2, tail_entries: 2, ..WindowLimits::default() };
    let settings = QueueSettings { length_max: Some(8), ..settings() };
    let mut bench = Bench::with(settings, QueueLimits { window: small, ..limits() });
    let bodies: Vec<String> = (0..12).map(|number| number.to_string()).collect();
    for body in &bodies[..8] {
        bench.publish(&draft(body).persistent());
        bench.write();
    }
    // The head is dropped, and the next messages are only in the store.
    for body in &bodies[8..] {
        bench.publish(&draft(body).persistent());
        bench.write();
        assert_eq!(bench.queue.shown_ready_count(), 8);
    }
    assert!(bench.queue.ready_count() > 8, "it waits for a load");
    bench.get(1, true);
    let requester = bench.requester(1);
    bench.apply(QueueCommand::Status { requester });
    let [Answer::QueueDeclared { message_count: 8, .. }] = bench.answers()[..] else { panic!() };
    let load = bench.effects().into_iter().find_map(|effect| match effect {
        QueueEffect::Load { load, durable, .. } => Some((load, durable.unwrap())),
        _ => None,
    });
    let (load, range) = load.expect("the head is read");
    let rows = (range.from.0..=range.to.0).map(|position| Row {
        position: Position(position),
        redelivered: false,
        expires_at: None,
        place: None,
        message: draft(&bodies[position as usize - 1]).persistent().enqueue().message,
    });
    let rows = Some(LoadedRows { durable: Some(rows.collect()), scratch: None });
    bench.apply(LocalEvent::Loaded { level: 0, load, rows });
    if bench.queue.is_due() {
        bench.write();
    }
    let [Answer::Got { delivery, message_count: 7 }] = &bench.answers()[..] else { panic!() };
    assert_eq!(body(&delivery.message), "4", "four were dropped before it was given");
}
