//! Predicts whether the broker serves a single connection, so that its own thread may make the commit.
//!
//! While a connection's thread commits, no thread may be polling the sockets. So it commits only if recent history
//! predicts that no input arrives: during the last 8 commits of the writer's thread, no other thread of the runtime
//! woke. Every 32nd commit is left to the writer's thread, to check that this is still true. If a commit takes long,
//! another thread of the runtime is woken to poll the sockets.

use super::timer::{CommitTimer, TimedCommit};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeMetrics};

/// Quiet commits in a row before a connection's thread may commit.
const QUIET_MIN: u32 = 8;

/// Commits of connections' threads before the writer's thread makes one.
const INLINE_COMMITS_MAX: u32 = 31;

/// How long sockets may stay unpolled.
const UNPOLLED_MAX: Duration = Duration::from_millis(1);

/// Observes recent commits, and predicts from them.
pub(super) struct LoneDetector {
    handle: Handle,
    threads: RuntimeMetrics,
    /// How often threads of the runtime had parked or unparked when the last commit was reported. If the thread that
    /// committed belongs to the runtime, it counts as parked.
    park_count_at_last_commit: AtomicU64,
    /// Commits of the writer's thread in a row during which no other thread of the runtime woke.
    quiet_commits: AtomicU32,
    /// Commits of connections' threads since the writer's thread last committed.
    inline_commits: AtomicU32,
    timer: OnceLock<Option<CommitTimer>>,
}

impl LoneDetector {
    pub(super) fn new(handle: Handle) -> Self {
        let threads = handle.metrics();
        Self {
            handle,
            threads,
            park_count_at_last_commit: AtomicU64::new(0),
            quiet_commits: AtomicU32::new(0),
            inline_commits: AtomicU32::new(0),
            timer: OnceLock::new(),
        }
    }

    /// Whether recent history predicts a single connection. Called before each pass of a connection, so it only reads
    /// two numbers.
    pub(super) fn predicts_lone(&self) -> bool {
        self.quiet_commits.load(Ordering::Relaxed) >= QUIET_MIN
            && self.inline_commits.load(Ordering::Relaxed) < INLINE_COMMITS_MAX
    }

    /// Whether the calling thread of the runtime is the only one awake, and the runtime has another that can be woken.
    pub(super) fn is_only_thread_awake(&self) -> bool {
        self.threads.num_workers() > 1 && self.awake() <= 1
    }

    /// Whether all threads of the runtime sleep. A hint: some may have woken since.
    pub(super) fn all_threads_sleep(&self) -> bool {
        self.awake() == 0
    }

    fn awake(&self) -> usize {
        // tokio counts each park and each unpark, so a thread with an odd count is parked.
        self.counts().filter(|count| count % 2 == 0).count()
    }

    fn counts(&self) -> impl Iterator<Item = u64> {
        (0..self.threads.num_workers()).map(|thread| self.threads.worker_park_unpark_count(thread))
    }

    /// Records that the calling thread of the runtime begins a commit. The commit is timed while the returned guard
    /// lives. `None` if there is no timer.
    pub(super) fn begin_commit(&self) -> Option<TimedCommit<'_>> {
        let timer = self.timer.get_or_init(|| CommitTimer::start(self.handle.clone())).as_ref()?;
        let timed = timer.begin(UNPOLLED_MAX);
        self.inline_commits.fetch_add(1, Ordering::Relaxed);
        self.park_count_at_last_commit.store(self.counts().sum::<u64>() + 1, Ordering::Relaxed);
        Some(timed)
    }

    /// Records that a thread of the store reports an outcome while all threads of the runtime sleep.
    pub(super) fn note_quiet(&self) {
        let park_count: u64 = self.counts().sum();
        match park_count.wrapping_sub(self.park_count_at_last_commit.swap(park_count, Ordering::Relaxed)) {
            // The outcome of the same commit was reported for another queue before.
            0 => {}
            // One thread woke and parked again, to handle the commit's own outcome.
            2 => drop(self.quiet_commits.fetch_add(1, Ordering::Relaxed)),
            _ => self.quiet_commits.store(0, Ordering::Relaxed),
        }
        self.inline_commits.store(0, Ordering::Relaxed);
    }

    /// Records that a thread of the store reports an outcome while a thread of the runtime is awake.
    pub(super) fn note_busy(&self) {
        if self.quiet_commits.load(Ordering::Relaxed) > 0 {
            self.quiet_commits.store(0, Ordering::Relaxed);
        }
    }
}
