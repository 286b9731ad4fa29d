//! The broker's numbers at one moment: its totals, and its queues, exchanges and connections one by one.
//!
//! The metrics page, the local socket and management read the broker only here. Queues and connections publish their
//! numbers themselves, so a snapshot takes no queue's turn and wakes no connection.

use super::cell::Cell;
use super::counters::CountersSnapshot;
use super::gauges::Gauges;
use super::node::Broker;
use super::object_metrics::Traffic;
use super::peer::{Client, Peer};
use super::topology::ExchangeSnapshot;
use crate::model::{ConnectionId, Name, QueueId, Refusals};
use crate::queue::{Counts, QueueMetrics};
use crate::store::commit::WriterStats;

/// The totals of the broker.
#[derive(Clone, Debug)]
pub(crate) struct BrokerSnapshot {
    /// Counters since the start.
    pub counters: CountersSnapshot,
    /// Refusals by limits since the start.
    pub refusals: Refusals,
    /// Gauges of open connections and channels.
    pub open: OpenCounts,
    /// Sums of all queues' metrics, as of the last turn of each.
    pub queues: QueueTotals,
    /// Numbers of the store's writer since the start.
    pub writer: WriterStats,
}

/// The values of [`Gauges`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OpenCounts {
    pub connections: u64,
    pub channels: u64,
    pub publishers: u64,
    pub unconfirmed: u64,
    pub uncommitted: u64,
    pub acks_uncommitted: u64,
}

/// The sums of all queues' metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct QueueTotals {
    /// Number of queues.
    pub count: u64,
    /// The sum of their metrics.
    pub sum: QueueMetrics,
}

/// A queue as listings show it.
#[derive(Clone, Debug)]
pub(crate) struct QueueSnapshot {
    pub id: QueueId,
    pub vhost: Name,
    pub name: Name,
    /// The connection that has the queue exclusively.
    pub owner: Option<ConnectionId>,
    /// The queue's metrics as of its last turn.
    pub metrics: QueueMetrics,
    /// Counts of the queue's events since it was declared or the broker started.
    pub counts: Counts,
}

/// A connection that has opened a vhost, as listings show it.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionSnapshot {
    pub id: ConnectionId,
    pub user: Name,
    pub vhost: Name,
    /// The client; `None` for a connection without a socket.
    pub client: Option<Client>,
    /// Counts of the connection's events since it opened the vhost.
    pub traffic: Traffic,
}

impl Broker {
    /// The totals.
    pub(crate) fn snapshot(&self) -> BrokerSnapshot {
        let gauges = self.gauges();
        let mut queues = QueueTotals::default();
        for cell in self.cells() {
            queues.count += 1;
            queues.sum += cell.metrics();
        }
        BrokerSnapshot {
            counters: self.counters().snapshot(),
            refusals: self.refusals().snapshot(),
            open: OpenCounts {
                connections: Gauges::read(&gauges.connections),
                channels: Gauges::read(&gauges.channels),
                publishers: Gauges::read(&gauges.publishers),
                unconfirmed: Gauges::read(&gauges.unconfirmed),
                uncommitted: Gauges::read(&gauges.uncommitted),
                acks_uncommitted: Gauges::read(&gauges.acks_uncommitted),
            },
            queues,
            writer: self.writer().stats(),
        }
    }

    /// All queues, by vhost and name.
    pub(crate) fn queue_snapshots(&self) -> Vec<QueueSnapshot> {
        let mut queues: Vec<_> = self.cells().iter().map(|cell| QueueSnapshot::of(cell)).collect();
        queues.sort_by(|a, b| (&a.vhost, &a.name).cmp(&(&b.vhost, &b.name)));
        queues
    }

    /// All exchanges, by vhost and name.
    pub(crate) fn exchange_snapshots(&self) -> Vec<ExchangeSnapshot> {
        let mut exchanges: Vec<_> = self.vhosts().iter().flat_map(|vhost| vhost.exchange_snapshots()).collect();
        exchanges.sort_by(|a, b| (&a.vhost, &a.name).cmp(&(&b.vhost, &b.name)));
        exchanges
    }

    /// All connections that have opened a vhost, in the order in which they connected.
    pub(crate) fn connection_snapshots(&self) -> Vec<ConnectionSnapshot> {
        let mut connections: Vec<_> = self.peers().iter().map(|peer| ConnectionSnapshot::of(peer)).collect();
        connections.sort_by_key(|connection| connection.id);
        connections
    }
}

impl QueueSnapshot {
    fn of(cell: &Cell) -> Self {
        Self {
            id: cell.id(),
            vhost: cell.vhost().clone(),
            name: cell.name().clone(),
            owner: cell.owner(),
            metrics: cell.metrics(),
            counts: cell.counts(),
        }
    }
}

impl ConnectionSnapshot {
    fn of(peer: &Peer) -> Self {
        Self {
            id: peer.id(),
            user: peer.user().clone(),
            vhost: peer.vhost().clone(),
            client: peer.client().cloned(),
            traffic: peer.traffic().read(),
        }
    }
}
