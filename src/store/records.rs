//! What a store keeps beside messages: durable topology, and the state that a start reads.

use super::batch::{BatchNo, LaneState};
pub use crate::model::stored::UserRecord;
use crate::model::{Lane, Name, QueueId};

/// The kind of a binding's destination.
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
    /// Clients cannot publish to it.
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
    /// Its id. A queue that is deleted and made again has another one.
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
    /// The kind of its destination.
    pub destination_kind: Destination,
    /// The name of its destination.
    pub destination: Name,
    /// The binding key.
    pub routing_key: Name,
    /// Its arguments as an encoded field table (with its length prefix).
    pub arguments: Vec<u8>,
}

/// A change of durable topology. A deletion deletes only what it names: bindings and the like are deleted by changes of
/// their own.
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
    /// Delete a queue and, once the batch's lanes are written, drop all lanes of the queue.
    DeleteQueue(QueueId),
    /// Insert; a no-op if it exists.
    PutBinding(BindingRecord),
    /// Delete; a no-op if it does not exist.
    DeleteBinding(BindingRecord),
}

impl TopologyChange {
    /// The queue that the change makes or deletes.
    pub(super) fn queue(&self) -> Option<QueueId> {
        match self {
            Self::PutQueue(record) => Some(record.id),
            Self::DeleteQueue(queue) => Some(*queue),
            _ => None,
        }
    }
}

/// A lane as read at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneRecord {
    /// The lane.
    pub lane: Lane,
    /// Its counters.
    pub state: LaneState,
}

/// Everything that a start reads: topology and lanes, no row.
#[derive(Clone, Debug, Default)]
pub struct RecoveredState {
    /// The number of the start. It makes new identifiers unique.
    pub boot: u32,
    /// The last batch.
    pub batch_no: BatchNo,
    /// Whether the last process stopped in good order.
    pub clean: bool,
    /// The id of the cluster, made with the store and never changed.
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
