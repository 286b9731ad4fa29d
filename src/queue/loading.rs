//! Loads: rows of both stores come back into memory, in order.

use super::contents::Contents;
use super::context::Context;
use super::effect::QueueEffect;
use super::entry::{Entry, EntryState, Order, Slot, Storage};
use super::event::{LoadedRows, Ticket};
use super::level::Level;
use super::middle::{LoadedTotals, Miscount};
use crate::model::stored::Row;

/// The rows of one store that are accepted, and their totals.
#[derive(Debug)]
struct AcceptedRows {
    rows: Vec<Row>,
    totals: LoadedTotals,
}

impl AcceptedRows {
    /// Accepts those of `rows` that do not lie behind `end`.
    fn up_to(end: Option<Order>, mut rows: Vec<Row>) -> Self {
        let count = end.map_or(rows.len(), |end| rows.partition_point(|row| Order::of(row) <= end));
        let rest_from = rows.drain(count..).next().map(|row| row.position);
        let totals = LoadedTotals::of(&rows, rest_from);
        Self { rows, totals }
    }
}

/// Accepts rows of the stores that were asked. Rows of one store are accepted only if they lie before all rows that the other
/// store has not brought yet; the others are read again later.
fn accept(level: &Level, rows: LoadedRows) -> (Option<AcceptedRows>, Option<AcceptedRows>) {
    // Rows of a store that was not asked came from the tail after the load began, and lie behind all loaded rows.
    let durable = level.durable_middle().zip(rows.durable.as_ref()).and_then(|(middle, rows)| middle.loaded_to(rows));
    let scratch = level.scratch.middle.zip(rows.scratch.as_ref()).and_then(|(middle, rows)| middle.loaded_to(rows));
    let end = [durable, scratch].into_iter().flatten().min();
    let accept = |rows: Option<Vec<Row>>| rows.map(|rows| AcceptedRows::up_to(end, rows));
    (accept(rows.durable), accept(rows.scratch))
}

impl Contents {
    /// Takes loaded rows of the middle into the head.
    pub(super) fn loaded(&mut self, number: u8, load: u64, rows: Option<LoadedRows>, cx: &mut Context<'_>) {
        let Some(level) = self.ready.find_level(number) else { return };
        if !level.end_load(load) {
            return;
        }
        // A failed read was reported where it failed.
        let Some(rows) = rows else { return self.ready.load_failed(number, cx.now) };
        let before = level.ready_count();
        let (durable, scratch) = accept(level, rows);
        let (durable, durable_totals) = durable.map(|accepted| (accepted.rows, accepted.totals)).unzip();
        let (scratch, scratch_totals) = scratch.map(|accepted| (accepted.rows, accepted.totals)).unzip();
        let (slots, bytes) = self.merge(number, durable.unwrap_or_default(), scratch.unwrap_or_default());
        let level = self.ready.level(number);
        level.extend_head(&slots, bytes);
        let off = durable_totals.map_or_else(Miscount::default, |totals| level.durable_loaded(totals));
        let off_scratch =
            scratch_totals.map_or_else(Miscount::default, |totals| totals.take_from(&mut level.scratch.middle));
        let generation = level.generation();
        let (rows, body_bytes) = (off.rows + off_scratch.rows, off.body_bytes + off_scratch.body_bytes);
        self.ready.loaded(number, before, body_bytes);
        if off != Miscount::default() {
            self.durable.correct(off);
        }
        if off != Miscount::default() || off_scratch != Miscount::default() {
            let lane = cx.lane(number, generation);
            cx.out.effects.push(QueueEffect::Miscounted { lane, rows, body_bytes });
        }
    }

    /// Makes entries of the rows of both stores, in order; returns their slots, and the memory that their messages take.
    fn merge(&mut self, level: u8, durable: Vec<Row>, scratch: Vec<Row>) -> (Vec<Slot>, usize) {
        let (mut slots, mut bytes) = (Vec::with_capacity(durable.len() + scratch.len()), 0);
        let mut scratch = scratch.into_iter().peekable();
        for row in durable {
            while let Some(earlier) = scratch.next_if(|other| Order::of(other) < Order::of(&row)) {
                bytes += earlier.message.allocated_bytes();
                slots.push(self.enter_transient_row(level, earlier));
            }
            bytes += row.message.allocated_bytes();
            slots.push(self.enter_durable_row(level, row));
        }
        for row in scratch {
            bytes += row.message.allocated_bytes();
            slots.push(self.enter_transient_row(level, row));
        }
        (slots, bytes)
    }

    fn enter_durable_row(&mut self, level: u8, row: Row) -> Slot {
        let was_lent = self.ready.level(level).may_have_been_lent(row.position);
        self.entries.insert(Entry {
            redelivered: row.redelivered || was_lent,
            order: Order { position: row.position, sub: 0 },
            expires_at: row.expires_at,
            promise: None,
            storage: Storage::Submitted(Ticket(0)),
            level,
            state: EntryState::Ready,
            message: row.message,
        })
    }

    /// Makes a transient entry of a row of the scratch store.
    fn enter_transient_row(&mut self, level: u8, row: Row) -> Slot {
        self.spill.add(&row.message);
        self.entries.insert(Entry {
            order: Order::of(&row),
            redelivered: row.redelivered,
            expires_at: row.expires_at,
            promise: None,
            storage: Storage::Transient,
            level,
            state: EntryState::Ready,
            message: row.message,
        })
    }
}
