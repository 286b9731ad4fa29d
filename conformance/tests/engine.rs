//! The engine itself, driven in memory with a clock that moves only when a dialogue waits: what it
//! must let pass and, above all, what it must not.

use conformance::conversation::{Failure, Login, run};
use conformance::dialogue::{Target, parse_chapter};
use conformance::frame::{FRAME_END, Header, encode_header, encode_method, write_frame};
use conformance::spec;
use conformance::transport::{Dialer, Heard, Transport};
use conformance::value::Value;
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// A broker that says what it was told to say, whatever it hears.
struct Recording {
    says: Vec<u8>,
    then_closes: bool,
    clock: Rc<Cell<Duration>>,
    writes: Rc<Cell<usize>>,
}

struct RecordingLink {
    says: Vec<u8>,
    then_closes: bool,
    clock: Rc<Cell<Duration>>,
    writes: Rc<Cell<usize>>,
}

impl Dialer for Recording {
    type Link = RecordingLink;

    fn dial(&self) -> io::Result<RecordingLink> {
        Ok(RecordingLink {
            says: self.says.clone(),
            then_closes: self.then_closes,
            clock: Rc::clone(&self.clock),
            writes: Rc::clone(&self.writes),
        })
    }

    fn now(&self) -> Duration {
        self.clock.get()
    }

    fn pause(&self, time: Duration) {
        self.clock.set(self.clock.get() + time);
    }
}

impl Transport for RecordingLink {
    fn send(&mut self, _: &[u8]) -> io::Result<()> {
        self.writes.set(self.writes.get() + 1);
        Ok(())
    }

    fn receive(&mut self, limit: Duration) -> io::Result<Heard> {
        if !self.says.is_empty() {
            // Seven bytes at a time: frames come in pieces.
            let rest = self.says.split_off(self.says.len().min(7));
            return Ok(Heard::Bytes(std::mem::replace(&mut self.says, rest)));
        }
        if self.then_closes {
            return Ok(Heard::Closed);
        }
        self.clock.set(self.clock.get() + limit);
        Ok(Heard::Nothing)
    }

    fn drop_now(&mut self) {}
}

fn method(channel: u16, name: &str, values: &[Value]) -> Vec<u8> {
    let payload = encode_method(spec::by_name(name).expect("a method of the table"), values).expect("values that fit");
    frame(1, channel, &payload)
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_frame(kind, channel, payload, FRAME_END, &mut bytes);
    bytes
}

fn text(text: &str) -> Value {
    Value::Text(text.as_bytes().to_vec())
}

fn ack(number: i128, multiple: bool) -> Vec<u8> {
    method(1, "basic.ack", &[Value::Number(number), Value::Flag(multiple)])
}

fn nack(number: i128) -> Vec<u8> {
    let flag = Value::Flag(false);
    method(1, "basic.nack", &[Value::Number(number), flag.clone(), flag])
}

fn get_ok(body: &str) -> Vec<u8> {
    let fields = [Value::Number(1), Value::Flag(false), text("x"), text("k"), Value::Number(0)];
    let priority =
        spec::properties().iter().position(|found| found.name == "priority").expect("a property of the table");
    let header =
        Header { class: 60, weight: 0, body_size: body.len() as u64, properties: vec![(priority, Value::Number(4))] };
    let mut bytes = method(1, "basic.get-ok", &fields);
    bytes.extend(frame(2, 1, &encode_header(&header).expect("values that fit")));
    for piece in body.as_bytes().chunks(3) {
        bytes.extend(frame(3, 1, piece));
    }
    bytes
}

fn converse(says: Vec<u8>, then_closes: bool, lines: &str) -> Result<(), Failure> {
    converse_with(&Recording { says, then_closes, clock: Rc::default(), writes: Rc::default() }, lines)
}

fn converse_with(dialer: &Recording, lines: &str) -> Result<(), Failure> {
    let chapter = format!("== a dialogue\ndial A\n{lines}\n");
    let dialogues = parse_chapter("chapter", &chapter, Target::Prontomq).expect("a dialogue that can be read");
    let login = Login { user: "guest".into(), password: "guest".into(), vhost: "/".into() };
    run(dialer, &login, &dialogues[0], "-suffix").failure.map_or(Ok(()), Err)
}

fn passes(says: Vec<u8>, lines: &str) {
    assert_eq!(converse(says, false, lines), Ok(()));
}

fn fails(says: Vec<u8>, lines: &str, got: &str) {
    let failure = converse(says, false, lines).expect_err("this must fail");
    assert!(failure.got.contains(got), "{failure}");
}

#[test]
fn a_method_is_held_against_the_fields_that_are_mentioned() {
    passes(ack(7, true), "A < 1 basic.ack delivery-tag=7");
    passes(ack(7, true), "A < 1 basic.ack delivery-tag=* multiple=true");
    fails(ack(7, true), "A < 1 basic.ack delivery-tag=8", "1 basic.ack delivery-tag=7 multiple=true");
    fails(ack(7, true), "A < 1 basic.ack multiple=false", "multiple=true");
    fails(ack(7, true), "A < 2 basic.ack delivery-tag=7", "1 basic.ack");
    fails(ack(7, true), "A < 1 basic.nack delivery-tag=7", "basic.ack");
}

#[test]
fn a_failure_names_line_expectation_and_answer() {
    let failure = converse(ack(7, true), false, "A > 1 channel.open\nA < 1 channel.open-ok");
    let failure = failure.unwrap_err();
    assert_eq!(
        failure.to_string(),
        "line 4: expected `A < 1 channel.open-ok`, got `1 basic.ack delivery-tag=7 multiple=true`"
    );
}

#[test]
fn a_close_must_agree_in_code_text_and_blame() {
    let close = |code, why, class, id| {
        let number = |number: i128| Value::Number(number);
        method(1, "channel.close", &[number(code), text(why), number(class), number(id)])
    };
    let line = "A < 1 channel.close 404 \"NOT_FOUND - no queue 'q~' in vhost '$vhost'\" by queue.declare";
    let words = "NOT_FOUND - no queue 'q-suffix' in vhost '/'";
    passes(close(404, words, 50, 10), line);
    fails(close(405, words, 50, 10), line, "channel.close 405");
    fails(close(404, "NOT_FOUND", 50, 10), line, "\"NOT_FOUND\"");
    fails(close(404, words, 50, 20), line, "by queue.bind");
    fails(close(404, words, 0, 0), line, "by none");
}

#[test]
fn content_is_assembled_and_its_properties_and_body_compared() {
    passes(get_ok("hello"), "A < 1 basic.get-ok exchange=\"x\" | priority=4 | \"hello\"");
    passes(get_ok("hello"), "A < 1 basic.get-ok | \"hello\"");
    passes(get_ok(""), "A < 1 basic.get-ok | ... | \"\"");
    fails(get_ok("hello"), "A < 1 basic.get-ok | \"hell\"", "\"hello\"");
    fails(get_ok("hello"), "A < 1 basic.get-ok | | \"hello\"", "priority=4");
    fails(get_ok("hello"), "A < 1 basic.get-ok | priority=5 | \"hello\"", "priority=4");
    fails(get_ok("hello"), "A < 1 basic.get-ok | priority=4 type=\"t\" | \"hello\"", "priority=4");
}

#[test]
fn frames_that_no_server_may_send_are_failures() {
    fails(frame(3, 1, b"x"), "A < 1 basic.get-ok", "a body out of sequence");
    fails(frame(4, 1, b"x"), "A < 1 basic.get-ok", "a frame of type 4");
    fails(frame(1, 1, &[0, 60, 0, 72, 0, 9]), "A < 1 basic.get-empty", "1 bytes too many");
    let mut twice = get_ok("hello");
    twice.truncate(twice.len() - 10);
    twice.extend(ack(1, false));
    fails(twice, "A < 1 basic.get-ok", "basic.ack inside the content of basic.get-ok");
    let mut wrong_end = ack(1, false);
    *wrong_end.last_mut().unwrap() = 0;
    fails(wrong_end, "A < 1 basic.ack", "a frame that ends in 00");
}

#[test]
fn confirms_cover_each_number_once_and_rightly() {
    let all = [ack(2, true), nack(3), ack(4, false)].concat();
    passes(all.clone(), "A < 1 confirms ack 1..2, 4 nack 3");
    fails(all, "A < 1 confirms ack 1..4", "basic.nack delivery-tag=3");
    let twice = [ack(1, false), ack(1, false)].concat();
    fails(twice, "A < 1 confirms ack 1..2", "basic.ack delivery-tag=1");
    let too_far = [nack(1), ack(3, true)].concat();
    fails(too_far, "A < 1 confirms ack 3 nack 1..2", "delivery-tag=3 multiple=true");
    fails(ack(1, false), "A < 1 confirms ack 1..2", "nothing while [2] are open");
}

#[test]
fn a_confirm_before_its_return_is_a_failure() {
    let returned = |number: &str| {
        let fields = [Value::Number(312), text("NO_ROUTE"), text(""), text("k")];
        let mut bytes = method(1, "basic.return", &fields);
        let header = Header { class: 60, weight: 0, body_size: 1, properties: Vec::new() };
        bytes.extend(frame(2, 1, &encode_header(&header).unwrap()));
        bytes.extend(frame(3, 1, number.as_bytes()));
        bytes
    };
    let line = "A < 1 confirms ack 1..2 after return";
    passes([returned("1"), returned("2"), ack(2, true)].concat(), line);
    passes([returned("1"), ack(1, false), returned("2"), ack(2, false)].concat(), line);
    fails([returned("1"), ack(2, true), returned("2")].concat(), line, "basic.ack delivery-tag=2");
    fails([returned("1"), ack(1, false)].concat(), "A < 1 confirms ack 1", "basic.return");
}

#[test]
fn unordered_lines_take_each_arrival_once() {
    let both = [ack(2, false), ack(1, false)].concat();
    let lines = "unordered {\nA < 1 basic.ack delivery-tag=1\nA < 1 basic.ack delivery-tag=2\n}";
    passes(both, lines);
    fails([ack(1, false), ack(1, false)].concat(), lines, "delivery-tag=1");
}

#[test]
fn lines_together_go_out_in_one_write() {
    let writes = |lines: &str| {
        let dialer = Recording { says: Vec::new(), then_closes: true, clock: Rc::default(), writes: Rc::default() };
        converse_with(&dialer, &format!("{lines}\nA < closed")).map(|()| dialer.writes.get())
    };
    let lines = "A > 1 tx.select\nA > 1 basic.publish | \"m\"\nA > 1 tx.commit";
    assert_eq!(writes(&format!("together {{\n{lines}\n}}")), Ok(1));
    assert_eq!(writes(lines), Ok(4));
    let refused = writes("together {\nA < nothing 1s\n}").unwrap_err();
    assert!(refused.got.contains("only what is sent may go together"), "{refused}");
}

#[test]
fn silence_and_the_end_are_told_apart() {
    passes(Vec::new(), "A < nothing 5s");
    fails(ack(1, false), "A < nothing 5s", "basic.ack");
    fails(Vec::new(), "A < closed within 3s", "nothing");
    assert_eq!(converse(Vec::new(), true, "A < closed"), Ok(()));
    let early = converse(Vec::new(), true, "A < closed after 2s within 3s").unwrap_err();
    assert!(early.got.contains("closed after only"), "{early}");
    let gone = converse(Vec::new(), true, "A < nothing 1s").unwrap_err();
    assert_eq!(gone.got, "closed");
}

#[test]
fn captured_variables_must_stay_equal() {
    let declared = |name| method(1, "queue.declare-ok", &[text(name), Value::Number(0), Value::Number(0)]);
    let lines = "A < 1 queue.declare-ok queue=$q like \"amq.gen-*\"\nA < 1 queue.declare-ok queue=$q\nA < closed";
    let run =
        |first, second| converse([declared(first), declared(second)].concat(), true, lines).unwrap_err().to_string();
    // Cleaning up needs a broker that answers; how far the dialogue came shows in the line.
    assert!(run("amq.gen-a", "amq.gen-a").starts_with("line 0"));
    assert!(run("amq.gen-a", "amq.gen-b").starts_with("line 4"));
    assert!(run("mine", "mine").starts_with("line 3"));
}

#[test]
fn tagged_lines_are_for_their_broker_only() {
    let chapter = "== t\n[3.10] wait 1s\n[4.2] wait 2s\n[ours] wait 3s\nwait 4s\n== [ours] u\nwait 1s\n";
    let count = |target| -> Vec<usize> {
        let dialogues = parse_chapter("c", chapter, target).unwrap();
        dialogues.iter().map(|dialogue| dialogue.steps.len()).collect()
    };
    assert_eq!(count(Target::Rabbitmq310), [2]);
    assert_eq!(count(Target::Prontomq), [3, 1]);
}

#[test]
fn what_a_dialogue_may_not_say_is_refused_with_its_line() {
    for (line, why) in [
        ("A < 1 channel.close", "a close says code"),
        ("A < 1 basic.acknowledge", "no method"),
        ("A > 1 basic.ack tag=1", "has no `tag`"),
        ("A > 1 basic.ack delivery-tag=", "a word wanted"),
        ("A > 1 basic.ack delivery-tag=1 and more", "too much"),
        ("[5.0] A < nothing 1s", "no tag [5.0]"),
        ("unordered {", "a block without its end"),
        ("together {", "a block without its end"),
        ("connect A color=\"red\"", "connect knows no `color`"),
        ("A < nothing 10", "is no time"),
    ] {
        let wrong = parse_chapter("c", &format!("== t\n{line}\n"), Target::Prontomq).unwrap_err();
        assert!(wrong.contains(why) && wrong.contains("line 2"), "{line}: {wrong}");
    }
}
