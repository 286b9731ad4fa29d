//! The store's port: batches go in, outcomes come out, ranges are read back.
//!
//! A store keeps what it is given, all of a batch or none, and knows nothing of AMQP. `writer` forms the batches (group
//! commit); `memory` and `sqlite` implement the port, and `spool` as far as it can be implemented by what forgets at its
//! end; `contract` is the suite that every implementation passes.

#[cfg(test)]
mod contract;
pub mod memory;
mod record;
pub mod spool;
pub mod sqlite;
pub mod writer;

pub use crate::model::stored::{Group, LaneChange, LaneState, PositionRange, Row, UserRecord};
use crate::model::{Lane, Name, Position, QueueId};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

/// The highest position that every store can keep: 40 bits. A queue whose lane comes near it goes on in the next
/// generation.
pub const POSITION_MAX: Position = Position::MAX;

/// Numbers batches; rises by one per batch, also across restarts. Stored in the batch's own transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchNo(pub u64);

/// What kind of thing a binding leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// A queue.
    Queue,
    /// An exchange.
    Exchange,
}

/// A durable virtual host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VhostRecord {
    /// Its name.
    pub name: Name,
}

/// A durable exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExchangeRecord {
    /// Its vhost.
    pub vhost: Name,
    /// Its name.
    pub name: Name,
    /// Its type: `direct`, `fanout`, ...
    pub kind: String,
    /// Deleted with its last outgoing binding.
    pub auto_delete: bool,
    /// Not for publishing by clients.
    pub internal: bool,
    /// Its arguments as an encoded field table (with its length prefix).
    pub arguments: Vec<u8>,
}

/// A durable queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRecord {
    /// Its vhost.
    pub vhost: Name,
    /// Its name.
    pub name: Name,
    /// Its incarnation.
    pub id: QueueId,
    /// Deleted with its last consumer.
    pub auto_delete: bool,
    /// Its arguments as an encoded field table (with its length prefix).
    pub arguments: Vec<u8>,
}

/// A binding between durable ends. All fields together are its identity.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BindingRecord {
    /// Its vhost.
    pub vhost: Name,
    /// The exchange that routes.
    pub source: Name,
    /// What receives.
    pub destination_kind: Destination,
    /// Its name.
    pub destination: Name,
    /// The binding key.
    pub routing_key: Name,
    /// Its arguments as an encoded field table (with its length prefix).
    pub arguments: Vec<u8>,
}

/// A change of durable topology. Deleting something names it alone: what hangs on it is deleted by changes of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyChange {
    /// Insert or replace.
    PutVhost(VhostRecord),
    /// Delete by name.
    DeleteVhost(Name),
    /// Insert or replace.
    PutUser(UserRecord),
    /// Delete by name.
    DeleteUser(Name),
    /// Insert or replace.
    PutExchange(ExchangeRecord),
    /// Delete by vhost and name.
    DeleteExchange {
        /// Its vhost.
        vhost: Name,
        /// Its name.
        name: Name,
    },
    /// Insert.
    PutQueue(QueueRecord),
    /// Delete a queue and, once the batch's lanes are written, drop all of its own.
    DeleteQueue(QueueId),
    /// Insert; a no-op when it is there.
    PutBinding(BindingRecord),
    /// Delete; a no-op when it is not there.
    DeleteBinding(BindingRecord),
}

impl TopologyChange {
    /// The queue that it makes or deletes.
    fn queue(&self) -> Option<QueueId> {
        match self {
            Self::PutQueue(record) => Some(record.id),
            Self::DeleteQueue(queue) => Some(*queue),
            _ => None,
        }
    }
}

/// What becomes durable together. Kept by the writer until its outcome is known, and as it is while the store may have it.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its number.
    pub batch_no: BatchNo,
    /// Changes of topology, in order, before the lanes.
    pub topology: Vec<TopologyChange>,
    /// Changes of lanes.
    pub lanes: Vec<LaneChange>,
    /// Lanes to abandon: they are empty at once, their rows are erased later in slices.
    pub drop_lanes: Vec<Lane>,
}

impl Batch {
    /// Whether it gives space back, or only moves a ceiling, without which no consumer could.
    fn may_use_reserve(&self) -> bool {
        let may = |change: &LaneChange| removes_rows(change) || change.inserts.is_empty();
        self.lanes.iter().any(may) || self.drops_lanes()
    }

    /// Whether lanes go, with their queue or without.
    fn drops_lanes(&self) -> bool {
        !self.drop_lanes.is_empty() || self.deleted_queues().next().is_some()
    }

    /// Makes one change of all those of a lane, and leaves out the rows that a later one of them removes again.
    fn join_lanes(&mut self) {
        let mut at: HashMap<Lane, usize> = HashMap::new();
        let mut joined: Vec<LaneChange> = Vec::with_capacity(self.lanes.len());
        for change in self.lanes.drain(..) {
            match at.entry(change.lane) {
                Entry::Vacant(entry) => {
                    entry.insert(joined.len());
                    joined.push(change);
                }
                Entry::Occupied(entry) => join(&mut joined[*entry.get()], change),
            }
        }
        self.lanes = joined;
    }

    /// Takes out what only removes rows, as a batch of its own with this one's number, for a disk on which the rows to insert
    /// do not fit; this one is left with the next number. None where that would leave nothing, or take nothing out. Lanes that
    /// are `bound` to others by a group stay, and so do those of queues that this batch makes or deletes.
    fn split_removals(&mut self, bound: &HashSet<Lane>) -> Option<Self> {
        self.join_lanes();
        let touched: HashSet<QueueId> = self.topology.iter().filter_map(TopologyChange::queue).collect();
        let is_left = |change: &LaneChange| {
            bound.contains(&change.lane)
                || touched.contains(&change.lane.queue)
                || self.drop_lanes.contains(&change.lane)
                || !removes_rows(change)
        };
        let lanes: Vec<LaneChange> = self.lanes.iter().filter(|change| !is_left(change)).map(removals_of).collect();
        let inserts = self.lanes.iter().any(|change| !change.inserts.is_empty());
        if lanes.is_empty() || !inserts {
            return None;
        }
        let taken: HashSet<Lane> = lanes.iter().map(|change| change.lane).collect();
        for change in self.lanes.iter_mut().filter(|change| taken.contains(&change.lane)) {
            (change.remove_below, change.remove_ranges, change.removes) = (None, Vec::new(), Vec::new());
        }
        let removals = Self { batch_no: self.batch_no, topology: Vec::new(), lanes, drop_lanes: Vec::new() };
        self.batch_no = BatchNo(self.batch_no.0 + 1);
        Some(removals)
    }

    /// The queues that it deletes.
    pub(crate) fn deleted_queues(&self) -> impl Iterator<Item = QueueId> {
        self.topology.iter().filter_map(|change| match change {
            TopologyChange::DeleteQueue(queue) => Some(*queue),
            _ => None,
        })
    }
}

fn removes_rows(change: &LaneChange) -> bool {
    change.remove_below.is_some() || !change.remove_ranges.is_empty() || !change.removes.is_empty()
}

/// The change without its rows: the lane is what it will be, but for these.
fn removals_of(change: &LaneChange) -> LaneChange {
    let bodies: u64 = change.inserts.iter().map(|row| row.message.body_len() as u64).sum();
    let state = LaneState {
        count: change.state.count.saturating_sub(change.inserts.len() as u64),
        body_bytes: change.state.body_bytes.saturating_sub(bodies),
        ..change.state
    };
    let (remove_ranges, removes) = (change.remove_ranges.clone(), change.removes.clone());
    LaneChange {
        lane: change.lane,
        inserts: Vec::new(),
        remove_below: change.remove_below,
        remove_ranges,
        removes,
        state,
    }
}

/// Adds a later change of the same lane. Rows that it removes of those to insert are left out, and not removed either.
fn join(change: &mut LaneChange, later: LaneChange) {
    let LaneChange { lane: _, inserts, remove_below, remove_ranges, removes, state } = later;
    let removed_up_to = highest_removed(change);
    for row in inserts.iter().filter(|row| row.position <= removed_up_to) {
        spare(change, row.position);
    }
    let removed: HashSet<Position> = removes.iter().copied().collect();
    let mut unwritten = HashSet::new();
    if remove_below.is_some() || !remove_ranges.is_empty() || !removed.is_empty() {
        change.inserts.retain(|row| {
            let is_below = remove_below.is_some_and(|below| row.position < below);
            let is_within = remove_ranges.iter().any(|range| (range.from..=range.to).contains(&row.position));
            let stays = !is_below && !is_within && !removed.contains(&row.position);
            if !stays {
                unwritten.insert(row.position);
            }
            stays
        });
    }
    change.inserts.extend(inserts);
    change.remove_below = change.remove_below.max(remove_below);
    change.remove_ranges.extend(remove_ranges);
    change.removes.extend(removes.into_iter().filter(|position| !unwritten.contains(position)));
    change.state = state;
}

/// No position beyond it is removed.
fn highest_removed(change: &LaneChange) -> Position {
    let ranges = change.remove_ranges.iter().map(|range| range.to);
    let all = change.remove_below.into_iter().chain(ranges).chain(change.removes.iter().copied());
    all.max().unwrap_or_default()
}

/// Removes all but this position, at which a row comes later: a range may reach beyond what there was at its time.
fn spare(change: &mut LaneChange, position: Position) {
    change.remove_below = change.remove_below.map(|below| below.min(position));
    change.removes.retain(|removed| *removed != position);
    if let Some(at) = change.remove_ranges.iter().position(|range| (range.from..=range.to).contains(&position)) {
        let PositionRange { from, to } = change.remove_ranges.swap_remove(at);
        let before = PositionRange { from, to: Position(position.0.saturating_sub(1)) };
        let behind = PositionRange { from: position.next(), to };
        change.remove_ranges.extend([before, behind].into_iter().filter(|range| range.from <= range.to));
        // It may lie in another one as well.
        spare(change, position);
    }
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// All of it is flushed.
    Committed,
    /// None of it is; the same batch may be tried again (a full disk).
    NotCommitted(String),
    /// Nobody knows: reopen and look up the batch number (an error while flushing).
    Unknown(String),
    /// Another home owns these queues now.
    Fenced,
    /// The store cannot go on.
    Fatal(String),
}

/// Rows read back.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// By rising position.
    pub rows: Vec<Row>,
    /// The last batch that wrote the lane, as the read saw it, or a later one; of a lane that is not there, any.
    pub as_of: BatchNo,
}

/// A lane as found at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneRecord {
    /// The lane.
    pub lane: Lane,
    /// Its five numbers.
    pub state: LaneState,
}

/// Everything that is read at start: topology and lanes, no row.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Rises with every start; makes new identifiers unique.
    pub boot: u32,
    /// The last batch.
    pub batch_no: BatchNo,
    /// Whether the last process stopped in good order.
    pub clean: bool,
    /// Identifies the cluster for life: made with the store, and kept in it.
    pub cluster_id: String,
    /// All vhosts.
    pub vhosts: Vec<VhostRecord>,
    /// All users.
    pub users: Vec<UserRecord>,
    /// All durable exchanges.
    pub exchanges: Vec<ExchangeRecord>,
    /// All durable queues.
    pub queues: Vec<QueueRecord>,
    /// All durable bindings.
    pub bindings: Vec<BindingRecord>,
    /// All live lanes.
    pub lanes: Vec<LaneRecord>,
}

/// How far a copy has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyProgress {
    /// Pages that are copied.
    pub pages_copied: u64,
    /// Pages in all; may grow while the store does.
    pub pages: u64,
    /// Everything is copied, though not flushed, and the copy is closed.
    pub is_done: bool,
}

/// Why a store could not be opened or read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// The data directory or file cannot be used; the text says why.
    Unusable(String),
    /// There is no space left for what it takes; the text says for what.
    DiskFull(String),
    /// Held by another process.
    Locked {
        /// The holder, where it left word.
        pid: Option<u32>,
    },
    /// Written by a newer version.
    NewerSchema {
        /// Found in the file.
        found: i64,
        /// The newest that this binary knows.
        known: i64,
    },
    /// Reading failed.
    Read(String),
    /// What is in the file is not what was written there.
    Damaged(String),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unusable(text) => write!(f, "the store cannot be used: {text}"),
            Self::DiskFull(text) => write!(f, "there is no space left on the disk: {text}"),
            Self::Locked { pid: Some(pid) } => write!(f, "the data directory is held by process {pid}"),
            Self::Locked { pid: None } => f.write_str("the data directory is held by another process"),
            Self::NewerSchema { found, known } => {
                write!(f, "written by a newer version: its schema is {found}, the newest known here is {known}")
            }
            Self::Read(text) => write!(f, "reading the store failed: {text}"),
            Self::Damaged(text) => write!(f, "the store's file is damaged: {text}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// How a store's files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vitals {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of its write-ahead log.
    pub log_bytes: u64,
    /// The log is longer than it should be, and somebody else's reading keeps it from being emptied.
    pub log_is_pinned: bool,
    /// Something was refused for want of space, and there is none yet.
    pub is_full: bool,
    /// Batches that were flushed in the redo log.
    pub redo_batches: u64,
}

/// The writing side: blocking, owned by the writer's thread.
pub trait Store: Send + 'static {
    /// Reads topology and lanes, and notes that a process has begun (`boot` rises, `clean` is cleared).
    fn recover(&mut self) -> Result<Recovered, StoreError>;

    /// Makes all of a batch durable, or none of it. A batch whose number is already stored is `Committed`.
    fn commit(&mut self, batch: &Batch) -> CommitOutcome;

    /// After [`CommitOutcome::Unknown`]: lets go of everything, opens again, makes sure that what is found is flushed,
    /// and returns the number of the last batch found.
    fn reopen(&mut self) -> Result<BatchNo, StoreError>;

    /// A reader of its own, for another thread.
    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError>;

    /// Whether rows are left to be erased, of dropped lanes or of long removals.
    fn has_dead_rows(&self) -> bool;

    /// Erases up to `rows` rows of dropped lanes; whether more are left. Called when there is nothing to commit.
    fn erase(&mut self, rows: usize) -> Result<bool, StoreError>;

    /// Does what is due when there is nothing to commit: flushing what was committed without, keeping the files small. Says
    /// when it wants to be called again; if never, then not before the next batch. An error says that what was committed
    /// may not be flushed: the store is to be reopened.
    fn tend(&mut self) -> Result<Option<Duration>, StoreError> {
        Ok(None)
    }

    /// How its files are, as it last saw them.
    fn vitals(&self) -> Vitals {
        Vitals::default()
    }

    /// Begins a copy of everything at `target`, which [`Store::step_copy`] takes on. What is committed until its end is part
    /// of it. A copy that was under way is given up.
    fn begin_copy(&mut self, target: &Path) -> Result<(), StoreError> {
        Err(StoreError::Unusable(format!("there is no file that could be copied to {}", target.display())))
    }

    /// Copies about so many pages. After an error the copy is to be ended.
    fn step_copy(&mut self, pages: u32) -> Result<CopyProgress, StoreError> {
        Err(StoreError::Unusable(format!("no copy is under way that {pages} pages could be added to")))
    }

    /// Gives a copy up; without effect when none is under way.
    fn end_copy(&mut self) {}

    /// Notes a stop in good order and releases the store.
    fn close(self: Box<Self>) -> Result<(), StoreError>;
}

/// The reading side: sees what was flushed, never what is being written.
pub trait StoreReader: Send + 'static {
    /// Up to `rows_max` rows of `lane` within `range`, and not more than about `bytes_max` bytes of them (at least one).
    fn load(
        &mut self,
        lane: Lane,
        range: PositionRange,
        rows_max: usize,
        bytes_max: usize,
    ) -> Result<Loaded, StoreError>;
}
