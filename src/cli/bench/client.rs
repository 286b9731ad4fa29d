//! A light AMQP client for load: blocking, and as cheap per message as the wire allows, so that it is not the limit.

use crate::wire::frame::{Frame, FrameKind, OVERHEAD_BYTES, read_frame};
use crate::wire::method::MethodId;
use crate::wire::writer::{write_fields, write_method};
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection, exchange, queue};
use amq_protocol::types::{AMQPValue, FieldTable};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// The first channel of a connection.
pub(super) const CHANNEL: u16 = 1;
/// The most channels that a connection may have.
pub(super) const CHANNEL_MAX: u16 = 2047;
const READ_BYTES: usize = 256 * 1024;
const FRAME_MAX: u32 = 131_072;
/// The longest piece of a body that a frame holds.
pub(super) const PAYLOAD_MAX: usize = FRAME_MAX as usize - OVERHEAD_BYTES;
/// How long a broker may take to answer as a connection begins and ends.
const ANSWER: Duration = Duration::from_secs(20);

/// Where a broker is and who asks: `amqp://user:password@host:port/vhost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Host and port.
    pub(super) address: String,
    user: String,
    password: String,
    vhost: String,
}

impl Target {
    /// Reads a URL; what is missing is guest, localhost, 5672 and the vhost `/`.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let rest = url.strip_prefix("amqp://").ok_or_else(|| format!("{url}: expected amqp://..."))?;
        let (rest, vhost) = match rest.split_once('/') {
            Some((rest, "")) | Some((rest, "%2f" | "%2F")) => (rest, "/"),
            Some((rest, vhost)) => (rest, vhost),
            None => (rest, "/"),
        };
        let (login, address) = rest.rsplit_once('@').unwrap_or(("guest:guest", rest));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let address = if address.contains(':') { address.to_owned() } else { format!("{address}:5672") };
        let (user, password, vhost) = (user.to_owned(), password.to_owned(), vhost.to_owned());
        Ok(Self { address, user, password, vhost })
    }
}

/// A queue to declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue<'a> {
    pub(super) name: &'a str,
    pub(super) durable: bool,
    pub(super) exclusive: bool,
    /// 1 for a queue without priorities.
    pub(super) priorities: u16,
}

/// One connection with its open channels.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: TcpStream,
    input: Vec<u8>,
    filled: usize,
    used: usize,
}

impl Client {
    /// Connects, logs in and opens so many channels.
    pub(super) fn connect(target: &Target, channels: u16) -> io::Result<Self> {
        let address = target
            .address
            .to_socket_addrs()?
            .next()
            .ok_or_else(|| io::Error::other(format!("{}: no such address", target.address)))?;
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut client = Self { stream, input: vec![0; READ_BYTES], filled: 0, used: 0 };
        client.stream.write_all(b"AMQP\x00\x00\x09\x01")?;
        client.expect(10, 10)?;
        let response = format!("\0{}\0{}", target.user, target.password);
        let start_ok = connection::StartOk {
            client_properties: FieldTable::default(),
            mechanism: "PLAIN".into(),
            response: response.as_str().into(),
            locale: "en_US".into(),
        };
        client.send(0, AMQPClass::Connection(connection::AMQPMethod::StartOk(start_ok)))?;
        client.expect(10, 30)?;
        let tune_ok = connection::TuneOk { channel_max: CHANNEL_MAX, frame_max: FRAME_MAX, heartbeat: 0 };
        client.send(0, AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune_ok)))?;
        let open = connection::Open { virtual_host: target.vhost.as_str().into() };
        client.send(0, AMQPClass::Connection(connection::AMQPMethod::Open(open)))?;
        client.expect(10, 41)?;
        for channel in CHANNEL..=channels {
            client.send(channel, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})))?;
            client.expect(20, 11)?;
        }
        client.stream.set_read_timeout(None)?;
        Ok(client)
    }

    /// Closes the connection; what was published before has been taken when this returns.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(ANSWER))?;
        let close = connection::Close { reply_code: 200, reply_text: "bye".into(), class_id: 0, method_id: 0 };
        self.send(0, AMQPClass::Connection(connection::AMQPMethod::Close(close)))?;
        self.expect(10, 51)
    }

    fn send(&mut self, channel: u16, method: AMQPClass) -> io::Result<()> {
        let mut out = Vec::new();
        write_method(&mut out, channel, method);
        self.stream.write_all(&out)
    }

    /// Waits for a method; whatever else comes is an error.
    fn expect(&mut self, class_id: u16, method_id: u16) -> io::Result<()> {
        loop {
            let mut found = None;
            self.next_frames(1, |frame| {
                if frame.kind == FrameKind::Method {
                    found = Some((MethodId::of(frame.payload), String::from_utf8_lossy(frame.payload).into_owned()));
                }
            })?;
            match found {
                Some((Some(id), _)) if id == (MethodId { class_id, method_id }) => return Ok(()),
                Some((_, text)) => {
                    return Err(io::Error::other(format!("expected method {class_id}.{method_id}, got: {text}")));
                }
                None => {}
            }
        }
    }

    /// Reads, then hands over up to `most` whole frames; at least one unless the read brought only a part.
    pub(super) fn next_frames(&mut self, most: usize, mut each: impl FnMut(Frame<'_>)) -> io::Result<()> {
        let mut handed = 0;
        loop {
            while handed < most {
                let cut = read_frame(&self.input[self.used..self.filled], usize::MAX)
                    .map_err(|error| io::Error::other(error.to_string()))?;
                let Some(cut) = cut else { break };
                self.used += cut.consumed;
                handed += 1;
                each(cut.frame);
            }
            if handed > 0 {
                return Ok(());
            }
            self.input.copy_within(self.used..self.filled, 0);
            self.filled -= self.used;
            self.used = 0;
            if self.filled == self.input.len() {
                self.input.resize(self.input.len() * 2, 0);
            }
            match self.stream.read(&mut self.input[self.filled..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                len => self.filled += len,
            }
        }
    }

    pub(super) fn declare(&mut self, queue: &Queue<'_>) -> io::Result<()> {
        let mut arguments = FieldTable::default();
        if queue.priorities > 1 {
            arguments.insert("x-max-priority".into(), AMQPValue::LongInt(i32::from(queue.priorities) - 1));
        }
        let declare = queue::Declare {
            queue: queue.name.into(),
            passive: false,
            durable: queue.durable,
            exclusive: queue.exclusive,
            auto_delete: false,
            nowait: false,
            arguments,
        };
        self.send(CHANNEL, AMQPClass::Queue(queue::AMQPMethod::Declare(declare)))?;
        self.expect(50, 11)
    }

    pub(super) fn delete(&mut self, name: &str) -> io::Result<()> {
        let delete = queue::Delete { queue: name.into(), if_unused: false, if_empty: false, nowait: false };
        self.send(CHANNEL, AMQPClass::Queue(queue::AMQPMethod::Delete(delete)))?;
        self.expect(50, 41)
    }

    pub(super) fn declare_exchange(&mut self, name: &str, kind: &str) -> io::Result<()> {
        let declare = exchange::Declare {
            exchange: name.into(),
            kind: kind.into(),
            passive: false,
            durable: false,
            auto_delete: false,
            internal: false,
            nowait: false,
            arguments: FieldTable::default(),
        };
        self.send(CHANNEL, AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare)))?;
        self.expect(40, 11)
    }

    pub(super) fn delete_exchange(&mut self, name: &str) -> io::Result<()> {
        let delete = exchange::Delete { exchange: name.into(), if_unused: false, nowait: false };
        self.send(CHANNEL, AMQPClass::Exchange(exchange::AMQPMethod::Delete(delete)))?;
        self.expect(40, 21)
    }

    /// `header` is what a headers exchange is to look for.
    pub(super) fn bind(
        &mut self,
        queue: &str,
        exchange: &str,
        routing_key: &str,
        header: Option<(&str, &str)>,
    ) -> io::Result<()> {
        let mut arguments = FieldTable::default();
        if let Some((name, value)) = header {
            arguments.insert("x-match".into(), AMQPValue::LongString("all".into()));
            arguments.insert(name.into(), AMQPValue::LongString(value.into()));
        }
        let bind = queue::Bind {
            queue: queue.into(),
            exchange: exchange.into(),
            routing_key: routing_key.into(),
            nowait: false,
            arguments,
        };
        self.send(CHANNEL, AMQPClass::Queue(queue::AMQPMethod::Bind(bind)))?;
        self.expect(50, 21)
    }

    pub(super) fn confirm_select(&mut self, channel: u16) -> io::Result<()> {
        self.send(channel, AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select { nowait: false })))?;
        self.expect(85, 11)
    }

    /// For each consumer of the channel that is to come.
    pub(super) fn prefetch(&mut self, channel: u16, count: u16) -> io::Result<()> {
        let mut out = Vec::new();
        write_fields(&mut out, channel, MethodId { class_id: 60, method_id: 10 }, |fields| {
            fields.extend_from_slice(&[0; 4]);
            fields.extend_from_slice(&count.to_be_bytes());
            fields.push(0);
        });
        self.stream.write_all(&out)?;
        self.expect(60, 11)
    }

    /// Without an answer, which would come between the deliveries to earlier consumers.
    pub(super) fn consume(&mut self, channel: u16, queue: &str, consumer_tag: &str, no_ack: bool) -> io::Result<()> {
        let consume = basic::Consume {
            queue: queue.into(),
            consumer_tag: consumer_tag.into(),
            no_local: false,
            no_ack,
            exclusive: false,
            nowait: true,
            arguments: FieldTable::default(),
        };
        self.send(channel, AMQPClass::Basic(basic::AMQPMethod::Consume(consume)))
    }
}

/// What a frame tells a load client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen<'a> {
    /// basic.deliver.
    Deliver { tag: u64, consumer: &'a [u8] },
    /// basic.nack from the broker.
    Nack,
    /// basic.ack from the broker: tag, multiple.
    Ack(u64, bool),
    /// The content header of a message.
    Header(&'a [u8]),
    /// A body, or a part of one.
    Body(&'a [u8]),
    /// The broker closes channel or connection, with these octets.
    Close(&'a [u8]),
    /// Anything else.
    Other,
}

impl<'a> Seen<'a> {
    pub(super) fn of(frame: Frame<'a>) -> Self {
        let payload = frame.payload;
        if frame.kind == FrameKind::Body {
            return Self::Body(payload);
        }
        if frame.kind == FrameKind::Header {
            return Self::Header(payload);
        }
        if frame.kind != FrameKind::Method {
            return Self::Other;
        }
        let tag =
            |at: usize| payload.get(at..at + 8).map(|tag| u64::from_be_bytes(tag.try_into().expect("eight octets")));
        match payload {
            [0, 60, 0, 60, len, rest @ ..] if rest.len() > usize::from(*len) + 8 => {
                let (consumer, rest) = rest.split_at(usize::from(*len));
                let tag = rest.first_chunk().map_or(0, |tag| u64::from_be_bytes(*tag));
                Self::Deliver { tag, consumer }
            }
            [0, 60, 0, 120, ..] => Self::Nack,
            [0, 60, 0, 80, ..] => tag(4).map_or(Self::Other, |tag| Self::Ack(tag, payload[12] & 1 == 1)),
            [0, 20, 0, 40, ..] | [0, 10, 0, 50, ..] => Self::Close(&payload[4..]),
            _ => Self::Other,
        }
    }
}
