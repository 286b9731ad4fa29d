//! What other threads hand in for the broker, run on the runtime's.
//!
//! The store's threads tell queues what was written. While the runtime is busy, a task is soon found by a thread that is
//! awake. When all sleep it would cost two of them their sleep: the runtime wakes one for what comes from outside, and as
//! soon as that has found something, a second to look for more. So then a pipe wakes the one that waits for the sockets.

use super::clock::Clock;
use super::tasks::spawn;
use crate::broker::Runner;
use crate::model::Now;
use std::io::{self, PipeWriter, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::runtime::{Handle, RuntimeMetrics};

type Work = Box<dyn FnOnce(Now) + Send>;

/// Runs the broker's work on the runtime's threads.
pub(super) struct TokioRunner {
    clock: Clock,
    handle: Handle,
    threads: RuntimeMetrics,
    /// While all slept.
    handed_in: Mutex<Vec<Work>>,
    /// A byte wakes.
    wakes: PipeWriter,
}

impl TokioRunner {
    /// Also where its bytes arrive, for [`TokioRunner::work`]. To be called within the runtime.
    pub(super) fn new(clock: Clock) -> io::Result<(Arc<Self>, Receiver)> {
        let (arrives, wakes) = io::pipe()?;
        let handle = Handle::current();
        let threads = handle.metrics();
        let runner = Self { clock, handle, threads, handed_in: Mutex::default(), wakes };
        Ok((Arc::new(runner), Receiver::from_owned_fd(arrives.into())?))
    }

    fn handed_in(&self) -> MutexGuard<'_, Vec<Work>> {
        self.handed_in.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until the runtime ends.
    pub(super) async fn work(self: Arc<Self>, mut arrives: Receiver) {
        let mut all = Vec::new();
        // A byte comes only after all was taken: there are never many.
        let mut bytes = [0; 16];
        loop {
            if let Err(error) = arrives.read(&mut bytes).await {
                return tracing::error!(%error, "the broker's work comes to a halt");
            }
            std::mem::swap(&mut all, &mut *self.handed_in());
            let one = all.pop();
            all.drain(..).for_each(|work| self.begin(work));
            if let Some(work) = one
                && catch_unwind(AssertUnwindSafe(|| work(self.clock.now()))).is_err()
            {
                tracing::error!("a piece of the broker's work panicked");
            }
        }
    }

    fn begin(&self, work: Work) {
        let clock = self.clock;
        drop(spawn(&self.handle, async move { work(clock.now()) }));
    }

    /// A hint: some may have woken since.
    fn all_sleep(&self) -> bool {
        // An odd count is of a thread that sleeps.
        (0..self.threads.num_workers()).all(|thread| self.threads.worker_park_unpark_count(thread) % 2 == 1)
    }
}

impl Runner for TokioRunner {
    fn run(&self, work: Work) {
        if !self.all_sleep() {
            return self.begin(work);
        }
        let is_first = {
            let mut handed_in = self.handed_in();
            handed_in.push(work);
            handed_in.len() == 1
        };
        if is_first && let Err(error) = (&self.wakes).write_all(&[1]) {
            tracing::error!(%error, "the runtime cannot be woken");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    /// Whoever waits for longer waits in vain.
    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn what_is_handed_in_is_done_whether_the_runtime_sleeps_or_not_and_a_panic_ends_nothing() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        let runner = runtime.block_on(async {
            let (runner, arrives) = TokioRunner::new(Clock::start()).unwrap();
            drop(spawn(&handle, Arc::clone(&runner).work(arrives)));
            runner
        });
        let (done, hears) = channel();
        let (mut asleep, mut awake) = (0, 0);
        for round in 0..200 {
            if round % 2 == 0 {
                let began = std::time::Instant::now();
                while !runner.all_sleep() && began.elapsed() < PATIENCE {
                    std::thread::yield_now();
                }
            }
            if runner.all_sleep() {
                asleep += 1;
            } else {
                awake += 1;
            }
            for piece in 0..3 {
                let done = done.clone();
                runner.run(Box::new(move |_| {
                    done.send((round, piece)).unwrap();
                    assert_ne!(piece, 1, "this one fails");
                }));
            }
            let mut heard: Vec<_> = (0..3).map(|_| hears.recv_timeout(PATIENCE).unwrap()).collect();
            heard.sort_unstable();
            assert_eq!(heard, [(round, 0), (round, 1), (round, 2)]);
        }
        assert!(asleep > 0, "asleep {asleep} times, awake {awake}");
        drop(runtime);
    }
}
