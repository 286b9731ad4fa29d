//! Tasks of the runtime. No other file spawns one.

use super::clock::Clock;
use crate::broker::Broker;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::task::Poll;
use std::thread;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Spawns a task of the server. The handle is returned so that the caller can await or abort the task.
pub(super) fn spawn<F>(handle: &Handle, task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    handle.spawn(task)
}

/// Runs blocking work on the runtime's pool for such work.
///
/// # Panics
/// If the work panics.
pub(super) async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// Runs blocking work on a new thread, and waits for it no longer than `patience`. Returns `None` if the work takes
/// longer; it then goes on in the background. For callers that cannot await.
pub(super) fn run_within<T: Send + 'static>(
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let (done, result) = sync_channel(1);
    thread::Builder::new().name("pronto-stop".into()).spawn(move || done.send(work()))?;
    Ok(result.recv_timeout(patience).ok())
}

/// Wakes queues when their deadlines pass; ends with the runtime.
pub(super) async fn run_queue_timers(broker: Arc<Broker>, clock: Clock) {
    let mut sleep = pin!(tokio::time::sleep_until(clock.instant(clock.now().monotonic)));
    loop {
        poll_fn(|cx| {
            let now = clock.now().monotonic;
            match broker.next_tick(cx.waker()) {
                Some(at) if at <= now => Poll::Ready(()),
                Some(at) => {
                    sleep.as_mut().reset(clock.instant(at));
                    sleep.as_mut().poll(cx)
                }
                None => Poll::Pending,
            }
        })
        .await;
        broker.tick(clock.now());
        tokio::task::yield_now().await;
    }
}
