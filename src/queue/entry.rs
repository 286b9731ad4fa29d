//! One message in a queue, and the table that owns all of them.
//!
//! Levels keep slots of this table in order; a lending names a slot and the generation that it was lent under.
//!
//! Long queues mostly hold messages that wait: without promise, expiry, lending or ticket. These take little memory, because
//! what only some entries have is in a second table.

use super::event::Ticket;
use super::slab::Slab;
use crate::model::stored::Row;
use crate::model::{LendId, Message, Monotonic, Position, Promise, WallMillis};

pub(super) use super::slab::{NONE, Slot};

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

/// An entry that enters the table, or leaves it.
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

/// An entry in the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntryView<'a> {
    pub(super) message: &'a Message,
    pub(super) order: Order,
    pub(super) expires_at: Option<WallMillis>,
    pub(super) promise: Option<Promise>,
    pub(super) storage: Storage,
    pub(super) level: u8,
    pub(super) redelivered: bool,
    pub(super) state: EntryState,
}

impl EntryView<'_> {
    pub(super) fn is_durable(&self) -> bool {
        matches!(self.storage, Storage::Young | Storage::Submitted(_))
    }
}

/// What every entry has.
#[derive(Debug)]
struct PackedEntry {
    message: Message,
    order: Order,
    /// Its details, or `NONE`: then it is ready, has neither promise nor expiry, and is stored as `plain` says.
    details: Slot,
    plain: PlainStorage,
    level: u8,
    redelivered: bool,
}

/// [`Storage`] without numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlainStorage {
    Transient,
    Young,
    /// Under the ticket of rows that were read from the store.
    Stored,
}

/// What only some entries have.
#[derive(Clone, Copy, Debug)]
struct Details {
    expires_at: Option<WallMillis>,
    promise: Option<Promise>,
    storage: Storage,
    state: EntryState,
}

impl Details {
    /// Those of an entry that has none.
    fn of_plain(plain: PlainStorage) -> Self {
        let storage = match plain {
            PlainStorage::Transient => Storage::Transient,
            PlainStorage::Young => Storage::Young,
            PlainStorage::Stored => Storage::Submitted(Ticket(0)),
        };
        Self { expires_at: None, promise: None, storage, state: EntryState::Ready }
    }

    /// How the entry is stored, if nothing else has to be known of it.
    fn as_plain(&self) -> Option<PlainStorage> {
        if self.expires_at.is_some() || self.promise.is_some() || self.state != EntryState::Ready {
            return None;
        }
        match self.storage {
            Storage::Transient => Some(PlainStorage::Transient),
            Storage::Young => Some(PlainStorage::Young),
            Storage::Submitted(Ticket(0)) => Some(PlainStorage::Stored),
            Storage::Submitted(_) | Storage::Spilling { .. } => None,
        }
    }
}

/// The table of entries. Slots are reused; generations are not (within 2^32 lendings).
#[derive(Debug)]
pub(super) struct Entries {
    packed: Slab<PackedEntry>,
    details: Slab<Details>,
    generation: u32,
}

impl Entries {
    pub(super) fn new() -> Self {
        Self { packed: Slab::new(), details: Slab::new(), generation: 0 }
    }

    #[inline]
    pub(super) fn insert(&mut self, entry: Entry) -> Slot {
        let Entry { message, order, expires_at, promise, storage, level, redelivered, state } = entry;
        let details = Details { expires_at, promise, storage, state };
        let (plain, details) = match details.as_plain() {
            Some(plain) => (plain, NONE),
            None => (PlainStorage::Transient, self.details.insert(details)),
        };
        self.packed.insert(PackedEntry { message, order, details, plain, level, redelivered })
    }

    #[inline]
    pub(super) fn remove(&mut self, slot: Slot) -> Entry {
        let PackedEntry { message, order, details, plain, level, redelivered } = self.packed.remove(slot);
        let details = if details == NONE { Details::of_plain(plain) } else { self.details.remove(details) };
        let Details { expires_at, promise, storage, state } = details;
        Entry { message, order, expires_at, promise, storage, level, redelivered, state }
    }

    #[inline]
    fn view<'a>(&'a self, packed: &'a PackedEntry) -> EntryView<'a> {
        let PackedEntry { message, order, details, plain, level, redelivered } = packed;
        let details = self.details.get(*details).copied().unwrap_or(Details::of_plain(*plain));
        let Details { expires_at, promise, storage, state } = details;
        let (order, level, redelivered) = (*order, *level, *redelivered);
        EntryView { message, order, expires_at, promise, storage, level, redelivered, state }
    }

    #[inline]
    pub(super) fn at(&self, slot: Slot) -> EntryView<'_> {
        self.find(slot).expect("levels hold taken slots")
    }

    /// The entry in a slot that may have been reused or freed.
    #[inline]
    pub(super) fn find(&self, slot: Slot) -> Option<EntryView<'_>> {
        self.packed.get(slot).map(|packed| self.view(packed))
    }

    // ---- changes -----------------------------------------------------------------------------------------------

    /// Changes the details of an entry. Its slot must be taken.
    #[inline]
    fn change<T>(&mut self, slot: Slot, change: impl FnOnce(&mut Details) -> T) -> T {
        let packed = self.packed.get_mut(slot).expect("levels hold taken slots");
        let Some(details) = self.details.get_mut(packed.details) else {
            let mut details = Details::of_plain(packed.plain);
            let result = change(&mut details);
            match details.as_plain() {
                Some(plain) => packed.plain = plain,
                None => packed.details = self.details.insert(details),
            }
            return result;
        };
        let result = change(details);
        if let Some(plain) = details.as_plain() {
            packed.plain = plain;
            self.details.remove(std::mem::replace(&mut packed.details, NONE));
        }
        result
    }

    #[inline]
    pub(super) fn set_state(&mut self, slot: Slot, state: EntryState) {
        self.change(slot, |details| details.state = state);
    }

    #[inline]
    pub(super) fn set_storage(&mut self, slot: Slot, storage: Storage) {
        self.change(slot, |details| details.storage = storage);
    }

    /// Takes the promise of an entry.
    #[inline]
    pub(super) fn take_promise(&mut self, slot: Slot) -> Option<Promise> {
        self.change(slot, |details| details.promise.take())
    }

    /// The entry may have been delivered before.
    pub(super) fn set_redelivered(&mut self, slot: Slot) {
        self.packed.get_mut(slot).expect("levels hold taken slots").redelivered = true;
    }

    /// The terms of the lending of an entry that is lent.
    #[inline]
    pub(super) fn lent_mut(&mut self, slot: Slot) -> Option<&mut Lent> {
        match &mut self.details.get_mut(self.packed.get(slot)?.details)?.state {
            EntryState::Lent(lent) => Some(lent),
            _ => None,
        }
    }

    // ---- questions ---------------------------------------------------------------------------------------------

    /// The slot of a lending that is current.
    #[inline]
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
        self.packed.is_short()
    }

    /// The memory of one entry in the table, without details, in bytes.
    pub(super) const ENTRY_BYTES: usize = Slab::<PackedEntry>::CELL_BYTES;

    /// The memory of one entry's details, in bytes.
    pub(super) const DETAILS_BYTES: usize = Slab::<Details>::CELL_BYTES;

    /// The number of entries that have details.
    pub(super) fn with_details(&self) -> usize {
        self.details.len()
    }

    /// The memory that the table takes, about, in bytes.
    pub(super) fn table_bytes(&self) -> usize {
        self.packed.table_bytes() + self.details.table_bytes()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Slot, EntryView<'_>)> {
        self.packed.iter().map(|(slot, packed)| (slot, self.view(packed)))
    }
}

/// A leaving entry's number, as copies name it.
pub(super) fn leaving_number(slot: Slot, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(slot.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChannelKey, ConnectionId, Holder, PromiseOwner, QueueId};
    use crate::wire::properties::Properties;

    fn waiting(storage: Storage) -> Entry {
        Entry {
            message: Message::new(b"", b"q", &Properties::check(&[0, 0]).unwrap(), b"body"),
            order: Order { position: Position(5), sub: 6 },
            expires_at: None,
            promise: None,
            storage,
            level: 3,
            redelivered: false,
            state: EntryState::Ready,
        }
    }

    fn lent(generation: u32) -> EntryState {
        EntryState::Lent(Lent { generation, holding: 1, previous: NONE, next: NONE, since: Monotonic(0) })
    }

    #[test]
    fn only_what_is_out_of_the_ordinary_takes_details() {
        assert_eq!(Entries::ENTRY_BYTES, 48);
        let promise = Promise { owner: PromiseOwner::Queue(QueueId(1)), sequence: 2 };
        let mut entries = Entries::new();
        for storage in [Storage::Transient, Storage::Young, Storage::Submitted(Ticket(0))] {
            let slot = entries.insert(waiting(storage));
            assert_eq!((entries.at(slot).storage, entries.with_details()), (storage, 0));
            entries.set_state(slot, lent(7));
            assert_eq!((entries.at(slot).state, entries.with_details()), (lent(7), 1));
            entries.lent_mut(slot).unwrap().next = Slot(9);
            assert!(entries.lent(LendId { slot: slot.0, generation: 7 }).is_some());
            assert!(entries.lent(LendId { slot: slot.0, generation: 8 }).is_none());
            entries.set_state(slot, EntryState::Ready);
            assert_eq!((entries.at(slot).storage, entries.with_details()), (storage, 0));
            assert!(entries.lent_mut(slot).is_none());
        }
        let slot = entries.insert(Entry { promise: Some(promise), ..waiting(Storage::Young) });
        entries.set_storage(slot, Storage::Submitted(Ticket(4)));
        assert_eq!(entries.take_promise(slot), Some(promise));
        assert_eq!((entries.at(slot).promise, entries.with_details()), (None, 1), "it still has a ticket");
        entries.set_redelivered(slot);
        let removed = entries.remove(slot);
        assert_eq!((removed.storage, removed.level, removed.redelivered), (Storage::Submitted(Ticket(4)), 3, true));
        assert_eq!((removed.order, entries.with_details()), (Order { position: Position(5), sub: 6 }, 0));
    }

    #[test]
    fn an_entry_comes_out_as_it_went_in() {
        let holder = Holder { connection: ConnectionId(1), channel: ChannelKey { number: 1, incarnation: 1 } };
        let promises = [None, Some(Promise { owner: PromiseOwner::Channel(holder), sequence: 3 })];
        let spilling = Storage::Spilling { ticket: Ticket(2), position: Position(8) };
        let storages = [
            Storage::Transient,
            Storage::Young,
            Storage::Submitted(Ticket(0)),
            Storage::Submitted(Ticket(1)),
            spilling,
        ];
        let leaving = EntryState::Leaving { generation: 4, copies: Some(2), settled: 1 };
        let mut entries = Entries::new();
        let mut all = Vec::new();
        for promise in promises {
            for storage in storages {
                for state in [EntryState::Ready, lent(1), leaving] {
                    for expires_at in [None, Some(WallMillis(9))] {
                        let entry = || Entry { promise, state, expires_at, ..waiting(storage) };
                        all.push((entries.insert(entry()), entry()));
                    }
                }
            }
        }
        assert_eq!(entries.iter().count(), all.len());
        for (slot, entry) in all {
            let view = entries.at(slot);
            assert_eq!((view.promise, view.state, view.expires_at), (entry.promise, entry.state, entry.expires_at));
            assert_eq!((view.storage, view.message), (entry.storage, &entry.message));
            let removed = entries.remove(slot);
            assert_eq!(
                (removed.promise, removed.state, removed.expires_at),
                (entry.promise, entry.state, entry.expires_at)
            );
            assert_eq!((removed.storage, removed.message), (entry.storage, entry.message));
            assert!(entries.find(slot).is_none());
        }
        assert_eq!((entries.iter().count(), entries.with_details()), (0, 0));
    }
}
