//! Whether one connection is all that is going on: then its thread may wait for the disk itself.
//!
//! Nobody looks after the sockets meanwhile. So it is done only where experience says that nothing comes: of some commits in
//! a row, which the writer's thread made, none saw a thread of the runtime wake. One commit of many stays the writer's, to see
//! whether that still holds; and should a commit take long, another thread of the runtime is woken to look after the sockets.

use super::watch::{Watch, Watched};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::{Handle, RuntimeMetrics};

/// Commits in a row during which nothing came, before a connection's thread may make them.
const QUIET_MIN: u32 = 8;

/// How many it makes before the writer makes one.
const HERE_MAX: u32 = 31;

/// How long sockets are left alone.
const LEFT_ALONE_MAX: Duration = Duration::from_millis(1);

/// What experience says.
pub(super) struct Alone {
    handle: Handle,
    threads: RuntimeMetrics,
    /// How often threads of the runtime had gone to sleep or woken when a commit was told last; the thread that made it, if
    /// it was one of them, is taken to sleep.
    turns: AtomicU64,
    /// Commits in a row of the writer's thread that saw nothing else.
    quiet: AtomicU32,
    /// Commits of connections' threads since then.
    here: AtomicU32,
    watch: OnceLock<Option<Watch>>,
}

impl Alone {
    pub(super) fn new(handle: Handle) -> Self {
        let threads = handle.metrics();
        Self {
            handle,
            threads,
            turns: AtomicU64::new(0),
            quiet: AtomicU32::new(0),
            here: AtomicU32::new(0),
            watch: OnceLock::new(),
        }
    }

    /// Asked before each pass of a connection, so it only looks at two numbers.
    pub(super) fn is_likely(&self) -> bool {
        self.quiet.load(Ordering::Relaxed) >= QUIET_MIN && self.here.load(Ordering::Relaxed) < HERE_MAX
    }

    /// Asked by a thread of the runtime: whether it is the only one awake, and there is another to relieve it.
    pub(super) fn is_so(&self) -> bool {
        self.threads.num_workers() > 1 && self.awake() <= 1
    }

    /// Whether all threads of the runtime sleep. A hint: some may have woken since.
    pub(super) fn is_asleep(&self) -> bool {
        self.awake() == 0
    }

    fn awake(&self) -> usize {
        // An odd count is of a thread that sleeps.
        self.counts().filter(|count| count % 2 == 0).count()
    }

    fn counts(&self) -> impl Iterator<Item = u64> {
        (0..self.threads.num_workers()).map(|thread| self.threads.worker_park_unpark_count(thread))
    }

    /// A thread of the runtime begins a commit, which is watched as long as the answer lives. None where that is not possible.
    pub(super) fn begin(&self) -> Option<Watched<'_>> {
        let watch = self.watch.get_or_init(|| Watch::start(self.handle.clone())).as_ref()?;
        let watched = watch.begin(LEFT_ALONE_MAX);
        self.here.fetch_add(1, Ordering::Relaxed);
        self.turns.store(self.counts().sum::<u64>() + 1, Ordering::Relaxed);
        Some(watched)
    }

    /// A thread of the store tells something while all sleep.
    pub(super) fn note_quiet(&self) {
        let turns: u64 = self.counts().sum();
        match turns.wrapping_sub(self.turns.swap(turns, Ordering::Relaxed)) {
            // Several queues are told of one commit.
            0 => {}
            // One thread woke and went to sleep again, for what was committed.
            2 => drop(self.quiet.fetch_add(1, Ordering::Relaxed)),
            _ => self.quiet.store(0, Ordering::Relaxed),
        }
        self.here.store(0, Ordering::Relaxed);
    }

    /// It tells something while somebody is awake.
    pub(super) fn note_company(&self) {
        if self.quiet.load(Ordering::Relaxed) > 0 {
            self.quiet.store(0, Ordering::Relaxed);
        }
    }
}
