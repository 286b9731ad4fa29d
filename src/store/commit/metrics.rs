//! Counters of the writer.

use crate::model::Monotonic;
use crate::store::Vitals;
use std::time::Duration;

/// For how long a failed read is reported. Queues repeat a failed read much sooner.
const READ_FAILURE_LASTS: Duration = Duration::from_secs(15);

/// Upper bounds of the buckets of commit times, in seconds; one more bucket takes the rest.
pub const COMMIT_SECONDS_BOUNDS: [f64; 12] =
    [0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// The state of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriterState {
    /// Commits succeed.
    #[default]
    Ok,
    /// A batch is being tried again; nothing is confirmed meanwhile.
    Retrying,
    /// The store has failed for good: nothing becomes durable any more.
    Failed,
}

/// Counters since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriterStats {
    /// Batches made durable.
    pub batches: u64,
    /// Batches that a caller's thread committed.
    pub batches_inline: u64,
    /// Rows inserted by them.
    pub rows_inserted: u64,
    /// Rows removed by them.
    pub rows_removed: u64,
    /// Bytes of the rows inserted.
    pub bytes: u64,
    /// Seconds spent in commits that succeeded.
    pub commit_seconds: f64,
    /// Those commits by their duration; see [`COMMIT_SECONDS_BOUNDS`].
    pub commit_buckets: [u64; COMMIT_SECONDS_BOUNDS.len() + 1],
    /// Commits tried again.
    pub retries: u64,
    /// The last error.
    pub last_error: Option<String>,
    /// The state of the store.
    pub state: WriterState,
    /// The state of its files.
    pub vitals: Vitals,
    /// Reads that failed.
    pub read_failures: u64,
    /// A read that failed a short while ago, and when.
    pub last_read_failure: Option<(Monotonic, String)>,
}

impl WriterStats {
    /// The store's present trouble, in words; `None` if there is none. A failed read is repeated, so that reads are
    /// well again if none has failed for a while.
    pub fn trouble(&self) -> Option<String> {
        let error = self.last_error.as_deref().unwrap_or("the reason is in the log");
        match self.state {
            WriterState::Retrying => Some(format!("nothing can be stored at the moment: {error}")),
            WriterState::Failed => Some(format!("the store has failed: {error}")),
            WriterState::Ok => self.last_read_failure.as_ref().map(|(_, error)| format!("a read failed: {error}")),
        }
    }

    /// Forgets a failed read after a while.
    pub(super) fn forget_old_failure(&mut self, now: Monotonic) {
        self.last_read_failure.take_if(|(at, _)| now.since(*at) >= READ_FAILURE_LASTS);
    }
}

/// The size of one batch.
pub(super) struct BatchSize {
    pub(super) inserted: u64,
    pub(super) removed: u64,
    pub(super) bytes: u64,
}

impl WriterStats {
    pub(super) fn committed(&mut self, size: &BatchSize, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = COMMIT_SECONDS_BOUNDS.partition_point(|bound| *bound < seconds);
        self.batches += 1;
        self.rows_inserted += size.inserted;
        self.rows_removed += size.removed;
        self.bytes += size.bytes;
        self.commit_seconds += seconds;
        self.commit_buckets[bucket] += 1;
        self.state = WriterState::Ok;
    }

    pub(super) fn failed(&mut self, state: WriterState, error: String) {
        self.state = state;
        self.last_error = Some(error);
    }
}
