//! `prontomq serve` as people and their tools meet it: flags, environment and file, the data directory's lock, signals,
//! the metrics listener, limits.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use rustix::process::Signal;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use support::broker::{program, run_to_end, serve, signal_process};
use support::client::{Failure, Flag, Login, persistent};
use support::folder::{Folder, offered_heartbeat, stderr, wait_until};
use support::{Broker, Client, PATIENCE};

/// The command fails and says all of this on stderr.
fn assert_refused(command: &mut Command, words: &[&str]) {
    let output = run_to_end(command);
    let said = stderr(&output);
    assert!(!output.status.success(), "it was accepted");
    assert!(words.iter().all(|word| said.contains(word)), "{said:?} lacks one of {words:?}");
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
fn the_settings_of_all_sources_are_printed_and_nothing_is_started() {
    let folder = Folder::new();
    let mut command = folder.serve_with("channels_max = 5\nheartbeat = \"20 s\"\n[store]\nkind = \"memory\"");
    let output = run_to_end(command.args(["--print-settings"]).env("PRONTOMQ_HEARTBEAT", "30"));
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", stderr(&output));
    for line in ["channels_max = 5", "heartbeat = \"30 s\"", "store.kind = \"memory\"", "frame_max = \"128 KiB\""] {
        assert!(said.lines().any(|found| found == line), "{said}");
    }
    assert!(!folder.data().exists() && !said.contains("startup complete"));
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

#[test]
fn the_variables_of_a_service_of_kubernetes_are_no_settings() {
    let folder = Folder::new();
    let mut command = serve(&folder.data());
    for (name, value) in [
        ("PRONTOMQ_SERVICE_HOST", "10.0.0.7"),
        ("PRONTOMQ_SERVICE_PORT_AMQP", "5672"),
        ("PRONTOMQ_PORT", "tcp://10.0.0.7:5672"),
        ("PRONTOMQ_PORT_5672_TCP_ADDR", "10.0.0.7"),
        ("PRONTOMQ_HEADLESS_SERVICE_PORT", "5672"),
        ("PRONTOMQ_HEARTBEAT", "19"),
    ] {
        command.env(name, value);
    }
    assert_eq!(offered_heartbeat(&Broker::run(command, &folder.data())), 19);
}

#[test]
fn the_banner_names_the_configured_user_without_the_password_and_a_command_that_is_there() {
    let folder = Folder::new();
    let broker = folder.start_with(
        "[[vhosts]]\nname = \"shop 1\"\n[[users]]\nname = \"till/1\"\npassword = \"hunter2\"\nvhosts = [\"shop 1\"]",
    );
    let welcome = &broker.welcome;
    assert!(welcome.contains(&format!("amqp://till%2F1:PASSWORD@{}/shop%201", broker.amqp)), "{welcome}");
    assert!(!welcome.contains("hunter2") && !welcome.contains("guest"), "{welcome}");
    drop(broker);

    let folder = Folder::new();
    let broker = Broker::start(&folder.data());
    let (_, command) = broker.welcome.split_once("try `").expect("there is something to try");
    let mut words = command.split('`').next().expect("it ends").split(' ');
    let mut command = Command::new(words.next().expect("a program"));
    command.args(words).args(["--duration", "1s"]);
    let output = run_to_end(&mut command);
    assert!(output.status.success(), "{command:?}: {}", stderr(&output));
}

#[test]
fn a_store_whose_users_the_settings_no_longer_name_says_that_nobody_can_log_in() {
    let folder = Folder::new();
    drop(folder.start_with("[[users]]\nname = \"till\"\npassword = \"secret\"\n"));
    let broker = Broker::start(&folder.data());
    assert!(broker.welcome.contains("nobody can log in") && !broker.welcome.contains("bench"), "{}", broker.welcome);
    drop(broker);
    let broker = folder.start_with("[[users]]\nname = \"till\"\npassword = \"secret\"\n");
    assert!(!broker.welcome.contains("nobody") && broker.welcome.contains("bench"), "{}", broker.welcome);
}

#[test]
fn a_store_in_memory_names_no_directory_and_warns_that_all_is_forgotten() {
    let folder = Folder::new();
    let broker = folder.start_with("[store]\nkind = \"memory\"\n");
    let (welcome, log) = (&broker.welcome, broker.log());
    assert!(welcome.contains("data in memory") && !welcome.contains(&folder.data().display().to_string()), "{welcome}");
    assert!(log.contains("are lost when the broker stops"), "{log}");
    assert!(!log.contains("recovered from the store") && log.contains("resident_bytes"), "{log}");
    assert!(!folder.data().exists());
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

#[test]
fn signals_that_have_no_meaning_here_end_nothing_however_early_they_come() {
    let folder = Folder::new();
    let mut command = folder.serve_with("");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the program can be started");
    // From the moment at which the process ignores them until long after it has handlers.
    let status = format!("/proc/{}/status", child.id());
    wait_until("the process runs", || {
        let ignored = std::fs::read_to_string(&status).unwrap_or_default();
        let mask = ignored.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask >> 9 & 1 == 1)
    });
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(700) {
        for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
            signal_process(&child, signal);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(child.try_wait().expect("it can be waited for").is_none(), "a signal has ended the broker");
    signal_process(&child, Signal::TERM);
    assert!(child.wait().expect("it can be waited for").success());
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
fn clients_of_the_metrics_listener_that_send_nothing_are_so_many_and_stay_so_long() {
    let folder = Folder::new();
    let broker = folder.start_with("metrics_connections_max = 3\nmetrics_timeout = \"1 s\"");
    let address = broker.metrics.expect("there is a metrics listener");
    let connect = || std::net::TcpStream::connect(address).expect("the listener accepts");
    let mut silent: Vec<_> = (0..12).map(|_| connect()).collect();
    let mut ended = 0;
    for stream in &mut silent {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        // An end or a reset; a client that is silent is sent nothing.
        assert!(!matches!(stream.read(&mut [0]), Ok(1..)));
        ended += 1;
    }
    assert_eq!(ended, 12, "all are let go");
    assert_eq!(broker.metric("prontomq_metrics_connections_refused_total"), 9.0);
    // The one that asks.
    broker.wait_for_metric("prontomq_metrics_connections", |clients| clients == 1.0);
}

#[test]
fn names_come_from_the_host_and_the_cluster_keeps_its_id() {
    let folder = Folder::new();
    let identity = |broker: &Broker| {
        let (_, page) = broker.http_get("/metrics");
        page.lines().find(|line| line.starts_with("rabbitmq_identity_info{")).expect("it is there").to_owned()
    };
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let first = Broker::start(&folder.data());
    let of_first = identity(&first);
    assert!(of_first.contains(&format!("rabbitmq_node=\"prontomq@{host}\"")), "{of_first}");
    let (_, id) = of_first.split_once("rabbitmq_cluster_permanent_id=\"").expect("it is there");
    let id = id.split('"').next().expect("it ends").to_owned();
    assert!(id.starts_with("prontomq-cluster-id-") && id.len() > 40, "{id}");
    assert!(first.log().contains(&id), "the start logs it");
    first.kill();
    let second = folder.start_with("node_name = \"rabbit@elsewhere\"\ncluster_name = \"the shop\"");
    let of_second = identity(&second);
    for part in ["rabbitmq_node=\"rabbit@elsewhere\"", "rabbitmq_cluster=\"the shop\"", &id] {
        assert!(of_second.contains(part), "{of_second} lacks {part}");
    }
    let other = Folder::new();
    assert!(!identity(&Broker::start(&other.data())).contains(&id), "another store is another cluster");
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
