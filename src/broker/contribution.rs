//! Converts the rows that a queue gives to a store.

use crate::queue::Pulled;
use crate::store::Group;
use crate::store::commit::Contribution;

/// The queue's rows and removals as a contribution to the store's next batch.
pub(super) fn contribution(pulled: Pulled, groups: Vec<Group>) -> Contribution {
    Contribution {
        ticket: pulled.ticket.0,
        rows: pulled.rows + pulled.removed,
        bytes: pulled.bytes,
        more: pulled.more,
        lanes: pulled.lanes,
        drop_lanes: pulled.drop_lanes,
        groups,
    }
}
