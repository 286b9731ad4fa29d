//! Contributions that are committed in one transaction.

use super::{Bench, Event, group, rows_of};
use crate::model::random::Random;
use crate::store::commit::limits::ANSWER_PATIENCE_MAX;
use crate::store::commit::{ContributionOutcome, WriterHandle, WriterSettings};
use crate::store::{BatchNo, CommitOutcome};
use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn parts_of_a_group_are_committed_together_beyond_all_limits_and_nothing_overtakes_them() {
    let bench = Bench::start(WriterSettings { rows_max: 2, ..WriterSettings::default() });
    bench.wait_until(WriterHandle::wants_rows);
    let (one, two, other) = (bench.source(1), bench.source(2), bench.source(3));
    one.add_part(3, &[group(7, 2)]);
    other.add_at_once(1);
    thread::sleep(Duration::from_millis(20));
    assert!(bench.events.try_recv().is_err(), "the group is not whole");
    two.add_part(3, &[group(7, 2)]);
    let batch = bench.begun();
    assert_eq!(rows_of(&batch), [(1, 1), (1, 2), (1, 3), (3, 1), (2, 1), (2, 2), (2, 3)]);
    bench.reply(CommitOutcome::Committed);
    let told: Vec<_> = (0..3).map(|_| bench.stored()).collect();
    assert!(told.iter().all(|(_, stored)| stored.durable && stored.batch_no == BatchNo(1)));
}

#[test]
fn a_part_that_fills_a_batch_does_not_keep_the_others_out_while_there_is_other_work() {
    let bench = Bench::start(WriterSettings { rows_max: 2, ..WriterSettings::default() });
    bench.wait_until(WriterHandle::wants_rows);
    let (one, two, other) = (bench.source(1), bench.source(2), bench.source(3));
    let began = Instant::now();
    one.add_part(3, &[group(7, 2)]);
    other.add(1);
    thread::sleep(Duration::from_millis(20));
    two.add_part(3, &[group(7, 2)]);
    let batch = bench.begun();
    assert!(began.elapsed() < ANSWER_PATIENCE_MAX / 2, "{:?}", began.elapsed());
    assert_eq!(rows_of(&batch)[..6], [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)]);
}

#[test]
fn every_group_is_whole_whatever_its_size_and_whatever_else_there_is_to_write() {
    const GROUPS: u64 = 300;
    const THREADS: u64 = 3;
    let settings = WriterSettings { rows_max: 4, ..WriterSettings::default() };
    let mut bench = Bench::start(settings);
    bench.let_go();
    let sources: Vec<_> = (0..5).map(|id| bench.source(id)).collect();
    let others: Vec<_> = (5..8).map(|id| bench.source(id)).collect();
    let began = Instant::now();
    let parts: Vec<(u64, u64, u64)> = thread::scope(|scope| {
        let threads = (0..THREADS).map(|thread| {
            let (sources, others) = (&sources, &others);
            scope.spawn(move || {
                let mut random = Random::new(thread);
                let mut parts = Vec::new();
                for number in 0..GROUPS {
                    let number = number * THREADS + thread;
                    let count = 1 + random.next_u64() % 4;
                    let first = random.next_u64();
                    for at in 0..count {
                        let source = &sources[((first + at) % sources.len() as u64) as usize];
                        let ticket = source.add_part(random.next_u64() % 8, &[group(number, count as u32)]);
                        parts.push((number, source.id, ticket));
                        others[(random.next_u64() % others.len() as u64) as usize].add(1 + random.next_u64() % 3);
                        if random.next_u64().is_multiple_of(4) {
                            thread::sleep(Duration::from_micros(random.next_u64() % 300));
                        }
                    }
                }
                parts
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(bench.writer.flush());
    assert!(began.elapsed() < ANSWER_PATIENCE_MAX, "nobody was waited for: {:?}", began.elapsed());
    let stored: HashMap<(u64, u64), BatchNo> = bench
        .events
        .try_iter()
        .filter_map(|event| match event {
            Event::Stored(id, ContributionOutcome { ticket, batch_no, .. }) => Some(((id, ticket), batch_no)),
            _ => None,
        })
        .collect();
    let mut batches: HashMap<u64, BatchNo> = HashMap::new();
    for (number, id, ticket) in parts {
        let batch_no = stored[&(id, ticket)];
        assert_eq!(*batches.entry(number).or_insert(batch_no), batch_no, "group {number} is torn");
    }
}

#[test]
fn groups_that_cross_each_other_are_one_batch() {
    let bench = Bench::idle();
    let (one, two) = (bench.source(1), bench.source(2));
    one.add_part(1, &[group(1, 2)]);
    two.add_part(1, &[group(2, 2)]);
    two.add_part(1, &[group(1, 2)]);
    assert!(bench.events.try_recv().is_err());
    one.add_part(1, &[group(2, 2), group(3, 1)]);
    assert_eq!(rows_of(&bench.begun()).len(), 4);
}

#[test]
fn a_part_with_nothing_to_write_is_told_all_the_same() {
    let bench = Bench::idle();
    let (one, two) = (bench.source(1), bench.source(2));
    two.add_part(0, &[group(1, 2)]);
    one.add_part(1, &[group(1, 2)]);
    assert_eq!(rows_of(&bench.begun()), [(1, 1)]);
    bench.reply(CommitOutcome::Committed);
    let mut told = [bench.stored().0, bench.stored().0];
    told.sort_unstable();
    assert_eq!(told, [1, 2]);
    two.add_part(0, &[group(2, 1)]);
    assert!(bench.stored().1.durable, "alone it needs no commit");
}

#[test]
fn a_part_that_never_comes_is_waited_for_only_so_long() {
    let bench = Bench::idle();
    let one = bench.source(1);
    let began = Instant::now();
    one.add_part(1, &[group(1, 2)]);
    assert_eq!(rows_of(&bench.begun()), [(1, 1)]);
    assert!(began.elapsed() >= ANSWER_PATIENCE_MAX);
}
