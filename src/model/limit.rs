//! A prefetch limit that the consumers of one channel share (`basic.qos` with `global`), and its permits as plain data.

use super::ids::Holder;

/// One limit of a channel, from the moment it is set until it is taken away; other numbers in between do not end it.
/// Never reused within the channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitId(pub u32);

/// A limit, named across the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitKey {
    /// The channel that it belongs to.
    pub holder: Holder,
    /// Which of the channel's limits.
    pub id: LimitId,
}

/// What happens to a channel's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitChange {
    /// A channel without a limit gets one.
    Begins {
        /// Which one.
        id: LimitId,
        /// How many deliveries may be unacknowledged; not 0.
        limit: u32,
        /// Deliveries that count from the start. Those in flight are counted as they arrive.
        outstanding: u32,
    },
    /// The limit has another number; what is used stays used.
    Becomes(u32),
    /// The channel has no limit any more.
    Ends,
}
