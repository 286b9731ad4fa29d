//! What one client can make grow, and how far: each limit is reached, and what was held is given back.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::internals::wire::properties::{PropertiesWriter, Property};
use prontomq::internals::wire::table::{Value, write_table};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::client::{Failure, Flag, Login, persistent};
use support::{Broker, Client, PATIENCE, tell};
use tempfile::TempDir;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const BODY_FRAME: u8 = 3;
const ALARM: &str = "rabbitmq_alarms_memory_used_watermark";

/// A broker with settings of its own, and its directory.
struct Limited {
    broker: Broker,
    _directory: TempDir,
}

fn limited(settings: &[(&str, &str)]) -> Limited {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let data: PathBuf = directory.path().join("data");
    let mut command = support::broker::serve(&data);
    for (name, value) in settings {
        command.env(format!("PRONTOMQ_{}", name.replace('.', "_").to_uppercase()), value);
    }
    Limited { broker: Broker::run(command, &data), _directory: directory }
}

impl Limited {
    fn client(&self) -> Client {
        Client::connect(self.broker.amqp)
    }

    fn held(&self, part: &str) -> u64 {
        self.broker.labelled("prontomq_memory_bytes", part)
    }

    fn refused(&self, limit: &str) -> u64 {
        self.broker.labelled("prontomq_limit_refusals_total", limit)
    }

    fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < PATIENCE, "{what}: {}", self.broker.http_get("/metrics").1);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn wait_for_alarm(&self, is_on: bool) {
        self.broker.wait_for_metric(ALARM, |alarm| (alarm > 0.0) == is_on);
    }

    /// Another client is served as if nothing was.
    fn still_confirms(&self) {
        let mut other = self.client();
        other.confirm_select();
        other.publish("", "nowhere", &PropertiesWriter::new(), b"x");
        other.wait_for_confirms(1, 1);
    }
}

/// The errors of channels that come next.
fn channel_errors(client: &mut Client) -> Vec<(u16, String)> {
    let mut errors = Vec::new();
    while let Some(come) = client.next_within(Duration::from_millis(300)) {
        match come {
            Err(Failure::Channel(code, text)) => errors.push((code, text)),
            other => panic!("{other:?} instead of a closed channel"),
        }
    }
    errors
}

#[test]
fn unfinished_bodies_of_one_connection_are_bounded_and_what_they_held_is_given_back() {
    let limit = 4 * MIB;
    let limited = limited(&[("limits.connection_unfinished_bytes", "4 MiB")]);
    let mut client = limited.client();
    (2..=8).for_each(|channel| client.channel(channel));
    let mut most = 0;
    for _ in 0..20 {
        for channel in 1..=8 {
            client.begin_publish(channel, "nowhere", 64 * MIB);
        }
        for _ in 0..20 {
            for channel in 1..=8 {
                client.frame(BODY_FRAME, channel, &[b'x'; 60_000]);
            }
            client.flush().expect("the broker reads on");
        }
        most = most.max(limited.held("unfinished"));
        let errors = channel_errors(&mut client);
        assert!(!errors.is_empty());
        assert!(errors.iter().all(|(code, text)| *code == 506 && text.starts_with("RESOURCE_ERROR")), "{errors:?}");
        if limited.refused("limits.connection_unfinished_bytes") >= 16 {
            break;
        }
        // All that were closed are opened again, the others are begun anew with their connection.
        client.drop_socket();
        client = limited.client();
        (2..=8).for_each(|channel| client.channel(channel));
    }
    tell(&format!("unfinished bodies of a connection: at most {most} of {limit} bytes"));
    assert!(most <= limit + MIB, "{most}");
    limited.still_confirms();
    client.drop_socket();
    limited.wait_until("all is given back", |limited| limited.held("unfinished") == 0);
}

#[test]
fn the_rest_of_a_content_that_was_too_much_is_thrown_away_and_its_channel_can_be_opened_again() {
    let limited = limited(&[("limits.connection_unfinished_bytes", "1 MiB")]);
    let mut client = limited.client();
    client.queue("q", &[], &[]);
    client.begin_publish(1, "q", 4 * MIB);
    let pieces = 4 * MIB / 65_536;
    (0..pieces - 1).for_each(|_| client.frame(BODY_FRAME, 1, &[b'x'; 65_536]));
    client.flush().expect("the broker reads on");
    let errors = channel_errors(&mut client);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(limited.held("unfinished") < 64 * KIB);
    // The client closed the channel in the middle of a content; a new one begins anew.
    client.channel(1);
    client.publish("", "q", &PropertiesWriter::new(), b"small");
    assert_eq!(client.get("q").expect("it is there").body, b"small");
}

#[test]
fn unfinished_bodies_of_all_connections_share_one_limit() {
    let limited = limited(&[("limits.unfinished_bytes", "6 MiB"), ("limits.connection_unfinished_bytes", "4 MiB")]);
    let mut clients: Vec<Client> = (0..6).map(|_| limited.client()).collect();
    for client in &mut clients {
        client.begin_publish(1, "nowhere", 64 * MIB);
        (0..40).for_each(|_| client.frame(BODY_FRAME, 1, &[b'x'; 65_536]));
        client.flush().expect("the broker reads on");
        client.next_within(Duration::from_millis(100));
    }
    let held = limited.held("unfinished");
    tell(&format!("unfinished bodies of all connections: {held} of {} bytes", 6 * MIB));
    assert!((3 * MIB..=7 * MIB).contains(&held), "{held}");
    assert!(limited.refused("limits.unfinished_bytes") >= 3);
    limited.still_confirms();
}

#[test]
fn a_transaction_that_is_too_much_is_closed_as_a_whole() {
    let limited = limited(&[("limits.connection_unfinished_bytes", "1 MiB")]);
    let mut client = limited.client();
    client.queue("q", &[], &[]);
    for number in 0..2000 {
        client.publish("", "q", &PropertiesWriter::new(), format!("{number}").as_bytes());
    }
    assert_eq!(client.message_count("q"), 2000);
    client.call(1, (90, 10), |_| {}).expect("a channel may be made transactional");
    client.consume("q", "c");
    (0..2000).for_each(|_| drop(client.delivery()));
    client.ack(0, true);
    (0..40).for_each(|_| client.publish("", "q", &PropertiesWriter::new(), &[b'y'; 60_000]));
    client.flush().expect("the broker reads on");
    let errors = channel_errors(&mut client);
    assert!(matches!(&errors[..], [(506, _)]), "{errors:?}");
    client.channel(1);
    assert_eq!(client.message_count("q"), 2000, "neither publishes nor acknowledgements took effect");
    limited.wait_until("all is given back", |limited| limited.held("unfinished") == 0);
}

#[test]
fn acknowledgements_alone_reach_the_limit_of_a_transaction() {
    let limited = limited(&[("limits.connection_unfinished_bytes", "64 KiB")]);
    let mut client = limited.client();
    client.queue("q", &[], &[]);
    (0..5000).for_each(|_| client.publish("", "q", &PropertiesWriter::new(), b"x"));
    assert_eq!(client.message_count("q"), 5000);
    client.call(1, (90, 10), |_| {}).expect("a channel may be made transactional");
    client.consume("q", "c");
    (0..5000).for_each(|_| drop(client.delivery()));
    (1..=5000).for_each(|tag| client.ack(tag, false));
    client.flush().expect("the broker reads on");
    let errors = channel_errors(&mut client);
    // What it sent behind its end is thrown away.
    assert!(matches!(&errors[..], [(506, _)]), "{errors:?}");
    client.channel(1);
    assert_eq!(client.message_count("q"), 5000);
}

#[test]
fn unfinished_bodies_raise_the_alarm_and_it_ends_with_them() {
    let limited = limited(&[("limits.memory_bytes", "8 MiB"), ("limits.unfinished_bytes", "64 MiB")]);
    let mut client = limited.client();
    client.begin_publish(1, "nowhere", 64 * MIB);
    (0..200).for_each(|_| client.frame(BODY_FRAME, 1, &[b'x'; 65_536]));
    client.flush().expect("the broker reads on");
    limited.wait_for_alarm(true);
    client.drop_socket();
    limited.wait_for_alarm(false);
}

#[test]
fn stored_messages_that_a_consumer_held_raise_the_alarm_until_it_gives_them_back() {
    let limited = limited(&[("limits.memory_bytes", "16 MiB")]);
    let mut publisher = limited.client();
    publisher.queue("q", &[Flag::Durable], &[]);
    publisher.confirm_select();
    for number in 1..=48 {
        publisher.publish("", "q", &persistent(), &vec![b'x'; MIB as usize / 2]);
        publisher.wait_for_confirms(number, number);
    }
    limited.wait_for_alarm(false);
    let mut consumer = limited.client();
    consumer.consume("q", "c");
    (0..48).for_each(|_| drop(consumer.delivery()));
    limited.wait_for_alarm(true);
    consumer.drop_socket();
    limited.wait_for_alarm(false);
    assert_eq!(publisher.message_count("q"), 48);
    let mut consumer = limited.client();
    consumer.qos(4);
    consumer.consume("q", "c");
    for tag in 1..=48 {
        assert!(consumer.delivery().redelivered);
        consumer.ack(tag, false);
    }
}

#[test]
fn a_channel_that_consumes_and_forgets_many_queues_stays_as_it_was() {
    let limited = limited(&[]);
    let mut client = limited.client();
    let mut round = |count: usize| {
        for number in 0..count {
            let name = format!("q{number}");
            client.queue(&name, &[Flag::Exclusive, Flag::AutoDelete], &[]);
            client.consume(&name, "c");
            client
                .call(1, (60, 30), |fields| {
                    fields.extend_from_slice(b"\x01c");
                    fields.push(0);
                })
                .expect("the consumer can be cancelled");
        }
        (limited.broker.metric("rabbitmq_process_resident_memory_bytes") as u64, limited.held("channels"))
    };
    let (resident, held) = round(500);
    let (resident_after, held_after) = round(4000);
    tell(&format!(
        "4,000 queues consumed on a channel: {resident} to {resident_after} resident, {held} to {held_after} held"
    ));
    assert!(resident_after < resident + 4 * MIB, "{resident} to {resident_after}");
    assert!(held_after < held + 16 * KIB, "{held} to {held_after}");
}

#[test]
fn deadlines_of_deleted_queues_are_not_kept() {
    const NO_WAIT: u8 = 16;
    const DELETE_NO_WAIT: u8 = 4;
    let mortal = PropertiesWriter::new().shortstr(Property::Expiration, b"1800000");
    let limited = limited(&[]);
    let mut client = limited.client();
    let mut number = 0;
    let mut round = |count: usize| {
        for _ in 0..count / 500 {
            for _ in 0..500 {
                number += 1;
                let name = format!("q{number:06}");
                client.write(1, (50, 10), |fields| {
                    fields.extend_from_slice(&[0, 0, name.len() as u8]);
                    fields.extend_from_slice(name.as_bytes());
                    fields.push(NO_WAIT);
                    write_table(fields, |arguments| arguments.value(b"x-expires", Value::I32(3_600_000)));
                });
                client.publish("", &name, &mortal, b"x");
                client.write(1, (50, 40), |fields| {
                    fields.extend_from_slice(&[0, 0, name.len() as u8]);
                    fields.extend_from_slice(name.as_bytes());
                    fields.push(DELETE_NO_WAIT);
                });
            }
            // Answered once all of these are gone.
            client.confirm_select();
        }
        limited.broker.metric("rabbitmq_process_resident_memory_bytes") as u64
    };
    let resident = round(5_000);
    let resident_after = round(40_000);
    tell(&format!("40,000 queues with deadlines made and deleted: {resident} to {resident_after} resident"));
    assert!(resident_after < resident + 4 * MIB, "{resident} to {resident_after}");
}

#[test]
fn gets_from_many_queues_that_live_leave_nothing_behind_on_their_channel() {
    let limited = limited(&[]);
    let mut client = limited.client();
    for number in 0..1200 {
        client.queue(&format!("q{number}"), &[], &[]);
        client.publish("", &format!("q{number}"), &PropertiesWriter::new(), b"x");
    }
    let first: Vec<u64> =
        (0..500).map(|number| client.get(&format!("q{number}")).expect("it is there").delivery_tag).collect();
    let held = limited.held("channels");
    client.ack(first[498], true);
    for number in 500..1200 {
        let tag = client.get(&format!("q{number}")).expect("it is there").delivery_tag;
        client.ack(tag, false);
    }
    limited.wait_until("unused queues are forgotten", |limited| limited.held("channels") < held);
    client.drop_socket();
    let mut other = limited.client();
    // The one that it held all the time comes back.
    limited.wait_until("it came back", |limited| limited.broker.metric("rabbitmq_queue_messages_ready") > 0.0);
    assert!(other.get("q499").expect("it is there").redelivered);
}

#[test]
fn consumers_of_a_channel_are_bounded() {
    let limited = limited(&[("limits.channel_consumers_max", "5")]);
    let mut client = limited.client();
    client.queue("q", &[], &[]);
    (0..5).for_each(|number| client.consume("q", &format!("c{number}")));
    client.write(1, (60, 20), |fields| fields.extend_from_slice(b"\0\0\x01q\0\0\0\0\0\0"));
    let error = Failure::Connection(530, "NOT_ALLOWED - reached maximum (5) of consumers per channel".to_owned());
    assert_eq!(client.next(), Err(error));
    assert_eq!(limited.refused("limits.channel_consumers_max"), 1);
}

#[test]
fn unacknowledged_deliveries_of_a_consumer_and_of_gets_are_bounded() {
    let limited = limited(&[("limits.channel_unacked_max", "10")]);
    let mut client = limited.client();
    client.queue("q", &[], &[]);
    (0..40).for_each(|_| client.publish("", "q", &PropertiesWriter::new(), b"x"));
    client.consume("q", "c");
    (0..10).for_each(|_| drop(client.delivery()));
    assert!(client.next_within(Duration::from_millis(200)).is_none(), "it holds as many as it may");
    client.ack(5, true);
    (0..5).for_each(|_| drop(client.delivery()));
    let mut getting = limited.client();
    (0..10).for_each(|_| drop(getting.get("q").expect("it is there")));
    getting.write(1, (60, 70), |fields| fields.extend_from_slice(b"\0\0\x01q\0"));
    assert!(matches!(getting.next(), Err(Failure::Channel(506, _))));
    assert_eq!(limited.refused("limits.channel_unacked_max"), 1);
}

#[test]
fn queues_exchanges_and_bindings_of_a_vhost_are_bounded_and_give_their_place_back() {
    let limited = limited(&[
        ("limits.vhost_queues_max", "3"),
        ("limits.vhost_exchanges_max", "8"),
        ("limits.vhost_bindings_max", "4"),
    ]);
    let mut client = limited.client();
    let refused = |failure: Option<Failure>, text: &str| match failure {
        Some(Failure::Channel(406, reply)) => assert!(reply.contains(text), "{reply}"),
        other => panic!("{other:?} instead of 406"),
    };
    (0..3).for_each(|number| drop(client.queue(&format!("q{number}"), &[], &[])));
    refused(client.try_queue("q3", &[], &[]).err(), "queue limit in vhost '/' (3) is reached");
    client.channel(1);
    client.queue("q1", &[], &[]);
    client.delete_queue("q1");
    client.queue("q3", &[], &[]);
    (0..2).for_each(|number| client.exchange(&format!("x{number}"), "topic", &[], &[]));
    refused(client.try_exchange("x2", "topic", &[], &[]).err(), "exchange limit of 8 is reached");
    client.channel(1);
    client.exchange("x1", "topic", &[], &[]);
    (0..4).for_each(|number| client.bind("q0", "x0", &format!("k{number}"), &[]));
    client.bind("q0", "x0", "k1", &[]);
    refused(client.try_bind("q0", "x1", "k", &[]).err(), "binding limit of 4 is reached");
    client.channel(1);
    client.delete_queue("q0");
    client.bind("q2", "x1", "k", &[]);
    let limits = ["limits.vhost_queues_max", "limits.vhost_exchanges_max", "limits.vhost_bindings_max"];
    let counts = limits.map(|limit| limited.refused(limit));
    assert_eq!(counts, [1, 1, 1]);
}

#[test]
fn channels_of_a_connection_are_bounded_and_weighed() {
    let limited = limited(&[("channels_max", "100")]);
    let mut client = Client::open(limited.broker.amqp, Login::default()).expect("guest may connect");
    (1..=100).for_each(|channel| client.channel(channel));
    limited.wait_until("channels are weighed", |limited| limited.held("channels") > 100 * 300);
    tell(&format!("100 channels: {} bytes", limited.held("channels")));
    client.write(101, (20, 10), |fields| fields.push(0));
    assert!(matches!(client.next(), Err(Failure::Connection(530 | 504, _))));
    limited.wait_until("it is counted", |limited| limited.refused("channels_max") == 1);
    limited.wait_until("they are gone", |limited| limited.held("channels") == 0);
}

/// The limits of which `/metrics` says how often they refused something.
fn limits_with_refusals(limited: &Limited) -> Vec<String> {
    let (_, page) = limited.broker.http_get("/metrics");
    let labels = page.lines().filter_map(|line| line.strip_prefix("prontomq_limit_refusals_total{limit=\""));
    labels.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect()
}

#[test]
fn what_each_limit_of_a_connection_refuses_is_counted_under_the_name_of_its_setting() {
    let limited = limited(&[
        ("connections_max", "2"),
        ("channels_max", "3"),
        ("frame_max", "128 KiB"),
        ("initial_frame_max", "4096"),
        ("handshake_timeout", "1s"),
        ("message_bytes_max", "100"),
    ]);
    let mut client = limited.client();
    let _second = limited.client();
    assert!(matches!(Client::open(limited.broker.amqp, Login::default()), Err(Failure::Connection(530, _))));

    client.publish("", "nowhere", &PropertiesWriter::new(), &[b'x'; 101]);
    assert!(matches!(client.next(), Err(Failure::Channel(406, _))));
    (1..=3).for_each(|channel| client.channel(channel));
    client.write(4, (20, 10), |fields| fields.push(0));
    assert!(matches!(client.next(), Err(Failure::Connection(530, _))));
    client.drop_socket();

    // What a client asks for in connection.tune-ok; 0 is no limit.
    for (channel_max, frame_max) in [(0, 131_072_u32), (3, 131_073)] {
        let (mut client, _) = Client::begin(limited.broker.amqp, Login::default()).expect("guest may log in");
        client.write(0, (10, 31), |fields| {
            fields.extend_from_slice(&u16::to_be_bytes(channel_max));
            fields.extend_from_slice(&frame_max.to_be_bytes());
            fields.extend_from_slice(&[0; 2]);
        });
        assert!(matches!(client.next(), Err(Failure::Connection(530, _))));
    }
    // The head of a frame after the login, and of one in place of connection.tune-ok.
    let mut client = limited.client();
    client.raw(&[1, 0, 1, 0, 2, 0, 1]);
    assert!(matches!(client.next(), Err(Failure::Connection(501, _))));
    client.drop_socket();
    let (mut client, _) = Client::begin(limited.broker.amqp, Login::default()).expect("guest may log in");
    client.raw(&[1, 0, 0, 0, 0, 16, 1]);
    client.flush().expect("the broker reads");
    let silent = TcpStream::connect(limited.broker.amqp).expect("the broker accepts");

    let counts = [
        ("connections_max", 1),
        ("message_bytes_max", 1),
        ("channels_max", 2),
        ("frame_max", 2),
        ("initial_frame_max", 1),
        ("handshake_timeout", 1),
    ];
    limited
        .wait_until("they are counted", |limited| counts.iter().all(|(limit, count)| limited.refused(limit) == *count));
    drop(silent);
}

#[test]
fn connections_of_the_metrics_listener_that_are_too_many_are_counted() {
    const MOST: usize = 4;
    let limited = limited(&[("metrics_connections_max", "4")]);
    let metrics = limited.broker.metrics.expect("there is a metrics listener");
    let connect = || TcpStream::connect(metrics).expect("it accepts");
    let open: Vec<TcpStream> = (0..MOST).map(|_| connect()).collect();
    assert!(matches!(connect().read(&mut [0]), Ok(0) | Err(_)), "one more is closed at once");
    drop(open);
    let has_room = || {
        let mut stream = connect();
        let mut answer = Vec::new();
        stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").is_ok()
            && stream.read_to_end(&mut answer).is_ok()
            && !answer.is_empty()
    };
    let began = Instant::now();
    while !has_room() {
        assert!(began.elapsed() < PATIENCE);
    }
    assert!(limited.refused("metrics_connections_max") >= 1);
}

#[test]
fn the_list_of_limits_names_each_that_refuses_by_its_setting() {
    let list = include_str!("../docs/limits.md");
    let settings = include_str!("../docs/configuration.md");
    let limited = limited(&[]);
    let limits = limits_with_refusals(&limited);
    assert!(limits.len() > 10, "{limits:?}");
    for limit in limits {
        assert!(list.contains(&format!("`{limit}`")), "{limit}");
        assert!(settings.contains(&format!("### `{limit}`")), "{limit}");
    }
}

/// Sends pieces that a client goes on with, whatever comes of them, until the broker takes no more or all are sent.
fn pour(client: &mut Client, pieces: usize, mut piece: impl FnMut(&mut Client)) -> usize {
    for sent in 0..pieces {
        piece(client);
        if client.has_gathered() && !client.flush_within(Duration::from_millis(500)) {
            return sent;
        }
    }
    client.flush_within(Duration::from_millis(500));
    pieces
}

#[test]
fn returns_that_nobody_reads_stop_the_broker_from_reading() {
    let limited = limited(&[("limits.outbox_bytes_max", "256 KiB")]);
    let mut client = limited.client();
    let sent = pour(&mut client, 4000, |client| client.publish_mandatory("nowhere", &[b'x'; 10_000]));
    let held = limited.held("buffers");
    tell(&format!("returns that nobody reads: {sent} of 10 KB sent, {held} bytes held"));
    assert!(sent < 4000, "the broker reads no more");
    assert!(held < 3 * MIB, "{held}");
    client.drop_socket();
    limited.wait_until("all is given back", |limited| limited.held("buffers") < 64 * KIB);
}

#[test]
fn answers_to_gets_that_nobody_reads_are_weighed() {
    let limited = limited(&[("limits.outbox_bytes_max", "256 KiB")]);
    let mut client = limited.client();
    client.queue("q", &[], &[]);
    (0..400).for_each(|_| client.publish("", "q", &PropertiesWriter::new(), &[b'x'; 50_000]));
    assert_eq!(client.message_count("q"), 400);
    pour(&mut client, 400, |client| client.write(1, (60, 70), |fields| fields.extend_from_slice(b"\0\0\x01q\x01")));
    let began = Instant::now();
    let mut held = 0;
    while began.elapsed() < Duration::from_secs(1) {
        held = held.max(limited.held("buffers") + limited.held("inlets"));
    }
    tell(&format!("answers to gets that nobody reads on one channel: {held} bytes held"));
    assert!((100 * KIB..3 * MIB).contains(&held), "{held}");
}

#[test]
fn a_frame_that_is_cut_and_frames_behind_it_are_weighed() {
    let limited = limited(&[]);
    let mut client = limited.client();
    client.begin_publish(1, "nowhere", 120_000);
    let before = limited.held("buffers");
    let mut cut = vec![3, 0, 1];
    cut.extend_from_slice(&120_000_u32.to_be_bytes());
    cut.extend_from_slice(&[b'x'; 119_000]);
    client.raw(&cut);
    client.flush().expect("the broker reads");
    limited.wait_until("the beginning is weighed", |limited| limited.held("buffers") > before + 100_000);
    tell(&format!("the beginning of a frame of 120 KB: {} bytes", limited.held("buffers")));
    client.drop_socket();
    limited.wait_until("all is given back", |limited| limited.held("buffers") < 16 * KIB);
}

#[test]
fn pending_confirms_are_weighed_and_their_messages_wait_at_the_limit_of_the_store() {
    let limited = limited(&[("store.unwritten_bytes_max", "256 KiB")]);
    let mut client = limited.client();
    client.queue("q", &[Flag::Durable], &[]);
    client.confirm_select();
    let idle = limited.held("channels");
    for _ in 0..20_000 {
        client.publish("", "q", &persistent(), &[b'x'; 100]);
    }
    client.flush().expect("a publisher waits, it does not fail");
    let mut most = 0;
    let began = Instant::now();
    while limited.broker.metric("rabbitmq_channel_messages_unconfirmed") > 0.0 || most == 0 {
        most = most.max(limited.held("channels"));
        assert!(began.elapsed() < PATIENCE);
        client.next_within(Duration::from_millis(1));
    }
    tell(&format!("20,000 publishes in flight: channels {idle} to {most} bytes"));
    assert!(most < idle + 2 * MIB, "{most}");
}

#[test]
fn what_topology_takes_is_weighed_and_given_back() {
    let limited = limited(&[]);
    let mut client = limited.client();
    let before = limited.held("topology") + limited.held("queues");
    (0..200).for_each(|number| drop(client.queue(&format!("q{number}"), &[Flag::Exclusive], &[])));
    (0..200).for_each(|number| client.bind(&format!("q{number}"), "amq.topic", &format!("a.{number}.#"), &[]));
    let most = || limited.held("topology") + limited.held("queues");
    limited.wait_until("200 queues are weighed", |_| most() > before + 200 * KIB);
    tell(&format!("200 queues with a binding each: {} bytes", most() - before));
    client.drop_socket();
    limited.wait_until("they are gone", |_| most() <= before + 4 * KIB);
}

#[test]
fn memory_that_was_freed_goes_back_to_the_system_in_an_idle_moment() {
    let limited = limited(&[("limits.transient_bytes", "1 GiB"), ("limits.memory_bytes", "1 GiB")]);
    let mut client = limited.client();
    client.queue("q", &[], &[]);
    for _ in 0..100_000 {
        client.publish("", "q", &PropertiesWriter::new(), &[b'x'; 1000]);
        if client.has_gathered() {
            client.flush().expect("the broker reads");
        }
    }
    assert_eq!(client.message_count("q"), 100_000);
    let resident = || limited.broker.metric("rabbitmq_process_resident_memory_bytes") as u64;
    let full = resident();
    assert!(full > 100 * MIB, "{full}");
    // A few that stay keep the allocator's heaps from ending.
    client.queue("kept", &[], &[]);
    client.publish("", "kept", &PropertiesWriter::new(), &[b'x'; 1000]);
    client.delete_queue("q");
    limited.wait_until("it goes back", |_| resident() < full / 2);
    tell(&format!("100,000 messages of 1 KB: {full} bytes resident, {} after they are gone", resident()));
}

#[test]
fn a_connection_without_heartbeats_gives_the_buffers_of_a_burst_back() {
    let limited = limited(&[]);
    let mut client = limited.client();
    client.queue("q", &[], &[]);
    (0..20).for_each(|_| client.publish("", "q", &PropertiesWriter::new(), &[b'x'; 20_000]));
    assert_eq!(client.message_count("q"), 20);
    client.consume_no_ack("q", "all");
    (0..20).for_each(|_| assert_eq!(client.delivery().body.len(), 20_000));
    limited.wait_until("the buffers are given back", |limited| limited.held("buffers") < 2 * KIB);
}
