//! The lane that is ahead of its row.
//!
//! A small batch that does no more than append to one lane, whose row the batch before wrote and no other, leaves the row as it
//! is: what it would say follows from the messages' rows, which carry the number of their batch and the bytes of their
//! bodies. To write two pages instead of one would double what a lone message costs in the log. With whatever else is written
//! the lane's row is written too, so that after a crash only a lane of the newest row can be ahead.

use super::lanes::LaneNumber;
use crate::model::{Lane, Position};
use crate::store::{Batch, LaneState, POSITION_MAX};

/// How many batches may leave a lane's row as it is.
const BATCHES_MAX: u32 = 64;

/// What such a batch appends at most: of more rows, the page of the lane is a small part. With the other limit, how many rows
/// are read at a start.
const ROWS_MAX: usize = 16;

/// What the messages behind a lane's tail add up to: how many there are, the bytes of their bodies, the last key and the
/// newest batch. The arguments are the lane's number and its tail.
pub(super) const BEHIND_TAIL: &str = "SELECT count(*), coalesce(sum(body_bytes), 0), max(id), max(batch_no) FROM message \
    WHERE id > ?1 << 40 | ?2 AND id <= ?1 << 40 | 0xFFFFFFFFFF AND batch_no IS NOT NULL";

/// The lane that may be ahead, and what its row would say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ahead {
    pub(super) lane: Lane,
    pub(super) number: LaneNumber,
    pub(super) state: LaneState,
    /// Since its row was written.
    batches: u32,
}

impl Ahead {
    /// Of a lane whose row was written with this state.
    pub(super) fn at_its_row(lane: Lane, number: LaneNumber, state: LaneState) -> Self {
        Self { lane, number, state, batches: 0 }
    }

    /// Of a lane that was found ahead. Its row is due.
    pub(super) fn found(lane: Lane, number: LaneNumber, state: LaneState) -> Self {
        Self { lane, number, state, batches: BATCHES_MAX }
    }

    /// Whether its row has yet to be written.
    pub(super) fn is_behind(&self) -> bool {
        self.batches > 0
    }

    /// Whether the batch does nothing but take it further ahead.
    pub(super) fn is_advanced_by(&self, batch: &Batch) -> bool {
        let [change] = &batch.lanes[..] else { return false };
        let appends = change.lane == self.lane
            && change.remove_below.is_none()
            && change.remove_ranges.is_empty()
            && change.removes.is_empty()
            && (1..=ROWS_MAX).contains(&change.inserts.len());
        let is_all = batch.topology.is_empty() && batch.drop_lanes.is_empty();
        let follows = || {
            let mut state = self.state;
            for row in &change.inserts {
                if row.position <= state.tail || row.position > POSITION_MAX || row.message.large_body().is_some() {
                    return false;
                }
                state = add_up(state, 1, row.message.body_len() as u64, row.position);
            }
            state == change.state
        };
        is_all && appends && self.batches < BATCHES_MAX && follows()
    }

    /// After a batch that left its row as it was.
    pub(super) fn advanced(self, state: LaneState) -> Self {
        Self { state, batches: self.batches + 1, ..self }
    }
}

/// Adds what lies behind a lane's tail to what its row says.
pub(super) fn add_up(state: LaneState, rows: u64, body_bytes: u64, last: Position) -> LaneState {
    LaneState {
        tail: state.tail.max(last),
        count: state.count + rows,
        body_bytes: state.body_bytes + body_bytes,
        ..state
    }
}
