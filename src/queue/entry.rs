//! One message in a queue, and the table that owns all of them.
//!
//! Levels keep slots of this table in order; a lending names a slot and the generation that it was lent under.

use super::input::Ticket;
use crate::model::{LendId, Message, Monotonic, Position, Promise, WallMillis};

/// Where an entry sits in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(pub(super) u32);

/// No slot: ends the chains of what a holder has.
pub(super) const NONE: Slot = Slot(u32::MAX);

/// The order of a level: stored entries by position, those that are not stored between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    /// Its own position, or that of the last durable entry before it.
    pub(super) position: Position,
    /// 0 for durable entries; rises for the others behind the same position.
    pub(super) sub: u64,
}

/// How far an entry is on its way to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    /// Never stored.
    Transient,
    /// Transient, and handed to the scratch store; it lives in memory until that has it and the queue lets go of it.
    Spilling {
        /// Under this ticket.
        ticket: Ticket,
        /// Its position there.
        position: Position,
    },
    /// To be stored, in memory only: leaves no trace when it leaves now.
    Young,
    /// Handed to the writer under this ticket; stored once that ticket is flushed.
    Submitted(Ticket),
}

/// Where an entry is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryState {
    /// In its level, waiting.
    Ready,
    /// In a holder's hands.
    Lent(Lent),
    /// Dead-lettered; kept until the copies are safe.
    Leaving {
        /// Guards against a late word for an earlier use of the slot.
        generation: u32,
        /// Copies made, once known.
        copies: Option<u32>,
        /// Copies safe.
        settled: u32,
    },
}

/// The terms of a lending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lent {
    pub(super) generation: u32,
    pub(super) holding: u32,
    pub(super) previous: Slot,
    pub(super) next: Slot,
    pub(super) since: Monotonic,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) message: Message,
    pub(super) order: Order,
    pub(super) expires_at: Option<WallMillis>,
    pub(super) promise: Option<Promise>,
    pub(super) storage: Storage,
    pub(super) level: u8,
    pub(super) redelivered: bool,
    pub(super) state: EntryState,
}

impl Entry {
    pub(super) fn is_durable(&self) -> bool {
        matches!(self.storage, Storage::Young | Storage::Submitted(_))
    }
}

#[derive(Debug)]
enum Cell {
    Vacant { next: Slot },
    Taken(Entry),
}

/// The table. Slots are reused; generations are not (within 2^32 lendings).
#[derive(Debug)]
pub(super) struct Entries {
    cells: Vec<Cell>,
    vacant: Slot,
    taken: usize,
    generation: u32,
}

/// Above this many cells an empty table gives its memory back.
const CELLS_KEPT: usize = 64;

impl Entries {
    pub(super) fn new() -> Self {
        Self { cells: Vec::new(), vacant: NONE, taken: 0, generation: 0 }
    }

    pub(super) fn insert(&mut self, entry: Entry) -> Slot {
        self.taken += 1;
        if self.vacant == NONE {
            let slot = Slot(u32::try_from(self.cells.len()).expect("a queue holds fewer than 2^32 entries in memory"));
            self.cells.push(Cell::Taken(entry));
            return slot;
        }
        let slot = self.vacant;
        let Cell::Vacant { next } = self.cells[slot.0 as usize] else { unreachable!("the chain links vacant cells") };
        self.vacant = next;
        self.cells[slot.0 as usize] = Cell::Taken(entry);
        slot
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Entry {
        let cell = std::mem::replace(&mut self.cells[slot.0 as usize], Cell::Vacant { next: self.vacant });
        let Cell::Taken(entry) = cell else { unreachable!("only taken cells are removed") };
        self.vacant = slot;
        self.taken -= 1;
        if self.taken == 0 && self.cells.len() > CELLS_KEPT {
            self.cells = Vec::new();
            self.vacant = NONE;
        }
        entry
    }

    pub(super) fn at(&self, slot: Slot) -> &Entry {
        let Cell::Taken(entry) = &self.cells[slot.0 as usize] else { unreachable!("levels hold taken cells") };
        entry
    }

    pub(super) fn at_mut(&mut self, slot: Slot) -> &mut Entry {
        let Cell::Taken(entry) = &mut self.cells[slot.0 as usize] else { unreachable!("levels hold taken cells") };
        entry
    }

    /// The entry in a slot that may have been given to another, or to none.
    pub(super) fn find(&self, slot: Slot) -> Option<&Entry> {
        match self.cells.get(slot.0 as usize) {
            Some(Cell::Taken(entry)) => Some(entry),
            _ => None,
        }
    }

    /// The slot of a lending that is current.
    pub(super) fn lent(&self, lend: LendId) -> Option<Slot> {
        let slot = Slot(lend.slot);
        match self.find(slot)?.state {
            EntryState::Lent(Lent { generation, .. }) if generation == lend.generation => Some(slot),
            _ => None,
        }
    }

    /// The slot of a leaving entry by its number.
    pub(super) fn leaving(&self, number: u64) -> Option<Slot> {
        let slot = Slot((number & u64::from(u32::MAX)) as u32);
        match self.find(slot)?.state {
            EntryState::Leaving { generation, .. } if u64::from(generation) == number >> 32 => Some(slot),
            _ => None,
        }
    }

    pub(super) fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    pub(super) fn table_bytes(&self) -> usize {
        self.cells.capacity() * size_of::<Cell>()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        self.cells.iter().enumerate().filter_map(|(at, cell)| match cell {
            Cell::Taken(entry) => Some((Slot(at as u32), entry)),
            Cell::Vacant { .. } => None,
        })
    }
}

/// A leaving entry's number, as copies name it.
pub(super) fn leaving_number(slot: Slot, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot.0)
}
