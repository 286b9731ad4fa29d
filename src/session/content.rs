//! The content of a publish: taken in place when all of it lies behind the method, else collected piece by piece.

use super::fault::Fault;
use crate::model::AmqpError;
use crate::wire::content_header::ContentHeader;
use crate::wire::frame::{Frame, FrameKind, read_frame};
use crate::wire::method::BasicPublish;

/// RabbitMQ's hard limit of a body, in bytes.
const BODY_BYTES_HARD_MAX: u64 = 536_870_912;
/// Memory that is set aside for a body before it has arrived; more is added as the body comes.
const BODY_BYTES_AT_ONCE: usize = 1 << 20;
const BASIC: u16 = 60;

/// How much of a content has come on a channel.
#[derive(Debug, Default)]
pub(super) enum Content {
    /// No content is awaited.
    #[default]
    Idle,
    /// A content header is next.
    Header(PublishMethod),
    /// Body frames are next.
    Body(Box<PartialBody>),
}

/// A basic.publish whose content is to come.
#[derive(Debug, Default)]
pub(super) struct PublishMethod {
    exchange: Vec<u8>,
    routing_key: Vec<u8>,
    mandatory: bool,
    immediate: bool,
}

impl PublishMethod {
    pub(super) fn of(publish: &BasicPublish<'_>) -> Self {
        Self {
            exchange: publish.exchange.to_vec(),
            routing_key: publish.routing_key.to_vec(),
            mandatory: publish.mandatory,
            immediate: publish.immediate,
        }
    }

    fn held_bytes(&self) -> usize {
        self.exchange.capacity() + self.routing_key.capacity()
    }

    pub(super) fn borrow(&self) -> BasicPublish<'_> {
        BasicPublish {
            exchange: &self.exchange,
            routing_key: &self.routing_key,
            mandatory: self.mandatory,
            immediate: self.immediate,
        }
    }
}

/// A body that arrives in pieces, with its method and properties.
#[derive(Debug)]
pub(super) struct PartialBody {
    pub(super) method: PublishMethod,
    pub(super) properties: Vec<u8>,
    pub(super) size: u64,
    missing: u64,
    /// Left empty when the message is too large to be accepted.
    pub(super) bytes: Vec<u8>,
}

impl PartialBody {
    /// Memory grows as bytes come, up to the announced size, and in steps so small that most of it is in use.
    fn add(&mut self, bytes: &[u8]) {
        let len = self.bytes.len() + bytes.len();
        if len > self.bytes.capacity() {
            let announced = usize::try_from(self.size).unwrap_or(usize::MAX);
            let step = (self.bytes.capacity() / 4).max(BODY_BYTES_AT_ONCE);
            self.bytes.reserve_exact((self.bytes.capacity() + step).min(announced).max(len) - self.bytes.len());
        }
        self.bytes.extend_from_slice(bytes);
    }
}

impl Content {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// Takes a frame of a content that has begun; returns the content with its last frame. `kept_max` is the size up to which
    /// a body is kept; with none the channel closes: the content is parsed, and thrown away.
    pub(super) fn add_frame(
        &mut self,
        frame: &Frame<'_>,
        kept_max: Option<u64>,
    ) -> Result<Option<Box<PartialBody>>, Fault> {
        let is_kept = |size: u64| kept_max.is_some_and(|most| size <= most);
        let body = match std::mem::take(self) {
            Self::Idle => unreachable!("callers found a content under way"),
            Self::Header(method) => {
                let header = parse_header(frame)?;
                let at_once = usize::try_from(header.body_size).unwrap_or(usize::MAX).min(BODY_BYTES_AT_ONCE);
                Box::new(PartialBody {
                    method,
                    properties: header.properties.to_vec(),
                    size: header.body_size,
                    missing: header.body_size,
                    bytes: Vec::with_capacity(if is_kept(header.body_size) { at_once } else { 0 }),
                })
            }
            Self::Body(mut body) => {
                if frame.kind != FrameKind::Body {
                    let text = "expected content body, got non content body frame instead";
                    return Err(Fault::of_publish(AmqpError::unexpected_frame(text)));
                }
                let len = frame.payload.len() as u64;
                if len > body.missing {
                    let text = "content body frame exceeds remaining content size";
                    return Err(Fault::of_publish(AmqpError::frame_error(text)));
                }
                body.missing -= len;
                if is_kept(body.size) {
                    body.add(frame.payload);
                }
                body
            }
        };
        if body.missing > 0 {
            *self = Self::Body(body);
            return Ok(None);
        }
        Ok(kept_max.map(|_| body))
    }

    /// The memory that it takes, in bytes.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Idle => 0,
            Self::Header(method) => method.held_bytes(),
            Self::Body(body) => {
                size_of::<PartialBody>() + body.method.held_bytes() + body.properties.capacity() + body.bytes.capacity()
            }
        }
    }

    /// The channel closes: frames still to come are parsed and thrown away, and what has come is dropped.
    pub(super) fn discarded(mut self) -> Self {
        match &mut self {
            Self::Idle => {}
            Self::Header(method) => *method = PublishMethod::default(),
            Self::Body(body) => {
                (body.method, body.properties, body.bytes) = (PublishMethod::default(), Vec::new(), Vec::new());
            }
        }
        self
    }

    /// A publish on a channel that closes: its content is parsed and thrown away.
    pub(super) fn begin_discarded(&mut self) {
        *self = Self::Header(PublishMethod::default());
    }
}

/// A content that lies in the read buffer as a whole, behind its method.
pub(super) struct WholeContent<'a> {
    pub(super) properties: &'a [u8],
    pub(super) body: &'a [u8],
    /// How many bytes of the buffer it takes.
    pub(super) used: usize,
}

/// Header and body behind a publish, if they are all there, in two frames at most. Anything unusual returns none: the way
/// frame by frame reports errors.
pub(super) fn whole_content(behind: &[u8], channel: u16, payload_max: usize) -> Option<WholeContent<'_>> {
    let head = read_frame(behind, payload_max).ok()??;
    if head.frame.kind != FrameKind::Header || head.frame.channel != channel {
        return None;
    }
    let header = ContentHeader::parse(head.frame.payload)?;
    if header.class_id != BASIC || header.weight != 0 {
        return None;
    }
    let mut whole = WholeContent { properties: header.properties, body: &[], used: head.consumed };
    if header.body_size > 0 {
        let body = read_frame(&behind[head.consumed..], payload_max).ok()??;
        let fits = body.frame.kind == FrameKind::Body
            && body.frame.channel == channel
            && body.frame.payload.len() as u64 == header.body_size;
        if !fits {
            return None;
        }
        whole.body = body.frame.payload;
        whole.used += body.consumed;
    }
    Some(whole)
}

fn parse_header<'a>(frame: &Frame<'a>) -> Result<ContentHeader<'a>, Fault> {
    let unexpected = || {
        let text = "expected content header for class 60, got non content header frame instead";
        Fault::of_publish(AmqpError::unexpected_frame(text))
    };
    if frame.kind != FrameKind::Header {
        return Err(unexpected());
    }
    let Some(header) = ContentHeader::parse(frame.payload) else {
        return Err(Fault::of(AmqpError::internal_error()));
    };
    if header.class_id != BASIC {
        let text = format!("expected content header for class 60, got one for class {} instead", header.class_id);
        return Err(Fault::of_publish(AmqpError::unexpected_frame(text)));
    }
    if header.weight != 0 {
        return Err(unexpected());
    }
    if header.body_size > BODY_BYTES_HARD_MAX {
        let text = format!("content body size {} exceeds maximum allowed size {BODY_BYTES_HARD_MAX}", header.body_size);
        return Err(Fault::of_publish(AmqpError::frame_error(text)));
    }
    Ok(header)
}
