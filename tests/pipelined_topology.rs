//! Topology methods of one channel in one write: as one at a time, apart from the waiting.

#![allow(clippy::unwrap_used, reason = "a test")]

use prontomq::Settings;
use prontomq::internals::model::random::Random;
use prontomq::internals::server::{SimulatedConnection, Simulation};

const SEQUENCES: u64 = 400;
const METHODS: u64 = 14;
const QUEUES: [&str; 4] = ["", "q", "r", "durable"];
const EXCHANGES: [&str; 4] = ["direct", "fanout", "auto", "missing"];
const KEYS: [&str; 2] = ["k", ""];

fn shortstr(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

fn longstr(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn method(channel: u16, class: u16, method: u16, fields: &[Vec<u8>]) -> Vec<u8> {
    let payload = [class.to_be_bytes().to_vec(), method.to_be_bytes().to_vec(), fields.concat()].concat();
    [vec![1], channel.to_be_bytes().to_vec(), longstr(&payload), vec![0xCE]].concat()
}

/// Two reserved octets, with which most methods begin.
fn ticket() -> Vec<u8> {
    vec![0, 0]
}

fn declare_queue(name: &str, bits: u8) -> Vec<u8> {
    method(1, 50, 10, &[ticket(), shortstr(name), vec![bits], longstr(b"")])
}

fn bind(class_and_method: (u16, u16), to: &str, from: &str, key: &str) -> Vec<u8> {
    let (class, id) = class_and_method;
    // queue.unbind has no nowait.
    let nowait = if class_and_method == (50, 50) { vec![] } else { vec![0] };
    let fields = [ticket(), shortstr(to), shortstr(from), shortstr(key), nowait, longstr(b"")];
    method(1, class, id, &fields)
}

/// A broker with one connection whose channel 1 is open, an auto-delete exchange and others to bind to.
struct Client {
    simulation: Simulation,
    connection: SimulatedConnection,
}

impl Client {
    fn open() -> Self {
        let mut simulation = Simulation::start(Settings::default(), 1).unwrap();
        let connection = simulation.connect();
        let login = [longstr(b""), shortstr("PLAIN"), longstr(b"\0guest\0guest"), shortstr("en_US")];
        let mut client = Self { simulation, connection };
        client.send(b"AMQP\0\0\x09\x01");
        client.send(&method(0, 10, 11, &login));
        client.send(&method(0, 10, 31, &[vec![7, 255, 0, 2, 0, 0, 0, 0]]));
        client.send(&method(0, 10, 40, &[shortstr("/"), shortstr(""), vec![0]]));
        let opened = client.send(&method(1, 20, 10, &[shortstr("")]));
        assert!(opened.windows(4).any(|bytes| bytes == [0, 20, 0, 11]), "{opened:?}");
        for (name, kind, bits) in [("direct", "direct", 2), ("fanout", "fanout", 2), ("auto", "topic", 4 | 2)] {
            client.send(&method(1, 40, 10, &[ticket(), shortstr(name), shortstr(kind), vec![bits], longstr(b"")]));
        }
        client
    }

    fn send(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.simulation.send(self.connection, bytes);
        self.simulation.take_output(self.connection)
    }

    /// What is there, as a channel of its own sees it: each question on a fresh one, since most answers may close it.
    fn look(&mut self) -> Vec<u8> {
        let queues = QUEUES.map(|name| [ticket(), shortstr(name), vec![1], longstr(b"")]);
        let exchanges = EXCHANGES.map(|name| [ticket(), shortstr(name), shortstr(""), vec![1], longstr(b"")]);
        let mut questions: Vec<_> = queues[1..].iter().map(|fields| method(2, 50, 10, fields)).collect();
        questions.extend(exchanges.iter().map(|fields| method(2, 40, 10, fields)));
        for (exchange, key) in EXCHANGES.iter().flat_map(|exchange| KEYS.map(|key| (exchange, key))) {
            // Mandatory: it is returned unless some queue takes it, and the counts say which.
            let publish = method(2, 60, 40, &[ticket(), shortstr(exchange), shortstr(key), vec![1]]);
            let header = [vec![2, 0, 2, 0, 0, 0, 14, 0, 60], vec![0; 12], vec![0xCE]].concat();
            questions.push([publish, header].concat());
            questions.extend(queues[1..].iter().map(|fields| method(2, 50, 10, fields)));
        }
        let (open, close) = (method(2, 20, 10, &[shortstr("")]), method(2, 20, 41, &[]));
        let end = method(2, 20, 40, &[vec![0, 200], shortstr(""), vec![0; 4]]);
        let ask = |question: Vec<u8>| {
            let mut answer = self.send(&open);
            answer.extend(self.send(&question));
            let has_failed = answer.windows(4).any(|bytes| bytes == [0, 20, 0, 40]);
            answer.extend(self.send(if has_failed { &close } else { &end }));
            answer
        };
        questions.into_iter().flat_map(ask).collect()
    }
}

/// Something to declare, bind, unbind or delete; some of it is refused.
fn random_method(random: &mut Random) -> Vec<u8> {
    let mut below = |bound: usize| usize::try_from(random.next_u64() % bound as u64).unwrap();
    let (queue, exchange, other) = (QUEUES[below(4)], EXCHANGES[below(20).min(3) % 4], EXCHANGES[below(3)]);
    let exchange = if exchange == "missing" && below(4) > 0 { "auto" } else { exchange };
    let key = KEYS[below(2)];
    match below(16) {
        0..=4 => declare_queue(queue, if queue == "durable" { 2 } else { 0 } | if below(12) == 0 { 1 } else { 0 }),
        5..=8 => bind((50, 20), queue, exchange, key),
        9..=10 => bind((50, 50), queue, exchange, key),
        11 => bind((40, 30), other, exchange, key),
        12 => bind((40, 40), other, exchange, key),
        13 => {
            let bits = u8::from(below(3) == 0);
            method(1, 40, 20, &[ticket(), shortstr(exchange), vec![bits]])
        }
        _ => {
            let bits = [0, 0, 1, 2][below(4)];
            method(1, 50, 40, &[ticket(), shortstr(queue), vec![bits]])
        }
    }
}

#[test]
fn a_channels_topology_methods_in_one_write_are_answered_and_carried_out_as_one_at_a_time() {
    for seed in 0..SEQUENCES {
        let mut random = Random::new(seed);
        let methods: Vec<_> = (0..METHODS).map(|_| random_method(&mut random)).collect();
        let (mut at_once, mut one_by_one) = (Client::open(), Client::open());
        let together = at_once.send(&methods.concat());
        let apart: Vec<u8> = methods.iter().flat_map(|method| one_by_one.send(method)).collect();
        assert!(!apart.is_empty());
        assert_eq!(together, apart, "sequence {seed}: {methods:?}");
        assert_eq!(at_once.look(), one_by_one.look(), "sequence {seed}: {methods:?}");
    }
}

#[test]
fn a_connection_with_many_exclusive_queues_is_closed_once_they_are_all_gone() {
    let mut client = Client::open();
    let declarations: Vec<u8> = (0..500).flat_map(|number| declare_queue(&format!("x{number}"), 4)).collect();
    client.send(&declarations);
    assert_eq!(client.simulation.broker().cells().len(), 500);
    let answer = client.send(&method(0, 10, 50, &[vec![0, 200], shortstr(""), vec![0; 4]]));
    assert_eq!(answer, method(0, 10, 51, &[]), "close-ok");
    assert!(client.simulation.broker().cells().is_empty());
    assert_eq!(client.simulation.broker().peer_count(), 0);
}
