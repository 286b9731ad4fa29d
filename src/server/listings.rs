//! Lists the queues, exchanges and connections of a running broker as JSON for the local socket. Field names are those
//! of the snapshots.

use crate::broker::{Broker, ConnectionSnapshot, ExchangeSnapshot, QueueSnapshot};
use crate::model::NamedLimit;
use serde::Deserialize;
use serde_json::{Value, json};

/// The kinds of objects that can be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Listing {
    /// Queues, by vhost and name.
    Queues,
    /// Exchanges, by vhost and name.
    Exchanges,
    /// Connections that have opened a vhost, in the order in which they connected.
    Connections,
}

impl Listing {
    /// The objects as they are now.
    pub(super) fn items(self, broker: &Broker) -> Vec<Value> {
        match self {
            Self::Queues => broker.queue_snapshots().iter().map(queue).collect(),
            Self::Exchanges => broker.exchange_snapshots().iter().map(exchange).collect(),
            Self::Connections => broker.connection_snapshots().iter().map(connection).collect(),
        }
    }
}

/// The totals of the broker. `refused_by_limit` has the settings of limits that have refused something.
pub(super) fn status(broker: &Broker) -> Value {
    let snapshot = broker.snapshot();
    let refusals: serde_json::Map<String, Value> = NamedLimit::ALL
        .into_iter()
        .map(|limit| (limit.setting().to_owned(), snapshot.refusals.of(limit).into()))
        .filter(|(_, count)| *count != 0)
        .collect();
    let (open, sum, counters) = (&snapshot.open, &snapshot.queues.sum, &snapshot.counters);
    json!({
        "connections": open.connections,
        "channels": open.channels,
        "consumers": sum.consumers,
        "queues": snapshot.queues.count,
        "ready": sum.ready,
        "unacked": sum.unacked,
        "published": counters.received,
        "confirmed": counters.confirmed,
        "acknowledged": counters.acknowledged,
        "refused_by_limit": refusals,
        "store": snapshot.writer.trouble().unwrap_or_else(|| "ok".to_owned()),
    })
}

fn queue(queue: &QueueSnapshot) -> Value {
    let QueueSnapshot { id, vhost, name, owner, metrics, counts } = queue;
    json!({
        "id": id.0,
        "vhost": vhost.as_str(),
        "name": name.as_str(),
        "exclusive_to": owner.map(|connection| connection.0),
        "ready": metrics.ready,
        "ready_bytes": metrics.ready_bytes,
        "unacked": metrics.unacked,
        "unacked_bytes": metrics.unacked_bytes,
        "consumers": metrics.consumers,
        "memory_bytes": metrics.memory.bytes,
        "published": counts.published,
        "delivered": counts.delivered_manual_ack + counts.delivered_auto_ack,
        "got": counts.got_manual_ack + counts.got_auto_ack,
        "redelivered": counts.redelivered,
        "acknowledged": counts.acknowledged,
        "overflowed": counts.overflowed,
        "expired": counts.expired,
        "rejected": counts.rejected,
    })
}

fn exchange(exchange: &ExchangeSnapshot) -> Value {
    let ExchangeSnapshot { vhost, name, kind, durable, auto_delete, internal, counts } = exchange;
    json!({
        "vhost": vhost.as_str(),
        "name": name.as_str(),
        "type": kind.name(),
        "durable": durable,
        "auto_delete": auto_delete,
        "internal": internal,
        "published": counts.published,
        "routed": counts.routed,
    })
}

fn connection(connection: &ConnectionSnapshot) -> Value {
    let ConnectionSnapshot { id, user, vhost, client, traffic } = connection;
    json!({
        "id": id.0,
        "user": user.as_str(),
        "vhost": vhost.as_str(),
        "client": client.as_ref().map(|client| client.address.to_string()),
        "name": client.as_ref().map(|client| client.name.as_str()),
        "opened_at_millis": client.as_ref().map(|client| client.opened_at.0),
        "channels": traffic.channels_opened.saturating_sub(traffic.channels_closed),
        "published": traffic.published,
        "confirmed": traffic.confirmed,
        "reads": traffic.reads,
        "bytes_in": traffic.bytes_in,
        "writes": traffic.writes,
        "bytes_out": traffic.bytes_out,
    })
}
