//! `prontomq serve` as people and their tools meet it: flags, environment and file, the data directory's lock, signals,
//! users and vhosts, the metrics listener, limits.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use rustix::process::Signal;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::broker::{amqp_address, program, run_to_end, serve, signal_process};
use support::client::{Failure, Flag, Login, persistent};
use support::{Broker, Client, PATIENCE};

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
    let broker = folder.start_with(SHOP);
    assert_eq!(may(&broker, login("till", "first", "shop")), Ok(()));
    assert_eq!(refusal(may(&broker, login("till", "first", "/"))), 530, "not its vhost");
    assert_eq!(refusal(may(&broker, login("till", "wrong", "shop"))), 403);
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

    // A new password counts.
    let broker = folder.start_with(&SHOP.replace("first", "second"));
    assert_eq!(refusal(may(&broker, login("till", "first", "shop"))), 403);
    assert_eq!(may(&broker, login("till", "second", "shop")), Ok(()));
    assert!(broker.terminate().0.success());
}

fn may(broker: &Broker, login: Login<'_>) -> Result<(), Failure> {
    Client::open(broker.amqp, login).map(Client::close)
}

fn refusal(result: Result<(), Failure>) -> u16 {
    match result {
        Err(Failure::Connection(code, _)) => code,
        other => panic!("{other:?} instead of a refusal"),
    }
}

#[test]
fn guest_is_made_on_an_empty_store_when_no_user_is_configured_and_never_later() {
    const TILL: &str = "[[users]]\nname = \"till\"\npassword = \"secret\"\n";
    let folder = Folder::new();
    let broker = folder.start_with(TILL);
    assert_eq!(refusal(may(&broker, Login::default())), 403, "a user is configured");
    assert_eq!(may(&broker, login("till", "secret", "/")), Ok(()));
    assert!(broker.terminate().0.success());
    // The only user is gone from the file: nobody can log in, and guest does not come instead.
    let broker = folder.start_with("");
    assert_eq!(refusal(may(&broker, login("till", "secret", "/"))), 403);
    assert_eq!(refusal(may(&broker, Login::default())), 403, "the store is not empty");
    assert!(broker.log().contains("nobody can log in"), "{}", broker.log());
    assert!(broker.terminate().0.success());

    // Made before users were configured, guest stays: that user did not come from the file.
    let folder = Folder::new();
    assert_eq!(may(&folder.start_with(""), Login::default()), Ok(()));
    let broker = folder.start_with(TILL);
    assert_eq!(may(&broker, Login::default()), Ok(()));
    // Named by the file and then no longer, guest is like any other.
    drop(broker);
    let guest = "[[users]]\nname = \"guest\"\npassword = \"guest\"\n";
    assert_eq!(may(&folder.start_with(guest), Login::default()), Ok(()));
    assert_eq!(refusal(may(&folder.start_with(TILL), Login::default())), 403);
}

const SHOP_AND_OFFICE: &str = "[[vhosts]]\nname = \"shop\"\n[[vhosts]]\nname = \"office\"\n\
    [[users]]\nname = \"till\"\npassword = \"t\"\nvhosts = [\"shop\", \"office\"]\n\
    [[users]]\nname = \"clerk\"\npassword = \"c\"\nvhosts = [\"shop\"]\n";
/// The vhost `office` and the user `clerk` are gone.
const SHOP_ALONE: &str =
    "[[vhosts]]\nname = \"shop\"\n[[users]]\nname = \"till\"\npassword = \"t\"\nvhosts = [\"shop\"]\n";

#[test]
fn a_user_and_a_vhost_that_the_file_names_no_more_lose_their_login_at_the_next_start() {
    let folder = Folder::new();
    let broker = folder.start_with(SHOP_AND_OFFICE);
    let mut client = Client::open(broker.amqp, login("till", "t", "office")).expect("till may connect");
    client.channel(1);
    client.queue("letters", &[Flag::Durable], &[]);
    drop(client);
    assert_eq!(may(&broker, login("clerk", "c", "shop")), Ok(()));
    assert!(broker.terminate().0.success());

    let broker = folder.start_with(SHOP_ALONE);
    assert_eq!(refusal(may(&broker, login("clerk", "c", "shop"))), 403);
    assert_eq!(refusal(may(&broker, login("till", "t", "office"))), 530);
    assert_eq!(may(&broker, login("till", "t", "shop")), Ok(()));
    drop(broker);

    // The vhost has kept what was in it.
    let broker = folder.start_with(SHOP_AND_OFFICE);
    let mut client = Client::open(broker.amqp, login("till", "t", "office")).expect("till may connect");
    client.channel(1);
    client.queue("letters", &[Flag::Passive], &[]);
}

// ---- reloading ---------------------------------------------------------------------------------------------------

impl Folder {
    /// Writes the file anew and has the broker read it; returns what is logged until that is done.
    fn reload(&self, broker: &Broker, text: &str) -> String {
        let before = broker.log().len();
        self.config(text);
        broker.signal(Signal::HUP);
        wait_until("the settings are reloaded, or not", || {
            let log = broker.log();
            log[before..].contains("settings reloaded") || log[before..].contains("were not reloaded")
        });
        broker.log()[before..].to_owned()
    }
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn at_sighup_users_and_vhosts_come_and_go_and_their_open_connections_are_closed() {
    let folder = Folder::new();
    let broker = folder.start_with(SHOP_AND_OFFICE);
    let open = |name, password, vhost| Client::open(broker.amqp, login(name, password, vhost)).expect("it may connect");
    let (mut clerk, mut office, mut shop) =
        (open("clerk", "c", "shop"), open("till", "t", "office"), open("till", "t", "shop"));
    folder.reload(&broker, SHOP_ALONE);
    let forced = |text: &str| Err(Failure::Connection(320, format!("CONNECTION_FORCED - {text}")));
    assert_eq!(clerk.next(), forced("user 'clerk' is deleted"));
    assert_eq!(office.next(), forced("vhost 'office' is deleted"));
    assert_eq!(refusal(may(&broker, login("clerk", "c", "shop"))), 403);
    assert_eq!(refusal(may(&broker, login("till", "t", "office"))), 530);
    shop.channel(1);
    shop.queue("still-served", &[], &[]);

    folder.reload(&broker, &SHOP_AND_OFFICE.replace("\"c\"", "\"other\""));
    assert_eq!(refusal(may(&broker, login("clerk", "c", "shop"))), 403, "the password is another one");
    assert_eq!(may(&broker, login("clerk", "other", "shop")), Ok(()));
    assert_eq!(may(&broker, login("till", "t", "office")), Ok(()));
    shop.queue("still-served", &[], &[]);
    assert!(broker.terminate().0.success());
}

#[test]
fn at_sighup_limits_and_log_level_are_taken_over_and_what_is_not_is_logged() {
    let folder = Folder::new();
    let broker = folder.start_with("connections_max = 1\nheartbeat = \"17 s\"\n[store]\nhold_max = \"3 ms\"");
    let _first = Client::connect(broker.amqp);
    assert_eq!(refusal(may(&broker, Login::default())), 530);
    let log = folder.reload(
        &broker,
        "connections_max = 2\nheartbeat = \"23 s\"\nlog_level = \"debug\"\n[limits]\nmemory_bytes = \"10 MiB\"\n\
         disk_free_bytes = \"1 GiB\"\n[store]\nhold_max = \"2 ms\"",
    );
    assert!(log.contains("heartbeat, log_level"), "{log}");
    wait_until("what needs a restart is logged", || {
        let log = broker.log();
        log.lines().any(|line| line.contains("take effect at the next start") && line.contains("\"store.hold_max\""))
    });
    assert_eq!(may(&broker, Login::default()), Ok(()));
    assert_eq!(offered_heartbeat(&broker), 23);
    assert_eq!(broker.metric("rabbitmq_resident_memory_limit_bytes"), 10.0 * 1024.0 * 1024.0);
    assert_eq!(broker.metric("rabbitmq_disk_space_available_limit_bytes"), 1024.0 * 1024.0 * 1024.0);
    // Connected and left: worth a line of the level debug.
    drop(std::net::TcpStream::connect(broker.amqp).expect("the broker accepts"));
    wait_until("lines of the new level are written", || broker.log().contains("\"level\":\"DEBUG\""));
    assert!(broker.terminate().0.success());
}

#[test]
fn a_bad_file_changes_nothing_at_sighup_and_the_log_says_why() {
    let folder = Folder::new();
    let broker = folder.start_with(SHOP_AND_OFFICE);
    let mut clerk = Client::open(broker.amqp, login("clerk", "c", "shop")).expect("clerk may connect");
    let wrong_user = format!("heartbeat = \"23 s\"\n{SHOP_ALONE}[[users]]\nname = \"till\"\npassword = \"x\"\n");
    for (text, why) in [
        ("heartbeat = \"23 s\"\nchannels_max = 0\n", "channels_max"),
        ("heartbeat = ", "line 1"),
        (wrong_user.as_str(), "there is another user"),
    ] {
        let log = folder.reload(&broker, text);
        assert!(log.contains("were not reloaded") && log.contains(why), "{log}");
        clerk.channel(1);
        clerk.close_channel(1);
    }
    assert_eq!(may(&broker, login("till", "t", "office")), Ok(()));
    assert!(broker.terminate().0.success());
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
    assert_eq!(broker.metric("prontomq_metrics_connections"), 1.0, "the one that asks");
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

/// The whole lines of a log, each a JSON object.
fn json_lines(log: &str) -> Vec<serde_json::Value> {
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn errors_are_logged_at_once_with_client_user_and_vhost_and_counted_by_code() {
    let folder = Folder::new();
    let broker = folder.start_with("log_format = \"human\"\n[[vhosts]]\nname = \"shop\"");
    drop(broker);
    let mut command = folder.serve_with("");
    command.args(["--log-format", "json", "--log-level", "warn"]);
    std::fs::remove_file(folder.data().with_extension("log")).expect("there is a log");
    let mut child = command.stdout(Stdio::piped()).stderr(folder.log_file()).spawn().expect("it can be started");
    let amqp = banner_of(&mut child)["amqp"].as_str().and_then(amqp_address).expect("the address is printed");

    let mut client = Client::connect(amqp);
    let missing = client.try_queue("missing", &[Flag::Passive], &[]).expect_err("there is none");
    let text = "NOT_FOUND - no queue 'missing' in vhost '/'";
    assert_eq!(missing, Failure::Channel(404, text.to_owned()));
    let find = |message: &str, code: u64| {
        let mut found = None;
        wait_until(message, || {
            json_lines(&folder.log()).iter().any(|line| line["message"] == message && line["code"] == code)
        });
        for line in json_lines(&folder.log()) {
            if line["message"] == message && line["code"] == code {
                found = Some(line);
            }
        }
        found.expect("it was there")
    };
    // While the connection is open.
    let line = find("channel error", 404);
    for (field, value) in [("user", "guest"), ("vhost", "/"), ("operation", "queue.declare"), ("text", text)] {
        assert_eq!(line[field], value, "{line}");
    }
    assert_eq!((&line["level"], &line["channel"]), (&"WARN".into(), &1.into()), "{line}");
    assert!(line["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1:")), "{line}");

    // A second channel.open is an error of the connection.
    client.channel(2);
    client.write(2, (20, 10), |fields| fields.push(0));
    assert!(matches!(client.next(), Err(Failure::Connection(504, _))));
    let line = find("connection error", 504);
    assert_eq!(
        (&line["user"], &line["vhost"], &line["operation"]),
        (&"guest".into(), &"/".into(), &"channel.open".into())
    );
    assert_eq!(Client::open(amqp, Login { vhost: "nowhere", ..Login::default() }).map(|_| ()).map_err(code), Err(530));
    let line = find("connection error", 530);
    assert!(line["text"].as_str().is_some_and(|text| text.contains("vhost nowhere not found")), "{line}");
    signal_process(&child, Signal::TERM);
    assert!(child.wait().expect("it can be waited for").success());
    let levels: Vec<_> = json_lines(&folder.log()).iter().map(|line| line["level"].clone()).collect();
    assert!(levels.iter().all(|level| level == "WARN"), "{levels:?}");
}

fn code(failure: Failure) -> u16 {
    match failure {
        Failure::Connection(code, _) | Failure::Channel(code, _) => code,
        Failure::Socket => 0,
    }
}

#[test]
fn errors_are_counted_by_code() {
    let folder = Folder::new();
    let broker = Broker::start(&folder.data());
    for _ in 0..3 {
        let mut client = Client::connect(broker.amqp);
        client.try_queue("missing", &[Flag::Passive], &[]).expect_err("there is none");
    }
    let mut client = Client::connect(broker.amqp);
    client.queue("q", &[], &[]);
    client.try_queue("q", &[Flag::Durable], &[]).expect_err("it is not durable");
    may(&broker, login("guest", "wrong", "/")).expect_err("the password is wrong");
    let (_, page) = broker.http_get("/metrics");
    for line in [
        "prontomq_channel_errors_total{code=\"404\"} 3",
        "prontomq_channel_errors_total{code=\"406\"} 1",
        "prontomq_channel_errors_total{code=\"405\"} 0",
        "prontomq_connection_errors_total{code=\"403\"} 1",
        "prontomq_connection_errors_total{code=\"530\"} 0",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is missing");
    }
}

impl Folder {
    fn log_file(&self) -> std::fs::File {
        std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.data().with_extension("log"))
            .expect("there is room")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.data().with_extension("log")).unwrap_or_default()
    }
}

/// The one line that a broker prints with `log_format = json`.
fn banner_of(child: &mut Child) -> serde_json::Value {
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("it is piped");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("stdout can be read");
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[test]
fn with_json_the_banner_and_an_error_at_the_start_are_json_lines() {
    let folder = Folder::new();
    let mut command = serve(&folder.data());
    command.env("PRONTOMQ_LOG_FORMAT", "json").stdout(Stdio::piped()).stderr(folder.log_file());
    let mut child = command.spawn().expect("it can be started");
    let banner = banner_of(&mut child);
    assert_eq!(banner["message"], "Server startup complete; 0 plugins started.");
    for field in ["amqp", "metrics", "data_dir", "timestamp", "level"] {
        assert!(banner[field].is_string(), "{banner}");
    }
    // The lock, an unknown setting, a file that cannot be read.
    let mut locked = serve(&folder.data());
    locked.args(["--log-format", "json"]);
    let mut unknown = serve(&folder.data());
    unknown.env("PRONTOMQ_HEARTBEET", "1").env("PRONTOMQ_LOG_FORMAT", "json");
    let unreadable = folder.serve_with("log_format = \"json\"\nheartbeat = ");
    for (mut command, word) in [(locked, "in use by"), (unknown, "PRONTOMQ_HEARTBEAT"), (unreadable, "line 2")] {
        let output = run_to_end(&mut command);
        assert!(!output.status.success());
        let lines = json_lines(&stderr(&output));
        let last = lines.last().expect("it says why");
        assert_eq!(last["level"], "ERROR");
        assert!(last["message"].as_str().is_some_and(|message| message.contains(word)), "{last}");
    }
    signal_process(&child, Signal::TERM);
    assert!(child.wait().expect("it can be waited for").success());
    json_lines(&folder.log());
}

#[test]
fn the_start_logs_version_listeners_limits_and_what_was_recovered() {
    let folder = Folder::new();
    let broker = Broker::start(&folder.data());
    let mut client = Client::connect(broker.amqp);
    for name in ["a", "b", "c"] {
        client.queue(name, &[Flag::Durable], &[]);
    }
    client.exchange("x", "fanout", &[Flag::Durable], &[]);
    client.bind("a", "x", "", &[]);
    client.confirm_select();
    for _ in 0..5 {
        client.publish("", "b", &persistent(), b"x");
    }
    client.flush().expect("the broker reads");
    client.wait_for_confirms(1, 5);
    client.close();
    assert!(broker.terminate().0.success());
    let before = folder.log().len();
    let broker = Broker::start(&folder.data());
    let lines = json_lines(&folder.log()[before..]);
    let line =
        |message: &str| lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("{lines:?}"));
    assert_eq!(line("ProntoMQ starts")["version"], env!("CARGO_PKG_VERSION"));
    let recovered = line("recovered from the store");
    for (what, count) in
        [("vhosts", 1), ("users", 1), ("exchanges", 1), ("queues", 3), ("bindings", 1), ("messages", 5)]
    {
        assert_eq!(recovered[what], count, "{what}: {recovered}");
    }
    let addresses: Vec<_> =
        lines.iter().filter(|line| line["message"] == "listening").map(|line| &line["address"]).collect();
    let metrics = broker.metrics.expect("there is a metrics listener");
    assert_eq!(addresses, [&broker.amqp.to_string(), &metrics.to_string()]);
    assert_eq!(line("limits")["connections_max"], 100_000);
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

// ---- streams that cannot be written ------------------------------------------------------------------------------

/// A port that was free a moment ago, for a broker that cannot print the one that it picks.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").to_string()
}

/// Has clients come and go while a publisher waits for each of its confirms, and stops the broker in good order.
fn confirms_go_on(mut command: Command, folder: &Folder, is_dropped: bool) {
    let (amqp, metrics) = (free_address(), free_address());
    command.args(["--data-dir"]).arg(folder.data()).args(["--amqp", &amqp, "--metrics", &metrics]);
    command.env("PRONTOMQ_LOG_QUEUE_BYTES_MAX", "4KiB");
    let mut child = Guard(command.spawn().expect("the program can be started"));
    let address = amqp.parse().expect("it is one");
    wait_until("the broker accepts", || std::net::TcpStream::connect(amqp.as_str()).is_ok());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // 300 a second.
            while !done.load(Ordering::Relaxed) {
                Client::connect(address).close();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let mut client = Client::connect(address);
        client.queue("q", &[Flag::Durable], &[]);
        client.confirm_select();
        let began = Instant::now();
        let mut published = 0;
        while began.elapsed() < Duration::from_secs(2) || published < 200 {
            published += 1;
            client.publish("", "q", &persistent(), b"x");
            client.flush().expect("the broker reads");
            client.wait_for_confirms(published, published);
        }
        done.store(true, Ordering::Relaxed);
        client.close();
    });
    let page = http_get(&metrics, "/metrics");
    let dropped = page.lines().find_map(|line| line.strip_prefix("prontomq_log_lines_dropped_total "));
    let dropped: u64 = dropped.and_then(|count| count.parse().ok()).expect("it is counted");
    assert_eq!(dropped > 0, is_dropped, "{dropped} lines were dropped");
    signal_process(&child.0, Signal::TERM);
    let began = Instant::now();
    let status = child.0.wait().expect("it can be waited for");
    assert!(status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn http_get(address: &str, path: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).expect("the metrics listener accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    std::io::Write::write_all(&mut stream, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
        .expect("the request can be sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer is text");
    answer
}

#[test]
fn confirms_go_on_while_nobody_reads_the_log() {
    let folder = Folder::new();
    let (unread, writer) = std::io::pipe().expect("there is room for a pipe");
    let mut command = program();
    command.arg("serve").stdout(writer.try_clone().expect("there is room")).stderr(writer);
    confirms_go_on(command, &folder, true);
    drop(unread);
}

#[test]
fn confirms_go_on_when_the_reader_of_the_log_is_gone() {
    let folder = Folder::new();
    let (reader, writer) = std::io::pipe().expect("there is room for a pipe");
    drop(reader);
    let mut command = program();
    command.arg("serve").stdout(writer.try_clone().expect("there is room")).stderr(writer);
    confirms_go_on(command, &folder, true);
}

#[test]
fn confirms_go_on_while_there_is_no_room_for_the_log() {
    let folder = Folder::new();
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("it is there");
    let mut command = program();
    command.arg("serve").stdout(full()).stderr(full());
    confirms_go_on(command, &folder, true);
}

#[test]
fn confirms_go_on_without_standard_streams() {
    let folder = Folder::new();
    let broker = program();
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" >&- 2>&-"]).arg(broker.get_program()).arg("serve").stdin(Stdio::null());
    for (name, _) in broker.get_envs() {
        command.env_remove(name);
    }
    confirms_go_on(command, &folder, false);
}
