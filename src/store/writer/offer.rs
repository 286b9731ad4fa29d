//! A batch of a thread that may wait for the disk itself.
//!
//! To wake the writer's thread for a lone batch, and to be woken by it, takes longer than to write it. So whoever has nothing
//! else to do offers to commit what it is about to hand over, should the writer be asleep then.

use super::settle::Verdict;
use super::{Shared, WriterHandle};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The writer's thread is not woken to wake earlier by less than this.
const LATE_MAX: Duration = Duration::from_millis(10);

/// What this thread has offered.
#[derive(Clone, Copy)]
struct Offered {
    /// The address of the writer's shared part.
    to: usize,
    is_taken_up: bool,
}

thread_local! {
    static OFFERED: Cell<Option<Offered>> = const { Cell::new(None) };
}

/// Whether this thread has offered to commit what it hands over, so that the writer can sleep on.
pub(super) fn is_taken_up(shared: &Shared) -> bool {
    let to = std::ptr::from_ref(shared).addr();
    let is_taken_up = OFFERED.get().is_some_and(|offered| offered.to == to);
    if is_taken_up {
        OFFERED.set(Some(Offered { to, is_taken_up }));
    }
    is_taken_up
}

/// This thread's offer, while it lasts. When it ends without [`Offer::commit`], the writer is woken for what was handed over.
pub struct Offer<'a> {
    writer: &'a WriterHandle,
    /// It is of this thread.
    _thread: PhantomData<*const ()>,
}

impl WriterHandle {
    /// Offers to commit on this thread what it hands over from here on. One offer at a time.
    pub fn offer(&self) -> Offer<'_> {
        let to = std::ptr::from_ref(&*self.life.shared).addr();
        OFFERED.set(Some(Offered { to, is_taken_up: false }));
        Offer { writer: self, _thread: PhantomData }
    }
}

impl Offer<'_> {
    /// Whether something was handed over that nobody commits yet.
    pub fn is_taken_up(&self) -> bool {
        OFFERED.get().is_some_and(|offered| offered.is_taken_up)
    }

    /// Commits one batch of what there is on this thread, and tells of it, unless the writer has it. Blocks as long as a
    /// commit takes. What fails, and what is left, is the writer's.
    pub fn commit(self) {
        if OFFERED.take().is_some_and(|offered| offered.is_taken_up) {
            self.writer.commit_here();
        }
    }
}

impl Drop for Offer<'_> {
    fn drop(&mut self) {
        if OFFERED.take().is_some_and(|offered| offered.is_taken_up) {
            let shared = &self.writer.life.shared;
            shared.wake_writer(shared.inbox());
        }
    }
}

impl WriterHandle {
    fn commit_here(&self) {
        let shared = &*self.life.shared;
        let Ok(mut writer) = self.life.writer.try_lock() else { return shared.wake_writer(shared.inbox()) };
        let mut inbox = shared.inbox();
        if !inbox.asleep {
            // Somebody else has woken it; it takes all.
            return;
        }
        let is_simple = inbox.dirty.is_empty() && inbox.asked.is_empty() && inbox.has_whole_groups();
        if !is_simple || writer.unsettled.is_some() {
            return shared.wake_writer(inbox);
        }
        inbox.busy = true;
        shared.idle.store(false, Ordering::Release);
        let gathered = writer.take(&mut inbox);
        drop(inbox);
        if let Some(batch) = &gathered.batch {
            writer.last = batch.batch_no;
        }
        let tried = writer.settler.try_once(&gathered);
        if !matches!(tried, Verdict::Durable) {
            writer.unsettled = Some((gathered, tried));
            return shared.wake_writer(shared.inbox());
        }
        shared.stats().batches_of_offers += 1;
        let due = writer.tend().map(|wait| Instant::now() + wait);
        // Who is told may answer at once, so little is left to do then.
        writer.tell(gathered, true);
        writer.rest_again(due);
    }
}

impl super::Writer {
    /// Lets the writer's thread sleep on, unless there is something that it has to see to. The store is to be tended when it
    /// is `due`.
    fn rest_again(&self, due: Option<Instant>) {
        let mut inbox = self.shared.inbox();
        inbox.busy = false;
        if !inbox.asleep {
            return;
        }
        let is_late = due.is_some_and(|due| inbox.alarm.is_none_or(|alarm| due + LATE_MAX < alarm));
        let is_quiet = inbox.contributions.is_empty() && inbox.topology.is_empty() && inbox.flushes == 0;
        if self.may_erase || is_late || !is_quiet || inbox.stopping || Self::has_copy(&inbox) {
            return self.shared.wake_writer(inbox);
        }
        self.shared.idle.store(true, Ordering::Release);
    }
}
