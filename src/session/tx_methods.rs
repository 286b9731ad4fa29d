//! The methods of class tx.

use super::channel::Awaited;
use super::effect::{Effect, Output, Publish};
use super::machine::Session;
use super::transaction::Transaction;
use crate::model::{AmqpError, ChannelKey, Now};
use crate::wire::method::MethodId;
use crate::wire::writer::write_method;
use amq_protocol::protocol::{AMQPClass, tx};

impl Session {
    pub(super) fn tx_select(&mut self, number: u16, out: &mut Output) -> Result<(), AmqpError> {
        let channel = self.channel(number);
        if channel.confirms.is_selected() {
            return Err(AmqpError::precondition_failed("cannot switch from confirm to tx mode"));
        }
        channel.transaction.get_or_insert_default();
        write_tx(number, tx::AMQPMethod::SelectOk(tx::SelectOk {}), out);
        Ok(())
    }

    /// tx.commit: publishes in order, then settlements; commit-ok once every queue has taken what it was given.
    pub(super) fn tx_commit(&mut self, number: u16, id: MethodId, out: &mut Output) -> Result<(), AmqpError> {
        let channel = self.channel(number);
        let key = channel.key;
        let transaction = channel.transaction.as_mut().ok_or_else(not_transactional)?;
        let publishes = transaction.take_publishes();
        let settlements = std::mem::take(&mut transaction.settlements);
        transaction.begin_commit(publishes.len());
        channel.note_request(id, Awaited::Commit);
        out.effects.push(Effect::TransactionBegins);
        for (sequence, (message, mandatory)) in (1..).zip(publishes) {
            let publish = Publish { channel: key, message, mandatory, sequence: Some(sequence), fault: None };
            out.effects.push(Effect::Publish(publish));
        }
        for (_, delivered, outcome) in settlements {
            out.settle(key, delivered.queue, outcome, delivered.lend, delivered.counted);
        }
        out.effects.push(Effect::TransactionEnds { channel: key });
        out.pause = true;
        Ok(())
    }

    /// What a transaction changed goes to the store in one go; so many queues owe word of it, each a promise numbered 0.
    pub fn sealed(&mut self, channel: ChannelKey, parts: u32, now: Now, out: &mut Output) {
        let Some(live) = self.live(channel) else { return };
        if live.transaction.as_mut().is_some_and(|transaction| transaction.sealed(parts)) {
            live.commit_settled();
            self.proceed(channel.number, now, out);
        }
    }

    pub(super) fn commit_answered(&mut self, number: u16, out: &mut Output) -> Result<(), AmqpError> {
        let taken = self.channel(number).transaction.as_mut().is_none_or(Transaction::end_commit);
        if !taken {
            return Err(AmqpError::precondition_failed("partial tx completion"));
        }
        write_tx(number, tx::AMQPMethod::CommitOk(tx::CommitOk {}), out);
        Ok(())
    }

    /// tx.rollback: publishes are dropped; what was settled is unacknowledged again.
    pub(super) fn tx_rollback(&mut self, number: u16, out: &mut Output) -> Result<(), AmqpError> {
        let channel = self.channel(number);
        let transaction = channel.transaction.as_mut().ok_or_else(not_transactional)?;
        drop(transaction.take_publishes());
        for (tag, delivered, _) in std::mem::take(&mut transaction.settlements) {
            channel.unacked.put_back(tag, delivered);
        }
        write_tx(number, tx::AMQPMethod::RollbackOk(tx::RollbackOk {}), out);
        Ok(())
    }
}

fn not_transactional() -> AmqpError {
    AmqpError::precondition_failed("channel is not transactional")
}

fn write_tx(number: u16, method: tx::AMQPMethod, out: &mut Output) {
    write_method(&mut out.bytes, number, AMQPClass::Tx(method));
}
