//! The kinds of queues: what a cell needs of each, and which there are.

use crate::model::{Monotonic, Now};
use crate::queue::{Effects, Permits, QueueInput, QueueLimits, QueueMetrics, QueueSettings, QueueState};

/// What a cell and its turns need of a queue, of whatever kind. Settings change by an input (`LocalEvent::Configure`), since
/// only the holder of the turn has the machine.
pub(super) trait QueueMachine {
    /// The settings of the queue.
    fn settings(&self) -> &QueueSettings;

    /// Takes one input. Effects are added to `out`.
    fn apply(&mut self, input: QueueInput, now: Now, permits: &mut dyn Permits, out: &mut Effects);

    /// Whether the writer should pull now.
    fn is_due(&self) -> bool;

    /// Whether there is something for the scratch store.
    fn wants_scratch(&self) -> bool;

    /// When the queue needs a `LocalEvent::Tick`.
    fn deadline(&mut self, now: Now) -> Option<Monotonic>;

    /// All numbers of the queue, with those of its memory.
    fn metrics(&self) -> QueueMetrics;

    /// Shrinks what is kept in memory by so many steps; 0 restores it.
    fn shrink_windows(&mut self, steps: u32);

    /// Sets whether transient messages exceed their memory budget.
    fn set_memory_pressure(&mut self, is_pressed: bool);

    /// The queue's turn panicked: the machine is replaced by one that refuses promises.
    fn fail(&mut self, limits: QueueLimits, now: Now);
}

/// A queue of one of the kinds.
#[derive(Debug)]
pub(super) enum Kind {
    /// Messages leave when they are settled.
    Classic(QueueState),
}

impl QueueMachine for Kind {
    fn settings(&self) -> &QueueSettings {
        match self {
            Self::Classic(queue) => queue.settings(),
        }
    }

    #[inline]
    fn apply(&mut self, input: QueueInput, now: Now, permits: &mut dyn Permits, out: &mut Effects) {
        match self {
            Self::Classic(queue) => queue.apply(input, now, permits, out),
        }
    }

    fn is_due(&self) -> bool {
        match self {
            Self::Classic(queue) => queue.is_due(),
        }
    }

    fn wants_scratch(&self) -> bool {
        match self {
            Self::Classic(queue) => queue.wants_scratch(),
        }
    }

    fn deadline(&mut self, now: Now) -> Option<Monotonic> {
        match self {
            Self::Classic(queue) => queue.deadline(now),
        }
    }

    fn metrics(&self) -> QueueMetrics {
        match self {
            Self::Classic(queue) => queue.metrics(),
        }
    }

    fn shrink_windows(&mut self, steps: u32) {
        match self {
            Self::Classic(queue) => queue.shrink_windows(steps),
        }
    }

    fn set_memory_pressure(&mut self, is_pressed: bool) {
        match self {
            Self::Classic(queue) => queue.set_memory_pressure(is_pressed),
        }
    }

    fn fail(&mut self, limits: QueueLimits, now: Now) {
        match self {
            Self::Classic(queue) => *queue = QueueState::failed(queue.settings().clone(), limits, now),
        }
    }
}
