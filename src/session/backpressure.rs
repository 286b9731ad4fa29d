//! Which methods a connection does not carry out for now: those whose answers add to an output that the client does not
//! read, and more gets than may wait for their answers at the same time.
//!
//! Such methods are parked on their channel, with what follows them there. Acknowledgements, publishes and cancels add no
//! output and go on. So the methods of a client that reads slowly are still handled, and one that does not read at all takes
//! no more memory than `outbox_bytes_max` and `parked_bytes_max`.

use super::channel::{Channel, Stage};
use super::method_ids::{
    BASIC_ACK, BASIC_CANCEL, BASIC_GET, BASIC_NACK, BASIC_PUBLISH, BASIC_REJECT, CHANNEL_CLOSE, CHANNEL_CLOSE_OK,
};
use crate::wire::frame::{Frame, FrameKind};
use crate::wire::method::MethodId;
use std::collections::VecDeque;

/// Why methods are held back, on which channels, and how many bytes are parked.
#[derive(Debug, Default)]
pub(super) struct Backpressure {
    /// More output waits than should.
    output_waits: bool,
    /// Gets that wait for their answers.
    gets: u32,
    /// As many gets wait as may.
    has_gets_max: bool,
    /// Channels with parked frames that wait for none of their own answers.
    stalled: VecDeque<u16>,
    /// Bytes of parked frames, of all channels.
    parked_bytes: usize,
}

impl Backpressure {
    /// Whether a frame begins a method that has to wait.
    pub(super) fn holds_back(&self, frame: &Frame<'_>, channel: &Channel) -> bool {
        if !self.output_waits && !self.has_gets_max {
            return false;
        }
        frame.kind == FrameKind::Method
            && channel.stage == Stage::Open
            && channel.content.is_idle()
            && MethodId::of(frame.payload).is_some_and(|id| self.holds_back_method(id))
    }

    fn holds_back_method(&self, id: MethodId) -> bool {
        match id {
            BASIC_GET => true,
            // A mandatory publish may add a return. It is not parked: acknowledgements behind it must not wait for the client
            // to read, which may wait for its own writes.
            BASIC_PUBLISH | BASIC_ACK | BASIC_NACK | BASIC_REJECT | BASIC_CANCEL | CHANNEL_CLOSE | CHANNEL_CLOSE_OK => {
                false
            }
            _ => self.output_waits,
        }
    }

    /// Parks a frame on its channel, behind answers that are awaited.
    pub(super) fn park(&mut self, frame: &Frame<'_>, channel: &mut Channel) {
        self.parked_bytes += channel.requests.park(frame);
    }

    /// Parked frames were taken off their channel.
    pub(super) fn unpark(&mut self, bytes: usize) {
        self.parked_bytes = self.parked_bytes.saturating_sub(bytes);
    }

    pub(super) fn parked_bytes(&self) -> usize {
        self.parked_bytes
    }

    /// Notes a channel whose frames are held back.
    pub(super) fn stall(&mut self, channel: &mut Channel) {
        if !std::mem::replace(&mut channel.listings.stalled, true) {
            self.stalled.push_back(channel.key.number);
        }
    }

    /// The next stalled channel, unless the output still waits.
    pub(super) fn next_stalled(&mut self) -> Option<u16> {
        if self.output_waits { None } else { self.stalled.pop_front() }
    }

    pub(super) fn output_waits(&self) -> bool {
        self.output_waits
    }

    /// Returns whether output waited before.
    pub(super) fn set_output_waits(&mut self, waits: bool) -> bool {
        std::mem::replace(&mut self.output_waits, waits)
    }

    pub(super) fn begin_get(&mut self, gets_max: u32) {
        self.gets += 1;
        self.has_gets_max = self.gets >= gets_max;
    }

    /// Gets were answered, or their channel has ended.
    pub(super) fn end_gets(&mut self, count: u32, gets_max: u32) {
        self.gets = self.gets.saturating_sub(count);
        self.has_gets_max = self.gets >= gets_max;
    }
}
