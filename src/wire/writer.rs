//! Appending frames to an output buffer.
//!
//! What is written once per message is copied from slices and prebuilt prefixes, without allocating beyond the growth of
//! the buffer; the other methods go through amq-protocol's generators.

use std::borrow::Cow;

use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame};
use amq_protocol::protocol::{AMQPClass, channel, connection};

use super::frame::{END, FrameKind, HEAD_BYTES, OVERHEAD_BYTES};
use super::method::MethodId;

const BASIC: u8 = 60;
const PUBLISH: u8 = 40;
const RETURN: u8 = 50;
const DELIVER: u8 = 60;
const GET_OK: u8 = 71;
const ACK: u8 = 80;
const NACK: u8 = 120;

/// The longest shortstr, and so the longest reply text, in bytes.
pub const SHORTSTR_BYTES_MAX: usize = 255;
/// Ends a reply text that was cut.
const ELLIPSIS: &str = "...";
/// Class id, weight, body size.
const CONTENT_HEADER_BYTES: usize = 12;

/// A message as the frames need it; what owns one lends it in this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content<'a> {
    /// Exchange and routing key, each with its length octet: two shortstrs in a row.
    pub address: &'a [u8],
    /// Property flags and list.
    pub properties: &'a [u8],
    /// The whole body.
    pub body: &'a [u8],
}

/// A heartbeat frame.
pub fn write_heartbeat(out: &mut Vec<u8>) {
    out.extend_from_slice(&[FrameKind::Heartbeat.octet(), 0, 0, 0, 0, 0, 0, END]);
}

/// Any method without content, through amq-protocol.
///
/// # Panics
/// When a field of `method` holds a short string of more than 255 bytes, which its type rules out.
pub fn write_method(out: &mut Vec<u8>, channel: u16, method: AMQPClass) {
    let context = WriteContext::from(std::mem::take(out));
    let (written, _) = gen_frame(&AMQPFrame::Method(channel, method))(context)
        .expect("writing to memory does not fail")
        .into_inner();
    *out = written;
}

/// connection.close; a text that does not fit a shortstr is cut, see [`reply_text`].
pub fn write_connection_close(out: &mut Vec<u8>, code: u16, text: &str, method: Option<MethodId>) {
    let close = connection::Close {
        reply_code: code,
        reply_text: reply_text(text).as_ref().into(),
        class_id: method.map_or(0, |method| method.class_id),
        method_id: method.map_or(0, |method| method.method_id),
    };
    write_method(
        out,
        0,
        AMQPClass::Connection(connection::AMQPMethod::Close(close)),
    );
}

/// channel.close; a text that does not fit a shortstr is cut, see [`reply_text`].
pub fn write_channel_close(
    out: &mut Vec<u8>,
    channel: u16,
    code: u16,
    text: &str,
    method: Option<MethodId>,
) {
    let close = channel::Close {
        reply_code: code,
        reply_text: reply_text(text).as_ref().into(),
        class_id: method.map_or(0, |method| method.class_id),
        method_id: method.map_or(0, |method| method.method_id),
    };
    write_method(
        out,
        channel,
        AMQPClass::Channel(channel::AMQPMethod::Close(close)),
    );
}

/// A reply text that fits a shortstr: as it is, or cut between two characters with `...` at its end.
#[must_use]
pub fn reply_text(text: &str) -> Cow<'_, str> {
    if text.len() <= SHORTSTR_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(SHORTSTR_BYTES_MAX - ELLIPSIS.len());
    Cow::Owned(format!("{}{ELLIPSIS}", &text[..end]))
}

/// basic.ack, as the broker sends it for confirms.
#[inline]
pub fn write_ack(out: &mut Vec<u8>, channel: u16, delivery_tag: u64, multiple: bool) {
    write_settlement(out, channel, ACK, delivery_tag, multiple);
}

/// basic.nack, as the broker sends it for confirms: the requeue bit is clear.
#[inline]
pub fn write_nack(out: &mut Vec<u8>, channel: u16, delivery_tag: u64, multiple: bool) {
    write_settlement(out, channel, NACK, delivery_tag, multiple);
}

#[inline]
fn write_settlement(
    out: &mut Vec<u8>,
    channel: u16,
    method: u8,
    delivery_tag: u64,
    multiple: bool,
) {
    const PAYLOAD_BYTES: u8 = 13;
    let [c0, c1] = channel.to_be_bytes();
    let [t0, t1, t2, t3, t4, t5, t6, t7] = delivery_tag.to_be_bytes();
    out.extend_from_slice(&[
        FrameKind::Method.octet(),
        c0,
        c1,
        0,
        0,
        0,
        PAYLOAD_BYTES,
        0,
        BASIC,
        0,
        method,
        t0,
        t1,
        t2,
        t3,
        t4,
        t5,
        t6,
        t7,
        u8::from(multiple),
        END,
    ]);
}

/// What every basic.deliver to one consumer begins with: frame head, method and consumer tag, built once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerPrefix {
    channel: u16,
    /// With a size of zero, patched in the copy.
    bytes: Box<[u8]>,
}

impl ConsumerPrefix {
    /// # Panics
    /// When `consumer_tag` is longer than a shortstr (255 bytes).
    #[must_use]
    pub fn new(channel: u16, consumer_tag: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + 5 + consumer_tag.len());
        method_head(&mut bytes, channel, DELIVER);
        shortstr(&mut bytes, consumer_tag);
        Self {
            channel,
            bytes: bytes.into_boxed_slice(),
        }
    }

    /// The channel that the consumer lives on.
    #[must_use]
    pub fn channel(&self) -> u16 {
        self.channel
    }
}

/// basic.deliver with its content: method, header and body frames. `payload_max` as for
/// [`read_frame`](super::frame::read_frame) splits the body; the header is never split.
#[inline]
pub fn write_deliver(
    out: &mut Vec<u8>,
    prefix: &ConsumerPrefix,
    delivery_tag: u64,
    redelivered: bool,
    content: Content<'_>,
    payload_max: usize,
) {
    out.reserve(prefix.bytes.len() + DELIVERY_BYTES + content_bytes(content, payload_max));
    let start = out.len();
    out.extend_from_slice(&prefix.bytes);
    out.extend_from_slice(&delivery(delivery_tag, redelivered));
    out.extend_from_slice(content.address);
    end_method_and_write_content(out, start, prefix.channel, content, payload_max);
}

/// basic.get-ok with its content; `message_count` is what is left in the queue.
pub fn write_get_ok(
    out: &mut Vec<u8>,
    channel: u16,
    delivery_tag: u64,
    redelivered: bool,
    message_count: u32,
    content: Content<'_>,
    payload_max: usize,
) {
    let start = out.len();
    method_head(out, channel, GET_OK);
    out.extend_from_slice(&delivery(delivery_tag, redelivered));
    out.extend_from_slice(content.address);
    out.extend_from_slice(&message_count.to_be_bytes());
    end_method_and_write_content(out, start, channel, content, payload_max);
}

/// basic.return with its content; the text is cut as [`reply_text`] says.
pub fn write_return(
    out: &mut Vec<u8>,
    channel: u16,
    code: u16,
    text: &str,
    content: Content<'_>,
    payload_max: usize,
) {
    let start = out.len();
    method_head(out, channel, RETURN);
    out.extend_from_slice(&code.to_be_bytes());
    shortstr(out, reply_text(text).as_bytes());
    out.extend_from_slice(content.address);
    end_method_and_write_content(out, start, channel, content, payload_max);
}

/// basic.publish with its content, as a client sends it.
pub fn write_publish(
    out: &mut Vec<u8>,
    channel: u16,
    mandatory: bool,
    content: Content<'_>,
    payload_max: usize,
) {
    let start = out.len();
    method_head(out, channel, PUBLISH);
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(content.address);
    out.push(u8::from(mandatory));
    end_method_and_write_content(out, start, channel, content, payload_max);
}

/// Exchange and routing key as [`Content::address`] wants them.
///
/// # Panics
/// When one of them is longer than a shortstr (255 bytes).
pub fn write_address(out: &mut Vec<u8>, exchange: &[u8], routing_key: &[u8]) {
    shortstr(out, exchange);
    shortstr(out, routing_key);
}

/// Delivery tag and the octet with the redelivered bit.
const DELIVERY_BYTES: usize = 9;

#[inline]
fn delivery(delivery_tag: u64, redelivered: bool) -> [u8; DELIVERY_BYTES] {
    let [t0, t1, t2, t3, t4, t5, t6, t7] = delivery_tag.to_be_bytes();
    [t0, t1, t2, t3, t4, t5, t6, t7, u8::from(redelivered)]
}

fn method_head(out: &mut Vec<u8>, channel: u16, method: u8) {
    let [c0, c1] = channel.to_be_bytes();
    out.extend_from_slice(&[
        FrameKind::Method.octet(),
        c0,
        c1,
        0,
        0,
        0,
        0,
        0,
        BASIC,
        0,
        method,
    ]);
}

fn shortstr(out: &mut Vec<u8>, text: &[u8]) {
    out.push(
        u8::try_from(text.len())
            .expect("callers pass what came or goes as a shortstr: at most 255 bytes"),
    );
    out.extend_from_slice(text);
}

/// An upper bound of what follows the method's first fields, for one reservation.
#[inline]
fn content_bytes(content: Content<'_>, payload_max: usize) -> usize {
    let body_frames = content.body.len().div_ceil(payload_max);
    content.address.len()
        + 1
        + OVERHEAD_BYTES
        + CONTENT_HEADER_BYTES
        + content.properties.len()
        + content.body.len()
        + body_frames * OVERHEAD_BYTES
}

/// Closes the method frame that began at `start`, then writes header and body frames.
#[inline]
fn end_method_and_write_content(
    out: &mut Vec<u8>,
    start: usize,
    channel: u16,
    content: Content<'_>,
    payload_max: usize,
) {
    let method_bytes = payload_size(out.len() - start - HEAD_BYTES);
    out[start + 3..start + HEAD_BYTES].copy_from_slice(&method_bytes);

    let [c0, c1] = channel.to_be_bytes();
    let [h0, h1, h2, h3] = payload_size(CONTENT_HEADER_BYTES + content.properties.len());
    let [s0, s1, s2, s3, s4, s5, s6, s7] = (content.body.len() as u64).to_be_bytes();
    let header = FrameKind::Header.octet();
    out.extend_from_slice(&[
        END, header, c0, c1, h0, h1, h2, h3, 0, BASIC, 0, 0, s0, s1, s2, s3, s4, s5, s6, s7,
    ]);
    out.extend_from_slice(content.properties);

    for piece in content.body.chunks(payload_max) {
        let [b0, b1, b2, b3] = payload_size(piece.len());
        out.extend_from_slice(&[END, FrameKind::Body.octet(), c0, c1, b0, b1, b2, b3]);
        out.extend_from_slice(piece);
    }
    out.push(END);
}

#[inline]
fn payload_size(len: usize) -> [u8; 4] {
    u32::try_from(len)
        .expect("no content is larger than the message limit, far below 4 GiB")
        .to_be_bytes()
}
