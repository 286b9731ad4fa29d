//! Queues by name.

use super::{Changes, RESERVED_PREFIX, Topology, reserved};
use crate::broker::cell::Cell;
use crate::model::command::QueueDeclare;
use crate::model::{AmqpError, Arguments, ConnectionId, Name, QueueId};
use crate::routing::Destination;
use crate::store::{QueueRecord, TopologyChange};
use std::sync::Arc;

/// A queue's entry in the topology.
#[derive(Clone, Debug)]
pub(in crate::broker) struct QueueEntry {
    pub(in crate::broker) cell: Arc<Cell>,
    pub(in crate::broker) durable: bool,
    pub(in crate::broker) auto_delete: bool,
    pub(in crate::broker) arguments: Arguments,
}

impl Topology {
    pub(in crate::broker) fn queue(&self, name: &[u8]) -> Option<&QueueEntry> {
        self.queues.get(name)
    }

    /// The queue of that name, if this connection may use it. The error is 404 for a missing queue, 405 for another
    /// connection's exclusive one.
    pub(in crate::broker) fn usable(&self, name: &Name, connection: ConnectionId) -> Result<&QueueEntry, AmqpError> {
        let vhost = self.vhost.as_str();
        let entry = self.queues.get(name.as_bytes()).ok_or_else(|| AmqpError::no_queue(name.as_str(), vhost))?;
        entry.check_owner(name, vhost, connection)?;
        Ok(entry)
    }

    /// The existing queue of a declaration, if there is one of that name. It is an error if the declaration does not
    /// match it.
    pub(in crate::broker) fn equivalent_queue(
        &self,
        declare: &QueueDeclare,
        connection: ConnectionId,
    ) -> Result<Option<&QueueEntry>, AmqpError> {
        let Some(entry) = self.queues.get(declare.queue.as_bytes()) else { return Ok(None) };
        entry.check_owner(&declare.queue, self.vhost.as_str(), connection)?;
        entry.check_equivalent(declare, self.vhost.as_str())?;
        Ok(Some(entry))
    }

    /// Checks that a client may give this name to a new queue.
    pub(in crate::broker) fn check_queue_name(name: &str) -> Result<(), AmqpError> {
        if name.starts_with(RESERVED_PREFIX) { Err(reserved("queue", name)) } else { Ok(()) }
    }

    /// Adds a queue whose name is free, with the record for the store if the queue is durable and not recovered.
    pub(in crate::broker) fn insert_queue(
        &mut self,
        name: Name,
        entry: QueueEntry,
        record: Option<QueueRecord>,
    ) -> Changes {
        self.queues.insert(name, entry);
        let records: Vec<_> = record.map(TopologyChange::PutQueue).into_iter().collect();
        Changes::new(records, false)
    }

    /// Removes a queue and its bindings. `None` if it is gone, or a newer queue has its name.
    pub(in crate::broker) fn remove_queue(&mut self, name: &Name, id: QueueId) -> Option<Changes> {
        if !self.has_queue(name, id) {
            return None;
        }
        let entry = self.queues.remove(name.as_bytes())?;
        let mut records = Vec::new();
        self.remove_destination(&Destination::Queue(name.clone()), entry.durable, &mut records);
        if entry.durable {
            records.push(TopologyChange::DeleteQueue(id));
        }
        Some(Changes::new(records, entry.durable))
    }

    /// Whether the queue with this name has this id.
    pub(in crate::broker) fn has_queue(&self, name: &Name, id: QueueId) -> bool {
        self.queues.get(name.as_bytes()).is_some_and(|entry| entry.cell.id() == id)
    }
}

impl QueueEntry {
    pub(in crate::broker) fn check_owner(
        &self,
        name: &Name,
        vhost: &str,
        connection: ConnectionId,
    ) -> Result<(), AmqpError> {
        match self.cell.owner() {
            Some(owner) if owner != connection => Err(AmqpError::exclusive_queue(name.as_str(), vhost)),
            _ => Ok(()),
        }
    }
}
