//! The system's clocks.

use crate::model::{Clock, Monotonic, Now, WallMillis};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Reads the system's clocks. Monotonic time counts from when the clock was made.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    began: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time begins now.
    pub fn start() -> Self {
        Self { began: Instant::now() }
    }

    /// As [`start`](Self::start), shared.
    pub fn shared() -> Arc<dyn Clock> {
        Arc::new(Self::start())
    }

    /// The moment at which monotonic time is zero.
    pub fn began(&self) -> Instant {
        self.began
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let monotonic = Monotonic(u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX));
        // A wall clock before 1970 reads as 1970.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Now { monotonic, wall: WallMillis(u64::try_from(wall.as_millis()).unwrap_or(u64::MAX)) }
    }
}
