//! A thread's offer to commit what it hands over, so that the writer's thread can sleep on.

use crate::store::commit::{InlineCommits, WriterHandle};
use std::cell::Cell;
use std::marker::PhantomData;

/// What this thread has offered.
#[derive(Clone, Copy)]
struct Offered {
    /// The address of the writer's [`InlineOffers`].
    to: usize,
    is_taken_up: bool,
}

thread_local! {
    static OFFERED: Cell<Option<Offered>> = const { Cell::new(None) };
}

/// Tells one writer's offers from those to others.
#[derive(Debug)]
pub(in crate::server) struct InlineOffers {
    /// Gives it an address of its own.
    _place: u8,
}

impl InlineOffers {
    pub(in crate::server) fn new() -> Self {
        Self { _place: 0 }
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
            OFFERED.set(Some(Offered { to, is_taken_up: true }));
        }
        takes_over
    }
}

/// This thread's offer, while it lasts. When it ends without [`Offer::commit`], the writer's thread is woken for what was
/// handed over.
pub(super) struct Offer<'a> {
    writer: &'a WriterHandle,
    /// It is of this thread.
    _thread: PhantomData<*const ()>,
}

impl<'a> Offer<'a> {
    /// Offers to commit on this thread what it hands over from here on. One offer at a time.
    pub(super) fn begin(offers: &InlineOffers, writer: &'a WriterHandle) -> Self {
        OFFERED.set(Some(Offered { to: offers.address(), is_taken_up: false }));
        Self { writer, _thread: PhantomData }
    }

    /// Whether something was handed over that no thread commits yet.
    pub(super) fn is_taken_up(&self) -> bool {
        OFFERED.get().is_some_and(|offered| offered.is_taken_up)
    }

    /// Commits one batch on this thread and reports its outcome.
    pub(super) fn commit(self) {
        if OFFERED.take().is_some_and(|offered| offered.is_taken_up) {
            self.writer.commit_here();
        }
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        if OFFERED.take().is_some_and(|offered| offered.is_taken_up) {
            self.writer.wake();
        }
    }
}
