//! The session as a whole: its state, and the calls of the shell. Input is in `input`, the handlers of
//! methods in the `*_methods` beside it.

use super::alarm::Alarm;
use super::backpressure::Backpressure;
use super::channel::Channel;
use super::channels::Channels;
use super::client::{Client, Tuning};
use super::due::DueChannels;
use super::effect::{Effect, Output};
use super::ending::Ending;
use super::metrics::SessionMetrics;
use super::outlet::Outlet;
use super::settings::SessionSettings;
use super::state::{Handshake, State};
use super::timers::Timers;
use crate::model::random::Random;
use crate::model::{ChannelKey, Monotonic, Name, NamedLimit, Notice, Now};
use crate::wire::frame::payload_max;
use amq_protocol::protocol::connection;
use std::sync::Arc;

/// The memory of a confirm that is held back, in bytes.
const CONFIRM_BYTES: usize = size_of::<u64>();

/// The protocol machine of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) settings: Arc<SessionSettings>,
    pub(super) random: Random,
    pub(super) state: State,
    pub(super) timers: Timers,
    pub(super) client: Client,
    pub(super) tuning: Tuning,
    pub(super) channels: Channels,
    pub(super) due: DueChannels,
    pub(super) backpressure: Backpressure,
    pub(super) alarm: Alarm,
    pub(super) metrics: SessionMetrics,
    pub(super) ending: Option<Ending>,
}

impl Session {
    /// A connection that was just accepted. `seed` feeds generated names.
    pub(crate) fn new(settings: Arc<SessionSettings>, seed: u64, now: Now) -> Self {
        let timers = Timers::new(now.monotonic, settings.handshake_timeout);
        let tuning = Tuning { payload_max: payload_max(settings.frame_min), channel_max: 0 };
        Self {
            settings,
            random: Random::new(seed),
            state: State::Handshake(Handshake::Header),
            timers,
            client: Client::default(),
            tuning,
            channels: Channels::default(),
            due: DueChannels::default(),
            backpressure: Backpressure::default(),
            alarm: Alarm::default(),
            metrics: SessionMetrics::default(),
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

    /// The client property `connection_name`, or else `product`; for people.
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

    /// Whether the handshake is over and nothing has ended the connection.
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running)
    }

    /// Whether frames on channels are handled: those that come, or at least those that are parked.
    pub(super) fn has_channels(&self) -> bool {
        matches!(self.state, State::Running | State::Draining { .. })
    }

    /// How many channels are open.
    pub(crate) fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// How many channels were opened so far.
    pub(crate) fn channels_opened(&self) -> u64 {
        self.channels.opened().into()
    }

    /// The channel, if it is this incarnation and not closing.
    pub(super) fn live(&mut self, key: ChannelKey) -> Option<&mut Channel> {
        self.channels.get_mut(key.number).filter(|channel| channel.is_live(key))
    }

    pub(super) fn channel(&mut self, number: u16) -> &mut Channel {
        self.channels.get_mut(number).expect("the method came on an open channel")
    }

    /// The connection has ended: its channels are dropped as they are.
    pub(crate) fn forget_channels(&mut self) {
        self.channels.clear();
        self.backpressure = Backpressure::default();
        self.metrics = SessionMetrics::default();
    }

    /// Whether input should wait: too much is parked behind methods that wait for answers, or the client has published while
    /// a resource runs short.
    pub(crate) fn is_saturated(&self) -> bool {
        let most = self.settings.parked_bytes_max;
        self.holds_input() || self.parked_bytes() > most || self.held_confirm_bytes() > most
    }

    /// The memory that parked frames take, in bytes.
    pub(crate) fn parked_bytes(&self) -> usize {
        self.backpressure.parked_bytes()
    }

    /// Nothing more is read beyond this many bytes of parked frames, or of output that input adds to an output that waits.
    pub(crate) fn parked_bytes_max(&self) -> usize {
        self.settings.parked_bytes_max
    }

    /// The memory of publishes that are not confirmed while output waits, in bytes: their promises wait in the inlet.
    fn held_confirm_bytes(&self) -> usize {
        if !self.backpressure.output_waits() {
            return 0;
        }
        usize::try_from(self.metrics.unconfirmed).unwrap_or(0) * CONFIRM_BYTES
    }

    /// Whether a resource runs short, as far as the session knows.
    pub(crate) fn is_alarmed(&self) -> bool {
        self.alarm.is_raised()
    }

    /// Whether the client published while a resource ran short, and waits for the end of the alarm.
    pub(crate) fn is_blocked(&self) -> bool {
        self.alarm.is_blocking()
    }

    /// Whether input that has come is kept for later: until an alarm ends, or until channels have carried out what came
    /// before a close of the connection.
    pub(crate) fn holds_input(&self) -> bool {
        self.alarm.is_blocking() || matches!(self.state, State::Draining { .. })
    }

    /// Number of publishes that are unconfirmed and of deliveries that are unacknowledged; counted until there are
    /// `enough`. With some the client can go on without further answers.
    pub(crate) fn outstanding(&self, enough: usize) -> usize {
        let mut outstanding = 0;
        for channel in self.channels.iter() {
            outstanding += channel.confirms.waiting() + channel.unacked.len();
            if outstanding >= enough {
                break;
            }
        }
        outstanding
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
            Notice::Alarm(reason) => self.change_alarm(reason, out),
            // For the shell, which calls `ended`.
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

    /// The output was written to the socket: consumers may be given more.
    pub(crate) fn flushed(&mut self, out: &mut Output) {
        self.timers.sent();
        while let Some(number) = self.due.to_report.pop() {
            if let Some(channel) = self.channels.get_mut(number) {
                channel.report_written(out);
            }
        }
    }

    /// The client was alive at that time: bytes arrived, or, while the shell does not read, its TCP acknowledged some.
    pub(crate) fn client_alive(&mut self, at: Monotonic) {
        self.timers.client_alive(at);
    }

    /// When `tick` is to be called next.
    pub(crate) fn deadline(&self) -> Option<Monotonic> {
        match self.state {
            State::Handshake(_) => {
                [Some(self.timers.handshake_deadline()), self.timers.next()].into_iter().flatten().min()
            }
            State::Running | State::Ending => self.timers.next(),
            State::Draining { until, .. } => [Some(until), self.timers.next()].into_iter().flatten().min(),
            State::Closing { until } | State::Ended { until } => Some(until),
            State::SilentClose { at } => Some(at),
            State::Closed => None,
        }
    }

    /// Time has passed: sends heartbeats, and ends what has passed its deadline.
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
            State::Closing { until: at } | State::Ended { until: at } | State::SilentClose { at } => {
                if at <= now.monotonic {
                    self.close_socket(out);
                }
            }
            State::Closed => {}
        }
    }

    /// A message was published. While a resource runs short nothing more is read from this connection.
    pub(super) fn block_if_alarmed(&mut self, out: &mut Output) {
        if let Some(reason) = self.alarm.block()
            && self.client.wants_blocked
        {
            let blocked = connection::Blocked { reason: reason.into() };
            out.write_connection(connection::AMQPMethod::Blocked(blocked));
        }
    }

    /// An alarm begins, goes on for other reasons, or ends.
    fn change_alarm(&mut self, reason: Option<String>, out: &mut Output) {
        if self.alarm.change(reason) && self.client.wants_blocked && self.is_running() {
            out.write_connection(connection::AMQPMethod::Unblocked(connection::Unblocked {}));
        }
    }

    /// Notes that a channel's metrics may have changed in this pass.
    pub(super) fn mark_active(&mut self, number: u16) {
        if let Some(channel) = self.channels.get_mut(number)
            && !channel.listings.active
        {
            channel.listings.active = true;
            self.due.active.push(number);
        }
    }

    /// A channel ends: its part of the metrics goes.
    pub(super) fn subtract_metrics(&mut self, channel: &Channel) {
        self.metrics -= channel.measured;
    }

    /// The connection's metrics; call it at the end of a pass.
    pub(crate) fn metrics(&mut self) -> SessionMetrics {
        while let Some(number) = self.due.active.pop() {
            if let Some(channel) = self.channels.get_mut(number) {
                channel.listings.active = false;
                let now = channel.measure();
                self.metrics += now - channel.measured;
                channel.measured = now;
            }
        }
        self.metrics
    }
}
