//! Flow control: publishers that are faster than the stores wait. Their connections are not read until the stores have
//! caught up.

use crate::model::ConnectionId;
use ahash::AHashMap;
use std::ops::Neg;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// The messages of all queues that are yet to be written, and the connections that wait for them.
///
/// They are all persistent messages that the store has not flushed, and the transient messages beyond their budget that
/// may be spilled to the scratch store. Both have the same limit. Other messages, such as those that consumers have, do
/// not make publishers wait: no store can reduce them.
#[derive(Debug)]
pub struct Flow {
    unwritten: AtomicI64,
    /// Bytes of transient messages in memory.
    transient: AtomicI64,
    /// Number of transient messages that may be spilled.
    unspilled: AtomicI64,
    limits: FlowLimits,
    /// The scratch store is open.
    spills: AtomicBool,
    /// At least one connection waits.
    has_waiting: AtomicBool,
    waiting: Mutex<AHashMap<ConnectionId, Waker>>,
}

/// The limits beyond which publishers wait, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowLimits {
    /// Most bytes that may be yet to be written.
    pub(super) unwritten: u64,
    /// Most bytes of transient messages in memory before the rest is spilled to the scratch store.
    pub(super) transient: u64,
}

/// Changes of the numbers in [`Flow`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FlowChange {
    /// Change of the bytes that the store is yet to flush.
    pub(super) unwritten: i64,
    /// Change of the bytes of transient messages in memory.
    pub(super) transient: i64,
    /// Change of the number of transient messages that may be spilled.
    pub(super) unspilled: i64,
}

impl Neg for FlowChange {
    type Output = Self;

    fn neg(self) -> Self {
        Self { unwritten: -self.unwritten, transient: -self.transient, unspilled: -self.unspilled }
    }
}

impl Flow {
    pub(super) fn new(limits: FlowLimits) -> Self {
        Self {
            unwritten: AtomicI64::new(0),
            transient: AtomicI64::new(0),
            unspilled: AtomicI64::new(0),
            limits,
            spills: AtomicBool::new(false),
            has_waiting: AtomicBool::new(false),
            waiting: Mutex::default(),
        }
    }

    /// Bytes of persistent messages that are yet to be written.
    pub fn unwritten_bytes(&self) -> u64 {
        positive(&self.unwritten)
    }

    /// Whether transient messages exceed their memory budget.
    pub(super) fn is_transient_over(&self) -> bool {
        positive(&self.transient) > self.limits.transient
    }

    /// Records that the scratch store is open: from now on, transient messages beyond their budget are spilled to it.
    pub(super) fn begin_spilling(&self) {
        self.spills.store(true, Ordering::SeqCst);
    }

    /// Whether publishers have to wait.
    pub fn is_over(&self) -> bool {
        self.exceeds(self.limits.unwritten)
    }

    /// Whether more than `most` bytes are yet to be written to one of the stores.
    fn exceeds(&self, most: u64) -> bool {
        let too_many_spill = || {
            positive(&self.transient) > self.limits.transient.saturating_add(most)
                && positive(&self.unspilled) > 0
                && self.spills.load(Ordering::SeqCst)
        };
        positive(&self.unwritten) > most || too_many_spill()
    }

    /// Whether a publishing connection has to wait. If so, its waker is called once it may go on.
    pub fn must_wait(&self, connection: ConnectionId, waker: &Waker) -> bool {
        if !self.is_over() {
            return false;
        }
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(connection, waker.clone());
        self.has_waiting.store(true, Ordering::SeqCst);
        // The amount may have dropped before the waker was registered.
        self.is_over()
    }

    /// Applies a change. Waiting connections are woken once the amount is down to half of the limit.
    pub(super) fn note(&self, change: FlowChange) {
        let FlowChange { unwritten, transient, unspilled } = change;
        let parts = [(&self.unwritten, unwritten), (&self.transient, transient), (&self.unspilled, unspilled)];
        for (sum, change) in parts {
            if change != 0 {
                sum.fetch_add(change, Ordering::SeqCst);
            }
        }
        let is_less = unwritten < 0 || transient < 0 || unspilled < 0;
        if is_less && self.has_waiting.load(Ordering::SeqCst) && !self.exceeds(self.limits.unwritten / 2) {
            self.wake();
        }
    }

    fn wake(&self) {
        if self.has_waiting.swap(false, Ordering::SeqCst) {
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_values().for_each(Waker::wake);
        }
    }
}

/// A sum may be below zero for a moment, while several threads apply changes. It then counts as zero.
fn positive(sum: &AtomicI64) -> u64 {
    u64::try_from(sum.load(Ordering::SeqCst)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct WakeCount(AtomicUsize);

    impl Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Bench {
        flow: Flow,
        woken: Arc<WakeCount>,
    }

    impl Bench {
        fn new() -> Self {
            let flow = Flow::new(FlowLimits { unwritten: 100, transient: 1000 });
            Self { flow, woken: Arc::default() }
        }

        fn waits(&self) -> bool {
            self.flow.must_wait(ConnectionId(1), &Waker::from(Arc::clone(&self.woken)))
        }

        fn unwritten(&self, unwritten: i64) {
            self.flow.note(FlowChange { unwritten, ..FlowChange::default() });
        }

        fn transient(&self, transient: i64, unspilled: i64) {
            self.flow.note(FlowChange { transient, unspilled, ..FlowChange::default() });
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn waiting_publishers_are_woken_once_half_is_written() {
        let bench = Bench::new();
        bench.unwritten(100);
        assert!(!bench.waits());
        bench.unwritten(1);
        assert!(bench.waits() && bench.waits());
        bench.unwritten(-50);
        assert_eq!(bench.woken(), 0);
        bench.unwritten(-1);
        assert_eq!((bench.woken(), bench.waits()), (1, false));
        bench.unwritten(-50);
        assert_eq!(bench.woken(), 1, "no publisher waits any more");
    }

    #[test]
    fn transient_messages_beyond_their_budget_wait_for_the_scratch_store() {
        let bench = Bench::new();
        bench.transient(1100, 20);
        bench.flow.begin_spilling();
        assert!(!bench.waits() && bench.flow.is_transient_over());
        bench.transient(1, 1);
        assert!(bench.waits());
        bench.transient(-50, -5);
        assert_eq!(bench.woken(), 0);
        bench.transient(-1, -1);
        assert_eq!((bench.woken(), bench.waits()), (1, false));
    }

    #[test]
    fn no_publisher_waits_for_transient_messages_that_must_stay_in_memory() {
        let bench = Bench::new();
        bench.transient(5000, 10);
        assert!(!bench.waits(), "there is no scratch store");
        bench.flow.begin_spilling();
        assert!(bench.waits());
        // The messages are lent to a consumer.
        bench.transient(0, -10);
        assert_eq!((bench.woken(), bench.waits()), (1, false));
    }
}
