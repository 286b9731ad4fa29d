//! Dead letters: how an entry leaves.
//!
//! A durable original is kept as `Leaving` until its copies are safe; any other is handed to the driver and forgotten. `deaths`
//! writes the headers of the copies; the driver routes them.

use super::command::Origin;
use super::contents::Contents;
use super::context::Context;
use super::deaths::DeadLetterReason;
use super::effect::QueueEffect;
use super::entry::{EntryState, Slot, leaving_number};
use crate::model::stored::Group;

impl Contents {
    /// Ends an entry that was taken from the ready ones or from a holder: dead-letters it, if the queue has an exchange for that,
    /// or else discards it.
    pub(super) fn die(&mut self, slot: Slot, reason: DeadLetterReason, cx: &mut Context<'_>) {
        let entry = self.entries.at(slot);
        let (level, position, is_durable) = (entry.level, entry.order.position, entry.is_durable());
        if cx.settings.dead_letter_exchange.is_some() {
            let message = entry.message.clone();
            if is_durable {
                let leaving = Some(self.begin_leaving(slot, cx));
                cx.out.effects.push(QueueEffect::DeadLetter { message, reason, leaving });
                return self.ready.level(level).keep_leaving(position);
            }
            cx.out.effects.push(QueueEffect::DeadLetter { message, reason, leaving: None });
        }
        if is_durable {
            self.ready.level(level).end_away(position);
        }
        self.remove(slot, cx);
    }

    /// Keeps an entry until its copies are safe; returns the origin that the copies carry.
    fn begin_leaving(&mut self, slot: Slot, cx: &Context<'_>) -> Origin {
        let generation = self.entries.next_generation();
        self.entries.set_state(slot, EntryState::Leaving { generation, copies: None, settled: 0 });
        Origin { queue: cx.settings.id, leaving: leaving_number(slot, generation) }
    }

    /// Sets how many copies were made; without any the original goes.
    pub(super) fn copies_made(&mut self, number: u64, made: u32, cx: &mut Context<'_>) {
        if let Some(slot) = self.change_leaving(number, |copies, _| *copies = Some(made)) {
            self.remove(slot, cx);
        }
    }

    /// Notes that one copy is safe.
    pub(super) fn copy_settled(&mut self, number: u64, cx: &mut Context<'_>) {
        if let Some(slot) = self.change_leaving(number, |_, settled| *settled += 1) {
            self.remove(slot, cx);
        }
    }

    /// Copies are on their way to the store: removes the originals whose last copy is among them, in the same transaction.
    pub(super) fn replaced(&mut self, leaving: &[u64], group: Group, cx: &mut Context<'_>) {
        let mut promises = Vec::new();
        for number in leaving {
            if let Some(slot) = self.change_leaving(*number, |_, settled| *settled += 1) {
                promises.extend(self.let_go(slot, cx.out).promise);
            }
        }
        self.durable.pull_removals(group, promises, &mut self.entries, &mut self.ready, cx);
    }

    /// Changes the numbers of copies of a leaving entry; returns its slot if all copies are safe.
    fn change_leaving(&mut self, number: u64, change: impl FnOnce(&mut Option<u32>, &mut u32)) -> Option<Slot> {
        let slot = self.entries.leaving(number)?;
        let EntryState::Leaving { generation, mut copies, mut settled } = self.entries.at(slot).state else {
            return None;
        };
        change(&mut copies, &mut settled);
        self.entries.set_state(slot, EntryState::Leaving { generation, copies, settled });
        copies.is_some_and(|copies| settled >= copies).then_some(slot)
    }
}
