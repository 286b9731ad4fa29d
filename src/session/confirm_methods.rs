//! The methods of class confirm, and the promises that queues keep or refuse.

use super::channel::Stage;
use super::effect::Output;
use super::machine::Session;
use super::outlet::Outlet;
use crate::model::{AmqpError, ChannelKey, Now};
use crate::wire::writer::write_method;
use amq_protocol::protocol::{AMQPClass, confirm};
use std::ops::RangeInclusive;

impl Session {
    pub(super) fn confirm_select(&mut self, number: u16, nowait: bool, out: &mut Output) -> Result<(), AmqpError> {
        let channel = self.channel(number);
        if channel.transaction.is_some() {
            return Err(AmqpError::precondition_failed("cannot switch from tx to confirm mode"));
        }
        channel.confirms.select();
        if !nowait {
            let ok = confirm::AMQPMethod::SelectOk(confirm::SelectOk {});
            write_method(&mut out.bytes, number, AMQPClass::Confirm(ok));
        }
        Ok(())
    }

    /// A queue has kept or refused promises that it owed to a channel.
    pub(super) fn promised(
        &mut self,
        key: ChannelKey,
        numbers: RangeInclusive<u64>,
        kept: bool,
        now: Now,
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) {
        let (first, last) = numbers.into_inner();
        self.mark_active(key.number);
        let Some(channel) = self.live(key) else { return };
        if let Some(transaction) = &mut channel.transaction {
            if transaction.promised(first, last, kept) {
                channel.requests.complete_commit();
                self.proceed(key.number, now, outlet, out);
            }
            return;
        }
        if channel.confirms.promised(first, last, kept) {
            self.note_to_confirm(key.number);
        }
    }

    /// Lists a channel whose confirms are to be written at the end of this pass.
    pub(super) fn note_to_confirm(&mut self, number: u16) {
        let channel = self.channel(number);
        if !std::mem::replace(&mut channel.listings.to_confirm, true) {
            self.due.to_confirm.push(number);
        }
    }

    /// Call it at the end of a pass over input and notices: writes confirms, unless too much output waits already.
    pub(crate) fn flush_confirms(&mut self, out: &mut Output) {
        if !self.backpressure.output_waits() {
            self.flush_all_confirms(out);
        }
    }

    pub(super) fn flush_all_confirms(&mut self, out: &mut Output) {
        while let Some(number) = self.due.to_confirm.pop() {
            if let Some(channel) = self.channels.get_mut(number) {
                channel.listings.to_confirm = false;
                self.flush_confirms_of(number, out);
            }
        }
    }

    /// Writes the confirms that are due on one channel.
    pub(super) fn flush_confirms_of(&mut self, number: u16, out: &mut Output) {
        let channel = self.channel(number);
        if channel.stage == Stage::Open && channel.confirms.is_selected() {
            out.confirmed += channel.confirms.flush(number, &mut out.bytes);
        }
    }
}
