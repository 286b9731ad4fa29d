//! `prontomq bench` against brokers that refuse, block, fall silent or end: one sentence, an exit code, and never a hang.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the message")]

#[allow(dead_code, unused_imports, reason = "each test takes from the support what it needs")]
mod support;

use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Output, Stdio};
use std::thread;
use std::time::Instant;
use support::broker::{program, serve};
use support::{Broker, PATIENCE};

/// Every load, with options that let it go on until something ends it.
const LOADS: [&[&str]; 17] = [
    &["A"],
    &["B"],
    &["C"],
    &["D", "--standing", "1000000000"],
    &["D2", "--standing", "1000000000"],
    &["E"],
    &["F"],
    &["backlog"],
    &["churn", "--standing", "100"],
    &["fanout", "--queues", "10"],
    &["queues", "--queues", "10"],
    &["topic", "--bindings", "10"],
    &["large"],
    &["priorities"],
    &["connections"],
    &["rpc"],
    &["relay"],
];

/// Runs that share the machine at a time.
const AT_ONCE: usize = 4;

fn begin(url: &str, load: &[&str], more: &[&str]) -> Child {
    let mut command = program();
    command.args(["bench", "--url", url, "--duration", "1h", "--warm-up", "0s", "--scenario"]).args(load).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// What a run printed, once it has ended by itself.
fn end(mut run: Child, load: &[&str]) -> Output {
    let began = Instant::now();
    while run.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            run.kill().unwrap();
            panic!("{load:?} hangs: {:?}", run.wait_with_output());
        }
        thread::sleep(std::time::Duration::from_millis(5));
    }
    run.wait_with_output().unwrap()
}

/// Exit code 1, no figures, and one sentence that gives the reason.
#[track_caller]
fn assert_sentence(output: &Output, reasons: &[&str], load: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{load:?}: {text}");
    assert!(output.stdout.is_empty(), "{load:?}: {}", String::from_utf8_lossy(&output.stdout));
    assert!(text.starts_with("prontomq bench: ") && text.lines().count() == 1, "{load:?}: {text:?}");
    assert!(reasons.iter().any(|reason| text.contains(reason)), "{load:?}: {text:?} has none of {reasons:?}");
    let is_plain = !text.chars().any(|c| c.is_control() && c != '\n') && !text.contains(char::REPLACEMENT_CHARACTER);
    let dumps = ["os error", "panicked", "Error", "Kind", "Some(", "expected method"];
    assert!(is_plain && !dumps.iter().any(|dump| text.contains(dump)), "{load:?}: {text:?}");
}

fn for_each_load(test: impl Fn(&'static [&'static str]) + Sync) {
    for loads in LOADS.chunks(AT_ONCE) {
        thread::scope(|scope| loads.iter().for_each(|load| drop(scope.spawn(|| test(load)))));
    }
}

fn url(broker: &Broker) -> String {
    format!("amqp://guest:guest@{}", broker.amqp)
}

#[test]
fn a_refused_connection_login_or_vhost_is_a_sentence_at_every_load() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::start(&folder.path().join("data"));
    let at = broker.amqp;
    let cases = [
        ("amqp://guest:guest@127.0.0.1:1".to_owned(), "no broker listens at 127.0.0.1:1"),
        (format!("amqp://nobody:guest@{at}"), "user \"nobody\""),
        (format!("amqp://guest:wrong@{at}"), "user \"guest\""),
        (format!("amqp://guest@{at}"), "user \"guest\""),
        (format!("amqp://guest:guest@{at}/missing"), "vhost missing not found"),
        (format!("amqp://guest:guest@{at}/a%20b"), "vhost a b not found"),
        ("amqp://nowhere.invalid".to_owned(), "nowhere.invalid"),
    ];
    for_each_load(|load| {
        for (url, reason) in &cases {
            assert_sentence(&end(begin(url, load, &[]), load), &[reason], load);
        }
    });
}

#[test]
fn a_url_that_is_none_is_a_sentence() {
    for (url, reason) in [
        ("http://127.0.0.1", "expected amqp://"),
        ("127.0.0.1:5672", "expected amqp://"),
        ("amqp://guest:guest@127.0.0.1:port", "port"),
        ("amqp://guest:guest@127.0.0.1:99999", "port"),
        ("amqp://guest:guest@127.0.0.1/%zz", "%zz"),
        ("amqp://guest:guest@127.0.0.1/%ff", "%ff"),
    ] {
        assert_sentence(&end(begin(url, &["A"], &[]), &["A"]), &[reason], &[url]);
    }
}

#[test]
fn a_login_and_a_vhost_may_be_percent_encoded() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("p.toml");
    let text = "[[vhosts]]\nname = \"a/b c\"\n[[users]]\nname = \"t@ill\"\npassword = \"p:/%\"\nvhosts = [\"a/b c\"]\n";
    std::fs::write(&config, text).unwrap();
    let data = folder.path().join("data");
    let mut command = serve(&data);
    command.arg("--config").arg(config);
    let broker = Broker::run(command, &data);
    let url = format!("amqp://t%40ill:p%3A%2f%25@{}/a%2Fb%20c", broker.amqp);
    let run = program().args(["bench", "--url", &url, "--count", "10"]).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

/// Answers each connection with these bytes, once it has begun to talk, and closes it.
fn answer_with(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream: TcpStream = stream.unwrap();
            let _ = stream.read(&mut [0; 8]).and_then(|_| stream.write_all(bytes));
        }
    });
    address
}

#[test]
fn what_is_no_broker_is_named_so() {
    let (web, empty) = (answer_with(b"HTTP/1.1 400 Bad Request\r\nServer: x\r\n\r\n"), answer_with(b""));
    let other_version = answer_with(b"AMQP\0\x01\0\0");
    for (address, reasons) in [
        (web, ["does not speak AMQP 0-9-1"]),
        (empty, ["closed the connection"]),
        (other_version, ["does not speak AMQP 0-9-1"]),
    ] {
        let output = end(begin(&format!("amqp://{address}"), &["B"], &[]), &["B"]);
        assert_sentence(&output, &reasons, &["B"]);
    }
}

#[test]
fn a_broker_that_blocks_its_publishers_ends_every_load() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut command = serve(&data);
    command.env("PRONTOMQ_LIMITS_DISK_FREE_BYTES", "1024 GiB");
    let broker = Broker::run(command, &data);
    for_each_load(|load| {
        let output = end(begin(&url(&broker), load, &[]), load);
        assert_sentence(&output, &["the broker blocks publishers: low on disk"], load);
    });
}

#[test]
fn a_broker_that_ends_in_mid_run_ends_every_load() {
    for_each_load(|load| {
        for (signal, reasons) in [
            (Signal::KILL, &["the broker closed the connection", "no broker listens"][..]),
            (Signal::TERM, &["the broker closed the connection", "CONNECTION_FORCED", "no broker listens"]),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let broker = Broker::start(&folder.path().join("data"));
            let run = begin(&url(&broker), load, &[]);
            broker.wait_for_metric("rabbitmq_global_messages_received_total", |received| received >= 3.0);
            broker.signal(signal);
            let output = end(run, load);
            assert_sentence(&output, reasons, load);
        }
    });
}

#[test]
fn a_broker_that_falls_silent_ends_every_load() {
    for_each_load(|load| {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::start(&folder.path().join("data"));
        let run = begin(&url(&broker), load, &["--patience", "500ms"]);
        broker.wait_for_metric("rabbitmq_global_messages_received_total", |received| received >= 3.0);
        broker.signal(Signal::STOP);
        let output = end(run, load);
        assert_sentence(&output, &["nothing has moved for 500ms", "the broker has not answered for 500ms"], load);
    });
}

#[test]
fn a_broker_that_never_answers_is_given_up() {
    // Its connections are accepted by the system, and nobody ever reads them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("amqp://{}", listener.local_addr().unwrap());
    let output = end(begin(&url, &["A"], &["--patience", "300ms"]), &["A"]);
    assert_sentence(&output, &["the broker has not answered for 300ms"], &["A"]);
}
