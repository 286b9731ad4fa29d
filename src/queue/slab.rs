//! A table of values in chunks: its memory follows the number of values, up and down.

/// Where a value sits in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(pub(super) u32);

/// No slot.
pub(super) const NONE: Slot = Slot(u32::MAX);

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

#[derive(Debug)]
enum Cell<T> {
    Vacant { next: Slot },
    Taken(T),
}

/// Cells of the table that are allocated and freed together.
#[derive(Debug)]
struct Chunk<T> {
    cells: Vec<Cell<T>>,
    /// The first vacant cell.
    vacant: Slot,
    taken: usize,
    /// Its index in the list of chunks with room.
    listed: usize,
}

/// The table. Slots are reused.
#[derive(Debug)]
pub(super) struct Slab<T> {
    chunks: Vec<Option<Chunk<T>>>,
    /// Chunks with room; the last is filled next.
    roomy: Vec<u32>,
    /// Numbers of freed chunks.
    free: Vec<u32>,
    len: usize,
}

impl<T> Slab<T> {
    /// The memory of one value in the table, in bytes.
    pub(super) const CELL_BYTES: usize = size_of::<Cell<T>>();

    pub(super) const fn new() -> Self {
        Self { chunks: Vec::new(), roomy: Vec::new(), free: Vec::new(), len: 0 }
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, value: T) -> Slot {
        let number = match self.roomy.last() {
            Some(number) => *number,
            None => self.add_chunk(),
        };
        self.len += 1;
        let chunk = self.chunks[number as usize].as_mut().expect("chunks with room are there");
        chunk.taken += 1;
        if chunk.taken == CHUNK_CELLS {
            self.roomy.pop();
        }
        let slot = chunk.vacant;
        if slot == NONE {
            let slot = Slot(number << CHUNK_BITS | chunk.cells.len() as u32);
            chunk.cells.push(Cell::Taken(value));
            return slot;
        }
        let cell = std::mem::replace(&mut chunk.cells[slot.cell()], Cell::Taken(value));
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
        assert!(number < NONE.0 >> CHUNK_BITS, "a table has fewer than 2^32 values in memory");
        self.roomy.push(number);
        number
    }

    /// Removes a value. Its slot must be taken.
    pub(super) fn remove(&mut self, slot: Slot) -> T {
        let chunk = self.chunks[slot.chunk()].as_mut().expect("taken cells are in chunks");
        let cell = std::mem::replace(&mut chunk.cells[slot.cell()], Cell::Vacant { next: chunk.vacant });
        let Cell::Taken(value) = cell else { unreachable!("only taken cells are removed") };
        self.len -= 1;
        chunk.vacant = slot;
        if chunk.taken == CHUNK_CELLS {
            chunk.listed = self.roomy.len();
            self.roomy.push(slot.0 >> CHUNK_BITS);
        }
        chunk.taken -= 1;
        if chunk.taken == 0 && self.roomy.len() > 1 {
            self.give_back(slot.0 >> CHUNK_BITS);
        }
        value
    }

    /// Frees a chunk that has no values left; one chunk with room is always kept.
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

    /// The value in a slot that may have been reused or freed, or be `NONE`.
    #[inline]
    pub(super) fn get(&self, slot: Slot) -> Option<&T> {
        match self.chunks.get(slot.chunk())?.as_ref()?.cells.get(slot.cell()) {
            Some(Cell::Taken(value)) => Some(value),
            _ => None,
        }
    }

    /// As [`get`](Self::get), to be changed.
    #[inline]
    pub(super) fn get_mut(&mut self, slot: Slot) -> Option<&mut T> {
        match self.chunks.get_mut(slot.chunk())?.as_mut()?.cells.get_mut(slot.cell()) {
            Some(Cell::Taken(value)) => Some(value),
            _ => None,
        }
    }

    /// Whether it has one chunk at most.
    pub(super) fn is_short(&self) -> bool {
        self.chunks.len() <= 1
    }

    /// The memory that the table takes, about, in bytes.
    pub(super) fn table_bytes(&self) -> usize {
        let first = self.chunks.first().and_then(Option::as_ref).map_or(0, |chunk| chunk.cells.capacity());
        let others = self.chunks.len().saturating_sub(self.free.len() + 1) * CHUNK_CELLS;
        (first + others) * Self::CELL_BYTES + self.chunks.capacity() * size_of::<Option<Chunk<T>>>()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        let chunks = self.chunks.iter().zip(0u32..).filter_map(|(chunk, number)| Some((chunk.as_ref()?, number)));
        chunks.flat_map(|(chunk, number)| {
            chunk.cells.iter().zip(0u32..).filter_map(move |(cell, at)| match cell {
                Cell::Taken(value) => Some((Slot(number << CHUNK_BITS | at), value)),
                Cell::Vacant { .. } => None,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_chunks_are_freed_and_their_numbers_reused() {
        let mut slab = Slab::new();
        let cells = CHUNK_CELLS as u64 * 20;
        let slots: Vec<_> = (0..cells).map(|at| slab.insert(at)).collect();
        let full = slab.table_bytes();
        // Removed out of order, all but every hundredth.
        let (kept, gone): (Vec<_>, Vec<_>) = slots.iter().zip(0..cells).partition(|(_, at)| at % 100 == 7);
        for (slot, at) in gone.iter().rev() {
            assert_eq!(slab.remove(**slot), *at);
            assert!(slab.get(**slot).is_none() && slab.get_mut(**slot).is_none());
        }
        for (slot, at) in &kept {
            assert_eq!(slab.get(**slot), Some(at));
        }
        assert_eq!((slab.iter().count(), slab.len()), (kept.len(), kept.len()));
        assert!(slab.table_bytes() < full * 3 / 4, "{} of {full} left", slab.table_bytes());
        let again: Vec<_> = (0..cells).map(|at| slab.insert(cells + at)).collect();
        assert!(slab.table_bytes() <= full + (kept.len() + CHUNK_CELLS) * Slab::<u64>::CELL_BYTES);
        for (slot, at) in again.iter().zip(cells..).chain(kept.iter().map(|(slot, at)| (*slot, *at))) {
            assert_eq!(slab.remove(*slot), at);
        }
        assert_eq!((slab.iter().count(), slab.len()), (0, 0));
        assert!(slab.table_bytes() < full / 10, "{} of {full} left", slab.table_bytes());
        assert!(slab.get(NONE).is_none());
    }
}
