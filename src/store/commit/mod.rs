//! Group commit: the changes of queues and topology are gathered into batches, committed, and their outcomes reported.
//!
//! No timer delays a row. When the store is free, changes of topology are taken, dirty queues are asked in rotation for
//! their rows, and all of it is committed in one transaction. What is submitted meanwhile is the next batch. No queue
//! code runs under the writer's lock.
//!
//! Two pure machines decide: `machine` forms the next batch (of `intake`, within `limits`, with whole `groups`), and
//! `outcome` brings it to its outcome. `store_runner` carries their decisions out on the store. Three drivers step
//! them: `threaded` (a thread of its own), `inline` (one batch on a caller's thread) and `stepped` (virtual time).
//! `handle` is what queues see, `shared` what it has in common with the driver, and `reading` reads rows back,
//! independently of commits.

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
    /// Bytes of one batch; soft as well.
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

/// The outcome of one contribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContributionOutcome {
    /// The contribution's own number.
    pub ticket: u64,
    /// The batch that held it.
    pub batch_no: BatchNo,
    /// Whether it is durable. If not, the store has failed, and it never will be.
    pub durable: bool,
}

/// Something that has rows for the store: a queue's cell. The driver calls it without any lock of the writer. A call submits
/// an event to the queue, or runs one of its turns, and must not block.
pub trait Source: Send + Sync + 'static {
    /// Asks for a contribution of about this size at most. The source answers with [`WriterHandle::contribute`]; the
    /// contribution is empty if it has no rows.
    fn pull(self: Arc<Self>, rows_max: usize, bytes_max: usize);

    /// About how many rows a pull would bring. Called under the writer's lock: it must only read a number.
    fn rows_waiting(&self) -> usize;

    /// Reports the outcome of one contribution: once for each that is not empty, in their order.
    fn stored(self: Arc<Self>, outcome: ContributionOutcome);
}

/// The changes that a queue hands over in one turn.
#[derive(Clone, Debug, Default)]
pub struct Contribution {
    /// The queue's number for it, repeated in [`ContributionOutcome`].
    pub ticket: u64,
    /// Changes of its lanes.
    pub lanes: Vec<LaneChange>,
    /// Lanes that the queue drops.
    pub drop_lanes: Vec<Lane>,
    /// Rows inserted and removed. They count towards the size of the batch.
    pub rows: usize,
    /// Bytes of the rows inserted.
    pub bytes: usize,
    /// The queue has more rows that could be written now. It stays dirty without a further call.
    pub more: bool,
    /// Groups that it belongs to: it is committed in one transaction with all their other parts.
    pub groups: Vec<Group>,
}

impl Contribution {
    /// Whether it has nothing to write and nothing to report: it only answers a pull.
    fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.drop_lanes.is_empty() && self.groups.is_empty()
    }
}

/// Called when the changes that it was submitted with are durable (`true`), or never will be (`false`).
pub type Completion = Box<dyn FnOnce(bool) + Send>;

/// Decides which threads commit themselves.
pub trait InlineCommits: Send + Sync {
    /// Called when rows are submitted while the writer's thread sleeps. `true` if the calling thread will call
    /// [`WriterHandle::commit_here`] or [`WriterHandle::wake`] soon; the writer's thread is not woken then.
    fn takes_over(&self) -> bool;
}
