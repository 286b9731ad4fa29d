//! Whole dialogues out of arbitrary bytes, against a broker in memory; run by the fuzz target `dialogue` and, on stable, by
//! `tests/fuzz.rs`.
//!
//! The input is a program: each octet picks what a client does next, those behind it with what. Most of it is well formed, so
//! that it gets far; raw octets, methods with arbitrary arguments and frames cut anywhere are among it.

use prontomq::Settings;
use prontomq::internals::server::{SimulatedConnection, Simulation};
use prontomq::internals::wire::frame::read_frame;
use std::time::Duration;

/// Clients at a time.
const CLIENTS: usize = 3;
/// What a run may do at most; the rest of its input is left.
const STEPS_MAX: usize = 400;
/// A broker says at most so much for each octet it hears and each message it holds; beyond this something feeds itself.
const OUTPUT_BYTES_MAX: usize = 64 << 20;

/// Reads `input` as a program and carries it out. Panics where the broker does, says what is no AMQP, or keeps what nobody
/// holds any more. Returns how many messages reached queues.
pub(crate) fn dialogue(input: &[u8]) -> u64 {
    let simulation = Simulation::start(Settings::default(), 1).expect("a broker in memory starts");
    let mut run = Run { simulation, input, clients: Vec::new(), current: 0, said: 0 };
    run.connect();
    for _ in 0..STEPS_MAX {
        if run.input.is_empty() {
            break;
        }
        run.step();
        run.hear();
    }
    run.end()
}

struct Run<'a> {
    simulation: Simulation,
    input: &'a [u8],
    clients: Vec<SimulatedConnection>,
    current: usize,
    said: usize,
}

impl<'a> Run<'a> {
    fn octet(&mut self) -> u8 {
        self.input.split_off_first().copied().unwrap_or(0)
    }

    fn octets(&mut self, most: u8) -> &'a [u8] {
        let wanted = usize::from(self.octet() % most);
        let (taken, rest) = self.input.split_at(wanted.min(self.input.len()));
        self.input = rest;
        taken
    }

    /// One of few names, so that things meet.
    fn name(&mut self) -> &'static [u8] {
        const NAMES: [&[u8]; 8] = [b"", b"a", b"b", b"c", b"amq.direct", b"amq.fanout", b"amq.topic", b"a.*.#"];
        NAMES[usize::from(self.octet() % 8)]
    }

    fn channel(&mut self) -> u8 {
        self.octet() % 3 + 1
    }

    fn send(&mut self, bytes: &[u8]) {
        if let Some(client) = self.clients.get(self.current) {
            self.simulation.send(*client, bytes);
        }
    }

    fn method(&mut self, channel: u8, class: u16, method: u16, arguments: &[&[u8]]) {
        let payload = [&class.to_be_bytes(), &method.to_be_bytes(), &arguments.concat()[..]].concat();
        self.send(&frame(1, channel, &payload));
    }

    fn connect(&mut self) {
        if self.clients.len() == CLIENTS {
            let left = self.clients.remove(0);
            self.simulation.leave(left);
        }
        self.current = self.clients.len();
        self.clients.push(self.simulation.connect());
        self.send(b"AMQP\x00\x00\x09\x01");
        let empty = &table(&[])[..];
        self.method(0, 10, 11, &[empty, &short(b"PLAIN"), &long(b"\0guest\0guest"), &short(b"en_US")]);
        let frame_max = if self.octet().is_multiple_of(2) { [0, 0, 16, 0] } else { [0, 2, 0, 0] };
        let heartbeat = [0, self.octet() % 4];
        self.method(0, 10, 31, &[&[0, 10], &frame_max, &heartbeat]);
        self.method(0, 10, 40, &[&short(b"/"), &[0, 0]]);
        self.method(1, 20, 10, &[&[0]]);
    }

    fn step(&mut self) {
        match self.octet() % 20 {
            0 => {
                let raw = self.octets(64);
                self.send(raw);
            }
            1 => {
                let (channel, class, method) = (self.channel(), self.octet() % 13, self.octet() % 130);
                let arguments = self.octets(48);
                self.method(channel, u16::from(class) * 10, u16::from(method), &[arguments]);
            }
            2 => {
                let channel = self.channel();
                self.method(channel, 20, 10, &[&[0]]);
            }
            3 | 4 => self.queue_declare(),
            5 => {
                let (channel, name, kind, flags) = (self.channel(), self.name(), self.octet() % 4, self.octet());
                let kind = [&b"direct"[..], b"fanout", b"topic", b"headers"][usize::from(kind)];
                self.method(channel, 40, 10, &[&[0, 0], &short(name), &short(kind), &[flags], &table(&[])]);
            }
            6 => {
                let (channel, to, from, key) = (self.channel(), self.name(), self.name(), self.name());
                let (class, nowait) = if self.octet().is_multiple_of(3) { (40, 0) } else { (50, self.octet() % 2) };
                let method = if self.octet().is_multiple_of(5) { 40 } else { 20 };
                let method = if class == 50 && method == 40 { 50 } else { method };
                let nowait = if method == 50 { &[][..] } else { &[nowait][..] };
                self.method(
                    channel,
                    class,
                    method,
                    &[&[0, 0], &short(to), &short(from), &short(key), nowait, &table(&[])],
                );
            }
            7..=9 => self.publish(),
            10 => {
                let (channel, queue, tag, flags) = (self.channel(), self.name(), self.name(), self.octet());
                self.method(channel, 60, 20, &[&[0, 0], &short(queue), &short(tag), &[flags], &table(&[])]);
            }
            11 => {
                let (channel, queue, no_ack) = (self.channel(), self.name(), self.octet());
                self.method(channel, 60, 70, &[&[0, 0], &short(queue), &[no_ack]]);
            }
            12 | 13 => {
                let (channel, tag, flags) = (self.channel(), [0, 0, 0, 0, 0, 0, 0, self.octet() % 16], self.octet());
                let method = [80, 90, 120][usize::from(self.octet() % 3)];
                self.method(channel, 60, method, &[&tag, &[flags]]);
            }
            14 => {
                let (channel, count, global) = (self.channel(), self.octet() % 5, self.octet());
                self.method(channel, 60, 10, &[&[0, 0, 0, 0, 0, count, global]]);
            }
            15 => {
                let (channel, flag) = (self.channel(), self.octet());
                const METHODS: [(u16, u16); 6] = [(85, 10), (90, 10), (90, 20), (90, 30), (60, 110), (60, 100)];
                let (class, method) = METHODS[usize::from(self.octet() % 6)];
                let flags = if class == 90 { Vec::new() } else { vec![flag] };
                self.method(channel, class, method, &[&flags]);
            }
            16 => {
                let (channel, name, flags) = (self.channel(), self.name(), self.octet());
                match self.octet() % 4 {
                    0 => self.method(channel, 60, 30, &[&short(name), &[flags]]),
                    1 => self.method(channel, 50, 40, &[&[0, 0], &short(name), &[flags]]),
                    2 => self.method(channel, 50, 30, &[&[0, 0], &short(name), &[flags]]),
                    _ => self.method(channel, 40, 20, &[&[0, 0], &short(name), &[flags]]),
                }
            }
            17 => {
                let time = Duration::from_millis(1 << (self.octet() % 14));
                self.simulation.advance(time);
            }
            18 => match self.octet() % 4 {
                0 => self.connect(),
                1 if !self.clients.is_empty() => {
                    let left = self.clients.remove(self.current.min(self.clients.len() - 1));
                    self.simulation.leave(left);
                    self.current = 0;
                }
                _ => self.current = usize::from(self.octet()) % CLIENTS,
            },
            _ => {
                let channel = self.channel();
                match self.octet() % 4 {
                    0 => self.method(channel, 20, 40, &[&[0, 200], &short(b""), &[0, 0, 0, 0]]),
                    1 => self.method(channel, 20, 41, &[]),
                    2 => self.method(0, 10, 50, &[&[0, 200], &short(b""), &[0, 0, 0, 0]]),
                    _ => self.send(&frame(8, 0, b"")),
                }
            }
        }
    }

    fn queue_declare(&mut self) {
        let (channel, name, flags) = (self.channel(), self.name(), self.octet());
        let value = self.octet() % 20;
        let number = |key: &[u8]| [&short(key)[..], &[b'I', 0, 0, 0, value]].concat();
        let text = |key: &[u8], text: &[u8]| [&short(key)[..], b"S", &long(text)].concat();
        let arguments = match self.octet() % 8 {
            0 => number(b"x-message-ttl"),
            1 => number(b"x-max-length"),
            2 => [number(b"x-max-length"), text(b"x-overflow", b"reject-publish")].concat(),
            3 => [number(b"x-message-ttl"), text(b"x-dead-letter-exchange", b"")].concat(),
            4 => number(b"x-max-priority"),
            5 => [number(b"x-max-length"), text(b"x-dead-letter-exchange", b"amq.fanout")].concat(),
            _ => Vec::new(),
        };
        self.method(channel, 50, 10, &[&[0, 0], &short(name), &[flags & 0x1E], &table(&arguments)]);
    }

    fn publish(&mut self) {
        let (channel, exchange, key, flags) = (self.channel(), self.name(), self.name(), self.octet());
        let body = self.octets(40);
        let (mode, priority) = (self.octet() % 3, self.octet() % 6);
        let cut = usize::from(self.octet());
        let publish = [&[0, 60, 0, 40, 0, 0][..], &short(exchange), &short(key), &[flags & 1]].concat();
        let properties = [&[0x18, 0][..], &[mode, priority]].concat();
        let header = [&[0, 60, 0, 0][..], &(body.len() as u64).to_be_bytes(), &properties].concat();
        let mut bytes = [frame(1, channel, &publish), frame(2, channel, &header)].concat();
        if !body.is_empty() {
            bytes.extend(frame(3, channel, body));
        }
        // In two pieces now and then, and now and then a piece too little.
        let (first, rest) = bytes.split_at(cut.min(bytes.len()));
        self.send(first);
        if cut != 7 {
            self.send(rest);
        }
    }

    /// What the broker says is frames, whole ones, or its protocol header.
    fn hear(&mut self) {
        for client in self.clients.clone() {
            let output = self.simulation.take_output(client);
            self.said += output.len();
            assert!(self.said < OUTPUT_BYTES_MAX, "the broker does not stop talking");
            let mut rest = &output[..];
            while !rest.is_empty() && !rest.starts_with(b"AMQP") {
                let cut = read_frame(rest, 1 << 20).expect("the broker speaks AMQP").expect("in whole frames");
                rest = &rest[cut.consumed..];
            }
        }
    }

    /// Once all have left nobody holds anything.
    fn end(mut self) -> u64 {
        for client in std::mem::take(&mut self.clients) {
            self.simulation.leave(client);
        }
        self.simulation.advance(Duration::from_millis(50));
        assert_eq!(self.simulation.broker().peer_count(), 0);
        for cell in self.simulation.broker().cells() {
            let metrics = cell.metrics();
            assert_eq!((metrics.unacked, metrics.unacked_bytes, metrics.consumers), (0, 0, 0), "{}", cell.name());
            assert!(cell.owner().is_none(), "exclusive queues go with their connection");
        }
        self.simulation.broker().counters().snapshot().routed
    }
}

fn frame(kind: u8, channel: u8, payload: &[u8]) -> Vec<u8> {
    [&[kind, 0, channel], &(payload.len() as u32).to_be_bytes()[..], payload, &[0xCE]].concat()
}

fn short(bytes: &[u8]) -> Vec<u8> {
    [&[bytes.len() as u8], bytes].concat()
}

fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

fn table(entries: &[u8]) -> Vec<u8> {
    long(entries)
}
