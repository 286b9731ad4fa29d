//! Appending frames to an output buffer.
//!
//! Frames of messages are copied from slices and prebuilt prefixes, and only the growth of the buffer allocates; the other
//! methods go through amq-protocol's generators.

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
/// RabbitMQ's nack to a publisher has this bit set, without a meaning.
const REQUEUE: u8 = 2;

/// The longest shortstr, and so the longest reply text, in bytes.
pub const SHORTSTR_BYTES_MAX: usize = 255;
/// The end of a reply text that was cut.
const ELLIPSIS: &str = "...";
/// Class id, weight, body size.
const CONTENT_HEADER_BYTES: usize = 12;

/// A message, borrowed in the form that frames need.
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
    let (written, _) =
        gen_frame(&AMQPFrame::Method(channel, method))(context).expect("writing to memory does not fail").into_inner();
    *out = written;
}

/// A method whose fields the caller writes, so that its tables keep their order.
pub fn write_fields(out: &mut Vec<u8>, channel: u16, method: MethodId, fields: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.push(FrameKind::Method.octet());
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&method.class_id.to_be_bytes());
    out.extend_from_slice(&method.method_id.to_be_bytes());
    fields(out);
    let size = payload_size(out.len() - start - HEAD_BYTES);
    out[start + 3..start + HEAD_BYTES].copy_from_slice(&size);
    out.push(END);
}

/// connection.close; a text that does not fit a shortstr is cut, see [`reply_text`].
pub fn write_connection_close(out: &mut Vec<u8>, code: u16, text: &str, method: Option<MethodId>) {
    let close = connection::Close {
        reply_code: code,
        reply_text: reply_text(text).as_ref().into(),
        class_id: method.map_or(0, |method| method.class_id),
        method_id: method.map_or(0, |method| method.method_id),
    };
    write_method(out, 0, AMQPClass::Connection(connection::AMQPMethod::Close(close)));
}

/// channel.close; a text that does not fit a shortstr is cut, see [`reply_text`].
pub fn write_channel_close(out: &mut Vec<u8>, channel: u16, code: u16, text: &str, method: Option<MethodId>) {
    let close = channel::Close {
        reply_code: code,
        reply_text: reply_text(text).as_ref().into(),
        class_id: method.map_or(0, |method| method.class_id),
        method_id: method.map_or(0, |method| method.method_id),
    };
    write_method(out, channel, AMQPClass::Channel(channel::AMQPMethod::Close(close)));
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
    write_settlement(out, channel, ACK, delivery_tag, u8::from(multiple));
}

/// basic.nack, as the broker sends it for confirms. RabbitMQ leaves the requeue bit at its default, which is set.
#[inline]
pub fn write_nack(out: &mut Vec<u8>, channel: u16, delivery_tag: u64, multiple: bool) {
    write_settlement(out, channel, NACK, delivery_tag, u8::from(multiple) | REQUEUE);
}

#[inline]
fn write_settlement(out: &mut Vec<u8>, channel: u16, method: u8, delivery_tag: u64, bits: u8) {
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
        bits,
        END,
    ]);
}

/// The first bytes of every basic.deliver to one consumer: frame head, method and consumer tag, built once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerPrefix {
    channel: u16,
    /// The frame's size is zero here; each copy gets its own.
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
        Self { channel, bytes: bytes.into_boxed_slice() }
    }

    /// The consumer's channel.
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

/// basic.get-ok with its content; `message_count` is the number of ready messages left in the queue.
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

/// basic.return with its content; the text is cut by [`reply_text`].
pub fn write_return(out: &mut Vec<u8>, channel: u16, code: u16, text: &str, content: Content<'_>, payload_max: usize) {
    let start = out.len();
    method_head(out, channel, RETURN);
    out.extend_from_slice(&code.to_be_bytes());
    shortstr(out, reply_text(text).as_bytes());
    out.extend_from_slice(content.address);
    end_method_and_write_content(out, start, channel, content, payload_max);
}

/// basic.publish with its content, as a client sends it.
pub fn write_publish(out: &mut Vec<u8>, channel: u16, mandatory: bool, content: Content<'_>, payload_max: usize) {
    let start = out.len();
    method_head(out, channel, PUBLISH);
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(content.address);
    out.push(u8::from(mandatory));
    end_method_and_write_content(out, start, channel, content, payload_max);
}

/// Appends exchange and routing key in the form of [`Content::address`].
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
    out.extend_from_slice(&[FrameKind::Method.octet(), c0, c1, 0, 0, 0, 0, 0, BASIC, 0, method]);
}

fn shortstr(out: &mut Vec<u8>, text: &[u8]) {
    out.push(u8::try_from(text.len()).expect("callers pass what came or goes as a shortstr: at most 255 bytes"));
    out.extend_from_slice(text);
}

/// An upper bound of the bytes that follow the method's first fields, so that one reservation is enough.
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
    out.extend_from_slice(&[END, header, c0, c1, h0, h1, h2, h3, 0, BASIC, 0, 0, s0, s1, s2, s3, s4, s5, s6, s7]);
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
    u32::try_from(len).expect("no content is larger than the message limit, far below 4 GiB").to_be_bytes()
}

#[cfg(test)]
mod tests {
    use amq_protocol::frame::{AMQPContentHeader, parse_frame};
    use amq_protocol::protocol::{BasicProperties, basic};

    use super::*;
    use crate::wire::frame::{payload_max, read_frame};

    const ADDRESS: &[u8] = b"\x04logs\x03a.b";

    /// All frames in `bytes` as amq-protocol reads them.
    fn frames(mut bytes: &[u8]) -> Vec<AMQPFrame> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let (rest, frame) = parse_frame(bytes).expect("it is a frame");
            frames.push(frame);
            bytes = rest;
        }
        frames
    }

    fn content(body: &[u8]) -> Content<'_> {
        Content { address: ADDRESS, properties: &[0x10, 0, 2], body }
    }

    fn method(channel: u16, method: basic::AMQPMethod) -> AMQPFrame {
        AMQPFrame::Method(channel, AMQPClass::Basic(method))
    }

    fn header(channel: u16, body_size: u64) -> AMQPFrame {
        let properties = BasicProperties::default().with_delivery_mode(2);
        AMQPFrame::Header(channel, AMQPContentHeader { class_id: 60, body_size, properties })
    }

    #[test]
    fn a_delivery_is_what_amq_protocol_reads_as_one() {
        let prefix = ConsumerPrefix::new(513, b"tag");
        assert_eq!(prefix.channel(), 513);
        let mut out = b"earlier".to_vec();
        write_deliver(&mut out, &prefix, 1 << 40, true, content(b"hello"), payload_max(4096));
        let deliver = basic::Deliver {
            consumer_tag: "tag".into(),
            delivery_tag: 1 << 40,
            redelivered: true,
            exchange: "logs".into(),
            routing_key: "a.b".into(),
        };
        let expected =
            [method(513, basic::AMQPMethod::Deliver(deliver)), header(513, 5), AMQPFrame::Body(513, b"hello".to_vec())];
        assert_eq!(out[..7], *b"earlier");
        assert_eq!(frames(&out[7..]), expected);
    }

    #[test]
    fn a_get_ok_a_return_and_a_publish_are_what_amq_protocol_reads_as_such() {
        let mut out = Vec::new();
        write_get_ok(&mut out, 1, 7, false, 3, content(b"x"), usize::MAX);
        write_return(&mut out, 2, 312, "NO_ROUTE", content(b"y"), usize::MAX);
        write_publish(&mut out, 3, true, content(b"z"), usize::MAX);
        let get_ok = basic::GetOk {
            delivery_tag: 7,
            redelivered: false,
            exchange: "logs".into(),
            routing_key: "a.b".into(),
            message_count: 3,
        };
        let returned = basic::Return {
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
            exchange: "logs".into(),
            routing_key: "a.b".into(),
        };
        let publish =
            basic::Publish { exchange: "logs".into(), routing_key: "a.b".into(), mandatory: true, immediate: false };
        let expected = [
            method(1, basic::AMQPMethod::GetOk(get_ok)),
            header(1, 1),
            AMQPFrame::Body(1, b"x".to_vec()),
            method(2, basic::AMQPMethod::Return(returned)),
            header(2, 1),
            AMQPFrame::Body(2, b"y".to_vec()),
            method(3, basic::AMQPMethod::Publish(publish)),
            header(3, 1),
            AMQPFrame::Body(3, b"z".to_vec()),
        ];
        assert_eq!(frames(&out), expected);
    }

    #[test]
    fn a_body_is_split_so_that_every_frame_keeps_to_the_limit() {
        let body = vec![b'x'; 10_000];
        let limit = payload_max(4096);
        let mut out = Vec::new();
        write_publish(&mut out, 1, false, content(&body), limit);
        let (mut at, mut pieces) = (0, Vec::new());
        while let Some(cut) = read_frame(&out[at..], limit).expect("every frame is well formed") {
            assert!(cut.consumed <= 4096);
            if cut.frame.kind == FrameKind::Body {
                pieces.push(cut.frame.payload.len());
            }
            at += cut.consumed;
        }
        assert_eq!(at, out.len());
        assert_eq!(pieces, [4088, 4088, 1824]);
    }

    #[test]
    fn an_empty_body_has_no_frame() {
        let mut out = Vec::new();
        write_deliver(&mut out, &ConsumerPrefix::new(1, b""), 1, false, content(b""), payload_max(4096));
        assert_eq!(frames(&out).len(), 2);
    }

    #[test]
    fn a_content_header_is_never_split() {
        let properties = [&[0x20, 0, 0, 0, 0x20, 6, 1, b'k', b'S', 0, 0, 0x1F, 0xFF][..], &[b'x'; 8191]].concat();
        let mut out = Vec::new();
        let content = Content { address: ADDRESS, properties: &properties, body: b"" };
        write_deliver(&mut out, &ConsumerPrefix::new(1, b"tag"), 1, false, content, payload_max(4096));
        let AMQPFrame::Header(1, header) = &frames(&out)[1] else { panic!("one whole header frame") };
        assert!(header.properties.headers().is_some());
    }

    #[test]
    fn a_delivery_reserves_once_and_enough() {
        let body = vec![b'x'; 9000];
        let mut out = Vec::new();
        write_deliver(&mut out, &ConsumerPrefix::new(1, b"tag"), 1, false, content(&body), 1000);
        assert!(out.capacity() - out.len() <= 1 && out.len() > 9000, "{} of {}", out.len(), out.capacity());
    }

    #[test]
    fn settlements_and_heartbeats_are_what_amq_protocol_reads_as_such() {
        let mut out = Vec::new();
        write_ack(&mut out, 300, 1 << 40, true);
        write_nack(&mut out, 1, 7, false);
        write_heartbeat(&mut out);
        let ack = basic::Ack { delivery_tag: 1 << 40, multiple: true };
        let nack = basic::Nack { delivery_tag: 7, multiple: false, requeue: true };
        let expected =
            [method(300, basic::AMQPMethod::Ack(ack)), method(1, basic::AMQPMethod::Nack(nack)), AMQPFrame::Heartbeat];
        assert_eq!(frames(&out), expected);
    }

    #[test]
    fn a_generated_method_is_appended_to_the_buffer() {
        let mut out = b"earlier".to_vec();
        let qos_ok = AMQPClass::Basic(basic::AMQPMethod::QosOk(basic::QosOk {}));
        write_method(&mut out, 5, qos_ok.clone());
        assert_eq!(out[..7], *b"earlier");
        assert_eq!(frames(&out[7..]), [AMQPFrame::Method(5, qos_ok)]);
    }

    #[test]
    fn closes_carry_code_text_and_the_method_that_failed() {
        let mut out = Vec::new();
        let declare = MethodId { class_id: 50, method_id: 10 };
        write_channel_close(&mut out, 2, 404, "NOT_FOUND - no queue 'x' in vhost '/'", Some(declare));
        write_connection_close(&mut out, 501, &"é".repeat(200), None);
        let channel_close = channel::Close {
            reply_code: 404,
            reply_text: "NOT_FOUND - no queue 'x' in vhost '/'".into(),
            class_id: 50,
            method_id: 10,
        };
        let connection_close = connection::Close {
            reply_code: 501,
            reply_text: format!("{}...", "é".repeat(126)).into(),
            class_id: 0,
            method_id: 0,
        };
        let expected = [
            AMQPFrame::Method(2, AMQPClass::Channel(channel::AMQPMethod::Close(channel_close))),
            AMQPFrame::Method(0, AMQPClass::Connection(connection::AMQPMethod::Close(connection_close))),
        ];
        assert_eq!(frames(&out), expected);
    }

    #[test]
    fn a_reply_text_is_cut_between_two_characters() {
        let longest = "x".repeat(255);
        assert_eq!(reply_text(&longest), longest);
        let cut = reply_text(&"x".repeat(256)).into_owned();
        assert_eq!(cut, format!("{}...", "x".repeat(252)));
        let cut = reply_text(&format!("a{}", "é".repeat(130))).into_owned();
        assert_eq!(cut, format!("a{}...", "é".repeat(125)));
    }
}
