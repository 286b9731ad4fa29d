//! The clock of a running broker.

use crate::model::{Clock as _, Monotonic, Now};
use crate::store::SystemClock;
use std::sync::Arc;
use std::time::Duration;

/// Reads the system's clocks. Monotonic time starts at zero when the clock is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(SystemClock);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(SystemClock::start())
    }

    pub(crate) fn now(self) -> Now {
        self.0.now()
    }

    /// The same clock, for the store.
    pub(crate) fn shared(self) -> Arc<dyn crate::model::Clock> {
        Arc::new(self.0)
    }

    /// The instant, for tokio's timers, at which the monotonic time is `at`.
    pub(crate) fn instant(self, at: Monotonic) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.0.began() + Duration::from_micros(at.0))
    }
}
