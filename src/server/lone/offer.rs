//! A thread's offer to commit the rows that it submits, so that the writer's thread need not be woken.

use crate::store::commit::{InlineCommits, WriterHandle};
use std::cell::Cell;
use std::marker::PhantomData;

/// The state of this thread's offer.
#[derive(Clone, Copy)]
struct OfferState {
    /// The address of the [`InlineOffers`] to whose writer the offer is made.
    to: usize,
    is_accepted: bool,
}

thread_local! {
    static OFFERED: Cell<Option<OfferState>> = const { Cell::new(None) };
}

/// The writer's side of offers. Its address distinguishes the offers to one writer from those to others.
#[derive(Debug)]
pub(in crate::server) struct InlineOffers {
    /// Makes the type non-empty, so that each value has its own address.
    _byte: u8,
}

impl InlineOffers {
    pub(in crate::server) fn new() -> Self {
        Self { _byte: 0 }
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }
}

impl InlineCommits for InlineOffers {
    fn takes_over(&self) -> bool {
        let to = self.address();
        let takes_over = OFFERED.get().is_some_and(|offered| offered.to == to);
        if takes_over {
            OFFERED.set(Some(OfferState { to, is_accepted: true }));
        }
        takes_over
    }
}

/// A guard: this thread's offer to commit. If it is dropped without [`Offer::commit`], the writer's thread is woken to
/// commit the rows that were submitted.
pub(super) struct Offer<'a> {
    writer: &'a WriterHandle,
    /// Makes the type `!Send`: the offer belongs to this thread.
    _thread: PhantomData<*const ()>,
}

impl<'a> Offer<'a> {
    /// Offers to commit, on this thread, the rows that it submits from now on. A thread has one offer at a time.
    pub(super) fn begin(offers: &InlineOffers, writer: &'a WriterHandle) -> Self {
        OFFERED.set(Some(OfferState { to: offers.address(), is_accepted: false }));
        Self { writer, _thread: PhantomData }
    }

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
