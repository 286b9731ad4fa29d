//! What a store keeps beside messages: durable topology, and what is found at start.

use super::batch::{BatchNo, LaneState};
pub use crate::model::stored::UserRecord;
use crate::model::{Lane, Name, QueueId};

/// What kind of thing a binding leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A queue.
    Queue,
    /// An exchange.
    Exchange,
}

/// A durable virtual host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostRecord {
    /// Its name.
    pub name: Name,
}

/// A durable exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeRecord {
    /// Its vhost.
    pub vhost: Name,
    /// Its name.
    pub name: Name,
    /// Its type: `direct`, `fanout`, ...
    pub kind: String,
    /// Deleted with its last outgoing binding.
    pub auto_delete: bool,
    /// Not for publishing by clients.
    pub internal: bool,
    /// Its arguments as an encoded field table (with its length prefix).
    pub arguments: Vec<u8>,
}

/// A durable queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRecord {
    /// Its vhost.
    pub vhost: Name,
    /// Its name.
    pub name: Name,
    /// Its incarnation.
    pub id: QueueId,
    /// Deleted with its last consumer.
    pub auto_delete: bool,
    /// Its arguments as an encoded field table (with its length prefix).
    pub arguments: Vec<u8>,
}

/// A binding between durable ends. All fields together are its identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BindingRecord {
    /// Its vhost.
    pub vhost: Name,
    /// The exchange that routes.
    pub source: Name,
    /// What receives.
    pub destination_kind: Destination,
    /// Its name.
    pub destination: Name,
    /// The binding key.
    pub routing_key: Name,
    /// Its arguments as an encoded field table (with its length prefix).
    pub arguments: Vec<u8>,
}

/// A change of durable topology. Deleting something names it alone: what hangs on it is deleted by changes of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyChange {
    /// Insert or replace.
    PutVhost(VhostRecord),
    /// Delete by name.
    DeleteVhost(Name),
    /// Insert or replace.
    PutUser(UserRecord),
    /// Delete by name.
    DeleteUser(Name),
    /// Insert or replace.
    PutExchange(ExchangeRecord),
    /// Delete by vhost and name.
    DeleteExchange {
        /// Its vhost.
        vhost: Name,
        /// Its name.
        name: Name,
    },
    /// Insert.
    PutQueue(QueueRecord),
    /// Delete a queue and, once the batch's lanes are written, drop all of its own.
    DeleteQueue(QueueId),
    /// Insert; a no-op when it is there.
    PutBinding(BindingRecord),
    /// Delete; a no-op when it is not there.
    DeleteBinding(BindingRecord),
}

impl TopologyChange {
    /// The queue that it makes or deletes.
    pub(super) fn queue(&self) -> Option<QueueId> {
        match self {
            Self::PutQueue(record) => Some(record.id),
            Self::DeleteQueue(queue) => Some(*queue),
            _ => None,
        }
    }
}

/// A lane as found at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneRecord {
    /// The lane.
    pub lane: Lane,
    /// Its five numbers.
    pub state: LaneState,
}

/// Everything that is read at start: topology and lanes, no row.
#[derive(Clone, Debug, Default)]
pub struct RecoveredState {
    /// Rises with every start; makes new identifiers unique.
    pub boot: u32,
    /// The last batch.
    pub batch_no: BatchNo,
    /// Whether the last process stopped in good order.
    pub clean: bool,
    /// Identifies the cluster for life: made with the store, and kept in it.
    pub cluster_id: String,
    /// All vhosts.
    pub vhosts: Vec<VhostRecord>,
    /// All users.
    pub users: Vec<UserRecord>,
    /// All durable exchanges.
    pub exchanges: Vec<ExchangeRecord>,
    /// All durable queues.
    pub queues: Vec<QueueRecord>,
    /// All durable bindings.
    pub bindings: Vec<BindingRecord>,
    /// All live lanes.
    pub lanes: Vec<LaneRecord>,
}
