//! `prontomq serve` as people and their tools meet it: flags, environment and file, the data directory's lock, signals,
//! users and vhosts, the metrics listener, limits.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use rustix::process::Signal;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use support::broker::{program, run_to_end, serve};
use support::client::{Failure, Flag, Login, persistent};
use support::{Broker, Client};

/// A folder of a test's own, with a data directory and a configuration file in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("there is room"))
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// Writes a configuration file; its path.
    fn config(&self, text: &str) -> PathBuf {
        let path = self.0.path().join("prontomq.toml");
        std::fs::write(&path, text).expect("there is room");
        path
    }

    /// `prontomq serve --config` on this folder, with a file of this text.
    fn serve_with(&self, text: &str) -> Command {
        let mut command = serve(&self.data());
        command.arg("--config").arg(self.config(text));
        command
    }

    fn start_with(&self, text: &str) -> Broker {
        Broker::run(self.serve_with(text), &self.data())
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The command fails and says all of this on stderr.
fn assert_refused(command: &mut Command, words: &[&str]) {
    let output = run_to_end(command);
    let said = stderr(&output);
    assert!(!output.status.success(), "it was accepted");
    assert!(words.iter().all(|word| said.contains(word)), "{said:?} lacks one of {words:?}");
}

/// What the broker offers in connection.tune.
fn offered_heartbeat(broker: &Broker) -> u16 {
    let (_, tune) = Client::begin(broker.amqp, Login::default()).expect("guest may log in");
    tune.heartbeat_seconds
}

// ---- settings ----------------------------------------------------------------------------------------------------

#[test]
fn the_version_is_told() {
    let output = run_to_end(program().arg("--version"));
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, format!("prontomq {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn the_environment_overrules_the_file_and_a_flag_both() {
    let folder = Folder::new();
    let (of_file, of_environment) = (folder.0.path().join("of-file"), folder.0.path().join("of-environment"));
    let text = format!("heartbeat = \"17 s\"\nmetrics = \"off\"\ndata_dir = {of_file:?}\n");

    let broker = Broker::run(folder.serve_with(&text), &folder.data());
    assert_eq!(offered_heartbeat(&broker), 17, "the file alone");
    assert!(broker.metrics.is_some(), "the flag --metrics overrules the file");
    drop(broker);

    let mut command = folder.serve_with(&text);
    command.env("PRONTOMQ_HEARTBEAT", "23 s").env("PRONTOMQ_DATA_DIR", &of_environment);
    let broker = Broker::run(command, &folder.data());
    assert_eq!(offered_heartbeat(&broker), 23, "the environment over the file");
    assert!(folder.data().is_dir());
    assert!(!of_file.exists() && !of_environment.exists(), "the flag --data-dir overrules both");
    drop(broker);

    let mut command = program();
    command.arg("serve").arg("--config").arg(folder.config(&text));
    command.env("PRONTOMQ_DATA_DIR", &of_environment).env("PRONTOMQ_AMQP", "127.0.0.1:0,127.0.0.1:0");
    let broker = Broker::run(command, &folder.data());
    assert!(of_environment.is_dir() && !of_file.exists());
    assert!(broker.metrics.is_none(), "the file turns it off");
    assert_eq!(broker.welcome.matches("AMQP 0-9-1 on amqp://").count(), 2, "both addresses of the environment");
}

#[test]
fn a_mistake_is_told_with_its_setting_and_where_it_came_from() {
    let folder = Folder::new();
    let mut command = serve(&folder.data());
    assert_refused(command.env("PRONTOMQ_FRAME_MAX", "12"), &["setting frame_max", "PRONTOMQ_FRAME_MAX", "4 KiB"]);
    let mut command = serve(&folder.data());
    assert_refused(command.env("PRONTOMQ_HEARTBEET", "12"), &["PRONTOMQ_HEARTBEET", "no such setting"]);
    let mut command = serve(&folder.data());
    assert_refused(command.args(["--log-format", "loud"]), &["setting log_format", "--log-format", "human"]);
    let mut command = program();
    command.arg("serve").arg("--data-dir").arg(folder.data()).args(["--amqp", "nowhere"]);
    assert_refused(&mut command, &["setting amqp", "--amqp", "nowhere"]);
    assert_refused(&mut folder.serve_with("channels_max = 0"), &["setting channels_max", "prontomq.toml", "1"]);
    assert_refused(&mut folder.serve_with("chanels_max = 1"), &["chanels_max", "no such setting", "channels_max"]);
    assert_refused(&mut folder.serve_with("heartbeat = "), &["prontomq.toml", "line 1"]);
    assert_refused(
        &mut folder.serve_with("[[users]]\nname = \"till\"\n"),
        &["users[0]", "\"till\" has neither password nor password_hash"],
    );
    let mut command = serve(&folder.data());
    assert_refused(command.arg("--config").arg(folder.0.path().join("missing.toml")), &["config: ", "missing.toml"]);
    assert!(!folder.data().exists(), "a mistake is found before anything is made");
}

#[test]
fn an_address_in_use_is_told_with_its_setting() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let mut command = program();
    command.arg("serve").arg("--data-dir").arg(folder.data()).args(["--amqp", &address, "--metrics", "off"]);
    assert_refused(&mut command, &["amqp: cannot listen on", &address]);
    let mut command = program();
    command.arg("serve").arg("--data-dir").arg(folder.data()).args(["--amqp", "127.0.0.1:0", "--metrics", &address]);
    assert_refused(&mut command, &["metrics: cannot listen on", &address]);
}

#[test]
fn port_0_is_printed_as_the_port_that_was_picked() {
    let folder = Folder::new();
    let broker = Broker::start(&folder.data());
    assert!(broker.welcome.starts_with("Server startup complete"), "{}", broker.welcome);
    assert_ne!(broker.amqp.port(), 0);
    assert!(broker.welcome.contains(&folder.data().display().to_string()));
    Client::connect(broker.amqp).close();
}

// ---- the data directory ------------------------------------------------------------------------------------------

#[test]
fn a_second_broker_on_the_same_data_names_the_first_and_leaves_it_alone() {
    let folder = Folder::new();
    let first = Broker::start(&folder.data());
    assert_refused(&mut serve(&folder.data()), &["data_dir", &format!("in use by the process {}", first.pid())]);
    Client::connect(first.amqp).close();
}

#[test]
fn a_lock_left_behind_by_a_killed_broker_does_not_block() {
    let folder = Folder::new();
    let first = Broker::start(&folder.data());
    let pid = first.pid().to_string();
    first.kill();
    let lock = lock_file(&folder.data());
    assert_eq!(lock.trim(), pid, "the killed broker's id is still in the file");
    let second = Broker::start(&folder.data());
    assert_eq!(lock_file(&folder.data()).trim(), second.pid().to_string());
    drop(second);
    // Even an id that belongs to somebody who lives: the operating system's lock counts.
    std::fs::write(folder.data().join("prontomq.lock"), std::process::id().to_string()).expect("there is room");
    Client::connect(Broker::start(&folder.data()).amqp).close();
}

fn lock_file(data: &Path) -> String {
    std::fs::read_to_string(data.join("prontomq.lock")).expect("the lock file is text")
}

// ---- signals -----------------------------------------------------------------------------------------------------

#[test]
fn a_signal_closes_connections_with_320_and_ends_the_broker_in_good_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = Folder::new();
        let broker = Broker::start(&folder.data());
        let mut client = Client::connect(broker.amqp);
        let mut idle = Client::open(broker.amqp, Login::default()).expect("guest may connect");
        client.queue("q", &[Flag::Durable], &[]);
        client.publish("", "q", &persistent(), b"x");
        client.flush().expect("the broker reads");
        assert_eq!(client.message_count("q"), 1);
        broker.signal(signal);
        for client in [&mut client, &mut idle] {
            let shutdown = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
            assert_eq!(client.next(), Err(Failure::Connection(320, shutdown.to_owned())));
        }
        let (status, took) = broker.wait();
        assert_eq!(status.code(), Some(0));
        assert!(took < Duration::from_secs(5), "{took:?}");
        let broker = Broker::start(&folder.data());
        assert_eq!(Client::connect(broker.amqp).message_count("q"), 1, "flushed, though nobody waited for a confirm");
    }
}

#[test]
fn a_client_that_does_not_answer_holds_the_stop_up_for_less_than_5_seconds() {
    let folder = Folder::new();
    let broker = Broker::start(&folder.data());
    let _silent = Client::connect(broker.amqp);
    let (status, took) = broker.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Tells the broker to stop; it waits for this client, which does not answer connection.close.
fn stopping(broker: &Broker) -> Client {
    let mut silent = Client::connect(broker.amqp);
    silent.answers_closes = false;
    broker.signal(Signal::TERM);
    assert!(matches!(silent.next(), Err(Failure::Connection(320, _))));
    silent
}

#[test]
fn a_second_signal_ends_the_broker_at_once() {
    let folder = Folder::new();
    let broker = Broker::start(&folder.data());
    let _silent = stopping(&broker);
    broker.signal(Signal::TERM);
    let (status, took) = broker.wait();
    assert_ne!(status.code(), Some(0), "it did not end in good order");
    assert!(took < Duration::from_secs(1), "{took:?}");
}

// ---- vhosts and users --------------------------------------------------------------------------------------------

fn login<'a>(user: &'a str, password: &'a str, vhost: &'a str) -> Login<'a> {
    Login { user, password, vhost, ..Login::default() }
}

#[test]
fn vhosts_and_users_of_the_file_exist_after_every_start() {
    const SHOP: &str =
        "[[vhosts]]\nname = \"shop\"\n[[users]]\nname = \"till\"\npassword = \"first\"\nvhosts = [\"shop\"]\n";
    let folder = Folder::new();
    let may = |broker: &Broker, login: Login<'_>| Client::open(broker.amqp, login).map(Client::close);
    let refusal = |result: Result<(), Failure>| match result {
        Err(Failure::Connection(code, _)) => code,
        other => panic!("{other:?} instead of a refusal"),
    };
    let broker = folder.start_with(SHOP);
    assert_eq!(may(&broker, login("till", "first", "shop")), Ok(()));
    assert_eq!(refusal(may(&broker, login("till", "first", "/"))), 530, "not its vhost");
    assert_eq!(refusal(may(&broker, login("till", "wrong", "shop"))), 403);
    assert_eq!(may(&broker, Login::default()), Ok(()), "guest is made on an empty store");
    let mut client = Client::open(broker.amqp, login("till", "first", "shop")).expect("till may connect");
    client.channel(1);
    client.queue("receipts", &[Flag::Durable], &[]);
    drop(client);
    assert!(broker.terminate().0.success());

    // The same file again changes nothing.
    let broker = folder.start_with(SHOP);
    let mut client = Client::open(broker.amqp, login("till", "first", "shop")).expect("till may connect");
    client.channel(1);
    client.queue("receipts", &[Flag::Passive], &[]);
    drop(client);
    broker.kill();

    // A new password counts, and what the file names no more stays as it was.
    let broker = folder.start_with(&SHOP.replace("first", "second"));
    assert_eq!(refusal(may(&broker, login("till", "first", "shop"))), 403);
    assert_eq!(may(&broker, login("till", "second", "shop")), Ok(()));
    assert!(broker.terminate().0.success());
    let broker = folder.start_with("");
    assert_eq!(may(&broker, login("till", "second", "shop")), Ok(()));
    assert_eq!(may(&broker, Login::default()), Ok(()));
}

// ---- the metrics listener ----------------------------------------------------------------------------------------

#[test]
fn metrics_and_both_health_checks_answer() {
    let folder = Folder::new();
    let broker = Broker::start(&folder.data());
    let ok = "HTTP/1.1 200 OK".to_owned();
    assert_eq!(broker.http_get("/healthz"), (ok.clone(), "ok\n".to_owned()));
    assert_eq!(broker.http_get("/readyz"), (ok.clone(), "ready\n".to_owned()));
    let (status, page) = broker.http_get("/metrics");
    assert_eq!(status, ok);
    assert!(page.contains("\nrabbitmq_build_info{") && page.contains("\nrabbitmq_identity_info{"), "{page}");
    assert_eq!(broker.http_get("/nothing").0, "HTTP/1.1 404 Not Found");
    let mut client = Client::connect(broker.amqp);
    client.queue("q", &[], &[]);
    assert_eq!(broker.metric("rabbitmq_connections"), 1.0);
    assert_eq!(broker.metric("rabbitmq_queues"), 1.0);
    client.close();
    broker.wait_for_metric("rabbitmq_connections", |open| open == 0.0);
}

#[test]
fn a_stopping_broker_is_not_ready() {
    let folder = Folder::new();
    let broker = Broker::start(&folder.data());
    let _silent = stopping(&broker);
    assert_eq!(broker.http_get("/readyz").0, "HTTP/1.1 503 Service Unavailable");
}

// ---- limits ------------------------------------------------------------------------------------------------------

#[test]
fn one_connection_too_many_is_refused_with_530_until_another_leaves() {
    let folder = Folder::new();
    let broker = folder.start_with("connections_max = 2");
    let first = Client::connect(broker.amqp);
    let mut second = Client::connect(broker.amqp);
    let refused = Client::open(broker.amqp, Login::default()).map(|_| ());
    let why = "NOT_ALLOWED - connection refused: node connection limit (2) is reached";
    assert_eq!(refused, Err(Failure::Connection(530, why.to_owned())));
    second.queue("still-served", &[], &[]);
    first.close();
    broker.wait_for_metric("rabbitmq_connections", |open| open == 1.0);
    Client::connect(broker.amqp).close();
}

// ---- the log -----------------------------------------------------------------------------------------------------

#[test]
fn a_connection_is_logged_when_it_opens_and_when_it_closes() {
    let folder = Folder::new();
    let mut command = serve(&folder.data());
    command.args(["--log-format", "json"]);
    let broker = Broker::run(command, &folder.data());
    Client::connect(broker.amqp).close();
    assert!(broker.terminate().0.success());
    let log = std::fs::read_to_string(folder.data().with_extension("log")).expect("it was written");
    for words in [["connection opened", "\"user\":\"guest\""], ["connection closed", "\"vhost\":\"/\""]] {
        let line = log.lines().find(|line| line.contains(words[0])).unwrap_or_else(|| panic!("{log}"));
        assert!(line.starts_with('{') && line.contains(words[1]), "{line}");
    }
    assert!(!log.contains("\"password\""));
}
