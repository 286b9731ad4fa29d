//! The pace at which a client's methods arrive, and how much of them is better gathered before its socket is read.
//!
//! Most clients write each message on its own. A broker that reads each of them as it comes pays a wake-up, a read and a
//! write per message. If a few of them are gathered in the socket first, they share these costs. A client that waits for
//! an answer must never be read later: it sends nothing before.

use crate::model::Monotonic;
use std::time::Duration;

/// Methods that must arrive while they are gathered, on average: with fewer there is nothing to gather.
const METHODS_MIN: u64 = 3;
/// From this average time between two methods on, in nanoseconds, they are gathered for the whole time; above it, for a
/// part of it, so that the delay grows with the rate: at half the rate half the time.
const GAP_QUICK: u64 = 10_000;
/// At most so many bytes are gathered. A read of so many is worth its costs.
const GATHERED_MAX: u64 = 16 * 1024;
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
    /// How many methods may be gathered at most. A client that waits for an answer after fewer would wait in vain; 0 if
    /// it waits already.
    pub(super) gathers_max: u64,
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
    /// What is gathered at present.
    gathers: Option<u64>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { last_read: Monotonic::default(), gap: nanos(GAP_MAX), size: 0, was_answered: false, gathers: None }
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

    /// Notes a read. Returns how many bytes should be gathered in the socket before the next one: what arrives in `time`
    /// at most, if that is worth it.
    pub(super) fn note_read(&mut self, arrived: Arrived, time: Duration, now: Monotonic) -> Option<usize> {
        let since = nanos(now.since(std::mem::replace(&mut self.last_read, now)).min(GAP_MAX));
        let methods = u64::from(arrived.methods.max(1));
        average(&mut self.gap, since / methods);
        average(&mut self.size, arrived.bytes as u64 / methods);
        let gap = self.gap.max(1);
        let bytes = (nanos(time) * GAP_QUICK).saturating_mul(self.size) / gap.max(GAP_QUICK) / gap;
        let is_small = (arrived.bytes as u64) < GATHERED_MAX;
        let bytes = bytes.min(arrived.gathers_max.saturating_mul(self.size));
        let is_worth = is_small && bytes >= (METHODS_MIN * self.size).max(2);
        let bytes = bytes.min(GATHERED_MAX);
        let wanted = is_worth.then_some(bytes);
        // It stays while it is about right: each change is a system call.
        if !self.gathers.zip(wanted).is_some_and(|(now, wanted)| (now * 3 / 4..=now * 4 / 3).contains(&wanted)) {
            self.gathers = wanted;
        }
        self.gathers.map(|bytes| bytes as usize)
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

    const TIME: Duration = Duration::from_micros(200);

    fn read(methods: u32) -> Arrived {
        Arrived { bytes: 80 * methods as usize, methods, gathers_max: u64::MAX }
    }

    /// What is gathered after 200 reads, one each `gap_us`.
    fn gathered(gap_us: u64, arrived: Arrived, time: Duration) -> Option<usize> {
        let mut pace = Pace::default();
        (1..=200).map(|turn| pace.note_read(arrived, time, Monotonic(1_000_000 + turn * gap_us))).last().flatten()
    }

    #[test]
    fn what_a_quick_client_sends_in_the_time_is_gathered() {
        let about = |gathered: Option<usize>, bytes: usize| {
            assert!(
                gathered.is_some_and(|gathered| (bytes * 3 / 4..=bytes).contains(&gathered)),
                "{gathered:?}, {bytes}"
            );
        };
        about(gathered(10, read(1), TIME), 20 * 80);
        about(gathered(100, read(10), TIME), 20 * 80);
        about(gathered(2, read(1), TIME), 100 * 80);
        about(gathered(20, read(1), TIME), 5 * 80);
        about(gathered(1, read(10), TIME), GATHERED_MAX as usize);
        assert_eq!(gathered(50, read(1), TIME), None, "20,000/s");
    }

    #[test]
    fn what_is_gathered_seldom_changes() {
        let mut pace = Pace::default();
        let mut now = Monotonic(1_000_000);
        let all = (0..10_000u64).map(|turn| {
            now = now.plus(Duration::from_micros(8 + turn % 5));
            pace.note_read(read(1), TIME, now)
        });
        let all: Vec<_> = all.skip(100).collect();
        assert!(all.windows(2).filter(|pair| pair[0] != pair[1]).count() <= 2);
    }

    #[test]
    fn nothing_is_gathered_from_a_client_that_waits_or_sends_much_at_once() {
        assert_eq!(gathered(10, Arrived { gathers_max: 0, ..read(1) }, TIME), None, "it waits for an answer");
        let four = gathered(10, Arrived { gathers_max: 4, ..read(1) }, TIME);
        assert!(four.is_some_and(|bytes| (240..=320).contains(&bytes)), "it would wait after four: {four:?}");
        assert_eq!(gathered(10, read(210), TIME), None, "its reads are large");
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
