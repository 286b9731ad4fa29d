//! How TCP cuts a connection's frames into segments decides nothing: any sequence of frames, cut at any byte, leaves what the
//! same frames leave when each is sent alone and answered before the next.
//!
//! Two brokers without sockets hear the same history of a client, one frame by frame, one in segments cut at random. Compared
//! are the answers and errors of each channel in their order, what consumers were given, which publishes were confirmed, and at
//! the end what every queue holds. Confirms may be merged, and a channel or connection that closes may leave some out, but
//! none may be false.
//!
//! `ONE_SEGMENT_FRAMES` is how many frames are compared in all.

use prontomq::Settings;
use prontomq::internals::model::random::Random;
use prontomq::internals::server::{SimulatedConnection, Simulation};
use prontomq::internals::wire::frame::{FrameKind, read_frame};
use std::collections::{BTreeMap, BTreeSet};

const FRAMES: usize = 12_000;
/// Channels 1 and 2 get, publish and settle; channel 3 consumes. Each has names of its own, for the order of frames of
/// different channels is nothing a client may rely on.
const CHANNELS: [u16; 3] = [1, 2, 3];
const CONSUMING: u16 = 3;
const ROUNDS: u64 = 12;

fn short(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind][..], &channel.to_be_bytes(), &(payload.len() as u32).to_be_bytes(), payload, &[0xCE]].concat()
}

fn method(channel: u16, class: u16, id: u16, fields: &[&[u8]]) -> Vec<u8> {
    frame(1, channel, &[&class.to_be_bytes(), &id.to_be_bytes(), &fields.concat()[..]].concat())
}

const NO_TABLE: [u8; 4] = [0; 4];
const CLOSE: &[u8] = &[0, 200, 0, 0, 0, 0, 0];

/// What a client sends. A settlement names the message: the two brokers may have given it under different tags.
#[derive(Clone, Debug)]
enum Sent {
    Frames(Vec<Vec<u8>>),
    Settle { channel: u16, body: Vec<u8>, id: u16, flags: u8 },
}

impl Sent {
    fn channel(&self) -> u16 {
        match self {
            Self::Frames(frames) => be16(&frames[0][1..3]),
            Self::Settle { channel, .. } => *channel,
        }
    }
}

/// What one channel of one broker was given, apart from the order in which confirms and deliveries came between answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Heard {
    /// Methods with their contents, in order.
    answers: Vec<(u16, u16, Vec<u8>, Vec<u8>)>,
    deliveries: BTreeMap<Vec<u8>, Vec<(bool, Vec<u8>)>>,
    acked: BTreeSet<u64>,
    nacked: BTreeSet<u64>,
}

impl Heard {
    /// Whether the channel was closed, by whichever side.
    fn has_closed(&self) -> bool {
        self.answers.iter().any(|(class, id, ..)| *class == 20 && matches!(id, 40 | 41))
    }
}

struct Broker {
    simulation: Simulation,
    client: SimulatedConnection,
    heard: BTreeMap<u16, Heard>,
    /// Unacknowledged messages by channel and body.
    held: BTreeMap<(u16, Vec<u8>), u64>,
    /// Publishes confirmed so far, by channel.
    confirmed: BTreeMap<u16, BTreeSet<u64>>,
}

impl Broker {
    fn start(seed: u64) -> Self {
        let mut settings = Settings::default();
        settings.connection.message_bytes_max = 300;
        let mut simulation = Simulation::start(settings, seed).expect("a broker in memory starts");
        let client = connect(&mut simulation);
        Self { simulation, client, heard: BTreeMap::new(), held: BTreeMap::new(), confirmed: BTreeMap::new() }
    }

    fn encode(&self, sent: &Sent) -> Vec<Vec<u8>> {
        match sent {
            Sent::Frames(frames) => frames.clone(),
            Sent::Settle { channel, body, id, flags } => {
                let tag = self.held.get(&(*channel, body.clone())).copied().unwrap_or(9999);
                vec![method(*channel, 60, *id, &[&tag.to_be_bytes(), &[*flags]])]
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.simulation.send(self.client, bytes);
    }

    /// Takes what came since the last call.
    fn hear(&mut self) -> BTreeMap<u16, Heard> {
        let output = self.simulation.take_output(self.client);
        let mut rest = &output[..];
        let mut frames: Vec<(u16, FrameKind, Vec<u8>)> = Vec::new();
        while !rest.is_empty() {
            let cut = read_frame(rest, 1 << 20).expect("the broker speaks AMQP").expect("in whole frames");
            frames.push((cut.frame.channel, cut.frame.kind, cut.frame.payload.to_vec()));
            rest = &rest[cut.consumed..];
        }
        let mut frames = frames.into_iter().peekable();
        while let Some((channel, kind, payload)) = frames.next() {
            assert_eq!(kind, FrameKind::Method, "contents follow their methods");
            let (class, id) = (be16(&payload[0..2]), be16(&payload[2..4]));
            let mut content = Vec::new();
            if matches!((class, id), (60, 50 | 60 | 71)) {
                let (_, kind, header) = frames.next().expect("a header follows");
                assert_eq!(kind, FrameKind::Header);
                let size = u64::from_be_bytes(header[4..12].try_into().expect("eight bytes")) as usize;
                while content.len() < size {
                    content.extend(frames.next().expect("a body follows").2);
                }
            }
            let confirm = frames.peek().map(|(_, _, next)| (be16(&next[0..2]), be16(&next[2..4]), next.clone()));
            self.note(channel, (class, id), &payload[4..], content, confirm);
        }
        std::mem::take(&mut self.heard)
    }

    fn note(
        &mut self,
        channel: u16,
        id: (u16, u16),
        fields: &[u8],
        content: Vec<u8>,
        next: Option<(u16, u16, Vec<u8>)>,
    ) {
        let heard = self.heard.entry(channel).or_default();
        match id {
            (60, 80 | 120) => {
                let (last, multiple) =
                    (u64::from_be_bytes(fields[..8].try_into().expect("eight bytes")), fields[8] & 1 == 1);
                let confirmed = self.confirmed.entry(channel).or_default();
                let list = if id.1 == 80 { &mut heard.acked } else { &mut heard.nacked };
                assert!(!confirmed.contains(&last), "a publish is confirmed once");
                // With `multiple` all up to here that are not confirmed yet.
                let first = if multiple { 1 } else { last };
                list.extend((first..=last).filter(|number| confirmed.insert(*number)));
            }
            (60, 60) => {
                let tag_len = usize::from(fields[0]);
                let (consumer, rest) = (fields[1..=tag_len].to_vec(), &fields[1 + tag_len..]);
                let tag = u64::from_be_bytes(rest[..8].try_into().expect("eight bytes"));
                self.held.insert((channel, content.clone()), tag);
                heard.deliveries.entry(consumer).or_default().push((rest[8] & 1 == 1, content));
            }
            (60, 71) => {
                let tag = u64::from_be_bytes(fields[..8].try_into().expect("eight bytes"));
                self.held.insert((channel, content.clone()), tag);
                heard.answers.push((60, 71, fields.to_vec(), content));
            }
            (60, 50) => {
                if channel == 1 && content.first() == Some(&b'c') {
                    // In confirm mode a returned message's own confirm follows, alone.
                    let (class, method, confirm) = next.expect("a confirm follows a return");
                    assert_eq!((class, method, confirm[12] & 1), (60, 80, 0), "a return's confirm is its own");
                }
                heard.answers.push((60, 50, fields.to_vec(), content));
            }
            (class, method) => {
                if (class, method) == (20, 40) || (class, method) == (20, 41) {
                    self.held.retain(|(held, _), _| *held != channel);
                    self.confirmed.remove(&channel);
                }
                heard.answers.push((class, method, fields.to_vec(), content));
            }
        }
    }

    /// What the queues hold, front to back.
    fn drain(&mut self) -> BTreeMap<String, Vec<(bool, Vec<u8>)>> {
        let gone = std::mem::replace(&mut self.client, connect(&mut self.simulation));
        self.simulation.leave(gone);
        self.send(&method(1, 20, 10, &[&[0]]));
        self.simulation.take_output(self.client);
        let names: BTreeSet<String> =
            self.simulation.broker().cells().iter().map(|cell| cell.name().to_string()).collect();
        let mut all = BTreeMap::new();
        for name in names {
            let mut messages = Vec::new();
            loop {
                self.send(&method(1, 60, 70, &[&[0, 0], &short(&name), &[1]]));
                let got = self.hear().remove(&1).unwrap_or_default();
                match got.answers.first() {
                    Some((60, 71, fields, content)) => messages.push((fields[8] & 1 == 1, content.clone())),
                    _ => break,
                }
            }
            all.insert(name, messages);
        }
        all
    }
}

/// A client logs in and opens the vhost.
fn connect(simulation: &mut Simulation) -> SimulatedConnection {
    let client = simulation.connect();
    let login = [&NO_TABLE[..], &short("PLAIN"), &[0, 0, 0, 12], b"\0guest\0guest", &short("en_US")].concat();
    simulation.send(client, b"AMQP\x00\x00\x09\x01");
    simulation.send(client, &method(0, 10, 11, &[&login]));
    simulation.send(client, &method(0, 10, 31, &[&[0, 9, 0, 0, 16, 0, 0, 0]]));
    simulation.send(client, &method(0, 10, 40, &[&short("/"), &[0, 0]]));
    simulation.take_output(client);
    client
}

fn be16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

/// Makes up what the client sends.
struct Script {
    random: Random,
    bodies: u64,
    confirming: bool,
    consumers: u64,
    /// The only channel of this burst. An error of the whole connection is made only then: it has no order among channels.
    alone: Option<u16>,
}

impl Script {
    fn below(&mut self, most: u64) -> u64 {
        self.random.next_u64() % most
    }

    fn queue(&mut self, channel: u16) -> String {
        format!("{channel}q{}", self.below(3))
    }

    fn exchange(&mut self, channel: u16) -> String {
        format!("{channel}x{}", self.below(2))
    }

    fn setup(channel: u16) -> Vec<Vec<u8>> {
        let mut frames = vec![method(channel, 20, 10, &[&[0]])];
        for queue in 0..3u8 {
            let durable = if queue == 1 { 0 } else { 2 };
            frames.push(method(
                channel,
                50,
                10,
                &[&[0, 0], &short(&format!("{channel}q{queue}")), &[durable], &NO_TABLE],
            ));
        }
        for (exchange, kind) in [(0, "fanout"), (1, "direct")] {
            let fields =
                [&[0, 0], &short(&format!("{channel}x{exchange}"))[..], &short(kind), &[2], &NO_TABLE].concat();
            frames.push(method(channel, 40, 10, &[&fields]));
        }
        let inside = [&[0, 0], &short("inside")[..], &short("fanout"), &[0b1010], &NO_TABLE].concat();
        frames.push(method(channel, 40, 10, &[&inside]));
        let bind = [
            &[0, 0],
            &short(&format!("{channel}q0"))[..],
            &short(&format!("{channel}x0")),
            &short("k"),
            &[0],
            &NO_TABLE,
        ];
        frames.push(method(channel, 50, 20, &[&bind.concat()]));
        frames
    }

    fn publish(&mut self, channel: u16, wrong: bool) -> Sent {
        self.bodies += 1;
        let confirmed = if channel == 1 && self.confirming { 'c' } else { 'p' };
        let mut body = format!("{confirmed}{channel}.{}", self.bodies).into_bytes();
        let (mut exchange, mut key) = (String::new(), self.queue(channel));
        let mut properties = if self.below(2) == 0 { vec![0x10, 0, 2] } else { vec![0, 0] };
        let mut flags = u8::from(self.below(3) == 0);
        match self.below(8) {
            0 => key = "nowhere".into(),
            1 | 2 => (exchange, key) = (self.exchange(channel), "k".into()),
            _ => {}
        }
        if wrong {
            match self.below(if self.alone.is_some() { 7 } else { 6 }) {
                0..=2 => exchange = "missing".into(),
                3 => exchange = "inside".into(),
                4 => properties = [&[1, 0], &short("soon")[..]].concat(),
                5 => body.resize(400, b'x'),
                _ => flags = 2,
            }
        }
        let mut frames = vec![
            method(channel, 60, 40, &[&[0, 0], &short(&exchange), &short(&key), &[flags]]),
            frame(2, channel, &[&[0, 60, 0, 0][..], &(body.len() as u64).to_be_bytes(), &properties].concat()),
        ];
        let cut = self.below(body.len() as u64 + 1) as usize;
        for piece in [&body[..cut], &body[cut..]] {
            if !piece.is_empty() {
                frames.push(frame(3, channel, piece));
            }
        }
        Sent::Frames(frames)
    }

    fn settle(&mut self, channel: u16, held: &BTreeMap<(u16, Vec<u8>), u64>) -> Option<Sent> {
        let mine: Vec<_> = held.keys().filter(|(held, _)| *held == channel).collect();
        if mine.is_empty() {
            return None;
        }
        let body = mine[self.below(mine.len() as u64) as usize].1.clone();
        let multiple = if channel == CONSUMING { 0 } else { u8::from(self.below(4) == 0) };
        let (id, flags) = match self.below(4) {
            0 | 1 => (80, multiple),
            2 => (90, self.below(2) as u8),
            _ => (120, multiple | (self.below(2) as u8) << 1),
        };
        Some(Sent::Settle { channel, body, id, flags })
    }

    fn topology(&mut self, channel: u16) -> Sent {
        let (queue, exchange) = (self.queue(channel), self.exchange(channel));
        let nowait = if self.below(3) == 0 { 1 } else { 0 };
        let frame = match self.below(9) {
            0 | 1 => method(channel, 50, 10, &[&[0, 0], &short(&queue), &[2 | nowait << 4], &NO_TABLE]),
            2 => method(channel, 50, 10, &[&[0, 0], &short(&queue), &[1], &NO_TABLE]),
            3 => method(
                channel,
                50,
                20,
                &[&[0, 0], &short(&queue), &short(&exchange), &short("k"), &[nowait], &NO_TABLE],
            ),
            4 => method(channel, 50, 50, &[&[0, 0], &short(&queue), &short(&exchange), &short("k"), &NO_TABLE]),
            5 => method(channel, 50, 40, &[&[0, 0], &short(&queue), &[nowait << 2]]),
            6 => method(channel, 50, 30, &[&[0, 0], &short(&queue), &[nowait]]),
            7 => method(channel, 40, 20, &[&[0, 0], &short(&exchange), &[nowait << 1]]),
            _ => {
                let fields = [&[0, 0], &short(&exchange)[..], &short("fanout"), &[2 | nowait << 4], &NO_TABLE];
                method(channel, 40, 10, &[&fields.concat()])
            }
        };
        Sent::Frames(vec![frame])
    }

    fn other(&mut self, channel: u16) -> Sent {
        let frame = match self.below(12) {
            0 | 1 => method(channel, 60, 10, &[&[0, 0, 0, 0, 0, self.below(4) as u8, self.below(2) as u8]]),
            2 if channel == 1 => {
                self.confirming = true;
                method(1, 85, 10, &[&[0]])
            }
            3 if channel == 2 => method(2, 90, 10, &[]),
            4 => method(channel, 20, 20, &[&[1]]),
            5 if channel != CONSUMING => method(channel, 60, 110, &[&[1]]),
            6 => method(channel, 60, 30, &[&short("nobody"), &[0]]),
            7 => method(channel, 30, 10, &[&short("/"), &[0x1F]]),
            8 => method(channel, 90, 30, &[]),
            9 => method(channel, 60, 80, &[&77_777u64.to_be_bytes(), &[0]]),
            _ => method(channel, 20, 20, &[&[1]]),
        };
        Sent::Frames(vec![frame])
    }

    fn step(&mut self, channel: u16, held: &BTreeMap<(u16, Vec<u8>), u64>) -> Sent {
        match self.below(24) {
            0..=8 => self.publish(channel, false),
            9 => self.publish(channel, true),
            10..=13 if channel != CONSUMING => {
                let queue = self.queue(channel);
                Sent::Frames(vec![method(channel, 60, 70, &[&[0, 0], &short(&queue), &[u8::from(self.below(4) == 0)]])])
            }
            10 if channel == CONSUMING => {
                // One consumer a queue at most, for which of two is served first is no promise.
                self.consumers += 1;
                let (queue, tag) = (self.queue(channel), format!("t{}", self.consumers));
                let flags = [0b0100, 0b0110][self.below(2) as usize];
                Sent::Frames(vec![method(
                    channel,
                    60,
                    20,
                    &[&[0, 0], &short(&queue), &short(&tag), &[flags], &NO_TABLE],
                )])
            }
            14..=17 => self.settle(channel, held).unwrap_or_else(|| self.publish(channel, false)),
            18..=20 => self.topology(channel),
            21 | 22 => self.other(channel),
            _ => match self.below(12) {
                0 => {
                    self.confirming &= channel != 1;
                    Sent::Frames(vec![method(channel, 20, 40, &[CLOSE]), method(channel, 20, 10, &[&[0]])])
                }
                1 => Sent::Frames(vec![method(0, 10, 50, &[CLOSE])]),
                _ if self.alone.is_none_or(|channel| channel == 2) => Sent::Frames(vec![method(2, 90, 20, &[])]),
                _ => self.publish(channel, true),
            },
        }
    }
}

/// Two brokers and what they are sent.
struct History {
    seed: u64,
    round: u64,
    /// Is sent each frame alone.
    alone: Broker,
    /// Is sent segments.
    cut: Broker,
    script: Script,
    open: BTreeSet<u16>,
    /// What was on its way to a consumer whose channel closed may have reached it or not.
    consumers_ended: bool,
    frames: usize,
}

impl History {
    fn new(seed: u64) -> Self {
        let script = Script { random: Random::new(seed), bodies: 0, confirming: false, consumers: 0, alone: None };
        Self {
            seed,
            round: 0,
            alone: Broker::start(seed),
            cut: Broker::start(seed),
            script,
            open: BTreeSet::new(),
            consumers_ended: false,
            frames: 0,
        }
    }

    /// Runs it; returns how many frames it had.
    fn run(mut self) -> usize {
        for round in 0..ROUNDS {
            self.round = round;
            self.open_channels();
            let burst = self.burst();
            self.send(&burst);
            if self.compare(&burst) {
                break;
            }
        }
        let (mut left, mut right) = (self.alone.drain(), self.cut.drain());
        if self.consumers_ended {
            for (_, messages) in left.iter_mut().chain(&mut right).filter(|(queue, _)| queue.starts_with('3')) {
                messages.iter_mut().for_each(|(redelivered, _)| *redelivered = true);
            }
        }
        assert_eq!(left, right, "seed {}: what the queues hold", self.seed);
        self.frames
    }

    fn send_both(&mut self, bytes: &[u8]) {
        self.alone.send(bytes);
        self.cut.send(bytes);
    }

    fn open_channels(&mut self) {
        for channel in CHANNELS {
            if self.open.insert(channel) {
                Script::setup(channel).iter().for_each(|bytes| self.send_both(bytes));
                self.script.confirming &= channel != 1;
            }
        }
        assert_eq!(self.alone.hear(), self.cut.hear(), "seed {}, round {}: setup", self.seed, self.round);
    }

    fn burst(&mut self) -> Vec<Sent> {
        let (held, script) = (&self.alone.held, &mut self.script);
        let mut burst: Vec<Sent> = Vec::new();
        let mut committed = false;
        script.alone = [None, None, Some(1), Some(2), Some(3)][script.below(5) as usize];
        for _ in 0..=script.below(14) {
            let channel = script.alone.unwrap_or(CHANNELS[script.below(3) as usize]);
            let sent = script.step(channel, held);
            // RabbitMQ takes nothing on a channel whose commit is under way.
            if committed && sent.channel() == 2 {
                continue;
            }
            committed |= matches!(&sent, Sent::Frames(frames) if frames[0] == method(2, 90, 20, &[]));
            burst.push(sent);
        }
        burst
    }

    fn send(&mut self, burst: &[Sent]) {
        let mut bytes = Vec::new();
        for sent in burst {
            for frame in self.alone.encode(sent) {
                self.alone.send(&frame);
                self.frames += 1;
            }
            bytes.extend(self.cut.encode(sent).concat());
        }
        while !bytes.is_empty() {
            let most = if self.script.below(3) == 0 { bytes.len() as u64 } else { 200 };
            let len = (self.script.below(most) as usize + 1).min(bytes.len());
            let rest = bytes.split_off(len);
            self.cut.send(&bytes);
            bytes = rest;
        }
    }

    /// Compares what the two brokers sent; whether the connection ended.
    fn compare(&mut self, burst: &[Sent]) -> bool {
        let (by_frame, by_segment) = (self.alone.hear(), self.cut.hear());
        let (seed, round) = (self.seed, self.round);
        let context = || format!("seed {seed}, round {round}\n{burst:?}\nalone {by_frame:?}\ncut {by_segment:?}");
        let ends = by_frame.contains_key(&0) || by_segment.contains_key(&0);
        assert_eq!(by_frame.get(&0), by_segment.get(&0), "{}", context());
        for channel in CHANNELS {
            let of = |heard: &BTreeMap<u16, Heard>| heard.get(&channel).cloned().unwrap_or_default();
            let (one, other) = (of(&by_frame), of(&by_segment));
            assert_eq!(one.answers, other.answers, "answers of channel {channel}, {}", context());
            let closed = one.has_closed();
            self.consumers_ended |= ends || (channel == CONSUMING && closed);
            if closed || ends {
                assert!(other.acked.is_subset(&one.acked), "{}", context());
                assert!(other.nacked.is_subset(&one.nacked), "{}", context());
            } else {
                assert_eq!((&one.acked, &one.nacked), (&other.acked, &other.nacked), "confirms, {}", context());
                assert_eq!(one.deliveries, other.deliveries, "deliveries, {}", context());
            }
            if closed {
                self.finish_closing(channel, &one);
                assert_eq!(self.alone.hear(), self.cut.hear(), "{}", context());
            }
        }
        ends
    }

    /// A client whose channel was closed by either side closes its end, so that the next round can open it anew.
    fn finish_closing(&mut self, channel: u16, heard: &Heard) {
        let by_broker = heard.answers.iter().any(|(class, id, ..)| (*class, *id) == (20, 40));
        let is_open = heard.answers.last().is_some_and(|(class, id, ..)| (*class, *id) == (20, 11));
        if by_broker {
            self.send_both(&method(channel, 20, 41, &[]));
        } else if is_open {
            self.send_both(&method(channel, 20, 40, &[CLOSE]));
        }
        self.open.remove(&channel);
    }
}

#[test]
fn frames_cut_into_any_segments_leave_what_each_frame_alone_leaves() {
    let wanted = std::env::var("ONE_SEGMENT_FRAMES").ok().and_then(|text| text.parse().ok()).unwrap_or(FRAMES);
    let first: u64 = std::env::var("ONE_SEGMENT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut frames = 0;
    for seed in first.. {
        frames += History::new(seed).run();
        if frames >= wanted {
            return;
        }
    }
}
