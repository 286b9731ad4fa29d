//! basic.publish: its content, its confirm, its return.

use super::basic_methods::REPLY_TO;
use super::channel::Stage;
use super::content::{Content, PartialBody, PublishMethod, whole_content};
use super::effect::{Output, Publish, RoutedMessage};
use super::fault::Fault;
use super::machine::Session;
use super::outlet::Outlet;
use crate::model::{AmqpError, Message, Name, NamedLimit, ReplyCode};
use crate::wire::frame::Frame;
use crate::wire::method::BasicPublish;
use crate::wire::properties::Properties;
use crate::wire::writer::write_return;

/// What follows a publish. `size` is the body's announced length; the body is empty when that is too much.
struct PublishContent<'a> {
    properties: &'a [u8],
    body: PublishBody<'a>,
    size: u64,
}

/// The body of a publish: still in the read buffer, or collected.
enum PublishBody<'a> {
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
}

impl Session {
    /// basic.publish. Its content is taken at once if all of it lies in `behind`, else frame by frame. Returns how many bytes of
    /// `behind` were used.
    pub(super) fn basic_publish(
        &mut self,
        number: u16,
        publish: &BasicPublish<'_>,
        behind: &[u8],
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) -> Result<usize, Fault> {
        // A message that is too large is read to its end before its channel closes.
        let most = self.settings.message_bytes_max;
        match whole_content(behind, number, self.tuning.payload_max).filter(|whole| whole.body.len() as u64 <= most) {
            Some(whole) => {
                let (properties, size) = (whole.properties, whole.body.len() as u64);
                let content = PublishContent { properties, body: PublishBody::Borrowed(whole.body), size };
                let used = whole.used;
                self.publish(number, publish, content, outlet, out).map(|()| used).inspect_err(|_| {
                    // The content is still to be skipped.
                    self.channel(number).content.begin_discarded();
                })
            }
            None => {
                self.channel(number).content = Content::Header(PublishMethod::of(publish));
                Ok(0)
            }
        }
    }

    /// A frame of a content that has begun. With its last frame the message is published.
    pub(super) fn content_frame(
        &mut self,
        frame: Frame<'_>,
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) -> Result<(), Fault> {
        let number = frame.channel;
        let message_bytes_max = self.settings.message_bytes_max;
        let channel = self.channel(number);
        let kept_max = (channel.stage == Stage::Open).then_some(message_bytes_max);
        let Some(body) = channel.content.add_frame(&frame, kept_max)? else { return Ok(()) };
        let PartialBody { method, properties, size, bytes, .. } = *body;
        let content = PublishContent { properties: &properties, body: PublishBody::Owned(bytes), size };
        self.publish(number, &method.borrow(), content, outlet, out)
    }

    /// A publish is complete: it goes to its queues, or into the channel's transaction.
    fn publish(
        &mut self,
        number: u16,
        publish: &BasicPublish<'_>,
        content: PublishContent<'_>,
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) -> Result<(), Fault> {
        let PublishContent { properties, body, size } = content;
        if publish.immediate {
            return Err(Fault::of_publish(AmqpError::not_implemented("immediate=true")));
        }
        let most = self.settings.message_bytes_max;
        if size > most {
            out.refusals.note(NamedLimit::MessageBytesMax);
            let text = format!("message size {size} is larger than configured max size {most}");
            return Err(Fault::of_publish(AmqpError::precondition_failed(text)));
        }
        let properties = Properties::check(properties).map_err(|_| Fault::of(AmqpError::internal_error()))?;
        let error = self.publish_error(&properties);
        let (exchange, routing_key) = (publish.exchange, publish.routing_key);
        let message = match body {
            PublishBody::Borrowed(body) => Message::new(exchange, routing_key, &properties, body),
            PublishBody::Owned(body) => Message::with_body(exchange, routing_key, &properties, body),
        };
        if let Some(error) = error {
            // A missing exchange is reported first, as in RabbitMQ.
            return Err(Fault::of_publish(outlet.route(&message).err().unwrap_or(error)));
        }
        let channel = self.channels.get_mut(number).expect("the publish came on an open channel");
        channel.has_published = true;
        let (key, mandatory) = (channel.key, publish.mandatory);
        if let Some(transaction) = &mut channel.transaction {
            let queues = outlet.route(&message).map_err(Fault::of_publish)?;
            transaction.add_publish(RoutedMessage { message, mandatory, queues });
        } else {
            let sequence = channel.confirms.next_sequence();
            let returnable = mandatory.then(|| message.clone());
            let parts =
                outlet.publish(Publish { channel: key, message, mandatory, sequence }).map_err(Fault::of_publish)?;
            self.published(number, sequence, parts, returnable.as_ref(), out);
        }
        self.block_if_alarmed(out);
        Ok(())
    }

    /// A publish went to `parts` queues. Without a queue it is confirmed at once; a mandatory message is returned before that.
    fn published(
        &mut self,
        number: u16,
        sequence: Option<u64>,
        parts: u32,
        returnable: Option<&Message>,
        out: &mut Output,
    ) {
        let returned = returnable.filter(|_| parts == 0);
        if let Some(message) = returned {
            // Confirms that are due go before the return: the next confirm after a return is that of the returned message.
            self.flush_confirms_of(number, out);
            self.write_return(number, message, out);
        }
        let Some(sequence) = sequence else { return };
        let channel = self.channel(number);
        channel.confirms.set_parts(sequence, parts);
        if parts > 0 {
            return;
        }
        channel.confirms.promised(sequence, sequence, true);
        if returned.is_some() {
            self.flush_confirms_of(number, out);
        } else {
            self.note_to_confirm(number);
        }
    }

    /// Returns a mandatory message that no queue took.
    pub(super) fn write_return(&self, number: u16, message: &Message, out: &mut Output) {
        let code = ReplyCode::NoRoute;
        write_return(&mut out.bytes, number, code.number(), code.name(), message.content(), self.tuning.payload_max);
    }

    /// The error of a message that may not be published. It is reported only if the exchange exists.
    fn publish_error(&self, properties: &Properties<'_>) -> Option<AmqpError> {
        if properties.reply_to() == Some(REPLY_TO.as_bytes()) {
            return Some(AmqpError::not_implemented("direct reply-to"));
        }
        if let Err(error) = properties.expiration_ms() {
            let text = String::from_utf8_lossy(properties.expiration().unwrap_or_default());
            return Some(AmqpError::precondition_failed(format!("invalid expiration '{text}': {error}")));
        }
        if let Some(headers) = properties.headers() {
            for name in ["CC", "BCC"] {
                if headers.get(name.as_bytes()).is_some() {
                    return Some(AmqpError::not_implemented(format!("{name} header")));
                }
            }
        }
        let user = self.client.user.as_ref().map_or("", Name::as_str);
        match properties.user_id() {
            Some(claimed) if claimed != user.as_bytes() && !self.client.may_impersonate => {
                let claimed = String::from_utf8_lossy(claimed);
                Some(AmqpError::precondition_failed(format!(
                    "user_id property set to '{claimed}' but authenticated user was '{user}'"
                )))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::State;
    use super::*;
    use crate::model::{Answer, ChannelKey, LimitChange, Message, Monotonic, Name, Notice, Now, RequestNo, WallMillis};
    use crate::session::{Publish, ServerProperties, SessionSettings, Settlement};
    use crate::wire::frame::read_frame;
    use crate::wire::writer::{Content as Sent, write_method, write_publish};
    use amq_protocol::protocol::{AMQPClass, basic, channel};
    use std::sync::Arc;
    use std::time::Duration;

    const NOW: Now = Now { monotonic: Monotonic(0), wall: WallMillis(0) };
    const KEY: ChannelKey = ChannelKey { number: 1, incarnation: 1 };

    /// Settings whose limits matter here.
    fn settings() -> SessionSettings {
        SessionSettings {
            properties: ServerProperties::default(),
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

    /// An outlet without exchanges.
    struct NoExchanges;

    impl Outlet for NoExchanges {
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

    /// Gives input, all of which the session uses: the shell has carried out earlier effects.
    fn give(session: &mut Session, input: &[u8], out: &mut Output) {
        out.pause = false;
        assert_eq!(session.receive(input, NOW, &mut NoExchanges, out), input.len());
    }

    /// The rest of a content is skipped: nothing is written, and the channel still waits for close-ok.
    fn assert_skipped(mut session: Session, mut out: Output, rest: &[Vec<u8>]) {
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
    fn a_channel_that_fails_within_a_content_skips_the_rest_of_it() {
        for came in 1..3 {
            let (mut session, mut out, frames) = opened();
            frames[..came].iter().for_each(|frame| give(&mut session, frame, &mut out));
            session.fail(1, &AmqpError::not_found("something else failed"), None, NOW, &mut NoExchanges, &mut out);
            assert_skipped(session, out, &frames[came..]);
        }
    }

    #[test]
    fn a_partly_parked_content_is_skipped_when_the_method_before_it_fails() {
        for came in 1..=3 {
            let (mut session, mut out, frames) = opened();
            let get = basic::Get { queue: "q".into(), no_ack: true };
            let mut waits = Vec::new();
            write_method(&mut waits, 1, AMQPClass::Basic(basic::AMQPMethod::Get(get)));
            give(&mut session, &waits, &mut out);
            frames[..came].iter().for_each(|frame| give(&mut session, frame, &mut out));
            let answer = Answer::Refused(AmqpError::not_found("no queue 'q'"));
            let notice = Notice::Answer { channel: KEY, request: RequestNo(1), answer };
            session.notice(notice, NOW, &mut NoExchanges, &mut out);
            assert_skipped(session, out, &frames[came..]);
        }
    }
}
