//! One connection of a dialogue: bytes into arrivals, contents assembled per channel.
//!
//! It knows nothing of what a dialogue expects; that is in [`crate::conversation`].

use crate::frame::{
    self, BODY, FRAME_OVERHEAD, Frame, HEADER, HEARTBEAT, METHOD, cut_frame, decode_header, decode_method,
};
use crate::spec::{self, Method};
use crate::transport::{Heard, Transport};
use crate::value::{Malformed, Value, quoted};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Something that arrived, or that nothing did.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrival {
    /// A method, with its whole content if it has one.
    Method(Said),
    /// A heartbeat.
    Heartbeat,
    /// What no server may send, in words.
    Malformed(String),
    /// The end of the connection.
    Closed,
    /// Nothing in the time allowed.
    Nothing,
}

/// A method that was said.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Channel number.
    pub channel: u16,
    /// Which.
    pub method: &'static Method,
    /// Its fields in order.
    pub fields: Vec<Value>,
    /// Its content.
    pub content: Option<Content>,
}

impl Said {
    /// The value of the field with that name.
    pub fn field(&self, name: &str) -> &Value {
        let index = self.method.fields.iter().position(|field| field.name == name);
        &self.fields[index.expect("the caller names a field of this method")]
    }
}

/// Properties and body of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    /// Present properties by index into [`spec::properties`], rising.
    pub properties: Vec<(usize, Value)>,
    /// The body.
    pub body: Vec<u8>,
    body_size: usize,
}

impl fmt::Display for Said {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.channel, self.method.name)?;
        if self.method.name.ends_with(".close") {
            let [code, text, class, method] = &self.fields[..] else {
                unreachable!("both closes have four fields");
            };
            let ids = |value: &Value| value.to_string().parse().unwrap_or(0);
            let (class, id) = (ids(class), ids(method));
            return match spec::by_id(class, id) {
                _ if (class, id) == (0, 0) => write!(out, " {code} {text} by none"),
                Some(blamed) => write!(out, " {code} {text} by {}", blamed.name),
                None => write!(out, " {code} {text} by {class}.{id}"),
            };
        }
        for (field, value) in self.method.fields.iter().zip(&self.fields) {
            write!(out, " {}={value}", field.name)?;
        }
        let Some(content) = &self.content else {
            return Ok(());
        };
        out.write_str(" |")?;
        for (index, value) in &content.properties {
            write!(out, " {}={value}", spec::properties()[*index].name)?;
        }
        write!(out, " | {}", quoted(&content.body))
    }
}

impl fmt::Display for Arrival {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(said) => said.fmt(out),
            Self::Heartbeat => out.write_str("heartbeat"),
            Self::Malformed(words) => write!(out, "malformed: {words}"),
            Self::Closed => out.write_str("closed"),
            Self::Nothing => out.write_str("nothing"),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Link<T> {
    /// How bytes travel.
    pub transport: T,
    /// Negotiated frame_max: what we send is cut to it, what we hear is held against it.
    pub frame_max: usize,
    /// Whether connection.open-ok was heard.
    pub open: bool,
    /// Whether connection.close or close-ok was heard, or the connection has ended.
    pub over: bool,
    buffer: Vec<u8>,
    /// What was sent since it was held back.
    held: Option<Vec<u8>>,
    assembling: BTreeMap<u16, Said>,
}

impl<T: Transport> Link<T> {
    /// A connection on which nothing was said.
    pub fn new(transport: T) -> Self {
        Self {
            transport,
            frame_max: 131_072,
            open: false,
            over: false,
            buffer: Vec::new(),
            held: None,
            assembling: BTreeMap::new(),
        }
    }

    /// Sends one frame.
    pub fn send_frame(&mut self, kind: u8, channel: u16, payload: &[u8]) -> Result<(), String> {
        let mut bytes = Vec::with_capacity(payload.len() + FRAME_OVERHEAD);
        frame::write_frame(kind, channel, payload, frame::FRAME_END, &mut bytes);
        self.send(&bytes)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        if let Some(held) = &mut self.held {
            held.extend(bytes);
            return Ok(());
        }
        self.transport.send(bytes).map_err(|error| format!("cannot send: {error}"))
    }

    /// Keeps what is sent from now on.
    pub fn hold(&mut self) {
        self.held = Some(Vec::new());
    }

    /// Sends what was kept, in one write.
    pub fn release(&mut self) -> Result<(), String> {
        let held = self.held.take().unwrap_or_default();
        if held.is_empty() { Ok(()) } else { self.send(&held) }
    }

    /// Sends a content: its header, and its body in as many frames as it takes.
    pub fn send_content(&mut self, channel: u16, header: &[u8], body: &[u8]) -> Result<(), String> {
        let mut bytes = Vec::with_capacity(body.len() + header.len() + 64);
        frame::write_frame(HEADER, channel, header, frame::FRAME_END, &mut bytes);
        for piece in body.chunks(self.frame_max - FRAME_OVERHEAD) {
            frame::write_frame(BODY, channel, piece, frame::FRAME_END, &mut bytes);
        }
        self.send(&bytes)
    }

    /// Exactly `count` bytes as they come, fewer if no more come within `limit`.
    pub fn hear_bytes(&mut self, count: usize, limit: Duration) -> Result<Vec<u8>, String> {
        while self.buffer.len() < count {
            match self.transport.receive(limit).map_err(|error| error.to_string())? {
                Heard::Bytes(bytes) => self.buffer.extend(bytes),
                Heard::Nothing | Heard::Closed => break,
            }
        }
        let count = count.min(self.buffer.len());
        Ok(self.buffer.drain(..count).collect())
    }

    /// The next arrival. `now` is the clock by which `limit` is kept.
    pub fn hear(&mut self, limit: Duration, now: impl Fn() -> Duration) -> Result<Arrival, String> {
        let deadline = now() + limit;
        loop {
            match self.take_arrival() {
                Ok(Some(arrival)) => {
                    if let Arrival::Method(said) = &arrival {
                        self.open |= said.method.name == "connection.open-ok";
                        self.over |= said.method.name.starts_with("connection.close");
                    }
                    return Ok(arrival);
                }
                Ok(None) => {}
                Err(words) => return Ok(Arrival::Malformed(words)),
            }
            let left = deadline.saturating_sub(now());
            match self.transport.receive(left).map_err(|error| error.to_string())? {
                Heard::Bytes(bytes) => self.buffer.extend(bytes),
                Heard::Nothing if left.is_zero() => return Ok(Arrival::Nothing),
                Heard::Nothing => {}
                Heard::Closed => {
                    self.over = true;
                    return Ok(Arrival::Closed);
                }
            }
        }
    }

    fn take_arrival(&mut self) -> Result<Option<Arrival>, Malformed> {
        while let Some(frame) = cut_frame(&mut self.buffer)? {
            let arrival = match frame.kind {
                METHOD => self.begin(&frame)?,
                HEADER => self.header(&frame)?,
                BODY => self.body(frame)?,
                HEARTBEAT if frame.channel == 0 && frame.payload.is_empty() => Some(Arrival::Heartbeat),
                other => return Err(format!("a frame of type {other}")),
            };
            if arrival.is_some() {
                return Ok(arrival);
            }
        }
        Ok(None)
    }

    fn begin(&mut self, frame: &Frame) -> Result<Option<Arrival>, Malformed> {
        let (method, fields) = decode_method(&frame.payload)?;
        let channel = frame.channel;
        let said = Said { channel, method, fields, content: None };
        if let Some(open) = self.assembling.get(&channel) {
            return Err(format!("{} inside the content of {}", said.method.name, open.method.name));
        }
        if !method.content {
            return Ok(Some(Arrival::Method(said)));
        }
        self.assembling.insert(channel, said);
        Ok(None)
    }

    fn header(&mut self, frame: &Frame) -> Result<Option<Arrival>, Malformed> {
        let header = decode_header(&frame.payload)?;
        let said = self.assembling.get_mut(&frame.channel);
        let said = said.filter(|said| said.content.is_none());
        let said = said.ok_or("a content header out of sequence")?;
        if (header.class, header.weight) != (60, 0) {
            return Err(format!("a header of class {}, weight {}", header.class, header.weight));
        }
        said.content =
            Some(Content { properties: header.properties, body: Vec::new(), body_size: header.body_size as usize });
        Ok(self.complete(frame.channel))
    }

    fn body(&mut self, frame: Frame) -> Result<Option<Arrival>, Malformed> {
        if frame.payload.len() > self.frame_max - FRAME_OVERHEAD {
            return Err(format!("a body frame of {} bytes where frame_max is {}", frame.payload.len(), self.frame_max));
        }
        let said = self.assembling.get_mut(&frame.channel);
        let content = said.and_then(|said| said.content.as_mut());
        let content = content.ok_or("a body out of sequence")?;
        content.body.extend(frame.payload);
        if content.body.len() > content.body_size {
            return Err("a body longer than its header says".into());
        }
        Ok(self.complete(frame.channel))
    }

    fn complete(&mut self, channel: u16) -> Option<Arrival> {
        let said = self.assembling.remove(&channel)?;
        let content = said.content.as_ref()?;
        if content.body.len() == content.body_size {
            return Some(Arrival::Method(said));
        }
        self.assembling.insert(channel, said);
        None
    }
}
