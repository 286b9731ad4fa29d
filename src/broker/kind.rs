//! The kinds of queues, and the interface that a cell needs of each.

use crate::model::{Monotonic, Now};
use crate::queue::{Effects, Permits, QueueInput, QueueLimits, QueueMetrics, QueueSettings, QueueState};

/// A queue's state machine as a cell and its turns use it. Settings change by an input (`LocalEvent::Configure`), since
/// only the thread that has the turn has the machine.
pub(super) trait QueueMachine {
    /// The settings of the queue.
    fn settings(&self) -> &QueueSettings;

    /// Applies one input. Effects are added to `out`.
    fn apply(&mut self, input: QueueInput, now: Now, permits: &mut dyn Permits, out: &mut Effects);

    /// Whether the queue has rows that should be written now.
    fn is_due(&self) -> bool;

    /// Whether the queue has rows for the scratch store.
    fn wants_scratch(&self) -> bool;

    /// When the queue needs a `LocalEvent::Tick`.
    fn deadline(&mut self, now: Now) -> Option<Monotonic>;

    /// The queue's metrics, including its memory.
    fn metrics(&self) -> QueueMetrics;

    /// Shrinks the queue's windows in memory by `steps` steps; 0 restores them.
    fn shrink_windows(&mut self, steps: u32);

    /// Sets whether transient messages exceed their memory budget.
    fn set_memory_pressure(&mut self, is_pressed: bool);

    /// Replaces the machine, after a panic in its turn, by one that refuses promises.
    fn fail(&mut self, limits: QueueLimits, now: Now);
}

/// A queue of one of the kinds.
#[derive(Debug)]
pub(super) enum Kind {
    /// A classic queue: messages leave it when they are settled.
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
