//! The little of AMQP that the histories speak: frames out, frames in.

pub(crate) fn shortstr(text: &str) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("names are short")], text.as_bytes()].concat()
}

pub(crate) fn longstr(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("it is short").to_be_bytes(), bytes].concat()
}

/// A method's frame.
pub(crate) fn method(channel: u16, (class, id): (u16, u16), fields: &[Vec<u8>]) -> Vec<u8> {
    let payload = [class.to_be_bytes().to_vec(), id.to_be_bytes().to_vec(), fields.concat()].concat();
    frame(1, channel, &payload)
}

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    [vec![kind], channel.to_be_bytes().to_vec(), longstr(payload), vec![0xCE]].concat()
}

/// A value of an argument.
pub(crate) enum Value<'a> {
    Text(&'a str),
    Number(u32),
    True,
    Table(Vec<u8>),
}

pub(crate) fn table(fields: &[(&str, Value<'_>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.extend(shortstr(name));
        match value {
            Value::Text(text) => bytes.extend([vec![b'S'], longstr(text.as_bytes())].concat()),
            Value::True => bytes.extend([b't', 1]),
            Value::Table(table) => bytes.extend([vec![b'F'], table.clone()].concat()),
            Value::Number(number) => bytes.extend([vec![b'I'], number.to_be_bytes().to_vec()].concat()),
        }
    }
    longstr(&bytes)
}

/// What a message is published with.
pub(crate) struct Publish<'a> {
    pub(crate) channel: u16,
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: &'a str,
    pub(crate) persistent: bool,
    pub(crate) priority: u8,
    pub(crate) number: u64,
    pub(crate) size: usize,
    pub(crate) mandatory: bool,
}

/// Method, header and body: three frames.
pub(crate) fn publish(publish: &Publish<'_>) -> Vec<u8> {
    let fields =
        [vec![0, 0], shortstr(publish.exchange), shortstr(publish.routing_key), vec![u8::from(publish.mandatory)]];
    let mut body = publish.number.to_be_bytes().to_vec();
    body.resize(8 + publish.size, b'.');
    let mut header = [vec![0, 60, 0, 0], (body.len() as u64).to_be_bytes().to_vec()].concat();
    // Delivery mode and priority.
    header.extend([0x18, 0, 1 + u8::from(publish.persistent), publish.priority]);
    [method(publish.channel, (60, 40), &fields), frame(2, publish.channel, &header), frame(3, publish.channel, &body)]
        .concat()
}

/// What the broker sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Deliver { channel: u16, consumer: String, tag: u64, redelivered: bool, number: u64 },
    GetOk { channel: u16, tag: u64, redelivered: bool, number: u64 },
    Confirm { channel: u16, tag: u64, multiple: bool, kept: bool },
    Method { channel: u16, class: u16, id: u16, fields: Vec<u8> },
    Heartbeat,
}

/// Cuts the broker's bytes into what they mean.
#[derive(Default)]
pub(crate) struct Parser {
    bytes: Vec<u8>,
    content: Option<Content>,
}

/// A method whose content is not complete.
struct Content {
    channel: u16,
    id: u16,
    fields: Vec<u8>,
    /// The length of the body, once the header has come.
    len: Option<usize>,
    body: Vec<u8>,
}

fn text(fields: &mut &[u8]) -> String {
    let len = usize::from(fields[0]);
    let text = String::from_utf8(fields[1..=len].to_vec()).expect("names are text");
    *fields = &fields[1 + len..];
    text
}

fn number(fields: &mut &[u8]) -> u64 {
    let number = u64::from_be_bytes(fields[..8].try_into().expect("eight bytes"));
    *fields = &fields[8..];
    number
}

impl Parser {
    pub(crate) fn parse(&mut self, bytes: &[u8]) -> Vec<Incoming> {
        self.bytes.extend_from_slice(bytes);
        let mut all = Vec::new();
        let mut at = 0;
        while self.bytes.len() >= at + 8 {
            let head = &self.bytes[at..at + 7];
            let (kind, channel) = (head[0], u16::from_be_bytes([head[1], head[2]]));
            let len = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
            if self.bytes.len() < at + 8 + len {
                break;
            }
            let payload = self.bytes[at + 7..at + 7 + len].to_vec();
            assert_eq!(self.bytes[at + 7 + len], 0xCE, "a frame ends where it says");
            at += 8 + len;
            all.extend(self.frame(kind, channel, payload));
        }
        self.bytes.drain(..at);
        all
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: Vec<u8>) -> Option<Incoming> {
        match kind {
            1 => {
                let (class, id) =
                    (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]));
                let fields = payload[4..].to_vec();
                if matches!((class, id), (60, 50 | 60 | 71)) {
                    self.content = Some(Content { channel, id, fields, len: None, body: Vec::new() });
                    return None;
                }
                if let (60, 80 | 120) = (class, id) {
                    let mut fields = &fields[..];
                    let tag = number(&mut fields);
                    return Some(Incoming::Confirm { channel, tag, multiple: fields[0] & 1 > 0, kept: id == 80 });
                }
                Some(Incoming::Method { channel, class, id, fields })
            }
            2 => {
                let content = self.content.as_mut().expect("a header follows its method");
                content.len = Some(u64::from_be_bytes(payload[4..12].try_into().expect("eight bytes")) as usize);
                self.whole()
            }
            3 => {
                self.content.as_mut().expect("a body follows its header").body.extend(payload);
                self.whole()
            }
            8 => Some(Incoming::Heartbeat),
            _ => panic!("no such frame: {kind}"),
        }
    }

    fn whole(&mut self) -> Option<Incoming> {
        let whole = self.content.take_if(|content| Some(content.body.len()) == content.len)?;
        let Content { channel, id, fields, body, .. } = whole;
        let mut fields = &fields[..];
        let carried = u64::from_be_bytes(body[..8].try_into().expect("bodies are numbered"));
        Some(match id {
            60 => {
                let consumer = text(&mut fields);
                let tag = number(&mut fields);
                Incoming::Deliver { channel, consumer, tag, redelivered: fields[0] > 0, number: carried }
            }
            71 => {
                let tag = number(&mut fields);
                Incoming::GetOk { channel, tag, redelivered: fields[0] > 0, number: carried }
            }
            _ => Incoming::Method { channel, class: 60, id, fields: carried.to_be_bytes().to_vec() },
        })
    }
}
