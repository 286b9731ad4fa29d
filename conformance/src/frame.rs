//! Frames, methods and content headers as bytes and back, by the table in [`crate::spec`].

use crate::spec::{self, Kind, Method};
use crate::value::{Malformed, Reader, Value, write_field};

/// Every frame ends in this octet.
pub const FRAME_END: u8 = 0xCE;
/// Type, channel, size and end octet: what a frame weighs beside its payload.
pub const FRAME_OVERHEAD: usize = 8;
/// Frame type of a method.
pub const METHOD: u8 = 1;
/// Frame type of a content header.
pub const HEADER: u8 = 2;
/// Frame type of a piece of body.
pub const BODY: u8 = 3;
/// Frame type of a heartbeat.
pub const HEARTBEAT: u8 = 8;

/// One frame, its end octet checked and gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// 1 method, 2 header, 3 body, 8 heartbeat.
    pub kind: u8,
    /// Channel number.
    pub channel: u16,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// Appends a frame; `end` is [`FRAME_END`] unless the dialogue is about a wrong one.
pub fn write_frame(kind: u8, channel: u16, payload: &[u8], end: u8, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(end);
}

/// Cuts the first whole frame off `buffer`; `None` while there is none.
pub fn cut_frame(buffer: &mut Vec<u8>) -> Result<Option<Frame>, Malformed> {
    if buffer.starts_with(b"AMQP") {
        return Err(format!("a protocol header: {:02x?}", &buffer[..]));
    }
    if buffer.len() < FRAME_OVERHEAD {
        return Ok(None);
    }
    let size = u32::from_be_bytes([buffer[3], buffer[4], buffer[5], buffer[6]]) as usize;
    if buffer.len() < size + FRAME_OVERHEAD {
        return Ok(None);
    }
    if buffer[size + 7] != FRAME_END {
        return Err(format!("a frame that ends in {:02x}", buffer[size + 7]));
    }
    let frame = Frame {
        kind: buffer[0],
        channel: u16::from_be_bytes([buffer[1], buffer[2]]),
        payload: buffer[7..size + 7].to_vec(),
    };
    buffer.drain(..size + FRAME_OVERHEAD);
    Ok(Some(frame))
}

/// The payload of a method frame.
pub fn encode_method(method: &Method, values: &[Value]) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::new();
    out.extend_from_slice(&method.class.to_be_bytes());
    out.extend_from_slice(&method.id.to_be_bytes());
    let mut bits_used = 0;
    for (field, value) in method.fields.iter().zip(values) {
        if field.kind != Kind::Bit {
            bits_used = 0;
            write_field(field.kind, value, &mut out)
                .map_err(|wrong| format!("{} of {}: {wrong}", field.name, method.name))?;
            continue;
        }
        let Value::Flag(set) = value else {
            return Err(format!("{} is true or false, not {value}", field.name));
        };
        if bits_used == 0 {
            out.push(0);
        }
        let last = out.last_mut().expect("an octet was pushed for these bits");
        *last |= u8::from(*set) << bits_used;
        bits_used = (bits_used + 1) % 8;
    }
    Ok(out)
}

/// Method and field values of a method frame's payload.
pub fn decode_method(payload: &[u8]) -> Result<(&'static Method, Vec<Value>), Malformed> {
    let mut reader = Reader(payload);
    let (class, id) = (reader.unsigned(2)? as u16, reader.unsigned(2)? as u16);
    let method = spec::by_id(class, id).ok_or_else(|| format!("unknown method {class}.{id}"))?;
    let (mut octet, mut bits_used) = (0, 0);
    let mut values = Vec::new();
    for field in &method.fields {
        if field.kind != Kind::Bit {
            bits_used = 0;
            values.push(reader.field(field.kind)?);
            continue;
        }
        if bits_used == 0 {
            octet = reader.unsigned(1)?;
        }
        values.push(Value::Flag(octet >> bits_used & 1 == 1));
        bits_used = (bits_used + 1) % 8;
    }
    if !reader.0.is_empty() {
        return Err(format!("{} with {} bytes too many", method.name, reader.0.len()));
    }
    Ok((method, values))
}

/// A content header.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Class the content belongs to, 60 for basic.
    pub class: u16,
    /// Always 0 in 0-9-1.
    pub weight: u16,
    /// Length of the body in bytes.
    pub body_size: u64,
    /// Present properties by index into [`spec::properties`], rising.
    pub properties: Vec<(usize, Value)>,
}

/// The payload of a header frame.
pub fn encode_header(header: &Header) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::new();
    out.extend_from_slice(&header.class.to_be_bytes());
    out.extend_from_slice(&header.weight.to_be_bytes());
    out.extend_from_slice(&header.body_size.to_be_bytes());
    let flags = header.properties.iter().fold(0, |flags, (index, _)| flags | 0x8000_u16 >> index);
    out.extend_from_slice(&flags.to_be_bytes());
    for (index, value) in &header.properties {
        write_field(spec::properties()[*index].kind, value, &mut out)?;
    }
    Ok(out)
}

/// The content header in a header frame's payload.
pub fn decode_header(payload: &[u8]) -> Result<Header, Malformed> {
    let mut reader = Reader(payload);
    let (class, weight) = (reader.unsigned(2)? as u16, reader.unsigned(2)? as u16);
    let body_size = reader.unsigned(8)?;
    let flags = reader.unsigned(2)? as u16;
    let mut properties = Vec::new();
    for (index, property) in spec::properties().iter().enumerate() {
        if flags & 0x8000 >> index != 0 {
            properties.push((index, reader.field(property.kind)?));
        }
    }
    if !reader.0.is_empty() {
        return Err(format!("a content header with {} bytes too many", reader.0.len()));
    }
    Ok(Header { class, weight, body_size, properties })
}
