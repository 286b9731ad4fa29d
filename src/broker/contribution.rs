//! What a queue hands over to a store.

use crate::queue::Pulled;
use crate::store::Group;
use crate::store::commit::Contribution;

/// What a queue hands over, as a store's writer takes it.
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
