//! What is left of the limits of the batch to come.

use super::Contribution;
use super::machine::Limits;

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
