//! A light, blocking AMQP client for load. It spends little time per message, so that the client does not limit the
//! rate.

use super::broker_frame::{ending, sentence};
use super::target::Target;
use crate::wire::frame::{Frame, FrameKind, OVERHEAD_BYTES, read_frame};
use crate::wire::method::MethodId;
use crate::wire::writer::{write_fields, write_method};
use amq_protocol::protocol::{AMQPClass, basic, channel, confirm, connection, exchange, queue};
use amq_protocol::types::{AMQPValue, FieldTable};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// The first channel of a connection.
pub(super) const CHANNEL: u16 = 1;
/// The most channels that a connection may have.
pub(super) const CHANNEL_MAX: u16 = 2047;
const READ_BYTES: usize = 256 * 1024;
const FRAME_MAX: u32 = 131_072;
/// The longest part of a body that fits into a frame.
pub(super) const PAYLOAD_MAX: usize = FRAME_MAX as usize - OVERHEAD_BYTES;
/// Capabilities with which the broker announces refusals, blocking and cancelled consumers.
const CAPABILITIES: [&str; 3] = ["authentication_failure_close", "connection.blocked", "consumer_cancel_notify"];

/// A queue to declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Queue<'a> {
    pub(super) name: &'a str,
    pub(super) durable: bool,
    pub(super) exclusive: bool,
    /// Number of priorities; 1 for a queue without them.
    pub(super) priorities: u16,
}

/// One connection with its open channels. Its errors are sentences that do not name the connection.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: TcpStream,
    patience: Duration,
    input: Vec<u8>,
    filled: usize,
    used: usize,
}

impl Client {
    /// Connects, logs in and opens `channels` channels.
    pub(super) fn connect(target: &Target, channels: u16) -> io::Result<Self> {
        let (stream, patience) = (target.connect()?, target.patience);
        let mut client = Self { stream, patience, input: vec![0; READ_BYTES], filled: 0, used: 0 };
        client.write(b"AMQP\x00\x00\x09\x01")?;
        client.expect(10, 10).map_err(|error| if client.may_be_amqp() { error } else { not_amqp() })?;
        client.log_in(target)?;
        let tune_ok = connection::TuneOk { channel_max: CHANNEL_MAX, frame_max: FRAME_MAX, heartbeat: 0 };
        client.send(0, AMQPClass::Connection(connection::AMQPMethod::TuneOk(tune_ok)))?;
        let open = connection::Open { virtual_host: target.vhost.as_str().into() };
        client.send(0, AMQPClass::Connection(connection::AMQPMethod::Open(open)))?;
        client.expect(10, 41)?;
        for channel in CHANNEL..=channels {
            client.send(channel, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})))?;
            client.expect(20, 11)?;
        }
        Ok(client)
    }

    fn log_in(&mut self, target: &Target) -> io::Result<()> {
        let mut capabilities = FieldTable::default();
        for name in CAPABILITIES {
            capabilities.insert(name.into(), AMQPValue::Boolean(true));
        }
        let mut client_properties = FieldTable::default();
        client_properties.insert("product".into(), AMQPValue::LongString("prontomq bench".into()));
        client_properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
        let response = format!("\0{}\0{}", target.user, target.password);
        let start_ok = connection::StartOk {
            client_properties,
            mechanism: "PLAIN".into(),
            response: response.as_str().into(),
            locale: "en_US".into(),
        };
        self.send(0, AMQPClass::Connection(connection::AMQPMethod::StartOk(start_ok)))?;
        let user = &target.user;
        self.expect(10, 30).map_err(|error| io::Error::other(format!("login as user {user:?}: {error}")))
    }

    /// Whether the received bytes, which are no whole frame, could be the beginning of a method frame.
    fn may_be_amqp(&self) -> bool {
        self.input[self.used..self.filled].first().is_none_or(|octet| *octet == FrameKind::Method.octet())
    }

    /// Switches the read timeout off: from now on, the broker may be silent for any time.
    pub(super) fn allow_silence(&self) -> io::Result<()> {
        self.stream.set_read_timeout(None)
    }

    /// Closes the connection. The broker has taken all earlier publishes when this returns.
    pub(super) fn close(&mut self) -> io::Result<()> {
        let mut out = Vec::new();
        write_close(&mut out);
        self.write(&out)?;
        self.expect(10, 51)
    }

    /// Writes frames.
    pub(super) fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        self.stream.write_all(frames).map_err(|error| self.describe(&error))
    }

    fn describe(&self, error: &io::Error) -> io::Error {
        io::Error::other(sentence(error, self.patience))
    }

    fn send(&mut self, channel: u16, method: AMQPClass) -> io::Result<()> {
        let mut out = Vec::new();
        write_method(&mut out, channel, method);
        self.write(&out)
    }

    /// Waits for a method; any other is an error.
    fn expect(&mut self, class_id: u16, method_id: u16) -> io::Result<()> {
        loop {
            let mut found = None;
            self.next_frames(1, |frame| {
                if frame.kind == FrameKind::Method {
                    found = MethodId::of(frame.payload);
                }
            })?;
            match found {
                Some(id) if id == (MethodId { class_id, method_id }) => return Ok(()),
                Some(MethodId { class_id: class, method_id: method }) => {
                    let why = format!("the broker sent method {class}.{method} in place of {class_id}.{method_id}");
                    return Err(io::Error::other(why));
                }
                None => {}
            }
        }
    }

    /// Passes up to `most` whole frames to `each`, at least one; reads first if none is buffered. A method by which the
    /// broker ends or blocks the load is an error.
    pub(super) fn next_frames(&mut self, most: usize, mut each: impl FnMut(Frame<'_>)) -> io::Result<()> {
        let mut count = 0;
        loop {
            while count < most {
                let cut = read_frame(&self.input[self.used..self.filled], usize::MAX);
                let cut = cut.map_err(|_| not_amqp())?;
                let Some(cut) = cut else { break };
                if let Some(why) = ending(&cut.frame) {
                    return Err(io::Error::other(why));
                }
                self.used += cut.consumed;
                count += 1;
                each(cut.frame);
            }
            if count > 0 {
                return Ok(());
            }
            self.input.copy_within(self.used..self.filled, 0);
            self.filled -= self.used;
            self.used = 0;
            if self.filled == self.input.len() {
                self.input.resize(self.input.len() * 2, 0);
            }
            match self.stream.read(&mut self.input[self.filled..]) {
                Ok(0) => return Err(self.describe(&io::ErrorKind::UnexpectedEof.into())),
                Ok(len) => self.filled += len,
                Err(error) => return Err(self.describe(&error)),
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

    /// Binds a queue. `header` is the header that a headers exchange matches.
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

    /// Sets the prefetch of each future consumer of the channel.
    pub(super) fn prefetch(&mut self, channel: u16, count: u16) -> io::Result<()> {
        let mut out = Vec::new();
        write_fields(&mut out, channel, MethodId { class_id: 60, method_id: 10 }, |fields| {
            fields.extend_from_slice(&[0; 4]);
            fields.extend_from_slice(&count.to_be_bytes());
            fields.push(0);
        });
        self.write(&out)?;
        self.expect(60, 11)
    }

    /// Starts a consumer with `no-wait`: an answer would arrive between deliveries to earlier consumers.
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

/// Writes connection.close.
pub(super) fn write_close(out: &mut Vec<u8>) {
    let close = connection::Close { reply_code: 200, reply_text: "bye".into(), class_id: 0, method_id: 0 };
    write_method(out, 0, AMQPClass::Connection(connection::AMQPMethod::Close(close)));
}

fn not_amqp() -> io::Error {
    io::Error::other("the server does not speak AMQP 0-9-1")
}
