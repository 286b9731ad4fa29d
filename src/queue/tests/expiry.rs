//! Time to live, of messages and of the queue.

use super::*;
use crate::queue::DeadLetterReason;

fn with_ttl(ms: u64) -> Bench {
    Bench::with(QueueSettings { message_ttl_ms: Some(ms), ..settings() }, limits())
}

#[test]
fn a_message_expires_when_its_time_is_up() {
    let mut bench = with_ttl(10);
    bench.publish(&draft("a").confirmed(1));
    let deadline = bench.queue.deadline(bench.now).expect("a head expires");
    assert!(deadline >= bench.now.monotonic.plus(Duration::from_millis(10)));
    bench.tick_after(9);
    assert_eq!(bench.queue.ready_count(), 1);
    bench.tick_after(1);
    assert_eq!((bench.queue.ready_count(), bench.out.counts.expired), (0, 1));
    assert_eq!(bench.queue.deadline(bench.now), None);
}

#[test]
fn the_shorter_time_counts() {
    let mut bench = with_ttl(10);
    bench.publish(&draft("a").expiration(5));
    bench.publish(&draft("b").expiration(50));
    bench.tick_after(5);
    assert_eq!(bench.queue.ready_count(), 1);
    bench.tick_after(5);
    assert_eq!(bench.queue.ready_count(), 0);
}

#[test]
fn messages_expire_at_the_head_only() {
    let mut bench = Bench::new();
    bench.publish(&draft("a"));
    bench.publish(&draft("b").expiration(5));
    bench.tick_after(20);
    assert_eq!(bench.queue.ready_count(), 2);
    bench.consume(1, 1);
    assert_eq!(bench.bodies(), ["a"]);
    assert_eq!((bench.queue.ready_count(), bench.out.counts.expired), (0, 1));
}

#[test]
fn with_a_time_to_live_of_zero_only_a_waiting_consumer_gets_the_message() {
    let mut bench = with_ttl(0);
    bench.publish(&draft("a"));
    assert_eq!((bench.queue.ready_count(), bench.out.counts.expired), (0, 1));
    bench.consume(1, 1);
    bench.publish(&draft("b"));
    assert_eq!(bench.bodies(), ["b"]);
    bench.publish(&draft("c"));
    assert_eq!((bench.bodies().len(), bench.out.counts.expired), (0, 2));
}

#[test]
fn a_lent_message_does_not_expire_and_a_returned_one_does() {
    let mut bench = with_ttl(10);
    bench.publish(&draft("a"));
    bench.consume(1, 0);
    let given = bench.given();
    bench.tick_after(50);
    assert_eq!(bench.queue.unacked_count(), 1);
    bench.apply(QueueCommand::Detach { holder: holder(1) });
    assert_eq!((given.len(), bench.queue.ready_count(), bench.out.counts.expired), (1, 0, 1));
}

#[test]
fn a_get_does_not_take_an_expired_message() {
    let mut bench = with_ttl(10);
    bench.publish(&draft("a"));
    bench.after(Duration::from_millis(10));
    bench.get(1, true);
    assert!(matches!(bench.answers()[..], [Answer::GetEmpty]));
}

#[test]
fn an_expired_message_is_dead_lettered() {
    let settings = QueueSettings { dead_letter_exchange: Some(Name::from("dlx")), ..settings() };
    let mut bench = Bench::with(settings, limits());
    bench.publish(&draft("a").expiration(1));
    bench.tick_after(2);
    let [QueueEffect::DeadLetter { reason: DeadLetterReason::Expired, leaving: None, message }] = &bench.effects()[..]
    else {
        panic!()
    };
    assert_eq!(body(message), "a");
}

#[test]
fn an_unused_queue_expires_and_reports_it_once() {
    let expires = Duration::from_millis(100);
    let mut bench = Bench::with(QueueSettings { expires: Some(expires), ..settings() }, limits());
    assert_eq!(bench.queue.deadline(bench.now), Some(bench.now.monotonic.plus(expires)));
    bench.after(Duration::from_millis(60));
    bench.get(1, true);
    bench.tick_after(60);
    assert!(bench.effects().is_empty(), "a get is a use");
    let requester = bench.requester(1);
    bench.apply(QueueCommand::Status { requester });
    bench.tick_after(60);
    bench.consume(1, 0);
    bench.tick_after(500);
    assert!(bench.effects().is_empty(), "declaring and consuming are uses");
    bench.apply(QueueCommand::Detach { holder: holder(1) });
    bench.tick_after(100);
    bench.tick_after(100);
    assert!(matches!(bench.effects()[..], [QueueEffect::Unused]));
}

#[test]
fn a_stored_middle_expires_without_being_read_once_all_of_it_has() {
    let window = WindowLimits { head_entries: 4, tail_entries: 0, ..WindowLimits::default() };
    let settings = QueueSettings { message_ttl_ms: Some(10), ..settings() };
    let mut bench = Bench::with(settings, QueueLimits { window, ..limits() });
    for at in 0..1000 {
        bench.publish(&draft(&at.to_string()).persistent());
    }
    bench.write();
    assert_eq!((bench.queue.ready_count(), bench.queue.memory().ready), (1000, 4));
    bench.get(1, false);
    bench.tick_after(5);
    bench.publish(&draft("young").persistent());
    bench.tick_after(5);
    let loads = bench.effects().iter().filter(|effect| matches!(effect, QueueEffect::Load { .. })).count();
    assert_eq!((bench.queue.ready_count(), bench.out.counts.expired, loads), (1, 999, 1));
    let pulled = bench.pull();
    let removed = &pulled.lanes[0];
    assert_eq!((removed.remove_ranges.len(), removed.state.count), (1, 2), "the one in a hand and the young one");
}

#[test]
fn a_get_does_not_count_expired_messages_behind_its_own() {
    let mut bench = Bench::new();
    bench.publish(&draft("a"));
    bench.publish(&draft("b").expiration(20));
    bench.publish(&draft("c"));
    bench.after(Duration::from_millis(20));
    bench.get(1, true);
    let [Answer::Got { message_count: 1, .. }] = bench.answers()[..] else { panic!() };
    assert_eq!((bench.queue.ready_count(), bench.out.counts.expired), (1, 1));
}
