//! How a connection ends: by a close of the client, by an error, or without a word.
//!
//! What a client sent before a close is carried out before the close is, on every channel: RabbitMQ's channels each finish
//! what lies in front of the end of their connection. So while a channel still waits for an answer, with frames parked
//! behind it, the connection drains.

use super::channel::Channel;
use super::effect::{Effect, Failure, Output};
use super::machine::{Session, State, write_connection};
use crate::model::{AmqpError, Now};
use crate::wire::frame::{Frame, FrameKind};
use crate::wire::method::{ClientMethod, MethodId};
use crate::wire::writer::write_connection_close;
use amq_protocol::protocol::connection;
use std::time::Duration;

/// How a connection that is not in good order waits before the socket is dropped (RabbitMQ's silent close).
pub(super) const SILENT_CLOSE_DELAY: Duration = Duration::from_secs(3);
/// The longest wait for a close-ok, and for channels that drain.
const CLOSE_OK_WAIT_MAX: Duration = Duration::from_secs(30);

/// Why a connection ended, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client closed it with this code and text.
    ByClient(u16, String),
    /// The broker closed it with this error.
    ByBroker(String),
    /// No byte came from the client for two heartbeats and more.
    MissedHeartbeats,
    /// The handshake was not finished in time, or broken off.
    Handshake(String),
}

/// How a connection closes once its channels have drained.
#[derive(Clone, Debug)]
pub(super) enum Close {
    /// The client asked for it.
    ByClient,
    /// The client has closed its end of the socket: nothing more comes from it, and it may still read.
    HungUp,
    /// connection.close is sent.
    Error {
        error: Box<AmqpError>,
        method: Option<MethodId>,
        at: Place,
        /// Where the next frame begins is not known any more: nothing that follows can be read, close-ok included.
        is_unreadable: bool,
    },
}

/// Where an error came up, for the log; a close names less.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    /// The channel that the frame came on.
    pub(super) channel: u16,
    /// The method, in AMQP's words; empty where none is to blame.
    pub(super) operation: &'static str,
}

impl Place {
    pub(super) fn on_channel(channel: u16, method: Option<MethodId>) -> Self {
        Self { channel, operation: method.map_or("", MethodId::name) }
    }
}

impl Session {
    /// Ends the connection without a word, after a pause.
    pub(super) fn doom(&mut self, why: &str, now: Now) {
        self.ending = Some(Ending::Handshake(why.to_owned()));
        self.state = State::Doomed { at: now.monotonic.plus(SILENT_CLOSE_DELAY) };
    }

    /// Ends the connection with an error: connection.close is sent once channels and exclusive queues are gone.
    pub(super) fn close(&mut self, error: &AmqpError, method: Option<MethodId>, now: Now, out: &mut Output) {
        self.close_at(Place::on_channel(0, method), error, method, now, out);
    }

    /// As `close`, where the method came on a channel, or is not named in the close.
    pub(super) fn close_at(
        &mut self,
        at: Place,
        error: &AmqpError,
        method: Option<MethodId>,
        now: Now,
        out: &mut Output,
    ) {
        let error = Box::new(error.clone());
        self.drain_then(Close::Error { error, method, at, is_unreadable: false }, now, out);
    }

    /// As `close`, where what follows in the input cannot be read.
    pub(super) fn close_unreadable(&mut self, error: &AmqpError, now: Now, out: &mut Output) {
        let error = Box::new(error.clone());
        self.drain_then(Close::Error { error, method: None, at: Place::default(), is_unreadable: true }, now, out);
    }

    /// As `close`, without waiting for what channels still have to do.
    pub(super) fn close_at_once(&mut self, error: &AmqpError, now: Now, out: &mut Output) {
        let error = Box::new(error.clone());
        self.carry_out_close(
            Close::Error { error, method: None, at: Place::default(), is_unreadable: false },
            now,
            out,
        );
    }

    /// Closes the connection once every channel has carried out what came before; at once where none has anything left.
    pub(super) fn drain_then(&mut self, close: Close, now: Now, out: &mut Output) {
        match &self.state {
            State::Running if self.channels.iter().any(Channel::is_busy) => {
                self.state = State::Draining { close, until: now.monotonic.plus(CLOSE_OK_WAIT_MAX) };
            }
            // An error in front of the client's close: it is answered all the same.
            State::Draining { close: Close::ByClient, .. } => {
                self.carry_out_close(close, now, out);
                write_connection(out, connection::AMQPMethod::CloseOk(connection::CloseOk {}));
            }
            // The first error is the one that is sent.
            State::Draining { close: Close::Error { .. }, .. } => {}
            State::Draining { close: Close::HungUp, .. } => self.carry_out_close(close, now, out),
            _ => self.carry_out_close(close, now, out),
        }
    }

    /// Nothing more comes from the client. Whether the connection goes on, until its channels have carried out what came.
    pub(crate) fn hung_up(&mut self, now: Now) -> bool {
        if matches!(self.state, State::Running) && self.channels.iter().any(Channel::is_busy) {
            self.state = State::Draining { close: Close::HungUp, until: now.monotonic.plus(CLOSE_OK_WAIT_MAX) };
        }
        matches!(self.state, State::Draining { .. })
    }

    /// Closes a connection that drains, once it has.
    pub(super) fn end_draining(&mut self, now: Now, out: &mut Output) {
        if matches!(self.state, State::Draining { .. }) && !self.channels.iter().any(Channel::is_busy) {
            self.stop_draining(now, out);
        }
    }

    /// Closes a connection that drains, whether it has or not.
    pub(super) fn stop_draining(&mut self, now: Now, out: &mut Output) {
        if let State::Draining { close, .. } = std::mem::replace(&mut self.state, State::Ending) {
            self.carry_out_close(close, now, out);
        }
    }

    fn carry_out_close(&mut self, close: Close, now: Now, out: &mut Output) {
        if matches!(close, Close::HungUp) {
            self.flush_all_confirms(out);
            return self.close_socket(out);
        }
        out.effects.push(Effect::ConnectionEnds);
        out.pause = true;
        // What comes now is only read for the end of the connection.
        self.blocked = false;
        let Close::Error { error, method, at: Place { channel, operation }, is_unreadable } = close else {
            self.state = State::Ending;
            return;
        };
        self.ending.get_or_insert_with(|| Ending::ByBroker(error.reply_text()));
        self.flush_all_confirms(out);
        self.forget_channels();
        write_connection_close(&mut out.bytes, error.code.number(), &error.reply_text(), method);
        out.failures.push(Failure { channel, operation, error: *error });
        self.state = if is_unreadable {
            State::Doomed { at: now.monotonic.plus(SILENT_CLOSE_DELAY) }
        } else {
            let heartbeat = self.timers.heartbeat();
            let wait = if heartbeat.is_zero() { CLOSE_OK_WAIT_MAX } else { heartbeat.min(CLOSE_OK_WAIT_MAX) };
            State::Closing { until: now.monotonic.plus(wait) }
        };
    }

    pub(super) fn frame_while_closing(&mut self, frame: Frame<'_>, out: &mut Output) {
        if frame.channel != 0 || frame.kind != FrameKind::Method {
            return;
        }
        match ClientMethod::parse(frame.payload) {
            Ok(ClientMethod::ConnectionClose(_)) => {
                write_connection(out, connection::AMQPMethod::CloseOk(connection::CloseOk {}));
            }
            Ok(ClientMethod::ConnectionCloseOk) if !matches!(self.state, State::Ended { .. }) => self.close_socket(out),
            _ => {}
        }
    }

    pub(super) fn set_ending(&mut self, ending: Ending) {
        self.ending = Some(ending);
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
            write_connection(out, connection::AMQPMethod::CloseOk(connection::CloseOk {}));
            self.state = State::Ended { until: now.monotonic.plus(SILENT_CLOSE_DELAY) };
        }
    }
}
