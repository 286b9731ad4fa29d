//! Cutting a byte stream into frames. [`method`](super::method) and [`content_header`](super::content_header) read the payloads
//! of frames.

use std::fmt::{self, Display, Formatter};

use nom::bytes::streaming::take;
use nom::{Err as NomErr, IResult, Needed};

use super::erlang::Binary;

/// The octet that ends every frame.
pub const END: u8 = 0xCE;
/// Octets before a frame's payload: type, channel, size.
pub const HEAD_BYTES: usize = 7;
/// Octets of a frame beside its payload; `frame_max` includes them, the size in the frame does not.
pub const OVERHEAD_BYTES: usize = HEAD_BYTES + 1;
/// RabbitMQ accepts payloads that are this much above the limit: it compares the payload with the limit of the whole frame.
const TOLERANCE_BYTES: usize = OVERHEAD_BYTES;
/// How many bytes of a payload an error's text shows.
const SNIPPET_BYTES: usize = 16;
/// Class and method id.
const METHOD_BYTES_MIN: usize = 4;
/// Class id, weight and body size.
const HEADER_BYTES_MIN: usize = 12;

/// The four frame types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// Type 1: a method.
    Method,
    /// Type 2: a content header.
    Header,
    /// Type 3: a piece of a content's body.
    Body,
    /// Type 8: a heartbeat, on channel 0 and empty.
    Heartbeat,
}

impl FrameKind {
    /// The type octet.
    #[must_use]
    pub const fn octet(self) -> u8 {
        match self {
            Self::Method => 1,
            Self::Header => 2,
            Self::Body => 3,
            Self::Heartbeat => 8,
        }
    }

    const fn from_octet(octet: u8) -> Option<Self> {
        Some(match octet {
            1 => Self::Method,
            2 => Self::Header,
            3 => Self::Body,
            8 => Self::Heartbeat,
            _ => return None,
        })
    }
}

/// One frame, its payload borrowed from the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The kind of the payload.
    pub kind: FrameKind,
    /// The frame's channel; 0 is the connection.
    pub channel: u16,
    /// Everything between the size and the end octet.
    pub payload: &'a [u8],
}

impl Frame<'_> {
    /// How an unexpected frame is described in a reply text.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("type {}, {}", self.kind.octet(), Snippet::of(self.payload))
    }
}

/// A frame, and where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut<'a> {
    /// The frame.
    pub frame: Frame<'a>,
    /// How many bytes of input the frame takes.
    pub consumed: usize,
}

/// Cuts the first frame off `input`; `None` asks for more bytes.
///
/// `payload_max` is the negotiated `frame_max` less [`OVERHEAD_BYTES`], or `usize::MAX` for no limit. A size above the
/// limit is refused as soon as it is seen, so that nothing is buffered that would be refused later. Like
/// RabbitMQ, eight bytes more than the limit are accepted.
///
/// # Errors
/// Faults that end the connection; see [`FrameError`].
#[inline]
pub fn read_frame(input: &[u8], payload_max: usize) -> Result<Option<Cut<'_>>, FrameError> {
    let Ok((rest, head)) = head(input) else {
        return Ok(None);
    };
    let size = usize::try_from(head.size).unwrap_or(usize::MAX);
    if size > payload_max.saturating_add(TOLERANCE_BYTES) {
        return Err(FrameError::TooLarge { frame_type: head.frame_type, size, payload_max });
    }
    let Ok((_, (payload, end))) = body(rest, size) else {
        return Ok(None);
    };
    if end != END {
        return Err(FrameError::BadEnd { frame_type: head.frame_type, snippet: Snippet::of(payload), end });
    }
    let kind = checked_kind(&head, payload)?;
    let frame = Frame { kind, channel: head.channel, payload };
    Ok(Some(Cut { frame, consumed: OVERHEAD_BYTES + size }))
}

struct Head {
    frame_type: u8,
    channel: u16,
    size: u32,
}

#[inline]
fn head(input: &[u8]) -> IResult<&[u8], Head, ()> {
    let Some((&[frame_type, c0, c1, s0, s1, s2, s3], rest)) = input.split_first_chunk() else {
        return Err(NomErr::Incomplete(Needed::Unknown));
    };
    let channel = u16::from_be_bytes([c0, c1]);
    let size = u32::from_be_bytes([s0, s1, s2, s3]);
    Ok((rest, Head { frame_type, channel, size }))
}

#[inline]
fn body(input: &[u8], size: usize) -> IResult<&[u8], (&[u8], u8), ()> {
    let (rest, payload) = take(size)(input)?;
    match rest.split_first() {
        Some((end, rest)) => Ok((rest, (payload, *end))),
        None => Err(NomErr::Incomplete(Needed::Unknown)),
    }
}

/// The checks of type against channel and size, in RabbitMQ's order.
#[inline]
fn checked_kind(head: &Head, payload: &[u8]) -> Result<FrameKind, FrameError> {
    let Some(kind) = FrameKind::from_octet(head.frame_type) else {
        return Err(unknown(head, payload));
    };
    match kind {
        FrameKind::Method if payload.len() < METHOD_BYTES_MIN => Err(unknown(head, payload)),
        FrameKind::Header if payload.len() < HEADER_BYTES_MIN => Err(unknown(head, payload)),
        FrameKind::Heartbeat if !payload.is_empty() => Err(unknown(head, payload)),
        FrameKind::Heartbeat if head.channel != 0 => Err(unexpected(head, payload)),
        FrameKind::Header | FrameKind::Body if head.channel == 0 => Err(unexpected(head, payload)),
        _ => Ok(kind),
    }
}

#[cold]
fn unknown(head: &Head, payload: &[u8]) -> FrameError {
    FrameError::Unknown { frame_type: head.frame_type, snippet: Snippet::of(payload) }
}

#[cold]
fn unexpected(head: &Head, payload: &[u8]) -> FrameError {
    FrameError::Unexpected { frame_type: head.frame_type, snippet: Snippet::of(payload) }
}

/// A frame that ends its connection. Displays as the reply text without the code's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The announced size is above the limit.
    TooLarge {
        /// The frame's type octet.
        frame_type: u8,
        /// The announced payload size in bytes.
        size: usize,
        /// The limit, without the tolerance.
        payload_max: usize,
    },
    /// The octet after the payload is not [`END`].
    BadEnd {
        /// The frame's type octet.
        frame_type: u8,
        /// The beginning of the payload.
        snippet: Snippet,
        /// The octet in the place of [`END`].
        end: u8,
    },
    /// No such frame type, or a payload that no frame of this type can have.
    Unknown {
        /// The frame's type octet.
        frame_type: u8,
        /// The beginning of the payload.
        snippet: Snippet,
    },
    /// A heartbeat on a channel, or content on channel 0.
    Unexpected {
        /// The frame's type octet.
        frame_type: u8,
        /// The beginning of the payload.
        snippet: Snippet,
    },
}

/// The reply codes a [`FrameError`] ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameErrorCode {
    /// 501 FRAME_ERROR.
    FrameError,
    /// 505 UNEXPECTED_FRAME.
    UnexpectedFrame,
}

impl FrameErrorCode {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::FrameError => 501,
            Self::UnexpectedFrame => 505,
        }
    }
}

impl FrameError {
    /// The code to close with.
    #[must_use]
    pub const fn code(&self) -> FrameErrorCode {
        match self {
            Self::TooLarge { .. } | Self::BadEnd { .. } | Self::Unknown { .. } => FrameErrorCode::FrameError,
            Self::Unexpected { .. } => FrameErrorCode::UnexpectedFrame,
        }
    }

    /// RabbitMQ's explanation: the reply text after `FRAME_ERROR - ` or `UNEXPECTED_FRAME - `.
    #[must_use]
    pub fn reply_text(&self) -> String {
        self.to_string()
    }
}

impl Display for FrameError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { frame_type, size, payload_max } => {
                write!(f, "type {frame_type}, all octets = <<>>: {{frame_too_large,{size},{payload_max}}}")
            }
            Self::BadEnd { frame_type, snippet, end } => {
                write!(f, "type {frame_type}, {snippet}: {{invalid_frame_end_marker,{end}}}")
            }
            Self::Unknown { frame_type, snippet } => write!(f, "type {frame_type}, {snippet}: unknown_frame"),
            Self::Unexpected { frame_type, snippet } => write!(f, "type {frame_type}, {snippet}"),
        }
    }
}

impl std::error::Error for FrameError {}

/// The first 16 bytes of a payload, for an error's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snippet {
    bytes: [u8; SNIPPET_BYTES],
    payload_len: usize,
}

impl Snippet {
    #[cold]
    fn of(payload: &[u8]) -> Self {
        let mut bytes = [0; SNIPPET_BYTES];
        let len = payload.len().min(SNIPPET_BYTES);
        bytes[..len].copy_from_slice(&payload[..len]);
        Self { bytes, payload_len: payload.len() }
    }
}

impl Display for Snippet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.payload_len > SNIPPET_BYTES {
            write!(f, "first {SNIPPET_BYTES} octets = {}", Binary(&self.bytes))
        } else {
            write!(f, "all octets = {}", Binary(&self.bytes[..self.payload_len]))
        }
    }
}

/// The largest payload of a negotiated `frame_max`, for [`read_frame`] and the writers; 0 means no limit.
#[must_use]
pub fn payload_max(frame_max: u32) -> usize {
    match usize::try_from(frame_max) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(frame_max) => frame_max.saturating_sub(OVERHEAD_BYTES).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(frame_type: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![frame_type];
        bytes.extend_from_slice(&channel.to_be_bytes());
        bytes.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend_from_slice(payload);
        bytes.push(END);
        bytes
    }

    fn refused(input: &[u8]) -> (u16, String) {
        let error = read_frame(input, 4088).expect_err("the frame is to be refused");
        (error.code().number(), error.reply_text())
    }

    #[test]
    fn every_kind_of_frame_is_cut_at_its_end() {
        let header = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        for (kind, channel, payload) in [
            (FrameKind::Method, 0, &[0, 10, 0, 51][..]),
            (FrameKind::Header, 1, &header),
            (FrameKind::Body, 65535, b"body"),
            (FrameKind::Body, 1, b""),
            (FrameKind::Heartbeat, 0, b""),
        ] {
            let mut input = frame(kind.octet(), channel, payload);
            let consumed = input.len();
            input.extend_from_slice(b"the next frame");
            let cut = read_frame(&input, 4088).unwrap().expect("it is complete");
            assert_eq!(cut, Cut { frame: Frame { kind, channel, payload }, consumed });
        }
    }

    #[test]
    fn every_beginning_of_a_frame_asks_for_more() {
        let input = frame(3, 1, b"body");
        for len in 0..input.len() {
            assert_eq!(read_frame(&input[..len], 4088), Ok(None));
        }
    }

    #[test]
    fn a_size_above_the_limit_is_refused_before_its_payload_arrives() {
        let head = [3, 0, 1, 0, 0, 0x10, 1];
        let text = "type 3, all octets = <<>>: {frame_too_large,4097,4088}";
        assert_eq!(refused(&head), (501, text.into()));
        assert_eq!(read_frame(&[3, 0, 1, 0, 0, 0x10, 0], 4088), Ok(None), "eight bytes above are let through");
        assert_eq!(read_frame(&[3, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF], usize::MAX), Ok(None));
    }

    #[test]
    fn the_error_of_a_wrong_end_octet_shows_the_beginning_of_the_payload() {
        let mut short = frame(1, 1, &[0, 10, 0, 51]);
        *short.last_mut().unwrap() = 7;
        let text = "type 1, all octets = <<0,10,0,51>>: {invalid_frame_end_marker,7}";
        assert_eq!(refused(&short), (501, text.into()));
        let mut long = frame(3, 1, b"abcdefghijklmnopq");
        *long.last_mut().unwrap() = 0;
        let text = "type 3, first 16 octets = <<\"abcdefghijklmnop\">>: {invalid_frame_end_marker,0}";
        assert_eq!(refused(&long), (501, text.into()));
    }

    #[test]
    fn frames_that_no_kind_has_are_unknown() {
        let unknown = |frame_type, snippet| (501, format!("type {frame_type}, all octets = {snippet}: unknown_frame"));
        assert_eq!(refused(&frame(4, 1, b"")), unknown(4, "<<>>"));
        assert_eq!(refused(&frame(8, 0, b"x")), unknown(8, "<<\"x\">>"));
        assert_eq!(refused(&frame(8, 1, b"x")), unknown(8, "<<\"x\">>"));
        assert_eq!(refused(&frame(1, 1, &[0, 10, 0])), unknown(1, "<<0,10,0>>"));
        assert_eq!(refused(&frame(2, 1, &[0, 60])), unknown(2, "<<0,60>>"));
    }

    #[test]
    fn frames_on_a_channel_where_they_cannot_be_are_unexpected() {
        assert_eq!(refused(&frame(8, 1, b"")), (505, "type 8, all octets = <<>>".into()));
        assert_eq!(refused(&frame(3, 0, b"abc")), (505, "type 3, all octets = <<\"abc\">>".into()));
        let header = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(
            refused(&frame(2, 0, &header)),
            (505, "type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,0,0,0>>".into())
        );
    }

    #[test]
    fn a_frame_max_of_zero_means_no_limit() {
        assert_eq!(payload_max(0), usize::MAX);
        assert_eq!(payload_max(4096), 4088);
        assert_eq!(payload_max(3), 1);
    }
}
