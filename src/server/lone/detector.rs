//! Predicts whether the broker serves a single connection, so that its own thread may make the commit.
//!
//! No thread polls the sockets meanwhile. So it is done only where recent history says that nothing comes: of some commits in
//! a row, which the writer's thread made, none saw a thread of the runtime wake. One commit of many stays the writer's, to see
//! whether that still holds; and should a commit take long, another thread of the runtime is woken to poll the sockets.

use super::timer::{CommitTimer, Timed};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeMetrics};

/// Commits in a row during which nothing came, before a connection's thread may make them.
const QUIET_MIN: u32 = 8;

/// How many it makes before the writer makes one.
const INLINE_COMMITS_MAX: u32 = 31;

/// How long sockets may stay unpolled.
const UNPOLLED_MAX: Duration = Duration::from_millis(1);

/// Recent history.
pub(super) struct LoneDetector {
    handle: Handle,
    threads: RuntimeMetrics,
    /// How often threads of the runtime had parked or unparked when the last commit was reported; the thread that made it, if
    /// it is one of them, counts as parked.
    park_count_at_last_commit: AtomicU64,
    /// Commits in a row of the writer's thread that saw nothing else.
    quiet_commits: AtomicU32,
    /// Commits of connections' threads since then.
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

    /// Asked before each pass of a connection, so it only reads two numbers.
    pub(super) fn predicts_lone(&self) -> bool {
        self.quiet_commits.load(Ordering::Relaxed) >= QUIET_MIN
            && self.inline_commits.load(Ordering::Relaxed) < INLINE_COMMITS_MAX
    }

    /// Asked by a thread of the runtime: whether no other is awake, and there is another that can be woken.
    pub(super) fn is_only_thread_awake(&self) -> bool {
        self.threads.num_workers() > 1 && self.awake() <= 1
    }

    /// Whether all threads of the runtime sleep. A hint: some may have woken since.
    pub(super) fn all_threads_sleep(&self) -> bool {
        self.awake() == 0
    }

    fn awake(&self) -> usize {
        // An odd count is of a thread that sleeps.
        self.counts().filter(|count| count % 2 == 0).count()
    }

    fn counts(&self) -> impl Iterator<Item = u64> {
        (0..self.threads.num_workers()).map(|thread| self.threads.worker_park_unpark_count(thread))
    }

    /// A thread of the runtime begins a commit, which is timed as long as the answer lives. `None` where that is not possible.
    pub(super) fn begin_commit(&self) -> Option<Timed<'_>> {
        let timer = self.timer.get_or_init(|| CommitTimer::start(self.handle.clone())).as_ref()?;
        let timed = timer.begin(UNPOLLED_MAX);
        self.inline_commits.fetch_add(1, Ordering::Relaxed);
        self.park_count_at_last_commit.store(self.counts().sum::<u64>() + 1, Ordering::Relaxed);
        Some(timed)
    }

    /// A thread of the store reports an outcome while all threads of the runtime sleep.
    pub(super) fn note_quiet(&self) {
        let turns: u64 = self.counts().sum();
        match turns.wrapping_sub(self.park_count_at_last_commit.swap(turns, Ordering::Relaxed)) {
            // Several queues hear of one commit.
            0 => {}
            // One thread woke and went to sleep again, for what was committed.
            2 => drop(self.quiet_commits.fetch_add(1, Ordering::Relaxed)),
            _ => self.quiet_commits.store(0, Ordering::Relaxed),
        }
        self.inline_commits.store(0, Ordering::Relaxed);
    }

    /// It reports one while a thread of the runtime is awake.
    pub(super) fn note_company(&self) {
        if self.quiet_commits.load(Ordering::Relaxed) > 0 {
            self.quiet_commits.store(0, Ordering::Relaxed);
        }
    }
}
