//! `prontomq sql`, and the questions of `docs/sql.md`: each is put to a file whose contents are known, live and at rest.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::internals::wire::properties::{PropertiesWriter, Property};
use prontomq::internals::wire::table::{Table, Value, write_table};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use support::broker::{program, run_to_end};
use support::client::{Flag, persistent};
use support::{Broker, Client};

/// What each question of the page brings to light, as CSV; the headings are the page's.
const ANSWERS: [(&str, &str); 10] = [
    (
        "Which queues are the longest?",
        "vhost,name,messages,bytes\n/,orders,4,6018\n/,dead,1,4\n/,mails,1,5\n/,empty,0,0\n/,late,0,0\n",
    ),
    ("Where does work lie about?", "vhost,name,messages,hours\n/,orders,4,2.0\n"),
    (
        "What comes next in a queue?",
        "level,position,priority,exchange,routing_key,size,redelivered\n\
         9,1,9,shop,order.urgent,6,0\n0,1,0,shop,order.new,5,0\n0,2,0,shop,order.new,7,0\n0,3,0,,orders,6000,0\n",
    ),
    ("What do the messages say?", "position,body\n1,urgent\n1,\"a,\"\"b\"\"\"\n2,1 beech\n"),
    ("Where is the message with this id?", "vhost,queue,level,position,age\n/,orders,0,2,AGE\n"),
    ("Whose messages are waiting?", "customer,messages\nanna,2\n,1\nbert,1\n"),
    (
        "Why did messages become dead letters, and where?",
        "vhost,queue,died_in,reason,messages\n/,dead,late,expired,1\n",
    ),
    (
        "Through which exchanges and keys did most bytes come?",
        "vhost,exchange,routing_key,messages,bytes\n/,,orders,1,6000\n/,shop,order.new,2,12\n/,shop,order.urgent,1,6\n/,,mails,1,5\n/,graves,late,1,4\n",
    ),
    ("What expires within the hour?", "vhost,queue,messages,first\n/,mails,1,TIME\n"),
    ("Which queues does no exchange feed?", "vhost,name,priorities\n/,empty,\n/,late,\n/,mails,\n"),
];

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sql.md")).expect("the page is there")
}

/// The statements of the page by the headings that they stand under.
fn questions() -> BTreeMap<String, String> {
    let page = page();
    let (_, questions) = page.split_once("## Ten questions").expect("the page has questions");
    let parts = questions.split("\n### ").skip(1);
    parts
        .map(|part| {
            let (heading, rest) = part.split_once('\n').expect("something stands below a heading");
            let (_, rest) = rest.split_once("```sql\n").expect("a statement stands below it");
            let (statement, _) = rest.split_once("```").expect("it ends");
            (heading.to_owned(), statement.to_owned())
        })
        .collect()
}

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("there is room"))
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn file(&self) -> PathBuf {
        self.data().join("prontomq.sqlite3")
    }

    fn sql(&self, arguments: &[&str]) -> Output {
        run_to_end(program().arg("sql").arg("--data-dir").arg(self.data()).args(arguments))
    }

    /// What a statement brings to light, as CSV with plain line ends.
    #[track_caller]
    fn csv(&self, statement: &str) -> String {
        let output = self.sql(&["--csv", statement]);
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("it is text").replace("\r\n", "\n")
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], why: &str) {
        let output = self.sql(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("prontomq sql: ") && said.contains(why), "{said:?} lacks {why:?}");
        assert!(output.stdout.is_empty());
    }
}

fn headers(customer: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_table(&mut bytes, |table| table.value(b"customer", Value::LongString(customer.as_bytes())));
    bytes.split_off(4)
}

fn order<'a>(id: &'a str, headers: &'a [u8]) -> PropertiesWriter<'a> {
    persistent().shortstr(Property::MessageId, id.as_bytes()).headers(Table::from_checked(headers))
}

/// A shop's queues and messages.
fn fill(broker: &Broker) {
    let mut client = Client::connect(broker.amqp);
    client.confirm_select();
    for (exchange, kind) in [("shop", "topic"), ("graves", "fanout")] {
        client.try_exchange(exchange, kind, &[Flag::Durable], &[]).expect("exchanges can be declared");
    }
    client.queue("orders", &[Flag::Durable], &[("x-max-priority", Value::U8(9))]);
    client.queue("mails", &[Flag::Durable], &[]);
    client.queue("empty", &[Flag::Durable], &[]);
    client.queue("passing", &[], &[]);
    client.queue("dead", &[Flag::Durable], &[]);
    let to_graves = ("x-dead-letter-exchange", Value::LongString(b"graves"));
    client.queue("late", &[Flag::Durable], &[("x-message-ttl", Value::I32(1)), to_graves]);
    client.bind("orders", "shop", "order.#", &[]);
    client.bind("dead", "graves", "", &[]);

    let (anna, bert) = (headers("anna"), headers("bert"));
    client.publish("shop", "order.new", &order("order-1", &anna), b"a,\"b\"");
    client.publish("shop", "order.new", &order("order-2", &bert), b"1 beech");
    client.publish("shop", "order.urgent", &order("order-3", &anna).priority(9), b"urgent");
    client.publish("", "orders", &persistent(), &[b'x'; 6_000]);
    client.publish("", "orders", &PropertiesWriter::new(), b"transient");
    client.publish("", "passing", &persistent(), b"not a durable queue");
    client.publish("", "mails", &persistent().shortstr(Property::Expiration, b"1800000"), b"Hello");
    client.publish("", "late", &persistent(), b"late");
    client.wait_for_confirms(1, 8);
    while client.message_count("dead") == 0 {}
    client.close();
}

#[test]
fn every_question_of_the_page_is_answered() {
    let questions = questions();
    let expected: BTreeMap<_, _> = ANSWERS.into_iter().collect();
    assert_eq!(questions.keys().map(String::as_str).collect::<Vec<_>>(), expected.keys().copied().collect::<Vec<_>>());
    let place = Place::new();
    let broker = Broker::start(&place.data());
    fill(&broker);
    assert!(broker.terminate().0.success());
    let writer = rusqlite::Connection::open(place.file()).expect("it can be opened");
    let earlier = "UPDATE message SET stored_at = stored_at - 7200000 \
                   WHERE id IN (SELECT lane << 40 | position FROM v_messages JOIN v_levels USING (queue, level) \
                   WHERE queue = 'orders')";
    assert_eq!(writer.execute(earlier, []).expect("it can be written"), 4);
    drop(writer);

    for live in [false, true] {
        let _broker = live.then(|| Broker::start(&place.data()));
        for (heading, statement) in &questions {
            let mut found = place.csv(statement);
            if heading == "Where is the message with this id?" {
                let (before, age) = found.trim_end().rsplit_once(',').expect("it has columns");
                assert!((7_200.0..7_300.0).contains(&age.parse::<f64>().expect("a number")), "{age}");
                found = format!("{before},AGE\n");
            }
            if heading == "What expires within the hour?" {
                let (before, time) = found.trim_end().rsplit_once(',').expect("it has columns");
                assert!(time.starts_with("20") && time.len() == 23, "{time}");
                found = format!("{before},TIME\n");
            }
            if heading == "Where does work lie about?" {
                let (before, hours) = found.trim_end().rsplit_once(',').expect("it has columns");
                let hours = hours.parse::<f64>().expect("a number");
                found = format!("{before},{hours:.1}\n");
            }
            assert_eq!(found, expected[heading.as_str()], "{heading} (live: {live})");
        }
    }
}

/// A store whose messages differ in one thing at a time; the page's statement must count those alone that it names.
#[test]
fn only_what_expires_in_the_hour_to_come_is_named_by_vhost_and_queue() {
    let place = Place::new();
    let broker = Broker::start(&place.data());
    let mut client = Client::connect(broker.amqp);
    client.confirm_select();
    client.queue("a", &[Flag::Durable], &[]);
    let mut numbers = 0..40_u64;
    numbers.by_ref().for_each(|number| {
        let properties = persistent().shortstr(Property::Expiration, b"86400000");
        client.publish("", "a", &properties, &number.to_be_bytes());
    });
    client.wait_for_confirms(1, 40);
    client.close();
    assert!(broker.terminate().0.success());
    let writer = rusqlite::Connection::open(place.file()).expect("it can be opened");
    let mut random = 0x9E37_79B9_7F4A_7C15_u64 ^ u64::from(std::process::id());
    for _ in 0..20 {
        // Minutes from now, none within a minute of a limit.
        let mut minutes = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            [-1_000, -2, 2, 30, 58, 62, 1_000][(random >> 33) as usize % 7]
        };
        let drawn: Vec<i64> = (0..40).map(|_| minutes()).collect();
        let now = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";
        for (at, minutes) in (1..).zip(&drawn) {
            let update =
                format!("UPDATE message SET expires_at = {now} + {minutes} * 60000 WHERE id & 0xFFFFFFFFFF = {at}");
            assert_eq!(writer.execute(&update, []).expect("it can be written"), 1);
        }
        let soon: Vec<i64> = drawn.iter().copied().filter(|minutes| (0..60).contains(minutes)).collect();
        let found = place.csv(&questions()["What expires within the hour?"]);
        let expected = soon.iter().min().map_or(0, |_| 1);
        assert_eq!(found.lines().count(), 1 + expected, "{drawn:?}: {found}");
        assert!(soon.is_empty() || found.contains(&format!("/,a,{},20", soon.len())), "{drawn:?}: {found}");
    }
}

#[test]
fn arguments_are_json_that_sqlites_functions_take_apart() {
    let place = Place::new();
    let broker = Broker::start(&place.data());
    fill(&broker);
    let late = "SELECT json_extract(arguments, '$.x-message-ttl') AS ttl, typeof(arguments) AS type, \
                arguments ->> 'x-dead-letter-exchange' AS exchange FROM v_queues WHERE name = 'late'";
    assert_eq!(place.csv(late), "ttl,type,exchange\n1,text,graves\n");
    let views = "SELECT sum(json_valid(arguments)) = count(*) FROM ";
    for view in ["v_queues", "v_exchanges", "v_bindings"] {
        assert!(place.csv(&format!("{views} {view}")).ends_with("\n1\n"), "{view}");
    }
    let earlier = "SELECT amqp_table(arguments) ->> 'x-max-priority' AS it FROM v_queues WHERE name = 'orders'";
    assert_eq!(place.csv(earlier), "it\n9\n", "as statements had to be written");
}

#[test]
fn arguments_are_objects_in_json_output() {
    let place = Place::new();
    let broker = Broker::start(&place.data());
    fill(&broker);
    let select = "SELECT name, arguments FROM v_queues WHERE name IN ('empty', 'late') ORDER BY name";
    let output = place.sql(&["--json", select]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let late = serde_json::json!({ "x-message-ttl": 1, "x-dead-letter-exchange": "graves" });
    let expected = serde_json::json!([{ "name": "empty", "arguments": {} }, { "name": "late", "arguments": late }]);
    assert_eq!(found, expected);
    let output = place.sql(&["--json", "SELECT 'a' AS arguments"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[\n{\"arguments\":\"a\"}\n]\n");
}

#[test]
fn after_a_stop_in_good_order_the_file_says_which_deliveries_will_be_marked_redelivered() {
    let place = Place::new();
    let broker = Broker::start(&place.data());
    let mut client = Client::connect(broker.amqp);
    client.confirm_select();
    client.queue("a", &[Flag::Durable], &[]);
    for body in [b"1", b"2", b"3"] {
        client.publish("", "a", &persistent(), body);
    }
    client.wait_for_confirms(1, 3);
    let taken = client.get("a").expect("there are messages");
    client.nack(taken.delivery_tag, true);
    client.close();
    assert!(broker.terminate().0.success());

    let redelivered = "SELECT position, redelivered FROM v_messages ORDER BY position";
    assert_eq!(place.csv(redelivered), "position,redelivered\n1,1\n2,0\n3,0\n");
    let broker = Broker::start(&place.data());
    let mut client = Client::connect(broker.amqp);
    let seen = [(); 3].map(|()| client.get("a").expect("there are messages").redelivered);
    assert_eq!(seen, [true, false, false], "as the file has it");
}

#[test]
fn the_sqlite3_of_the_system_reads_the_views_of_a_live_file() {
    if Command::new("sqlite3").arg("--version").output().is_err() {
        support::tell("skipped: no sqlite3");
        return;
    }
    let place = Place::new();
    let broker = Broker::start(&place.data());
    fill(&broker);
    let statement = "SELECT exchange, routing_key, size, priority, persistent FROM v_messages WHERE queue = 'orders' \
                     ORDER BY level DESC, position; SELECT sum(messages) FROM v_queues WHERE name <> 'late'; SELECT count(*) FROM v_bindings; \
                     SELECT name FROM v_users; SELECT name, queues FROM v_vhosts; SELECT queues FROM v_store; \
                     SELECT count(*) FROM v_exchanges WHERE type = 'topic'; SELECT count(*) FROM v_levels";
    let output = Command::new("sqlite3").arg("-readonly").arg(place.file()).arg(statement).output();
    let output = output.expect("sqlite3 can be run");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let expected = "shop|order.urgent|6|9|1\nshop|order.new|5|0|1\nshop|order.new|7|0|1\n|orders|6000|0|1\n\
                    6\n2\nguest\n/|5\n5\n";
    assert!(said.starts_with(expected), "{said} {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn rows_are_printed_in_three_ways_and_cut_with_a_word() {
    let place = Place::new();
    drop(Broker::start(&place.data()));
    let numbers =
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 5) SELECT x, 'a' AS y FROM n";
    let output = place.sql(&["--rows", "2", numbers]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "x  y\n-  -\n1  a\n2  a\n");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "prontomq sql: cut after 2 rows; --rows shows more\n");

    let output = place.sql(&["--json", "--rows", "5", numbers]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!(found.as_array().map(Vec::len), Some(5));
    assert_eq!(found[4], serde_json::json!({ "x": 5, "y": "a" }));
    assert!(output.stderr.is_empty(), "exactly as many as allowed is not cut");
    assert_eq!(place.csv(numbers).lines().count(), 6);
    let all = place.sql(&["--rows", "0", "--csv", &numbers.replace("x < 5", "x < 3000")]);
    assert_eq!(String::from_utf8_lossy(&all.stdout).lines().count(), 3_001);
}

#[test]
fn what_cannot_be_run_is_refused_with_the_reason() {
    let place = Place::new();
    place.refused(&["SELECT 1"], "no store in");
    drop(Broker::start(&place.data()));
    place.refused(&["DELETE FROM message"], "can only be read");
    place.refused(&["SELECT 1; SELECT 2"], "one statement");
    place.refused(&["  "], "no statement");
    place.refused(&["SELECT nonesuch FROM v_queues"], "no such column: nonesuch");
    place.refused(&["SELECT amqp_headers(x'00')"], "amqp_headers");
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n";
    place.refused(&["--timeout", "1", endless], "stopped after 1 s");
    let old = rusqlite::Connection::open(place.file()).expect("it can be opened");
    old.execute_batch("DROP VIEW v_messages").expect("it can be written");
    place.refused(&["SELECT * FROM v_messages"], "prontomq serve creates them");
}

#[test]
fn the_environment_names_the_data_directory() {
    let place = Place::new();
    drop(Broker::start(&place.data()));
    let mut command = program();
    command.args(["sql", "--csv", "SELECT schema FROM v_store"]).env("PRONTOMQ_DATA_DIR", place.data());
    assert_eq!(String::from_utf8_lossy(&run_to_end(&mut command).stdout), "schema\r\n4\r\n");
}
