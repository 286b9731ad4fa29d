//! Records arrived messages: finds gaps and duplicates per publisher, queue and priority, in any order of arrival.

use ahash::AHashMap;
use std::collections::BTreeSet;

/// How many numbers may arrive ahead of a missing one before it counts as lost.
const AHEAD_MAX: usize = 1_000_000;

/// The numbers of one publisher in one queue, of one priority.
#[derive(Debug, Default)]
struct Sequence {
    /// All numbers below have arrived or count as lost.
    next: u64,
    ahead: BTreeSet<u64>,
    /// All numbers below must have arrived in the end.
    mark: u64,
    gaps: u64,
    duplicates: u64,
}

impl Sequence {
    fn note_arrival(&mut self, number: u64) {
        if number == self.next && self.ahead.is_empty() {
            self.next += 1;
        } else if number < self.next || !self.ahead.insert(number) {
            self.duplicates += 1;
        } else {
            self.advance();
            while self.ahead.len() > AHEAD_MAX {
                self.skip_gap();
            }
        }
    }

    fn advance(&mut self) {
        while self.ahead.remove(&self.next) {
            self.next += 1;
        }
    }

    /// Counts the missing numbers before the first one ahead as lost.
    fn skip_gap(&mut self) {
        if let Some(first) = self.ahead.first().copied() {
            self.gaps += first - self.next;
            self.next = first;
            self.advance();
        }
    }
}

/// All messages that the consumers of some queues have taken.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sequences: AHashMap<SequenceKey, Sequence>,
    /// Measuring has ended.
    is_marked: bool,
}

/// Identifies a sequence of numbers: a publisher, a queue and a priority. Messages of higher priority overtake others,
/// so each priority has its own sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SequenceKey {
    pub(super) publisher: u16,
    pub(super) queue: u16,
    pub(super) priority: u8,
}

/// Counts of lost and duplicate messages.
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
    /// Records the arrival of a message. The numbers of each sequence begin at 0.
    pub(super) fn note_arrival(&mut self, key: SequenceKey, number: u64) {
        self.sequences.entry(key).or_default().note_arrival(number);
    }

    /// Records that all numbers below this one must arrive. Has no effect once measuring has ended.
    pub(super) fn expect_below(&mut self, key: SequenceKey, number: u64) {
        if !self.is_marked {
            self.sequences.entry(key).or_default().mark = number;
        }
    }

    /// Ends measuring. Numbers missing below the last arrived one are lost, or on their way to another consumer.
    /// Messages published from now on are not checked.
    pub(super) fn mark(&mut self) {
        self.is_marked = true;
        for sequence in self.sequences.values_mut() {
            sequence.mark = sequence.mark.max(sequence.ahead.last().map_or(sequence.next, |last| last + 1));
        }
    }

    /// Whether all numbers below the marks have arrived.
    pub(super) fn is_complete(&self) -> bool {
        self.sequences.values().all(|sequence| sequence.next >= sequence.mark)
    }

    /// Counts the faults. Call this when no more messages below the marks can arrive.
    pub(super) fn close(&mut self) -> Faults {
        let mut faults = Faults::default();
        for sequence in self.sequences.values_mut() {
            while sequence.ahead.first().is_some_and(|first| *first < sequence.mark) {
                sequence.skip_gap();
            }
            sequence.gaps += sequence.mark.saturating_sub(sequence.next);
            faults.gaps += sequence.gaps;
            faults.duplicates += sequence.duplicates;
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
            ledger.note_arrival(SequenceKey { publisher: 0, queue: 0, priority: 0 }, *number);
        }
        ledger.mark();
        ledger.close()
    }

    #[test]
    fn order_does_not_matter() {
        assert_eq!(faults(&[0, 2, 1, 4, 3]), Faults { gaps: 0, duplicates: 0 });
    }

    #[test]
    fn a_missing_number_below_the_last_is_a_gap_and_a_repeated_one_a_duplicate() {
        assert_eq!(faults(&[0, 1, 4, 4, 1, 7]), Faults { gaps: 4, duplicates: 2 });
    }

    #[test]
    fn a_late_number_is_not_lost_and_numbers_after_the_mark_are_not_checked() {
        let mut ledger = Ledger::default();
        let key = SequenceKey { publisher: 0, queue: 0, priority: 0 };
        for number in [0, 3, 1] {
            ledger.note_arrival(key, number);
        }
        ledger.mark();
        ledger.note_arrival(key, 7);
        assert!(!ledger.is_complete());
        ledger.note_arrival(key, 2);
        assert!(ledger.is_complete());
        assert_eq!(ledger.close(), Faults::default());
    }

    #[test]
    fn an_expected_number_that_never_arrives_is_a_gap() {
        let mut ledger = Ledger::default();
        let key = SequenceKey { publisher: 0, queue: 0, priority: 0 };
        ledger.note_arrival(key, 0);
        ledger.expect_below(key, 2);
        ledger.mark();
        // After the end of measuring, no more numbers are expected.
        ledger.expect_below(key, 9);
        assert!(!ledger.is_complete());
        assert_eq!(ledger.close(), Faults { gaps: 1, duplicates: 0 });
    }

    #[test]
    fn sequences_are_counted_separately() {
        let mut ledger = Ledger::default();
        for (publisher, queue, priority) in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 7)] {
            ledger.note_arrival(SequenceKey { publisher, queue, priority }, 0);
        }
        ledger.mark();
        assert_eq!(ledger.close(), Faults::default());
    }
}
