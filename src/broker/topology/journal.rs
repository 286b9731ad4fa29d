//! The journal: topology changes reach the store in the order in which they changed memory.
//!
//! A change is appended under the topology's lock, in the step that changes memory, and gets a number. One thread at a
//! time takes the appended changes and submits them to the store's writer, so the order is kept. An answer waits until
//! its change is durable. If a request changes nothing because an earlier change had the same result, its answer waits
//! for the last change before it.
//!
//! No row of a queue is flushed before the queue's own record. The record is appended before any thread can find the
//! queue; a turn submits the journal before it contributes rows ([`PendingJournals`]); and the writer adds topology to
//! a batch no later than rows that were submitted after it.
//!
//! While the store refuses a batch, the writer retries it, and answers wait. If the store fails for good, memory stays
//! ahead of it: changes that are not durable by then are answered with an error, and so are all requests that depend on
//! them.

use crate::store::TopologyChange;
use crate::store::commit::Completion;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The durable changes of one method.
#[derive(Debug)]
pub(in crate::broker) enum Changes {
    /// The method concerns nothing durable: its answer does not wait.
    Nothing,
    /// An earlier change had the same result: the answer waits until that change is durable.
    Earlier,
    /// The changes for the store, in this order.
    New(Vec<TopologyChange>),
}

impl Changes {
    /// `New` with these records. Without records, `Earlier` if the method concerns something durable, or else
    /// `Nothing`.
    pub(super) fn new(records: Vec<TopologyChange>, is_durable: bool) -> Self {
        match (records.is_empty(), is_durable) {
            (false, _) => Self::New(records),
            (true, true) => Self::Earlier,
            (true, false) => Self::Nothing,
        }
    }

    /// The changes of a method that finds its result in place.
    pub(in crate::broker) fn existing(is_durable: bool) -> Self {
        if is_durable { Self::Earlier } else { Self::Nothing }
    }
}

/// The number of a change of one vhost, from 1. Number 0 is always durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::broker) struct ChangeNo(u64);

/// Counts the journals of a broker that have changes which the writer does not have yet.
#[derive(Clone, Debug, Default)]
pub(in crate::broker) struct PendingJournals(Arc<AtomicUsize>);

impl PendingJournals {
    /// Whether the writer may lack changes that were appended before this call.
    pub(in crate::broker) fn is_any(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }

    /// Records that the changes taken from a journal were submitted to the writer.
    pub(in crate::broker) fn note_submitted(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Changes that memory has made and the writer does not have yet. Part of the topology, behind its lock.
#[derive(Debug)]
pub(in crate::broker) struct Journal {
    changes: Vec<TopologyChange>,
    last: ChangeNo,
    pending_journals: PendingJournals,
}

impl Journal {
    pub(super) fn new(pending_journals: PendingJournals) -> Self {
        Self { changes: Vec::new(), last: ChangeNo::default(), pending_journals }
    }

    /// Appends the changes of a method. Returns the number of the change with which the method's result is durable.
    pub(in crate::broker) fn append(&mut self, changes: Changes) -> ChangeNo {
        match changes {
            Changes::Nothing => ChangeNo::default(),
            Changes::Earlier => self.last,
            Changes::New(records) => {
                if self.changes.is_empty() {
                    self.pending_journals.0.fetch_add(1, Ordering::Relaxed);
                }
                self.changes.extend(records);
                self.last = ChangeNo(self.last.0 + 1);
                self.last
            }
        }
    }

    /// Takes the appended changes, and the number of the last one. [`PendingJournals::note_submitted`] must follow once
    /// the writer has them.
    pub(in crate::broker) fn take(&mut self) -> Option<(Vec<TopologyChange>, ChangeNo)> {
        (!self.changes.is_empty()).then(|| (std::mem::take(&mut self.changes), self.last))
    }
}

/// How much of a journal the store has committed, and the callbacks that wait for more.
#[derive(Debug, Default)]
pub(in crate::broker) struct Progress {
    /// Held while changes are taken from the journal and submitted to the writer. The topology's lock and the writer's
    /// are taken inside it.
    submission: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last durable change.
    durable: ChangeNo,
    /// The last change whose outcome is known. If it is greater than `durable`, the store has failed.
    known: ChangeNo,
    waiting: BTreeMap<ChangeNo, Vec<Completion>>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("durable", &self.durable).field("known", &self.known).finish()
    }
}

impl State {
    /// Whether a change is durable, if that is known.
    fn outcome(&self, number: ChangeNo) -> Option<bool> {
        (number <= self.known).then_some(number <= self.durable)
    }
}

impl Progress {
    /// The right to submit changes to the writer.
    pub(in crate::broker) fn submission(&self) -> MutexGuard<'_, ()> {
        self.submission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this change is known to be durable.
    pub(in crate::broker) fn is_durable(&self, number: ChangeNo) -> bool {
        number == ChangeNo::default() || self.state().outcome(number) == Some(true)
    }

    /// Calls `on_outcome` once it is known whether this change is durable: at once if it is known already, or else on
    /// the thread that commits the change.
    pub(in crate::broker) fn when_durable(&self, number: ChangeNo, on_outcome: impl FnOnce(bool) + Send + 'static) {
        if number == ChangeNo::default() {
            return on_outcome(true);
        }
        let mut state = self.state();
        match state.outcome(number) {
            Some(durable) => {
                drop(state);
                on_outcome(durable);
            }
            None => state.waiting.entry(number).or_default().push(Box::new(on_outcome)),
        }
    }

    /// Records the outcome of all changes up to this one, and runs the callbacks that waited for them.
    pub(in crate::broker) fn note_outcome(&self, up_to: ChangeNo, durable: bool) {
        let mut state = self.state();
        state.known = state.known.max(up_to);
        if durable {
            state.durable = state.durable.max(up_to);
        }
        let waiting = state.waiting.split_off(&ChangeNo(up_to.0 + 1));
        let known = std::mem::replace(&mut state.waiting, waiting);
        drop(state);
        for on_outcome in known.into_values().flatten() {
            on_outcome(durable);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::QueueId;
    use std::sync::mpsc::channel;

    fn deletion(queue: u64) -> TopologyChange {
        TopologyChange::DeleteQueue(QueueId(queue))
    }

    #[test]
    fn changes_are_taken_in_order_and_counted_until_they_are_submitted() {
        let pending_journals = PendingJournals::default();
        let mut journal = Journal::new(pending_journals.clone());
        assert_eq!(journal.append(Changes::Earlier), ChangeNo(0));
        assert!(!pending_journals.is_any());
        assert_eq!(journal.append(Changes::New(vec![deletion(1), deletion(2)])), ChangeNo(1));
        assert_eq!(journal.append(Changes::Nothing), ChangeNo(0));
        assert_eq!(journal.append(Changes::New(vec![deletion(3)])), ChangeNo(2));
        assert_eq!(journal.append(Changes::Earlier), ChangeNo(2));
        assert_eq!(journal.take(), Some((vec![deletion(1), deletion(2), deletion(3)], ChangeNo(2))));
        assert_eq!(journal.take(), None);
        // More may be appended before the first ones are submitted.
        journal.append(Changes::New(vec![deletion(4)]));
        pending_journals.note_submitted();
        assert!(pending_journals.is_any());
        journal.take();
        assert!(pending_journals.is_any());
        pending_journals.note_submitted();
        assert!(!pending_journals.is_any());
    }

    #[test]
    fn callbacks_run_in_order_once_their_change_has_an_outcome_and_fail_for_good_with_the_store() {
        let (progress, (sender, ran)) = (Progress::default(), channel());
        let wait = |number: u64, name: &'static str| {
            let sender = sender.clone();
            progress.when_durable(ChangeNo(number), move |durable| sender.send((name, durable)).unwrap());
        };
        wait(0, "nothing");
        wait(2, "second");
        wait(1, "first");
        wait(3, "third");
        assert_eq!(ran.try_iter().collect::<Vec<_>>(), [("nothing", true)]);
        progress.note_outcome(ChangeNo(2), true);
        wait(2, "late");
        assert_eq!(ran.try_iter().collect::<Vec<_>>(), [("first", true), ("second", true), ("late", true)]);
        progress.note_outcome(ChangeNo(3), false);
        wait(3, "too late");
        wait(2, "durable");
        assert_eq!(ran.try_iter().collect::<Vec<_>>(), [("third", false), ("too late", false), ("durable", true)]);
    }
}
