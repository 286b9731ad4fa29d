//! What outlives the process, ended in good order or killed: durable things with everything that was said of them, and
//! persistent messages with everything that they carry. Nothing else does.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::internals::wire::properties::{PropertiesWriter, Property};
use prontomq::internals::wire::table::{Table, TableWriter, Value};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use support::client::{Delivery, Failure, Flag, persistent};
use support::{Broker, Client, tell};

/// How a life of the broker ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Terminated,
    Killed,
}

/// A data directory, and the broker that lives on it now.
struct Place {
    data: PathBuf,
    broker: Option<Broker>,
    _folder: tempfile::TempDir,
}

impl Place {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("there is room");
        let data = folder.path().join("data");
        let broker = Some(Broker::start(&data));
        Self { data, broker, _folder: folder }
    }

    fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("it lives")
    }

    fn connect(&self) -> Client {
        Client::connect(self.broker().amqp)
    }

    /// Ends the broker and starts the next one; how long that took to be ready.
    fn restart(&mut self, end: End) -> Duration {
        let broker = self.broker.take().expect("it lives");
        match end {
            End::Terminated => assert!(broker.terminate().0.success()),
            End::Killed => broker.kill(),
        }
        self.broker.insert(Broker::start(&self.data)).startup
    }
}

/// Publishes and waits until the broker has it safe.
fn publish(client: &mut Client, confirmed: &mut u64, to: (&str, &str), properties: &PropertiesWriter<'_>, body: &str) {
    client.publish(to.0, to.1, properties, body.as_bytes());
    *confirmed += 1;
    client.wait_for_confirms(*confirmed, *confirmed);
}

fn get(client: &mut Client, queue: &str) -> Delivery {
    client.get(queue).unwrap_or_else(|| panic!("{queue} has a message"))
}

/// The texts of all messages of a queue, in order, with their redelivered flags; acknowledged.
fn drain(client: &mut Client, queue: &str) -> Vec<(String, bool)> {
    let mut texts = Vec::new();
    while let Some(delivery) = client.get(queue) {
        client.ack(delivery.delivery_tag, false);
        texts.push((delivery.text().to_owned(), delivery.redelivered));
    }
    texts
}

/// The call fails with this code on its channel, which is opened again.
fn assert_fails<T: std::fmt::Debug>(
    client: &mut Client,
    code: u16,
    call: impl FnOnce(&mut Client) -> Result<T, Failure>,
) {
    match call(client) {
        Err(Failure::Channel(found, _)) if found == code => client.channel(1),
        other => panic!("{other:?} instead of {code}"),
    }
}

fn long(text: &str) -> Value<'_> {
    Value::LongString(text.as_bytes())
}

fn durable_things_survive(end: End) {
    let queue_arguments =
        [("x-max-priority", Value::I32(5)), ("x-message-ttl", Value::I32(3_600_000)), ("x-note", long("kept"))];
    let headers_arguments = [("x-match", long("all")), ("kind", long("job")), ("size", Value::I32(3))];
    let alternate = [("alternate-exchange", long("unrouted"))];

    let mut place = Place::start();
    let mut client = place.connect();
    client.exchange("unrouted", "fanout", &[Flag::Durable], &[]);
    client.exchange("events", "topic", &[Flag::Durable], &alternate);
    client.exchange("sorted", "headers", &[Flag::Durable], &[]);
    client.exchange("passing", "direct", &[], &[]);
    client.queue("arguments", &[Flag::Durable], &queue_arguments);
    for queue in ["by-topic", "by-headers", "left-over", "deleted", "unbound"] {
        client.queue(queue, &[Flag::Durable], &[]);
    }
    client.queue("passing", &[], &[]);
    client.queue("mine", &[Flag::Durable, Flag::Exclusive], &[]);
    client.bind("by-topic", "events", "a.*", &[]);
    client.bind("deleted", "events", "a.*", &[]);
    client.bind("by-headers", "sorted", "", &headers_arguments);
    client.bind_exchange("sorted", "events", "b.#", &[]);
    client.bind("left-over", "unrouted", "", &[]);
    client.confirm_select();
    let mut confirmed = 0;
    publish(&mut client, &mut confirmed, ("", "deleted"), &persistent(), "gone with its queue");
    client.delete_queue("deleted");

    place.restart(end);
    let mut client = place.connect();
    for (name, kind, arguments) in
        [("unrouted", "fanout", &[][..]), ("events", "topic", &alternate), ("sorted", "headers", &[])]
    {
        client.exchange(name, kind, &[Flag::Passive], &[]);
        // Not made anew, but found equivalent: with other properties, it is refused.
        client.exchange(name, kind, &[Flag::Durable], arguments);
        assert_fails(&mut client, 406, |client| client.try_exchange(name, "direct", &[Flag::Durable], arguments));
        assert_fails(&mut client, 406, |client| client.try_exchange(name, kind, &[], arguments));
    }
    assert_fails(&mut client, 404, |client| client.try_exchange("passing", "direct", &[Flag::Passive], &[]));
    for gone in ["passing", "mine", "deleted"] {
        assert_fails(&mut client, 404, |client| client.try_queue(gone, &[Flag::Passive], &[]));
    }
    client.queue("arguments", &[Flag::Durable], &queue_arguments);
    assert_fails(&mut client, 406, |client| client.try_queue("arguments", &[Flag::Durable], &queue_arguments[1..]));

    let deleted = client.queue("deleted", &[Flag::Durable], &[]);
    assert_eq!(deleted.message_count, 0, "a queue of that name begins empty");
    client.confirm_select();
    let mut confirmed = 0;
    let mut headers = Vec::new();
    let mut table = TableWriter::new(&mut headers);
    headers_arguments[1..].iter().for_each(|(key, value)| table.value(key.as_bytes(), *value));
    let of_a_job = persistent().headers(Table::check(&headers).expect("a table").0);
    publish(&mut client, &mut confirmed, ("events", "a.x"), &persistent(), "by topic");
    publish(&mut client, &mut confirmed, ("events", "b.x.y"), &of_a_job, "by two exchanges");
    publish(&mut client, &mut confirmed, ("events", "b.x.y"), &persistent(), "no headers");
    publish(&mut client, &mut confirmed, ("events", "c"), &persistent(), "to the alternate exchange");
    let texts = |client: &mut Client, queue: &str| -> Vec<String> {
        drain(client, queue).into_iter().map(|(text, _)| text).collect()
    };
    assert_eq!(texts(&mut client, "by-topic"), ["by topic"]);
    assert_eq!(texts(&mut client, "by-headers"), ["by two exchanges"]);
    let left_over = texts(&mut client, "left-over");
    assert_eq!(left_over.last().map(String::as_str), Some("to the alternate exchange"));
    assert!(!left_over.contains(&"by topic".to_owned()));
    for empty in ["deleted", "unbound"] {
        assert_eq!(client.message_count(empty), 0, "{empty}");
    }
}

#[test]
fn durable_things_survive_a_termination_and_others_do_not() {
    durable_things_survive(End::Terminated);
}

#[test]
fn durable_things_survive_a_kill_and_others_do_not() {
    durable_things_survive(End::Killed);
}

fn persistent_messages_survive(end: End) {
    let mut place = Place::start();
    let mut client = place.connect();
    client.queue("sorted", &[Flag::Durable], &[("x-max-priority", Value::I32(5))]);
    client.queue("plain", &[Flag::Durable], &[]);
    client.queue("passing", &[], &[]);
    client.confirm_select();
    let mut confirmed = 0;

    let mut headers = Vec::new();
    let mut table = TableWriter::new(&mut headers);
    table.value(b"attempt", Value::I64(7));
    table.table(b"nested", |nested| nested.value(b"price", Value::Decimal { scale: 2, value: 1999 }));
    let headers = Table::check(&headers).expect("a table").0;
    let full = persistent()
        .headers(headers)
        .priority(3)
        .timestamp(1_700_000_000)
        .shortstr(Property::ContentType, b"text/plain")
        .shortstr(Property::CorrelationId, b"c-1")
        .shortstr(Property::ReplyTo, b"answers")
        .shortstr(Property::Expiration, b"3600000")
        .shortstr(Property::MessageId, b"m-1")
        .shortstr(Property::Type, b"job")
        .shortstr(Property::AppId, b"test");
    publish(&mut client, &mut confirmed, ("", "sorted"), &full, "with everything");
    for (priority, body) in [(1, "low"), (5, "high"), (1, "low too"), (5, "high too")] {
        publish(&mut client, &mut confirmed, ("", "sorted"), &persistent().priority(priority), body);
    }
    let transient = PropertiesWriter::new().delivery_mode(1);
    publish(&mut client, &mut confirmed, ("", "sorted"), &transient, "not persistent");
    publish(&mut client, &mut confirmed, ("", "passing"), &persistent(), "in no durable queue");
    for body in ["acknowledged", "given back", "in a client's hands", "untouched", "untouched too"] {
        publish(&mut client, &mut confirmed, ("", "plain"), &persistent(), body);
    }
    let [first, second, third] = [(); 3].map(|()| get(&mut client, "plain").delivery_tag);
    client.ack(first, false);
    client.nack(second, true);
    assert_eq!(client.message_count("plain"), 3, "one is acknowledged, one in our hands");
    assert_eq!(third, first + 2);

    place.restart(end);
    let mut client = place.connect();
    assert_eq!(client.message_count("sorted"), 5);
    let sorted: Vec<Delivery> = (0..5).map(|_| get(&mut client, "sorted")).collect();
    let texts: Vec<&str> = sorted.iter().map(Delivery::text).collect();
    assert_eq!(texts, ["high", "high too", "with everything", "low", "low too"]);
    assert_eq!(sorted[2].properties().raw(), full.to_vec(), "not a byte of the properties differs");
    let priorities: Vec<Option<u8>> = sorted.iter().map(|delivery| delivery.properties().priority()).collect();
    assert_eq!(priorities, [5, 5, 3, 1, 1].map(Some));

    let plain = drain(&mut client, "plain");
    let mut plain = plain.iter().map(|(text, redelivered)| (text.as_str(), *redelivered));
    let mut next = plain.next();
    if end == End::Killed && next == Some(("acknowledged", true)) {
        // Acknowledged less than a second before the kill; it may come again.
        next = plain.next();
    }
    assert_eq!(next, Some(("given back", true)));
    assert_eq!(plain.next(), Some(("in a client's hands", true)));
    let untouched: Vec<_> = plain.collect();
    match end {
        End::Terminated => assert_eq!(untouched, [("untouched", false), ("untouched too", false)]),
        // After a kill the broker may say redelivered of more than was delivered, never of less.
        End::Killed => {
            let texts: Vec<&str> = untouched.iter().map(|(text, _)| *text).collect();
            assert_eq!(texts, ["untouched", "untouched too"]);
        }
    }
    if end == End::Terminated {
        assert!(sorted.iter().all(|delivery| !delivery.redelivered), "nobody had seen them");
    }
}

#[test]
fn persistent_messages_survive_a_termination_with_all_they_carry() {
    persistent_messages_survive(End::Terminated);
}

#[test]
fn persistent_messages_survive_a_kill_with_all_they_carry() {
    persistent_messages_survive(End::Killed);
}

fn dead_letters_survive(end: End) {
    const TTL: Duration = Duration::from_millis(500);
    let mut place = Place::start();
    let mut client = place.connect();
    let to_dead = [("x-dead-letter-exchange", long("")), ("x-dead-letter-routing-key", long("dead"))];
    client.queue("source", &[Flag::Durable], &to_dead);
    client.queue("dead", &[Flag::Durable], &[]);
    client.confirm_select();
    let mut confirmed = 0;
    publish(&mut client, &mut confirmed, ("", "source"), &persistent(), "rejected");
    let delivery = get(&mut client, "source");
    client.nack(delivery.delivery_tag, false);
    let expiration = TTL.as_millis().to_string();
    let brief = persistent().shortstr(Property::Expiration, expiration.as_bytes());
    let published = Instant::now();
    publish(&mut client, &mut confirmed, ("", "source"), &brief, "expired");
    client.consume("dead", "dead");
    assert_eq!(client.delivery().text(), "rejected");
    // A rejection is an acknowledgement, which a kill may overtake: this one has arrived.
    place.broker().wait_for_metric("prontomq_store_rows_removed_total", |removed| removed >= 1.0);

    place.restart(end);
    let mut client = place.connect();
    client.consume("dead", "dead");
    let [first, second] = [(); 2].map(|()| client.delivery());
    assert_eq!([first.text(), second.text()], ["rejected", "expired"]);
    assert!(first.redelivered, "it was in a consumer's hands");
    assert!(published.elapsed() >= TTL, "it came too early");
    for (delivery, reason) in [(&first, "rejected"), (&second, "expired")] {
        let headers = delivery.properties().headers().expect("it has x-death");
        assert_eq!(headers.get(b"x-first-death-queue"), Some(long("source")));
        assert_eq!(headers.get(b"x-first-death-reason"), Some(long(reason)));
        assert!(matches!(headers.get(b"x-death"), Some(Value::Array(_))));
        client.ack(delivery.delivery_tag, false);
    }
    client.queue("source", &[Flag::Durable], &to_dead);
    assert_eq!(client.message_count("source"), 0, "it moved, it was not copied");
    place.restart(End::Terminated);
    let mut client = place.connect();
    assert_eq!([client.message_count("source"), client.message_count("dead")], [0, 0]);
}

#[test]
fn dead_letters_survive_a_termination_and_messages_expire_after_it() {
    dead_letters_survive(End::Terminated);
}

#[test]
fn dead_letters_survive_a_kill_and_messages_expire_after_it() {
    dead_letters_survive(End::Killed);
}

#[test]
fn a_long_backlog_starts_at_once_and_drains_completely_in_order_while_publishing_goes_on() {
    const BACKLOG: u64 = 100_000;
    const MORE: u64 = 20_000;
    const PUBLISHES_AHEAD: u64 = 2_000;
    const ACK_EVERY: u64 = 200;
    let publish_numbers = |client: &mut Client, numbers: std::ops::Range<u64>| {
        client.confirm_select();
        let first = numbers.start;
        for number in numbers.clone() {
            client.publish("", "backlog", &persistent(), &number.to_be_bytes());
            let sequence = number - first + 1;
            if sequence.is_multiple_of(PUBLISHES_AHEAD) || number + 1 == numbers.end {
                client.wait_for_confirms(sequence.saturating_sub(PUBLISHES_AHEAD) + 1, sequence);
            }
        }
    };
    let mut place = Place::start();
    let mut client = place.connect();
    client.queue("backlog", &[Flag::Durable], &[]);
    let began = Instant::now();
    publish_numbers(&mut client, 0..BACKLOG);
    let published = began.elapsed();
    let after_kill = place.restart(End::Killed);
    let after_stop = place.restart(End::Terminated);

    let mut publisher = place.connect();
    let mut client = place.connect();
    assert_eq!(u64::from(client.message_count("backlog")), BACKLOG);
    let began = Instant::now();
    let drained = thread::scope(|scope| {
        scope.spawn(|| publish_numbers(&mut publisher, BACKLOG..BACKLOG + MORE));
        client.qos(1000);
        client.consume("backlog", "drain");
        for number in 0..BACKLOG + MORE {
            let delivery = client.delivery();
            assert_eq!(delivery.number(), number);
            if (number + 1) % ACK_EVERY == 0 {
                client.ack(delivery.delivery_tag, true);
            }
        }
        began.elapsed()
    });
    tell(&format!(
        "{BACKLOG} messages published in {published:?}; startup complete {after_kill:?} after a kill, {after_stop:?} \
         after a stop; these and {MORE} more drained in {drained:?}"
    ));
    assert!(after_kill.max(after_stop) < Duration::from_secs(2), "a start does not read the backlog");
    client.close();
    place.restart(End::Terminated);
    assert_eq!(place.connect().message_count("backlog"), 0);
}
