//! The times at which the messages of a limited rate are due. A publisher that was held up catches up, and a message's
//! latency counts from the time at which it was due. So the delay of a stall is not left out (no coordinated omission).

use super::meter::{Meter, PATIENCE};
#[cfg(target_os = "linux")]
use std::num::NonZeroU64;
use std::thread;
use std::time::Duration;

/// A constant rate, beginning at a given time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    begin: Duration,
    per_second: f64,
}

impl Pace {
    pub(super) fn new(begin: Duration, per_second: f64) -> Self {
        Self { begin, per_second }
    }

    /// The number of messages that are due by `now`; the first is due at the beginning.
    pub(super) fn due(&self, now: Duration) -> u64 {
        match now.checked_sub(self.begin) {
            Some(since) => (since.as_secs_f64() * self.per_second) as u64 + 1,
            None => 0,
        }
    }

    /// When the message of this number, counted from 0, is due.
    pub(super) fn moment(&self, number: u64) -> Duration {
        self.begin + Duration::from_secs_f64(number as f64 / self.per_second)
    }
}

/// Makes threads that are started from here on wake in time. By default, Linux may add 50 us to each sleep, which is
/// the interval of messages at 20,000/s.
pub(super) fn wake_in_time() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::set_current_timer_slack(NonZeroU64::new(1)) {
        tracing::warn!(%error, "messages may be late by 50 us");
    }
}

/// Waits until the message of this number is due. Returns the time at which it was due, or the current time if there is
/// no pace; `None` once the run is over.
pub(super) fn wait_until_due(pace: Option<Pace>, number: u64, meter: &Meter) -> Option<Duration> {
    while !meter.is_over() {
        let now = meter.clock.elapsed();
        let due = pace.map_or(now, |pace| pace.moment(number));
        if due <= now {
            return Some(due);
        }
        thread::sleep((due - now).min(PATIENCE));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_the_rate_and_missed_messages_stay_due() {
        let pace = Pace::new(Duration::from_secs(3), 20_000.0);
        assert_eq!(pace.due(Duration::from_secs(2)), 0);
        assert_eq!(pace.due(Duration::from_secs(3)), 1);
        assert_eq!(pace.due(Duration::from_micros(3_000_120)), 3);
        assert_eq!(pace.due(Duration::from_secs(5)), 40_001);
    }

    #[test]
    fn messages_are_due_one_interval_apart() {
        let pace = Pace::new(Duration::from_secs(1), 250.0);
        assert_eq!(pace.moment(0), Duration::from_secs(1));
        assert_eq!(pace.moment(3), Duration::from_millis(1_012));
        assert_eq!(pace.due(pace.moment(3) - Duration::from_micros(1)), 3);
        assert_eq!(pace.due(pace.moment(3) + Duration::from_micros(1)), 4);
    }
}
