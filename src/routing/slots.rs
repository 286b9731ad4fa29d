//! A table of items under small numbers, which are reused once an item is removed.

use smallvec::{SmallVec, smallvec};
use std::ops::Index;

/// The number of an item in its [`Slots`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Slot(u32);

#[derive(Clone, Debug)]
pub(super) struct Slots<T> {
    items: Vec<Option<T>>,
    free: Vec<Slot>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slots<T> {
    pub(super) fn insert(&mut self, item: T) -> Slot {
        if let Some(slot) = self.free.pop() {
            self.items[slot.at()] = Some(item);
            return slot;
        }
        self.items.push(Some(item));
        Slot(u32::try_from(self.items.len() - 1).expect("memory ends far below 2^32 bindings"))
    }

    /// Removes the item under `slot`.
    pub(super) fn remove(&mut self, slot: Slot) -> T {
        self.free.push(slot);
        self.items[slot.at()].take().expect("a slot is removed once")
    }

    /// An empty set for the slots of this table.
    pub(super) fn none(&self) -> SlotSet {
        SlotSet(smallvec![0; self.items.len().div_ceil(u64::BITS as usize)])
    }
}

impl<T> Index<Slot> for Slots<T> {
    type Output = T;

    fn index(&self, slot: Slot) -> &T {
        self.items[slot.at()].as_ref().expect("a slot in use")
    }
}

impl Slot {
    fn at(self) -> usize {
        self.0 as usize
    }
}

/// Some slots of one [`Slots`], a bit each; up to 1,024 without allocating.
#[derive(Debug)]
pub(super) struct SlotSet(SmallVec<[u64; 16]>);

impl SlotSet {
    pub(super) fn contains(&self, slot: Slot) -> bool {
        self.0[slot.at() / 64] & (1 << (slot.at() % 64)) != 0
    }

    pub(super) fn insert(&mut self, slot: Slot) {
        self.0[slot.at() / 64] |= 1 << (slot.at() % 64);
    }
}
