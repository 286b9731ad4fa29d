//! The methods of classes channel and access, and how a channel opens and closes.

use super::channel::{Channel, Stage};
use super::effect::{Failure, Output};
use super::ending::ErrorOrigin;
use super::machine::Session;
use super::outlet::Outlet;
use super::requests::ParkedFrame;
use crate::model::{AmqpError, NamedLimit, Now, Scope};
use crate::wire::frame::{Frame, FrameKind};
use crate::wire::method::{ClientMethod, MethodId};
use crate::wire::writer::{write_channel_close, write_method};
use amq_protocol::protocol::{AMQPClass, access, channel};
use std::collections::VecDeque;

impl Session {
    /// A frame on a number without a channel: only channel.open is expected.
    pub(super) fn open_channel(&mut self, frame: Frame<'_>, now: Now, out: &mut Output) {
        let id = MethodId::of(frame.payload).filter(|_| frame.kind == FrameKind::Method);
        let opens = frame.kind == FrameKind::Method
            && matches!(ClientMethod::parse(frame.payload), Ok(ClientMethod::ChannelOpen));
        if !opens {
            let error = match id {
                Some(_) => AmqpError::channel_error("expected 'channel.open'"),
                None => AmqpError::unexpected_frame("expected method frame, got non method frame instead"),
            };
            return self.close_at(ErrorOrigin::on_channel(frame.channel, id), &error, id, now, out);
        }
        let max = self.tuning.channel_max;
        if max > 0 && self.channels.len() >= usize::from(max) {
            out.refusals.note(NamedLimit::ChannelsMax);
            let text = format!("number of channels opened ({max}) has reached the negotiated channel_max ({max})");
            let origin = ErrorOrigin::on_channel(frame.channel, id);
            return self.close_at(origin, &AmqpError::not_allowed(text), None, now, out);
        }
        self.channels.open(frame.channel);
        self.mark_active(frame.channel);
        write_open_ok(frame.channel, out);
    }

    /// An error closes its channel, or the whole connection, by its scope.
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
                self.close_at(ErrorOrigin::on_channel(number, method), error, method, now, out);
                self.end_draining(now, out);
            }
            Scope::Channel => self.channel_fail(number, error, method, now, outlet, out),
        }
    }

    /// channel.close: all that the channel holds goes back to its queues.
    pub(super) fn channel_close(&mut self, number: u16, outlet: &mut dyn Outlet, out: &mut Output) {
        self.flush_confirms_of(number, out);
        self.drop_channel(number, outlet);
        let ok = channel::AMQPMethod::CloseOk(channel::CloseOk {});
        write_method(&mut out.bytes, number, AMQPClass::Channel(ok));
    }

    /// The broker closes the channel with an error.
    pub(super) fn channel_fail(
        &mut self,
        number: u16,
        error: &AmqpError,
        method: Option<MethodId>,
        now: Now,
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) {
        if self.channels.get(number).is_none_or(|channel| channel.stage == Stage::Closing) {
            return;
        }
        // Confirms that were already earned go out before the close.
        self.flush_confirms_of(number, out);
        let channel = self.channel(number);
        let key = channel.key;
        let parked = self.take_parked(number);
        let channel = self.channel(number);
        let mut ended = std::mem::replace(channel, Channel::new(key));
        channel.listings.stalled = ended.listings.stalled;
        channel.stage = Stage::Closing;
        channel.content = std::mem::take(&mut ended.content).discarded();
        self.subtract_metrics(&ended);
        let gets = ended.requests.gets_waiting();
        self.end_gets(gets);
        write_channel_close(&mut out.bytes, number, error.code.number(), &error.reply_text(), method);
        let operation = method.map_or("", MethodId::name);
        out.failures.push(Failure { channel: number, operation, error: error.clone() });
        outlet.end_channel(key);
        self.replay(number, parked, now, outlet, out);
        if gets > 0 {
            self.resume(now, outlet, out);
        }
    }

    /// Takes away the frames that are parked on a channel.
    pub(super) fn take_parked(&mut self, number: u16) -> VecDeque<ParkedFrame> {
        let Some(channel) = self.channels.get_mut(number) else { return VecDeque::new() };
        let parked = channel.requests.take_parked();
        self.backpressure.unpark(parked.iter().map(ParkedFrame::held_bytes).sum());
        parked
    }

    /// Takes frames that were parked on a channel that has closed or is closing, as if they came now: after an error they are
    /// thrown away, after a close of the client they may open the channel again.
    pub(super) fn replay(
        &mut self,
        number: u16,
        parked: VecDeque<ParkedFrame>,
        now: Now,
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) {
        for ParkedFrame { kind, payload } in parked {
            if !self.has_channels() {
                return;
            }
            self.channel_frame(Frame { kind, channel: number, payload: &payload }, &[], now, outlet, out);
        }
    }

    fn drop_channel(&mut self, number: u16, outlet: &mut dyn Outlet) {
        let Some(channel) = self.channels.remove(number) else { return };
        debug_assert!(!channel.requests.is_busy(), "a close waits for what came before it");
        self.subtract_metrics(&channel);
        outlet.end_channel(channel.key);
    }

    pub(super) fn method_while_channel_closes(&mut self, number: u16, method: &ClientMethod<'_>, out: &mut Output) {
        match method {
            ClientMethod::ChannelCloseOk => {
                if let Some(channel) = self.channels.remove(number) {
                    self.subtract_metrics(&channel);
                }
            }
            ClientMethod::ChannelClose(_) => {
                let ok = channel::AMQPMethod::CloseOk(channel::CloseOk {});
                write_method(&mut out.bytes, number, AMQPClass::Channel(ok));
            }
            ClientMethod::BasicPublish(_) => self.channel(number).content.begin_discarded(),
            _ => {}
        }
    }

    /// Gets were answered, or their channel has ended.
    pub(super) fn end_gets(&mut self, count: u32) {
        self.backpressure.end_gets(count, self.settings.gets_in_flight_max);
    }

    pub(super) fn channel_flow(&self, number: u16, active: bool, out: &mut Output) -> Result<(), AmqpError> {
        if !active {
            return Err(AmqpError::not_implemented("active=false"));
        }
        let ok = channel::AMQPMethod::FlowOk(channel::FlowOk { active });
        write_method(&mut out.bytes, number, AMQPClass::Channel(ok));
        Ok(())
    }

    pub(super) fn access_request(&self, number: u16, out: &mut Output) {
        let ok = access::AMQPMethod::RequestOk(access::RequestOk {});
        write_method(&mut out.bytes, number, AMQPClass::Access(ok));
    }
}

fn write_open_ok(number: u16, out: &mut Output) {
    let ok = channel::AMQPMethod::OpenOk(channel::OpenOk {});
    write_method(&mut out.bytes, number, AMQPClass::Channel(ok));
}
