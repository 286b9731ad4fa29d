//! What there must be: every batch applied to plain maps; and random batches.

use prontomq::internals::model::random::Random;
use prontomq::internals::model::{Lane, Message, Name, Position, QueueId};
use prontomq::internals::store::{
    Batch, BatchNo, LaneChange, LaneState, LoadRequest, POSITION_MAX, PositionRange, RecoveredState, Row, Store,
    TopologyChange, VhostRecord,
};
use prontomq::internals::wire::properties::Properties;
use std::collections::{BTreeMap, BTreeSet};

const LANES: u64 = 4;
const EVERYTHING: PositionRange = PositionRange { from: Position(0), to: POSITION_MAX };

#[derive(Clone, Debug, Default, PartialEq)]
struct Contents {
    state: LaneState,
    rows: BTreeMap<Position, Message>,
}

/// The store as it is after some batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    lanes: BTreeMap<Lane, Contents>,
    vhosts: BTreeSet<Name>,
}

impl Model {
    /// What a store holds.
    pub(crate) fn of(store: &dyn Store, recovered: &RecoveredState) -> Result<Self, String> {
        let mut reader = store.reader().map_err(|error| error.to_string())?;
        let mut model =
            Self { vhosts: recovered.vhosts.iter().map(|each| each.name.clone()).collect(), ..Self::default() };
        for record in &recovered.lanes {
            let loaded = reader.load(LoadRequest::new(record.lane, EVERYTHING, usize::MAX, usize::MAX));
            let rows = loaded.map_err(|error| error.to_string())?.rows;
            let rows = rows.into_iter().map(|row| (row.position, row.message)).collect();
            model.lanes.insert(record.lane, Contents { state: record.state, rows });
        }
        Ok(model)
    }

    /// Whether only bytes within bodies differ: SQLite keeps no checksums of pages, and a body says nothing of its bytes.
    pub(crate) fn differs_in_bodies_alone(&self, other: &Self) -> bool {
        let outlines = |model: &Self| -> Vec<_> {
            let outline = |(lane, contents): (&Lane, &Contents)| {
                let rows: Vec<_> = contents.rows.iter().map(|(at, message)| (*at, message.body_len())).collect();
                (*lane, contents.state, rows)
            };
            model.lanes.iter().map(outline).collect()
        };
        self.vhosts == other.vhosts && outlines(self) == outlines(other)
    }

    /// The batch that removes every row, and the store after it.
    pub(crate) fn drained(&self, number: u64) -> (Batch, Self) {
        let mut next = self.clone();
        let mut batch =
            Batch { batch_no: BatchNo(number), topology: Vec::new(), lanes: Vec::new(), drop_lanes: Vec::new() };
        for (lane, contents) in &mut next.lanes {
            let mut removes: Vec<_> = std::mem::take(&mut contents.rows).into_keys().collect();
            // Half of them one by one.
            let below = removes.get(removes.len() / 2).copied();
            removes.retain(|position| Some(*position) >= below);
            let tail = contents.state.tail;
            contents.state = LaneState { head: tail, count: 0, body_bytes: 0, ..contents.state };
            batch.lanes.push(LaneChange {
                lane: *lane,
                inserts: Vec::new(),
                remove_below: below,
                remove_ranges: Vec::new(),
                removes,
                state: contents.state,
            });
        }
        (batch, next)
    }

    /// A random batch, and the store after it.
    pub(crate) fn batch(&self, number: u64, random: &mut Random) -> (Batch, Self) {
        let mut next = self.clone();
        let mut batch =
            Batch { batch_no: BatchNo(number), topology: Vec::new(), lanes: Vec::new(), drop_lanes: Vec::new() };
        let mut dice = |sides: u64| random.next_u64() % sides;
        // A body that several lanes of this batch share.
        let shared = message(number, if dice(2) == 0 { 9_000 } else { 140_000 });
        let is_shared = dice(4) == 0;
        for queue in 1..=LANES {
            if dice(2) == 0 {
                continue;
            }
            let lane = Lane { queue: QueueId(queue), level: 0, generation: 0 };
            let contents = next.lanes.entry(lane).or_default();
            let mut change = LaneChange {
                lane,
                inserts: Vec::new(),
                remove_below: None,
                remove_ranges: Vec::new(),
                removes: Vec::new(),
                state: LaneState::default(),
            };
            for _ in 0..dice(6) {
                let position = Position(contents.state.tail.0 + 1 + dice(3));
                contents.state.tail = position;
                let message = match dice(12) {
                    0 => message(number, 70_000),
                    1 => message(number, 6_000),
                    2..=4 if is_shared => shared.clone(),
                    _ => message(number * 31 + position.0, 20 + dice(900) as usize),
                };
                contents.rows.insert(position, message.clone());
                change.inserts.push(Row { position, redelivered: false, expires_at: None, place: None, message });
            }
            let tail = contents.state.tail.0;
            match dice(5) {
                0 => {
                    let below = Position(tail.saturating_sub(dice(8)));
                    contents.rows = contents.rows.split_off(&below);
                    change.remove_below = Some(below);
                }
                1 => {
                    let from = Position(tail.saturating_sub(dice(10)));
                    let range = PositionRange { from, to: Position(from.0 + dice(4)) };
                    contents.rows.retain(|position, _| *position < range.from || *position > range.to);
                    change.remove_ranges.push(range);
                }
                2 => {
                    let position = Position(tail.saturating_sub(dice(6)));
                    contents.rows.remove(&position);
                    change.removes.push(position);
                }
                _ => {}
            }
            contents.state.head = contents.rows.keys().next().copied().unwrap_or(contents.state.tail);
            contents.state.count = contents.rows.len() as u64;
            contents.state.body_bytes = contents.rows.values().map(|message| message.body_len() as u64).sum();
            change.state = contents.state;
            batch.lanes.push(change);
        }
        if dice(6) == 0 {
            let lane = Lane { queue: QueueId(1 + dice(LANES)), level: 0, generation: 0 };
            next.lanes.remove(&lane);
            batch.drop_lanes.push(lane);
        }
        let name = Name::from(format!("vhost-{}", dice(3)));
        match dice(4) {
            0 => {
                next.vhosts.insert(name.clone());
                batch.topology.push(TopologyChange::PutVhost(VhostRecord { name }));
            }
            1 => {
                next.vhosts.remove(&name);
                batch.topology.push(TopologyChange::DeleteVhost(name));
            }
            _ => {}
        }
        (batch, next)
    }
}

fn message(seed: u64, len: usize) -> Message {
    let body = (0..len as u64).map(|at| (at.wrapping_mul(seed | 1) >> 5) as u8).collect();
    Message::with_body(b"", b"key", &Properties::check(&[0x10, 0, 2]).unwrap(), body)
}
