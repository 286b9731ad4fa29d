//! Waiting for sqlx, whose calls are asynchronous.

use std::panic::resume_unwind;
use std::thread;

/// Runs one of sqlx's futures to its end, wherever the caller stands: a runtime's thread may not run another runtime,
/// hence the thread.
pub(super) fn block_on<F>(future: F) -> F::Output
where
    F: Future + Send,
    F::Output: Send,
{
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime without drivers needs no resources").block_on(future)
    };
    thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| resume_unwind(panic))
}
