//! A publish's frames become a message: in place when they lie together, piece by piece otherwise.

use super::channel::Stage;
use super::effect::Output;
use super::machine::{Fault, Session};
use crate::model::AmqpError;
use crate::wire::content_header::ContentHeader;
use crate::wire::frame::{Frame, FrameKind, read_frame};
use crate::wire::method::BasicPublish;

/// RabbitMQ's hard limit of a body, in bytes.
const BODY_BYTES_HARD_MAX: u64 = 536_870_912;
/// Memory set aside for a body before it has arrived; more grows with it.
const BODY_BYTES_AT_ONCE: usize = 1 << 20;
const BASIC: u16 = 60;

/// What a channel is in the middle of.
#[derive(Debug, Default)]
pub(super) enum Content {
    /// Nothing.
    #[default]
    Idle,
    /// A content header is next.
    Header(Started),
    /// Body frames are next.
    Body(Box<Body>),
}

/// A basic.publish whose content is to come.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) exchange: Vec<u8>,
    pub(super) routing_key: Vec<u8>,
    pub(super) mandatory: bool,
    pub(super) immediate: bool,
}

impl Started {
    pub(super) fn of(publish: &BasicPublish<'_>) -> Self {
        Self {
            exchange: publish.exchange.to_vec(),
            routing_key: publish.routing_key.to_vec(),
            mandatory: publish.mandatory,
            immediate: publish.immediate,
        }
    }

    fn borrow(&self) -> BasicPublish<'_> {
        BasicPublish {
            exchange: &self.exchange,
            routing_key: &self.routing_key,
            mandatory: self.mandatory,
            immediate: self.immediate,
        }
    }
}

/// A body that arrives in pieces.
#[derive(Debug)]
pub(super) struct Body {
    started: Started,
    properties: Vec<u8>,
    size: u64,
    missing: u64,
    /// Left empty when the message is too large to be taken.
    bytes: Vec<u8>,
}

impl Content {
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// A publish on a channel that closes: its content is parsed and thrown away.
    pub(super) fn begin_discarded(&mut self) {
        *self =
            Self::Header(Started { exchange: Vec::new(), routing_key: Vec::new(), mandatory: false, immediate: false });
    }
}

/// A whole content that lies behind its method in the read buffer.
pub(super) struct Whole<'a> {
    pub(super) properties: &'a [u8],
    pub(super) body: &'a [u8],
    pub(super) used: usize,
}

/// Header and body behind a publish, if they are all there, in two frames at most. Anything unusual is left to
/// the slow way, which knows the errors.
pub(super) fn whole_content(behind: &[u8], channel: u16, payload_max: usize) -> Option<Whole<'_>> {
    let head = read_frame(behind, payload_max).ok()??;
    if head.frame.kind != FrameKind::Header || head.frame.channel != channel {
        return None;
    }
    let header = ContentHeader::parse(head.frame.payload)?;
    if header.class_id != BASIC || header.weight != 0 {
        return None;
    }
    let mut whole = Whole { properties: header.properties, body: &[], used: head.consumed };
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

impl Session {
    /// A frame in the middle of a content.
    pub(super) fn content_frame(&mut self, frame: Frame<'_>, out: &mut Output) -> Result<(), Fault> {
        let number = frame.channel;
        let message_bytes_max = self.settings.message_bytes_max;
        let channel = self.channel(number);
        match std::mem::take(&mut channel.content) {
            Content::Idle => unreachable!("callers found a content under way"),
            Content::Header(started) => {
                let header = content_header(&frame)?;
                let kept = header.body_size <= message_bytes_max && channel.stage == Stage::Open;
                let at_once = usize::try_from(header.body_size).unwrap_or(usize::MAX).min(BODY_BYTES_AT_ONCE);
                let body = Box::new(Body {
                    started,
                    properties: header.properties.to_vec(),
                    size: header.body_size,
                    missing: header.body_size,
                    bytes: Vec::with_capacity(if kept { at_once } else { 0 }),
                });
                self.body_progress(number, body, out)
            }
            Content::Body(mut body) => {
                if frame.kind != FrameKind::Body {
                    let text = "expected content body, got non content body frame instead";
                    return Err(blame(AmqpError::unexpected_frame(text)));
                }
                let len = frame.payload.len() as u64;
                if len > body.missing {
                    let text = "content body frame exceeds remaining content size";
                    return Err(blame(AmqpError::frame_error(text)));
                }
                body.missing -= len;
                if body.size <= message_bytes_max && channel.stage == Stage::Open {
                    body.bytes.extend_from_slice(frame.payload);
                }
                self.body_progress(number, body, out)
            }
        }
    }

    fn body_progress(&mut self, number: u16, body: Box<Body>, out: &mut Output) -> Result<(), Fault> {
        let channel = self.channel(number);
        if body.missing > 0 {
            channel.content = Content::Body(body);
            return Ok(());
        }
        if channel.stage == Stage::Closing {
            return Ok(());
        }
        let Body { started, properties, size, bytes, .. } = *body;
        self.published_whole(
            number,
            &started.borrow(),
            &properties,
            super::basic_methods::PublishBody::Owned(bytes),
            size,
            out,
        )
    }
}

/// Whatever goes wrong within a content is its publish's fault.
fn blame(error: AmqpError) -> Fault {
    Fault { error, method: Some(super::basic_methods::PUBLISH) }
}

fn content_header<'a>(frame: &Frame<'a>) -> Result<ContentHeader<'a>, Fault> {
    let unexpected = || {
        let text = "expected content header for class 60, got non content header frame instead";
        blame(AmqpError::unexpected_frame(text))
    };
    if frame.kind != FrameKind::Header {
        return Err(unexpected());
    }
    let Some(header) = ContentHeader::parse(frame.payload) else {
        return Err(Fault::of(AmqpError::internal_error()));
    };
    if header.class_id != BASIC {
        let text = format!("expected content header for class 60, got one for class {} instead", header.class_id);
        return Err(blame(AmqpError::unexpected_frame(text)));
    }
    if header.weight != 0 {
        return Err(unexpected());
    }
    if header.body_size > BODY_BYTES_HARD_MAX {
        let text = format!("content body size {} exceeds maximum allowed size {BODY_BYTES_HARD_MAX}", header.body_size);
        return Err(blame(AmqpError::frame_error(text)));
    }
    Ok(header)
}
