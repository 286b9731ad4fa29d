//! Publishers that are faster than the stores wait: their connections are not read until these have caught up.

use crate::model::ConnectionId;
use ahash::AHashMap;
use std::ops::Neg;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// What is yet to be written in all queues, and who waits for it to become less.
///
/// That is all persistent messages that the store has not flushed, and transient ones as far as they are beyond their budget
/// and may go to the scratch store. Both have the same limit. Others, in consumers' hands for instance, keep nobody waiting: no
/// store makes them less.
#[derive(Debug)]
pub struct Flow {
    unwritten: AtomicI64,
    /// Bytes of transient messages in memory.
    transient: AtomicI64,
    /// Number of those that may go to the scratch store.
    unspilled: AtomicI64,
    limits: FlowLimits,
    /// There is a scratch store.
    spills: AtomicBool,
    /// Somebody waits.
    waited_for: AtomicBool,
    waiting: Mutex<AHashMap<ConnectionId, Waker>>,
}

/// When publishers wait, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowLimits {
    /// What may be yet to be written.
    pub(super) unwritten: u64,
    /// What transient messages may take in memory, before any of them go to the scratch store.
    pub(super) transient: u64,
}

/// By how much it has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FlowChange {
    /// Bytes that the store is yet to flush.
    pub(super) unwritten: i64,
    /// Bytes of transient messages in memory.
    pub(super) transient: i64,
    /// Number of those that may go to the scratch store.
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
            waited_for: AtomicBool::new(false),
            waiting: Mutex::default(),
        }
    }

    /// Bytes of persistent messages that are yet to be written.
    pub fn unwritten_bytes(&self) -> u64 {
        positive(&self.unwritten)
    }

    /// Whether transient messages take more memory than they may.
    pub(super) fn is_transient_over(&self) -> bool {
        positive(&self.transient) > self.limits.transient
    }

    /// The scratch store is there: transient messages beyond their budget go to it.
    pub(super) fn begin_spilling(&self) {
        self.spills.store(true, Ordering::SeqCst);
    }

    /// Whether publishers have to wait.
    pub fn is_over(&self) -> bool {
        self.exceeds(self.limits.unwritten)
    }

    /// Whether more than so many bytes are yet to be written to one of the stores.
    fn exceeds(&self, most: u64) -> bool {
        let too_many_spill = || {
            positive(&self.transient) > self.limits.transient.saturating_add(most)
                && positive(&self.unspilled) > 0
                && self.spills.load(Ordering::SeqCst)
        };
        positive(&self.unwritten) > most || too_many_spill()
    }

    /// Whether a connection that publishes has to wait; its waker is called once it need not any more.
    pub fn must_wait(&self, connection: ConnectionId, waker: &Waker) -> bool {
        if !self.is_over() {
            return false;
        }
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(connection, waker.clone());
        self.waited_for.store(true, Ordering::SeqCst);
        // It may have become less before anybody could know of the waker.
        self.is_over()
    }

    /// So much more (or less) is yet to be written. Who waits is woken at half of the limit.
    pub(super) fn note(&self, change: FlowChange) {
        let FlowChange { unwritten, transient, unspilled } = change;
        let parts = [(&self.unwritten, unwritten), (&self.transient, transient), (&self.unspilled, unspilled)];
        for (sum, change) in parts {
            if change != 0 {
                sum.fetch_add(change, Ordering::SeqCst);
            }
        }
        let is_less = unwritten < 0 || transient < 0 || unspilled < 0;
        if is_less && self.waited_for.load(Ordering::SeqCst) && !self.exceeds(self.limits.unwritten / 2) {
            self.wake();
        }
    }

    fn wake(&self) {
        if self.waited_for.swap(false, Ordering::SeqCst) {
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_values().for_each(Waker::wake);
        }
    }
}

/// Below zero for a moment while several threads note changes.
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
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    struct Bench {
        flow: Flow,
        woken: Arc<Woken>,
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
    fn who_waits_is_woken_once_half_is_written() {
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
        assert_eq!(bench.woken(), 1, "nobody waits any more");
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
    fn nobody_waits_for_transient_messages_that_must_stay_in_memory() {
        let bench = Bench::new();
        bench.transient(5000, 10);
        assert!(!bench.waits(), "there is no scratch store");
        bench.flow.begin_spilling();
        assert!(bench.waits());
        // A consumer has taken them.
        bench.transient(0, -10);
        assert_eq!((bench.woken(), bench.waits()), (1, false));
    }
}
