//! Running the asynchronous calls of sqlx.

use std::panic::resume_unwind;
use std::thread;

/// Runs a future of sqlx to its end, on a thread of its own: the caller may be a thread of a runtime, and such a thread
/// may not run another runtime.
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
