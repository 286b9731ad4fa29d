//! Identifiers. Each names one incarnation, never a reusable number, so that nothing late reaches a successor.

/// A connection of this process; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A channel of one connection: its number on the wire and how often that number was opened before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelKey {
    /// The channel number on the wire, from 1.
    pub number: u16,
    /// Rises with every channel opened on the connection.
    pub incarnation: u32,
}

/// A consumer of one channel; never reused within the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerSlot(pub u32);

/// Who holds deliveries: one channel of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// The connection.
    pub connection: ConnectionId,
    /// Its channel.
    pub channel: ChannelKey,
}

/// A consumer, named across the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerKey {
    /// The channel it belongs to.
    pub holder: Holder,
    /// Which consumer of the channel.
    pub slot: ConsumerSlot,
}

/// An incarnation of a queue; a queue declared again under the same name has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u64);

/// One lending of one entry by one queue. A settlement that names one that is not current is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LendId {
    /// Index into the queue's table of what is lent.
    pub slot: u32,
    /// Rises each time the slot is used.
    pub generation: u32,
}

/// One priority level of one queue, as the store keeps it. A purge may go on in a fresh generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The queue.
    pub queue: QueueId,
    /// Its priority level; 0 in a queue without priorities.
    pub level: u8,
    /// Rises when the queue leaves a lane to be erased and begins a new one.
    pub generation: u32,
}

/// The place of a stored entry in its lane, for life; from 1, rising, with holes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The highest that every store can keep: 40 bits, six days of two million a second.
    pub const MAX: Self = Self((1 << 40) - 1);

    /// The place right behind this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A request of a channel that waits for its answer; rises per channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestNo(pub u32);

/// To whom a queue owes word that it took responsibility for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PromiseOwner {
    /// A channel in confirm mode, or one that commits a transaction.
    Channel(Holder),
    /// A queue that dead-lettered the message and keeps the original until the copies are safe.
    Queue(QueueId),
}

/// A promise as plain data: kept when the message is stored or has left the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Promise {
    /// Who waits for it.
    pub owner: PromiseOwner,
    /// The owner's number for it: a publish sequence number, or the entry a queue is leaving.
    pub sequence: u64,
}
