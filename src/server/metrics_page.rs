//! `/metrics`, `/healthz` and `/readyz`.

use super::log_writer::LogWriter;
use super::shared::Shared;
use super::tasks::run_blocking;
use crate::broker::BrokerSnapshot;
use crate::config::Durability;
use crate::exposition::bounds::COMMIT_SECONDS_BOUNDS;
use crate::exposition::series::Labels;
use crate::exposition::snapshot::{
    Alarms, Channels, Connections, Deaths, Delivery, Errors, Memory, Publishing, Queues, Start, Store, StoreFiles,
    Surroundings,
};
use crate::exposition::{CONTENT_TYPE, Exposition, Histogram, Identity, Process, Snapshot};
use crate::model::{NamedLimit, Scope};
use crate::store::commit::WriterState;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[derive(Clone)]
struct Page {
    shared: Arc<Shared>,
    exposition: Arc<Exposition>,
}

/// The router of the metrics listener.
pub(super) fn router(shared: Arc<Shared>) -> Router {
    let identity = Identity {
        node_name: shared.identity.node_name.clone(),
        cluster_name: shared.identity.cluster_name.clone(),
        cluster_id: shared.identity.cluster_id.clone(),
        rabbitmq_version: shared.settings.identity.version.clone(),
    };
    let page = Page { shared, exposition: Arc::new(Exposition::new(&identity)) };
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(page)
}

async fn metrics(State(page): State<Page>) -> Response {
    let Page { shared, exposition } = page;
    // Reading many queues and descriptors takes long; it must not delay connections.
    let text = run_blocking(move || exposition.render(&snapshot(&shared))).await;
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

/// Answers whether the broker works: its store commits and reads.
async fn healthz(State(page): State<Page>) -> Response {
    match page.shared.broker.writer().stats().trouble() {
        None => (StatusCode::OK, "ok\n".to_owned()).into_response(),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response(),
    }
}

/// Answers whether the broker accepts clients.
async fn readyz(State(page): State<Page>) -> Response {
    if *page.shared.stopping.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    (StatusCode::OK, "ready\n").into_response()
}

fn durability_labels(durability: Durability) -> Labels {
    match durability {
        Durability::Commit => &[("level", "commit")],
        Durability::Interval => &[("level", "interval")],
        Durability::Off => &[("level", "off")],
    }
}

/// The broker's numbers as the page presents them.
fn snapshot(shared: &Shared) -> Snapshot {
    let now = shared.clock.now();
    let broker = shared.broker.snapshot();
    let counters = &broker.counters;
    Snapshot {
        start: Start {
            seconds: (now.wall.0 as f64 - now.monotonic.0 as f64 / 1000.0) / 1000.0,
            uptime: Duration::from_micros(now.monotonic.0),
        },
        process: Process::read(&shared.settings.data_dir),
        alarms: Alarms {
            memory: shared.alarms.memory(),
            disk: shared.alarms.disk(),
            memory_limit_bytes: shared.alarms.memory_limit(),
            resident_limit_bytes: shared.alarms.resident_limit(),
            disk_limit_bytes: shared.current().settings.limits.disk_free_bytes,
            ..Alarms::default()
        },
        memory: memory(shared),
        refusals: broker.refusals,
        publishing: publishing(&broker, shared.sizes.histogram()),
        delivery: Delivery {
            consume_manual_ack: counters.delivered_manual_ack,
            consume_auto_ack: counters.delivered_auto_ack,
            get_manual_ack: counters.got_manual_ack,
            get_auto_ack: counters.got_auto_ack,
            get_empty: counters.get_empty,
            redelivered: counters.redelivered,
            acknowledged: counters.acknowledged,
        },
        dead_lettered: Deaths {
            maxlen: counters.dead_overflowed,
            expired: counters.dead_expired,
            rejected: counters.dead_rejected,
        },
        discarded: Deaths { maxlen: counters.overflowed, expired: counters.expired, rejected: counters.rejected },
        connections: connections(&broker),
        channels: channels(&broker),
        errors: Errors {
            channel: shared.errors.counts(Scope::Channel),
            connection: shared.errors.counts(Scope::Connection),
        },
        surroundings: Surroundings {
            log_lines_dropped: shared.logs.iter().map(LogWriter::dropped).sum(),
            metrics_connections: shared.http_clients.open.load(Ordering::Relaxed),
            metrics_connections_refused: broker.refusals.of(NamedLimit::MetricsConnectionsMax),
        },
        queues: queues(&broker),
        store: store(&broker, shared.settings.store.durability),
    }
}

fn memory(shared: &Shared) -> Memory {
    let in_use = shared.memory.in_use(&shared.broker);
    Memory {
        queues: in_use.queues,
        unfinished: in_use.unfinished,
        buffers: in_use.buffers,
        channels: in_use.channels,
        inlets: in_use.inlets,
        topology: in_use.topology,
        trims: shared.alarms.trims(),
    }
}

fn publishing(broker: &BrokerSnapshot, size_bytes: Histogram) -> Publishing {
    let counters = &broker.counters;
    Publishing {
        received: counters.received,
        received_confirm: counters.received_confirm,
        routed: counters.routed,
        unroutable_dropped: counters.unroutable_dropped,
        unroutable_returned: counters.unroutable_returned,
        confirmed: counters.confirmed,
        publishers: broker.open.publishers,
        size_bytes,
    }
}

fn connections(broker: &BrokerSnapshot) -> Connections {
    let counters = &broker.counters;
    Connections {
        open: broker.open.connections,
        opened: counters.connections_opened,
        closed: counters.connections_closed,
        incoming_bytes: counters.bytes_in,
        outgoing_bytes: counters.bytes_out,
        incoming_packets: counters.reads,
        outgoing_packets: counters.writes,
        auth_succeeded: counters.auth_attempts.saturating_sub(counters.auth_failures),
        auth_failed: counters.auth_failures,
    }
}

fn channels(broker: &BrokerSnapshot) -> Channels {
    Channels {
        open: broker.open.channels,
        opened: broker.counters.channels_opened,
        closed: broker.counters.channels_closed,
        consumers: broker.queues.sum.consumers.into(),
        unacked: broker.queues.sum.unacked,
        unconfirmed: broker.open.unconfirmed,
        uncommitted: broker.open.uncommitted,
        acks_uncommitted: broker.open.acks_uncommitted,
    }
}

fn queues(broker: &BrokerSnapshot) -> Queues {
    let (counters, sum) = (&broker.counters, &broker.queues.sum);
    Queues {
        count: broker.queues.count,
        declared: counters.queues_declared,
        created: counters.queues_created,
        deleted: counters.queues_deleted,
        ready: sum.ready,
        ready_bytes: sum.ready_bytes,
        unacked: sum.unacked,
        unacked_bytes: sum.unacked_bytes,
        persistent: sum.durable,
        persistent_bytes: sum.durable_bytes,
        ready_in_memory: sum.memory.ready,
        unacked_in_memory: sum.unacked,
        in_memory_bytes: sum.memory.body_bytes,
        memory_bytes: sum.memory.bytes,
    }
}

fn store(broker: &BrokerSnapshot, durability: Durability) -> Store {
    let (counters, writer) = (&broker.counters, &broker.writer);
    Store {
        batches: writer.batches,
        commit_failures: writer.retries,
        rows_written: writer.rows_inserted,
        rows_removed: writer.rows_removed,
        bytes_written: writer.bytes,
        commit_seconds: Histogram::from_counts(
            COMMIT_SECONDS_BOUNDS,
            writer.commit_buckets.to_vec(),
            writer.commit_seconds,
        ),
        persistent: counters.durable_in,
        persistent_never_written: counters.never_written,
        backlog: counters.durable_in.saturating_sub(counters.never_written + writer.rows_inserted),
        rows_read: counters.rows_read,
        is_retrying: writer.state == WriterState::Retrying,
        has_failed: writer.state == WriterState::Failed,
        read_failures: writer.read_failures,
        files: StoreFiles {
            bytes: writer.vitals.file_bytes,
            log_bytes: writer.vitals.log_bytes,
            log_is_pinned: writer.vitals.log_is_pinned,
            redo_batches: writer.vitals.redo_batches,
        },
        durability: durability_labels(durability),
    }
}
