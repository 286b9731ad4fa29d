//! Publisher confirms of one channel: the state of each publish, and the fewest frames that confirm them.

use crate::wire::writer::{write_ack, write_nack};
use std::collections::VecDeque;

/// The state of a publish that is not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PublishState {
    /// Not routed yet.
    Unrouted,
    /// So many queues have not kept or refused their promise yet; `refused`: one of the others refused.
    Waiting { parts: u32, refused: bool },
    /// All promises are kept or refused; the number is in `acks` or `nacks`.
    Done,
}

/// The publishes that are not confirmed, and the confirms to write at the end of this pass.
#[derive(Debug, Default)]
pub(super) struct Confirms {
    is_selected: bool,
    /// The sequence number of the next publish.
    next: u64,
    /// The sequence number of the first publish in `ring`.
    base: u64,
    ring: VecDeque<PublishState>,
    acks: Vec<u64>,
    nacks: Vec<u64>,
}

impl Confirms {
    pub(super) fn select(&mut self) {
        if !self.is_selected {
            self.is_selected = true;
            self.next = 1;
            self.base = 1;
        }
    }

    pub(super) fn is_selected(&self) -> bool {
        self.is_selected
    }

    /// The sequence number of one more publish; none outside confirm mode.
    pub(super) fn next_sequence(&mut self) -> Option<u64> {
        if !self.is_selected {
            return None;
        }
        let sequence = self.next;
        self.next += 1;
        self.ring.push_back(PublishState::Unrouted);
        Some(sequence)
    }

    /// How many publishes are kept: those that are not confirmed, and those behind the first of them.
    pub(super) fn waiting(&self) -> usize {
        self.ring.len()
    }

    /// The memory that its lists take, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        let listed = self.acks.capacity() + self.nacks.capacity();
        self.ring.capacity() * size_of::<PublishState>() + listed * size_of::<u64>()
    }

    fn at(&mut self, sequence: u64) -> Option<&mut PublishState> {
        let index = usize::try_from(sequence.checked_sub(self.base)?).ok()?;
        self.ring.get_mut(index)
    }

    /// Sets how many queues owe a promise for a publish; 0 counts as one promise, which the caller keeps.
    pub(super) fn set_parts(&mut self, sequence: u64, parts: u32) {
        if let Some(part) = self.at(sequence)
            && *part == PublishState::Unrouted
        {
            *part = PublishState::Waiting { parts: parts.max(1), refused: false };
        }
    }

    /// A queue kept or refused its promises for these publishes. Returns whether confirms are due.
    pub(super) fn promised(&mut self, first: u64, last: u64, kept: bool) -> bool {
        for sequence in first..=last {
            let Some(part) = self.at(sequence) else { continue };
            let PublishState::Waiting { parts, refused } = part else { continue };
            *parts -= 1;
            *refused |= !kept;
            if *parts > 0 {
                continue;
            }
            let refused = *refused;
            *part = PublishState::Done;
            if refused { self.nacks.push(sequence) } else { self.acks.push(sequence) }
        }
        while self.ring.front() == Some(&PublishState::Done) {
            self.ring.pop_front();
            self.base += 1;
        }
        !self.acks.is_empty() || !self.nacks.is_empty()
    }

    /// Writes the confirms that are due. A frame with `multiple` never covers a number that is unconfirmed or of the other kind.
    /// Returns how many publishes were confirmed.
    pub(super) fn flush(&mut self, channel: u16, out: &mut Vec<u8>) -> u64 {
        let confirmed = self.acks.len() as u64;
        let (mut acks, mut nacks) = (std::mem::take(&mut self.acks), std::mem::take(&mut self.nacks));
        acks.sort_unstable();
        nacks.sort_unstable();
        let first = |list: &[u64]| list.first().copied().unwrap_or(u64::MAX);
        write_run(&acks, self.base.min(first(&nacks)), |tag, multiple| write_ack(out, channel, tag, multiple));
        write_run(&nacks, self.base.min(first(&acks)), |tag, multiple| write_nack(out, channel, tag, multiple));
        acks.clear();
        nacks.clear();
        (self.acks, self.nacks) = (acks, nacks);
        confirmed
    }
}

/// Writes the numbers below `cut` in one frame, and a frame for each of the others.
fn write_run(numbers: &[u64], cut: u64, mut write: impl FnMut(u64, bool)) {
    let (below, above) = numbers.split_at(numbers.partition_point(|number| *number < cut));
    if let Some(last) = below.last() {
        write(*last, below.len() > 1);
    }
    for number in above {
        write(*number, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(publishes: u64, parts: u32) -> Confirms {
        let mut confirms = Confirms::default();
        confirms.select();
        for _ in 0..publishes {
            let sequence = confirms.next_sequence().expect("in confirm mode");
            confirms.set_parts(sequence, parts);
        }
        confirms
    }

    fn written(confirms: &mut Confirms) -> Vec<(u8, u64, bool)> {
        let mut out = Vec::new();
        confirms.flush(1, &mut out);
        out.chunks(21)
            .map(|frame| {
                let tag = u64::from_be_bytes(frame[11..19].try_into().expect("eight bytes"));
                (frame[10], tag, frame[19] & 1 == 1)
            })
            .collect()
    }

    #[test]
    fn a_run_of_confirms_is_one_frame() {
        let mut confirms = selected(5, 1);
        assert!(confirms.promised(1, 4, true));
        assert_eq!(written(&mut confirms), [(80, 4, true)]);
        assert!(confirms.promised(5, 5, true));
        assert_eq!(written(&mut confirms), [(80, 5, false)]);
    }

    #[test]
    fn multiple_never_covers_an_unconfirmed_or_refused_publish() {
        let mut confirms = selected(6, 1);
        confirms.promised(1, 2, true);
        confirms.promised(3, 3, false);
        confirms.promised(4, 4, true);
        confirms.promised(6, 6, true);
        assert_eq!(written(&mut confirms), [(80, 2, true), (80, 4, false), (80, 6, false), (120, 3, false)]);
    }

    #[test]
    fn a_message_for_two_queues_is_confirmed_by_the_second_and_refused_by_either() {
        let mut confirms = selected(2, 2);
        assert!(!confirms.promised(1, 2, true));
        confirms.promised(1, 1, true);
        confirms.promised(2, 2, false);
        assert_eq!(written(&mut confirms), [(80, 1, false), (120, 2, false)]);
    }
}
