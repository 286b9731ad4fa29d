//! Commits on a loop's thread.
//!
//! Waking the writer's thread for one small batch, and being woken by it, takes longer than the commit. So while a loop
//! serves a single connection, which can only wait for its commit, the loop's thread commits. Nobody polls the sockets
//! meanwhile: a commit is left to the writer's thread as soon as another connection was served, and a relief goes on
//! with the loop if a commit takes long.
//!
//! Whether the writer is woken for submitted rows depends on the thread that submits them: the only thread-local that
//! changes what a call does is here.

use crate::store::commit::{InlineCommits, WriterHandle};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

/// Rounds in a row with a single connection before the loop commits.
const LONE_MIN: u32 = 8;

/// Predicts whether a loop serves a single connection.
#[derive(Debug, Default)]
pub(super) struct LoneDetector {
    /// The connection that was served last.
    slot: usize,
    /// Rounds in a row in which no other was served.
    rounds: u32,
}

impl LoneDetector {
    /// Notes that a connection is served.
    pub(super) fn note_served(&mut self, slot: usize) {
        if slot != self.slot {
            *self = Self { slot, rounds: 0 };
        }
    }

    /// Notes that a round ends.
    pub(super) fn note_round(&mut self) {
        self.rounds = self.rounds.saturating_add(1);
    }

    /// The connection that was served last.
    pub(super) fn slot(&self) -> usize {
        self.slot
    }

    /// The connection does not wait for its commit.
    pub(super) fn refute(&mut self) {
        self.rounds = 0;
    }

    /// Whether the last rounds served a single connection.
    pub(super) fn predicts_lone(&self) -> bool {
        self.rounds >= LONE_MIN
    }
}

/// The state of this thread's offer.
#[derive(Clone, Copy)]
struct OfferState {
    /// The address of the [`Offers`] to whose writer the offer is made.
    to: usize,
    is_accepted: bool,
}

thread_local! {
    static OFFERED: Cell<Option<OfferState>> = const { Cell::new(None) };
}

/// The writer's side of offers. Its address distinguishes the offers to one writer from those to others.
#[derive(Debug)]
struct Offers {
    /// Makes the type non-empty, so that each value has its own address.
    _byte: u8,
}

impl Offers {
    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl InlineCommits for Offers {
    fn takes_over(&self) -> bool {
        let to = self.address();
        let takes_over = OFFERED.get().is_some_and(|offered| offered.to == to);
        if takes_over {
            OFFERED.set(Some(OfferState { to, is_accepted: true }));
        }
        takes_over
    }
}

/// The writer for which loops may commit.
pub(super) struct LoneCommits {
    writer: WriterHandle,
    offers: Arc<Offers>,
}

impl LoneCommits {
    pub(super) fn new(writer: WriterHandle) -> Self {
        let offers = Arc::new(Offers { _byte: 0 });
        writer.allow_inline(Arc::clone(&offers) as _);
        Self { writer, offers }
    }

    /// Offers to commit, on this thread, the rows that it submits from now on. A thread has one offer at a time. `None`
    /// if the store does not commit in place.
    pub(super) fn offer(&self) -> Option<Offer<'_>> {
        if !self.writer.allows_inline() {
            return None;
        }
        OFFERED.set(Some(OfferState { to: self.offers.address(), is_accepted: false }));
        Some(Offer { writer: &self.writer, _thread: PhantomData })
    }
}

/// A guard: this thread's offer to commit. If it is dropped without [`Offer::commit`], the writer's thread is woken to
/// commit the rows that were submitted.
pub(super) struct Offer<'a> {
    writer: &'a WriterHandle,
    /// Makes the type `!Send`: the offer belongs to this thread.
    _thread: PhantomData<*const ()>,
}

impl Offer<'_> {
    /// Whether the writer has accepted the offer: rows were submitted that no thread commits yet.
    pub(super) fn is_accepted(&self) -> bool {
        OFFERED.get().is_some_and(|offered| offered.is_accepted)
    }

    /// Commits one batch on this thread and reports its outcome.
    pub(super) fn commit(self) {
        if OFFERED.take().is_some_and(|offered| offered.is_accepted) {
            self.writer.commit_here();
        }
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        if OFFERED.take().is_some_and(|offered| offered.is_accepted) {
            self.writer.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_lone_after_some_rounds_with_one_connection() {
        let mut lone = LoneDetector::default();
        for round in 0..20 {
            assert_eq!(lone.predicts_lone(), round >= LONE_MIN, "after {round} rounds");
            lone.note_served(3);
            lone.note_served(3);
            lone.note_round();
            if round == 0 {
                lone = LoneDetector { rounds: 1, ..lone };
            }
        }
        lone.note_served(4);
        assert!(!lone.predicts_lone());
    }
}
