//! Group commit: what queues and topology want durable is gathered, committed, and reported.
//!
//! No timer delays a row. When the store is free, topology is taken and dirty queues are asked in rotation for what they
//! hold, and all of it is committed in one transaction; what comes up meanwhile is the next batch. No queue code runs in
//! here: [`Source::pull`] and [`Source::stored`] submit.
//!
//! `machine` decides what the next batch is, `outcome` what becomes of it; both are pure. `store_runner` does what they say
//! with the store. Three drivers step them: `threaded` (a thread of its own), `inline` (one batch on a caller's thread) and
//! `stepped` (virtual time). Rows are read back beside all that, by `reading`.

mod copying;
mod groups;
mod handle;
mod inline;
mod intake;
mod limits;
mod machine;
mod metrics;
mod outcome;
mod reading;
mod shared;
mod stepped;
mod store_runner;
#[cfg(test)]
mod tests;
mod threaded;

pub use copying::{CopyEvent, CopyListener};
pub use handle::WriterHandle;
pub use metrics::{COMMIT_SECONDS_BOUNDS, WriterState, WriterStats};
pub use reading::LoadCompletion;
pub use stepped::StepOutcome;

use super::{BatchNo, Group, Lane, LaneChange};
use std::sync::Arc;
use std::time::Duration;

/// Limits of the writer.
#[derive(Clone, Copy, Debug)]
pub struct WriterSettings {
    /// Rows of one batch; soft: a contribution is never cut.
    pub rows_max: usize,
    /// Bytes of one batch; soft likewise.
    pub bytes_max: usize,
    /// Rows of dropped lanes erased in one slice of an idle moment.
    pub erase_rows: usize,
    /// How long the outcome of one batch may stay unknown before the store counts as failed.
    pub give_up_after: Duration,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self { rows_max: 1_000, bytes_max: 1 << 20, erase_rows: 1_000, give_up_after: Duration::from_secs(60) }
    }
}

/// The outcome of a contribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContributionOutcome {
    /// The contribution's own number.
    pub ticket: u64,
    /// The batch that held it.
    pub batch_no: BatchNo,
    /// Flushed; otherwise the store has failed and it will never be.
    pub durable: bool,
}

/// Something that has rows for the store: a queue's cell. The driver calls it, with no lock of its own; the calls submit to
/// whatever runs the queue's turns, or take one turn, and must not block.
pub trait Source: Send + Sync + 'static {
    /// Asks for a contribution of about this size at most. It is answered by [`WriterHandle::contribute`], with an
    /// empty contribution when there is nothing.
    fn pull(self: Arc<Self>, rows_max: usize, bytes_max: usize);

    /// How many rows a pull may bring, about. Called under the writer's lock: it only looks.
    fn rows_waiting(&self) -> usize;

    /// The outcome of one contribution: once for each that is not empty, in their order.
    fn stored(self: Arc<Self>, outcome: ContributionOutcome);
}

/// What a queue hands over in one turn.
#[derive(Clone, Debug, Default)]
pub struct Contribution {
    /// The queue's number for it, repeated in [`ContributionOutcome`].
    pub ticket: u64,
    /// Changes of its lanes.
    pub lanes: Vec<LaneChange>,
    /// Lanes it leaves behind.
    pub drop_lanes: Vec<Lane>,
    /// Rows inserted and removed: what counts towards a batch's size.
    pub rows: usize,
    /// Bytes of the rows inserted.
    pub bytes: usize,
    /// There is more that could be written now: the queue stays dirty, and need not say so again.
    pub more: bool,
    /// Groups it is part of: it is committed in one transaction with all their other parts.
    pub groups: Vec<Group>,
}

impl Contribution {
    /// Nothing to write, and nothing to be reported: it only answers a pull.
    fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.drop_lanes.is_empty() && self.groups.is_empty()
    }
}

/// Run when the changes it was submitted with are durable (`true`), or never will be.
pub type Completion = Box<dyn FnOnce(bool) + Send>;

/// Knows which threads commit themselves.
pub trait InlineCommits: Send + Sync {
    /// Asked when rows are submitted while the writer's thread sleeps: whether the calling thread will call
    /// [`WriterHandle::commit_here`] or [`WriterHandle::wake`] soon. The writer's thread is not woken then.
    fn takes_over(&self) -> bool;
}
