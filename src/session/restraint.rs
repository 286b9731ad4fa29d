//! What a connection does not begin for now: methods whose answers add to an output that its client does not read, and more
//! gets than may wait for their answers at the same time.
//!
//! They are parked on their channel, with what follows them there. What adds nothing goes on meanwhile: acknowledgements,
//! publishes, cancels. So the methods of a client that reads slowly are still handled, and one that does not read at all takes no more memory than
//! `outbox_bytes_max` and `parked_bytes_max`.

use super::channel::{Channel, Stage};
use super::effect::Output;
use super::machine::Session;
use super::outlet::Outlet;
use crate::model::Now;
use crate::wire::frame::{Frame, FrameKind};
use crate::wire::method::MethodId;
use std::collections::VecDeque;

pub(super) const CHANNEL_CLOSE: MethodId = MethodId { class_id: 20, method_id: 40 };
const CHANNEL_CLOSE_OK: MethodId = MethodId { class_id: 20, method_id: 41 };
const CANCEL: MethodId = MethodId { class_id: 60, method_id: 30 };
const PUBLISH: MethodId = super::basic_methods::PUBLISH;
const GET: MethodId = MethodId { class_id: 60, method_id: 70 };
const ACK: MethodId = MethodId { class_id: 60, method_id: 80 };
const REJECT: MethodId = MethodId { class_id: 60, method_id: 90 };
const NACK: MethodId = MethodId { class_id: 60, method_id: 120 };

/// What a confirm that is held back weighs.
const CONFIRM_BYTES: usize = size_of::<u64>();

/// Why methods are held back, and on which channels.
#[derive(Debug, Default)]
pub(super) struct Restraint {
    /// More output waits than should.
    output_waits: bool,
    /// Gets that wait for their answers.
    gets: u32,
    /// As many as may.
    gets_are_many: bool,
    /// Channels with parked frames that wait for none of their own answers.
    stalled: VecDeque<u16>,
}

impl Restraint {
    /// Whether a frame begins a method that has to wait.
    pub(super) fn holds_back(&self, frame: &Frame<'_>, channel: &Channel) -> bool {
        if !self.output_waits && !self.gets_are_many {
            return false;
        }
        frame.kind == FrameKind::Method
            && channel.stage == Stage::Open
            && channel.content.is_idle()
            && MethodId::of(frame.payload).is_some_and(|id| self.holds_back_method(id))
    }

    fn holds_back_method(&self, id: MethodId) -> bool {
        match id {
            GET => true,
            // A mandatory publish may add a return. It is not parked: acknowledgements behind it must not wait for the client
            // to read, which may wait for its own writes.
            PUBLISH | ACK | NACK | REJECT | CANCEL | CHANNEL_CLOSE | CHANNEL_CLOSE_OK => false,
            _ => self.output_waits,
        }
    }

    /// Notes a channel whose frames wait for this.
    pub(super) fn stall(&mut self, channel: &mut Channel) {
        if !std::mem::replace(&mut channel.is_stalled, true) {
            self.stalled.push_back(channel.key.number);
        }
    }
}

impl Session {
    /// Whether more output waits than should. Once it does not, what was held back goes on.
    pub(crate) fn set_output_waits(&mut self, waits: bool, now: Now, outlet: &mut dyn Outlet, out: &mut Output) {
        if std::mem::replace(&mut self.restraint.output_waits, waits) && !waits {
            self.resume(now, outlet, out);
            self.end_draining(now, out);
        }
    }

    pub(super) fn begin_get(&mut self) {
        self.restraint.gets += 1;
        self.restraint.gets_are_many = self.restraint.gets >= self.settings.gets_in_flight_max;
    }

    /// Gets were answered, or their channel has ended.
    pub(super) fn end_gets(&mut self, count: u32) {
        self.restraint.gets = self.restraint.gets.saturating_sub(count);
        self.restraint.gets_are_many = self.restraint.gets >= self.settings.gets_in_flight_max;
    }

    /// Takes up what was held back, until a channel is held back again: the next answer to a get, or room in the output,
    /// lets the others go on.
    pub(super) fn resume(&mut self, now: Now, outlet: &mut dyn Outlet, out: &mut Output) {
        while !self.restraint.output_waits
            && let Some(number) = self.restraint.stalled.pop_front()
        {
            let Some(channel) = self.channels.get_mut(number) else { continue };
            channel.is_stalled = false;
            self.proceed(number, now, outlet, out);
            if self.channels.get(number).is_some_and(|channel| channel.is_stalled) {
                return;
            }
        }
    }

    /// Whether confirms that are due wait for room in the output.
    pub(super) fn holds_confirms(&self) -> bool {
        self.restraint.output_waits
    }

    /// What publishes weigh that are not confirmed while output waits: their promises wait in the inlet.
    pub(super) fn confirms_held(&self) -> usize {
        if !self.restraint.output_waits {
            return 0;
        }
        usize::try_from(self.tally.unconfirmed).unwrap_or(0) * CONFIRM_BYTES
    }
}
