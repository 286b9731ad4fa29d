//! Durable storage: batches go in, outcomes come out, ranges are read back.
//!
//! A store keeps a batch as a whole or not at all, and knows nothing of AMQP. `port` is the interface of every store,
//! in terms of `batch` and `records`. `commit` forms the batches (group commit). `memory` and `sqlite` implement the
//! port; `spool` implements the part that a store without durability can. `contract` is the test suite that every
//! implementation passes.

mod batch;
mod clock;
pub mod commit;
#[cfg(test)]
mod contract;
mod error;
pub mod memory;
mod port;
mod record;
mod records;
#[cfg(test)]
mod remote;
pub mod spool;
pub mod sqlite;

pub use batch::{Batch, BatchNo, Group, LaneChange, LaneState, PositionRange, Row};
pub use clock::SystemClock;
pub use error::{Cause, CopyError, OpenError, ReadError, StoreError, chain};
pub use port::{
    Backup, CommitOutcome, CopyProgress, FileStats, LoadRequest, LoadedRange, Maintenance, Store, StoreReader,
    StoreTraits, Vitals,
};
pub use records::{
    BindingRecord, Destination, ExchangeRecord, LaneRecord, QueueRecord, RecoveredState, TopologyChange, UserRecord,
    VhostRecord,
};

use crate::model::{Lane, Position};

/// The highest position that every store can keep: 40 bits. A queue whose lane comes near it goes on in the next
/// generation.
pub const POSITION_MAX: Position = Position::MAX;
