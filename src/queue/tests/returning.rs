//! Messages that consumers gave back leave memory like all others.

use super::*;

const MESSAGES: usize = 40;

fn small() -> Bench {
    Bench::with(settings(), QueueLimits { window: SMALL, ..limits() })
}

/// The most messages of a head before it is shortened.
fn head_most() -> u64 {
    SMALL.head_entries as u64 * 2
}

/// Lends messages to a consumer; persistent ones are stored.
fn held(bench: &mut Bench, persistent: bool) -> Vec<Received> {
    bench.consume(1, 0);
    for number in 0..MESSAGES {
        let body = number.to_string();
        let draft = draft(&body);
        bench.publish(&if persistent { draft.persistent() } else { draft });
    }
    bench.after(Duration::from_secs(1));
    bench.apply(LocalEvent::Tick);
    bench.write();
    let given = bench.given();
    assert_eq!((given.len(), bench.queue.memory().ready), (MESSAGES, 0));
    given
}

/// Answers every load with rows of these bodies, until a new consumer has received all; returns the received messages.
fn drained(bench: &mut Bench, bodies: &[String]) -> Vec<(String, bool)> {
    bench.consume(2, 0);
    let mut seen = Vec::new();
    while seen.len() < bodies.len() {
        seen.extend(bench.given().into_iter().map(|given| (given.body, given.redelivered)));
        for effect in bench.effects() {
            let QueueEffect::Load { load, durable: Some(range), rows_max, .. } = effect else { continue };
            let row = |position: u64| crate::model::stored::Row {
                position: crate::model::Position(position),
                redelivered: false,
                expires_at: None,
                place: None,
                message: draft(&(position - 1).to_string()).persistent().enqueue().message,
            };
            let alive = |position: &u64| bodies.contains(&(position - 1).to_string());
            let rows = (range.from.0..=range.to.0).filter(alive).take(rows_max).map(row).collect();
            bench.apply(LocalEvent::Loaded {
                level: 0,
                load,
                rows: Some(LoadedRows { durable: Some(rows), scratch: None }),
            });
        }
        if bench.queue.is_due() {
            bench.write();
        }
    }
    seen
}

#[test]
fn stored_messages_leave_memory_once_a_consumer_that_held_them_is_gone() {
    let mut bench = small();
    held(&mut bench, true);
    let all_held = bench.queue.memory().bytes;
    bench.apply(QueueCommand::Detach { holder: holder(1) });
    assert_eq!(bench.queue.ready_count(), MESSAGES as u64);
    assert!(bench.queue.memory().ready <= head_most(), "{:?}", bench.queue.memory());
    assert!(bench.queue.memory().bytes < all_held);
    let bodies: Vec<_> = (0..MESSAGES).map(|number| number.to_string()).collect();
    let seen = drained(&mut bench, &bodies);
    assert_eq!(seen, bodies.into_iter().map(|body| (body, true)).collect::<Vec<_>>(), "in order, and marked");
}

#[test]
fn messages_before_a_lent_or_leaving_one_stay_in_memory_until_it_is_settled() {
    let mut bench = small();
    let given = held(&mut bench, true);
    let (first, rest) = given.split_at(1);
    let (last, rest) = rest.split_last().expect("there are many");
    bench.settle(rest, SettleOutcome::Requeued);
    let one = |given: &Received| vec![given.clone()];
    // The consumer receives them again at once; the third time it has left.
    bench.apply(QueueCommand::Cancel { requester: bench_requester(), key: key(1, 1) });
    let again = bench.given();
    bench.settle(&again, SettleOutcome::Requeued);
    assert_eq!(bench.queue.memory().ready, rest.len() as u64, "the last one is still out");
    bench.settle(&one(last), SettleOutcome::Acknowledged);
    assert_eq!(bench.queue.memory().ready, rest.len() as u64, "a read may still bring its row");
    bench.after(Duration::from_secs(1));
    bench.apply(LocalEvent::Tick);
    bench.write();
    assert!(bench.queue.memory().ready <= head_most(), "{:?}", bench.queue.memory());
    bench.settle(first, SettleOutcome::Acknowledged);
    let bodies: Vec<_> = (1..MESSAGES - 1).map(|number| number.to_string()).collect();
    let seen = drained(&mut bench, &bodies);
    assert_eq!(seen, bodies.into_iter().map(|body| (body, true)).collect::<Vec<_>>());
}

fn bench_requester() -> Requester {
    let Holder { connection, channel } = holder(1);
    Requester { connection, channel, request: RequestNo(7) }
}

#[test]
fn transient_messages_that_came_back_may_go_to_the_scratch_store() {
    let mut bench = small();
    held(&mut bench, false);
    bench.queue.set_memory_pressure(true);
    bench.apply(QueueCommand::Detach { holder: holder(1) });
    assert!(bench.queue.wants_scratch());
    bench.apply(LocalEvent::Spill { rows_max: 1000, bytes_max: 1 << 20 });
    let spilled = bench.out.spilled.pop().expect("every request is answered");
    assert!(spilled.rows >= MESSAGES - SMALL.head_entries * 2, "{}", spilled.rows);
    bench.apply(LocalEvent::Spilled { ticket: spilled.ticket, durable: true });
    assert!(bench.queue.memory().ready <= head_most(), "{:?}", bench.queue.memory());
}
