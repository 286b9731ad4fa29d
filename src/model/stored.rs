//! The data of a store: rows of queues, changes and states of lanes, and users.

use super::ids::{Lane, Position};
use super::message::Message;
use super::names::Name;
use super::time::WallMillis;

/// One durable entry of a lane.
#[derive(Clone, Debug)]
pub struct Row {
    /// The position in the lane; rows of one lane arrive with rising positions.
    pub position: Position,
    /// Whether the message was already delivered when the row was written.
    pub redelivered: bool,
    /// When the message expires, by its own or its queue's time to live.
    pub expires_at: Option<WallMillis>,
    /// The place of a transient message among durable ones; none for durable ones.
    pub place: Option<OrderKey>,
    /// The message.
    pub message: Message,
}

/// The place of a transient message: behind a durable message, and behind other transient ones there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OrderKey {
    /// The position of the durable message, or 0.
    pub behind: Position,
    /// Its index among the transient messages behind that position, from 1.
    pub nth: u64,
}

/// The changes of one lane in a batch: first the inserts, then the removes, which may name rows inserted just before.
#[derive(Clone, Debug)]
pub struct LaneChange {
    /// The lane; the store creates it on first use.
    pub lane: Lane,
    /// New rows, by rising position.
    pub inserts: Vec<Row>,
    /// All rows below this position are removed.
    pub remove_below: Option<Position>,
    /// Ranges in which all rows are removed.
    pub remove_ranges: Vec<PositionRange>,
    /// Single rows above `remove_below` that are removed.
    pub removes: Vec<Position>,
    /// The state of the lane after these changes.
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

/// The state of a lane in five numbers, so that a start needs not count rows. The numbers are absolute, not differences:
/// writing them twice is harmless.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneState {
    /// All live rows are at or above this position.
    pub head: Position,
    /// The highest position used so far.
    pub tail: Position,
    /// Number of live rows.
    pub count: u64,
    /// Body bytes of the live rows.
    pub body_bytes: u64,
    /// Rows below this position may have been delivered: they come back `redelivered` after an unclean stop.
    pub lent_ceiling: Position,
}

/// Contributions of several queues that become durable together, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// The group's number, unique in the process.
    pub number: u64,
    /// How many contributions belong to the group.
    pub parts: u32,
}

/// A user. Passwords exist only as salted hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// The login name.
    pub name: Name,
    /// base64 of salt and hash, as RabbitMQ's definitions carry it; empty refuses every password.
    pub password_hash: String,
    /// The name of the hash, such as `rabbit_password_hashing_sha256`.
    pub hashing_algorithm: String,
    /// Tags such as `administrator`.
    pub tags: Vec<String>,
    /// The user comes from the settings; when these no longer name the user, the user is deleted.
    pub from_settings: bool,
    /// The vhosts that the user may open.
    pub vhosts: Vec<Name>,
}
