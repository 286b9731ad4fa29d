//! A prefetch limit that the consumers of one channel share (`basic.qos` with `global`), and its permits as plain data.

use super::ids::Holder;

/// One limit of a channel, from the moment it is set until it is removed; a change of its number does not end it. Never
/// reused within the channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitId(pub u32);

/// A limit, named across the whole process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LimitKey {
    /// The channel of the limit.
    pub holder: Holder,
    /// The channel's limit.
    pub id: LimitId,
}

/// A change of a channel's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitChange {
    /// A channel without a limit gets one.
    Begins {
        /// The new limit.
        id: LimitId,
        /// How many deliveries may be unacknowledged; not 0.
        limit: u32,
        /// Deliveries that count from the start. Those in flight are counted as they arrive.
        outstanding: u32,
    },
    /// The limit has another number; permits in use stay in use.
    Becomes(u32),
    /// The channel has no limit any more.
    Ends,
}
