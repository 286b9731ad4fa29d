//! The deadline of one cell, as the timers know it.

use crate::model::Monotonic;
use std::sync::atomic::{AtomicU64, Ordering};

/// The deadline under which the timers keep a cell, if they do. It lies in the cell and changes under the lock of the timers.
#[derive(Debug)]
pub(super) struct Armed(AtomicU64);

impl Armed {
    const NEVER: u64 = u64::MAX;

    fn of(deadline: u64) -> Option<Monotonic> {
        (deadline != Self::NEVER).then_some(Monotonic(deadline))
    }

    pub(super) fn get(&self) -> Option<Monotonic> {
        Self::of(self.0.load(Ordering::Relaxed))
    }

    /// Sets it, and returns the former one.
    pub(super) fn replace(&self, deadline: Option<Monotonic>) -> Option<Monotonic> {
        Self::of(self.0.swap(deadline.map_or(Self::NEVER, |Monotonic(micros)| micros), Ordering::Relaxed))
    }
}

impl Default for Armed {
    fn default() -> Self {
        Self(AtomicU64::new(Self::NEVER))
    }
}
