//! Every example, run as a user runs it: against a broker of its own, to its end, and judged by what it prints.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const EXAMPLE_PATIENCE: Duration = Duration::from_secs(30);

/// `prontomq serve` on a free port, with a folder of its own; stopped in good order at the end.
struct Broker {
    process: Child,
    url: String,
    _folder: TempDir,
}

impl Broker {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_prontomq"));
        command.args(["serve", "--amqp", "127.0.0.1:0", "--metrics", "off"]).arg("--data-dir").arg(folder.path());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PRONTOMQ_")) {
            command.env_remove(name);
        }
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut said = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
        let url = said.find_map(|line| Some(line.trim().strip_prefix("AMQP 0-9-1 on ")?.to_owned()));
        let url = url.expect("the broker says where to connect");
        Self { process, url, _folder: folder }
    }

    /// Runs an example, which must succeed; returns the lines that it printed.
    fn run(&self, example: &str) -> Vec<String> {
        let mut command = Command::new(binary(example));
        command.arg(&self.url).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let deadline = Instant::now() + EXAMPLE_PATIENCE;
        while process.try_wait().unwrap().is_none() {
            if Instant::now() > deadline {
                process.kill().unwrap();
                let output = process.wait_with_output().unwrap();
                panic!("{example} did not end: {output:?}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let output = process.wait_with_output().unwrap();
        assert!(output.status.success(), "{example}: {output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }

    fn stop(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success(), "the broker stops in good order");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Only after a failed test is it still there.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Where `cargo test` has put an example. With `--test examples` it builds none: then an old one would be judged.
fn binary(example: &str) -> PathBuf {
    let binary = Path::new(env!("CARGO_BIN_EXE_prontomq")).with_file_name("examples").join(example);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(example).with_extension("rs");
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified()).ok();
    let is_fresh = changed(&binary).is_some_and(|built| changed(&source).unwrap() <= built);
    assert!(is_fresh, "{example} is not built, or older than its source: `cargo build --examples` first");
    binary
}

/// Runs one example on a fresh broker.
fn run(example: &str) -> Vec<String> {
    let broker = Broker::start();
    let lines = broker.run(example);
    broker.stop();
    lines
}

#[test]
fn hello_receives_what_it_sent() {
    assert_eq!(run("hello"), ["sent      Hello, world!", "received  Hello, world!"]);
}

#[test]
fn work_queue_does_every_job_once_and_the_urgent_ones_first() {
    let lines = run("work_queue");
    assert_eq!(lines[0], "8 jobs are safe with the broker");
    let done: Vec<(&str, u8, &str)> = lines[1..9]
        .iter()
        .map(|line| {
            let mut parts = line.split("  ");
            let worker = parts.next().unwrap();
            let priority = parts.next().unwrap().strip_prefix("priority ").unwrap().parse().unwrap();
            (worker, priority, parts.next().unwrap())
        })
        .collect();
    let mut jobs: Vec<&str> = done.iter().map(|(_, _, job)| *job).collect();
    jobs.sort_unstable();
    jobs.dedup();
    assert_eq!(jobs.len(), 8, "{lines:#?}");
    for worker in ["Ada", "Bob"] {
        // Each worker has one job at a time, so its own jobs come strictly by priority.
        let own: Vec<u8> = done.iter().filter(|(who, ..)| *who == worker).map(|(_, priority, _)| *priority).collect();
        assert!(!own.is_empty() && own.is_sorted_by(|a, b| a >= b), "{lines:#?}");
    }
    assert!(lines[9].starts_with("Ada did ") && lines[9].ends_with(", 0 are left"), "{lines:#?}");
    assert_eq!(lines.len(), 10, "{lines:#?}");
}

#[test]
fn publish_subscribe_gives_each_subscriber_a_copy() {
    let news = ["It has stopped raining", "The bakery is open", "The ferry is late"];
    let expected: Vec<String> = ["published ", "kitchen   ", "office    "]
        .iter()
        .flat_map(|who| news.map(|text| format!("{who} {text}")))
        .collect();
    assert_eq!(run("publish_subscribe"), expected);
}

#[test]
fn routing_sends_each_line_to_the_queues_that_asked_for_it() {
    let expected = [
        "pager    error: disk is full",
        "archive  info: started",
        "archive  warning: disk is nearly full",
        "archive  error: disk is full",
        "archive  info: cleaned up",
    ];
    assert_eq!(run("routing"), expected);
}

#[test]
fn topics_match_their_patterns() {
    let expected = [
        "europe.#",
        "    europe.berlin.rain: 2 mm",
        "    europe.rome.sun: 31 degrees",
        "    europe: mostly dry",
        "*.*.rain",
        "    europe.berlin.rain: 2 mm",
        "    asia.osaka.rain: 14 mm",
        "europe.berlin.rain",
        "    europe.berlin.rain: 2 mm",
        "#",
        "    europe.berlin.rain: 2 mm",
        "    europe.rome.sun: 31 degrees",
        "    asia.osaka.rain: 14 mm",
        "    europe: mostly dry",
    ];
    assert_eq!(run("topics"), expected);
}

#[test]
fn rpc_answers_every_question() {
    let expected = ["fibonacci(7) = 13", "fibonacci(12) = 144", "fibonacci(90) = 2880067194370816120"];
    assert_eq!(run("rpc"), expected);
}

#[test]
fn replaced_worker_hands_the_work_of_the_dead_to_the_living() {
    let expected = [
        "  Ada takes on soup",
        "  Ada takes on bread",
        "  Ada takes on cheese",
        "Grace serves salad",
        "Grace serves coffee",
        "      Ada is killed",
        "Grace serves soup, which somebody had before",
        "Grace serves bread, which somebody had before",
        "Grace serves cheese, which somebody had before",
        "0 orders are left",
    ];
    assert_eq!(run("replaced_worker"), expected);
}

#[test]
fn embedded_brokers_forget_or_keep_as_they_are_told() {
    let expected = [
        "in memory: received Some(\"a letter\")",
        "in a file: stored, and the broker has stopped",
        "in a file: received Some(\"a letter to be kept\") from the next one",
    ];
    assert_eq!(run("embedded"), expected);
}

/// The examples, by their files.
fn examples() -> Vec<String> {
    let entries = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let sources = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    sources.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn without_a_broker_that_lets_it_in_each_example_ends_with_a_sentence() {
    let broker = Broker::start();
    let (_, address) = broker.url.rsplit_once('@').unwrap();
    let address = address.split('/').next().unwrap();
    let cases = [
        ("amqp://guest:secret@127.0.0.1:1/%2f".to_owned(), "refused"),
        (format!("amqp://nobody:secret@{address}/%2f"), "ACCESS_REFUSED"),
        (format!("amqp://guest:guest@{address}/missing"), "missing"),
        ("http://127.0.0.1/".to_owned(), "http"),
        ("secret".to_owned(), ""),
    ];
    // The embedded broker is its own.
    for example in examples().iter().filter(|example| *example != "embedded") {
        for (url, reason) in &cases {
            let output = Command::new(binary(example)).arg(url).output().unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{example} {url}: {text}");
            assert!(text.lines().count() == 1 && text.contains(reason), "{example} {url}: {text}");
            let dumps = ["Error {", "Error:", "kind:", "Kind", "Some(", "backtrace", "panicked", "secret@"];
            assert!(!dumps.iter().any(|dump| text.contains(dump)), "{example} {url}: {text}");
        }
    }
    broker.stop();
}

#[test]
fn the_embedded_broker_that_finds_no_room_ends_with_a_sentence() {
    let output = Command::new(binary("embedded")).env("TMPDIR", "/nonexistent").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.lines().count() == 1 && text.contains("/nonexistent") && !text.contains("kind:"), "{text}");
}

#[test]
fn each_example_is_tested_here() {
    let tested = include_str!("examples.rs");
    for name in examples() {
        assert!(tested.contains(&format!("run(\"{name}\")")), "{name}");
    }
}

#[test]
fn an_example_can_be_run_again_on_the_same_broker() {
    let broker = Broker::start();
    for example in ["work_queue", "replaced_worker", "rpc"] {
        let first = broker.run(example).len();
        assert_eq!(broker.run(example).len(), first, "{example}");
    }
    broker.stop();
}
