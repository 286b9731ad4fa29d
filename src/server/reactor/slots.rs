//! The connections of a loop, their deadlines, and those whose input is gathered.

use super::poller::Interest;
use crate::model::Monotonic;
use std::collections::BTreeSet;

/// A connection of a loop. `H` is its handle.
pub(super) struct Slot<H> {
    pub(super) handle: H,
    /// For what its socket is watched.
    pub(super) interest: Interest,
    /// Whether it is watched at all.
    pub(super) is_watched: bool,
    /// When it is served at the latest.
    deadline: Option<Monotonic>,
    /// The socket is reported as readable once so many bytes have come.
    pub(super) gather: usize,
    /// It is in the list of those whose input is gathered.
    is_gathering: bool,
    /// It was read since the last tick.
    is_fresh: bool,
    /// The measurement of the load in which it was served last.
    served_in: u32,
}

/// The connections of a loop.
pub(super) struct Slots<H> {
    all: Vec<Option<Slot<H>>>,
    free: Vec<usize>,
    deadlines: BTreeSet<(Monotonic, usize)>,
    /// Connections whose input is gathered, or was at the last tick.
    gathering: Vec<usize>,
    /// Number of the present measurement of the load.
    measurement: u32,
}

impl<H> Default for Slots<H> {
    fn default() -> Self {
        let (all, free, gathering) = (Vec::new(), Vec::new(), Vec::new());
        Self { all, free, deadlines: BTreeSet::new(), gathering, measurement: 0 }
    }
}

impl<H> Slots<H> {
    pub(super) fn is_empty(&self) -> bool {
        self.all.len() == self.free.len()
    }

    /// The numbers of slots that are in use.
    pub(super) fn taken(&self) -> Vec<usize> {
        self.numbers().filter(|number| self.all[*number].is_some()).collect()
    }

    /// The numbers of all slots, free ones included.
    pub(super) fn numbers(&self) -> std::ops::Range<usize> {
        0..self.all.len()
    }

    pub(super) fn insert(&mut self, handle: H, interest: Interest) -> usize {
        let slot = Slot {
            handle,
            interest,
            is_watched: true,
            deadline: None,
            gather: 1,
            is_gathering: false,
            is_fresh: true,
            served_in: self.measurement,
        };
        match self.free.pop() {
            Some(number) => {
                self.all[number] = Some(slot);
                number
            }
            None => {
                self.all.push(Some(slot));
                self.all.len() - 1
            }
        }
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Slot<H>> {
        self.all.get_mut(number)?.as_mut()
    }

    pub(super) fn remove(&mut self, number: usize) -> Option<Slot<H>> {
        let slot = self.all.get_mut(number)?.take()?;
        if let Some(at) = slot.deadline {
            self.deadlines.remove(&(at, number));
        }
        if slot.is_gathering {
            self.gathering.retain(|gathering| *gathering != number);
        }
        self.free.push(number);
        Some(slot)
    }

    /// Sets a deadline. An earlier one stays: the connection is then served for nothing, which costs less than moving
    /// deadlines at each pass.
    pub(super) fn arm(&mut self, number: usize, deadline: Monotonic) {
        let Some(slot) = self.all.get_mut(number).and_then(Option::as_mut) else { return };
        if slot.deadline.is_some_and(|armed| armed <= deadline) {
            return;
        }
        if let Some(armed) = slot.deadline.replace(deadline) {
            self.deadlines.remove(&(armed, number));
        }
        self.deadlines.insert((deadline, number));
    }

    /// Takes a connection whose deadline has passed.
    pub(super) fn take_due(&mut self, now: Monotonic) -> Option<usize> {
        let (_, number) = self.deadlines.first().filter(|(at, _)| *at <= now).copied()?;
        self.deadlines.pop_first();
        if let Some(slot) = self.get_mut(number) {
            slot.deadline = None;
        }
        Some(number)
    }

    /// The input of a connection is gathered until so many bytes have come. Returns whether it is the first such
    /// connection: from now on `tick` is to be called.
    pub(super) fn gather(&mut self, number: usize, bytes: usize) -> bool {
        let Some(slot) = self.all.get_mut(number).and_then(Option::as_mut) else { return false };
        slot.gather = bytes;
        if bytes <= 1 || std::mem::replace(&mut slot.is_gathering, true) {
            return false;
        }
        self.gathering.push(number);
        self.gathering.len() == 1
    }

    /// Whether the input of any connection is gathered.
    pub(super) fn any_gathers(&self) -> bool {
        !self.gathering.is_empty()
    }

    /// Leaves in `stale` the connections that were not read since the last tick: what they have gathered is to be read.
    pub(super) fn tick(&mut self, stale: &mut Vec<usize>) {
        let Self { gathering, all, .. } = self;
        gathering.retain(|&number| {
            let Some(slot) = all.get_mut(number).and_then(Option::as_mut) else { return false };
            slot.is_gathering = slot.gather > 1;
            if slot.is_gathering && !std::mem::take(&mut slot.is_fresh) {
                stale.push(number);
            }
            slot.is_gathering
        });
    }

    /// When the loop has something to do at the latest.
    pub(super) fn next_deadline(&self) -> Option<Monotonic> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// A connection is served, and its socket read if it `reads`.
    pub(super) fn serve(&mut self, number: usize, reads: bool) -> Option<&Slot<H>> {
        let slot = self.all.get_mut(number)?.as_mut()?;
        slot.served_in = self.measurement;
        slot.is_fresh |= reads;
        Some(slot)
    }

    /// A measurement of the load ends.
    pub(super) fn end_measurement(&mut self) {
        self.measurement = self.measurement.wrapping_add(1);
    }

    /// The connections that were served in the last measurement.
    pub(super) fn active(&self) -> Vec<usize> {
        let last = self.measurement.wrapping_sub(1);
        let is_active = |number: &usize| self.all[*number].as_ref().is_some_and(|slot| slot.served_in == last);
        self.numbers().filter(is_active).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Interest = Interest { read: true, write: false };

    fn slots(count: usize) -> Slots<usize> {
        let mut slots = Slots::default();
        for handle in 0..count {
            assert_eq!(slots.insert(handle, READ), handle);
        }
        slots
    }

    #[test]
    fn numbers_are_used_again_and_a_removed_connection_leaves_nothing_behind() {
        let mut slots = slots(3);
        slots.arm(1, Monotonic(5));
        assert!(slots.gather(1, 64) && !slots.gather(1, 128));
        assert_eq!(slots.remove(1).map(|slot| slot.handle), Some(1));
        assert!(slots.remove(1).is_none() && slots.get_mut(1).is_none() && slots.serve(1, true).is_none());
        assert!(slots.next_deadline().is_none() && !slots.any_gathers());
        assert_eq!(slots.insert(7, READ), 1);
        assert!(slots.get_mut(1).is_some_and(|slot| slot.gather == 1 && slot.is_watched));
        for number in 0..3 {
            assert!(!slots.is_empty());
            slots.remove(number);
        }
        assert!(slots.is_empty());
    }

    #[test]
    fn the_earliest_deadline_stays_and_is_due_once() {
        let mut slots = slots(2);
        slots.arm(0, Monotonic(50));
        slots.arm(0, Monotonic(80));
        slots.arm(1, Monotonic(60));
        slots.arm(1, Monotonic(40));
        assert_eq!(slots.next_deadline(), Some(Monotonic(40)));
        assert_eq!(slots.take_due(Monotonic(39)), None);
        assert_eq!([slots.take_due(Monotonic(50)), slots.take_due(Monotonic(50))], [Some(1), Some(0)]);
        assert_eq!((slots.take_due(Monotonic(100)), slots.next_deadline()), (None, None));
        slots.arm(0, Monotonic(90));
        assert_eq!(slots.take_due(Monotonic(90)), Some(0));
    }

    #[test]
    fn a_tick_names_those_that_gathered_since_the_last_one_without_being_read() {
        let mut slots = slots(3);
        assert!(slots.gather(0, 64), "the first one");
        assert!(!slots.gather(1, 64));
        let tick = |slots: &mut Slots<usize>| {
            let mut stale = Vec::new();
            slots.tick(&mut stale);
            stale
        };
        assert!(tick(&mut slots).is_empty(), "both have just begun");
        slots.serve(0, true);
        slots.serve(1, false);
        assert_eq!(tick(&mut slots), [1], "notices do not read its socket");
        slots.gather(1, 1);
        assert_eq!(tick(&mut slots), [0], "the other one gathers no more");
        slots.gather(0, 1);
        assert!(slots.any_gathers());
        assert!(tick(&mut slots).is_empty() && !slots.any_gathers());
    }

    #[test]
    fn active_are_those_that_were_served_in_the_last_measurement() {
        let mut slots = slots(3);
        slots.end_measurement();
        assert_eq!(slots.active(), [0, 1, 2], "they are new");
        slots.serve(1, false);
        slots.end_measurement();
        assert_eq!(slots.active(), [1]);
        slots.end_measurement();
        assert!(slots.active().is_empty());
    }
}
