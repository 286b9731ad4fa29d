//! Connections with new notices, collected while this thread runs the work that they come from.

use crate::model::Now;
use std::cell::RefCell;
use std::sync::Arc;

/// Work on a connection that any thread may do in place of its task.
pub(in crate::server) trait ConnectionWork: Send + Sync {
    /// Does it here, or wakes the task if that is at work.
    fn run_here(&self, now: Now);

    /// Only wakes the task.
    fn wake(&self);
}

thread_local! {
    /// Connections with new notices, while this thread runs broker work itself; they are served when that ends.
    static DEFERRED: RefCell<Option<Vec<Arc<dyn ConnectionWork>>>> = const { RefCell::new(None) };
}

/// Leaves a connection to this thread, if it collects them; otherwise gives it back.
pub(in crate::server) fn defer<T: ConnectionWork + 'static>(connection: Arc<T>) -> Result<(), Arc<T>> {
    DEFERRED.with_borrow_mut(|deferred| match deferred {
        Some(all) => {
            all.push(connection);
            Ok(())
        }
        None => Err(connection),
    })
}

/// Whether this thread collects connections.
pub(super) fn is_deferring() -> bool {
    DEFERRED.with_borrow(Option::is_some)
}

/// A guard: while it lives, wake-ups of connections are collected on this thread. When it is dropped, their tasks are woken.
pub(super) struct Deferring;

impl Deferring {
    pub(super) fn begin() -> Self {
        DEFERRED.set(Some(Vec::new()));
        Self
    }

    pub(super) fn is_empty(&self) -> bool {
        DEFERRED.with_borrow(|deferred| deferred.as_ref().is_none_or(Vec::is_empty))
    }

    /// Ends it, and returns the connections.
    pub(super) fn end(self) -> Vec<Arc<dyn ConnectionWork>> {
        DEFERRED.take().unwrap_or_default()
    }
}

impl Drop for Deferring {
    fn drop(&mut self) {
        for connection in DEFERRED.take().unwrap_or_default() {
            connection.wake();
        }
    }
}
