//! The clock of a run. All threads share it, so that the time written into a body can be compared with the time of its
//! delivery.

use std::time::{Duration, Instant};

/// Time since the run began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    pub(super) fn micros(self) -> u64 {
        micros(self.elapsed())
    }
}

/// A duration in microseconds; a `u64` holds half a million years of them.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
