//! The limits of batches, and the room that is left in the next one.

use super::Contribution;
use std::time::Duration;

/// How long a stop, a flush or a group waits for a queue that was asked and does not answer.
pub(super) const ANSWER_PATIENCE_MAX: Duration = Duration::from_secs(5);

/// The limits of batches. They come from the settings and from the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Rows of one batch; soft: a contribution is never cut.
    pub(super) rows_max: usize,
    /// Bytes of one batch; soft as well.
    pub(super) bytes_max: usize,
    /// Rows of dropped lanes erased in one slice of an idle moment.
    pub(super) erase_rows: usize,
    /// How long a batch waits for the answers of queues that were asked. It is no batching timer: a queue answers as soon as
    /// its turn runs.
    pub(super) patience: Duration,
    /// A source is asked for at least this many rows, if the batch has room for them.
    pub(super) rows_worth_asking: usize,
    /// How long the outcome of one batch may stay unknown before the store counts as failed.
    pub(super) give_up_after: Duration,
}

/// The rows and bytes that the next batch still has room for.
pub(super) struct BatchBudget {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl BatchBudget {
    /// The room that is left after `contributions`, which are taken first.
    pub(super) fn left<'c>(limits: &Limits, contributions: impl Iterator<Item = &'c Contribution>) -> Self {
        let mut budget = Self { rows: limits.rows_max, bytes: limits.bytes_max };
        for contribution in contributions {
            budget.rows = budget.rows.saturating_sub(contribution.rows);
            budget.bytes = budget.bytes.saturating_sub(contribution.bytes);
            if budget.is_used_up() {
                break;
            }
        }
        budget
    }

    pub(super) fn is_used_up(&self) -> bool {
        self.rows == 0 || self.bytes == 0
    }
}
