//! Changes of topology, barriers and deletions among contributions.

use super::{Bench, Event, rows_of, vhost};
use crate::store::commit::WriterSettings;
use crate::store::{CommitOutcome, TopologyChange};

#[test]
fn topology_is_told_in_order_and_a_barrier_waits_for_what_was_before_it() {
    let bench = Bench::idle();
    let source = bench.source(1);
    bench.writer.topology(Vec::new(), bench.then("nothing pending"));
    assert!(matches!(bench.events.try_recv(), Ok(Event::Then("nothing pending", true))), "at once");

    source.add_at_once(1);
    bench.begun();
    bench.writer.topology(vec![vhost("a")], bench.then("a"));
    bench.writer.topology(Vec::new(), bench.then("after a"));
    bench.writer.topology(vec![vhost("b")], bench.then("b"));
    assert!(bench.events.try_recv().is_err());
    bench.reply(CommitOutcome::Committed);
    bench.stored();
    assert_eq!(bench.begun().topology, [vhost("a"), vhost("b")]);
    bench.reply(CommitOutcome::Committed);
    for expected in ["a", "after a", "b"] {
        assert!(matches!(bench.next(), Event::Then(name, true) if name == expected), "{expected}");
    }
}

#[test]
fn a_barrier_waits_for_contributions_that_take_several_batches() {
    let settings = WriterSettings { rows_max: 10, ..WriterSettings::default() };
    let bench = Bench::start(settings);
    let source = bench.source(1);
    source.add_at_once(1);
    bench.begun();
    for _ in 0..3 {
        source.add_at_once(10);
    }
    bench.writer.topology(Vec::new(), bench.then("barrier"));
    source.add_at_once(10);
    bench.reply(CommitOutcome::Committed);
    assert_eq!(bench.stored().1.ticket, 1);
    for ticket in 2..=4 {
        assert_eq!(rows_of(&bench.begun()).len(), 10);
        bench.reply(CommitOutcome::Committed);
        if ticket == 4 {
            assert!(matches!(bench.next(), Event::Then("barrier", true)));
        }
        assert_eq!(bench.stored().1.ticket, ticket);
    }
}

#[test]
fn a_deletion_does_not_overtake_what_its_queue_contributed_before() {
    let settings = WriterSettings { rows_max: 10, ..WriterSettings::default() };
    let bench = Bench::start(settings);
    let source = bench.source(1);
    source.add_at_once(1);
    bench.begun();
    source.add_at_once(10);
    source.add_at_once(10);
    let deletion = TopologyChange::DeleteQueue(crate::model::QueueId(1));
    bench.writer.topology(vec![vhost("a")], bench.then("a"));
    bench.writer.topology(vec![deletion.clone()], bench.then("deleted"));
    bench.reply(CommitOutcome::Committed);
    bench.stored();
    assert_eq!(bench.begun().topology, [vhost("a")]);
    bench.reply(CommitOutcome::Committed);
    assert!(matches!(bench.next(), Event::Then("a", true)));
    bench.stored();
    let last = bench.begun();
    assert_eq!((rows_of(&last).len(), last.topology), (10, vec![deletion]));
}
