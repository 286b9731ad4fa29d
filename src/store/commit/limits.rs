//! The limits of a batch, and what of them is left for the batch to come.

use super::Contribution;
use std::time::Duration;

/// How long a stop, a flush or a group waits for a queue that was asked and does not answer.
pub(super) const ANSWER_PATIENCE_MAX: Duration = Duration::from_secs(5);

/// The limits of batches, of the settings and of the store.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Rows of one batch; soft: a contribution is never cut.
    pub(super) rows_max: usize,
    /// Bytes of one batch; soft likewise.
    pub(super) bytes_max: usize,
    /// Rows of dropped lanes erased in one slice of an idle moment.
    pub(super) erase_rows: usize,
    /// How long a batch waits for the answers of queues that were asked. It is no batching timer: an answer comes as soon
    /// as a queue's turn is run.
    pub(super) patience: Duration,
    /// A source is asked for at least so many rows, as long as the batch has room for them.
    pub(super) rows_worth_asking: usize,
    /// How long the outcome of one batch may stay unknown before the store counts as failed.
    pub(super) give_up_after: Duration,
}

/// Rows and bytes that the next batch has room for.
pub(super) struct BatchBudget {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl BatchBudget {
    /// What `contributions`, which are taken first, leave of the limits.
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
