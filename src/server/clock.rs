//! The only clock.

use crate::model::{Monotonic, Now, WallMillis};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads both clocks; monotonic time counts from its making.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    began: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { began: Instant::now() }
    }

    pub(crate) fn now(self) -> Now {
        let monotonic = Monotonic(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX));
        // A wall clock before 1970 reads as 1970.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now { monotonic, wall: WallMillis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)) }
    }

    /// The instant at which `now` will read `at`, for tokio's timers.
    pub(crate) fn instant(self, at: Monotonic) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.began + Duration::from_micros(at.0))
    }
}
