//! The methods of class tx.

use super::effect::{Commit, Effect, Output};
use super::machine::Session;
use super::outlet::Outlet;
use super::requests::RequestKind;
use super::transaction::Transaction;
use crate::model::{AmqpError, ChannelKey, Message, Now};
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

    /// tx.commit: publishes in order, then settlements; commit-ok once every queue has kept its promises.
    pub(super) fn tx_commit(&mut self, number: u16, id: MethodId, out: &mut Output) -> Result<(), AmqpError> {
        let channel = self.channel(number);
        let key = channel.key;
        let transaction = channel.transaction.as_mut().ok_or_else(not_transactional)?;
        let publishes = transaction.take_publishes();
        let settlements = std::mem::take(&mut transaction.settlements);
        transaction.begin_commit();
        channel.requests.add(id, RequestKind::Commit);
        let settlements =
            settlements.into_iter().map(|(_, delivered, outcome)| delivered.settlement(outcome, true)).collect();
        out.effects.push(Effect::Commit(Commit { channel: key, publishes, settlements }));
        out.pause = true;
        Ok(())
    }

    /// The shell has handed a transaction to its queues, which owe `promises` for it. `returned` are the mandatory messages
    /// without a queue; they are returned before commit-ok.
    pub(crate) fn committed(
        &mut self,
        channel: ChannelKey,
        returned: &[Message],
        promises: u64,
        now: Now,
        outlet: &mut dyn Outlet,
        out: &mut Output,
    ) {
        if self.live(channel).is_none() {
            return;
        }
        returned.iter().for_each(|message| self.write_return(channel.number, message, out));
        let live = self.channel(channel.number);
        if live.transaction.as_mut().is_some_and(|transaction| transaction.set_owed(promises)) {
            live.requests.complete_commit();
            self.proceed(channel.number, now, outlet, out);
        }
        self.end_draining(now, out);
    }

    pub(super) fn commit_answered(&mut self, number: u16, out: &mut Output) -> Result<(), AmqpError> {
        let is_complete = self.channel(number).transaction.as_mut().is_none_or(Transaction::end_commit);
        if !is_complete {
            return Err(AmqpError::precondition_failed("partial tx completion"));
        }
        write_tx(number, tx::AMQPMethod::CommitOk(tx::CommitOk {}), out);
        Ok(())
    }

    /// tx.rollback: publishes are dropped; settled deliveries are unacknowledged again.
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
