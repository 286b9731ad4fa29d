//! The deadline of one cell.

use crate::model::Monotonic;
use std::sync::atomic::{AtomicU64, Ordering};

/// The deadline at which the timers wake a cell, if any. It is stored in the cell, and changes only under the timers'
/// lock.
#[derive(Debug)]
pub(super) struct ArmedDeadline(AtomicU64);

impl ArmedDeadline {
    const NEVER: u64 = u64::MAX;

    fn of(deadline: u64) -> Option<Monotonic> {
        (deadline != Self::NEVER).then_some(Monotonic(deadline))
    }

    pub(super) fn get(&self) -> Option<Monotonic> {
        Self::of(self.0.load(Ordering::Relaxed))
    }

    /// Sets the deadline, and returns the former one.
    pub(super) fn replace(&self, deadline: Option<Monotonic>) -> Option<Monotonic> {
        Self::of(self.0.swap(deadline.map_or(Self::NEVER, |Monotonic(micros)| micros), Ordering::Relaxed))
    }
}

impl Default for ArmedDeadline {
    fn default() -> Self {
        Self(AtomicU64::new(Self::NEVER))
    }
}
