//! A blocking AMQP client on the crate's own wire layer: it sends what a test says and hides nothing that comes back.

use super::PATIENCE;
use prontomq::internals::wire::frame::{FrameKind, payload_max, read_frame};
use prontomq::internals::wire::method::MethodId;
use prontomq::internals::wire::properties::{Properties, PropertiesWriter};
use prontomq::internals::wire::reader::Reader;
use prontomq::internals::wire::table::{Value, write_table};
use prontomq::internals::wire::writer::{
    Content, write_ack, write_address, write_fields, write_heartbeat, write_publish,
};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const FRAME_MAX: u32 = 131_072;
const READ_BYTES: usize = 64 * 1024;
/// What is gathered before it is written by itself.
const GATHERED_BYTES: usize = 64 * 1024;

/// Arguments of a declaration, a binding or a consumer; or a message's headers.
pub(crate) type Arguments<'a> = &'a [(&'a str, Value<'a>)];

/// Who connects to what, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Login<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) vhost: &'a str,
    pub(crate) heartbeat_seconds: u16,
}

impl Default for Login<'_> {
    fn default() -> Self {
        Self { user: "guest", password: "guest", vhost: "/", heartbeat_seconds: 0 }
    }
}

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// connection.close.
    Connection(u16, String),
    /// channel.close.
    Channel(u16, String),
    /// The socket ended or broke.
    Socket,
}

/// A message in a consumer's hands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) channel: u16,
    pub(crate) consumer_tag: String,
    pub(crate) delivery_tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    properties: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Delivery {
    pub(crate) fn properties(&self) -> Properties<'_> {
        Properties::check(&self.properties).expect("the broker writes properties that can be read")
    }

    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).expect("the test sent text")
    }

    /// The body as the number that the test sent.
    pub(crate) fn number(&self) -> u64 {
        u64::from_be_bytes(self.body[..8].try_into().expect("eight bytes"))
    }
}

/// What the broker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Delivery(Delivery),
    /// basic.ack (`kept`) or basic.nack for publishes.
    Confirm {
        delivery_tag: u64,
        multiple: bool,
        kept: bool,
    },
    /// Any other method.
    Method {
        channel: u16,
        class_id: u16,
        method_id: u16,
        fields: Vec<u8>,
    },
    Heartbeat,
}

/// One connection.
pub(crate) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    used: usize,
    out: Vec<u8>,
    /// What came while a call waited for its answer.
    early: VecDeque<Incoming>,
    /// Deliveries whose content is not complete.
    partial: Option<(Delivery, u64)>,
    pub(crate) last_written: Instant,
    /// Whether a close is answered by close-ok.
    pub(crate) answers_closes: bool,
}

impl Client {
    /// guest on `/`, without heartbeats, channel 1 open.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut client = Self::open(address, Login::default()).expect("guest may connect");
        client.channel(1);
        client
    }

    /// An open connection without channels.
    pub(crate) fn open(address: SocketAddr, login: Login<'_>) -> Result<Self, Failure> {
        let (mut client, tune) = Self::begin(address, login)?;
        client.write(0, (10, 31), |fields| {
            fields.extend_from_slice(&tune.channel_max.to_be_bytes());
            fields.extend_from_slice(&FRAME_MAX.to_be_bytes());
            fields.extend_from_slice(&login.heartbeat_seconds.to_be_bytes());
        });
        client.call(0, (10, 40), |fields| {
            shortstr(fields, login.vhost);
            shortstr(fields, "");
            fields.push(0);
        })?;
        Ok(client)
    }

    /// A connection as far as connection.tune, which it has not answered.
    pub(crate) fn begin(address: SocketAddr, login: Login<'_>) -> Result<(Self, Tune), Failure> {
        let stream = TcpStream::connect(address).map_err(|_| Failure::Socket)?;
        stream.set_nodelay(true).expect("it is a TCP socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut client = Self {
            stream,
            input: Vec::new(),
            used: 0,
            out: b"AMQP\x00\x00\x09\x01".to_vec(),
            early: VecDeque::new(),
            partial: None,
            last_written: Instant::now(),
            answers_closes: true,
        };
        client.expect(0, (10, 10))?;
        client.write(0, (10, 11), |fields| {
            write_table(fields, |properties| {
                properties.table(b"capabilities", |capabilities| {
                    for name in ["consumer_cancel_notify", "authentication_failure_close", "connection.blocked"] {
                        capabilities.value(name.as_bytes(), Value::Bool(true));
                    }
                });
            });
            shortstr(fields, "PLAIN");
            longstr(fields, format!("\0{}\0{}", login.user, login.password).as_bytes());
            shortstr(fields, "en_US");
        });
        let tune = client.expect(0, (10, 30))?;
        let mut tune = Reader::new(&tune);
        let complete = "tune has three fields";
        let channel_max = tune.short().expect(complete);
        tune.long().expect(complete);
        let heartbeat_seconds = tune.short().expect(complete);
        Ok((client, Tune { channel_max, heartbeat_seconds }))
    }

    // ---- calls -------------------------------------------------------------------------------------------------

    pub(crate) fn channel(&mut self, channel: u16) {
        self.call(channel, (20, 10), |fields| shortstr(fields, "")).expect("the channel opens");
    }

    pub(crate) fn close_channel(&mut self, channel: u16) {
        let fields = |fields: &mut Vec<u8>| {
            fields.extend_from_slice(&[0, 200]);
            shortstr(fields, "");
            fields.extend_from_slice(&[0; 4]);
        };
        self.call(channel, (20, 40), fields).expect("the channel closes");
    }

    pub(crate) fn try_queue(&mut self, name: &str, kind: &[Flag], arguments: Arguments<'_>) -> Result<Queue, Failure> {
        let bits = kind.iter().fold(0, |bits, flag| bits | *flag as u8);
        let answer = self.call(1, (50, 10), |fields| {
            fields.extend_from_slice(&[0; 2]);
            shortstr(fields, name);
            fields.push(bits);
            table(fields, arguments);
        })?;
        let mut reader = Reader::new(&answer);
        let name = text(&mut reader);
        let message_count = reader.long().expect("declare-ok has a message count");
        let consumer_count = reader.long().expect("declare-ok has a consumer count");
        Ok(Queue { name, message_count, consumer_count })
    }

    pub(crate) fn queue(&mut self, name: &str, kind: &[Flag], arguments: Arguments<'_>) -> Queue {
        self.try_queue(name, kind, arguments).expect("the queue can be declared")
    }

    /// How many messages are ready in a queue that exists.
    pub(crate) fn message_count(&mut self, name: &str) -> u32 {
        self.queue(name, &[Flag::Passive], &[]).message_count
    }

    pub(crate) fn try_exchange(
        &mut self,
        name: &str,
        kind: &str,
        bits: &[Flag],
        arguments: Arguments<'_>,
    ) -> Result<(), Failure> {
        let bits = bits.iter().fold(0, |bits, flag| {
            bits | match flag {
                Flag::Passive => 1,
                Flag::Durable => 2,
                Flag::AutoDelete => 4,
                Flag::Exclusive => panic!("no exchange is exclusive"),
            }
        });
        self.call(1, (40, 10), |fields| {
            fields.extend_from_slice(&[0; 2]);
            shortstr(fields, name);
            shortstr(fields, kind);
            fields.push(bits);
            table(fields, arguments);
        })?;
        Ok(())
    }

    pub(crate) fn exchange(&mut self, name: &str, kind: &str, bits: &[Flag], arguments: Arguments<'_>) {
        self.try_exchange(name, kind, bits, arguments).expect("the exchange can be declared");
    }

    pub(crate) fn bind(&mut self, queue: &str, exchange: &str, routing_key: &str, arguments: Arguments<'_>) {
        self.try_bind(queue, exchange, routing_key, arguments).expect("the binding can be made");
    }

    pub(crate) fn try_bind(
        &mut self,
        queue: &str,
        exchange: &str,
        routing_key: &str,
        arguments: Arguments<'_>,
    ) -> Result<(), Failure> {
        self.bind_as((50, 20), queue, exchange, routing_key, arguments)
    }

    pub(crate) fn bind_exchange(
        &mut self,
        destination: &str,
        source: &str,
        routing_key: &str,
        arguments: Arguments<'_>,
    ) {
        self.bind_as((40, 30), destination, source, routing_key, arguments).expect("the binding can be made");
    }

    fn bind_as(
        &mut self,
        method: (u16, u16),
        destination: &str,
        source: &str,
        routing_key: &str,
        arguments: Arguments<'_>,
    ) -> Result<(), Failure> {
        let answer = self.call(1, method, |fields| {
            fields.extend_from_slice(&[0; 2]);
            shortstr(fields, destination);
            shortstr(fields, source);
            shortstr(fields, routing_key);
            fields.push(0);
            table(fields, arguments);
        });
        answer.map(drop)
    }

    pub(crate) fn delete_queue(&mut self, name: &str) -> u32 {
        self.try_delete_queue(name).expect("the queue can be deleted")
    }

    /// How many messages it held.
    pub(crate) fn try_delete_queue(&mut self, name: &str) -> Result<u32, Failure> {
        let answer = self.call(1, (50, 40), |fields| {
            fields.extend_from_slice(&[0; 2]);
            shortstr(fields, name);
            fields.push(0);
        })?;
        Ok(Reader::new(&answer).long().expect("delete-ok has a message count"))
    }

    /// How many ready messages it held.
    pub(crate) fn try_purge_queue(&mut self, name: &str) -> Result<u32, Failure> {
        let answer = self.call(1, (50, 30), |fields| {
            fields.extend_from_slice(&[0; 2]);
            shortstr(fields, name);
            fields.push(0);
        })?;
        Ok(Reader::new(&answer).long().expect("purge-ok has a message count"))
    }

    pub(crate) fn confirm_select(&mut self) {
        self.call(1, (85, 10), |fields| fields.push(0)).expect("confirms can be selected");
    }

    pub(crate) fn qos(&mut self, prefetch_count: u16) {
        let answer = self.call(1, (60, 10), |fields| {
            fields.extend_from_slice(&[0; 4]);
            fields.extend_from_slice(&prefetch_count.to_be_bytes());
            fields.push(0);
        });
        answer.expect("the prefetch can be set");
    }

    /// Consumes with manual acknowledgements.
    pub(crate) fn consume(&mut self, queue: &str, consumer_tag: &str) {
        self.consume_as(queue, consumer_tag, false, &[]);
    }

    /// Consumes without acknowledgements.
    pub(crate) fn consume_no_ack(&mut self, queue: &str, consumer_tag: &str) {
        self.consume_as(queue, consumer_tag, true, &[]);
    }

    /// Consumes with manual acknowledgements, before or behind consumers of another priority.
    pub(crate) fn consume_with_priority(&mut self, queue: &str, consumer_tag: &str, priority: i32) {
        self.consume_as(queue, consumer_tag, false, &[("x-priority", Value::I32(priority))]);
    }

    fn consume_as(&mut self, queue: &str, consumer_tag: &str, no_ack: bool, arguments: Arguments<'_>) {
        let answer = self.call(1, (60, 20), |fields| {
            fields.extend_from_slice(&[0; 2]);
            shortstr(fields, queue);
            shortstr(fields, consumer_tag);
            fields.push(if no_ack { 2 } else { 0 });
            table(fields, arguments);
        });
        answer.expect("the queue can be consumed");
    }

    /// basic.get with a manual acknowledgement.
    pub(crate) fn get(&mut self, queue: &str) -> Option<Delivery> {
        self.write(1, (60, 70), |fields| {
            fields.extend_from_slice(&[0; 2]);
            shortstr(fields, queue);
            fields.push(0);
        });
        self.flush().expect("the broker reads");
        loop {
            match self.receive().expect("the broker answers") {
                Incoming::Delivery(delivery) if delivery.consumer_tag.is_empty() => return Some(delivery),
                Incoming::Method { class_id: 60, method_id: 72, .. } => return None,
                other => self.early.push_back(other),
            }
        }
    }

    /// connection.close, and waits for its answer.
    pub(crate) fn close(mut self) {
        self.call(0, (10, 50), |fields| {
            fields.extend_from_slice(&200u16.to_be_bytes());
            shortstr(fields, "goodbye");
            fields.extend_from_slice(&[0; 4]);
        })
        .expect("the connection closes");
    }

    /// The socket, for tests that read it in their own way.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Ends the socket without a word.
    pub(crate) fn drop_socket(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    // ---- what needs no answer ----------------------------------------------------------------------------------

    /// Gathers a publish; `flush`, or enough of them, sends it.
    pub(crate) fn publish(
        &mut self,
        exchange: &str,
        routing_key: &str,
        properties: &PropertiesWriter<'_>,
        body: &[u8],
    ) {
        let mut address = Vec::new();
        write_address(&mut address, exchange.as_bytes(), routing_key.as_bytes());
        let properties = properties.to_vec();
        let content = Content { address: &address, properties: &properties, body };
        write_publish(&mut self.out, 1, false, content, payload_max(FRAME_MAX));
    }

    /// Gathers an ack.
    pub(crate) fn ack(&mut self, delivery_tag: u64, multiple: bool) {
        write_ack(&mut self.out, 1, delivery_tag, multiple);
    }

    /// Gathers a nack.
    pub(crate) fn nack(&mut self, delivery_tag: u64, requeue: bool) {
        self.write(1, (60, 120), |fields| {
            fields.extend_from_slice(&delivery_tag.to_be_bytes());
            fields.push(if requeue { 2 } else { 0 });
        });
    }

    /// Gathers a frame of any kind.
    pub(crate) fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        self.out.push(kind);
        self.out.extend_from_slice(&channel.to_be_bytes());
        longstr(&mut self.out, payload);
        self.out.push(0xCE);
    }

    /// Gathers bytes that may be no frame.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Gathers a mandatory publish through the default exchange.
    pub(crate) fn publish_mandatory(&mut self, routing_key: &str, body: &[u8]) {
        let mut address = Vec::new();
        write_address(&mut address, b"", routing_key.as_bytes());
        let content = Content { address: &address, properties: &[0, 0], body };
        write_publish(&mut self.out, 1, true, content, payload_max(FRAME_MAX));
    }

    /// Gathers a publish through the default exchange that announces a body of so many bytes, and brings none of it.
    pub(crate) fn begin_publish(&mut self, channel: u16, routing_key: &str, body_bytes: u64) {
        self.write(channel, (60, 40), |fields| {
            fields.extend_from_slice(&[0; 2]);
            shortstr(fields, "");
            shortstr(fields, routing_key);
            fields.push(0);
        });
        let mut header = vec![0, 60, 0, 0];
        header.extend_from_slice(&body_bytes.to_be_bytes());
        header.extend_from_slice(&[0, 0]);
        self.frame(2, channel, &header);
    }

    /// Sends what was gathered as far as the socket takes it within `patience`; the rest is thrown away. Whether all was taken.
    pub(crate) fn flush_within(&mut self, patience: Duration) -> bool {
        self.stream.set_write_timeout(Some(patience)).expect("a timeout can be set");
        let is_sent = self.stream.write_all(&self.out).is_ok();
        self.stream.set_write_timeout(None).expect("a timeout can be taken away");
        self.out.clear();
        is_sent
    }

    pub(crate) fn heartbeat(&mut self) {
        write_heartbeat(&mut self.out);
    }

    /// Whether so much is gathered that it should be sent.
    pub(crate) fn has_gathered(&self) -> bool {
        self.out.len() >= GATHERED_BYTES
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        let written = self.stream.write_all(&self.out).map_err(|_| Failure::Socket);
        self.out.clear();
        self.last_written = Instant::now();
        written
    }

    /// From here on a broker that does not read for so long counts as gone.
    pub(crate) fn write_within(&self, patience: Duration) {
        self.stream.set_write_timeout(Some(patience)).expect("a timeout can be set");
    }

    /// Waits until the broker has confirmed everything from `next`, the first that was not waited for, to `last`.
    pub(crate) fn wait_for_confirms(&mut self, mut next: u64, last: u64) {
        self.flush().expect("the broker reads");
        let mut kept_below = std::collections::BTreeSet::new();
        while next <= last {
            match self.next().expect("confirms come") {
                Incoming::Confirm { delivery_tag, multiple, kept } => {
                    assert!(kept, "the broker refused {delivery_tag}");
                    if multiple {
                        next = next.max(delivery_tag + 1);
                    } else {
                        kept_below.insert(delivery_tag);
                    }
                    while kept_below.remove(&next) {
                        next += 1;
                    }
                }
                other => panic!("{other:?} instead of a confirm"),
            }
        }
    }

    // ---- what comes --------------------------------------------------------------------------------------------

    /// The next thing that the broker says, after sending what was gathered.
    pub(crate) fn next(&mut self) -> Result<Incoming, Failure> {
        if !self.out.is_empty() {
            self.flush()?;
        }
        match self.early.pop_front() {
            Some(early) => Ok(early),
            None => self.receive(),
        }
    }

    /// The next delivery; heartbeats are passed over.
    pub(crate) fn delivery(&mut self) -> Delivery {
        loop {
            match self.next().expect("a delivery comes") {
                Incoming::Delivery(delivery) => return delivery,
                Incoming::Heartbeat => {}
                other => panic!("{other:?} instead of a delivery"),
            }
        }
    }

    /// What comes within `patience`, if anything does.
    pub(crate) fn next_within(&mut self, patience: Duration) -> Option<Result<Incoming, Failure>> {
        if !self.out.is_empty()
            && let Err(failure) = self.flush()
        {
            return Some(Err(failure));
        }
        if let Some(early) = self.early.pop_front() {
            return Some(Ok(early));
        }
        let deadline = Instant::now() + patience;
        loop {
            match self.cut() {
                Ok(Some(incoming)) => return Some(Ok(incoming)),
                Ok(None) => {}
                Err(failure) => return Some(Err(failure)),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            self.stream.set_read_timeout(Some(left)).expect("a timeout can be set");
            let filled = self.fill();
            self.stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
            match filled {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return None;
                }
                Err(_) => return Some(Err(Failure::Socket)),
            }
        }
    }

    /// Sends a method and waits for the next one on its channel, which is its answer.
    pub(crate) fn call(
        &mut self,
        channel: u16,
        method: (u16, u16),
        fields: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Vec<u8>, Failure> {
        self.write(channel, method, fields);
        self.expect(channel, (method.0, method.1 + 1))
    }

    fn expect(&mut self, channel: u16, answer: (u16, u16)) -> Result<Vec<u8>, Failure> {
        self.flush()?;
        loop {
            match self.receive()? {
                Incoming::Method { channel: on, class_id, method_id, fields } if on == channel => {
                    assert_eq!((class_id, method_id), answer, "another answer than the method's own");
                    return Ok(fields);
                }
                early => self.early.push_back(early),
            }
        }
    }

    /// Gathers a method.
    pub(crate) fn write(&mut self, channel: u16, method: (u16, u16), fields: impl FnOnce(&mut Vec<u8>)) {
        let method = MethodId { class_id: method.0, method_id: method.1 };
        write_fields(&mut self.out, channel, method, fields);
    }

    fn receive(&mut self) -> Result<Incoming, Failure> {
        loop {
            if let Some(incoming) = self.cut()? {
                return Ok(incoming);
            }
            match self.fill() {
                Ok(()) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    panic!("the broker said nothing for {PATIENCE:?}")
                }
                Err(_) => return Err(Failure::Socket),
            }
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.input.drain(..self.used);
        self.used = 0;
        let len = self.input.len();
        self.input.resize(len + READ_BYTES, 0);
        let read = self.stream.read(&mut self.input[len..]);
        self.input.truncate(len + *read.as_ref().unwrap_or(&0));
        match read? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Answers a close.
    fn agree(&mut self, channel: u16, failure: Failure) -> Failure {
        if !self.answers_closes {
            return failure;
        }
        let close_ok = if channel == 0 { (10, 51) } else { (20, 41) };
        self.write(channel, close_ok, |_| {});
        // Nobody may be left to read it.
        let _ = self.flush();
        failure
    }

    /// The next complete thing in the input.
    fn cut(&mut self) -> Result<Option<Incoming>, Failure> {
        loop {
            let cut = read_frame(&self.input[self.used..], payload_max(FRAME_MAX)).expect("the broker writes frames");
            let Some(cut) = cut else { return Ok(None) };
            self.used += cut.consumed;
            let mut reader = Reader::new(cut.frame.payload);
            match cut.frame.kind {
                FrameKind::Heartbeat => return Ok(Some(Incoming::Heartbeat)),
                FrameKind::Method => {
                    let channel = cut.frame.channel;
                    match incoming_method(channel, &mut reader) {
                        Ok(Incoming::Delivery(delivery)) => self.partial = Some((delivery, 0)),
                        Ok(other) => return Ok(Some(other)),
                        Err(failure) => return Err(self.agree(channel, failure)),
                    }
                }
                FrameKind::Header => {
                    reader.take(4);
                    let (delivery, left) = self.partial.as_mut().expect("a header follows its method");
                    *left = reader.long_long().expect("a header has a body size");
                    delivery.properties = reader.rest().to_vec();
                }
                FrameKind::Body => {
                    let (delivery, left) = self.partial.as_mut().expect("a body follows its header");
                    *left -= cut.frame.payload.len() as u64;
                    delivery.body.extend_from_slice(cut.frame.payload);
                }
            }
            if cut.frame.kind != FrameKind::Method && self.partial.as_ref().is_some_and(|(_, left)| *left == 0) {
                return Ok(self.partial.take().map(|(delivery, _)| Incoming::Delivery(delivery)));
            }
        }
    }
}

/// What the broker offers in connection.tune.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tune {
    pub(crate) channel_max: u16,
    pub(crate) heartbeat_seconds: u16,
}

/// A declared queue, as declare-ok tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    pub(crate) name: String,
    pub(crate) message_count: u32,
    pub(crate) consumer_count: u32,
}

/// The bits of queue.declare, by their values there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    Passive = 1,
    Durable = 2,
    Exclusive = 4,
    AutoDelete = 8,
}

/// Properties of a persistent message.
pub(crate) fn persistent<'a>() -> PropertiesWriter<'a> {
    PropertiesWriter::new().delivery_mode(2)
}

fn incoming_method(channel: u16, reader: &mut Reader<'_>) -> Result<Incoming, Failure> {
    let class_id = reader.short().expect("a method has a class");
    let method_id = reader.short().expect("a method has a number");
    let complete = "the broker writes complete methods";
    Ok(match (class_id, method_id) {
        (60, 60 | 71) => {
            let consumer_tag = if method_id == 60 { text(reader) } else { String::new() };
            Incoming::Delivery(Delivery {
                channel,
                consumer_tag,
                delivery_tag: reader.long_long().expect(complete),
                redelivered: reader.octet().expect(complete) & 1 != 0,
                exchange: text(reader),
                routing_key: text(reader),
                properties: Vec::new(),
                body: Vec::new(),
            })
        }
        (60, 80 | 120) => Incoming::Confirm {
            delivery_tag: reader.long_long().expect(complete),
            multiple: reader.octet().expect(complete) & 1 != 0,
            kept: method_id == 80,
        },
        (10, 50) => return Err(Failure::Connection(reader.short().expect(complete), text(reader))),
        (20, 40) => return Err(Failure::Channel(reader.short().expect(complete), text(reader))),
        _ => Incoming::Method { channel, class_id, method_id, fields: reader.rest().to_vec() },
    })
}

fn text(reader: &mut Reader<'_>) -> String {
    String::from_utf8_lossy(reader.shortstr().expect("the broker writes complete methods")).into_owned()
}

fn shortstr(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).expect("a short string has at most 255 bytes"));
    out.extend_from_slice(text.as_bytes());
}

fn longstr(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&u32::try_from(bytes.len()).expect("it is short").to_be_bytes());
    out.extend_from_slice(bytes);
}

fn table(out: &mut Vec<u8>, entries: Arguments<'_>) {
    write_table(out, |table| entries.iter().for_each(|(key, value)| table.value(key.as_bytes(), *value)));
}
