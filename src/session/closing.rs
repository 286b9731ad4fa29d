//! How a connection ends: by a close of the client, by an error, or silently.
//!
//! What a client sent before a close is carried out first, on every channel: RabbitMQ's channels each finish their own work
//! before their connection ends. So while a channel still waits for an answer, with frames parked behind it, the
//! connection drains.

use super::effect::{Effect, Failure, Output};
use super::ending::{Close, Ending, ErrorOrigin};
use super::machine::Session;
use super::state::State;
use crate::model::{AmqpError, Now};
use crate::wire::frame::{Frame, FrameKind};
use crate::wire::method::{ClientMethod, MethodId};
use crate::wire::writer::write_connection_close;
use amq_protocol::protocol::connection;
use std::time::Duration;

/// How long a socket stays open after a silent close (RabbitMQ's `silent_close_delay`).
const SILENT_CLOSE_DELAY: Duration = Duration::from_secs(3);
/// The longest wait for a close-ok, and for channels that drain.
const CLOSE_OK_WAIT_MAX: Duration = Duration::from_secs(30);

impl Session {
    /// Ends the connection silently: the socket is closed after a delay, and nothing is sent.
    pub(super) fn close_silently(&mut self, why: &str, now: Now) {
        self.ending = Some(Ending::Handshake(why.to_owned()));
        self.state = State::SilentClose { at: now.monotonic.plus(SILENT_CLOSE_DELAY) };
    }

    /// Ends the connection with an error: connection.close is sent once channels and exclusive queues are gone.
    pub(super) fn close(&mut self, error: &AmqpError, method: Option<MethodId>, now: Now, out: &mut Output) {
        self.close_at(ErrorOrigin::on_channel(0, method), error, method, now, out);
    }

    /// Like `close`, for a method that came on a channel, or that the close does not name.
    pub(super) fn close_at(
        &mut self,
        origin: ErrorOrigin,
        error: &AmqpError,
        method: Option<MethodId>,
        now: Now,
        out: &mut Output,
    ) {
        let error = Box::new(error.clone());
        self.drain_then(Close::Error { error, method, origin, is_unreadable: false }, now, out);
    }

    /// Like `close`, when the rest of the input cannot be read.
    pub(super) fn close_unreadable(&mut self, error: &AmqpError, now: Now, out: &mut Output) {
        let error = Box::new(error.clone());
        self.drain_then(
            Close::Error { error, method: None, origin: ErrorOrigin::default(), is_unreadable: true },
            now,
            out,
        );
    }

    /// Like `close`, without waiting for the channels.
    pub(super) fn close_at_once(&mut self, error: &AmqpError, now: Now, out: &mut Output) {
        let error = Box::new(error.clone());
        self.carry_out_close(
            Close::Error { error, method: None, origin: ErrorOrigin::default(), is_unreadable: false },
            now,
            out,
        );
    }

    /// Closes the connection once every channel has carried out what came before the close; at once if no channel is busy.
    pub(super) fn drain_then(&mut self, close: Close, now: Now, out: &mut Output) {
        match &self.state {
            State::Running if self.has_busy_channel() => {
                self.state = State::Draining { close, until: now.monotonic.plus(CLOSE_OK_WAIT_MAX) };
            }
            // An error in a frame before the client's close: the close is answered as well.
            State::Draining { close: Close::ByClient, .. } => {
                self.carry_out_close(close, now, out);
                out.write_connection(connection::AMQPMethod::CloseOk(connection::CloseOk {}));
            }
            // The first error is the one that is sent.
            State::Draining { close: Close::Error { .. }, .. } => {}
            State::Draining { close: Close::HungUp, .. } => self.carry_out_close(close, now, out),
            _ => self.carry_out_close(close, now, out),
        }
    }

    /// The client has closed its end of the socket. Returns whether the connection drains before it closes.
    pub(crate) fn hung_up(&mut self, now: Now) -> bool {
        if matches!(self.state, State::Running) && self.has_busy_channel() {
            self.state = State::Draining { close: Close::HungUp, until: now.monotonic.plus(CLOSE_OK_WAIT_MAX) };
        }
        matches!(self.state, State::Draining { .. })
    }

    /// Closes a draining connection once no channel is busy.
    pub(super) fn end_draining(&mut self, now: Now, out: &mut Output) {
        if matches!(self.state, State::Draining { .. }) && !self.has_busy_channel() {
            self.stop_draining(now, out);
        }
    }

    /// Closes a draining connection, even if channels are busy.
    pub(super) fn stop_draining(&mut self, now: Now, out: &mut Output) {
        if let State::Draining { close, .. } = std::mem::replace(&mut self.state, State::Ending) {
            self.carry_out_close(close, now, out);
        }
    }

    fn has_busy_channel(&self) -> bool {
        self.channels.iter().any(|channel| channel.requests.is_busy())
    }

    fn carry_out_close(&mut self, close: Close, now: Now, out: &mut Output) {
        if matches!(close, Close::HungUp) {
            self.flush_all_confirms(out);
            return self.close_socket(out);
        }
        out.effects.push(Effect::ConnectionEnds);
        out.pause = true;
        // Input is read again, for close-ok or for the end of the socket.
        self.alarm.unblock();
        let Close::Error { error, method, origin: ErrorOrigin { channel, operation }, is_unreadable } = close else {
            self.state = State::Ending;
            return;
        };
        self.ending.get_or_insert_with(|| Ending::ByBroker(error.reply_text()));
        self.flush_all_confirms(out);
        self.forget_channels();
        write_connection_close(&mut out.bytes, error.code.number(), &error.reply_text(), method);
        out.failures.push(Failure { channel, operation, error: *error });
        self.state = if is_unreadable {
            State::SilentClose { at: now.monotonic.plus(SILENT_CLOSE_DELAY) }
        } else {
            let heartbeat = self.timers.heartbeat();
            let wait = if heartbeat.is_zero() { CLOSE_OK_WAIT_MAX } else { heartbeat.min(CLOSE_OK_WAIT_MAX) };
            State::Closing { until: now.monotonic.plus(wait) }
        };
    }

    /// After a close only methods of the connection matter: a second close is answered, close-ok closes the socket.
    pub(super) fn frame_while_closing(&mut self, frame: Frame<'_>, out: &mut Output) {
        if frame.channel != 0 || frame.kind != FrameKind::Method {
            return;
        }
        match ClientMethod::parse(frame.payload) {
            Ok(ClientMethod::ConnectionClose(_)) => {
                out.write_connection(connection::AMQPMethod::CloseOk(connection::CloseOk {}));
            }
            Ok(ClientMethod::ConnectionCloseOk) if !matches!(self.state, State::Ended { .. }) => self.close_socket(out),
            _ => {}
        }
    }

    /// After a refused login the wait for close-ok is short.
    pub(super) fn shorten_closing(&mut self, now: Now) {
        self.state = State::Closing { until: now.monotonic.plus(SILENT_CLOSE_DELAY) };
    }

    pub(super) fn close_socket(&mut self, out: &mut Output) {
        self.state = State::Closed;
        out.effects.push(Effect::CloseSocket);
        out.pause = true;
    }

    /// The shell has carried out `ConnectionEnds`.
    pub(crate) fn ended(&mut self, now: Now, out: &mut Output) {
        if matches!(self.state, State::Ending) {
            self.forget_channels();
            out.write_connection(connection::AMQPMethod::CloseOk(connection::CloseOk {}));
            self.state = State::Ended { until: now.monotonic.plus(SILENT_CLOSE_DELAY) };
        }
    }
}
