//! The outcomes of deliveries.

/// How a delivery is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SettleOutcome {
    /// Acknowledged: the message is gone.
    Acknowledged,
    /// Back to its place in the queue.
    Requeued,
    /// Rejected without requeue: dead-lettered or discarded.
    Rejected,
}
