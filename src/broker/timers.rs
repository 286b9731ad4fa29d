//! The deadlines at which queues must be woken: one ordered map, which one task of the shell serves.

use super::cell::Cell;
use crate::model::{Monotonic, QueueId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Waker;

/// All deadlines, at most one for each cell.
#[derive(Debug, Default)]
pub(super) struct Timers(Mutex<Deadlines>);

#[derive(Debug, Default)]
struct Deadlines {
    cells: BTreeMap<(Monotonic, QueueId), Weak<Cell>>,
    waker: Option<Waker>,
}

impl Deadlines {
    fn remove(&mut self, cell: &Cell, deadline: Option<Monotonic>) {
        if let Some(deadline) = deadline {
            self.cells.remove(&(deadline, cell.id()));
        }
    }
}

impl Timers {
    fn deadlines(&self) -> MutexGuard<'_, Deadlines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arms a cell to be woken at `at`, unless it is armed for an earlier time. Call this only in the cell's turn.
    pub(super) fn arm(&self, at: Monotonic, cell: &Arc<Cell>) {
        if cell.armed.get().is_some_and(|armed| armed <= at) {
            return;
        }
        let waker = {
            let mut deadlines = self.deadlines();
            let former = cell.armed.replace(Some(at));
            deadlines.remove(cell, former);
            let is_first = deadlines.cells.first_key_value().is_none_or(|((first, _), _)| at < *first);
            deadlines.cells.insert((at, cell.id()), Arc::downgrade(cell));
            if is_first { deadlines.waker.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Removes the deadline of a cell. Call this in the cell's last turn: an armed cell's memory is kept.
    pub(super) fn disarm(&self, cell: &Cell) {
        if cell.armed.get().is_some() {
            let mut deadlines = self.deadlines();
            let former = cell.armed.replace(None);
            deadlines.remove(cell, former);
        }
    }

    /// Takes the cells whose deadlines have passed.
    pub(super) fn take_due(&self, now: Monotonic) -> Vec<Arc<Cell>> {
        let mut deadlines = self.deadlines();
        let mut due = Vec::new();
        while let Some(first) = deadlines.cells.first_entry()
            && first.key().0 <= now
        {
            if let Some(cell) = first.remove().upgrade() {
                cell.armed.replace(None);
                due.push(cell);
            }
        }
        due
    }

    /// The next deadline. The waker is called if an earlier one appears.
    pub(super) fn next(&self, waker: &Waker) -> Option<Monotonic> {
        let mut deadlines = self.deadlines();
        deadlines.waker = Some(waker.clone());
        deadlines.cells.first_key_value().map(|((at, _), _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::kind::Kind;
    use crate::broker::node::Broker;
    use crate::model::random::Random;
    use crate::model::{Name, Now, WallMillis};
    use crate::queue::{ConsumerLimits, HoldLimits, QueueLimits, QueueSettings, QueueState, WindowLimits};
    use std::collections::BTreeMap as Model;

    fn cell(id: u64) -> Arc<Cell> {
        let settings = QueueSettings::plain(QueueId(id), Name::from("/"), Name::from("q"));
        let limits = QueueLimits {
            hold: HoldLimits::default(),
            window: WindowLimits::default(),
            consumer: ConsumerLimits { messages: 1, messages_max: 1, bytes_max: 1, unacked_max: 1 },
        };
        let now = Now { monotonic: Monotonic(0), wall: WallMillis(0) };
        Cell::new(Kind::Classic(QueueState::new(settings, limits, now)), None, Weak::<Broker>::new()).0
    }

    /// Creates, arms, wakes and deletes cells in any order. There are never more deadlines than cells, and the memory
    /// of a deleted cell is not kept. Each cell is woken at the earliest time for which it was armed, and not before.
    #[test]
    fn timers_keep_one_deadline_for_each_armed_cell_and_none_of_a_deleted_one() {
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let mut below = |most: u64| random.next_u64() % most;
            let timers = Timers::default();
            let mut cells: Vec<Arc<Cell>> = Vec::new();
            let mut gone: Vec<Weak<Cell>> = Vec::new();
            let mut model: Model<QueueId, u64> = Model::new();
            let mut now = 0;
            for id in 0..2_000 {
                match below(8) {
                    0..3 => cells.push(cell(id)),
                    3..6 if !cells.is_empty() => {
                        let cell = &cells[below(cells.len() as u64) as usize];
                        let at = now + below(1_000);
                        timers.arm(Monotonic(at), cell);
                        let armed = model.entry(cell.id()).or_insert(at);
                        *armed = at.min(*armed);
                    }
                    6 if !cells.is_empty() => {
                        let cell = cells.swap_remove(below(cells.len() as u64) as usize);
                        timers.disarm(&cell);
                        model.remove(&cell.id());
                        gone.push(Arc::downgrade(&cell));
                    }
                    _ => {
                        now += below(100);
                        let mut woken: Vec<QueueId> =
                            timers.take_due(Monotonic(now)).iter().map(|cell| cell.id()).collect();
                        woken.sort_unstable();
                        let due = model.extract_if(.., |_, at| *at <= now).map(|(id, _)| id);
                        assert_eq!(woken, due.collect::<Vec<_>>());
                    }
                }
                assert_eq!(timers.next(Waker::noop()).map(|at| at.0), model.values().min().copied());
                let kept = timers.deadlines().cells.len();
                assert_eq!(kept, model.len());
                assert!(kept <= cells.len());
            }
            assert!(cells.iter().all(|cell| Arc::weak_count(cell) == usize::from(model.contains_key(&cell.id()))));
            assert!(gone.iter().all(|cell| Weak::weak_count(cell) == 0));
        }
    }
}
