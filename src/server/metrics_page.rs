//! `/metrics`, `/healthz` and `/readyz`.

use super::log_writer::LogWriter;
use super::shared::Shared;
use super::tasks::run_blocking;
use crate::config::Durability;
use crate::exposition::bounds::COMMIT_SECONDS_BOUNDS;
use crate::exposition::series::Labels;
use crate::exposition::snapshot::{
    Alarms, Channels, Connections, Deaths, Delivery, Errors, Memory, Publishing, Queues, Store, Surroundings,
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
use std::sync::atomic::{AtomicI64, Ordering};
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
        rabbitmq_version: shared.settings.version.clone(),
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
    // Many queues and descriptors take their time, which no connection is to wait for.
    let text = run_blocking(move || exposition.render(&snapshot(&shared))).await;
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

/// Whether the broker can do its work: its store commits and reads.
async fn healthz(State(page): State<Page>) -> Response {
    match page.shared.broker.writer().stats().trouble() {
        None => (StatusCode::OK, "ok\n".to_owned()).into_response(),
        Some(trouble) => (StatusCode::SERVICE_UNAVAILABLE, format!("{trouble}\n")).into_response(),
    }
}

/// Whether clients may be sent here.
async fn readyz(State(page): State<Page>) -> Response {
    if *page.shared.stopping.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    (StatusCode::OK, "ready\n").into_response()
}

fn gauge(value: &AtomicI64) -> u64 {
    u64::try_from(value.load(Ordering::Relaxed)).unwrap_or(0)
}

fn durability_labels(durability: Durability) -> Labels {
    match durability {
        Durability::Commit => &[("level", "commit")],
        Durability::Interval => &[("level", "interval")],
        Durability::Off => &[("level", "off")],
    }
}

/// The broker in numbers. Queues are counted from their last turns.
fn snapshot(shared: &Shared) -> Snapshot {
    let now = shared.clock.now();
    let counts = shared.broker.counters().snapshot();
    let stats = shared.broker.writer().stats();
    let mut queues = Queues {
        declared: counts.queues_declared,
        created: counts.queues_created,
        deleted: counts.queues_deleted,
        ..Queues::default()
    };
    let mut consumers = 0;
    for cell in shared.broker.cells() {
        let metrics = cell.metrics();
        queues.count += 1;
        queues.ready += metrics.ready;
        queues.ready_bytes += metrics.ready_bytes;
        queues.unacked += metrics.unacked;
        queues.unacked_bytes += metrics.unacked_bytes;
        queues.persistent += metrics.durable;
        queues.persistent_bytes += metrics.durable_bytes;
        queues.ready_in_memory += metrics.memory.ready;
        queues.unacked_in_memory += metrics.unacked;
        queues.in_memory_bytes += metrics.memory.body_bytes;
        queues.memory_bytes += metrics.memory.bytes;
        consumers += u64::from(metrics.consumers);
    }
    let in_use = shared.memory.in_use(&shared.broker);
    let process = Process::read(&shared.settings.data_dir);
    let backlog = counts.durable_in.saturating_sub(counts.never_written + stats.rows_inserted);
    Snapshot {
        started_at_seconds: (now.wall.0 as f64 - now.monotonic.0 as f64 / 1000.0) / 1000.0,
        uptime: Duration::from_micros(now.monotonic.0),
        process,
        alarms: Alarms {
            memory: shared.alarms.memory(),
            disk: shared.alarms.disk(),
            memory_limit_bytes: shared.alarms.memory_limit(),
            resident_limit_bytes: shared.alarms.resident_limit(),
            disk_limit_bytes: shared.current().settings.limits.disk_free_bytes,
            ..Alarms::default()
        },
        memory: Memory {
            queues: in_use.queues,
            unfinished: in_use.unfinished,
            buffers: in_use.buffers,
            channels: in_use.channels,
            inlets: in_use.inlets,
            topology: in_use.topology,
            trims: shared.alarms.trims(),
        },
        refusals: shared.broker.refusals().snapshot(),
        publishing: Publishing {
            received: counts.received,
            received_confirm: counts.received_confirm,
            routed: counts.routed,
            unroutable_dropped: counts.unroutable_dropped,
            unroutable_returned: counts.unroutable_returned,
            confirmed: counts.confirmed,
            publishers: gauge(&shared.gauges.publishers),
            size_bytes: shared.sizes.histogram(),
        },
        delivery: Delivery {
            consume_manual_ack: counts.delivered_manual_ack,
            consume_auto_ack: counts.delivered_auto_ack,
            get_manual_ack: counts.got_manual_ack,
            get_auto_ack: counts.got_auto_ack,
            get_empty: counts.get_empty,
            redelivered: counts.redelivered,
            acknowledged: counts.acknowledged,
        },
        dead_lettered: Deaths {
            maxlen: counts.dead_overflowed,
            expired: counts.dead_expired,
            rejected: counts.dead_rejected,
        },
        discarded: Deaths { maxlen: counts.overflowed, expired: counts.expired, rejected: counts.rejected },
        connections: Connections {
            open: gauge(&shared.gauges.connections),
            opened: counts.connections_opened,
            closed: counts.connections_closed,
            incoming_bytes: counts.bytes_in,
            outgoing_bytes: counts.bytes_out,
            incoming_packets: shared.gauges.reads.load(Ordering::Relaxed),
            outgoing_packets: shared.gauges.writes.load(Ordering::Relaxed),
            auth_succeeded: counts.auth_attempts.saturating_sub(counts.auth_failures),
            auth_failed: counts.auth_failures,
        },
        channels: Channels {
            open: gauge(&shared.gauges.channels),
            opened: counts.channels_opened,
            closed: counts.channels_closed,
            consumers,
            unacked: queues.unacked,
            unconfirmed: gauge(&shared.gauges.unconfirmed),
            uncommitted: gauge(&shared.gauges.uncommitted),
            acks_uncommitted: gauge(&shared.gauges.acks_uncommitted),
        },
        errors: Errors {
            channel: shared.errors.counts(Scope::Channel),
            connection: shared.errors.counts(Scope::Connection),
        },
        surroundings: Surroundings {
            log_lines_dropped: shared.logs.iter().map(LogWriter::dropped).sum(),
            metrics_connections: shared.http_clients.open.load(Ordering::Relaxed),
            metrics_connections_refused: shared.broker.refusals().snapshot().of(NamedLimit::MetricsConnectionsMax),
        },
        store: Store {
            batches: stats.batches,
            commit_failures: stats.retries,
            rows_written: stats.rows_inserted,
            rows_removed: stats.rows_removed,
            bytes_written: stats.bytes,
            commit_seconds: Histogram::from_counts(
                COMMIT_SECONDS_BOUNDS,
                stats.commit_buckets.to_vec(),
                stats.commit_seconds,
            ),
            persistent: counts.durable_in,
            persistent_never_written: counts.never_written,
            backlog,
            rows_read: counts.rows_read,
            is_retrying: stats.state == WriterState::Retrying,
            has_failed: stats.state == WriterState::Failed,
            read_failures: stats.read_failures,
            file_bytes: stats.vitals.file_bytes,
            log_bytes: stats.vitals.log_bytes,
            log_is_pinned: stats.vitals.log_is_pinned,
            redo_batches: stats.vitals.redo_batches,
            durability: durability_labels(shared.settings.store.durability),
        },
        queues,
    }
}
