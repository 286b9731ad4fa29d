//! Connections with new notices, collected while this thread runs the broker work that produces the notices.

use crate::model::Now;
use std::cell::RefCell;
use std::sync::Arc;

/// Work on a connection that any thread may do in place of its task.
pub(in crate::server) trait ConnectionWork: Send + Sync {
    /// Serves the connection on this thread, or wakes its task if the task is busy with it.
    fn run_here(&self, now: Now);

    /// Wakes the connection's task.
    fn wake(&self);
}

thread_local! {
    /// `Some` while this thread runs broker work itself: connections with new notices, to be served when the work ends.
    static DEFERRED: RefCell<Option<Vec<Arc<dyn ConnectionWork>>>> = const { RefCell::new(None) };
}

/// Adds a connection to those that this thread collects. Returns it as the error if the thread collects none.
pub(in crate::server) fn defer<T: ConnectionWork + 'static>(connection: Arc<T>) -> Result<(), Arc<T>> {
    DEFERRED.with_borrow_mut(|deferred| match deferred {
        Some(all) => {
            all.push(connection);
            Ok(())
        }
        None => Err(connection),
    })
}

/// Whether this thread collects connections with new notices.
pub(super) fn is_deferring() -> bool {
    DEFERRED.with_borrow(Option::is_some)
}

/// A guard: while it lives, wake-ups of connections are collected on this thread. When it is dropped, their tasks are
/// woken.
pub(super) struct Deferring;

impl Deferring {
    pub(super) fn begin() -> Self {
        DEFERRED.set(Some(Vec::new()));
        Self
    }

    pub(super) fn is_empty(&self) -> bool {
        DEFERRED.with_borrow(|deferred| deferred.as_ref().is_none_or(Vec::is_empty))
    }

    /// Stops collecting, and returns the connections.
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
