//! When rows of a queue fall due for the writer.

use super::settings::HoldLimits;
use crate::model::Monotonic;
use std::time::Duration;

/// The smoothed ack time before the first acknowledgement.
const ACK_TIME_FIRST_MICROS: u64 = 1000;
/// An acknowledgement counts as at most this much in the smoothed ack time, so that a single slow one has little weight.
const ACK_TIME_COUNTED_MAX_MICROS: u64 = 1_000_000;

/// Whether rows are due for the writer, and when they are due at the latest.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Due {
    now: bool,
    at: Option<Monotonic>,
}

impl Due {
    pub(super) fn is_now(self) -> bool {
        self.now
    }

    /// When rows fall due, if none is due now.
    pub(super) fn at(self) -> Option<Monotonic> {
        self.at
    }

    pub(super) fn set_now(&mut self) {
        self.now = true;
    }

    pub(super) fn set_now_if(&mut self, is_due: bool) {
        self.now |= is_due;
    }

    pub(super) fn by(&mut self, at: Monotonic) {
        self.at = Some(self.at.map_or(at, |due| due.min(at)));
    }

    /// Clears what is due now; returns whether rows were due.
    pub(super) fn take_now(&mut self) -> bool {
        std::mem::take(&mut self.now)
    }

    pub(super) fn tick(&mut self, now: Monotonic) {
        if self.at.is_some_and(|at| at <= now) {
            *self = Self { now: true, at: None };
        }
    }
}

/// How long a lent young entry is held back from the writer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hold {
    limits: HoldLimits,
    ack_time_micros: u64,
}

impl Hold {
    pub(super) fn new(limits: HoldLimits) -> Self {
        Self { limits, ack_time_micros: ACK_TIME_FIRST_MICROS }
    }

    /// The time to hold an entry; none if consumers are slow, because waiting would only delay confirms.
    pub(super) fn time(&self) -> Option<Duration> {
        let smoothed = Duration::from_micros(self.ack_time_micros);
        (smoothed <= self.limits.ack_time_max && !self.limits.hold_max.is_zero())
            .then(|| (smoothed * 2).min(self.limits.hold_max))
    }

    /// Notes how long after its lending a message was acknowledged.
    pub(super) fn note_ack(&mut self, after: Duration) {
        let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.ack_time_micros = (self.ack_time_micros * 7 + micros.min(ACK_TIME_COUNTED_MAX_MICROS)) / 8;
    }
}
