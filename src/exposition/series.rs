//! The list of all series: name, type, help and labels, and the place of each value in the snapshot.
//!
//! All series exist, with zero, from the first scrape. That includes series of queue types that do not exist here yet,
//! since dashboards for RabbitMQ add them up.

use super::histogram::Histogram;
use super::snapshot::{Deaths, Delivery, Snapshot};
use crate::model::{NamedLimit, ReplyCode};

/// Labels of a series.
pub(crate) type Labels = &'static [(&'static str, &'static str)];

/// The value of a series, which is also its type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sample<'a> {
    /// Never falls.
    Counter(u64),
    /// Rises and falls.
    Gauge(f64),
    /// Becomes `_bucket`, `_sum` and `_count`.
    Histogram(&'a Histogram),
}

/// One series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Series<'a> {
    /// The name of the metric.
    pub name: &'static str,
    /// The description of the metric.
    pub help: &'static str,
    /// The labels of this series.
    pub labels: Labels,
    /// The value, which also determines the metric's type.
    pub sample: Sample<'a>,
}

/// Collects series; see [`all`].
struct Collector<'a>(Vec<Series<'a>>);

impl<'a> Collector<'a> {
    fn counter(&mut self, name: &'static str, help: &'static str, labels: Labels, value: u64) {
        self.0.push(Series { name, help, labels, sample: Sample::Counter(value) });
    }

    /// Adds a gauge. Prometheus stores doubles, so counts above 2^53 lose their last digits.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    fn gauge(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.real(name, help, value as f64);
    }

    fn real(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.0.push(Series { name, help, labels: NONE, sample: Sample::Gauge(value) });
    }

    fn histogram(&mut self, name: &'static str, help: &'static str, labels: Labels, histogram: &'a Histogram) {
        self.0.push(Series { name, help, labels, sample: Sample::Histogram(histogram) });
    }
}

const NONE: Labels = &[];
const AMQP091: Labels = &[("protocol", "amqp091")];
const CLASSIC: Labels = &[("protocol", "amqp091"), ("queue_type", "rabbit_classic_queue")];
const QUORUM: Labels = &[("protocol", "amqp091"), ("queue_type", "rabbit_quorum_queue")];
const STREAM: Labels = &[("protocol", "amqp091"), ("queue_type", "rabbit_stream_queue")];

/// All series with their values, except the two info metrics.
pub(crate) fn all(snapshot: &Snapshot) -> Vec<Series<'_>> {
    let mut collector = Collector(Vec::with_capacity(160));
    publishing(&mut collector, snapshot);
    delivery(&mut collector, CLASSIC, &snapshot.delivery);
    for queue_type_of_later in [QUORUM, STREAM] {
        delivery(&mut collector, queue_type_of_later, &Delivery::default());
    }
    dead_letters(&mut collector, snapshot);
    process(&mut collector, snapshot);
    memory(&mut collector, snapshot);
    connections(&mut collector, snapshot);
    channels(&mut collector, snapshot);
    errors(&mut collector, snapshot);
    surroundings(&mut collector, snapshot);
    queues(&mut collector, snapshot);
    store(&mut collector, snapshot);
    collector.0
}

fn publishing<'a>(c: &mut Collector<'a>, snapshot: &'a Snapshot) {
    let of = &snapshot.publishing;
    let counters = [
        ("rabbitmq_global_messages_received_total", "Total number of messages received from publishers", of.received),
        (
            "rabbitmq_global_messages_received_confirm_total",
            "Total number of messages received from publishers expecting confirmations",
            of.received_confirm,
        ),
        ("rabbitmq_global_messages_routed_total", "Total number of messages routed to queues or streams", of.routed),
        (
            "rabbitmq_global_messages_unroutable_dropped_total",
            "Total number of messages published as non-mandatory into an exchange and dropped as unroutable",
            of.unroutable_dropped,
        ),
        (
            "rabbitmq_global_messages_unroutable_returned_total",
            "Total number of messages published as mandatory into an exchange and returned to the publisher as unroutable",
            of.unroutable_returned,
        ),
        ("rabbitmq_global_messages_confirmed_total", "Total number of messages confirmed to publishers", of.confirmed),
    ];
    for (name, help, value) in counters {
        c.counter(name, help, AMQP091, value);
    }
    gauge_of_protocol(c, "rabbitmq_global_publishers", "Current number of publishers", of.publishers);
    gauge_of_protocol(c, "rabbitmq_global_consumers", "Current number of consumers", snapshot.channels.consumers);
    c.histogram("rabbitmq_message_size_bytes", "Size of messages received from publishers", AMQP091, &of.size_bytes);
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
fn gauge_of_protocol(c: &mut Collector<'_>, name: &'static str, help: &'static str, value: u64) {
    c.0.push(Series { name, help, labels: AMQP091, sample: Sample::Gauge(value as f64) });
}

fn delivery(c: &mut Collector<'_>, labels: Labels, of: &Delivery) {
    let counters = [
        ("rabbitmq_global_messages_delivered_total", "Total number of messages delivered to consumers", of.delivered()),
        (
            "rabbitmq_global_messages_delivered_consume_manual_ack_total",
            "Total number of messages delivered to consumers using basic.consume with manual acknowledgment",
            of.consume_manual_ack,
        ),
        (
            "rabbitmq_global_messages_delivered_consume_auto_ack_total",
            "Total number of messages delivered to consumers using basic.consume with automatic acknowledgment",
            of.consume_auto_ack,
        ),
        (
            "rabbitmq_global_messages_delivered_get_manual_ack_total",
            "Total number of messages delivered to consumers using basic.get with manual acknowledgment",
            of.get_manual_ack,
        ),
        (
            "rabbitmq_global_messages_delivered_get_auto_ack_total",
            "Total number of messages delivered to consumers using basic.get with automatic acknowledgment",
            of.get_auto_ack,
        ),
        (
            "rabbitmq_global_messages_get_empty_total",
            "Total number of times basic.get operations fetched no message",
            of.get_empty,
        ),
        (
            "rabbitmq_global_messages_redelivered_total",
            "Total number of messages redelivered to consumers",
            of.redelivered,
        ),
        (
            "rabbitmq_global_messages_acknowledged_total",
            "Total number of messages acknowledged by consumers",
            of.acknowledged,
        ),
    ];
    for (name, help, value) in counters {
        c.counter(name, help, labels, value);
    }
}

const CLASSIC_DISABLED: Labels = &[("queue_type", "rabbit_classic_queue"), ("dead_letter_strategy", "disabled")];
const CLASSIC_ONCE: Labels = &[("queue_type", "rabbit_classic_queue"), ("dead_letter_strategy", "at_most_once")];
const QUORUM_DISABLED: Labels = &[("queue_type", "rabbit_quorum_queue"), ("dead_letter_strategy", "disabled")];
const QUORUM_ONCE: Labels = &[("queue_type", "rabbit_quorum_queue"), ("dead_letter_strategy", "at_most_once")];
const QUORUM_LEAST: Labels = &[("queue_type", "rabbit_quorum_queue"), ("dead_letter_strategy", "at_least_once")];

fn dead_letters(c: &mut Collector<'_>, snapshot: &Snapshot) {
    let none = Deaths::default();
    let strategies = [
        (CLASSIC_DISABLED, &snapshot.discarded),
        (CLASSIC_ONCE, &snapshot.dead_lettered),
        (QUORUM_DISABLED, &none),
        (QUORUM_ONCE, &none),
        (QUORUM_LEAST, &none),
    ];
    for (labels, deaths) in strategies {
        c.counter(
            "rabbitmq_global_messages_dead_lettered_maxlen_total",
            "Total number of messages dead-lettered due to overflow drop-head or reject-publish-dlx",
            labels,
            deaths.maxlen,
        );
        c.counter(
            "rabbitmq_global_messages_dead_lettered_expired_total",
            "Total number of messages dead-lettered due to message TTL exceeded",
            labels,
            deaths.expired,
        );
        c.counter(
            "rabbitmq_global_messages_dead_lettered_rejected_total",
            "Total number of messages dead-lettered due to basic.reject or basic.nack",
            labels,
            deaths.rejected,
        );
    }
    for labels in [QUORUM_DISABLED, QUORUM_ONCE, QUORUM_LEAST] {
        c.counter(
            "rabbitmq_global_messages_dead_lettered_delivery_limit_total",
            "Total number of messages dead-lettered due to delivery-limit exceeded",
            labels,
            0,
        );
    }
    c.counter(
        "rabbitmq_global_messages_dead_lettered_confirmed_total",
        "Total number of messages dead-lettered and confirmed by target queues",
        QUORUM_LEAST,
        0,
    );
}

fn process(c: &mut Collector<'_>, snapshot: &Snapshot) {
    let (process, alarms) = (&snapshot.process, &snapshot.alarms);
    let gauges = [
        (
            "rabbitmq_alarms_free_disk_space_watermark",
            "is 1 if free disk space watermark alarm is in effect",
            alarms.disk.into(),
        ),
        ("rabbitmq_alarms_memory_used_watermark", "is 1 if memory watermark alarm is in effect", alarms.memory.into()),
        (
            "rabbitmq_alarms_file_descriptor_limit",
            "is 1 if file descriptor limit alarm is in effect",
            alarms.file_descriptors.into(),
        ),
        (
            "rabbitmq_unreachable_cluster_peers_count",
            "Number of peers in the cluster the current node cannot reach.",
            0,
        ),
        ("rabbitmq_process_open_fds", "Open file descriptors", process.open_fds),
        ("rabbitmq_process_max_fds", "Open file descriptors limit", process.max_fds),
        ("rabbitmq_process_open_tcp_sockets", "Open TCP sockets", process.open_sockets),
        ("rabbitmq_process_max_tcp_sockets", "Open TCP sockets limit", process.max_fds),
        ("rabbitmq_process_resident_memory_bytes", "Memory used in bytes", process.resident_bytes),
        ("rabbitmq_resident_memory_limit_bytes", "Memory high watermark in bytes", alarms.resident_limit_bytes),
        ("rabbitmq_disk_space_available_bytes", "Disk space available in bytes", process.disk_available_bytes),
        (
            "rabbitmq_disk_space_available_limit_bytes",
            "Free disk space low watermark in bytes",
            alarms.disk_limit_bytes,
        ),
    ];
    for (name, help, value) in gauges {
        c.gauge(name, help, value);
    }
    c.real("rabbitmq_erlang_uptime_seconds", "Node uptime", snapshot.start.uptime.as_secs_f64());
    c.real(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        snapshot.start.seconds,
    );
}

/// The labels of `NamedLimit::ALL`.
static LIMITS: [[(&str, &str); 1]; NamedLimit::COUNT] = {
    let mut labels = [[("limit", "")]; NamedLimit::COUNT];
    let mut place = 0;
    while place < labels.len() {
        labels[place][0].1 = NamedLimit::ALL[place].setting();
        place += 1;
    }
    labels
};

fn memory(c: &mut Collector<'_>, snapshot: &Snapshot) {
    let of = &snapshot.memory;
    let parts: [(Labels, u64); 6] = [
        (&[("of", "queues")], of.queues),
        (&[("of", "unfinished")], of.unfinished),
        (&[("of", "buffers")], of.buffers),
        (&[("of", "channels")], of.channels),
        (&[("of", "inlets")], of.inlets),
        (&[("of", "topology")], of.topology),
    ];
    for (labels, bytes) in parts {
        c.0.push(Series {
            name: "prontomq_memory_bytes",
            help: "Memory that clients take, by what it is for; the alarm looks at the sum",
            labels,
            sample: Sample::Gauge(bytes as f64),
        });
    }
    c.gauge("prontomq_memory_limit_bytes", "What that sum may be", snapshot.alarms.memory_limit_bytes);
    c.counter("prontomq_memory_trims_total", "How often free memory was given back to the system", NONE, of.trims);
    for (limit, labels) in NamedLimit::ALL.into_iter().zip(&LIMITS) {
        let help = "What a limit has refused, by the name of its setting";
        c.counter("prontomq_limit_refusals_total", help, labels, snapshot.refusals.of(limit));
    }
}

fn connections(c: &mut Collector<'_>, snapshot: &Snapshot) {
    let of = &snapshot.connections;
    let counters = [
        ("rabbitmq_connections_opened_total", "Total number of connections opened", of.opened),
        ("rabbitmq_connections_closed_total", "Total number of connections closed or terminated", of.closed),
        (
            "rabbitmq_connection_incoming_bytes_total",
            "Total number of bytes received on a connection",
            of.incoming_bytes,
        ),
        ("rabbitmq_connection_outgoing_bytes_total", "Total number of bytes sent on a connection", of.outgoing_bytes),
        (
            "rabbitmq_connection_incoming_packets_total",
            "Total number of packets received on a connection",
            of.incoming_packets,
        ),
        (
            "rabbitmq_connection_outgoing_packets_total",
            "Total number of packets sent on a connection",
            of.outgoing_packets,
        ),
    ];
    for (name, help, value) in counters {
        c.counter(name, help, NONE, value);
    }
    let attempts = [
        ("rabbitmq_auth_attempts_total", "Total number of authorization attempts", of.auth_succeeded + of.auth_failed),
        (
            "rabbitmq_auth_attempts_succeeded_total",
            "Total number of successful authentication attempts",
            of.auth_succeeded,
        ),
        ("rabbitmq_auth_attempts_failed_total", "Total number of failed authentication attempts", of.auth_failed),
    ];
    for (name, help, value) in attempts {
        c.counter(name, help, AMQP091, value);
    }
    c.gauge("rabbitmq_connections", "Connections currently open", of.open);
    c.gauge("rabbitmq_connection_channels", "Channels on a connection", snapshot.channels.open);
}

fn channels(c: &mut Collector<'_>, snapshot: &Snapshot) {
    let of = &snapshot.channels;
    let gauges = [
        ("rabbitmq_channels", "Channels currently open", of.open),
        ("rabbitmq_consumers", "Consumers currently connected", of.consumers),
        ("rabbitmq_channel_consumers", "Consumers on a channel", of.consumers),
        ("rabbitmq_channel_messages_unacked", "Delivered but not yet acknowledged messages", of.unacked),
        ("rabbitmq_channel_messages_unconfirmed", "Published but not yet confirmed messages", of.unconfirmed),
        (
            "rabbitmq_channel_messages_uncommitted",
            "Messages received in a transaction but not yet committed",
            of.uncommitted,
        ),
        (
            "rabbitmq_channel_acks_uncommitted",
            "Message acknowledgements in a transaction not yet committed",
            of.acks_uncommitted,
        ),
    ];
    for (name, help, value) in gauges {
        c.gauge(name, help, value);
    }
    channel_counters(c, snapshot);
}

fn channel_counters(c: &mut Collector<'_>, snapshot: &Snapshot) {
    let (of, published, delivered) = (&snapshot.channels, &snapshot.publishing, &snapshot.delivery);
    let counters = [
        ("rabbitmq_channels_opened_total", "Total number of channels opened", of.opened),
        ("rabbitmq_channels_closed_total", "Total number of channels closed", of.closed),
        (
            "rabbitmq_channel_messages_published_total",
            "Total number of messages published into an exchange on a channel",
            published.received,
        ),
        (
            "rabbitmq_channel_messages_confirmed_total",
            "Total number of messages published into an exchange and confirmed on the channel",
            published.confirmed,
        ),
        (
            "rabbitmq_channel_messages_unroutable_returned_total",
            "Total number of messages published as mandatory into an exchange and returned to the publisher as unroutable",
            published.unroutable_returned,
        ),
        (
            "rabbitmq_channel_messages_unroutable_dropped_total",
            "Total number of messages published as non-mandatory into an exchange and dropped as unroutable",
            published.unroutable_dropped,
        ),
        (
            "rabbitmq_channel_get_ack_total",
            "Total number of messages fetched with basic.get in manual acknowledgement mode",
            delivered.get_manual_ack,
        ),
        (
            "rabbitmq_channel_get_total",
            "Total number of messages fetched with basic.get in automatic acknowledgement mode",
            delivered.get_auto_ack,
        ),
        (
            "rabbitmq_channel_messages_delivered_ack_total",
            "Total number of messages delivered to consumers in manual acknowledgement mode",
            delivered.consume_manual_ack,
        ),
        (
            "rabbitmq_channel_messages_delivered_total",
            "Total number of messages delivered to consumers in automatic acknowledgement mode",
            delivered.consume_auto_ack,
        ),
        (
            "rabbitmq_channel_messages_redelivered_total",
            "Total number of messages redelivered to consumers",
            delivered.redelivered,
        ),
        (
            "rabbitmq_channel_messages_acked_total",
            "Total number of messages acknowledged by consumers",
            delivered.acknowledged,
        ),
        (
            "rabbitmq_channel_get_empty_total",
            "Total number of times basic.get operations fetched no message",
            delivered.get_empty,
        ),
    ];
    for (name, help, value) in counters {
        c.counter(name, help, NONE, value);
    }
}

/// The labels of `ReplyCode::ERRORS`, in its order.
const CODES: [Labels; ReplyCode::ERRORS.len()] = [
    &[("code", "320")],
    &[("code", "403")],
    &[("code", "404")],
    &[("code", "405")],
    &[("code", "406")],
    &[("code", "501")],
    &[("code", "502")],
    &[("code", "503")],
    &[("code", "504")],
    &[("code", "505")],
    &[("code", "506")],
    &[("code", "530")],
    &[("code", "540")],
    &[("code", "541")],
];

fn errors(c: &mut Collector<'_>, snapshot: &Snapshot) {
    let of = &snapshot.errors;
    for (name, help, counts) in [
        ("prontomq_channel_errors_total", "Channels closed by the broker with an error, by reply code", of.channel),
        (
            "prontomq_connection_errors_total",
            "Connections closed by the broker with an error, by reply code",
            of.connection,
        ),
    ] {
        for (labels, count) in CODES.into_iter().zip(counts) {
            c.counter(name, help, labels, count);
        }
    }
}

fn surroundings(c: &mut Collector<'_>, snapshot: &Snapshot) {
    let of = &snapshot.surroundings;
    c.counter(
        "prontomq_log_lines_dropped_total",
        "Lines for stderr and stdout that could not be written",
        NONE,
        of.log_lines_dropped,
    );
    c.gauge("prontomq_metrics_connections", "Connections of the metrics listener", of.metrics_connections);
    c.counter(
        "prontomq_metrics_connections_refused_total",
        "Connections of the metrics listener beyond metrics_connections_max",
        NONE,
        of.metrics_connections_refused,
    );
}

fn queues(c: &mut Collector<'_>, snapshot: &Snapshot) {
    let of = &snapshot.queues;
    let gauges = [
        ("rabbitmq_queues", "Queues available", of.count),
        ("rabbitmq_queue_consumers", "Consumers on a queue", snapshot.channels.consumers),
        ("rabbitmq_queue_messages_ready", "Messages ready to be delivered to consumers", of.ready),
        ("rabbitmq_queue_messages_unacked", "Messages delivered to consumers but not yet acknowledged", of.unacked),
        (
            "rabbitmq_queue_messages",
            "Sum of ready and unacknowledged messages - total queue depth",
            of.ready + of.unacked,
        ),
        ("rabbitmq_queue_messages_ready_bytes", "Size in bytes of ready messages", of.ready_bytes),
        ("rabbitmq_queue_messages_unacked_bytes", "Size in bytes of all unacknowledged messages", of.unacked_bytes),
        (
            "rabbitmq_queue_messages_bytes",
            "Size in bytes of ready and unacknowledged messages",
            of.ready_bytes + of.unacked_bytes,
        ),
        ("rabbitmq_queue_messages_persistent", "Persistent messages", of.persistent),
        ("rabbitmq_queue_messages_persistent_bytes", "Size in bytes of persistent messages", of.persistent_bytes),
        ("rabbitmq_queue_messages_ready_ram", "Ready messages stored in memory", of.ready_in_memory),
        ("rabbitmq_queue_messages_unacked_ram", "Unacknowledged messages stored in memory", of.unacked_in_memory),
        (
            "rabbitmq_queue_messages_ram",
            "Ready and unacknowledged messages stored in memory",
            of.ready_in_memory + of.unacked_in_memory,
        ),
        ("rabbitmq_queue_messages_ram_bytes", "Size of messages stored in memory, in bytes", of.in_memory_bytes),
        ("rabbitmq_queue_process_memory_bytes", "Memory used by the queues, in bytes", of.memory_bytes),
    ];
    for (name, help, value) in gauges {
        c.gauge(name, help, value);
    }
    let counters = [
        ("rabbitmq_queues_declared_total", "Total number of queues declared", of.declared),
        ("rabbitmq_queues_created_total", "Total number of queues created", of.created),
        ("rabbitmq_queues_deleted_total", "Total number of queues deleted", of.deleted),
        (
            "rabbitmq_queue_messages_published_total",
            "Total number of messages published to queues",
            snapshot.publishing.routed,
        ),
        (
            "rabbitmq_queue_disk_reads_total",
            "Total number of times queue read messages from disk",
            snapshot.store.rows_read,
        ),
        (
            "rabbitmq_queue_disk_writes_total",
            "Total number of times queue wrote messages to disk",
            snapshot.store.rows_written,
        ),
    ];
    for (name, help, value) in counters {
        c.counter(name, help, NONE, value);
    }
}

fn store<'a>(c: &mut Collector<'a>, snapshot: &'a Snapshot) {
    let of = &snapshot.store;
    let counters = [
        ("prontomq_store_batches_total", "Transactions committed", of.batches),
        (
            "prontomq_store_redo_batches_total",
            "Of these, small ones flushed in the redo log first",
            of.files.redo_batches,
        ),
        ("prontomq_store_commit_failures_total", "Transactions that failed and were tried again", of.commit_failures),
        ("prontomq_store_read_failures_total", "Reads that failed", of.read_failures),
        ("prontomq_store_rows_written_total", "Messages written", of.rows_written),
        ("prontomq_store_rows_removed_total", "Messages removed that had been written", of.rows_removed),
        ("prontomq_store_rows_read_total", "Messages read back", of.rows_read),
        ("prontomq_store_bytes_written_total", "Body bytes written", of.bytes_written),
        (
            "prontomq_store_persistent_messages_total",
            "Copies of persistent messages put into durable queues",
            of.persistent,
        ),
        (
            "prontomq_store_persistent_messages_never_written_total",
            "Copies of persistent messages consumed before they were written",
            of.persistent_never_written,
        ),
    ];
    for (name, help, value) in counters {
        c.counter(name, help, NONE, value);
    }
    c.gauge("prontomq_store_backlog_messages", "Messages that wait to be written", of.backlog);
    c.gauge("prontomq_store_retrying", "A transaction keeps failing; nothing is confirmed", of.is_retrying.into());
    c.gauge("prontomq_store_failed", "The store has failed; nothing is confirmed any more", of.has_failed.into());
    c.gauge("prontomq_store_file_bytes", "Size of the store's file", of.files.bytes);
    c.gauge("prontomq_store_wal_bytes", "Size of its write-ahead log", of.files.log_bytes);
    c.gauge(
        "prontomq_store_wal_pinned",
        "Another process keeps the write-ahead log from being emptied; publishers are blocked",
        of.files.log_is_pinned.into(),
    );
    c.0.push(Series {
        name: "prontomq_store_durability_info",
        help: "What a confirm means: commit (flushed), interval (flushed soon), off (never flushed on purpose)",
        labels: of.durability,
        sample: Sample::Gauge(1.0),
    });
    c.histogram(
        "prontomq_store_commit_seconds",
        "Seconds from the beginning of a transaction to its flush",
        NONE,
        &of.commit_seconds,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;

    const INFO: [&str; 2] = ["rabbitmq_build_info", "rabbitmq_identity_info"];

    fn names() -> BTreeSet<String> {
        let mut names: BTreeSet<String> = INFO.map(str::to_owned).into();
        for series in all(&Snapshot::default()) {
            names.insert(series.name.to_owned());
            if matches!(series.sample, Sample::Histogram(_)) {
                names.extend(["_bucket", "_sum", "_count"].map(|part| format!("{}{part}", series.name)));
            }
        }
        names
    }

    #[test]
    fn our_dashboards_use_metrics_that_exist() {
        let names = names();
        // Labels of the identity metric begin like names of metrics.
        let labels = ["rabbitmq_node", "rabbitmq_cluster", "rabbitmq_version"];
        let mut used = 0;
        for file in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/grafana")).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
                let is_metric = word.starts_with("rabbitmq_") || word.starts_with("prontomq_");
                if is_metric && !labels.contains(&word) {
                    assert!(names.contains(word), "{} names {word}, which does not exist", path.display());
                    used += 1;
                }
            }
        }
        assert!(used > 50, "{used} names found: the dashboards are not where this test looks");
    }

    #[test]
    fn every_code_of_an_error_has_its_label() {
        for (labels, code) in CODES.into_iter().zip(ReplyCode::ERRORS) {
            assert_eq!(labels, [("code", code.number().to_string().as_str())]);
        }
    }

    #[test]
    fn counters_end_in_total_and_gauges_do_not() {
        for series in all(&Snapshot::default()) {
            let is_counter = matches!(series.sample, Sample::Counter(_));
            assert_eq!(series.name.ends_with("_total"), is_counter, "{}", series.name);
        }
    }
}
