//! What is gathered for a batch, and in which order.

use super::{Bench, Event, TestSource, Turns, rows_of};
use crate::store::commit::{ContributionOutcome, WriterHandle, WriterSettings};
use crate::store::contract::{lane, positions};
use crate::store::memory::{MemoryDisk, MemoryStore};
use crate::store::{BatchNo, CommitOutcome, SystemClock};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

#[test]
fn nothing_is_durable_before_its_commit_has_returned() {
    let bench = Bench::idle();
    let source = bench.source(1);
    source.add_at_once(1);
    assert_eq!(rows_of(&bench.begun()), [(1, 1)]);
    assert!(bench.events.try_recv().is_err(), "no outcome is reported while the commit runs");
    assert!(!bench.writer.wants_rows());
    bench.reply(CommitOutcome::Committed);
    assert_eq!(bench.stored(), (1, ContributionOutcome { ticket: 1, batch_no: BatchNo(1), durable: true }));
}

#[test]
fn what_comes_up_during_a_commit_shares_the_next_one() {
    let bench = Bench::idle();
    let sources: Vec<_> = (1..=40).map(|id| bench.source(id)).collect();
    sources[0].add_at_once(1);
    bench.begun();
    for source in &sources {
        source.add(2);
    }
    bench.reply(CommitOutcome::Committed);
    bench.stored();
    let mut rows = rows_of(&bench.begun());
    // A busy machine may split it, since the writer's patience with queues that it asked is short.
    while rows.len() < 80 {
        bench.reply(CommitOutcome::Committed);
        let Event::Commit(batch) =
            std::iter::repeat_with(|| bench.next()).find(|event| matches!(event, Event::Commit(_))).unwrap()
        else {
            unreachable!()
        };
        rows.extend(rows_of(&batch));
    }
    rows.sort_unstable();
    assert_eq!(
        rows,
        (1..=40).flat_map(|id| if id == 1 { [(id, 2), (id, 3)] } else { [(id, 1), (id, 2)] }).collect::<Vec<_>>()
    );
}

#[test]
fn batches_keep_to_their_size_and_everyone_has_a_turn() {
    let settings = WriterSettings { rows_max: 100, ..WriterSettings::default() };
    let bench = Bench::start(settings);
    let (heavy, light) = (bench.source(1), bench.source(2));
    heavy.add(10_000);
    let first = bench.begun();
    assert!(rows_of(&first).len() <= 100);
    light.add(1);
    bench.reply(CommitOutcome::Committed);
    bench.stored();
    let second = rows_of(&bench.begun());
    assert!(second.len() <= 101 && second.contains(&(2, 1)), "{} rows", second.len());
}

#[test]
fn many_sources_with_a_few_rows_each_are_asked_for_all_of_them_in_turn() {
    let bench = Bench::idle();
    let sources: Vec<_> = (1..=100).map(|id| bench.source(id)).collect();
    let first = bench.source(1_000);
    first.add_at_once(1);
    bench.begun();
    sources.iter().for_each(|source| source.add(20));
    bench.reply(CommitOutcome::Committed);
    bench.stored();
    let mut seen = Vec::new();
    while seen.len() < 100 {
        let rows = rows_of(&bench.begun());
        assert!(rows.len() <= 1_000, "{} rows", rows.len());
        let whole = rows.chunk_by(|(one, _), (other, _)| one == other);
        let ids: Vec<_> = whole.map(|of_one| (of_one[0].0, of_one.len())).collect();
        assert!(
            ids.iter().all(|(_, count)| *count == 20),
            "all that some have, rather than a share of what each has: {ids:?}"
        );
        seen.extend(ids.iter().map(|(id, _)| *id));
        bench.reply(CommitOutcome::Committed);
        ids.iter().for_each(|_| _ = bench.stored());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=100).collect::<Vec<_>>());
}

#[test]
fn a_source_that_never_answers_holds_nobody_up() {
    let mut bench = Bench::idle();
    let (dead, live) = (bench.source_that(1, false), bench.source(2));
    dead.add(1);
    bench.let_go();
    for ticket in 1..=3 {
        live.add(1);
        bench.begun();
        assert_eq!(bench.stored().1.ticket, ticket);
    }
    assert_eq!(bench.writer.stop(), Ok(()));
}

#[test]
fn an_empty_contribution_answers_a_pull_and_is_told_nothing() {
    let mut bench = Bench::idle();
    bench.let_go();
    let source = bench.source(1);
    source.add(0);
    source.turns.0.send(Box::new(|| {})).unwrap();
    assert!(bench.writer.flush());
    assert!(bench.events.try_recv().is_err());
    source.add(1);
    assert!(bench.writer.flush());
    bench.begun();
    assert_eq!(bench.stored().1.ticket, 2);
}

#[test]
fn every_contribution_is_told_once_in_order_and_every_row_is_stored() {
    const SOURCES: u64 = 50;
    const ROWS: u64 = 400;
    let disk = MemoryDisk::default();
    let store = MemoryStore::open(disk.clone());
    let writer =
        WriterHandle::start(Box::new(store), BatchNo(0), WriterSettings::default(), SystemClock::shared()).unwrap();
    let (tell, events) = channel();
    let turns = Turns::start();
    let sources: Vec<_> = (0..SOURCES)
        .map(|id| {
            let (writer, events, turns) = (writer.clone(), tell.clone(), turns.clone());
            Arc::new(TestSource {
                offers: Arc::default(),
                id,
                writer,
                events,
                turns,
                pending: Mutex::default(),
                waiting: AtomicUsize::new(0),
                answers: true,
            })
        })
        .collect();
    thread::scope(|scope| {
        for part in sources.chunks(13) {
            scope.spawn(move || {
                for at in 0..ROWS {
                    for source in part {
                        if source.writer.wants_rows() && at % 3 == 0 && !source.pending.lock().unwrap().is_dirty {
                            source.add_at_once(1);
                        } else {
                            source.add(1);
                        }
                    }
                }
            });
        }
    });
    assert!(writer.flush());
    let mut last = vec![0; SOURCES as usize];
    let mut told = 0;
    for event in events.try_iter() {
        let Event::Stored(id, stored) = event else { panic!("only outcomes are reported") };
        assert!(stored.durable && stored.ticket > last[id as usize], "in order, once");
        last[id as usize] = stored.ticket;
        told += 1;
    }
    assert!(told > SOURCES);
    let stats = writer.stats();
    assert_eq!((stats.rows_inserted, stats.bytes), (SOURCES * ROWS, SOURCES * ROWS * 100));
    let store = MemoryStore::open(disk);
    for id in 0..SOURCES {
        assert_eq!(positions(&store, lane(id)), (1..=ROWS).collect::<Vec<_>>());
    }
    assert_eq!(writer.stop(), Ok(()));
}
