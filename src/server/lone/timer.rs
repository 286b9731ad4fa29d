//! Wakes a thread of the runtime to poll the sockets when a commit on one of its threads takes too long.
//!
//! One of the runtime's sleeping threads polls the sockets. When that thread starts to work, no thread polls them until
//! it sleeps again or another one is woken.

use crate::server::tasks::spawn;
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::runtime::Handle;

/// The shortest time that can be set: zero would disarm the timer.
const NOW: Duration = Duration::from_nanos(1);

/// A timerfd, which costs one system call to set, and a thread that sleeps until it expires.
pub(super) struct CommitTimer(Arc<TimerShared>);

struct TimerShared {
    timer: OwnedFd,
    has_ended: AtomicBool,
}

/// A guard: a commit is timed while it lives.
pub(super) struct TimedCommit<'a>(&'a TimerShared);

impl CommitTimer {
    /// Starts the timer's thread; `None` if the system refuses the timer or the thread.
    pub(super) fn start(handle: Handle) -> Option<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).ok()?;
        let shared = Arc::new(TimerShared { timer, has_ended: AtomicBool::new(false) });
        let timed = Arc::clone(&shared);
        let run = move || {
            let mut expirations = [0; 8];
            while rustix::io::retry_on_intr(|| rustix::io::read(&timed.timer, &mut expirations)).is_ok() {
                if timed.has_ended.load(Ordering::Acquire) {
                    return;
                }
                // A thread of the runtime wakes for this empty task, and then polls the sockets.
                drop(spawn(&handle, async {}));
            }
        };
        thread::Builder::new().name("pronto-timer".into()).spawn(run).ok()?;
        Some(Self(shared))
    }

    /// Begins to time a commit that usually takes less than `time`. `time` must be below one second.
    pub(super) fn begin(&self, time: Duration) -> TimedCommit<'_> {
        self.0.set(time);
        TimedCommit(&self.0)
    }
}

impl Drop for CommitTimer {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::Release);
        self.0.set(NOW);
    }
}

impl Drop for TimedCommit<'_> {
    fn drop(&mut self) {
        self.0.set(Duration::ZERO);
    }
}

impl TimerShared {
    fn set(&self, time: Duration) {
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec { tv_sec: 0, tv_nsec: time.subsec_nanos().into() },
        };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once) {
            tracing::error!(%error, "a timer cannot be set");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn park_counts(handle: &Handle) -> Vec<u64> {
        let metrics = handle.metrics();
        (0..metrics.num_workers()).map(|thread| metrics.worker_park_unpark_count(thread)).collect()
    }

    #[test]
    fn only_a_commit_that_takes_too_long_wakes_another_thread() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let timer = CommitTimer::start(runtime.handle().clone()).unwrap();
        let wait_until = |condition: &dyn Fn() -> bool| {
            let began = Instant::now();
            while !condition() {
                assert!(began.elapsed() < Duration::from_secs(10), "the condition did not come true in time");
                thread::yield_now();
            }
        };
        wait_until(&|| park_counts(runtime.handle()).iter().all(|count| count % 2 == 1));
        let before = park_counts(runtime.handle());
        for _ in 0..100 {
            drop(timer.begin(Duration::from_millis(900)));
        }
        assert_eq!(park_counts(runtime.handle()), before);
        let timed = timer.begin(Duration::from_millis(1));
        wait_until(&|| park_counts(runtime.handle()) != before);
        drop(timed);
    }
}
