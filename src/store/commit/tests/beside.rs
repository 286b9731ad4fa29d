//! Erasing and reading beside commits.

use super::{Bench, Event, LIMIT, rows_of};
use crate::model::Position;
use crate::store::commit::{Contribution, Source};
use crate::store::contract::lane;
use crate::store::{BatchNo, CommitOutcome, LoadRequest, POSITION_MAX, PositionRange};
use std::sync::Arc;
use std::sync::mpsc::channel;

#[test]
fn dropped_lanes_are_erased_when_idle_and_between_batches() {
    let mut bench = Bench::idle();
    let source = bench.source(1);
    let drop_lanes = vec![lane(5)];
    let contribution = Contribution { ticket: 1, drop_lanes, ..Contribution::default() };
    bench.writer.contribute(Arc::clone(&source) as Arc<dyn Source>, contribution);
    bench.begun();
    bench.reply(CommitOutcome::Committed);
    bench.stored();
    for _ in 0..3 {
        assert!(matches!(bench.next(), Event::Erase));
    }

    // Never idle: the queue always has more.
    source.add(100_000);
    let drop_lanes = vec![lane(6)];
    let contribution = Contribution { ticket: 2, drop_lanes, more: true, ..Contribution::default() };
    bench.writer.contribute(Arc::clone(&source) as Arc<dyn Source>, contribution);
    bench.let_go();
    let mut erased = 0;
    let mut rows = 0;
    while erased < 3 {
        match bench.next() {
            Event::Erase => erased += 1,
            Event::Commit(batch) => rows += rows_of(&batch).len(),
            _ => {}
        }
    }
    assert!(rows < 100_000, "erased only after all {rows} rows");
    assert_eq!(bench.writer.stop(), Ok(()));
}

#[test]
fn loads_are_answered_and_a_panic_in_one_does_not_stop_the_next() {
    let bench = Bench::idle();
    let load = |queue| {
        let range = PositionRange { from: Position(0), to: POSITION_MAX };
        let request = LoadRequest { lane: lane(queue), range, rows_max: 1, bytes_max: 1 };
        let (tell, answer) = channel();
        bench.writer.load(request, Box::new(move |loaded| tell.send(loaded.map(|loaded| loaded.as_of)).unwrap()));
        answer.recv_timeout(LIMIT).unwrap()
    };
    assert_eq!(load(4), Ok(BatchNo(4)));
    assert!(load(13).is_err());
    assert_eq!(load(5), Ok(BatchNo(5)));
}
