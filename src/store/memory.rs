//! The store in memory: for tests, and for a broker without a file. Its contents live as long as the [`MemoryDisk`].

use super::{
    Batch, BatchNo, BindingRecord, Cause, CommitOutcome, ExchangeRecord, LaneChange, LaneRecord, LaneState,
    LoadRequest, LoadedRange, Maintenance, PositionRange, QueueRecord, ReadError, RecoveredState, Row, Store,
    StoreError, StoreReader, TopologyChange, UserRecord, VhostRecord,
};
use crate::model::{Lane, Name, Position, QueueId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Takes the place of a file: a store that is opened on it finds what an earlier one has left.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    boot: u32,
    batch_no: BatchNo,
    cluster_id: String,
    /// A store was opened and not closed.
    in_use: bool,
    vhosts: BTreeMap<Name, VhostRecord>,
    users: BTreeMap<Name, UserRecord>,
    exchanges: BTreeMap<(Name, Name), ExchangeRecord>,
    queues: BTreeMap<QueueId, QueueRecord>,
    bindings: Vec<BindingRecord>,
    lanes: BTreeMap<Lane, LaneContents>,
    /// Rows of dropped lanes.
    erasing: Vec<BTreeMap<Position, Row>>,
}

#[derive(Default)]
struct LaneContents {
    state: LaneState,
    rows: BTreeMap<Position, Row>,
}

impl MemoryDisk {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The writing side of a [`MemoryDisk`].
pub struct MemoryStore {
    disk: MemoryDisk,
}

impl MemoryStore {
    /// A store on `disk`.
    pub fn open(disk: MemoryDisk) -> Self {
        Self { disk }
    }
}

impl Store for MemoryStore {
    fn recover(&mut self) -> Result<RecoveredState, StoreError> {
        let mut contents = self.disk.contents();
        let clean = !contents.in_use;
        contents.boot += 1;
        contents.in_use = true;
        if contents.cluster_id.is_empty() {
            contents.cluster_id = new_cluster_id()?;
        }
        Ok(RecoveredState {
            boot: contents.boot,
            batch_no: contents.batch_no,
            clean,
            cluster_id: contents.cluster_id.clone(),
            vhosts: contents.vhosts.values().cloned().collect(),
            users: contents.users.values().cloned().collect(),
            exchanges: contents.exchanges.values().cloned().collect(),
            queues: contents.queues.values().cloned().collect(),
            bindings: contents.bindings.clone(),
            lanes: contents.lanes.iter().map(|(lane, found)| LaneRecord { lane: *lane, state: found.state }).collect(),
        })
    }

    fn commit(&mut self, batch: &Batch) -> CommitOutcome {
        let mut contents = self.disk.contents();
        if batch.batch_no <= contents.batch_no {
            return CommitOutcome::Committed;
        }
        for change in &batch.topology {
            contents.change(change);
        }
        for change in &batch.lanes {
            contents.lanes.entry(change.lane).or_default().change(change);
        }
        for lane in &batch.drop_lanes {
            contents.drop_lane(*lane);
        }
        for queue in batch.deleted_queues() {
            contents.drop_lanes_of(queue);
        }
        contents.batch_no = batch.batch_no;
        CommitOutcome::Committed
    }

    fn reopen(&mut self) -> Result<BatchNo, StoreError> {
        Ok(self.disk.contents().batch_no)
    }

    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        Ok(Box::new(MemoryReader { disk: self.disk.clone() }))
    }

    fn maintenance(&mut self) -> Option<&mut dyn Maintenance> {
        Some(self)
    }

    fn close(self: Box<Self>) -> Result<(), StoreError> {
        self.disk.contents().in_use = false;
        Ok(())
    }
}

impl Maintenance for MemoryStore {
    fn has_dead_rows(&self) -> bool {
        !self.disk.contents().erasing.is_empty()
    }

    fn erase(&mut self, rows: usize) -> Result<bool, StoreError> {
        let mut contents = self.disk.contents();
        let mut budget = rows.max(1);
        while budget > 0
            && let Some(lane) = contents.erasing.last_mut()
        {
            if lane.pop_first().is_none() {
                contents.erasing.pop();
            }
            budget -= 1;
        }
        Ok(!contents.erasing.is_empty())
    }
}

fn new_cluster_id() -> Result<String, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Unusable(Cause::new("no randomness", error)))?;
    Ok(format!("prontomq-cluster-id-{:032x}", u128::from_be_bytes(bytes)))
}

impl Contents {
    fn change(&mut self, change: &TopologyChange) {
        match change {
            TopologyChange::PutVhost(vhost) => {
                self.vhosts.insert(vhost.name.clone(), vhost.clone());
            }
            TopologyChange::DeleteVhost(name) => {
                self.vhosts.remove(name);
            }
            TopologyChange::PutUser(user) => {
                self.users.insert(user.name.clone(), user.clone());
            }
            TopologyChange::DeleteUser(name) => {
                self.users.remove(name);
            }
            TopologyChange::PutExchange(exchange) => {
                self.exchanges.insert((exchange.vhost.clone(), exchange.name.clone()), exchange.clone());
            }
            TopologyChange::DeleteExchange { vhost, name } => {
                self.exchanges.remove(&(vhost.clone(), name.clone()));
            }
            TopologyChange::PutQueue(queue) => {
                self.queues.insert(queue.id, queue.clone());
            }
            TopologyChange::DeleteQueue(id) => {
                self.queues.remove(id);
            }
            TopologyChange::PutBinding(binding) => {
                if !self.bindings.contains(binding) {
                    self.bindings.push(binding.clone());
                }
            }
            TopologyChange::DeleteBinding(binding) => self.bindings.retain(|kept| kept != binding),
        }
    }

    fn drop_lanes_of(&mut self, queue: QueueId) {
        let first = Lane { queue, level: 0, generation: 0 };
        let last = Lane { queue, level: u8::MAX, generation: u32::MAX };
        let lanes: Vec<_> = self.lanes.range(first..=last).map(|(lane, _)| *lane).collect();
        for lane in lanes {
            self.drop_lane(lane);
        }
    }

    fn drop_lane(&mut self, lane: Lane) {
        if let Some(dropped) = self.lanes.remove(&lane) {
            self.erasing.push(dropped.rows);
        }
    }
}

impl LaneContents {
    fn change(&mut self, change: &LaneChange) {
        self.rows.extend(change.inserts.iter().map(|row| (row.position, row.clone())));
        if let Some(below) = change.remove_below {
            self.rows = self.rows.split_off(&below);
        }
        for range in &change.remove_ranges {
            let removed: Vec<_> = self.within(*range).map(|row| row.position).collect();
            for position in removed {
                self.rows.remove(&position);
            }
        }
        for position in &change.removes {
            self.rows.remove(position);
        }
        self.state = change.state;
    }

    fn within(&self, range: PositionRange) -> impl Iterator<Item = &Row> {
        // A map panics for a range that ends before it begins.
        let is_range = range.from <= range.to;
        is_range.then(|| self.rows.range(range.from..=range.to)).into_iter().flatten().map(|(_, row)| row)
    }
}

struct MemoryReader {
    disk: MemoryDisk,
}

impl StoreReader for MemoryReader {
    fn load(&mut self, request: LoadRequest) -> Result<LoadedRange, ReadError> {
        let LoadRequest { lane, range, rows_max, bytes_max } = request;
        let contents = self.disk.contents();
        let mut loaded = LoadedRange { rows: Vec::new(), as_of: contents.batch_no };
        let Some(lane) = contents.lanes.get(&lane) else { return Ok(loaded) };
        let mut bytes = 0;
        for row in lane.within(range).take(rows_max.max(1)) {
            bytes += row.message.head_bytes().len() + row.message.large_body().map_or(0, |body| body.len());
            loaded.rows.push(row.clone());
            if bytes >= bytes_max {
                break;
            }
        }
        Ok(loaded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::contract::{StoreLocation, contract_tests};

    impl StoreLocation for MemoryDisk {
        fn open(&self) -> Box<dyn Store> {
            Box::new(MemoryStore::open(self.clone()))
        }
    }

    contract_tests!(MemoryDisk::default());
}
