//! Renders a snapshot as the text that Prometheus scrapes (exposition format 0.0.4).

use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use super::histogram::Histogram;
use super::series::{self, Sample, Series};
use super::snapshot::Snapshot;

/// The `Content-Type` of the text of [`Exposition::render`].
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

/// The node's identity, for the two info metrics with which dashboards join all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The name of the node.
    pub node_name: String,
    /// The name of the cluster.
    pub cluster_name: String,
    /// The permanent id of the cluster.
    pub cluster_id: String,
    /// The version of RabbitMQ that is announced to clients.
    pub rabbitmq_version: String,
}

/// Renders snapshots of one broker, always in the same order.
#[derive(Debug)]
pub(crate) struct Exposition {
    /// The info metrics, which never change.
    identity: String,
    /// The highest value of each counter so far, by its index among the series: a counter must never fall.
    highest: Mutex<Vec<u64>>,
}

impl Exposition {
    /// An exposition with this identity.
    pub(crate) fn new(identity: &Identity) -> Self {
        Self { identity: identity_text(identity), highest: Mutex::default() }
    }

    /// The text of a scrape of `snapshot`. Counters show their highest value so far.
    pub(crate) fn render(&self, snapshot: &Snapshot) -> String {
        let mut all = series::all(snapshot);
        self.keep_counters_from_falling(&mut all);
        let mut text = self.identity.clone();
        let mut is_rendered = vec![false; all.len()];
        for at in 0..all.len() {
            if is_rendered[at] {
                continue;
            }
            render_head(&mut text, all[at].name, all[at].help, type_name(all[at].sample));
            // All lines of one metric must be consecutive.
            for (series, is_rendered) in all[at..].iter().zip(&mut is_rendered[at..]) {
                if series.name == all[at].name {
                    *is_rendered = true;
                    render_sample(&mut text, series);
                }
            }
            text.push('\n');
        }
        text
    }

    /// Replaces each counter by its highest value so far. A counter that is the difference of two others could fall,
    /// since these are not read at the same moment.
    fn keep_counters_from_falling(&self, all: &mut [Series<'_>]) {
        let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
        highest.resize(all.len(), 0);
        for (series, highest) in all.iter_mut().zip(highest.iter_mut()) {
            if let Sample::Counter(value) = &mut series.sample {
                *highest = (*highest).max(*value);
                *value = *highest;
            }
        }
    }
}

fn identity_text(identity: &Identity) -> String {
    let own_version = env!("CARGO_PKG_VERSION");
    let mut text = String::new();
    info(
        &mut text,
        "rabbitmq_build_info",
        "Versions: the one that clients are told, and our own",
        &[
            ("rabbitmq_version", &identity.rabbitmq_version),
            ("prometheus_plugin_version", own_version),
            ("prometheus_client_version", own_version),
            ("erlang_version", "n/a"),
            ("product_name", "ProntoMQ"),
            ("product_version", own_version),
        ],
    );
    info(
        &mut text,
        "rabbitmq_identity_info",
        "Node and cluster",
        &[
            ("rabbitmq_node", &identity.node_name),
            ("rabbitmq_cluster", &identity.cluster_name),
            ("rabbitmq_cluster_permanent_id", &identity.cluster_id),
            ("rabbitmq_endpoint", "aggregated"),
        ],
    );
    text
}

fn info(text: &mut String, name: &str, help: &str, labels: &[(&str, &str)]) {
    render_head(text, name, help, "gauge");
    let _ = writeln!(text, "{name}{{{}}} 1\n", joined(labels));
}

fn type_name(sample: Sample<'_>) -> &'static str {
    match sample {
        Sample::Counter(_) => "counter",
        Sample::Gauge(_) => "gauge",
        Sample::Histogram(_) => "histogram",
    }
}

fn render_head(text: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn render_sample(text: &mut String, series: &Series<'_>) {
    let Series { name, labels, .. } = series;
    let braced = if labels.is_empty() { String::new() } else { format!("{{{}}}", joined(labels)) };
    let _ = match series.sample {
        Sample::Counter(value) => writeln!(text, "{name}{braced} {value}"),
        Sample::Gauge(value) => writeln!(text, "{name}{braced} {value}"),
        Sample::Histogram(histogram) => {
            render_histogram(text, series, histogram);
            Ok(())
        }
    };
}

fn render_histogram(text: &mut String, series: &Series<'_>, histogram: &Histogram) {
    let name = series.name;
    let labels = joined(series.labels);
    let separator = if labels.is_empty() { "" } else { "," };
    for (bound, count) in histogram.cumulative() {
        let _ = writeln!(text, "{name}_bucket{{{labels}{separator}le=\"{bound}\"}} {count}");
    }
    let count = histogram.count();
    let _ = writeln!(text, "{name}_bucket{{{labels}{separator}le=\"+Inf\"}} {count}");
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = writeln!(text, "{name}_sum{braced} {}\n{name}_count{braced} {count}", histogram.sum());
}

/// Labels, with their values escaped as the format requires.
fn joined(labels: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
    labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn exposition() -> Exposition {
        Exposition::new(&Identity {
            node_name: "node@here".to_owned(),
            cluster_name: "a \"quoted\" cluster".to_owned(),
            cluster_id: "id".to_owned(),
            rabbitmq_version: "3.13.7".to_owned(),
        })
    }

    fn lines<'t>(text: &'t str, name: &str) -> Vec<&'t str> {
        text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name)).collect()
    }

    #[test]
    fn the_info_metrics_appear_exactly_once_in_every_scrape() {
        let exposition = exposition();
        exposition.render(&Snapshot::default());
        let text = exposition.render(&Snapshot::default());
        assert_eq!(lines(&text, "rabbitmq_build_info").len(), 1);
        let identity = lines(&text, "rabbitmq_identity_info");
        assert_eq!(identity.len(), 1);
        assert!(identity[0].contains(r#"rabbitmq_cluster="a \"quoted\" cluster""#), "{identity:?}");
        assert!(identity[0].ends_with(" 1"), "{identity:?}");
    }

    #[test]
    fn every_series_exists_from_the_first_scrape_and_is_described_once() {
        let text = exposition().render(&Snapshot::default());
        let names: BTreeSet<&str> = series::all(&Snapshot::default()).iter().map(|series| series.name).collect();
        for name in names {
            let described = text.lines().filter(|line| line.starts_with(&format!("# TYPE {name} "))).count();
            assert_eq!(described, 1, "{name}");
            let helped = text.lines().filter(|line| line.starts_with(&format!("# HELP {name} "))).count();
            assert_eq!(helped, 1, "{name}");
        }
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
            let is_info = line.split(['{', ' ']).next().is_some_and(|name| name.ends_with("_info"));
            assert_eq!(value, if is_info { 1.0 } else { 0.0 }, "{line}");
        }
        assert_eq!(lines(&text, "rabbitmq_global_messages_delivered_total").len(), 3, "one per queue type");
    }

    #[test]
    fn no_series_appears_twice() {
        let text = exposition().render(&Snapshot::default());
        let mut seen = BTreeSet::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            assert!(seen.insert(line.rsplit_once(' ').unwrap().0), "{line}");
        }
    }

    #[test]
    fn lines_have_the_same_order_in_every_process_and_those_of_a_metric_are_consecutive() {
        let names = |text: &str| -> Vec<String> {
            let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
            samples.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
        };
        let first = exposition();
        let text = first.render(&Snapshot::default());
        for _ in 0..8 {
            // Each exposition has its own random state, like each process.
            assert_eq!(exposition().render(&Snapshot::default()), text);
        }
        let mut snapshot = Snapshot::default();
        snapshot.queues.ready = 9;
        assert_eq!(names(&first.render(&snapshot)), names(&text));
        let types: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
        let distinct: BTreeSet<&&str> = types.iter().collect();
        assert_eq!(types.len(), distinct.len(), "a metric stands in two pieces");
    }

    #[test]
    fn a_counter_never_falls() {
        let exposition = exposition();
        let mut snapshot = Snapshot::default();
        snapshot.connections.auth_succeeded = 5;
        exposition.render(&snapshot);
        snapshot.connections.auth_succeeded = 4;
        let text = exposition.render(&snapshot);
        let lines = lines(&text, "rabbitmq_auth_attempts_succeeded_total");
        assert!(lines.iter().all(|line| line.ends_with(" 5")) && !lines.is_empty(), "{lines:?}");
    }

    #[test]
    fn a_scrape_shows_the_latest_snapshot() {
        let exposition = exposition();
        let mut snapshot = Snapshot::default();
        snapshot.queues.ready = 7;
        snapshot.publishing.received = 3;
        exposition.render(&snapshot);
        snapshot.queues.ready = 2;
        snapshot.publishing.received = 5;
        snapshot.alarms.memory = true;
        let text = exposition.render(&snapshot);
        assert_eq!(lines(&text, "rabbitmq_queue_messages_ready"), ["rabbitmq_queue_messages_ready 2"]);
        assert_eq!(lines(&text, "rabbitmq_alarms_memory_used_watermark"), ["rabbitmq_alarms_memory_used_watermark 1"]);
        assert_eq!(
            lines(&text, "rabbitmq_global_messages_received_total"),
            ["rabbitmq_global_messages_received_total{protocol=\"amqp091\"} 5"]
        );
    }

    #[test]
    fn histograms_have_plain_bounds_a_sum_and_a_count() {
        let mut snapshot = Snapshot::default();
        snapshot.publishing.size_bytes.record(16.0);
        snapshot.publishing.size_bytes.record(2e6);
        snapshot.store.commit_seconds.record(0.0007);
        let text = exposition().render(&snapshot);
        for line in [
            "# TYPE rabbitmq_message_size_bytes histogram",
            "rabbitmq_message_size_bytes_bucket{protocol=\"amqp091\",le=\"100\"} 1",
            "rabbitmq_message_size_bytes_bucket{protocol=\"amqp091\",le=\"1000000\"} 1",
            "rabbitmq_message_size_bytes_bucket{protocol=\"amqp091\",le=\"10000000\"} 2",
            "rabbitmq_message_size_bytes_bucket{protocol=\"amqp091\",le=\"+Inf\"} 2",
            "rabbitmq_message_size_bytes_sum{protocol=\"amqp091\"} 2000016",
            "rabbitmq_message_size_bytes_count{protocol=\"amqp091\"} 2",
            "prontomq_store_commit_seconds_bucket{le=\"0.0005\"} 0",
            "prontomq_store_commit_seconds_bucket{le=\"0.001\"} 1",
            "prontomq_store_commit_seconds_count 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing");
        }
    }
}
