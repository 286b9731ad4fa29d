//! `prontomq bench` against a running broker: what it says of loads whose outcome is known.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the message")]

#[allow(dead_code, unused_imports, reason = "each test takes from the support what it needs")]
mod support;

use serde_json::Value;
use support::Broker;
use support::broker::{program, run_to_end};

/// A broker, its directory, and what benches on it say.
struct Bench(tempfile::TempDir, Broker);

impl Bench {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let broker = Broker::start(&place.path().join("data"));
        Self(place, broker)
    }

    fn url(&self) -> String {
        format!("amqp://guest:guest@{}", self.1.amqp)
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let url = self.url();
        let pid = self.1.pid().to_string();
        let output =
            run_to_end(program().args(["bench", "--json", "--url", &url, "--broker-pid", &pid]).args(arguments));
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

fn number(outcome: &Value, name: &str) -> f64 {
    outcome[name].as_f64().unwrap_or_else(|| panic!("{name} in {outcome}"))
}

#[test]
fn a_rated_load_keeps_its_rate_and_is_written_second_by_second() {
    let bench = Bench::new();
    let path = |name: &str| bench.0.path().join(name).to_str().unwrap().to_owned();
    let (probe, series, plot) = (path("probe"), path("series.csv"), path("plot.svg"));
    let outcome = bench.json(&[
        "--scenario",
        "churn",
        "--standing",
        "500",
        "--rate",
        "2000",
        "--duration",
        "3s",
        "--warm-up",
        "500ms",
        "--probe",
        &probe,
        "--series",
        &series,
        "--plot",
        &plot,
    ]);
    let rate = number(&outcome, "rate");
    assert!((500.0..2_500.0).contains(&rate), "{outcome}");
    assert_eq!(number(&outcome, "faults"), 0.0, "{outcome}");
    for name in ["confirm_latency", "delivery_latency", "probe_latency"] {
        let at = |quantile: &str| number(&outcome, &format!("{name}_{quantile}_us"));
        assert!(0.0 < at("p50") && at("p50") <= at("p99") && at("p99") <= at("max"), "{outcome}");
    }
    // 500 messages ahead of it, at 2,000 a second: a quarter of a second.
    assert!(number(&outcome, "delivery_latency_p50_us") >= 150_000.0, "{outcome}");
    assert!(number(&outcome, "broker_resident_bytes") > 1e6, "{outcome}");
    assert!(number(&outcome, "client_cpu_seconds") > 0.0, "{outcome}");
    let lines = std::fs::read_to_string(series).unwrap();
    assert!((3..=5).contains(&lines.lines().count()), "a head and a line for each second: {lines}");
    assert!(std::fs::read_to_string(plot).unwrap().contains("disk probe max"));
    assert!(std::fs::metadata(probe).unwrap().len() > 2_000_000, "1 KiB each");
}

#[test]
fn what_is_counted_is_what_was_published() {
    let bench = Bench::new();
    for (arguments, messages) in [
        (
            &["--scenario", "B", "--count", "5000", "--publishers", "2", "--consumers", "2", "--ack-every", "7"][..],
            5_000.0,
        ),
        (&["--scenario", "D2", "--standing", "3000", "--queues", "50"], 3_000.0),
        (&["--scenario", "backlog", "--count", "2000"], 2_000.0),
        (&["--scenario", "fanout", "--queues", "10", "--count", "300"], 3_000.0),
        (&["--scenario", "topic", "--count", "1000"], 1_000.0),
        (&["--scenario", "large", "--count", "12"], 12.0),
        // Few enough to be there before all publishers and consumers are.
        (&["--publishers", "8", "--consumers", "8", "--prefetch", "100", "--count", "400"], 400.0),
    ] {
        let outcome = bench.json(arguments);
        assert!(
            number(&outcome, "messages") >= messages && number(&outcome, "messages") < messages * 1.01 + 1.0,
            "{outcome}"
        );
        assert_eq!(number(&outcome, "faults"), 0.0, "{outcome}");
    }
}

#[test]
fn what_another_consumer_still_holds_when_the_time_is_over_is_not_lost() {
    let bench = Bench::new();
    let (a, b) = (&["--consumers", "4", "--prefetch", "50"][..], &["--scenario", "B", "--consumers", "4"][..]);
    for load in [a, b, a, b] {
        let outcome = bench.json(&[load, &["--duration", "300ms"]].concat());
        assert!(number(&outcome, "messages") > 100.0 && number(&outcome, "faults") == 0.0, "{outcome}");
    }
}

#[test]
fn two_brokers_get_the_same_load_in_turn_and_are_compared() {
    let (bench, other) = (Bench::new(), Bench::new());
    let (url, pid) = (other.url(), other.1.pid().to_string());
    let compared = ["--compare", &url, "--compare-pid", &pid, "--scenario", "B", "--count", "300", "--rounds", "3"];
    let outcome = bench.json(&compared);
    assert_eq!(number(&outcome, "rounds"), 3.0);
    let [first, second] = [0, 1].map(|side| outcome["brokers"][side].clone());
    for (side, broker) in [(&first, &bench), (&second, &other)] {
        assert_eq!(side["broker"], broker.1.amqp.to_string());
        let outcomes = side["outcomes"].as_array().unwrap();
        assert!(outcomes.len() == 3 && outcomes.iter().all(|run| number(run, "messages") == 300.0), "{outcome}");
        assert_eq!(broker.1.metric("rabbitmq_global_messages_received_total"), 900.0, "both had every round");
    }
    let figures =
        ["rate", "messages_per_broker_cpu_second", "latency_p50_us", "latency_p99_us", "broker_resident_bytes"];
    for figure in figures {
        let median = |side: &Value| {
            let mut values: Vec<f64> =
                side["outcomes"].as_array().unwrap().iter().map(|run| number(run, figure)).collect();
            values.sort_by(f64::total_cmp);
            values[1]
        };
        let ratio = number(&outcome["ratios"], figure);
        assert!((ratio - median(&first) / median(&second)).abs() < 1e-9, "{figure}: {outcome}");
    }
    let output = run_to_end(program().args(["bench", "--url", &bench.url(), "--rounds", "1"]).args(&compared[..8]));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("latency p99, us") && said.contains("ratio"), "{said}");
}

#[test]
fn a_broker_that_is_not_there_and_options_that_make_no_sense_are_said() {
    for (arguments, why) in [
        (&["--url", "amqp://guest:guest@127.0.0.1:1"][..], "refused"),
        (&["--scenario", "D", "--standing", "0"], "something to drain"),
        (&["--scenario", "A", "--ack-every", "5"], "--ack-every needs --prefetch"),
        (&["--rounds", "3"], "--compare <URL>"),
        (&["--compare-pid", "1"], "--compare <URL>"),
        (&["--compare", "amqp://127.0.0.1:1", "--series", "x.csv"], "cannot be used with"),
    ] {
        let output = run_to_end(program().arg("bench").args(arguments));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{said:?} lacks {why:?}");
    }
}
