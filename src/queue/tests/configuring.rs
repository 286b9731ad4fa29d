//! Settings that change while the queue lives, as policies change them.

use super::*;
use crate::queue::{ChangeableSettings, DeadLetterReason, Overflow};

/// A queue declared without limits.
fn unlimited() -> ChangeableSettings {
    let settings = settings();
    ChangeableSettings {
        message_ttl_ms: settings.message_ttl_ms,
        expires: settings.expires,
        length_max: settings.length_max,
        length_bytes_max: settings.length_bytes_max,
        overflow: settings.overflow,
        dead_letter_exchange: settings.dead_letter_exchange,
        dead_letter_routing_key: settings.dead_letter_routing_key,
    }
}

fn configure(bench: &mut Bench, changed: ChangeableSettings) {
    bench.apply(LocalEvent::Configure(Box::new(changed)));
}

#[test]
fn a_shorter_queue_drops_from_its_head_at_once() {
    let mut bench = Bench::with(settings(), limits());
    bench.publish_all(&["a", "b", "c", "d"]);
    configure(&mut bench, ChangeableSettings { length_max: Some(2), ..unlimited() });
    assert_eq!((bench.queue.ready_count(), bench.out.counts.overflowed), (2, 2));
    configure(&mut bench, ChangeableSettings { length_bytes_max: Some(1), ..unlimited() });
    assert_eq!((bench.queue.ready_count(), bench.out.counts.overflowed), (1, 3));
    bench.consume(1, 0);
    assert_eq!(bench.bodies(), ["d"]);
}

#[test]
fn messages_dropped_by_a_shorter_length_are_dead_lettered_by_the_new_settings() {
    let mut bench = Bench::with(settings(), limits());
    bench.publish_all(&["a", "b"]);
    let dead_letter_exchange = Some(Name::from("dlx"));
    configure(&mut bench, ChangeableSettings { length_max: Some(1), dead_letter_exchange, ..unlimited() });
    let effects = bench.effects();
    assert!(
        matches!(&effects[..], [QueueEffect::DeadLetter { message, reason: DeadLetterReason::MaxLength, .. }] if body(message) == "a")
    );
    assert_eq!(bench.queue.settings().dead_letter_exchange, Some(Name::from("dlx")));
    // Later deaths follow later settings.
    configure(&mut bench, unlimited());
    bench.consume(1, 0);
    let given = bench.given();
    bench.settle(&given, SettleOutcome::Rejected);
    assert!(bench.effects().is_empty());
}

#[test]
fn a_rejecting_queue_keeps_its_messages_and_refuses_new_ones() {
    let mut bench = Bench::with(settings(), limits());
    bench.publish_all(&["a", "b", "c"]);
    let rejecting = || ChangeableSettings { overflow: Overflow::RejectPublish, length_max: Some(2), ..unlimited() };
    configure(&mut bench, rejecting());
    assert_eq!((bench.queue.ready_count(), bench.out.counts.overflowed), (3, 0));
    bench.publish(&draft("d").confirmed(1));
    assert_eq!((bench.promised(), bench.queue.ready_count()), (vec![(1, 1, false)], 3));
    // With `drop-head` the messages beyond the limit are dropped at once.
    configure(&mut bench, ChangeableSettings { overflow: Overflow::DropHead, ..rejecting() });
    assert_eq!((bench.queue.ready_count(), bench.out.counts.overflowed), (2, 1));
}

#[test]
fn a_new_time_to_live_applies_to_messages_published_afterwards() {
    let mut bench = Bench::with(QueueSettings { message_ttl_ms: Some(100), ..settings() }, limits());
    bench.publish_all(&["old"]);
    configure(&mut bench, ChangeableSettings { message_ttl_ms: Some(10), ..unlimited() });
    bench.publish_all(&["new"]);
    bench.tick_after(50);
    assert_eq!(bench.queue.ready_count(), 2, "the head has its own time, and what is behind it waits");
    bench.tick_after(50);
    assert_eq!((bench.queue.ready_count(), bench.out.counts.expired), (0, 2));
    configure(&mut bench, unlimited());
    bench.publish_all(&["lasting"]);
    bench.tick_after(1_000_000);
    assert_eq!(bench.queue.ready_count(), 1);
}

#[test]
fn a_new_expiry_counts_from_the_change_on() {
    let mut bench = Bench::with(settings(), limits());
    bench.tick_after(5000);
    configure(&mut bench, ChangeableSettings { expires: Some(Duration::from_secs(2)), ..unlimited() });
    assert_eq!(bench.queue.deadline(bench.now), Some(bench.now.monotonic.plus(Duration::from_secs(2))));
    bench.tick_after(1999);
    assert!(bench.effects().is_empty());
    configure(&mut bench, ChangeableSettings { expires: Some(Duration::from_secs(2)), ..unlimited() });
    bench.tick_after(1999);
    assert!(bench.effects().is_empty(), "a change begins it anew");
    bench.tick_after(1);
    assert!(matches!(bench.effects()[..], [QueueEffect::Unused]));
}

#[test]
fn a_queue_that_has_ended_takes_no_settings() {
    let mut bench = Bench::with(settings(), limits());
    bench.apply(LocalEvent::End);
    configure(&mut bench, ChangeableSettings { length_max: Some(1), ..unlimited() });
    assert_eq!(bench.queue.settings().length_max, None);
}
