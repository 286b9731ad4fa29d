//! The methods of class confirm, and the promises that come back.

use super::effect::Output;
use super::machine::Session;
use crate::model::{AmqpError, ChannelKey, Now};
use crate::wire::writer::write_method;
use amq_protocol::protocol::{AMQPClass, confirm};

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

    /// Queues kept or refused promises of a channel.
    pub(super) fn promised(&mut self, key: ChannelKey, first: u64, last: u64, kept: bool, now: Now, out: &mut Output) {
        self.touch(key.number);
        let Some(channel) = self.live(key) else { return };
        if let Some(transaction) = &mut channel.transaction {
            if transaction.promised(first, last, kept) {
                channel.commit_settled();
                self.proceed(key.number, now, out);
            }
            return;
        }
        if channel.confirms.promised(first, last, kept) && !channel.confirm_noted {
            channel.confirm_noted = true;
            self.to_confirm.push(key.number);
        }
    }
}
