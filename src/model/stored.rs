//! What others hand to a store and get back: from queues rows, changes of lanes, and a lane in five numbers; and users.

use super::ids::{Lane, Position};
use super::message::Message;
use super::names::Name;
use super::time::WallMillis;

/// One durable entry of a lane.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its place in the lane; rows of one lane arrive with rising positions.
    pub position: Position,
    /// Whether it was already delivered when it was written.
    pub redelivered: bool,
    /// When it expires, if its TTL or its queue's says so.
    pub expires_at: Option<WallMillis>,
    /// Where a transient message lies among durable ones; none for these.
    pub place: Option<OrderKey>,
    /// The message, kept as its own bytes.
    pub message: Message,
}

/// The place of a transient message: behind a durable one, and behind others in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderKey {
    /// The position of the durable message, or 0.
    pub behind: Position,
    /// The how-manieth behind it, from 1.
    pub nth: u64,
}

/// What a batch does to one lane: first the inserts, then the removes, which may name rows inserted just before.
#[derive(Clone, Debug)]
pub struct LaneChange {
    /// The lane; made on first use.
    pub lane: Lane,
    /// New rows, by rising position.
    pub inserts: Vec<Row>,
    /// Nothing below this position lives any more.
    pub remove_below: Option<Position>,
    /// Ranges (first, last; inclusive) in which nothing lives any more.
    pub remove_ranges: Vec<PositionRange>,
    /// Single positions above `remove_below` that live no more.
    pub removes: Vec<Position>,
    /// What the lane is once all of this has happened.
    pub state: LaneState,
}

/// A range of positions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionRange {
    /// The first.
    pub from: Position,
    /// The last.
    pub to: Position,
}

/// A lane in five numbers, so that starting never counts rows. Absolute, not differences: writing it twice is harmless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneState {
    /// Every live row lies at or above this.
    pub head: Position,
    /// The highest position given out so far.
    pub tail: Position,
    /// Live rows.
    pub count: u64,
    /// Their body bytes.
    pub body_bytes: u64,
    /// Rows below it may have been delivered: they come back `redelivered` after an unclean stop.
    pub lent_ceiling: Position,
}

/// Contributions of several queues that become durable together, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// Its number, unique in the process.
    pub number: u64,
    /// How many contributions belong to it.
    pub parts: u32,
}

/// A user. Passwords exist only as salted hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// The login name.
    pub name: Name,
    /// base64 of salt and hash, as RabbitMQ's definitions carry it; empty refuses every password.
    pub password_hash: String,
    /// Which hash: `rabbit_password_hashing_sha256` and its siblings.
    pub hashing_algorithm: String,
    /// Tags such as `administrator`.
    pub tags: Vec<String>,
    /// The settings named the user; when they no longer do, the user is deleted.
    pub from_settings: bool,
    /// The vhosts that the user may open.
    pub vhosts: Vec<Name>,
}
