//! When queues want to be woken: one heap for all, emptied by one task of the shell.

use super::cell::Cell;
use crate::model::Monotonic;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Waker;

/// All deadlines. A cell may stand in it more than once; waking one too early is harmless.
#[derive(Debug, Default)]
pub(super) struct Timers(Mutex<Heap>);

#[derive(Debug, Default)]
struct Heap {
    entries: BinaryHeap<Reverse<Entry>>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Entry {
    at: Monotonic,
    cell: Weak<Cell>,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Timers {
    /// Wakes a cell at a time.
    pub(super) fn arm(&self, at: Monotonic, cell: &Arc<Cell>) {
        let waker = {
            let mut heap = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let first = heap.entries.peek().is_none_or(|Reverse(entry)| at < entry.at);
            heap.entries.push(Reverse(Entry { at, cell: Arc::downgrade(cell) }));
            if first { heap.waker.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Takes the cells whose time has come.
    pub(super) fn take_due(&self, now: Monotonic) -> Vec<Arc<Cell>> {
        let mut heap = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        while heap.entries.peek().is_some_and(|Reverse(entry)| entry.at <= now) {
            let Some(Reverse(entry)) = heap.entries.pop() else { break };
            due.extend(entry.cell.upgrade());
        }
        due
    }

    /// The next deadline; the waker is called when an earlier one appears.
    pub(super) fn next(&self, waker: &Waker) -> Option<Monotonic> {
        let mut heap = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heap.waker = Some(waker.clone());
        heap.entries.peek().map(|Reverse(entry)| entry.at)
    }
}
