//! The pace at which a client's methods arrive, and how much of them is better gathered before its socket is read.
//!
//! Most clients write each message on its own. A broker that reads each of them as it comes pays a wake-up, a read and a
//! write per message. If a few of them are gathered in the socket first, they share these costs. A client that waits for
//! an answer must never be read later: it sends nothing before.

use crate::model::Monotonic;
use std::time::Duration;

/// Methods that must arrive while they are gathered, on average: with fewer there is nothing to gather.
const METHODS_MIN: u64 = 2;
/// At most so many bytes are gathered. A read of so many is worth its costs.
const GATHERED_MAX: u64 = 8 * 1024;
/// A read weighs one in this many in the averages.
const WEIGHT: u64 = 8;
/// A longer time between two reads counts as this one. It decides how many reads it takes to become quick after a
/// pause: about 45, for 50 us.
const GAP_MAX: Duration = Duration::from_millis(10);

/// What one read brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Arrived {
    pub(super) bytes: usize,
    /// Methods, each with its content.
    pub(super) methods: u32,
    /// Whether the client goes on without an answer.
    pub(super) goes_on: bool,
}

/// The pace of one client.
#[derive(Debug)]
pub(super) struct Pace {
    last_read: Monotonic,
    /// Average time between two methods, in nanoseconds.
    gap: u64,
    /// Average bytes of a method.
    size: u64,
    /// Something was written to the client since the last read.
    was_answered: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { last_read: Monotonic::default(), gap: nanos(GAP_MAX), size: 0, was_answered: false }
    }
}

impl Pace {
    /// Notes that something was written to the client.
    pub(super) fn note_written(&mut self) {
        self.was_answered = true;
    }

    /// Whether something was written to the client since the last call.
    pub(super) fn take_answered(&mut self) -> bool {
        std::mem::take(&mut self.was_answered)
    }

    /// Notes a read. Returns how many bytes should be gathered in the socket before the next one: what arrives in the
    /// given time, if that is worth it.
    pub(super) fn note_read(&mut self, arrived: Arrived, time: Duration, now: Monotonic) -> Option<usize> {
        let since = nanos(now.since(std::mem::replace(&mut self.last_read, now)).min(GAP_MAX));
        let methods = u64::from(arrived.methods.max(1));
        average(&mut self.gap, since / methods);
        average(&mut self.size, arrived.bytes as u64 / methods);
        let methods = nanos(time) / self.gap.max(1);
        let bytes = (methods * self.size).min(GATHERED_MAX);
        let is_worth = arrived.goes_on && methods >= METHODS_MIN && (arrived.bytes as u64) < GATHERED_MAX;
        // A power of two, so that it seldom changes.
        is_worth.then(|| 1 << bytes.max(1).ilog2())
    }
}

fn average(average: &mut u64, value: u64) {
    *average = *average - *average / WEIGHT + value / WEIGHT;
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_micros(50);

    fn read(methods: u32) -> Arrived {
        Arrived { bytes: 80 * methods as usize, methods, goes_on: true }
    }

    /// What is gathered after 200 reads, one each `gap_us`.
    fn gathered(gap_us: u64, arrived: Arrived, time: Duration) -> Option<usize> {
        let mut pace = Pace::default();
        (1..=200).map(|turn| pace.note_read(arrived, time, Monotonic(1_000_000 + turn * gap_us))).last().flatten()
    }

    #[test]
    fn what_a_quick_client_sends_in_the_time_is_gathered() {
        assert_eq!(gathered(10, read(1), TIME), Some(256), "about five messages of 80 bytes");
        assert_eq!(gathered(100, read(10), TIME), Some(256), "methods count, not reads");
        assert_eq!(gathered(1, read(10), TIME), Some(GATHERED_MAX as usize));
        assert_eq!(gathered(50, read(1), TIME), None, "20,000/s");
    }

    #[test]
    fn nothing_is_gathered_from_a_client_that_waits_or_sends_much_at_once() {
        assert_eq!(gathered(10, Arrived { goes_on: false, ..read(1) }, TIME), None, "it waits for an answer");
        assert_eq!(gathered(10, read(110), TIME), None, "its reads are large");
        assert_eq!(gathered(10, read(1), Duration::ZERO), None, "it is switched off");
    }

    #[test]
    fn it_takes_many_reads_to_become_quick_and_one_pause_to_become_slow() {
        let mut pace = Pace::default();
        let mut now = Monotonic(1_000_000);
        let mut quick_after = None;
        for turn in 0..200 {
            now = now.plus(Duration::from_micros(10));
            if pace.note_read(read(1), TIME, now).is_some() {
                quick_after = quick_after.or(Some(turn));
            }
        }
        assert!(quick_after.is_some_and(|turn| (20..80).contains(&turn)), "{quick_after:?}");
        now = now.plus(Duration::from_millis(1));
        assert_eq!(pace.note_read(read(1), TIME, now), None);
    }
}
