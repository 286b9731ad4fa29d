//! Which messages arrived: gaps and duplicates per publisher, queue and priority, whatever the order.

use ahash::AHashMap;
use std::collections::BTreeSet;

/// How many numbers may arrive ahead of a missing one before that is called lost.
const AHEAD_MAX: usize = 1_000_000;

/// The numbers of one publisher in one queue, of one priority.
#[derive(Debug, Default)]
struct Track {
    /// All below have arrived or been called lost.
    next: u64,
    ahead: BTreeSet<u64>,
    /// Behind the last that must have arrived in the end.
    mark: u64,
    gaps: u64,
    duplicates: u64,
}

impl Track {
    fn arrived(&mut self, number: u64) {
        if number == self.next && self.ahead.is_empty() {
            self.next += 1;
        } else if number < self.next || !self.ahead.insert(number) {
            self.duplicates += 1;
        } else {
            self.close_up();
            while self.ahead.len() > AHEAD_MAX {
                self.give_up();
            }
        }
    }

    fn close_up(&mut self) {
        while self.ahead.remove(&self.next) {
            self.next += 1;
        }
    }

    /// Calls lost what is missing before the first that is ahead.
    fn give_up(&mut self) {
        if let Some(first) = self.ahead.first().copied() {
            self.gaps += first - self.next;
            self.next = first;
            self.close_up();
        }
    }
}

/// All that the consumers of some queues have seen.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    tracks: AHashMap<Lane, Track>,
    /// The measuring has ended.
    is_marked: bool,
}

/// The way from a publisher through a queue. What overtakes by its priority leaves no gap in its own lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub(super) publisher: u16,
    pub(super) queue: u16,
    pub(super) priority: u8,
}

/// What was wrong with the numbers that arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Faults {
    pub(super) gaps: u64,
    pub(super) duplicates: u64,
}

impl Faults {
    pub(super) fn count(self) -> u64 {
        self.gaps + self.duplicates
    }
}

impl Ledger {
    /// A message arrived; a lane's numbers begin at 0.
    pub(super) fn arrived(&mut self, lane: Lane, number: u64) {
        self.tracks.entry(lane).or_default().arrived(number);
    }

    /// All before this number must arrive, whether or not a later one does; unless the measuring has ended.
    pub(super) fn await_below(&mut self, lane: Lane, number: u64) {
        if !self.is_marked {
            self.tracks.entry(lane).or_default().mark = number;
        }
    }

    /// The measuring ends here: what is missing below the last that has arrived is lost, or on its way to another
    /// consumer. Of what is published from now on nothing is asked.
    pub(super) fn mark(&mut self) {
        self.is_marked = true;
        for track in self.tracks.values_mut() {
            track.mark = track.mark.max(track.ahead.last().map_or(track.next, |last| last + 1));
        }
    }

    /// Whether all below the marks has arrived.
    pub(super) fn is_complete(&self) -> bool {
        self.tracks.values().all(|track| track.next >= track.mark)
    }

    /// What is wrong, when nothing more will arrive that is below the marks.
    pub(super) fn close(&mut self) -> Faults {
        let mut faults = Faults::default();
        for track in self.tracks.values_mut() {
            while track.ahead.first().is_some_and(|first| *first < track.mark) {
                track.give_up();
            }
            track.gaps += track.mark.saturating_sub(track.next);
            faults.gaps += track.gaps;
            faults.duplicates += track.duplicates;
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(numbers: &[u64]) -> Faults {
        let mut ledger = Ledger::default();
        for number in numbers {
            ledger.arrived(Lane { publisher: 0, queue: 0, priority: 0 }, *number);
        }
        ledger.mark();
        ledger.close()
    }

    #[test]
    fn order_does_not_matter() {
        assert_eq!(faults(&[0, 2, 1, 4, 3]), Faults { gaps: 0, duplicates: 0 });
    }

    #[test]
    fn what_is_missing_below_the_last_is_a_gap_and_what_comes_again_a_duplicate() {
        assert_eq!(faults(&[0, 1, 4, 4, 1, 7]), Faults { gaps: 4, duplicates: 2 });
    }

    #[test]
    fn what_comes_late_is_not_lost_and_of_what_is_behind_the_mark_nothing_is_asked() {
        let mut ledger = Ledger::default();
        let lane = Lane { publisher: 0, queue: 0, priority: 0 };
        for number in [0, 3, 1] {
            ledger.arrived(lane, number);
        }
        ledger.mark();
        ledger.arrived(lane, 7);
        assert!(!ledger.is_complete());
        ledger.arrived(lane, 2);
        assert!(ledger.is_complete());
        assert_eq!(ledger.close(), Faults::default());
    }

    #[test]
    fn what_was_awaited_and_never_came_is_a_gap_too() {
        let mut ledger = Ledger::default();
        let lane = Lane { publisher: 0, queue: 0, priority: 0 };
        ledger.arrived(lane, 0);
        ledger.await_below(lane, 2);
        ledger.mark();
        // After the end nothing more is asked.
        ledger.await_below(lane, 9);
        assert!(!ledger.is_complete());
        assert_eq!(ledger.close(), Faults { gaps: 1, duplicates: 0 });
    }

    #[test]
    fn lanes_are_counted_apart() {
        let mut ledger = Ledger::default();
        for (publisher, queue, priority) in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 7)] {
            ledger.arrived(Lane { publisher, queue, priority }, 0);
        }
        ledger.mark();
        assert_eq!(ledger.close(), Faults::default());
    }
}
