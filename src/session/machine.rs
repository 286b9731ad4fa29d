//! The session as a whole: what a shell calls, and the way of a frame to its handler.

use super::channel::{Channel, Stage};
use super::channels::Channels;
use super::closing::{Close, Ending, Place};
use super::content::Content;
use super::effect::{Effect, Output};
use super::handshake::Handshake;
use super::outlet::Outlet;
use super::restraint::Restraint;
use super::settings::SessionSettings;
use super::tally::Tally;
use super::timers::Timers;
use crate::model::random::Random;
use crate::model::{AmqpError, ChannelKey, Monotonic, Name, NamedLimit, Notice, Now, ReplyCode, Scope};
use crate::wire::frame::{Frame, FrameError, FrameErrorCode, FrameKind, payload_max, read_frame};
use crate::wire::method::{ClientMethod, MethodError, MethodId};
use crate::wire::writer::write_method;
use amq_protocol::protocol::{AMQPClass, connection};
use std::sync::Arc;

/// Where the connection is in its life.
#[derive(Debug)]
pub(super) enum State {
    /// From the protocol header to connection.open.
    Handshake(Handshake),
    /// Channels are open for business.
    Running,
    /// Nothing more is read; channels carry out what they were sent before, then this close follows.
    Draining {
        /// How the connection ends then.
        close: Close,
        /// When waiting for the channels ends.
        until: Monotonic,
    },
    /// The client asked to close; its exclusive queues are being deleted.
    Ending,
    /// The client's close was answered, and it is left to the client to close the socket, until then; a second close is
    /// answered again.
    Ended {
        /// When waiting ends.
        until: Monotonic,
    },
    /// connection.close was sent; only close-ok matters, until then.
    Closing {
        /// When waiting ends.
        until: Monotonic,
    },
    /// Broken off without a word: the socket is dropped then.
    Doomed {
        /// When.
        at: Monotonic,
    },
    /// The socket is to be closed.
    Closed,
}

/// The protocol machine of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) settings: Arc<SessionSettings>,
    pub(super) random: Random,
    pub(super) state: State,
    pub(super) timers: Timers,
    pub(super) payload_max: usize,
    pub(super) channel_max: u16,
    pub(super) client: Client,
    pub(super) channels: Channels,
    incarnations: u32,
    /// Channels with something to confirm at the end of this pass.
    pub(super) to_confirm: Vec<u16>,
    /// Channels with deliveries to report as written after the flush.
    pub(super) to_report: Vec<u16>,
    pub(super) parked_bytes: usize,
    pub(super) restraint: Restraint,
    pub(super) tally: Tally,
    pub(super) touched: Vec<u16>,
    /// A resource runs short: whoever publishes now is blocked.
    alarm: Option<String>,
    /// Nothing is read until the alarm is over.
    pub(super) blocked: bool,
    pub(super) ending: Option<Ending>,
}

/// What is known of the client.
#[derive(Debug, Default)]
pub(super) struct Client {
    pub(super) user: Option<Name>,
    pub(super) vhost: Option<Name>,
    pub(super) may_impersonate: bool,
    pub(super) name: String,
    pub(super) product: String,
    pub(super) wants_failure_close: bool,
    pub(super) wants_cancel_notify: bool,
    pub(super) wants_blocked: bool,
}

impl Session {
    /// A connection that was just accepted. `seed` feeds generated names.
    pub(crate) fn new(settings: Arc<SessionSettings>, seed: u64, now: Now) -> Self {
        let timers = Timers::new(now.monotonic, settings.handshake_timeout);
        let payload_max = payload_max(settings.frame_min);
        Self {
            settings,
            random: Random::new(seed),
            state: State::Handshake(Handshake::Header),
            timers,
            payload_max,
            channel_max: 0,
            client: Client::default(),
            channels: Channels::default(),
            incarnations: 0,
            to_confirm: Vec::new(),
            to_report: Vec::new(),
            parked_bytes: 0,
            restraint: Restraint::default(),
            tally: Tally::default(),
            touched: Vec::new(),
            alarm: None,
            blocked: false,
            ending: None,
        }
    }

    /// The user, once logged in.
    pub(crate) fn user(&self) -> Option<&Name> {
        self.client.user.as_ref()
    }

    /// The vhost, once open.
    pub(crate) fn vhost(&self) -> Option<&Name> {
        self.client.vhost.as_ref()
    }

    /// `connection_name`, or else the product the client calls itself; for people.
    pub(crate) fn client_name(&self) -> &str {
        if self.client.name.is_empty() { &self.client.product } else { &self.client.name }
    }

    /// How the connection ended, once it has.
    pub(crate) fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// Whether nothing more is to be read.
    #[cfg(test)]
    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether the handshake is over and nothing has ended it.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running)
    }

    /// Whether frames on channels are taken: those that come, or only those that are parked.
    pub(super) fn has_channels(&self) -> bool {
        matches!(self.state, State::Running | State::Draining { .. })
    }

    /// How many channels are open.
    pub(crate) fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// How many channels were opened so far.
    pub(crate) fn channels_opened(&self) -> u64 {
        self.incarnations.into()
    }

    /// The connection is gone, whatever was open on it.
    pub(crate) fn forget_channels(&mut self) {
        self.channels.clear();
        self.restraint = Restraint::default();
        self.parked_bytes = 0;
        self.tally = Tally::default();
    }

    /// Whether input should wait: too much is parked behind methods that wait for answers, or the client has published while
    /// a resource runs short.
    pub(crate) fn is_saturated(&self) -> bool {
        let most = self.settings.parked_bytes_max;
        self.holds_input() || self.parked_bytes > most || self.confirms_held() > most
    }

    /// What frames take of memory that are parked behind methods that wait for answers.
    pub(crate) fn parked_bytes(&self) -> usize {
        self.parked_bytes
    }

    /// Beyond how many bytes of parked frames, or of output that input adds to an output that waits, nothing more is read.
    pub(crate) fn parked_bytes_max(&self) -> usize {
        self.settings.parked_bytes_max
    }

    /// Whether a resource runs short, as far as the session knows.
    pub(crate) fn is_alarmed(&self) -> bool {
        self.alarm.is_some()
    }

    /// Whether the client published while a resource ran short, and waits for the end of the alarm.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// Whether input that has come is kept for later: until an alarm ends, or until channels have done what came before a
    /// close of the connection.
    pub(crate) fn holds_input(&self) -> bool {
        self.blocked || matches!(self.state, State::Draining { .. })
    }

    /// Takes input; returns how much of it was used. What is left is the beginning of a frame, or waits because the shell
    /// must carry out effects first (`out.pause`).
    pub(crate) fn receive(&mut self, input: &[u8], now: Now, outlet: &mut dyn Outlet, out: &mut Output) -> usize {
        let mut used = 0;
        while !out.pause && !self.holds_input() {
            let rest = &input[used..];
            match &self.state {
                State::Ended { .. } => match read_frame(rest, self.payload_max) {
                    Ok(Some(cut)) => {
                        used += cut.consumed;
                        self.frame_while_closing(cut.frame, out);
                    }
                    Ok(None) => return used,
                    Err(_) => return input.len(),
                },
                State::Ending | State::Doomed { .. } | State::Closed => return input.len(),
                State::Draining { .. } => return used,
                State::Handshake(Handshake::Header) => match self.receive_header(rest, now, out) {
                    Some(taken) => used += taken,
                    None => return used,
                },
                State::Handshake(_) | State::Running | State::Closing { .. } => {
                    match read_frame(rest, self.payload_max) {
                        Ok(None) => return used,
                        Ok(Some(cut)) => {
                            used += cut.consumed;
                            used += self.frame(cut.frame, &input[used..], now, outlet, out);
                        }
                        Err(error) => {
                            self.frame_error(&error, now, out);
                            return input.len();
                        }
                    }
                }
            }
        }
        used
    }

    /// One frame; `behind` is what follows it, from which a publish may take its content at once. Returns how much of that
    /// was used.
    fn frame(&mut self, frame: Frame<'_>, behind: &[u8], now: Now, outlet: &mut dyn Outlet, out: &mut Output) -> usize {
        if matches!(self.state, State::Closing { .. }) {
            self.frame_while_closing(frame, out);
            return 0;
        }
        if frame.kind == FrameKind::Heartbeat {
            return 0;
        }
        if frame.channel == 0 {
            self.connection_method(frame.payload, now, out);
            return 0;
        }
        if !self.is_running() {
            self.channel_frame_too_early(frame, now, out);
            return 0;
        }
        self.channel_frame(frame, behind, now, outlet, out)
    }

    /// Between tune-ok and connection.open the client is told; before that it hears nothing.
    fn channel_frame_too_early(&mut self, frame: Frame<'_>, now: Now, out: &mut Output) {
        if matches!(self.state, State::Handshake(Handshake::Opening | Handshake::OpeningVhost(_))) {
            let error = AmqpError::unexpected_frame(frame.describe());
            self.close_at(Place::on_channel(frame.channel, None), &error, None, now, out);
        } else {
            self.doom("a frame on a channel before connection.open", now);
        }
    }

    /// Takes a frame on a channel's number. Returns how much of `behind` was used.
    pub(super) fn channel_frame(
        &mut self,
        frame: Frame<'_>,
        behind: &[u8],
        now: Now,
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) -> usize {
        let number = frame.channel;
        let Some(channel) = self.channels.get_mut(number) else {
            self.open_channel(frame, now, out);
            return 0;
        };
        if channel.is_committing() && frame.kind == FrameKind::Method && !is_channel_close(&frame) {
            let error = AmqpError::channel_error("unexpected command while processing 'tx.commit'");
            // The commit goes on, and is not answered any more.
            channel.forget_commit();
            let method = MethodId::of(frame.payload);
            self.close_at(Place::on_channel(number, method), &error, method, now, out);
            return 0;
        }
        if channel.must_park(&frame) {
            self.parked_bytes += channel.park(&frame);
            return 0;
        }
        if self.restraint.holds_back(&frame, channel) {
            self.parked_bytes += channel.park(&frame);
            self.restraint.stall(channel);
            return 0;
        }
        if !channel.touched {
            channel.touched = true;
            self.touched.push(number);
        }
        match self.handle(frame, behind, outlet, out) {
            Ok(used) => used,
            Err(fault) => {
                self.fail(number, &fault.error, fault.method, now, outlet, out);
                0
            }
        }
    }

    pub(super) fn handle(
        &mut self,
        frame: Frame<'_>,
        behind: &[u8],
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) -> Result<usize, Fault> {
        let number = frame.channel;
        let channel = self.channels.get_mut(number).expect("callers found the channel");
        if channel.stage == Stage::Closing && frame.kind == FrameKind::Method {
            // The client may have stopped within a content when the close reached it. RabbitMQ takes its close-ok too.
            channel.content = Content::Idle;
        }
        if !channel.content.is_idle() {
            return self.content_frame(frame, outlet, out).map(|()| 0);
        }
        if frame.kind != FrameKind::Method {
            let text = "expected method frame, got non method frame instead";
            return Err(Fault::of(AmqpError::unexpected_frame(text)));
        }
        let method = ClientMethod::parse(frame.payload).map_err(|error| method_fault(&error))?;
        if channel.stage == Stage::Closing {
            self.method_while_channel_closes(number, &method, out);
            return Ok(0);
        }
        if let ClientMethod::BasicPublish(publish) = method {
            return self.basic_publish(number, &publish, behind, outlet, out);
        }
        let id = MethodId::of(frame.payload).expect("a parsed method has an identity");
        self.method(number, id, method, outlet, out).map(|()| 0).map_err(|error| Fault { error, method: Some(id) })
    }

    fn method(
        &mut self,
        number: u16,
        id: MethodId,
        method: ClientMethod<'_>,
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) -> Result<(), AmqpError> {
        match method {
            ClientMethod::BasicAck(ack) => self.basic_ack(number, ack, outlet),
            ClientMethod::BasicNack(nack) => self.basic_nack(number, nack, outlet),
            ClientMethod::BasicReject(reject) => self.basic_reject(number, reject, outlet),
            ClientMethod::BasicQos(qos) => self.basic_qos(number, qos, outlet, out),
            ClientMethod::BasicConsume(consume) => self.basic_consume(number, id, consume, out),
            ClientMethod::BasicCancel(cancel) => self.basic_cancel(number, id, &cancel, out),
            ClientMethod::BasicGet(get) => self.basic_get(number, id, &get, out),
            ClientMethod::BasicRecover(recover) => self.basic_recover(number, recover.requeue, true, outlet, out),
            ClientMethod::BasicRecoverAsync(recover) => self.basic_recover(number, recover.requeue, false, outlet, out),
            ClientMethod::ChannelOpen => Err(AmqpError::channel_error("second 'channel.open' seen")),
            ClientMethod::ChannelFlow(flow) => self.channel_flow(number, flow.active, out),
            ClientMethod::ChannelClose(_) => {
                self.channel_close(number, outlet, out);
                Ok(())
            }
            ClientMethod::AccessRequest(_) => {
                self.access_request(number, out);
                Ok(())
            }
            ClientMethod::ExchangeDeclare(declare) => self.exchange_declare(number, id, declare, out),
            ClientMethod::ExchangeDelete(delete) => self.exchange_delete(number, id, &delete, out),
            ClientMethod::ExchangeBind(bind) => self.exchange_bind(number, id, bind, out),
            ClientMethod::ExchangeUnbind(unbind) => self.exchange_unbind(number, id, unbind, out),
            ClientMethod::QueueDeclare(declare) => self.queue_declare(number, id, declare, out),
            ClientMethod::QueueBind(bind) => self.queue_bind(number, id, bind, out),
            ClientMethod::QueueUnbind(unbind) => self.queue_unbind(number, id, unbind, out),
            ClientMethod::QueuePurge(purge) => self.queue_purge(number, id, &purge, out),
            ClientMethod::QueueDelete(delete) => self.queue_delete(number, id, &delete, out),
            ClientMethod::ConfirmSelect(select) => self.confirm_select(number, select.nowait, out),
            ClientMethod::TxSelect => self.tx_select(number, out),
            ClientMethod::TxCommit => self.tx_commit(number, id, out),
            ClientMethod::TxRollback => self.tx_rollback(number, out),
            ClientMethod::BasicPublish(_) => unreachable!("taken before, with its content"),
            ClientMethod::ConnectionStartOk(_)
            | ClientMethod::ConnectionSecureOk(_)
            | ClientMethod::ConnectionTuneOk(_)
            | ClientMethod::ConnectionOpen(_)
            | ClientMethod::ConnectionClose(_)
            | ClientMethod::ConnectionCloseOk
            | ClientMethod::ConnectionUpdateSecret(_)
            | ClientMethod::ChannelCloseOk
            | ClientMethod::ServerOnly(_) => Err(AmqpError::command_invalid("unimplemented method")),
        }
    }

    fn connection_method(&mut self, payload: &[u8], now: Now, out: &mut Output) {
        let id = MethodId::of(payload);
        let method = match ClientMethod::parse(payload) {
            Ok(method) => method,
            Err(_) if !self.is_running() => return self.doom("an undecodable method during the handshake", now),
            Err(MethodError::Malformed { .. } | MethodError::Table { .. }) => {
                return self.close(&AmqpError::internal_error(), None, now, out);
            }
            Err(error) => {
                let fault = method_fault(&error);
                return self.close(&fault.error, fault.method, now, out);
            }
        };
        if let State::Handshake(_) = self.state {
            return self.handshake_method(method, now, out);
        }
        match method {
            ClientMethod::ConnectionClose(close) => {
                self.ending = Some(Ending::ByClient(close.reply_code, close.reply_text.to_string()));
                self.drain_then(Close::ByClient, now, out);
            }
            ClientMethod::ConnectionUpdateSecret(_) => {
                write_connection(out, connection::AMQPMethod::UpdateSecretOk(connection::UpdateSecretOk {}));
            }
            _ => {
                let error = AmqpError::channel_error("unexpected method in connection state running");
                self.close(&error, id, now, out);
            }
        }
    }

    fn frame_error(&mut self, error: &FrameError, now: Now, out: &mut Output) {
        if matches!(error, FrameError::TooLarge { .. }) && !matches!(self.state, State::Closing { .. }) {
            out.refusals.note(self.frame_limit());
        }
        if !self.is_running() {
            if !matches!(self.state, State::Closing { .. }) {
                self.doom("a malformed frame during the handshake", now);
            }
            return;
        }
        let error = match error.code() {
            FrameErrorCode::FrameError => AmqpError::frame_error(error.reply_text()),
            FrameErrorCode::UnexpectedFrame => AmqpError::unexpected_frame(error.reply_text()),
        };
        if error.code == ReplyCode::FrameError {
            self.close_unreadable(&error, now, out);
        } else {
            self.close(&error, None, now, out);
        }
    }

    /// The limit of a frame's size that holds now.
    fn frame_limit(&self) -> NamedLimit {
        match self.state {
            State::Handshake(Handshake::Starting | Handshake::Authenticating(_) | Handshake::Tuning) => {
                NamedLimit::InitialFrameMax
            }
            _ => NamedLimit::FrameMax,
        }
    }

    /// An error of a channel, or of the whole connection where its scope says so.
    pub(super) fn fail(
        &mut self,
        number: u16,
        error: &AmqpError,
        method: Option<MethodId>,
        now: Now,
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) {
        match error.scope {
            Scope::Connection => {
                self.take_parked(number);
                self.close_at(Place::on_channel(number, method), error, method, now, out);
                self.end_draining(now, out);
            }
            Scope::Channel => self.channel_fail(number, error, method, now, outlet, out),
        }
    }

    fn open_channel(&mut self, frame: Frame<'_>, now: Now, out: &mut Output) {
        let id = MethodId::of(frame.payload).filter(|_| frame.kind == FrameKind::Method);
        let opens = frame.kind == FrameKind::Method
            && matches!(ClientMethod::parse(frame.payload), Ok(ClientMethod::ChannelOpen));
        if !opens {
            let error = match id {
                Some(_) => AmqpError::channel_error("expected 'channel.open'"),
                None => AmqpError::unexpected_frame("expected method frame, got non method frame instead"),
            };
            return self.close_at(Place::on_channel(frame.channel, id), &error, id, now, out);
        }
        let max = self.channel_max;
        if max > 0 && self.channels.len() >= usize::from(max) {
            out.refusals.note(NamedLimit::ChannelsMax);
            let text = format!("number of channels opened ({max}) has reached the negotiated channel_max ({max})");
            let at = Place::on_channel(frame.channel, id);
            return self.close_at(at, &AmqpError::not_allowed(text), None, now, out);
        }
        self.incarnations += 1;
        let key = ChannelKey { number: frame.channel, incarnation: self.incarnations };
        self.channels.insert(frame.channel, Channel::new(key));
        self.touch(frame.channel);
        super::channel::write_open_ok(frame.channel, out);
    }

    /// Takes a notice. Its order among notices is the order on the wire.
    pub(crate) fn notice(&mut self, notice: Notice, now: Now, outlet: &mut dyn Outlet, out: &mut Output) {
        match notice {
            Notice::Deliver(delivery) => self.deliver(&delivery, outlet, out),
            Notice::Answer { channel, request, answer } => self.answer(channel, request, answer, now, outlet, out),
            Notice::Promised { channel, first, last, kept } => {
                self.promised(channel, first..=last, kept, now, outlet, out);
            }
            Notice::ConsumerCancelled { channel, consumer } => self.consumer_cancelled(channel, consumer, out),
            Notice::Limited { channel, queue, limit } => {
                out.effects.push(Effect::QueueLimited { channel, queue, limit });
            }
            Notice::Alarm(reason) => self.alarm(reason, out),
            // The shell's, which calls `ended`.
            Notice::Ended => {}
            Notice::Close(error) => {
                if self.is_running() {
                    self.close_at_once(&error, now, out);
                } else {
                    self.close_socket(out);
                }
            }
        }
        self.end_draining(now, out);
    }

    /// The channel, if it is this incarnation and not closing.
    pub(super) fn live(&mut self, key: ChannelKey) -> Option<&mut Channel> {
        self.channels.get_mut(key.number).filter(|channel| channel.is_live(key))
    }

    pub(super) fn channel(&mut self, number: u16) -> &mut Channel {
        self.channels.get_mut(number).expect("the method came on an open channel")
    }

    /// The output was written to the socket: consumers may be given more.
    pub(crate) fn flushed(&mut self, out: &mut Output) {
        self.timers.sent();
        while let Some(number) = self.to_report.pop() {
            if let Some(channel) = self.channels.get_mut(number) {
                channel.report_written(out);
            }
        }
    }

    /// The client lived then: bytes arrived, of whatever kind, or, while the shell does not read, its TCP acknowledged some.
    pub(crate) fn heard(&mut self, at: Monotonic) {
        self.timers.heard(at);
    }

    /// When `tick` wants to be called next.
    pub(crate) fn deadline(&self) -> Option<Monotonic> {
        match self.state {
            State::Handshake(_) => {
                [Some(self.timers.handshake_deadline()), self.timers.next()].into_iter().flatten().min()
            }
            State::Running | State::Ending => self.timers.next(),
            State::Draining { until, .. } => [Some(until), self.timers.next()].into_iter().flatten().min(),
            State::Closing { until } | State::Ended { until } => Some(until),
            State::Doomed { at } => Some(at),
            State::Closed => None,
        }
    }

    /// Time has passed: heartbeats are sent, deadlines kept.
    pub(crate) fn tick(&mut self, now: Now, out: &mut Output) {
        match self.state {
            State::Handshake(_) if self.timers.handshake_deadline() <= now.monotonic => {
                out.refusals.note(NamedLimit::HandshakeTimeout);
                self.ending = Some(Ending::Handshake("not finished in time".to_owned()));
                self.close_socket(out);
            }
            State::Draining { until, .. } if until <= now.monotonic => self.stop_draining(now, out),
            State::Handshake(_) | State::Running | State::Draining { .. } | State::Ending => {
                if self.timers.tick(now.monotonic, &mut out.bytes).is_dead() {
                    self.ending = Some(Ending::MissedHeartbeats);
                    self.close_socket(out);
                }
            }
            State::Closing { until: at } | State::Ended { until: at } | State::Doomed { at } => {
                if at <= now.monotonic {
                    self.close_socket(out);
                }
            }
            State::Closed => {}
        }
    }

    /// A message was published. While a resource runs short nothing more is read from this connection.
    pub(super) fn block_if_alarmed(&mut self, out: &mut Output) {
        if let (Some(reason), false) = (&self.alarm, self.blocked) {
            self.blocked = true;
            if self.client.wants_blocked {
                let blocked = connection::Blocked { reason: reason.as_str().into() };
                write_connection(out, connection::AMQPMethod::Blocked(blocked));
            }
        }
    }

    /// An alarm begins, goes on for other reasons, or is over.
    fn alarm(&mut self, reason: Option<String>, out: &mut Output) {
        self.alarm = reason;
        if self.alarm.is_none() && std::mem::take(&mut self.blocked) && self.client.wants_blocked && self.is_running() {
            write_connection(out, connection::AMQPMethod::Unblocked(connection::Unblocked {}));
        }
    }
}

/// A channel may be closed behind its commit: the close waits for it.
fn is_channel_close(frame: &Frame<'_>) -> bool {
    MethodId::of(frame.payload) == Some(super::restraint::CHANNEL_CLOSE)
}

/// An error, and the method to name in the close, if one is to blame.
pub(super) struct Fault {
    pub(super) error: AmqpError,
    pub(super) method: Option<MethodId>,
}

impl Fault {
    pub(super) fn of(error: AmqpError) -> Self {
        Self { error, method: None }
    }
}

fn method_fault(error: &MethodError) -> Fault {
    let amqp = match error {
        MethodError::NoMethod | MethodError::Malformed { .. } | MethodError::NotUtf8(_) => {
            AmqpError::frame_error(error.to_string())
        }
        MethodError::Unknown(MethodId { class_id, method_id }) => {
            AmqpError::not_implemented(format!("method {class_id}.{method_id}"))
        }
        MethodError::Table { .. } => AmqpError::internal_error(),
    };
    let method = if matches!(error, MethodError::NotUtf8(_)) { None } else { error.method() };
    Fault { error: amqp, method }
}

pub(super) fn write_connection(out: &mut Output, method: connection::AMQPMethod) {
    write_method(&mut out.bytes, 0, AMQPClass::Connection(method));
}
