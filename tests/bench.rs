//! `prontomq bench` against a running broker: what it says of loads whose outcome is known.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the message")]

#[allow(dead_code, unused_imports, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::internals::wire::properties::{PropertiesWriter, Property};
use prontomq::internals::wire::table::Value as Field;
use serde_json::Value;
use std::process::{Child, Stdio};
use std::time::Instant;
use support::broker::{program, run_to_end};
use support::client::{Delivery, Flag};
use support::{Broker, Client, PATIENCE};

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

    /// A run that goes on while the test does something about it.
    fn begin(&self, arguments: &[&str]) -> Run {
        let mut command = program();
        command.args(["bench", "--json", "--url", &self.url()]).args(arguments);
        Run(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
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

struct Run(Child);

impl Run {
    /// The name of what the run has on the broker.
    fn name(&self, rest: &str) -> String {
        format!("bench-{}-1-{rest}", self.0.id())
    }

    /// A client, once so many messages are ready in the run's first queue.
    fn wait_for_ready(&self, bench: &Bench, ready: u32) -> Client {
        self.wait_for("0", bench, ready)
    }

    /// A client, once so many messages are ready in a queue of the run.
    fn wait_for(&self, queue: &str, bench: &Bench, ready: u32) -> Client {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < PATIENCE, "never {ready} ready");
            let mut client = Client::connect(bench.1.amqp);
            if client
                .try_queue(&self.name(queue), &[Flag::Passive], &[])
                .is_ok_and(|queue| queue.message_count >= ready)
            {
                return client;
            }
        }
    }

    /// What it says in the end, and whether it was content.
    fn end(self) -> (Value, bool) {
        let output = self.0.wait_with_output().unwrap();
        let said = serde_json::from_slice(&output.stdout);
        (said.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr))), output.status.success())
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
        (&["--scenario", "B", "--count", "2000", "--channels", "3", "--queues", "2", "--consumers", "2"], 2_000.0),
        (&["--scenario", "priorities", "--count", "2000", "--queues", "3", "--publishers", "2"], 2_000.0),
        (&["--scenario", "connections", "--count", "60", "--publishers", "3", "--channels", "2"], 60.0),
        (&["--scenario", "rpc", "--count", "300", "--publishers", "3", "--consumers", "2", "--queues", "2"], 300.0),
        (&["--scenario", "rpc", "--count", "40", "--size", "16..400000", "--channels", "2"], 40.0),
        (&["--scenario", "rpc", "--count", "50", "--prefetch", "7", "--ack-every", "3", "--exchange", "topic"], 50.0),
        (&["--scenario", "relay", "--count", "2000"], 2_000.0),
        (
            &["--scenario", "relay", "--count", "500", "--confirms", "0", "--size", "16..200000", "--channels", "2"],
            500.0,
        ),
        (&["--scenario", "relay", "--count", "900", "--queues", "3", "--consumers", "2", "--publishers", "2"], 900.0),
        (&["--scenario", "relay", "--count", "900", "--consumers", "3", "--ack-every", "7", "--channels", "2"], 900.0),
        (
            &["--scenario", "relay", "--count", "100", "--exchange", "fanout", "--queues", "2", "--priorities", "4"],
            200.0,
        ),
        (&["--scenario", "relay", "--count", "200", "--one-write-each", "--persistent", "false"], 200.0),
        (&["--exchange", "direct", "--bindings", "7", "--queues", "3", "--count", "700"], 700.0),
        (&["--exchange", "headers", "--bindings", "7", "--queues", "3", "--count", "700"], 700.0),
        (&["--exchange", "topic", "--bindings", "7", "--queues", "3", "--count", "700"], 700.0),
        (&["--exchange", "fanout", "--bindings", "7", "--queues", "3", "--count", "700"], 2_100.0),
        (
            &["--scenario", "D", "--standing", "500", "--exchange", "fanout", "--queues", "2", "--channels", "2"],
            1_000.0,
        ),
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
        let outcome = bench.json(&[load, &["--duration", "1s"]].concat());
        assert!(number(&outcome, "messages") > 100.0 && number(&outcome, "faults") == 0.0, "{outcome}");
    }
}

#[test]
fn round_trips_are_timed_from_end_to_end() {
    let bench = Bench::new();
    for (scenario, rate) in [("connections", "50"), ("rpc", "200")] {
        let series = bench.0.path().join("series.csv");
        let arguments = ["--scenario", scenario, "--rate", rate, "--duration", "1s", "--warm-up", "100ms", "--series"];
        let outcome = bench.json(&[&arguments[..], &[series.to_str().unwrap()]].concat());
        let (half, longest) =
            (number(&outcome, "round_trip_latency_p50_us"), number(&outcome, "round_trip_latency_max_us"));
        assert!(0.0 < half && half <= longest && longest < 30e6, "{outcome}");
        assert_eq!(number(&outcome, "latency_p50_us"), half, "{outcome}");
        assert!(number(&outcome, "delivery_latency_p50_us") <= longest, "a part of the way: {outcome}");
        assert!(number(&outcome, "rate") < 1.5 * rate.parse::<f64>().unwrap(), "{outcome}");
        let series = std::fs::read_to_string(series).unwrap();
        let cells: Vec<_> = series.lines().nth(1).unwrap().split(',').collect();
        assert!(cells[9].parse::<f64>().unwrap() > 0.0, "round_trip_p50_us in {series}");
    }
}

#[test]
fn connections_and_channels_are_as_many_as_said() {
    let bench = Bench::new();
    let run = bench.begin(&["--connections", "5", "--channels", "3", "--rate", "100", "--duration", "2s"]);
    // A publisher, a consumer, and one connection with one channel that declares.
    bench.1.wait_for_metric("rabbitmq_connection_channels", |channels| channels == 7.0 * 3.0 + 1.0);
    bench.1.wait_for_metric("rabbitmq_connections", |connections| connections == 8.0);
    bench.1.wait_for_metric("rabbitmq_global_consumers", |consumers| consumers == 3.0);
    let (outcome, is_content) = run.end();
    assert!(is_content, "{outcome}");
}

/// What a run has published, in the order in which the broker hands it out, with the count that is taken.
fn published(bench: &Bench, count: u32, arguments: &[&str]) -> Vec<Delivery> {
    let standing = count.to_string();
    let flow = ["--rate", "1", "--duration", "1s", "--warm-up", "0s", "--consumers", "0", "--standing", &standing];
    let run = bench.begin(&[&flow, arguments].concat());
    let mut client = run.wait_for_ready(bench, count);
    let deliveries = (0..count).map(|_| client.get(&run.name("0")).unwrap()).collect();
    client.close();
    run.end();
    deliveries
}

#[test]
fn messages_are_as_the_options_say() {
    let bench = Bench::new();
    let sizes = |deliveries: &[Delivery]| deliveries.iter().map(|got| got.body.len()).collect::<Vec<_>>();
    let [first, second] = [(); 2].map(|()| sizes(&published(&bench, 300, &["--size", "16..64"])));
    assert_eq!(first, second, "reproducible");
    assert!(first.iter().all(|size| (16..=64).contains(size)) && [16, 64].iter().all(|size| first.contains(size)));

    let deliveries = published(&bench, 30, &["--priorities", "3", "--channels", "2"]);
    let priorities: Vec<_> = deliveries.iter().map(|got| got.properties().priority().unwrap()).collect();
    assert_eq!(priorities, [[2; 10], [1; 10], [0; 10]].concat(), "the queue knows them");

    for (kind, second_key) in [("direct", "bench.1.key"), ("topic", "bench.1.key"), ("headers", "bench.1.key")] {
        let deliveries = published(&bench, 4, &["--exchange", kind, "--bindings", "2", "--persistent", "true"]);
        assert_eq!(deliveries[1].routing_key, second_key);
        let header = deliveries[1].properties().headers().and_then(|headers| headers.get(b"bench"));
        assert_eq!(header, (kind == "headers").then_some(Field::LongString(b"1")), "{kind}");
        assert!(deliveries[1].properties().is_persistent(), "{kind}");
    }
}

/// Publishes so many copies of a message to a run's first queue.
fn put_back(run: &Run, mut client: Client, message: &Delivery, copies: usize) {
    let properties = message.properties();
    let properties = PropertiesWriter::from(&properties);
    (0..copies).for_each(|_| client.publish("", &run.name("0"), &properties, &message.body));
    client.flush().unwrap();
    client.close();
}

/// Takes a message out of a run's queue, and puts so many copies of it back.
fn replace(run: &Run, bench: &Bench, copies: usize) {
    let mut client = run.wait_for_ready(bench, 40);
    let taken = client.get(&run.name("0")).unwrap();
    client.ack(taken.delivery_tag, false);
    put_back(run, client, &taken, copies);
}

#[test]
fn a_message_that_is_lost_or_comes_twice_is_found() {
    let bench = Bench::new();
    // Few, so that a copy behind them comes long before the end; and one load at a time, on a machine with little to spare.
    let standing = ["--standing", "60", "--prefetch", "10", "--rate", "500", "--duration", "5s"];
    let loads: [&[&str]; 4] = [
        &["--scenario", "churn"],
        &["--scenario", "priorities", "--queues", "1"],
        &["--scenario", "connections", "--publishers", "2", "--rate", "200"],
        &["--scenario", "B", "--channels", "3", "--exchange", "headers", "--size", "16..100"],
    ];
    let cases = loads.map(|load| [(load, 0, [1.0, 0.0]), (load, 2, [0.0, 1.0]), (load, 1, [0.0, 0.0])]);
    for cases in cases {
        std::thread::scope(|scope| {
            for (load, copies, [gaps, duplicates]) in cases {
                let bench = &bench;
                scope.spawn(move || {
                    let rest = if load.contains(&"--rate") {
                        &[&standing[..4], &standing[6..]].concat()[..]
                    } else {
                        &standing
                    };
                    let run = bench.begin(&[load, rest].concat());
                    replace(&run, bench, copies);
                    let (outcome, is_content) = run.end();
                    assert_eq!(number(&outcome, "gaps"), gaps, "{load:?}, {copies} copies: {outcome}");
                    assert_eq!(number(&outcome, "duplicates"), duplicates, "{load:?}, {copies} copies: {outcome}");
                    assert_eq!(is_content, gaps + duplicates == 0.0, "the exit code says it");
                });
            }
        });
    }
}

/// Takes a message where a worker of the run takes, and puts so many copies of it back.
fn divert(run: &Run, bench: &Bench, copies: usize) {
    let mut client = run.wait_for_ready(bench, 0);
    client.qos(1);
    client.consume(&run.name("0"), "thief");
    let taken = client.delivery();
    client.ack(taken.delivery_tag, false);
    put_back(run, client, &taken, copies);
}

#[test]
fn what_is_lost_or_comes_twice_before_a_worker_is_found_behind_it() {
    let bench = Bench::new();
    let arguments = ["--scenario", "relay", "--rate", "500", "--duration", "4s", "--prefetch", "10", "--confirms"];
    let expected = [(0, [1.0, 0.0]), (1, [0.0, 0.0]), (2, [0.0, 1.0])];
    std::thread::scope(|scope| {
        for (confirms, (copies, [gaps, duplicates])) in ["1000", "0"].map(|it| expected.map(|two| (it, two))).concat() {
            let (bench, arguments) = (&bench, [&arguments[..], &[confirms]].concat());
            scope.spawn(move || {
                let run = bench.begin(&arguments);
                divert(&run, bench, copies);
                let (outcome, is_content) = run.end();
                assert_eq!(number(&outcome, "gaps"), gaps, "{confirms} confirms, {copies} copies: {outcome}");
                assert_eq!(number(&outcome, "duplicates"), duplicates, "{confirms} confirms, {copies}: {outcome}");
                assert_eq!(is_content, gaps + duplicates == 0.0, "the exit code shows it");
            });
        }
    });
}

#[test]
fn a_worker_copies_messages_as_they_are_and_its_queues_go_with_the_run() {
    let bench = Bench::new();
    let run = bench.begin(&["--scenario", "relay", "--rate", "200", "--duration", "3s"]);
    run.wait_for_ready(&bench, 0).close();
    let mut client = run.wait_for("out-0", &bench, 0);
    client.qos(1);
    client.consume(&run.name("out-0"), "witness");
    let seen = client.delivery();
    assert!(seen.properties().is_persistent() && seen.body.len() == 1024, "{seen:?}");
    client.close();
    let (outcome, is_content) = run.end();
    assert!(is_content, "{outcome}");
    bench.1.wait_for_metric("rabbitmq_queues", |queues| queues == 0.0);
}

#[test]
fn a_request_without_an_answer_and_an_answer_that_comes_twice_are_found() {
    let bench = Bench::new();
    let arguments = ["--scenario", "rpc", "--rate", "200", "--duration", "2s"];
    let (robbed, forged) = (bench.begin(&arguments), bench.begin(&arguments));

    let mut forger = forged.wait_for_ready(&bench, 0);
    let id = PropertiesWriter::new().shortstr(Property::CorrelationId, b"0000000000000000");
    bench.1.wait_for_metric("rabbitmq_global_messages_received_total", |count| count > 100.0);
    forger.publish("", &forged.name("reply-0"), &id, b"not the bench's");
    forger.flush().unwrap();
    forger.close();

    let mut thief = robbed.wait_for_ready(&bench, 0);
    thief.consume_no_ack(&robbed.name("0"), "thief");
    thief.delivery();
    thief.close();

    let (outcome, is_content) = forged.end();
    assert!(!is_content && number(&outcome, "gaps") == 0.0 && number(&outcome, "duplicates") == 1.0, "{outcome}");
    let (outcome, is_content) = robbed.end();
    assert!(!is_content && number(&outcome, "gaps") == 1.0 && number(&outcome, "duplicates") == 0.0, "{outcome}");
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
fn a_broker_that_is_compared_with_itself_has_no_message_of_another_round() {
    let bench = Bench::new();
    let url = bench.url();
    for scenario in ["A", "relay"] {
        let outcome = bench.json(&["--scenario", scenario, "--duration", "500ms", "--rounds", "3", "--compare", &url]);
        for run in [0, 1].iter().flat_map(|side| outcome["brokers"][side]["outcomes"].as_array().unwrap()) {
            assert!(number(run, "messages") > 0.0 && number(run, "faults") == 0.0, "{outcome}");
        }
        bench.1.wait_for_metric("rabbitmq_queues", |queues| queues == 0.0);
        bench.1.wait_for_metric("rabbitmq_connections", |connections| connections == 0.0);
    }
}

#[test]
fn a_number_of_messages_is_measured_until_their_confirms_have_come() {
    let bench = Bench::new();
    for standing in ["0", "50"] {
        let outcome = bench.json(&["--scenario", "B", "--count", "300", "--standing", standing]);
        assert!(number(&outcome, "messages") >= 300.0 && number(&outcome, "faults") == 0.0, "{outcome}");
        assert!(number(&outcome, "confirm_latency_p50_us") > 0.0, "{outcome}");
    }
}

#[test]
fn a_load_as_fast_as_it_goes_has_its_latency_explained() {
    let bench = Bench::new();
    let said = |arguments: &[&str]| {
        let output =
            run_to_end(program().args(["bench", "--url", &bench.url(), "--duration", "300ms"]).args(arguments));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said(&["--scenario", "A"]).contains("use --rate"));
    assert!(!said(&["--scenario", "A", "--rate", "500"]).contains("time in the queue"));
    assert!(!said(&["--scenario", "B"]).contains("time in the queue"));
    let drained = said(&["--scenario", "D", "--standing", "500"]);
    assert!(drained.contains("time in the queue") && !drained.contains("--rate"), "{drained}");
}

#[test]
fn a_set_runs_its_loads_one_after_another() {
    let bench = Bench::new();
    let (url, pid) = (bench.url(), bench.1.pid().to_string());
    let mut command = program();
    command.args(["bench", "--json", "--set", "one-write-each", "--duration", "300ms", "--url", &url]);
    let output = run_to_end(command.args(["--broker-pid", &pid]));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let outcomes: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = outcomes.iter().map(|outcome| outcome["scenario"].as_str().unwrap()).collect();
    assert_eq!(names, ["A", "B", "10x10x10", "F"]);
    for outcome in &outcomes {
        assert!(number(outcome, "messages") > 0.0 && number(outcome, "foreign_cpu_seconds") >= 0.0, "{outcome}");
        assert_eq!(number(outcome, "faults"), 0.0, "{outcome}");
    }
}

#[test]
fn a_broker_that_is_not_there_and_options_that_make_no_sense_are_said() {
    for (arguments, why) in [
        (&["--url", "amqp://guest:guest@127.0.0.1:1"][..], "refused"),
        (&["--scenario", "D", "--standing", "0"], "something to drain"),
        (&["--scenario", "A", "--ack-every", "5"], "--ack-every needs --prefetch"),
        (&["--scenario", "D", "--rate", "5"], "--rate: a drain"),
        (&["--scenario", "C", "--prefetch", "5"], "--prefetch needs --consumers"),
        (&["--scenario", "rpc", "--consumers", "0"], "rpc needs a consumer"),
        (&["--scenario", "rpc", "--confirms", "5"], "--confirms: a requester"),
        (&["--scenario", "rpc", "--exchange", "fanout", "--queues", "2"], "several answers"),
        (&["--scenario", "connections", "--one-write-each"], "one message at a time"),
        (&["--scenario", "relay", "--consumers", "0"], "relay needs consumers"),
        (&["--scenario", "relay", "--prefetch", "0"], "--prefetch: the workers of relay"),
        (&["--scenario", "relay", "--standing", "5"], "--standing: the workers of relay"),
        (&["--patience", "0s"], "more than 0"),
        (&["--duration", "0"], "more than 0"),
        (&["--broker-pid", "4194999"], "--broker-pid: there is no process 4194999"),
        (
            &["--compare", "amqp://127.0.0.1:1", "--compare-pid", "4194999"],
            "--compare-pid: there is no process 4194999",
        ),
        (&["--bindings", "5"], "--bindings needs --exchange"),
        (&["--exchange", "topic", "--bindings", "5", "--queues", "6"], "--bindings is less than --queues"),
        (&["--size", "20..16"], "the lesser first"),
        (&["--set", "one-write-each", "--scenario", "A"], "cannot be used with"),
        (&["--set", "one-write-each", "--plot", "x.svg"], "cannot be used with"),
        (&["--rounds", "3"], "--compare <URL>"),
        (&["--compare-pid", "1"], "--compare <URL>"),
        (&["--compare", "amqp://127.0.0.1:1", "--series", "x.csv"], "cannot be used with"),
    ] {
        let output = run_to_end(program().arg("bench").args(arguments));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{said:?} lacks {why:?}");
    }
}
