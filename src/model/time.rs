//! Time as the pure layers know it: two readings, passed in. The only clock is in the shell.

use std::time::Duration;

/// Microseconds since the process began: for heartbeats, ack times and timers; never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// The instant `after` this one; saturates.
    pub fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(after.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The instant `before` this one; saturates.
    pub fn minus(self, before: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(before.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The time since `earlier`; zero if that is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Milliseconds since the Unix epoch: for everything that survives a restart (TTL, expiry, `x-death` times).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallMillis(pub u64);

impl WallMillis {
    /// The instant `millis` after this one; saturates.
    pub fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Whole seconds since the Unix epoch, as AMQP's timestamps count.
    pub fn seconds(self) -> u64 {
        self.0 / 1000
    }
}

/// One reading of both clocks, taken once per read, turn or timer and handed down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Never goes back.
    pub monotonic: Monotonic,
    /// The time of day.
    pub wall: WallMillis,
}

impl Now {
    /// The monotonic instant at which the wall clock will show `wall`, if nobody changes it.
    pub fn monotonic_at(&self, wall: WallMillis) -> Monotonic {
        self.monotonic.plus(Duration::from_millis(wall.0.saturating_sub(self.wall.0)))
    }
}

/// The source of the time: the system's clocks, or a number in a simulation.
pub trait Clock: Send + Sync {
    /// Reads both clocks.
    fn now(&self) -> Now;
}
