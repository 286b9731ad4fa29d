//! Dead letters: how an entry leaves.
//!
//! A durable original is kept as leaving until its copies are safe; any other is handed out and forgotten. What is written
//! into the copies' headers is in `deaths`; where copies go is the driver's business.

use super::effect::{Effects, QueueEffect};
use super::entry::{EntryState, Slot, leaving_number};
use super::input::Origin;
use super::state::QueueState;
use crate::model::{Now, Position};

/// Why a message died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadLetterReason {
    /// `basic.reject` or `basic.nack` without requeue.
    Rejected,
    /// Its time to live was over.
    Expired,
    /// The queue was full.
    MaxLength,
}

impl DeadLetterReason {
    /// As `x-death` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
        }
    }
}

/// Where a leaving entry's row lies.
pub(super) struct Leaving {
    pub(super) level: u8,
    pub(super) position: Position,
}

impl QueueState {
    /// Hands a dying message out, if the queue has an exchange for them. Some when the original is kept until its copies are
    /// safe; none when it can go at once.
    pub(super) fn begin_leaving(&mut self, slot: Slot, reason: DeadLetterReason, out: &mut Effects) -> Option<Leaving> {
        self.settings.dead_letter_exchange.as_ref()?;
        let message = self.entries.at(slot).message.clone();
        if !self.entries.at(slot).is_durable() {
            out.effects.push(QueueEffect::DeadLetter { message, reason, leaving: None });
            return None;
        }
        let generation = self.entries.next_generation();
        let entry = self.entries.at_mut(slot);
        entry.state = EntryState::Leaving { generation, copies: None, settled: 0 };
        let leaving = Some(Origin { queue: self.settings.id, leaving: leaving_number(slot, generation) });
        let (level, position) = (entry.level, entry.order.position);
        out.effects.push(QueueEffect::DeadLetter { message, reason, leaving });
        Some(Leaving { level, position })
    }

    /// So many copies were made; with none the original can go.
    pub(super) fn copies_made(&mut self, number: u64, made: u32, now: Now, out: &mut Effects) {
        self.leaving_changed(number, now, out, |copies, _| *copies = Some(made));
    }

    /// One copy is safe.
    pub(super) fn copy_settled(&mut self, number: u64, now: Now, out: &mut Effects) {
        self.leaving_changed(number, now, out, |_, settled| *settled += 1);
    }

    /// One copy will be safe with what is handed to the store next; the original's slot when it was the last one.
    pub(super) fn one_copy_settled(&mut self, number: u64) -> Option<Slot> {
        self.change_leaving(number, |_, settled| *settled += 1)
    }

    fn leaving_changed(
        &mut self,
        number: u64,
        now: Now,
        out: &mut Effects,
        change: impl FnOnce(&mut Option<u32>, &mut u32),
    ) {
        if let Some(slot) = self.change_leaving(number, change) {
            self.remove(slot, now.monotonic, out);
        }
    }

    fn change_leaving(&mut self, number: u64, change: impl FnOnce(&mut Option<u32>, &mut u32)) -> Option<Slot> {
        let slot = self.entries.leaving(number)?;
        let EntryState::Leaving { copies, settled, .. } = &mut self.entries.at_mut(slot).state else { return None };
        change(copies, settled);
        copies.is_some_and(|copies| *settled >= copies).then_some(slot)
    }
}
