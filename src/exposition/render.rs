//! From a snapshot to the text that Prometheus scrapes (exposition format 0.0.4).

use std::fmt::Write as _;

use metrics::{Key, KeyName, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::histogram::Histogram;
use super::series::{self, Labels, Sample, Series};
use super::snapshot::Snapshot;

/// The `Content-Type` of what [`Exposition::render`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4";

const METADATA: Metadata<'_> = Metadata::new("prontomq", Level::INFO, None);

/// Who we are; the two info metrics that dashboards join everything with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// This node's name.
    pub node_name: String,
    /// The cluster's name.
    pub cluster_name: String,
    /// Identifies the cluster for life.
    pub cluster_id: String,
    /// The version of RabbitMQ that clients are told.
    pub rabbitmq_version: String,
}

/// Renders snapshots of one broker.
pub struct Exposition {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

impl Exposition {
    /// Registers who we are and describes every series.
    pub fn new(identity: &Identity) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let exposition = Self { recorder, handle };
        exposition.identify(identity);
        for series in series::all(&Snapshot::default()) {
            exposition.describe(&series);
        }
        exposition
    }

    /// The text of a scrape that finds the broker as in `snapshot`. Counters show the highest value they had.
    pub fn render(&self, snapshot: &Snapshot) -> String {
        let all = series::all(snapshot);
        for series in &all {
            match series.sample {
                Sample::Counter(value) => self.recorder.register_counter(&key(series), &METADATA).absolute(value),
                Sample::Gauge(value) => self.recorder.register_gauge(&key(series), &METADATA).set(value),
                Sample::Histogram(_) => {}
            }
        }
        let mut text = self.handle.render();
        for series in &all {
            if let Sample::Histogram(histogram) = series.sample {
                render_histogram(&mut text, series, histogram);
            }
        }
        text
    }

    fn describe(&self, series: &Series<'_>) {
        let name = KeyName::from_const_str(series.name);
        match series.sample {
            Sample::Counter(_) => self.recorder.describe_counter(name, None, series.help.into()),
            Sample::Gauge(_) => self.recorder.describe_gauge(name, None, series.help.into()),
            Sample::Histogram(_) => {}
        }
    }

    fn identify(&self, identity: &Identity) {
        let own_version = env!("CARGO_PKG_VERSION");
        self.info(
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
        self.info(
            "rabbitmq_identity_info",
            "Node and cluster",
            &[
                ("rabbitmq_node", &identity.node_name),
                ("rabbitmq_cluster", &identity.cluster_name),
                ("rabbitmq_cluster_permanent_id", &identity.cluster_id),
                ("rabbitmq_endpoint", "aggregated"),
            ],
        );
    }

    fn info(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) {
        let labels: Vec<Label> = labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
        self.recorder.describe_gauge(KeyName::from_const_str(name), None, help.into());
        self.recorder.register_gauge(&Key::from_parts(name, labels), &METADATA).set(1.0);
    }
}

fn key(series: &Series<'_>) -> Key {
    let labels: Vec<Label> = series.labels.iter().map(|(name, value)| Label::from_static_parts(name, value)).collect();
    Key::from_parts(series.name, labels)
}

/// By hand: the recorder takes single values, and we have counts.
fn render_histogram(text: &mut String, series: &Series<'_>, histogram: &Histogram) {
    let name = series.name;
    let _ = writeln!(text, "# HELP {name} {}\n# TYPE {name} histogram", series.help);
    let labels = joined(series.labels);
    let separator = if labels.is_empty() { "" } else { "," };
    for (bound, count) in histogram.cumulative() {
        let _ = writeln!(text, "{name}_bucket{{{labels}{separator}le=\"{bound}\"}} {count}");
    }
    let count = histogram.count();
    let _ = writeln!(text, "{name}_bucket{{{labels}{separator}le=\"+Inf\"}} {count}");
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = writeln!(text, "{name}_sum{braced} {}\n{name}_count{braced} {count}\n", histogram.sum());
}

fn joined(labels: Labels) -> String {
    labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect::<Vec<_>>().join(",")
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
    fn the_info_metrics_appear_exactly_once_however_often_one_scrapes() {
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
    fn every_series_is_there_from_the_first_scrape_described_once() {
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
