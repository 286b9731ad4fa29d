//! The log of `prontomq serve`: what is logged, how it looks, and that the broker goes on whatever becomes of the log.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use rustix::process::Signal;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use support::broker::{amqp_address, program, run_to_end, serve, signal_process};
use support::client::{Failure, Flag, Login, persistent};
use support::folder::{Folder, login, may, stderr, wait_until};
use support::{Broker, Client, PATIENCE};

// ---- what is logged -----------------------------------------------------------------------------------------------------

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
    assert_eq!(
        Client::open(amqp, Login { vhost: "nowhere", ..Login::default() })
            .map(|_| ())
            .map_err(|failure| code(&failure)),
        Err(530)
    );
    let line = find("connection error", 530);
    assert!(line["text"].as_str().is_some_and(|text| text.contains("vhost nowhere not found")), "{line}");
    signal_process(&child, Signal::TERM);
    assert!(child.wait().expect("it can be waited for").success());
    let levels: Vec<_> = json_lines(&folder.log()).iter().map(|line| line["level"].clone()).collect();
    assert!(levels.iter().all(|level| level == "WARN"), "{levels:?}");
}

fn code(failure: &Failure) -> u16 {
    match failure {
        Failure::Connection(code, _) | Failure::Channel(code, _) => *code,
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

/// Waits for a line with this message of which `is_it` holds.
fn line_of(folder: &Folder, message: &str, is_it: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let find = || json_lines(&folder.log()).into_iter().find(|line| line["message"] == message && is_it(line));
    wait_until(message, || find().is_some());
    find().expect("it was there")
}

#[test]
fn an_error_of_the_connection_names_the_channel_and_the_method_that_it_came_with() {
    let folder = Folder::new();
    let broker = Broker::start(&folder.data());
    let mut client = Client::connect(broker.amqp);
    client.channel(2);
    // basic.qos with a prefetch size.
    client.write(2, (60, 10), |fields| fields.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0]));
    assert_eq!(client.next().map_err(|failure| code(&failure)), Err(540));
    let line = line_of(&folder, "connection error", |line| line["code"] == 540);
    assert_eq!((&line["channel"], &line["operation"]), (&2.into(), &"basic.qos".into()), "{line}");

    let mut client = Client::connect(broker.amqp);
    client.write(7, (50, 10), |fields| fields.extend_from_slice(&[0; 8]));
    assert_eq!(client.next().map_err(|failure| code(&failure)), Err(504));
    let line = line_of(&folder, "connection error", |line| line["code"] == 504);
    assert_eq!((&line["channel"], &line["operation"]), (&7.into(), &"queue.declare".into()), "{line}");
}

#[test]
fn a_refused_login_names_the_user_that_tried_and_the_vhost_that_was_asked_for() {
    let folder = Folder::new();
    let broker = Broker::start(&folder.data());
    may(&broker, login("guest", "wrong", "/")).expect_err("the password is wrong");
    let line = line_of(&folder, "connection error", |line| line["code"] == 403);
    assert_eq!((&line["user"], &line["operation"]), (&"guest".into(), &"connection.start-ok".into()), "{line}");
    let connection = line["connection"].clone();
    let line = line_of(&folder, "connection closed", |line| line["connection"] == connection);
    assert_eq!(line["user"], "guest", "{line}");

    may(&broker, login("guest", "guest", "nowhere")).expect_err("there is no such vhost");
    let line = line_of(&folder, "connection error", |line| line["code"] == 530);
    let named = |line: &serde_json::Value| (line["user"].clone(), line["vhost"].clone());
    assert_eq!(named(&line), ("guest".into(), "nowhere".into()), "{line}");
    let connection = line["connection"].clone();
    let line = line_of(&folder, "connection closed", |line| line["connection"] == connection);
    assert_eq!(named(&line), ("guest".into(), "nowhere".into()), "{line}");
}

#[test]
fn names_are_quoted_in_every_line() {
    let folder = Folder::new();
    let broker = folder.start_with("log_format = \"human\"\n[[vhosts]]\nname = \"shop\"");
    Client::connect(broker.amqp).close();
    folder.reload(&broker, "log_format = \"human\"");
    assert!(broker.terminate().0.success());
    let log = folder.log();
    for field in [" user=", " vhost="] {
        let values: Vec<_> = log.match_indices(field).map(|(at, _)| &log[at + field.len()..]).collect();
        assert!(values.len() > 1, "{log}");
        assert!(values.iter().all(|value| value.starts_with('"')), "{log}");
    }
}

#[test]
fn a_client_that_is_lost_is_a_warning_and_a_health_check_is_none() {
    let folder = Folder::new();
    let broker = Broker::start(&folder.data());
    drop(std::net::TcpStream::connect(broker.amqp).expect("the broker accepts"));
    Client::connect(broker.amqp).drop_socket();
    let silent = Client::open(broker.amqp, Login { heartbeat_seconds: 1, ..Login::default() });
    let closed = |reason: &str| line_of(&folder, "connection closed", |line| line["reason"] == reason);
    for reason in ["the client closed the socket without a close", "missed heartbeats from the client"] {
        let line = closed(reason);
        assert_eq!(line["level"], "WARN", "{line}");
    }
    drop(silent);
    Client::connect(broker.amqp).close();
    let line = closed("closed by the client: 200 goodbye");
    assert_eq!(line["level"], "INFO", "{line}");
    let ends = json_lines(&folder.log()).iter().filter(|line| line["message"] == "connection closed").count();
    assert_eq!(ends, 3, "{}", folder.log());
}

#[test]
fn a_stop_says_how_many_clients_did_not_answer_and_its_last_line_is_that_it_is_over() {
    const UNANSWERED: &str = "clients that did not answer connection.close are cut off";
    for is_answered in [true, false] {
        let folder = Folder::new();
        let broker = Broker::start(&folder.data());
        let mut clients = [(); 3].map(|()| Client::connect(broker.amqp));
        std::thread::scope(|scope| {
            if is_answered {
                clients.iter_mut().for_each(|client| drop(scope.spawn(|| client.next())));
            }
            let (status, took) = broker.terminate();
            assert!(status.success());
            assert_eq!(took < Duration::from_secs(1), is_answered, "{took:?}");
        });
        let lines = json_lines(&folder.log());
        assert_eq!(lines.iter().filter(|line| line["message"] == "connection closed").count(), 3, "{lines:?}");
        assert_eq!(lines.last().expect("there are lines")["message"], "stopped");
        let open = lines.iter().find(|line| line["message"] == UNANSWERED).map(|line| line["open"].clone());
        assert_eq!(open, (!is_answered).then(|| 3.into()));
    }
}

#[test]
fn a_vhost_that_a_reload_withholds_is_named_and_its_clients_hear_that_it_is_kept() {
    let folder = Folder::new();
    let user = "[[users]]\nname = \"clerk\"\npassword = \"clerk\"\nvhosts = [";
    let broker = folder.start_with(&format!("{user}\"/\", \"shop\"]\n[[vhosts]]\nname = \"shop\""));
    let mut client = Client::open(broker.amqp, login("clerk", "clerk", "shop")).expect("clerk may use it");
    let log = folder.reload(&broker, &format!("{user}\"/\"]"));
    let told = client.next().map(|_| ()).map_err(|failure| match failure {
        Failure::Connection(320, text) => text,
        other => panic!("{other:?}"),
    });
    let told = told.expect_err("the connection is closed");
    assert!(told.contains("vhost 'shop'") && told.contains("kept") && !told.contains("deleted"), "{told}");
    let lines = json_lines(&log);
    let line = lines.iter().find(|line| line["vhost"] == "shop" && line["level"] == "WARN");
    let line = line.unwrap_or_else(|| panic!("{log}"));
    assert!(line["message"].as_str().is_some_and(|message| message.contains("keeps its queues")), "{line}");
    // Another reload changes nothing for it.
    let log = folder.reload(&broker, &format!("{user}\"/\"]"));
    assert!(json_lines(&log).iter().all(|line| line["level"] != "WARN"), "{log}");
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
