//! Tasks of the runtime: the only place where one is spawned.

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

/// Spawns a task that belongs to the server; its end is somebody's business, so the handle is returned.
pub(super) fn spawn<F>(handle: &Handle, task: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    handle.spawn(task)
}

/// Runs work that blocks, on a thread where it may.
///
/// # Panics
/// When the work does.
pub(super) async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// Runs work that blocks, on a thread of its own, and waits for it no longer than `patience`; `None` when it takes longer, and
/// goes on by itself. For callers that cannot await.
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
