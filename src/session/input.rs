//! The way of input to its handler: bytes are cut into frames, frames find their channel, methods their handler.

use super::channel::Stage;
use super::content::Content;
use super::effect::Output;
use super::ending::ErrorOrigin;
use super::fault::Fault;
use super::machine::Session;
use super::method_ids::CHANNEL_CLOSE;
use super::outlet::Outlet;
use super::state::{Handshake, State};
use crate::model::{AmqpError, NamedLimit, Now, ReplyCode};
use crate::wire::frame::{Frame, FrameError, FrameErrorCode, FrameKind, read_frame};
use crate::wire::method::{ClientMethod, MethodId};

impl Session {
    /// Takes input; returns how many bytes were used. The rest is the beginning of a frame, or waits because the shell must
    /// carry out effects first (`out.pause`).
    pub(crate) fn receive(&mut self, input: &[u8], now: Now, outlet: &mut dyn Outlet, out: &mut Output) -> usize {
        let mut used = 0;
        while !out.pause && !self.holds_input() {
            let rest = &input[used..];
            match &self.state {
                State::Ended { .. } => match read_frame(rest, self.tuning.payload_max) {
                    Ok(Some(cut)) => {
                        used += cut.consumed;
                        self.frame_while_closing(cut.frame, out);
                    }
                    Ok(None) => return used,
                    Err(_) => return input.len(),
                },
                State::Ending | State::SilentClose { .. } | State::Closed => return input.len(),
                State::Draining { .. } => return used,
                State::Handshake(Handshake::Header) => match self.receive_header(rest, now, out) {
                    Some(taken) => used += taken,
                    None => return used,
                },
                State::Handshake(_) | State::Running | State::Closing { .. } => {
                    match read_frame(rest, self.tuning.payload_max) {
                        Ok(None) => return used,
                        Ok(Some(cut)) => {
                            used += cut.consumed;
                            out.methods += 1;
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

    /// Handles one frame. `behind` is the input that follows it, from which a publish may take its content at once. Returns
    /// how many bytes of `behind` were used.
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

    /// A frame on a channel during the handshake: after tune-ok the client gets an error, before that the close is silent.
    fn channel_frame_too_early(&mut self, frame: Frame<'_>, now: Now, out: &mut Output) {
        if matches!(self.state, State::Handshake(Handshake::Opening | Handshake::OpeningVhost(_))) {
            let error = AmqpError::unexpected_frame(frame.describe());
            self.close_at(ErrorOrigin::on_channel(frame.channel, None), &error, None, now, out);
        } else {
            self.close_silently("a frame on a channel before connection.open", now);
        }
    }

    fn frame_error(&mut self, error: &FrameError, now: Now, out: &mut Output) {
        if matches!(error, FrameError::TooLarge { .. }) && !matches!(self.state, State::Closing { .. }) {
            out.refusals.note(self.frame_limit());
        }
        if !self.is_running() {
            if !matches!(self.state, State::Closing { .. }) {
                self.close_silently("a malformed frame during the handshake", now);
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

    /// Which setting limits the size of a frame now.
    fn frame_limit(&self) -> NamedLimit {
        match self.state {
            State::Handshake(Handshake::Starting | Handshake::Authenticating(_) | Handshake::Tuning) => {
                NamedLimit::InitialFrameMax
            }
            _ => NamedLimit::FrameMax,
        }
    }

    /// Takes a frame on a channel. Returns how many bytes of `behind` were used.
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
        if channel.requests.has_commit() && frame.kind == FrameKind::Method && !is_channel_close(&frame) {
            let error = AmqpError::channel_error("unexpected command while processing 'tx.commit'");
            // The commit goes on, and is not answered any more.
            channel.requests.forget_commit();
            let method = MethodId::of(frame.payload);
            self.close_at(ErrorOrigin::on_channel(number, method), &error, method, now, out);
            return 0;
        }
        if channel.must_park(&frame) {
            self.backpressure.park(&frame, channel);
            return 0;
        }
        if self.backpressure.holds_back(&frame, channel) {
            self.backpressure.park(&frame, channel);
            self.backpressure.stall(channel);
            return 0;
        }
        if !channel.listings.active {
            channel.listings.active = true;
            self.due.active.push(number);
        }
        match self.handle(frame, behind, outlet, out) {
            Ok(used) => used,
            Err(fault) => {
                self.fail(number, &fault.error, fault.method, now, outlet, out);
                0
            }
        }
    }

    /// Carries out a frame on an open or closing channel. Returns how many bytes of `behind` were used.
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
            // The client may have stopped within a content when the close reached it. RabbitMQ accepts its close-ok too.
            channel.content = Content::Idle;
        }
        if !channel.content.is_idle() {
            return self.content_frame(frame, outlet, out).map(|()| 0);
        }
        if frame.kind != FrameKind::Method {
            let text = "expected method frame, got non method frame instead";
            return Err(Fault::of(AmqpError::unexpected_frame(text)));
        }
        let method = ClientMethod::parse(frame.payload).map_err(|error| Fault::of_method(&error))?;
        if channel.stage == Stage::Closing {
            self.method_while_channel_closes(number, &method, out);
            return Ok(0);
        }
        if let ClientMethod::BasicPublish(publish) = method {
            return self.basic_publish(number, &publish, behind, outlet, out);
        }
        out.asks |=
            !matches!(method, ClientMethod::BasicAck(_) | ClientMethod::BasicNack(_) | ClientMethod::BasicReject(_));
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
}

/// A channel.close may follow a commit, which it waits for.
fn is_channel_close(frame: &Frame<'_>) -> bool {
    MethodId::of(frame.payload) == Some(CHANNEL_CLOSE)
}
