//! A session by hand: frames in, effects and frames out, with answers as late as a test wants them. What needs no delay is
//! proven by the golden dialogues.

use super::{Effect, Login, Output, Session, SessionSettings};
use crate::model::{
    AmqpError, Answer, ChannelKey, Command, ConsumerSlot, Delivery, LendId, Message, Monotonic, Name, Notice, Now,
    QueueId, RequestNo, WallMillis,
};
use crate::wire::frame::{FrameKind, read_frame};
use crate::wire::method::MethodId;
use crate::wire::properties::Properties;
use crate::wire::table::TableWriter;
use std::sync::Arc;
use std::time::Duration;

const PARKED_BYTES_MAX: usize = 2000;
const MESSAGE_BYTES_MAX: u64 = 100;

struct Bench {
    session: Session,
    out: Output,
    now: Now,
}

fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn frame(kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 0, channel], &long(payload)[..], &[0xCE]].concat()
}

fn method(channel: u8, (class, id): (u8, u8), arguments: &[&[u8]]) -> Vec<u8> {
    frame(1, channel, &[&[0, class, 0, id], &arguments.concat()[..]].concat())
}

fn queue_declare(name: &str) -> Vec<u8> {
    method(1, (50, 10), &[&[0, 0], &short(name), &[0], &long(&[])])
}

fn queue_delete(name: &str) -> Vec<u8> {
    method(1, (50, 40), &[&[0, 0], &short(name), &[0]])
}

fn basic_consume(queue: &str, tag: &str) -> Vec<u8> {
    method(1, (60, 20), &[&[0, 0], &short(queue), &short(tag), &[0], &long(&[])])
}

fn basic_get(queue: &str) -> Vec<u8> {
    method(1, (60, 70), &[&[0, 0], &short(queue), &[0]])
}

fn basic_publish(body_len: u64, body: &[u8]) -> Vec<u8> {
    let publish = method(1, (60, 40), &[&[0, 0], &short(""), &short("q"), &[0]]);
    let header = frame(2, 1, &[&[0, 60, 0, 0][..], &body_len.to_be_bytes(), &[0, 0]].concat());
    [publish, header, if body.is_empty() { Vec::new() } else { frame(3, 1, body) }].concat()
}

fn message(body: &str) -> Message {
    Message::new(b"", b"q", &Properties::check(&[0, 0]).expect("no property"), body.as_bytes())
}

fn declared(queue: &str) -> Answer {
    Answer::QueueDeclared { queue: Name::from(queue), message_count: 0, consumer_count: 0 }
}

impl Bench {
    fn connected() -> Self {
        let settings = SessionSettings {
            product: "p".into(),
            version: "1.0.0".into(),
            platform: "p".into(),
            information: "i".into(),
            cluster_name: "c".into(),
            mechanisms: vec!["PLAIN".into()],
            channel_max: 9,
            frame_max: 131_072,
            frame_min: 4096,
            heartbeat_seconds: 0,
            handshake_timeout: Duration::from_secs(10),
            message_bytes_max: MESSAGE_BYTES_MAX,
            connection_unfinished_bytes_max: 1 << 30,
            unfinished_bytes_max: 1 << 30,
            channel_consumers_max: 1000,
            channel_unacked_max: 1000,
            parked_bytes_max: PARKED_BYTES_MAX,
        };
        let now = Now { monotonic: Monotonic(0), wall: WallMillis(0) };
        let session = Session::new(Arc::new(settings), 1, now);
        Self { session, out: Output::default(), now }
    }

    /// In the middle of the handshake: tuned, and nothing opened.
    fn tuned() -> Self {
        let mut bench = Self::connected();
        bench.receive(b"AMQP\x00\x00\x09\x01");
        let mut properties = Vec::new();
        let mut table = TableWriter::new(&mut properties);
        table.table(b"capabilities", |capabilities| {
            for name in [&b"connection.blocked"[..], b"consumer_cancel_notify"] {
                capabilities.value(name, crate::wire::table::Value::Bool(true));
            }
        });
        table.value(b"product", crate::wire::table::Value::LongString(b"bench"));
        let start_ok = [&long(&properties)[..], &short("PLAIN"), &long(b"\0u\0p"), &short("en_US")];
        bench.receive(&method(0, (10, 11), &start_ok));
        assert!(matches!(bench.effects()[..], [Effect::Authenticate { .. }]));
        let login = Login { user: Name::from("u"), may_impersonate: false };
        bench.session.authenticated(Ok(login), bench.now, &mut bench.out);
        bench.receive(&method(0, (10, 31), &[&[0, 9], &[0, 0, 16, 0], &[0, 0]]));
        bench.heard();
        bench
    }

    /// With one channel open.
    fn open() -> Self {
        let mut bench = Self::tuned();
        bench.receive(&method(0, (10, 40), &[&short("/"), &[0, 0]]));
        assert!(matches!(bench.effects()[..], [Effect::OpenVhost { .. }]));
        bench.session.vhost_opened(Ok(()), bench.now, &mut bench.out);
        bench.receive(&method(1, (20, 10), &[&[0]]));
        assert_eq!(bench.heard(), [(0, 10, 41), (1, 20, 11)]);
        bench
    }

    /// As a shell does whose broker takes its time: nothing is answered.
    fn receive(&mut self, input: &[u8]) {
        let mut used = 0;
        while used < input.len() {
            self.out.pause = false;
            used += self.session.receive(&input[used..], self.now, &mut self.out);
        }
    }

    fn notice(&mut self, notice: Notice) {
        self.session.notice(notice, self.now, &mut self.out);
    }

    fn answer(&mut self, (channel, request): (ChannelKey, RequestNo), answer: Answer) {
        self.notice(Notice::Answer { channel, request, answer });
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out.effects)
    }

    /// The only effect is this many commands; who is to be answered.
    fn commands(&mut self) -> Vec<((ChannelKey, RequestNo), Command)> {
        let command = |effect| match effect {
            Effect::Command { channel, request, command } => ((channel, request), command),
            other => panic!("not a command: {other:?}"),
        };
        self.effects().into_iter().map(command).collect()
    }

    /// Methods written since the last look: channel, class, method.
    fn heard(&mut self) -> Vec<(u16, u16, u16)> {
        let bytes = std::mem::take(&mut self.out.bytes);
        let mut methods = Vec::new();
        let mut at = 0;
        while let Some(cut) = read_frame(&bytes[at..], usize::MAX).expect("frames") {
            at += cut.consumed;
            if cut.frame.kind == FrameKind::Method {
                let id = MethodId::of(cut.frame.payload).expect("a method");
                methods.push((cut.frame.channel, id.class_id, id.method_id));
            }
        }
        methods
    }

    fn consuming(&mut self, tag: &str) -> (ChannelKey, ConsumerSlot) {
        self.receive(&basic_consume("q", tag));
        let commands = self.commands();
        let [(to, Command::BasicConsume(consume))] = &commands[..] else { panic!("{commands:?}") };
        self.answer(*to, Answer::Consuming { queue: QueueId(1) });
        assert_eq!(self.heard(), [(1, 60, 21)]);
        (to.0, consume.consumer)
    }
}

fn delivery(channel: ChannelKey, consumer: ConsumerSlot) -> Delivery {
    let lend = Some(LendId { slot: 3, generation: 4 });
    let (queue, message) = (QueueId(1), message("m"));
    Delivery { channel, consumer, queue, lend, redelivered: false, counted: true, message }
}

const CLOSE: [&[u8]; 3] = [&[0, 200], &[0], &[0, 0, 0, 0]];

#[test]
fn what_follows_a_waiting_method_is_parked_and_taken_up_in_order() {
    let mut bench = Bench::open();
    bench.receive(&queue_declare("q"));
    let [(to, _)] = bench.commands()[..] else { panic!() };
    bench.receive(&[basic_publish(2, b"ab"), basic_get("q"), basic_publish(2, b"cd")].concat());
    assert!(bench.effects().is_empty() && bench.heard().is_empty());
    bench.answer(to, declared("q"));
    assert_eq!(bench.heard(), [(1, 50, 11)]);
    let effects = bench.effects();
    let [Effect::Publish(publish), Effect::Command { channel, request, .. }] = &effects[..] else { panic!() };
    assert_eq!(publish.message.body(), b"ab");
    bench.answer((*channel, *request), Answer::GetEmpty);
    assert_eq!(bench.heard(), [(1, 60, 72)]);
    assert!(matches!(&bench.effects()[..], [Effect::Publish(publish)] if publish.message.body() == b"cd"));
}

#[test]
fn topology_follows_topology_and_answers_keep_their_order() {
    let mut bench = Bench::open();
    bench.receive(&[queue_declare("a"), queue_declare("b")].concat());
    let commands = bench.commands();
    let [(first, _), (second, _)] = commands[..] else { panic!("{commands:?}") };
    bench.answer(second, declared("b"));
    assert!(bench.heard().is_empty(), "its predecessor is not out");
    bench.answer(first, declared("a"));
    assert_eq!(bench.heard(), [(1, 50, 11), (1, 50, 11)]);
}

#[test]
fn much_that_is_parked_stops_the_reading_until_it_is_taken_up() {
    let mut bench = Bench::open();
    bench.receive(&queue_declare("q"));
    let [(to, _)] = bench.commands()[..] else { panic!() };
    while !bench.session.is_saturated() {
        bench.receive(&basic_publish(50, &[b'x'; 50]));
    }
    bench.answer(to, declared("q"));
    assert!(!bench.session.is_saturated());
    assert!(bench.effects().len() > 5);
}

#[test]
fn nothing_parked_behind_a_method_that_fails_is_carried_out() {
    let mut bench = Bench::open();
    bench.receive(&queue_declare("q"));
    let [(to, _)] = bench.commands()[..] else { panic!() };
    while !bench.session.is_saturated() {
        bench.receive(&basic_publish(50, &[b'x'; 50]));
    }
    bench.answer(to, Answer::Refused(AmqpError::precondition_failed("no")));
    assert_eq!(bench.heard(), [(1, 20, 40)]);
    assert!(matches!(bench.effects()[..], [Effect::ChannelEnded { .. }]));
    assert!(!bench.session.is_saturated());
    bench.answer(to, declared("q"));
    assert!(bench.heard().is_empty(), "the channel is closing");
}

#[test]
fn a_parked_method_that_fails_closes_the_channel() {
    let mut bench = Bench::open();
    bench.receive(&queue_declare("q"));
    let [(to, _)] = bench.commands()[..] else { panic!() };
    bench.receive(&method(1, (60, 80), &[&7u64.to_be_bytes(), &[0]]));
    bench.answer(to, declared("q"));
    assert_eq!(bench.heard(), [(1, 50, 11), (1, 20, 40)]);
}

#[test]
fn a_channel_closed_by_the_client_gives_back_what_comes_too_late() {
    let mut bench = Bench::open();
    bench.receive(&basic_get("q"));
    let [(to, _)] = bench.commands()[..] else { panic!() };
    let got = |channel| Answer::Got { delivery: delivery(channel, ConsumerSlot(0)), message_count: 0 };
    bench.session.forget_channels();
    bench.answer(to, got(to.0));
    assert!(matches!(bench.effects()[..], [Effect::Bounce { queue: QueueId(1), counted: true, .. }]));
    bench.answer(to, Answer::GetEmpty);
    assert!(bench.effects().is_empty() && bench.heard().is_empty());
}

#[test]
fn a_channel_that_failed_gives_back_what_comes_too_late() {
    let mut bench = Bench::open();
    bench.receive(&basic_get("q"));
    let [(to, _)] = bench.commands()[..] else { panic!() };
    bench.answer(to, Answer::Refused(AmqpError::not_found("no")));
    bench.effects();
    let late = Answer::Got { delivery: delivery(to.0, ConsumerSlot(0)), message_count: 0 };
    bench.answer(to, late);
    assert!(matches!(bench.effects()[..], [Effect::Bounce { .. }]));
}

#[test]
fn a_delivery_for_a_consumer_that_is_gone_goes_back() {
    let mut bench = Bench::open();
    let (channel, consumer) = bench.consuming("tag");
    bench.notice(Notice::Deliver(delivery(channel, consumer)));
    assert_eq!(bench.heard(), [(1, 60, 60)]);
    bench.notice(Notice::Deliver(delivery(channel, ConsumerSlot(99))));
    assert!(matches!(bench.effects()[..], [Effect::Bounce { counted: true, .. }]));
    bench.notice(Notice::Deliver(Delivery { lend: None, ..delivery(channel, ConsumerSlot(99)) }));
    assert!(bench.effects().is_empty() && bench.heard().is_empty());
    let earlier = ChannelKey { incarnation: 0, ..channel };
    bench.notice(Notice::Deliver(delivery(earlier, consumer)));
    assert!(matches!(bench.effects()[..], [Effect::Bounce { .. }]), "nothing late reaches a channel opened again");
}

#[test]
fn consumers_that_go_with_their_queue_are_told_behind_delete_ok() {
    let mut bench = Bench::open();
    let (channel, consumer) = bench.consuming("tag");
    bench.receive(&queue_delete("q"));
    let [(to, _)] = bench.commands()[..] else { panic!() };
    bench.notice(Notice::ConsumerCancelled { channel, consumer });
    assert!(bench.heard().is_empty());
    bench.answer(to, Answer::Removed { message_count: 0 });
    assert_eq!(bench.heard(), [(1, 50, 41), (1, 60, 30)]);
    bench.notice(Notice::ConsumerCancelled { channel, consumer });
    assert!(bench.heard().is_empty(), "once");
}

#[test]
fn a_method_during_a_commit_is_an_error_of_the_connection() {
    let mut bench = Bench::open();
    bench.receive(&method(1, (90, 10), &[]));
    bench.receive(&basic_publish(2, b"ab"));
    bench.receive(&method(1, (90, 20), &[]));
    bench.heard();
    bench.receive(&method(1, (90, 10), &[]));
    assert_eq!(bench.heard(), [(0, 10, 50)]);
    assert!(matches!(bench.effects().last(), Some(Effect::ConnectionEnds)));
}

#[test]
fn a_message_beyond_the_limit_is_refused_once_its_body_has_come() {
    let body = [b'x'; MESSAGE_BYTES_MAX as usize + 1];
    let mut bench = Bench::open();
    bench.receive(&basic_publish(body.len() as u64, &body));
    assert_eq!(bench.heard(), [(1, 20, 40)]);
    assert!(matches!(bench.effects()[..], [Effect::ChannelEnded { .. }]));
    let mut bench = Bench::open();
    bench.receive(&basic_publish(body.len() as u64, &body[1..]));
    assert!(bench.heard().is_empty());
    bench.receive(&frame(3, 1, &body[..1]));
    assert_eq!(bench.heard(), [(1, 20, 40)]);
}

#[test]
fn a_broker_that_stops_closes_open_connections_and_drops_others() {
    let mut bench = Bench::open();
    bench.notice(Notice::Close(AmqpError::connection_forced("shutdown")));
    assert_eq!(bench.heard(), [(0, 10, 50)]);
    let mut bench = Bench::tuned();
    bench.notice(Notice::Close(AmqpError::connection_forced("shutdown")));
    assert!(bench.heard().is_empty() && bench.session.is_closed());
    assert!(matches!(bench.effects()[..], [Effect::CloseSocket]));
    assert_eq!(bench.session.deadline(), None);
    bench.session.tick(bench.now, &mut bench.out);
    assert!(bench.effects().is_empty());
}

#[test]
fn a_client_that_publishes_during_an_alarm_is_blocked_until_it_is_over() {
    let mut bench = Bench::open();
    bench.notice(Notice::Alarm(Some("low on memory".to_owned())));
    assert!(bench.heard().is_empty(), "one that does not publish is left alone");

    bench.receive(&basic_publish(2, b"ab"));
    assert_eq!(bench.heard(), [(0, 10, 60)]);
    assert!(bench.session.is_saturated());
    let more = basic_publish(2, b"cd");
    assert_eq!(bench.session.receive(&more, bench.now, &mut bench.out), 0, "nothing more is read");
    bench.notice(Notice::Alarm(Some("low on memory & disk".to_owned())));
    assert!(bench.heard().is_empty(), "a second alarm is not told");

    bench.notice(Notice::Alarm(None));
    assert_eq!(bench.heard(), [(0, 10, 61)]);
    assert_eq!(bench.session.receive(&more, bench.now, &mut bench.out), more.len());
}

#[test]
fn a_client_may_close_before_it_opens_a_vhost() {
    let mut bench = Bench::tuned();
    bench.receive(&method(0, (10, 50), &CLOSE));
    assert_eq!(bench.heard(), [(0, 10, 51)]);
    assert!(matches!(bench.effects()[..], [Effect::CloseSocket]));
}
