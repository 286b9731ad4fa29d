//! A session driven by hand: frames in, effects and frames out, with answers as late as a test needs them. The golden
//! dialogues prove what needs no delay.

use super::{Effect, Login, Outlet, Output, Publish, ServerProperties, Session, SessionSettings, Settlement};
use crate::model::{
    AmqpError, Answer, ChannelKey, Command, ConsumerSlot, Delivery, LendId, LimitChange, LimitId, Message, Monotonic,
    Name, Notice, Now, QueueId, RequestNo, WallMillis,
};
use crate::wire::frame::{FrameKind, read_frame};
use crate::wire::method::MethodId;
use crate::wire::properties::Properties;
use crate::wire::table::TableWriter;
use std::sync::Arc;
use std::time::Duration;

const LIMIT: LimitId = LimitId(1);
const PARKED_BYTES_MAX: usize = 2000;
const MESSAGE_BYTES_MAX: u64 = 100;

struct Bench {
    session: Session,
    out: Output,
    now: Now,
    exchanges: Exchanges,
}

/// Records publishes and settlements. A publish to `missing` fails, one to `nowhere` reaches no queue.
#[derive(Default)]
struct Exchanges {
    published: Vec<Publish>,
    settled: Vec<Settlement>,
    ended: Vec<ChannelKey>,
    limits: Vec<LimitChange>,
    counted: Vec<ChannelKey>,
}

impl Outlet for Exchanges {
    fn publish(&mut self, publish: Publish) -> Result<u32, AmqpError> {
        let parts = self.route(&publish.message)?.len();
        self.published.push(publish);
        Ok(parts as u32)
    }

    fn route(&mut self, message: &Message) -> Result<Vec<Name>, AmqpError> {
        match message.exchange() {
            b"missing" => Err(AmqpError::no_exchange("missing", "/")),
            b"nowhere" => Ok(Vec::new()),
            _ => Ok(vec![Name::from("q")]),
        }
    }

    fn settle(&mut self, _: ChannelKey, settlement: Settlement) {
        self.settled.push(settlement);
    }

    fn change_limit(&mut self, _: ChannelKey, change: LimitChange) {
        self.limits.push(change);
    }

    fn count_delivery(&mut self, channel: ChannelKey) {
        self.counted.push(channel);
    }

    fn end_channel(&mut self, channel: ChannelKey) {
        self.ended.push(channel);
    }
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
    publish_to("", false, body_len, body)
}

fn publish_to(exchange: &str, mandatory: bool, body_len: u64, body: &[u8]) -> Vec<u8> {
    let publish = method(1, (60, 40), &[&[0, 0], &short(exchange), &short("q"), &[u8::from(mandatory)]]);
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
            properties: ServerProperties {
                product: "p".into(),
                version: "1.0.0".into(),
                platform: "p".into(),
                information: "i".into(),
                cluster_name: "c".into(),
            },
            mechanisms: vec!["PLAIN".into()],
            channel_max: 9,
            frame_max: 131_072,
            frame_min: 4096,
            heartbeat_seconds: 0,
            handshake_timeout: Duration::from_secs(10),
            message_bytes_max: MESSAGE_BYTES_MAX,
            gets_in_flight_max: 2,
            connection_unfinished_bytes_max: 1 << 30,
            unfinished_bytes_max: 1 << 30,
            channel_consumers_max: 1000,
            channel_unacked_max: 1000,
            parked_bytes_max: PARKED_BYTES_MAX,
        };
        let now = Now { monotonic: Monotonic(0), wall: WallMillis(0) };
        let session = Session::new(Arc::new(settings), 1, now);
        Self { session, out: Output::default(), now, exchanges: Exchanges::default() }
    }

    /// A session in the middle of the handshake: after tune-ok, before connection.open.
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
        bench.written();
        bench
    }

    /// A session with channel 1 open.
    fn open() -> Self {
        let mut bench = Self::tuned();
        bench.receive(&method(0, (10, 40), &[&short("/"), &[0, 0]]));
        assert!(matches!(bench.effects()[..], [Effect::OpenVhost { .. }]));
        bench.session.vhost_opened(Ok(()), bench.now, &mut bench.out);
        bench.receive(&method(1, (20, 10), &[&[0]]));
        assert_eq!(bench.written(), [(0, 10, 41), (1, 20, 11)]);
        bench
    }

    /// Gives input like a shell whose broker is slow: nothing is answered.
    fn receive(&mut self, input: &[u8]) {
        let mut used = 0;
        while used < input.len() && !self.session.holds_input() {
            self.out.pause = false;
            used += self.session.receive(&input[used..], self.now, &mut self.exchanges, &mut self.out);
        }
    }

    fn notice(&mut self, notice: Notice) {
        self.session.notice(notice, self.now, &mut self.exchanges, &mut self.out);
    }

    fn answer(&mut self, (channel, request): (ChannelKey, RequestNo), answer: Answer) {
        self.notice(Notice::Answer { channel, request, answer });
    }

    /// The bodies that were published since the last call.
    fn published(&mut self) -> Vec<Vec<u8>> {
        self.exchanges.published.drain(..).map(|publish| publish.message.body().to_vec()).collect()
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.out.effects)
    }

    /// The commands since the last call, each with the address of its answer. There are no other effects.
    fn commands(&mut self) -> Vec<((ChannelKey, RequestNo), Command)> {
        let command = |effect| match effect {
            Effect::Command { channel, request, command } => ((channel, request), command),
            other => panic!("not a command: {other:?}"),
        };
        self.effects().into_iter().map(command).collect()
    }

    /// The methods written since the last call: channel, class, method.
    fn written(&mut self) -> Vec<(u16, u16, u16)> {
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
        assert_eq!(self.written(), [(1, 60, 21)]);
        (to.0, consume.consumer)
    }
}

fn delivery(channel: ChannelKey, consumer: ConsumerSlot) -> Delivery {
    let lend = Some(LendId { slot: 3, generation: 4 });
    let (queue, message) = (QueueId(1), message("m"));
    Delivery { channel, consumer, queue, lend, redelivered: false, permit: Some(LIMIT), message }
}

const CLOSE: [&[u8]; 3] = [&[0, 200], &[0], &[0, 0, 0, 0]];

#[test]
fn frames_behind_a_waiting_method_are_parked_and_carried_out_in_order() {
    let mut bench = Bench::open();
    bench.receive(&queue_declare("q"));
    let [(to, _)] = bench.commands()[..] else { panic!() };
    bench.receive(&[basic_publish(2, b"ab"), basic_get("q"), basic_publish(2, b"cd")].concat());
    assert!(bench.effects().is_empty() && bench.written().is_empty());
    bench.answer(to, declared("q"));
    assert_eq!(bench.written(), [(1, 50, 11)]);
    let [(to, _)] = bench.commands()[..] else { panic!() };
    assert_eq!(bench.published(), [b"ab"]);
    bench.answer(to, Answer::GetEmpty);
    assert_eq!(bench.written(), [(1, 60, 72)]);
    assert_eq!(bench.published(), [b"cd"]);
}

#[test]
fn topology_follows_topology_and_answers_keep_their_order() {
    let mut bench = Bench::open();
    bench.receive(&[queue_declare("a"), queue_declare("b")].concat());
    let commands = bench.commands();
    let [(first, _), (second, _)] = commands[..] else { panic!("{commands:?}") };
    bench.answer(second, declared("b"));
    assert!(bench.written().is_empty(), "the answer before it is not written");
    bench.answer(first, declared("a"));
    assert_eq!(bench.written(), [(1, 50, 11), (1, 50, 11)]);
}

#[test]
fn bindings_unbindings_and_deletions_follow_one_another_until_one_is_refused_or_undecided() {
    let bind = |queue: &str| method(1, (50, 20), &[&[0, 0], &short(queue), &short("x"), &short("k"), &[0], &long(&[])]);
    let unbind = |queue: &str| method(1, (50, 50), &[&[0, 0], &short(queue), &short("x"), &short("k"), &long(&[])]);
    let delete_exchange = method(1, (40, 20), &[&[0, 0], &short("x"), &[0]]);
    let mut bench = Bench::open();
    let first = [queue_declare("q"), bind("q"), unbind("q"), queue_delete("q"), delete_exchange].concat();
    bench.receive(&first);
    let commands: Vec<_> = bench.commands().into_iter().map(|(to, _)| to).collect();
    assert_eq!(commands.len(), 5, "none waits for another");
    // The queue declared last is known once its declaration is answered.
    bench.receive(&[bind("\r\n"), bind("q")].concat());
    assert!(bench.commands().is_empty());
    bench.answer(commands[0], declared("q"));
    assert_eq!(bench.written(), [(1, 50, 11)]);
    assert!(bench.commands().is_empty(), "a parked method waits for all answers before it");
    let gone = Answer::Removed { message_count: 0 };
    let answers = [Answer::Done, Answer::Done, gone, Answer::Done];
    commands[1..].iter().zip(answers).for_each(|(to, answer)| bench.answer(*to, answer));
    let [(to, _)] = bench.commands()[..] else { panic!() };
    bench.answer(to, Answer::Done);
    let [(to, _)] = bench.commands()[..] else { panic!() };
    bench.answer(to, Answer::Done);
    bench.written();

    // Nothing is carried out behind a deletion until it is known that its queue does not refuse it.
    bench.receive(&queue_delete("q"));
    let [(undecided, _)] = bench.commands()[..] else { panic!() };
    bench.session.undecided(undecided.0, undecided.1);
    bench.receive(&unbind("q"));
    assert!(bench.commands().is_empty());
    bench.answer(undecided, Answer::Removed { message_count: 0 });
    let [(waits, _)] = bench.commands()[..] else { panic!() };

    // Nor behind a refusal, though the answers before it are not written.
    bench.receive(&unbind("q"));
    let [(refused, _)] = bench.commands()[..] else { panic!() };
    bench.answer(refused, Answer::Refused(AmqpError::precondition_failed("no")));
    bench.written();
    bench.receive(&bind("q"));
    assert!(bench.commands().is_empty());
    bench.answer(waits, Answer::Done);
    assert_eq!(bench.written(), [(1, 50, 51), (1, 20, 40)]);
    assert!(bench.effects().is_empty() && bench.exchanges.ended.len() == 1);
}

#[test]
fn reading_stops_while_too_many_bytes_are_parked() {
    let mut bench = Bench::open();
    bench.receive(&queue_declare("q"));
    let [(to, _)] = bench.commands()[..] else { panic!() };
    while !bench.session.is_saturated() {
        bench.receive(&basic_publish(50, &[b'x'; 50]));
    }
    bench.answer(to, declared("q"));
    assert!(!bench.session.is_saturated());
    assert!(bench.published().len() > 5);
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
    assert_eq!(bench.written(), [(1, 20, 40)]);
    assert!(bench.effects().is_empty() && bench.exchanges.ended.len() == 1);
    assert!(bench.published().is_empty());
    assert!(!bench.session.is_saturated());
    bench.answer(to, declared("q"));
    assert!(bench.written().is_empty(), "the channel is closing");
}

#[test]
fn what_follows_a_failed_publish_in_the_same_read_is_thrown_away() {
    let mut bench = Bench::open();
    let ack = method(1, (60, 80), &[&0u64.to_be_bytes(), &[1]]);
    let behind = [ack, queue_declare("q"), method(1, (60, 10), &[&[0; 7]]), basic_publish(2, b"cd")].concat();
    bench.receive(&[basic_publish(2, b"ab"), publish_to("missing", false, 2, b"xx"), behind].concat());
    assert_eq!(bench.written(), [(1, 20, 40)]);
    assert!(bench.effects().is_empty() && bench.exchanges.ended.len() == 1);
    assert_eq!(bench.published(), [b"ab"], "the message before it is published");
    assert_eq!(bench.exchanges.settled, []);
    bench.receive(&method(1, (20, 40), &CLOSE));
    assert_eq!(bench.written(), [(1, 20, 41)]);
}

#[test]
fn a_return_stands_between_the_confirms_before_it_and_its_own() {
    let mut bench = Bench::open();
    bench.receive(&method(1, (85, 10), &[&[0]]));
    bench.written();
    for (number, mandatory) in (1..=8).map(|number| (number, number == 4 || number == 7)) {
        bench.receive(&publish_to("nowhere", mandatory, 1, &[number]));
    }
    bench.session.flush_confirms(&mut bench.out);
    let (ack, returned) = ((1, 60, 80), (1, 60, 50));
    assert_eq!(bench.written(), [ack, returned, ack, ack, returned, ack, ack]);
}

#[test]
fn a_close_waits_for_what_came_before_it_on_other_channels() {
    for close in [method(0, (10, 50), &CLOSE), method(0, (10, 31), &[&[0; 8]]), method(2, (60, 10), &[&[0; 7]])] {
        let mut bench = Bench::open();
        bench.receive(&queue_declare("q"));
        let [(to, _)] = bench.commands()[..] else { panic!() };
        bench.receive(&[basic_publish(2, b"ab"), close, basic_publish(2, b"cd")].concat());
        assert!(bench.written().is_empty() && bench.effects().is_empty());
        bench.answer(to, declared("q"));
        assert_eq!(bench.published(), [b"ab"]);
        assert_eq!(bench.written()[0], (1, 50, 11));
        assert!(matches!(bench.effects()[..], [Effect::ConnectionEnds]));
    }
    let mut bench = Bench::open();
    bench.receive(&[queue_declare("q"), method(0, (10, 50), &CLOSE)].concat());
    bench.effects();
    bench.now.monotonic = bench.session.deadline().expect("it does not wait for ever");
    bench.session.tick(bench.now, &mut bench.out);
    assert!(matches!(bench.effects()[..], [Effect::ConnectionEnds]));
}

#[test]
fn a_parked_method_that_fails_closes_the_channel() {
    let mut bench = Bench::open();
    bench.receive(&queue_declare("q"));
    let [(to, _)] = bench.commands()[..] else { panic!() };
    bench.receive(&method(1, (60, 80), &[&7u64.to_be_bytes(), &[0]]));
    bench.answer(to, declared("q"));
    assert_eq!(bench.written(), [(1, 50, 11), (1, 20, 40)]);
}

#[test]
fn a_delivery_for_a_channel_that_its_client_closed_is_given_back() {
    let mut bench = Bench::open();
    bench.receive(&basic_get("q"));
    let [(to, _)] = bench.commands()[..] else { panic!() };
    let got = |channel| Answer::Got { delivery: delivery(channel, ConsumerSlot(0)), message_count: 0 };
    bench.session.forget_channels();
    bench.answer(to, got(to.0));
    assert!(matches!(bench.effects()[..], [Effect::Bounce { queue: QueueId(1), permit: Some(LIMIT), .. }]));
    bench.answer(to, Answer::GetEmpty);
    assert!(bench.effects().is_empty() && bench.written().is_empty());
}

#[test]
fn a_delivery_for_a_channel_that_failed_is_given_back() {
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
fn a_delivery_for_a_consumer_that_is_gone_is_given_back() {
    let mut bench = Bench::open();
    let (channel, consumer) = bench.consuming("tag");
    bench.notice(Notice::Deliver(delivery(channel, consumer)));
    assert_eq!(bench.written(), [(1, 60, 60)]);
    bench.notice(Notice::Deliver(delivery(channel, ConsumerSlot(99))));
    assert!(matches!(bench.effects()[..], [Effect::Bounce { permit: Some(LIMIT), .. }]));
    bench.notice(Notice::Deliver(Delivery { lend: None, ..delivery(channel, ConsumerSlot(99)) }));
    assert!(bench.effects().is_empty() && bench.written().is_empty());
    let earlier = ChannelKey { incarnation: 0, ..channel };
    bench.notice(Notice::Deliver(delivery(earlier, consumer)));
    assert!(
        matches!(bench.effects()[..], [Effect::Bounce { .. }]),
        "a late delivery does not reach a channel that was opened again"
    );
}

#[test]
fn consumers_of_a_deleted_queue_are_cancelled_after_delete_ok() {
    let mut bench = Bench::open();
    let (channel, consumer) = bench.consuming("tag");
    bench.receive(&queue_delete("q"));
    let [(to, _)] = bench.commands()[..] else { panic!() };
    bench.notice(Notice::ConsumerCancelled { channel, consumer });
    assert!(bench.written().is_empty());
    bench.answer(to, Answer::Removed { message_count: 0 });
    assert_eq!(bench.written(), [(1, 50, 41), (1, 60, 30)]);
    bench.notice(Notice::ConsumerCancelled { channel, consumer });
    assert!(bench.written().is_empty(), "once");
}

#[test]
fn a_method_during_a_commit_is_an_error_of_the_connection() {
    let mut bench = Bench::open();
    bench.receive(&method(1, (90, 10), &[]));
    bench.receive(&basic_publish(2, b"ab"));
    bench.receive(&method(1, (90, 20), &[]));
    let [.., Effect::Commit(commit)] = &bench.effects()[..] else { panic!() };
    assert_eq!(commit.publishes[0].queues, [Name::from("q")]);
    bench.written();
    bench.receive(&method(1, (90, 10), &[]));
    bench.session.committed(commit.channel, &[], 0, bench.now, &mut bench.exchanges, &mut bench.out);
    assert_eq!(bench.written(), [(0, 10, 50)]);
    assert!(matches!(bench.effects().last(), Some(Effect::ConnectionEnds)));
}

#[test]
fn a_message_beyond_the_limit_is_refused_once_its_body_has_come() {
    let body = [b'x'; MESSAGE_BYTES_MAX as usize + 1];
    let mut bench = Bench::open();
    bench.receive(&basic_publish(body.len() as u64, &body));
    assert_eq!(bench.written(), [(1, 20, 40)]);
    assert!(bench.effects().is_empty() && bench.exchanges.ended.len() == 1);
    let mut bench = Bench::open();
    bench.receive(&basic_publish(body.len() as u64, &body[1..]));
    assert!(bench.written().is_empty());
    bench.receive(&frame(3, 1, &body[..1]));
    assert_eq!(bench.written(), [(1, 20, 40)]);
}

#[test]
fn a_stopping_broker_closes_open_connections_and_drops_others() {
    let mut bench = Bench::open();
    bench.notice(Notice::Close(AmqpError::connection_forced("shutdown")));
    assert_eq!(bench.written(), [(0, 10, 50)]);
    let mut bench = Bench::tuned();
    bench.notice(Notice::Close(AmqpError::connection_forced("shutdown")));
    assert!(bench.written().is_empty() && bench.session.is_closed());
    assert!(matches!(bench.effects()[..], [Effect::CloseSocket]));
    assert_eq!(bench.session.deadline(), None);
    bench.session.tick(bench.now, &mut bench.out);
    assert!(bench.effects().is_empty());
}

#[test]
fn a_client_that_publishes_during_an_alarm_is_blocked_until_it_is_over() {
    let mut bench = Bench::open();
    bench.notice(Notice::Alarm(Some("low on memory".to_owned())));
    assert!(bench.written().is_empty(), "a client that does not publish is not blocked");

    bench.receive(&basic_publish(2, b"ab"));
    assert_eq!(bench.written(), [(0, 10, 60)]);
    assert!(bench.session.is_saturated());
    let more = basic_publish(2, b"cd");
    let used = bench.session.receive(&more, bench.now, &mut bench.exchanges, &mut bench.out);
    assert_eq!(used, 0, "nothing more is read");
    bench.notice(Notice::Alarm(Some("low on memory & disk".to_owned())));
    assert!(bench.written().is_empty(), "a second alarm is not reported");

    bench.notice(Notice::Alarm(None));
    assert_eq!(bench.written(), [(0, 10, 61)]);
    let used = bench.session.receive(&more, bench.now, &mut bench.exchanges, &mut bench.out);
    assert_eq!(used, more.len());
}

#[test]
fn a_client_may_close_before_it_opens_a_vhost() {
    let mut bench = Bench::tuned();
    bench.receive(&method(0, (10, 50), &CLOSE));
    assert_eq!(bench.written(), [(0, 10, 51)]);
    assert!(matches!(bench.effects()[..], [Effect::CloseSocket]));
}

fn limit_channel(limit: u16) -> Vec<u8> {
    method(1, (60, 10), &[&[0; 4], &limit.to_be_bytes(), &[1]])
}

/// Sets a channel's limit; returns the change that the outlet gets.
fn limit_change(bench: &mut Bench, limit: u16) -> LimitChange {
    bench.receive(&limit_channel(limit));
    bench.exchanges.limits.pop().expect("the limit changes")
}

#[test]
fn a_changed_limit_keeps_the_permits_in_use() {
    let mut bench = Bench::open();
    let (channel, consumer) = bench.consuming("tag");
    bench.notice(Notice::Deliver(Delivery { permit: None, ..delivery(channel, consumer) }));
    let begins = LimitChange::Begins { id: LIMIT, limit: 5, outstanding: 1 };
    assert_eq!(limit_change(&mut bench, 5), begins, "unacknowledged deliveries count");
    assert_eq!(limit_change(&mut bench, 2), LimitChange::Becomes(2));
    bench.notice(Notice::Deliver(delivery(channel, consumer)));
    assert!(bench.effects().is_empty(), "it holds a permit");
    bench.receive(&method(1, (60, 80), &[&0u64.to_be_bytes(), &[1]]));
    assert_eq!(bench.exchanges.settled.iter().filter(|settled| settled.counted).count(), 2);
}

#[test]
fn a_delivery_on_its_way_when_the_limit_begins_counts_when_it_arrives() {
    let mut bench = Bench::open();
    let (channel, consumer) = bench.consuming("tag");
    limit_change(&mut bench, 5);
    assert_eq!(limit_change(&mut bench, 0), LimitChange::Ends);
    let again = LimitId(LIMIT.0 + 1);
    assert_eq!(limit_change(&mut bench, 5), LimitChange::Begins { id: again, limit: 5, outstanding: 0 });
    for permit in [None, Some(LIMIT)] {
        bench.notice(Notice::Deliver(Delivery { permit, ..delivery(channel, consumer) }));
        assert_eq!(bench.exchanges.counted.pop(), Some(channel), "{permit:?} is not of this limit");
    }
    bench.notice(Notice::Deliver(Delivery { permit: Some(again), ..delivery(channel, consumer) }));
    assert!(bench.exchanges.counted.is_empty());
}

#[test]
fn deliveries_settled_in_a_transaction_count_until_it_is_committed() {
    let mut bench = Bench::open();
    let (channel, consumer) = bench.consuming("tag");
    bench.receive(&method(1, (90, 10), &[]));
    bench.notice(Notice::Deliver(Delivery { permit: None, ..delivery(channel, consumer) }));
    bench.receive(&method(1, (60, 80), &[&1u64.to_be_bytes(), &[0]]));
    assert_eq!(limit_change(&mut bench, 5), LimitChange::Begins { id: LIMIT, limit: 5, outstanding: 1 });
    bench.receive(&method(1, (90, 20), &[]));
    let effects = bench.effects();
    let [Effect::Commit(commit)] = &effects[..] else { panic!("{effects:?}") };
    assert!(matches!(commit.settlements[..], [Settlement { counted: true, .. }]));
}
