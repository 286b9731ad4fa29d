//! One message in a queue, and the table that owns all of them.
//!
//! Levels keep slots of this table in order; a lending names a slot and the generation that it was lent under.

use super::event::Ticket;
use crate::model::stored::Row;
use crate::model::{LendId, Message, Monotonic, Position, Promise, WallMillis};

/// Where an entry sits in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(pub(super) u32);

/// No slot: the end of the chain of a holder's entries.
pub(super) const NONE: Slot = Slot(u32::MAX);

/// The order of entries in a level: stored entries by position, transient ones between them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Order {
    /// Its own position, or that of the last durable entry before it.
    pub(super) position: Position,
    /// 0 for durable entries; rises for transient entries behind the same position.
    pub(super) sub: u64,
}

impl Order {
    /// The order of a row in its level.
    pub(super) fn of(row: &Row) -> Self {
        match row.place {
            Some(place) => Self { position: place.behind, sub: place.nth },
            None => Self { position: row.position, sub: 0 },
        }
    }
}

/// How far an entry is on its way to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Storage {
    /// Never stored.
    Transient,
    /// Transient, and handed to the scratch store; it stays in memory until it is stored there and the queue drops it.
    Spilling {
        /// The ticket that carries it.
        ticket: Ticket,
        /// Its position in the scratch store.
        position: Position,
    },
    /// To be stored, but still in memory only: if it leaves now, it is never written.
    Young,
    /// Handed to the writer under this ticket; stored once that ticket is flushed.
    Submitted(Ticket),
}

/// The state of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryState {
    /// In its level, ready for delivery.
    Ready,
    /// Lent to a holder.
    Lent(Lent),
    /// Dead-lettered; kept until the copies are safe.
    Leaving {
        /// Distinguishes it from entries that used the slot before.
        generation: u32,
        /// How many copies were made, once known.
        copies: Option<u32>,
        /// How many copies are safe.
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

/// Cells of the table that are allocated and freed together.
#[derive(Debug)]
struct Chunk {
    cells: Vec<Cell>,
    /// The first vacant cell.
    vacant: Slot,
    taken: usize,
    /// Its index in the list of chunks with room.
    listed: usize,
}

/// The table of entries. Slots are reused; generations are not (within 2^32 lendings).
#[derive(Debug)]
pub(super) struct Entries {
    chunks: Vec<Option<Chunk>>,
    /// Chunks with room; the last is filled next.
    roomy: Vec<u32>,
    /// Numbers of freed chunks.
    free: Vec<u32>,
    generation: u32,
}

const CHUNK_BITS: u32 = 6;
const CHUNK_CELLS: usize = 1 << CHUNK_BITS;

impl Slot {
    fn chunk(self) -> usize {
        (self.0 >> CHUNK_BITS) as usize
    }

    fn cell(self) -> usize {
        self.0 as usize % CHUNK_CELLS
    }
}

impl Entries {
    pub(super) fn new() -> Self {
        Self { chunks: Vec::new(), roomy: Vec::new(), free: Vec::new(), generation: 0 }
    }

    pub(super) fn insert(&mut self, entry: Entry) -> Slot {
        let number = match self.roomy.last() {
            Some(number) => *number,
            None => self.add_chunk(),
        };
        let chunk = self.chunks[number as usize].as_mut().expect("chunks with room are there");
        chunk.taken += 1;
        if chunk.taken == CHUNK_CELLS {
            self.roomy.pop();
        }
        let slot = chunk.vacant;
        if slot == NONE {
            let slot = Slot(number << CHUNK_BITS | chunk.cells.len() as u32);
            chunk.cells.push(Cell::Taken(entry));
            return slot;
        }
        let cell = std::mem::replace(&mut chunk.cells[slot.cell()], Cell::Taken(entry));
        let Cell::Vacant { next } = cell else { unreachable!("the chain links vacant cells") };
        chunk.vacant = next;
        slot
    }

    fn add_chunk(&mut self) -> u32 {
        // The first chunk grows as needed: most queues hold few messages.
        let cells = Vec::with_capacity(if self.chunks.is_empty() { 0 } else { CHUNK_CELLS });
        let chunk = Some(Chunk { cells, vacant: NONE, taken: 0, listed: self.roomy.len() });
        let number = match self.free.pop() {
            Some(number) => {
                self.chunks[number as usize] = chunk;
                number
            }
            None => {
                self.chunks.push(chunk);
                u32::try_from(self.chunks.len() - 1).expect("memory ends before the numbers")
            }
        };
        assert!(number < NONE.0 >> CHUNK_BITS, "a queue holds fewer than 2^32 entries in memory");
        self.roomy.push(number);
        number
    }

    pub(super) fn remove(&mut self, slot: Slot) -> Entry {
        let chunk = self.chunks[slot.chunk()].as_mut().expect("taken cells are in chunks");
        let cell = std::mem::replace(&mut chunk.cells[slot.cell()], Cell::Vacant { next: chunk.vacant });
        let Cell::Taken(entry) = cell else { unreachable!("only taken cells are removed") };
        chunk.vacant = slot;
        if chunk.taken == CHUNK_CELLS {
            chunk.listed = self.roomy.len();
            self.roomy.push(slot.0 >> CHUNK_BITS);
        }
        chunk.taken -= 1;
        if chunk.taken == 0 && self.roomy.len() > 1 {
            self.give_back(slot.0 >> CHUNK_BITS);
        }
        entry
    }

    /// Frees a chunk that has no entries left; one chunk with room is always kept.
    fn give_back(&mut self, number: u32) {
        let Some(chunk) = self.chunks[number as usize].take() else { return };
        self.roomy.swap_remove(chunk.listed);
        if let Some(moved) = self.roomy.get(chunk.listed)
            && let Some(moved) = &mut self.chunks[*moved as usize]
        {
            moved.listed = chunk.listed;
        }
        self.free.push(number);
    }

    pub(super) fn at(&self, slot: Slot) -> &Entry {
        self.find(slot).expect("levels hold taken cells")
    }

    pub(super) fn at_mut(&mut self, slot: Slot) -> &mut Entry {
        let chunk = self.chunks[slot.chunk()].as_mut().expect("levels hold taken cells");
        let Cell::Taken(entry) = &mut chunk.cells[slot.cell()] else { unreachable!("levels hold taken cells") };
        entry
    }

    /// The entry in a slot that may have been reused or freed.
    pub(super) fn find(&self, slot: Slot) -> Option<&Entry> {
        match self.chunks.get(slot.chunk())?.as_ref()?.cells.get(slot.cell()) {
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

    /// Whether the table is short enough for debug builds to read all of it with every input.
    pub(super) fn is_short(&self) -> bool {
        self.chunks.len() <= 1
    }

    /// The memory of one entry in the table, in bytes.
    pub(super) const ENTRY_BYTES: usize = size_of::<Cell>();

    /// The memory that the table takes, about, in bytes.
    pub(super) fn table_bytes(&self) -> usize {
        let first = self.chunks.first().and_then(Option::as_ref).map_or(0, |chunk| chunk.cells.capacity());
        let others = self.chunks.len().saturating_sub(self.free.len() + 1) * CHUNK_CELLS;
        (first + others) * Self::ENTRY_BYTES + self.chunks.capacity() * size_of::<Option<Chunk>>()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &Entry)> {
        let chunks = self.chunks.iter().zip(0u32..).filter_map(|(chunk, number)| Some((chunk.as_ref()?, number)));
        chunks.flat_map(|(chunk, number)| {
            chunk.cells.iter().zip(0u32..).filter_map(move |(cell, at)| match cell {
                Cell::Taken(entry) => Some((Slot(number << CHUNK_BITS | at), entry)),
                Cell::Vacant { .. } => None,
            })
        })
    }
}

/// A leaving entry's number, as copies name it.
pub(super) fn leaving_number(slot: Slot, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::properties::Properties;

    fn entry(position: u64) -> Entry {
        Entry {
            message: Message::new(b"", b"q", &Properties::check(&[0, 0]).unwrap(), b"body"),
            order: Order { position: Position(position), sub: 0 },
            expires_at: None,
            promise: None,
            storage: Storage::Young,
            level: 0,
            redelivered: false,
            state: EntryState::Ready,
        }
    }

    #[test]
    fn empty_chunks_are_freed_and_their_numbers_reused() {
        let mut entries = Entries::new();
        let cells = CHUNK_CELLS as u64 * 20;
        let slots: Vec<_> = (0..cells).map(|at| entries.insert(entry(at))).collect();
        let full = entries.table_bytes();
        // Removed out of order, all but every hundredth.
        let (kept, gone): (Vec<_>, Vec<_>) = slots.iter().zip(0..cells).partition(|(_, at)| at % 100 == 7);
        for (slot, at) in gone.iter().rev() {
            assert_eq!(entries.remove(**slot).order.position, Position(*at));
            assert!(entries.find(**slot).is_none());
        }
        for (slot, at) in &kept {
            assert_eq!(entries.at(**slot).order.position, Position(*at));
        }
        assert_eq!(entries.iter().count(), kept.len());
        assert!(entries.table_bytes() < full * 3 / 4, "{} of {full} left", entries.table_bytes());
        let again: Vec<_> = (0..cells).map(|at| entries.insert(entry(cells + at))).collect();
        assert!(entries.table_bytes() <= full + (kept.len() + CHUNK_CELLS) * Entries::ENTRY_BYTES);
        for (slot, at) in again.iter().zip(cells..).chain(kept.iter().map(|(slot, at)| (*slot, *at))) {
            assert_eq!(entries.remove(*slot).order.position, Position(at));
        }
        assert_eq!(entries.iter().count(), 0);
        assert!(entries.table_bytes() < full / 10, "{} of {full} left", entries.table_bytes());
    }
}
