//! The local socket lists what the broker holds and what was done: totals, queues, exchanges, connections.

#[allow(dead_code, unused_imports, reason = "each test takes from the support what it needs")]
mod support;

use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use support::broker::serve;
use support::client::{Flag, persistent};
use support::folder::{Folder, wait_until};
use support::{Broker, Client, PATIENCE};

const MESSAGES: u64 = 5;

struct Answer {
    items: Vec<Value>,
    done: Value,
}

impl Answer {
    #[track_caller]
    fn named(&self, name: &str) -> &Value {
        self.items.iter().find(|item| item["name"] == name).unwrap_or_else(|| panic!("{name} in {:?}", self.items))
    }
}

fn ask(data: &Path, request: &str) -> Answer {
    let mut stream = UnixStream::connect(data.join("prontomq.sock")).expect("the broker listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.write_all(format!("{request}\n").as_bytes()).expect("the broker reads");
    let mut items = Vec::new();
    for line in BufReader::new(stream).lines() {
        let mut line: Value = serde_json::from_str(&line.expect("the answer comes in time")).expect("a line is JSON");
        match line.get_mut("item") {
            Some(item) => items.push(item.take()),
            None => return Answer { items, done: line["done"].take() },
        }
    }
    panic!("the answer has no end")
}

fn list(data: &Path, what: &str) -> Answer {
    ask(data, &format!("{{\"command\":\"list\",\"what\":\"{what}\"}}"))
}

#[test]
fn queues_exchanges_and_connections_are_listed_with_what_they_have_done() {
    let folder = Folder::new();
    let broker = Broker::start(&folder.data());
    let mut client = Client::connect(broker.amqp);
    client.queue("work", &[Flag::Durable], &[]);
    client.queue("own", &[Flag::Exclusive], &[]);
    client.exchange("tasks", "fanout", &[Flag::Durable], &[]);
    client.bind("work", "tasks", "", &[]);
    client.bind("own", "tasks", "", &[]);
    client.confirm_select();
    for body in 0..MESSAGES {
        client.publish("tasks", "any", &persistent(), &body.to_be_bytes());
    }
    client.publish("", "work", &persistent(), b"last");
    client.wait_for_confirms(1, MESSAGES + 1);
    let got = client.get("work").expect("it is there");
    client.ack(got.delivery_tag, false);
    let unacked = client.get("work").expect("it is there");
    assert_eq!(unacked.number(), 1);

    let queues = list(&folder.data(), "queues");
    assert_eq!(queues.done["count"], 2);
    let names: Vec<_> = queues.items.iter().map(|queue| queue["name"].as_str().unwrap_or_default()).collect();
    assert_eq!(names, ["own", "work"]);
    let (own, work) = (queues.named("own"), queues.named("work"));
    assert_eq!((&own["ready"], &own["published"], own["exclusive_to"].is_u64()), (&5.into(), &5.into(), true));
    assert_eq!((&work["published"], &work["got"], &work["acknowledged"]), (&6.into(), &2.into(), &1.into()));
    assert_eq!((&work["ready"], &work["unacked"], work["exclusive_to"].is_null()), (&4.into(), &1.into(), true));

    let exchanges = list(&folder.data(), "exchanges");
    assert_eq!(exchanges.items.len(), 8, "one, and seven that every vhost has");
    assert_eq!((&exchanges.named("tasks")["published"], &exchanges.named("tasks")["routed"]), (&5.into(), &10.into()));
    assert_eq!((&exchanges.named("")["published"], &exchanges.named("")["routed"]), (&1.into(), &1.into()));
    assert_eq!(exchanges.named("tasks")["type"], "fanout");
    assert_eq!(exchanges.named("amq.direct")["published"], 0);

    // What a pass has done is added at its end, behind its last write.
    wait_until("all traffic is counted", || list(&folder.data(), "connections").items[0]["confirmed"] == MESSAGES + 1);
    let connections = list(&folder.data(), "connections");
    let connection = &connections.items[0];
    assert_eq!((&connection["user"], &connection["vhost"]), (&"guest".into(), &"/".into()));
    assert_eq!(connection["id"], own["exclusive_to"]);
    assert_eq!((&connection["channels"], &connection["published"]), (&1.into(), &6.into()));
    assert!(connection["bytes_in"].as_u64() > Some(100) && connection["writes"].as_u64() > Some(0), "{connection}");
    assert_eq!(connection["client"], client.stream().local_addr().expect("it is open").to_string());

    let status = ask(&folder.data(), "{\"command\":\"status\"}").done;
    assert_eq!((&status["connections"], &status["channels"], &status["queues"]), (&1.into(), &1.into(), &2.into()));
    assert_eq!((&status["ready"], &status["unacked"]), (&9.into(), &1.into()));
    assert_eq!((&status["published"], &status["store"]), (&6.into(), &"ok".into()));
    assert_eq!(status["refused_by_limit"], serde_json::json!({}));

    client.close();
    wait_until("the connection is gone", || list(&folder.data(), "connections").items.is_empty());
    assert_eq!(list(&folder.data(), "queues").items.len(), 1, "the exclusive queue is gone");
}

#[test]
fn a_queue_and_an_exchange_that_are_declared_anew_begin_at_zero() {
    let folder = Folder::new();
    let broker = Broker::start(&folder.data());
    let mut client = Client::connect(broker.amqp);
    for round in 1..=2 {
        client.queue("q", &[], &[]);
        client.exchange("x", "direct", &[], &[]);
        client.bind("q", "x", "k", &[]);
        for _ in 0..round {
            client.publish("x", "k", &persistent(), b"");
        }
        assert_eq!(client.message_count("q"), round);
        assert_eq!(list(&folder.data(), "exchanges").named("x")["published"], round);
        assert_eq!(list(&folder.data(), "queues").named("q")["published"], round);
        client.delete_queue("q");
        let fields = |fields: &mut Vec<u8>| fields.extend_from_slice(&[0, 0, 1, b'x', 0]);
        client.call(1, (40, 20), fields).expect("it is there");
    }
}

fn lines_for(data: &Path, requests: &[u8]) -> Vec<String> {
    let mut stream = UnixStream::connect(data.join("prontomq.sock")).expect("the broker listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    stream.write_all(requests).expect("the broker reads");
    stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    BufReader::new(stream).lines().map(|line| line.expect("the answer comes in time")).collect()
}

#[test]
fn a_line_that_is_no_request_is_refused_with_the_reason_and_the_next_one_answered() {
    let folder = Folder::new();
    let _broker = Broker::start(&folder.data());
    let wrong: [(&[u8], &str); 4] = [
        (b"{\"command\":\"list\",\"what\":\"moons\"}", "moons"),
        (b"{\"command\":\"fly\"}", "fly"),
        (b"{", "not a JSON object"),
        (b"", "not a JSON object"),
    ];
    for (line, why) in wrong {
        // The last line may lack its end.
        let lines = lines_for(&folder.data(), &[line, b"\n{\"command\":\"status\"}"].concat());
        let [error, status] = &lines[..] else { panic!("two answers: {lines:?}") };
        assert!(error.starts_with("{\"error\":\"not a valid request: ") && error.contains(why), "{error}");
        assert!(!error.contains("column"), "{error}");
        assert!(status.starts_with("{\"done\""), "{status}");
    }
    for len in [64 * 1024, 65 * 1024, 300 * 1024] {
        let lines = lines_for(&folder.data(), &[&vec![b'x'; len], &b"\n{\"command\":\"status\"}\n"[..]].concat());
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("longer than 65536 bytes") && lines[1].starts_with("{\"done\""), "{lines:?}");
    }
}

#[test]
fn a_stop_does_not_wait_for_a_client_that_does_not_read_its_list() {
    let folder = Folder::new();
    let mut command = serve(&folder.data());
    command.args(["--log-level", "debug"]);
    let broker = Broker::run(command, &folder.data());
    let mut client = Client::connect(broker.amqp);
    for number in 0..2_000 {
        client.queue(&format!("{number:->200}"), &[], &[]);
    }
    client.close();
    let mut reader = UnixStream::connect(folder.data().join("prontomq.sock")).expect("the broker listens");
    let request = b"{\"command\":\"list\",\"what\":\"queues\"}\n";
    reader.write_all(&request.repeat(4)).expect("the broker reads");
    broker.signal(rustix::process::Signal::TERM);
    wait_until("the broker has stopped", || broker.log().contains("\"stopped\""));
    assert!(!broker.log().contains("have not ended"), "{}", broker.log());
    drop(reader);
}
