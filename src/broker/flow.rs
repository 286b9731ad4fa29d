//! Publishers that are faster than the store wait: their connections are not read until it has caught up.

use crate::model::ConnectionId;
use ahash::AHashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// What is yet to be written in all queues, and who waits for it to become less.
#[derive(Debug)]
pub struct Flow {
    unwritten: AtomicI64,
    most: i64,
    /// Somebody waits.
    waited_for: AtomicBool,
    waiting: Mutex<AHashMap<ConnectionId, Waker>>,
}

impl Flow {
    pub(super) fn new(bytes_max: u64) -> Self {
        let most = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        Self { unwritten: AtomicI64::new(0), most, waited_for: AtomicBool::new(false), waiting: Mutex::default() }
    }

    /// Bytes of messages that are yet to be written.
    pub fn unwritten_bytes(&self) -> u64 {
        u64::try_from(self.unwritten.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Whether publishers have to wait.
    pub fn is_over(&self) -> bool {
        self.unwritten.load(Ordering::Relaxed) > self.most
    }

    /// Whether a connection that publishes has to wait; its waker is called once it need not any more.
    pub fn must_wait(&self, connection: ConnectionId, waker: &Waker) -> bool {
        if !self.is_over() {
            return false;
        }
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(connection, waker.clone());
        self.waited_for.store(true, Ordering::SeqCst);
        // It may have become less before anybody could know of the waker.
        self.unwritten.load(Ordering::SeqCst) > self.most
    }

    /// So much more (or less) is yet to be written. Who waits is woken at half of the limit.
    pub(super) fn note(&self, growth: i64) {
        if growth == 0 {
            return;
        }
        let now = self.unwritten.fetch_add(growth, Ordering::SeqCst) + growth;
        if growth < 0 && now <= self.most / 2 && self.waited_for.swap(false, Ordering::SeqCst) {
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            waiting.into_values().for_each(Waker::wake);
        }
    }
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

    #[test]
    fn who_waits_is_woken_once_half_is_written() {
        let (flow, woken) = (Flow::new(100), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let waits = || flow.must_wait(ConnectionId(1), &waker);
        flow.note(100);
        assert!(!waits());
        flow.note(1);
        assert!(waits() && waits());
        flow.note(-50);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        flow.note(-1);
        assert_eq!((woken.0.load(Ordering::Relaxed), waits()), (1, false));
        flow.note(-50);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1, "nobody waits any more");
    }
}
