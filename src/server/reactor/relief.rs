//! A thread that goes on with a loop whose own thread commits for long.

use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// How long a commit may take before the relief begins.
const PATIENCE: Duration = Duration::from_millis(1);
/// The shortest time that can be set: zero would disarm the timer.
const AT_ONCE: Duration = Duration::from_nanos(1);

/// A timerfd, which costs one system call to set, and a thread that sleeps until it expires.
#[derive(Debug)]
pub(super) struct Relief(Arc<ReliefTimer>);

#[derive(Debug)]
pub(super) struct ReliefTimer {
    timer: OwnedFd,
    has_ended: AtomicBool,
}

/// A guard: a commit is timed while it lives.
pub(super) struct Timed<'a>(&'a ReliefTimer);

impl Relief {
    /// Starts the thread, which calls `relieve` each time a commit takes long, until that returns false. `None` if the
    /// system refuses the timer or the thread.
    pub(super) fn start(relieve: impl Fn() -> bool + Send + 'static) -> Option<Self> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC).ok()?;
        let timer = Arc::new(ReliefTimer { timer, has_ended: AtomicBool::new(false) });
        let waits = Arc::clone(&timer);
        let run = move || while waits.wait() && relieve() {};
        thread::Builder::new().name("pronto-relief".into()).spawn(run).ok()?;
        Some(Self(timer))
    }

    /// Begins to time a commit.
    pub(super) fn begin(&self) -> Timed<'_> {
        self.0.set(PATIENCE);
        Timed(&self.0)
    }

    /// Ends the thread.
    pub(super) fn end(&self) {
        self.0.has_ended.store(true, Ordering::Release);
        self.0.set(AT_ONCE);
    }
}

impl Drop for Relief {
    fn drop(&mut self) {
        self.end();
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        self.0.set(Duration::ZERO);
        if self.0.has_ended.load(Ordering::Acquire) {
            // The expiration that ends the thread may be gone.
            self.0.set(AT_ONCE);
        }
    }
}

impl ReliefTimer {
    /// Waits until the timer expires. Returns false at the end.
    fn wait(&self) -> bool {
        let mut expirations = [0; 8];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&self.timer, &mut expirations));
        read.is_ok() && !self.has_ended.load(Ordering::Acquire)
    }

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
    use std::sync::mpsc::channel;

    #[test]
    fn only_what_takes_long_is_relieved() {
        let (relieved, reliefs) = channel();
        let relief = Relief::start(move || relieved.send(()).is_ok()).unwrap();
        for _ in 0..100 {
            drop(relief.begin());
        }
        drop(relief.begin());
        let short = reliefs.try_iter().count();
        let timed = relief.begin();
        reliefs.recv_timeout(Duration::from_secs(10)).unwrap();
        drop(timed);
        assert!(short < 100, "not every one is relieved");
        relief.end();
        assert!(reliefs.recv_timeout(Duration::from_secs(10)).is_err(), "the thread has ended");
    }
}
