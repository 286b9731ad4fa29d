//! A batch as an entry of the redo log.
//!
//! An entry begins at a multiple of [`ALIGN`], so that writing it touches no sector of another one. Its header
//! distinguishes it from older bytes: the file's salt, the batch's number, the length, and a checksum of all. Clients
//! do not know the salt, so that no message's body can pass for an entry.

use crate::model::{Lane, Position, QueueId};
use crate::store::record::{self, Records};
use crate::store::{Batch, BatchNo, LaneChange, LaneState, POSITION_MAX, PositionRange};
use bytes::{Buf, TryGetError};
use std::io;

/// Entries begin at multiples of this number: the largest sector that disks write as a whole.
pub(super) const ALIGN: usize = 4096;

/// The most bytes of an entry. For longer ones the redo log saves only a small part of the cost of writing.
pub(super) const BYTES_MAX: usize = 32 << 10;

/// The most rows and removals of an entry.
const ROWS_MAX: usize = 64;

const HEADER_BYTES: usize = 24;

/// A random number that each file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Salt(pub(super) [u8; 8]);

/// Whether the redo log takes a batch: one with small changes of lanes and nothing else.
pub(super) fn takes(batch: &Batch) -> bool {
    let changes = || batch.lanes.iter();
    let rows = || changes().flat_map(|change| &change.inserts);
    let removals = |change: &LaneChange| change.removes.len() + change.remove_ranges.len();
    let is_small = changes().map(|change| 1 + change.inserts.len() + removals(change)).sum::<usize>() <= ROWS_MAX;
    let fits = || rows().all(|row| row.position <= POSITION_MAX && row.place.is_none());
    let bytes = || rows().map(|row| record::message_bytes(&row.message)).sum::<u64>();
    let is_all = batch.topology.is_empty() && batch.drop_lanes.is_empty() && !batch.lanes.is_empty();
    is_all && is_small && fits() && bytes() <= BYTES_MAX as u64 / 2
}

/// Replaces the contents of `to` by the entry of a batch.
pub(super) fn put(to: &mut Vec<u8>, salt: Salt, batch: &Batch) {
    to.clear();
    to.resize(HEADER_BYTES, 0);
    put_count(to, batch.lanes.len());
    for change in &batch.lanes {
        put_change(to, change);
    }
    seal(to, salt, batch.batch_no);
}

/// Fills in the header of an entry.
fn seal(to: &mut [u8], salt: Salt, batch_no: BatchNo) {
    let len = u32::try_from(to.len() - HEADER_BYTES).expect("an entry is short");
    to[..8].copy_from_slice(&salt.0);
    to[8..16].copy_from_slice(&batch_no.0.to_le_bytes());
    to[16..20].copy_from_slice(&len.to_le_bytes());
    let checksum = checksum(&to[..20], &to[HEADER_BYTES..]);
    to[20..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
}

/// An entry with any content.
#[cfg(test)]
pub(super) fn sealed(salt: Salt, batch_no: BatchNo, content: &[u8]) -> Vec<u8> {
    let mut entry = [&[0; HEADER_BYTES], content].concat();
    seal(&mut entry, salt, batch_no);
    entry
}

fn checksum(header: &[u8], content: &[u8]) -> u32 {
    let mut checksum = crc32fast::Hasher::new();
    checksum.update(header);
    checksum.update(content);
    checksum.finalize()
}

fn put_count(to: &mut Vec<u8>, count: usize) {
    to.extend_from_slice(&u32::try_from(count).expect("an entry is short").to_le_bytes());
}

fn put_numbers<const N: usize>(to: &mut Vec<u8>, numbers: [u64; N]) {
    for number in numbers {
        to.extend_from_slice(&number.to_le_bytes());
    }
}

fn put_change(to: &mut Vec<u8>, change: &LaneChange) {
    let LaneChange { lane, inserts, remove_below, remove_ranges, removes, state } = change;
    put_numbers(to, [lane.queue.0]);
    to.push(lane.level);
    to.extend_from_slice(&lane.generation.to_le_bytes());
    let LaneState { head, tail, count, body_bytes, lent_ceiling } = state;
    put_numbers(to, [head.0, tail.0, *count, *body_bytes, lent_ceiling.0]);
    // Position 0 stands for no removal: there are no rows below it.
    put_numbers(to, [remove_below.map_or(0, |below| below.0)]);
    put_count(to, remove_ranges.len());
    for range in remove_ranges {
        put_numbers(to, [range.from.0, range.to.0]);
    }
    put_count(to, removes.len());
    for position in removes {
        put_numbers(to, [position.0]);
    }
    put_count(to, inserts.len());
    for row in inserts {
        record::put(to, row);
        to.extend_from_slice(row.message.large_body().map_or(&[], |body| body.as_slice()));
    }
}

/// The result of reading at an offset where an entry may begin.
pub(super) enum EntryRead {
    /// A batch, and the bytes of its entry.
    Entry(Batch, usize),
    /// No entry, or one that is not complete.
    Nothing,
}

/// Reads the entry at the beginning of `bytes`. It is an error if the entry is complete and its content is no batch.
pub(super) fn take(bytes: &[u8], salt: Salt) -> io::Result<EntryRead> {
    let Some((header, rest)) = bytes.split_at_checked(HEADER_BYTES) else { return Ok(EntryRead::Nothing) };
    let mut fields = &header[salt.0.len()..];
    let (number, len, sum) = (fields.get_u64_le(), fields.get_u32_le() as usize, fields.get_u32_le());
    if header[..salt.0.len()] != salt.0 || len > BYTES_MAX {
        return Ok(EntryRead::Nothing);
    }
    let Some(content) = rest.get(..len).filter(|content| checksum(&header[..20], content) == sum) else {
        return Ok(EntryRead::Nothing);
    };
    let lanes = take_changes(content)?;
    let batch = Batch { batch_no: BatchNo(number), topology: Vec::new(), lanes, drop_lanes: Vec::new() };
    Ok(EntryRead::Entry(batch, HEADER_BYTES + len))
}

fn take_changes(mut content: &[u8]) -> io::Result<Vec<LaneChange>> {
    let mut changes = Vec::new();
    for _ in 0..content.try_get_u32_le().map_err(cut_off)? {
        changes.push(take_change(&mut content)?);
    }
    Ok(changes)
}

fn take_change(content: &mut &[u8]) -> io::Result<LaneChange> {
    let numbers = (|| {
        let queue = QueueId(content.try_get_u64_le()?);
        let lane = Lane { queue, level: content.try_get_u8()?, generation: content.try_get_u32_le()? };
        let mut position = || content.try_get_u64_le().map(Position);
        let (head, tail) = (position()?, position()?);
        let state = LaneState {
            head,
            tail,
            count: content.try_get_u64_le()?,
            body_bytes: content.try_get_u64_le()?,
            lent_ceiling: Position(content.try_get_u64_le()?),
        };
        let below = Position(content.try_get_u64_le()?);
        let mut change = LaneChange {
            lane,
            inserts: Vec::new(),
            remove_below: (below > Position(0)).then_some(below),
            remove_ranges: Vec::new(),
            removes: Vec::new(),
            state,
        };
        for _ in 0..content.try_get_u32_le()? {
            let (from, to) = (Position(content.try_get_u64_le()?), Position(content.try_get_u64_le()?));
            change.remove_ranges.push(PositionRange { from, to });
        }
        for _ in 0..content.try_get_u32_le()? {
            change.removes.push(Position(content.try_get_u64_le()?));
        }
        Ok((change, content.try_get_u32_le()?))
    })();
    let (mut change, rows) = numbers.map_err(cut_off)?;
    let left = content.len() as u64;
    let mut records = Records::new(&mut *content, left);
    for _ in 0..rows {
        change.inserts.push(records.next(Position(0))?);
    }
    Ok(change)
}

fn cut_off(error: TryGetError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
