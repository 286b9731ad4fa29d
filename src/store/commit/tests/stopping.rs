//! The end of a writer.

use super::{Bench, Event, LIMIT, rows_of, vhost};
use crate::model::Position;
use crate::store::contract::lane;
use crate::store::{CommitOutcome, LoadRequest, POSITION_MAX, PositionRange};
use std::sync::mpsc::channel;
use std::thread;

#[test]
fn stopping_commits_what_is_outstanding_and_closes_the_store() {
    let mut bench = Bench::idle();
    let source = bench.source(1);
    source.add_at_once(1);
    bench.begun();
    source.add(2_500);
    bench.writer.topology(vec![vhost("/")], bench.then("put"));
    bench.let_go();
    assert_eq!(bench.writer.stop(), Ok(()));
    let (mut rows, mut told) = (1, Vec::new());
    loop {
        match bench.next() {
            Event::Commit(batch) => rows += rows_of(&batch).len(),
            Event::Stored(_, stored) => told.push(stored.durable),
            Event::Then(_, durable) => assert!(durable),
            Event::Closed => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(rows, 2_501);
    assert!(told.iter().all(|durable| *durable) && told.len() >= 4);

    source.add_at_once(1);
    assert!(!bench.stored().1.durable, "afterwards nothing is durable");
    bench.writer.topology(vec![vhost("/")], bench.then("late"));
    assert!(matches!(bench.next(), Event::Then("late", false)));
    let request = LoadRequest {
        lane: lane(1),
        range: PositionRange { from: Position(0), to: POSITION_MAX },
        rows_max: 1,
        bytes_max: 1,
    };
    let (tell, answer) = channel();
    bench.writer.load(request, Box::new(move |loaded| tell.send(loaded.is_err()).unwrap()));
    assert!(answer.recv_timeout(LIMIT).unwrap());
    assert_eq!(bench.writer.stop(), Ok(()));
}

#[test]
fn stopping_does_not_wait_for_a_disk_that_stays_full() {
    let bench = Bench::idle();
    bench.source(1).add_at_once(1);
    bench.begun();
    let stopping = thread::spawn({
        let writer = bench.writer.clone();
        move || writer.stop()
    });
    let told = loop {
        bench.reply(CommitOutcome::NotCommitted("disk full".into()));
        match bench.next() {
            Event::Commit(_) => {}
            Event::Stored(_, stored) => break stored,
            other => panic!("{other:?}"),
        }
    };
    assert!(!told.durable);
    assert!(stopping.join().unwrap().is_err());
}

#[test]
fn the_writer_ends_with_its_last_handle() {
    let Bench { writer, events, tell, replies, .. } = Bench::idle();
    drop((writer, tell, replies));
    assert!(matches!(events.recv_timeout(LIMIT), Ok(Event::Closed)));
}
