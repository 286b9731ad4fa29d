//! Identifiers. Each names one incarnation and is never reused, so that a late message reaches no successor.

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

/// The holder of deliveries: one channel of one connection.
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
    /// The consumer's channel.
    pub holder: Holder,
    /// The consumer of the channel.
    pub slot: ConsumerSlot,
}

/// An incarnation of a queue; a queue declared again under the same name has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u64);

/// One lending of one entry by one queue. A settlement of a lending that is not current is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LendId {
    /// Index into the queue's table of entries.
    pub slot: u32,
    /// Rises each time the slot is used.
    pub generation: u32,
}

/// One priority level of one queue, as the store keeps it. A purge may begin a new generation of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    /// The queue.
    pub queue: QueueId,
    /// Its priority level; 0 in a queue without priorities.
    pub level: u8,
    /// Rises when the queue abandons the lane's rows and begins anew.
    pub generation: u32,
}

/// The place of a stored entry in its lane, for life; from 1, rising, with gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl Position {
    /// The highest position that every store can keep: 40 bits, enough for six days of two million messages a second.
    pub const MAX: Self = Self((1 << 40) - 1);

    /// The next position.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A request of a channel that waits for its answer; rises per channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestNo(pub u32);

/// The party to which a queue owes a promise for a message.
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
    /// The party that waits for the promise.
    pub owner: PromiseOwner,
    /// The owner's number for the promise: a publish sequence number, or the number of a queue's leaving entry.
    pub sequence: u64,
}
