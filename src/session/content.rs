//! A publish's frames become a message: in place when they lie together, piece by piece otherwise.

use super::basic_methods::{PublishBody, PublishContent};
use super::channel::{Channel, Stage};
use super::effect::Output;
use super::machine::{Fault, Session};
use super::outlet::Outlet;
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
#[derive(Debug, Default)]
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

    fn held_bytes(&self) -> usize {
        self.exchange.capacity() + self.routing_key.capacity()
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

impl Body {
    /// Room grows as bytes come, up to the size that was announced: by so little at a time that most of it is in use.
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

    /// What it takes of memory.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Idle => 0,
            Self::Header(started) => started.held_bytes(),
            Self::Body(body) => {
                size_of::<Body>() + body.started.held_bytes() + body.properties.capacity() + body.bytes.capacity()
            }
        }
    }

    /// The channel closes: what is still to come is parsed and thrown away, and what has come is as well.
    pub(super) fn discarded(mut self) -> Self {
        match &mut self {
            Self::Idle => {}
            Self::Header(started) => *started = Started::default(),
            Self::Body(body) => {
                (body.started, body.properties, body.bytes) = (Started::default(), Vec::new(), Vec::new());
            }
        }
        self
    }

    /// A publish on a channel that closes: its content is parsed and thrown away.
    pub(super) fn begin_discarded(&mut self) {
        *self = Self::Header(Started::default());
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
    pub(super) fn content_frame(
        &mut self,
        frame: Frame<'_>,
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) -> Result<(), Fault> {
        let Some(body) = self.content_progress(&frame)? else { return Ok(()) };
        let Body { started, properties, size, bytes, .. } = *body;
        let content = PublishContent { properties: &properties, body: PublishBody::Owned(bytes), size };
        self.published_whole(frame.channel, &started.borrow(), content, outlet, out)
    }

    /// Takes a frame of a content; returns the content with its last one, unless the channel closes.
    fn content_progress(&mut self, frame: &Frame<'_>) -> Result<Option<Box<Body>>, Fault> {
        let number = frame.channel;
        let message_bytes_max = self.settings.message_bytes_max;
        let channel = self.channel(number);
        match std::mem::take(&mut channel.content) {
            Content::Idle => unreachable!("callers found a content under way"),
            Content::Header(started) => {
                let header = content_header(frame)?;
                let kept = header.body_size <= message_bytes_max && channel.stage == Stage::Open;
                let at_once = usize::try_from(header.body_size).unwrap_or(usize::MAX).min(BODY_BYTES_AT_ONCE);
                let body = Box::new(Body {
                    started,
                    properties: header.properties.to_vec(),
                    size: header.body_size,
                    missing: header.body_size,
                    bytes: Vec::with_capacity(if kept { at_once } else { 0 }),
                });
                Ok(channel.body_progress(body))
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
                    body.add(frame.payload);
                }
                Ok(channel.body_progress(body))
            }
        }
    }
}

impl Channel {
    fn body_progress(&mut self, body: Box<Body>) -> Option<Box<Body>> {
        if body.missing > 0 {
            self.content = Content::Body(body);
            return None;
        }
        (self.stage == Stage::Open).then_some(body)
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

#[cfg(test)]
mod tests {
    use super::super::machine::{Session, State};
    use super::*;
    use crate::model::{Answer, ChannelKey, LimitChange, Message, Monotonic, Name, Notice, Now, RequestNo, WallMillis};
    use crate::session::{Publish, SessionSettings, Settlement};
    use crate::wire::writer::{Content as Sent, write_method, write_publish};
    use amq_protocol::protocol::{AMQPClass, basic, channel};
    use std::sync::Arc;
    use std::time::Duration;

    const NOW: Now = Now { monotonic: Monotonic(0), wall: WallMillis(0) };
    const KEY: ChannelKey = ChannelKey { number: 1, incarnation: 1 };

    /// Only the limits matter here.
    fn settings() -> SessionSettings {
        SessionSettings {
            product: String::new(),
            version: String::new(),
            platform: String::new(),
            information: String::new(),
            cluster_name: String::new(),
            mechanisms: Vec::new(),
            channel_max: 8,
            frame_max: 4096,
            frame_min: 4096,
            heartbeat_seconds: 0,
            handshake_timeout: Duration::from_secs(10),
            message_bytes_max: 1 << 20,
            gets_in_flight_max: 2,
            connection_unfinished_bytes_max: 1 << 30,
            unfinished_bytes_max: 1 << 30,
            channel_consumers_max: 1000,
            channel_unacked_max: 1000,
            parked_bytes_max: 1 << 16,
        }
    }

    /// No exchange is there.
    struct Missing;

    impl Outlet for Missing {
        fn publish(&mut self, publish: Publish) -> Result<u32, AmqpError> {
            self.route(&publish.message).map(|_| 1)
        }

        fn route(&mut self, _: &Message) -> Result<Vec<Name>, AmqpError> {
            Err(AmqpError::not_found("no exchange"))
        }

        fn settle(&mut self, _: ChannelKey, _: Settlement) {}

        fn change_limit(&mut self, _: ChannelKey, _: LimitChange) {}

        fn count_delivery(&mut self, _: ChannelKey) {}

        fn end_channel(&mut self, _: ChannelKey) {}
    }

    /// A connection with channel 1 open, and a publish cut into its three frames.
    fn opened() -> (Session, Output, Vec<Vec<u8>>) {
        let mut session = Session::new(Arc::new(settings()), 1, NOW);
        session.state = State::Running;
        let mut out = Output::default();
        let mut open = Vec::new();
        write_method(&mut open, 1, AMQPClass::Channel(channel::AMQPMethod::Open(channel::Open {})));
        give(&mut session, &open, &mut out);
        let mut publish = Vec::new();
        let address = [0, 1, b'q'];
        let content = Sent { address: &address, properties: &[0, 0], body: b"body" };
        write_publish(&mut publish, 1, false, content, 4096);
        let mut frames = Vec::new();
        while let Some(cut) = read_frame(&publish, 4096).unwrap() {
            let rest = publish.split_off(cut.consumed);
            frames.push(std::mem::replace(&mut publish, rest));
        }
        assert_eq!(frames.len(), 3);
        (session, out, frames)
    }

    /// All of it is used: the shell has carried out what was to be done before.
    fn give(session: &mut Session, input: &[u8], out: &mut Output) {
        out.pause = false;
        assert_eq!(session.receive(input, NOW, &mut Missing, out), input.len());
    }

    /// The rest of a content is swallowed: nothing is said, and the channel still waits for close-ok.
    fn assert_swallowed(mut session: Session, mut out: Output, rest: &[Vec<u8>]) {
        out.bytes.clear();
        for frame in rest {
            give(&mut session, frame, &mut out);
        }
        assert_eq!(out.bytes, b"");
        assert!(session.is_running());
        let mut close_ok = Vec::new();
        write_method(&mut close_ok, 1, AMQPClass::Channel(channel::AMQPMethod::CloseOk(channel::CloseOk {})));
        give(&mut session, &close_ok, &mut out);
        assert_eq!(session.channel_count(), 0);
        assert!(session.is_running());
    }

    #[test]
    fn a_channel_that_fails_within_a_content_swallows_the_rest_of_it() {
        for came in 1..3 {
            let (mut session, mut out, frames) = opened();
            frames[..came].iter().for_each(|frame| give(&mut session, frame, &mut out));
            session.fail(1, &AmqpError::not_found("something else failed"), None, NOW, &mut Missing, &mut out);
            assert_swallowed(session, out, &frames[came..]);
        }
    }

    #[test]
    fn a_content_that_is_parked_in_part_is_swallowed_when_what_it_waits_for_fails() {
        for came in 1..=3 {
            let (mut session, mut out, frames) = opened();
            let get = basic::Get { queue: "q".into(), no_ack: true };
            let mut waits = Vec::new();
            write_method(&mut waits, 1, AMQPClass::Basic(basic::AMQPMethod::Get(get)));
            give(&mut session, &waits, &mut out);
            frames[..came].iter().for_each(|frame| give(&mut session, frame, &mut out));
            let answer = Answer::Refused(AmqpError::not_found("no queue 'q'"));
            let notice = Notice::Answer { channel: KEY, request: RequestNo(1), answer };
            session.notice(notice, NOW, &mut Missing, &mut out);
            assert_swallowed(session, out, &frames[came..]);
        }
    }
}
