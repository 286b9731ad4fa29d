//! The lanes of the file: their numbers, the free numbers, and the rows that are to be erased.

use crate::model::{Lane, Position, QueueId};
use crate::store::POSITION_MAX;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::RangeInclusive;

/// Bits of a row's key that hold the position; the 23 above hold the lane's number.
pub(super) const POSITION_BITS: u32 = 40;

/// The highest lane number.
const NUMBER_MAX: u32 = (1 << 23) - 1;

/// A lane's number in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LaneNumber(pub(super) u32);

impl LaneNumber {
    /// The key of a row. Positions beyond the highest have the key of the highest.
    pub(super) fn key(self, position: Position) -> i64 {
        (i64::from(self.0) << POSITION_BITS) | position.min(POSITION_MAX).0.cast_signed()
    }

    /// The keys of all rows that the lane can have.
    pub(super) fn keys(self) -> RangeInclusive<i64> {
        self.key(Position(0))..=self.key(POSITION_MAX)
    }

    /// The keys below a position.
    pub(super) fn keys_below(self, below: Position) -> RangeInclusive<i64> {
        let last = if below > POSITION_MAX { self.key(POSITION_MAX) } else { self.key(below) - 1 };
        self.key(Position(0))..=last
    }
}

/// The position in a row's key.
pub(super) fn position_of(key: i64) -> Position {
    Position(key.cast_unsigned() & POSITION_MAX.0)
}

/// Rows to be erased in slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeadRange {
    /// The lane of the rows.
    pub(super) number: LaneNumber,
    /// The first key whose row may exist.
    pub(super) first: i64,
    /// The last key.
    pub(super) last: i64,
    /// Its key in the table `erasing`; `None` if the whole lane was dropped.
    pub(super) range: Option<i64>,
}

impl DeadRange {
    fn whole(number: LaneNumber) -> Self {
        let (first, last) = number.keys().into_inner();
        Self { number, first, last, range: None }
    }

    fn range(first: i64, last: i64) -> Self {
        Self { number: LaneNumber((first >> POSITION_BITS) as u32), first, last, range: Some(first) }
    }
}

/// The lanes of the file, as the writer knows them. [`committed`](Self::committed) or
/// [`rolled_back`](Self::rolled_back) ends the changes of a transaction.
#[derive(Default)]
pub(super) struct Lanes {
    numbers: BTreeMap<Lane, LaneNumber>,
    /// Rows that are to be erased.
    erasing: VecDeque<DeadRange>,
    /// By number: the position below which a lane has no rows, except those to be erased.
    heads: HashMap<u32, Position>,
    /// Ranges that the transaction adds to `erasing`.
    left: Vec<DeadRange>,
    /// Numbers below `next` that no lane has.
    free: Vec<RangeInclusive<u32>>,
    next: u32,
    /// By number: how many rows of a lane have their body in the table of bodies, if any.
    bodies: HashMap<u32, u64>,
    /// The values of `bodies` before the transaction.
    bodies_before: Vec<(u32, u64)>,
    /// The last id of a body. Ids of a transaction that is rolled back are not used again.
    last_body: i64,
    added: Vec<Lane>,
    dropped: Vec<(Lane, LaneNumber)>,
}

impl Lanes {
    /// No lanes, and this last id of a body.
    pub(super) fn with_last_body(last_body: i64) -> Self {
        Self { last_body, ..Self::default() }
    }

    /// Adds a lane found in the file, in the order of numbers. `None` is a dropped lane.
    pub(super) fn found(&mut self, number: LaneNumber, lane: Option<Lane>, bodies: u64) {
        if number.0 > self.next {
            self.free.push(self.next..=number.0 - 1);
        }
        self.next = number.0 + 1;
        self.note_bodies(number.0, bodies);
        match lane {
            Some(lane) => {
                self.numbers.insert(lane, number);
            }
            None => self.erasing.push_back(DeadRange::whole(number)),
        }
    }

    /// Adds a dead range found in the file.
    pub(super) fn found_range(&mut self, first: i64, last: i64) {
        self.erasing.push_back(DeadRange::range(first, last));
    }

    /// The position below which a lane has no rows, except those to be erased.
    pub(super) fn head(&self, number: LaneNumber) -> Position {
        self.heads.get(&number.0).copied().unwrap_or_default()
    }

    /// Sets a lane's head, once its batch is committed.
    pub(super) fn set_head(&mut self, number: LaneNumber, head: Position) {
        self.heads.insert(number.0, head);
    }

    /// Adds a range of rows to those to be erased later.
    pub(super) fn erase_later(&mut self, first: i64, last: i64) {
        self.left.push(DeadRange::range(first, last));
    }

    pub(super) fn get(&self, lane: Lane) -> Option<LaneNumber> {
        self.numbers.get(&lane).copied()
    }

    /// How many rows of a lane have their body in the table of bodies.
    pub(super) fn bodies(&self, number: LaneNumber) -> u64 {
        self.bodies.get(&number.0).copied().unwrap_or(0)
    }

    pub(super) fn set_bodies(&mut self, number: LaneNumber, bodies: u64) {
        let before = self.note_bodies(number.0, bodies);
        self.bodies_before.push((number.0, before));
    }

    /// Sets the number of bodies. Returns the number before.
    fn note_bodies(&mut self, number: u32, bodies: u64) -> u64 {
        let before = if bodies == 0 { self.bodies.remove(&number) } else { self.bodies.insert(number, bodies) };
        before.unwrap_or(0)
    }

    pub(super) fn last_body(&mut self) -> &mut i64 {
        &mut self.last_body
    }

    /// Gives a new lane a number. `None` if all are in use.
    pub(super) fn add(&mut self, lane: Lane) -> Option<LaneNumber> {
        let number = self.take_number()?;
        self.numbers.insert(lane, number);
        self.added.push(lane);
        Some(number)
    }

    fn take_number(&mut self) -> Option<LaneNumber> {
        if let Some(range) = self.free.pop() {
            let (first, last) = range.into_inner();
            if first < last {
                self.free.push(first + 1..=last);
            }
            return Some(LaneNumber(first));
        }
        let number = self.next;
        self.next += u32::from(number <= NUMBER_MAX);
        (number <= NUMBER_MAX).then_some(LaneNumber(number))
    }

    /// Drops a lane. Returns its number, whose rows are to be erased.
    pub(super) fn drop_lane(&mut self, lane: Lane) -> Option<LaneNumber> {
        let number = self.numbers.remove(&lane)?;
        self.dropped.push((lane, number));
        Some(number)
    }

    pub(super) fn of_queue(&self, queue: QueueId) -> Vec<Lane> {
        let first = Lane { queue, level: 0, generation: 0 };
        let last = Lane { queue, level: u8::MAX, generation: u32::MAX };
        self.numbers.range(first..=last).map(|(lane, _)| *lane).collect()
    }

    /// The transaction is committed.
    pub(super) fn committed(&mut self) {
        self.added.clear();
        self.bodies_before.clear();
        self.erasing.append(&mut self.left.drain(..).collect());
        self.erasing.extend(self.dropped.drain(..).map(|(_, number)| DeadRange::whole(number)));
    }

    /// The transaction is rolled back.
    pub(super) fn rolled_back(&mut self) {
        self.left.clear();
        while let Some((number, bodies)) = self.bodies_before.pop() {
            self.note_bodies(number, bodies);
        }
        // Dropped lanes come first: one of them may have been added by the same transaction.
        self.numbers.extend(self.dropped.drain(..));
        for lane in self.added.drain(..) {
            if let Some(number) = self.numbers.remove(&lane) {
                self.free.push(number.0..=number.0);
            }
        }
    }

    pub(super) fn next_to_erase(&self) -> Option<DeadRange> {
        self.erasing.front().copied()
    }

    /// Notes that the rows before this key are erased, of those to be erased next.
    pub(super) fn erased_before(&mut self, first: i64) {
        if let Some(erasing) = self.erasing.front_mut() {
            erasing.first = first;
        }
    }

    /// Notes that those to be erased next are all erased. The number of a dropped lane is free then.
    pub(super) fn erased(&mut self) {
        if let Some(DeadRange { number, range: None, .. }) = self.erasing.pop_front() {
            self.bodies.remove(&number.0);
            self.heads.remove(&number.0);
            self.free.push(number.0..=number.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(queue: u64) -> Lane {
        Lane { queue: QueueId(queue), level: 0, generation: 0 }
    }

    #[test]
    fn gaps_found_in_the_file_are_filled_first() {
        let mut lanes = Lanes::default();
        lanes.found(LaneNumber(1), Some(lane(1)), 0);
        lanes.found(LaneNumber(4), None, 0);
        let mut given: Vec<_> = (10..14).map(|queue| lanes.add(lane(queue)).unwrap().0).collect();
        given.sort_unstable();
        assert_eq!(given, [0, 2, 3, 5]);
    }

    #[test]
    fn a_number_is_given_again_only_after_its_rows_are_erased() {
        let mut lanes = Lanes::default();
        let first = lanes.add(lane(1)).unwrap();
        lanes.committed();
        lanes.drop_lane(lane(1));
        lanes.committed();
        assert_ne!(lanes.add(lane(1)).unwrap(), first);
        assert_eq!(lanes.next_to_erase(), Some(DeadRange::whole(first)));
        lanes.erased();
        assert_eq!(lanes.add(lane(2)).unwrap(), first);
    }

    #[test]
    fn a_rollback_forgets_lanes_and_keeps_dropped_ones() {
        let mut lanes = Lanes::default();
        let kept = lanes.add(lane(1)).unwrap();
        lanes.committed();
        lanes.drop_lane(lane(1));
        let lost = lanes.add(lane(2)).unwrap();
        lanes.drop_lane(lane(2));
        lanes.rolled_back();
        assert_eq!((lanes.get(lane(1)), lanes.get(lane(2))), (Some(kept), None));
        assert_eq!(lanes.add(lane(3)), Some(lost));
        assert_eq!(lanes.next_to_erase(), None);
    }

    #[test]
    fn a_rollback_forgets_bodies_too() {
        let mut lanes = Lanes::default();
        lanes.found(LaneNumber(0), Some(lane(1)), 3);
        lanes.set_bodies(LaneNumber(0), 5);
        lanes.committed();
        let added = lanes.add(lane(2)).unwrap();
        lanes.set_bodies(added, 1);
        lanes.set_bodies(LaneNumber(0), 7);
        lanes.set_bodies(LaneNumber(0), 0);
        lanes.rolled_back();
        assert_eq!((lanes.bodies(LaneNumber(0)), lanes.bodies(added)), (5, 0));
    }

    #[test]
    fn numbers_run_out_at_23_bits() {
        let mut lanes = Lanes::default();
        lanes.found(LaneNumber(NUMBER_MAX - 1), Some(lane(1)), 0);
        lanes.free.clear();
        assert_eq!(lanes.add(lane(2)), Some(LaneNumber(NUMBER_MAX)));
        assert_eq!(lanes.add(lane(3)), None);
        assert_eq!(LaneNumber(NUMBER_MAX).key(POSITION_MAX), i64::MAX);
    }
}
