//! The journal: changes of topology reach the store in the order in which they changed memory.
//!
//! A change is appended under the topology's lock, in the step that changes memory, and gets a number. One thread at a time
//! takes what was appended and hands it to the store's writer, so the order stays. An answer waits until the change that it
//! speaks of is durable; where an earlier change had made it so already, for the last one before it.
//!
//! No row of a queue is flushed ahead of the queue's own record. The record is appended before anybody can find the queue;
//! a turn hands over what was appended before it contributes rows ([`Unhanded`]); and the writer takes topology into a batch
//! no later than rows that were submitted after it.
//!
//! While the store refuses a batch, the writer tries it again, and the answers wait. Once the store has failed for good,
//! memory is ahead of it for good: what is not durable by then is answered with an error, and so is all that depends on it.

use crate::store::TopologyChange;
use crate::store::commit::Completion;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a method changes of what the store knows.
#[derive(Debug)]
pub(in crate::broker) enum Changes {
    /// Nothing durable is concerned: the answer waits for nothing.
    Nothing,
    /// An earlier change has made it so: it has to be durable before that is answered.
    Earlier,
    /// What the store is to change, in this order.
    New(Vec<TopologyChange>),
}

impl Changes {
    /// These records; without any, an earlier change has made it so if something durable is concerned.
    pub(super) fn new(records: Vec<TopologyChange>, is_durable: bool) -> Self {
        match (records.is_empty(), is_durable) {
            (false, _) => Self::New(records),
            (true, true) => Self::Earlier,
            (true, false) => Self::Nothing,
        }
    }

    /// What holds already, and is durable or not.
    pub(in crate::broker) fn existing(is_durable: bool) -> Self {
        if is_durable { Self::Earlier } else { Self::Nothing }
    }
}

/// Numbers the changes of one vhost, from 1. The number 0 is always durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::broker) struct ChangeNo(u64);

/// Counts the journals of a broker from which the writer has yet to get something.
#[derive(Clone, Debug, Default)]
pub(in crate::broker) struct Unhanded(Arc<AtomicUsize>);

impl Unhanded {
    /// Whether the writer may not have got all that was appended before this call.
    pub(in crate::broker) fn is_any(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }

    /// What a journal gave out was submitted to the writer.
    pub(in crate::broker) fn submitted(&self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Changes that memory has made and the writer has not got. Part of the topology, behind its lock.
#[derive(Debug)]
pub(in crate::broker) struct Journal {
    changes: Vec<TopologyChange>,
    last: ChangeNo,
    unhanded: Unhanded,
}

impl Journal {
    pub(super) fn new(unhanded: Unhanded) -> Self {
        Self { changes: Vec::new(), last: ChangeNo::default(), unhanded }
    }

    /// Takes in what a method has changed; returns the number with which that is durable.
    pub(in crate::broker) fn append(&mut self, changes: Changes) -> ChangeNo {
        match changes {
            Changes::Nothing => ChangeNo::default(),
            Changes::Earlier => self.last,
            Changes::New(records) => {
                if self.changes.is_empty() {
                    self.unhanded.0.fetch_add(1, Ordering::Relaxed);
                }
                self.changes.extend(records);
                self.last = ChangeNo(self.last.0 + 1);
                self.last
            }
        }
    }

    /// Gives out what was appended, up to which number. [`Unhanded::submitted`] must follow once the writer has it.
    pub(in crate::broker) fn take(&mut self) -> Option<(Vec<TopologyChange>, ChangeNo)> {
        (!self.changes.is_empty()).then(|| (std::mem::take(&mut self.changes), self.last))
    }
}

/// How far the store has come with a journal, and what waits for it.
#[derive(Debug, Default)]
pub(in crate::broker) struct Progress {
    /// Held from taking changes off the journal until the writer has them. The topology's lock and the writer's are
    /// taken inside it.
    handing: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    durable: ChangeNo,
    /// Up to here the outcome is known; beyond `durable` it is that the store has failed.
    settled: ChangeNo,
    waiting: BTreeMap<ChangeNo, Vec<Completion>>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("durable", &self.durable).field("settled", &self.settled).finish()
    }
}

impl State {
    /// Whether a change is durable, if that is known.
    fn outcome(&self, number: ChangeNo) -> Option<bool> {
        (number <= self.settled).then_some(number <= self.durable)
    }
}

impl Progress {
    /// The right to hand over.
    pub(in crate::broker) fn handing(&self) -> MutexGuard<'_, ()> {
        self.handing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this change is known to be durable.
    pub(in crate::broker) fn is_durable(&self, number: ChangeNo) -> bool {
        number == ChangeNo::default() || self.state().outcome(number) == Some(true)
    }

    /// Runs `then` once it is known whether this change is durable: now if it is known already, or else on the thread that
    /// commits it.
    pub(in crate::broker) fn when_durable(&self, number: ChangeNo, then: impl FnOnce(bool) + Send + 'static) {
        if number == ChangeNo::default() {
            return then(true);
        }
        let mut state = self.state();
        match state.outcome(number) {
            Some(durable) => {
                drop(state);
                then(durable);
            }
            None => state.waiting.entry(number).or_default().push(Box::new(then)),
        }
    }

    /// The outcome of all changes up to this one.
    pub(in crate::broker) fn settle(&self, up_to: ChangeNo, durable: bool) {
        let mut state = self.state();
        state.settled = state.settled.max(up_to);
        if durable {
            state.durable = state.durable.max(up_to);
        }
        let waiting = state.waiting.split_off(&ChangeNo(up_to.0 + 1));
        let known = std::mem::replace(&mut state.waiting, waiting);
        drop(state);
        for then in known.into_values().flatten() {
            then(durable);
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
    fn what_was_appended_is_given_out_in_its_order_and_counted_until_it_is_submitted() {
        let unhanded = Unhanded::default();
        let mut journal = Journal::new(unhanded.clone());
        assert_eq!(journal.append(Changes::Earlier), ChangeNo(0));
        assert!(!unhanded.is_any());
        assert_eq!(journal.append(Changes::New(vec![deletion(1), deletion(2)])), ChangeNo(1));
        assert_eq!(journal.append(Changes::Nothing), ChangeNo(0));
        assert_eq!(journal.append(Changes::New(vec![deletion(3)])), ChangeNo(2));
        assert_eq!(journal.append(Changes::Earlier), ChangeNo(2));
        assert_eq!(journal.take(), Some((vec![deletion(1), deletion(2), deletion(3)], ChangeNo(2))));
        assert_eq!(journal.take(), None);
        // While the writer is yet to get the first ones, more may be appended.
        journal.append(Changes::New(vec![deletion(4)]));
        unhanded.submitted();
        assert!(unhanded.is_any());
        journal.take();
        assert!(unhanded.is_any());
        unhanded.submitted();
        assert!(!unhanded.is_any());
    }

    #[test]
    fn what_waits_for_a_change_is_run_in_order_once_its_outcome_is_known_and_fails_for_good_with_the_store() {
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
        progress.settle(ChangeNo(2), true);
        wait(2, "late");
        assert_eq!(ran.try_iter().collect::<Vec<_>>(), [("first", true), ("second", true), ("late", true)]);
        progress.settle(ChangeNo(3), false);
        wait(3, "too late");
        wait(2, "durable");
        assert_eq!(ran.try_iter().collect::<Vec<_>>(), [("third", false), ("too late", false), ("durable", true)]);
    }
}
