//! Examining a file: SQLite's own check, the rows, and the counters about them.

use super::finding::{Finding, LaneName};
use super::walk::{BODIES, CHUNKS, ERASING, LANES, MESSAGES, QUEUES, walk};
use crate::model::Message;
use crate::store::sqlite::lanes::{LaneNumber, POSITION_BITS, position_of};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result, Row};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::RangeInclusive;

/// The most complaints of SQLite's own check.
const COMPLAINTS_MAX: u32 = 20;

/// The row of a lane.
#[derive(Clone, Debug)]
pub(super) struct LaneRow {
    pub(super) queue: i64,
    pub(super) level: u8,
    pub(super) is_dropped: bool,
    pub(super) noted: LaneCounters,
}

/// Counters of a lane, as stored in its row or as counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LaneCounters {
    pub(super) head: i64,
    pub(super) tail: i64,
    pub(super) count: i64,
    pub(super) body_bytes: i64,
    pub(super) bodies: i64,
}

/// A row of the table of bodies, and the counters of its references and chunks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BodyRow {
    pub(super) refs: i64,
    bytes: i64,
    pub(super) found_refs: i64,
    chunks: i64,
    chunk_bytes: i64,
    last_chunk: i64,
}

impl BodyRow {
    fn is_complete(&self) -> bool {
        self.chunk_bytes == self.bytes && self.chunks == self.last_chunk + 1
    }
}

/// The contents of a file, and the faults found in it.
#[derive(Debug, Default)]
pub(super) struct Examination {
    pub(super) findings: Vec<Finding>,
    pub(super) queues: HashMap<i64, (String, String)>,
    pub(super) lanes: BTreeMap<i64, LaneRow>,
    /// Counters of the rows that can be read, by lane.
    pub(super) found: BTreeMap<i64, LaneCounters>,
    pub(super) rows: u64,
    /// Keys of dead rows that are still to be erased.
    dead: Vec<RangeInclusive<i64>>,
    /// How many dead rows have their body in the table of bodies, by lane.
    dead_bodies: BTreeMap<i64, i64>,
    /// Keys of rows that are not messages.
    pub(super) bad_rows: Vec<i64>,
    pub(super) bodies: BTreeMap<i64, BodyRow>,
    pub(super) orphan_chunks: BTreeMap<i64, u64>,
}

/// Examines the whole file. It is an error only if the file cannot be read at all.
pub(super) fn examine(connection: &Connection) -> Result<Examination> {
    let mut examined = Examination::default();
    examined.integrity(connection)?;
    examined.dead = dead_ranges(connection)?;
    examined.topology(connection)?;
    examined.read_bodies(connection)?;
    examined.read_rows(connection)?;
    examined.compare_lanes();
    examined.compare_bodies();
    Ok(examined)
}

impl Examination {
    fn integrity(&mut self, connection: &Connection) -> Result<()> {
        let mut statement = connection.prepare(&format!("PRAGMA integrity_check({COMPLAINTS_MAX})"))?;
        let mut rows = statement.query([])?;
        loop {
            match rows.next() {
                Ok(Some(row)) => {
                    let complaint: String = row.get(0)?;
                    if complaint != "ok" {
                        self.findings.extend(complaint.lines().map(|line| Finding::Damaged(line.to_owned())));
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.findings.push(Finding::Damaged(error.to_string()));
                    return Ok(());
                }
            }
        }
    }

    fn unreadable(&mut self, what: &str, ranges: Vec<RangeInclusive<i64>>) {
        let finding = |keys: RangeInclusive<i64>| {
            let (from, to) = keys.into_inner();
            Finding::Unreadable { what: what.to_owned(), from, to }
        };
        self.findings.extend(ranges.into_iter().map(finding));
    }

    fn topology(&mut self, connection: &Connection) -> Result<()> {
        let everything = i64::MIN..=i64::MAX;
        let queues = &mut self.queues;
        let unreadable = walk(connection, QUEUES, everything.clone(), |row| {
            queues.insert(row.get(0)?, (row.get(1)?, row.get(2)?));
            Ok(())
        })?;
        self.unreadable("queues", unreadable);
        let lanes = &mut self.lanes;
        let unreadable = walk(connection, LANES, everything, |row| {
            let noted = LaneCounters {
                head: row.get(4)?,
                tail: row.get(5)?,
                count: row.get(6)?,
                body_bytes: row.get(7)?,
                bodies: row.get(10)?,
            };
            let lane = LaneRow { queue: row.get(1)?, level: row.get(2)?, is_dropped: row.get(9)?, noted };
            lanes.insert(row.get(0)?, lane);
            Ok(())
        })?;
        self.unreadable("lanes", unreadable);
        self.bindings(connection)
    }

    fn bindings(&mut self, connection: &Connection) -> Result<()> {
        let names: HashSet<&(String, String)> = self.queues.values().collect();
        let mut statement =
            connection.prepare("SELECT vhost, source, destination FROM binding WHERE destination_kind = 0")?;
        let mut rows = statement.query([])?;
        loop {
            match rows.next() {
                Ok(Some(row)) => {
                    let (vhost, source, queue): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
                    if !names.contains(&(vhost.clone(), queue.clone())) {
                        self.findings.push(Finding::Binding { vhost, source, queue });
                    }
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    self.findings.push(Finding::Damaged(format!("bindings: {error}")));
                    return Ok(());
                }
            }
        }
    }

    fn read_bodies(&mut self, connection: &Connection) -> Result<()> {
        let everything = i64::MIN..=i64::MAX;
        let bodies = &mut self.bodies;
        let unreadable = walk(connection, BODIES, everything.clone(), |row| {
            let body = BodyRow { refs: row.get(1)?, bytes: row.get(2)?, last_chunk: -1, ..BodyRow::default() };
            bodies.insert(row.get(0)?, body);
            Ok(())
        })?;
        let (bodies, orphans) = (&mut self.bodies, &mut self.orphan_chunks);
        let unreadable_chunks = walk(connection, CHUNKS, everything, |row| {
            let id: i64 = row.get(0)?;
            let (body, index) = (id >> 16, id & 0xFFFF);
            match bodies.get_mut(&body) {
                Some(body) => {
                    body.chunks += 1;
                    body.chunk_bytes += row.get_ref(1)?.as_blob().map_or(0, <[u8]>::len) as i64;
                    body.last_chunk = index;
                }
                None => *orphans.entry(body).or_default() += 1,
            }
            Ok(())
        })?;
        self.unreadable("bodies", unreadable);
        self.unreadable("chunks of bodies", unreadable_chunks);
        Ok(())
    }

    /// Reads the rows lane by lane, and rows between lanes.
    fn read_rows(&mut self, connection: &Connection) -> Result<()> {
        let mut from = i64::MIN;
        let numbers: Vec<i64> = self.lanes.keys().copied().collect();
        for number in numbers {
            let Some((first, last)) = keys_of(number) else { continue };
            if from < first {
                self.read_range(connection, from..=first - 1, None)?;
            }
            self.read_range(connection, first..=last, Some(number))?;
            match last.checked_add(1) {
                Some(next) => from = next,
                None => return Ok(()),
            }
        }
        self.read_range(connection, from..=i64::MAX, None)
    }

    fn read_range(&mut self, connection: &Connection, keys: RangeInclusive<i64>, lane: Option<i64>) -> Result<()> {
        let mut strangers: BTreeMap<i64, u64> = BTreeMap::new();
        let unreadable = walk(connection, MESSAGES, keys, |row| {
            self.rows += 1;
            match lane {
                Some(lane) => self.read_row(lane, row)?,
                None => *strangers.entry(row.get::<_, i64>(0)? >> POSITION_BITS).or_default() += 1,
            }
            Ok(())
        })?;
        self.findings.extend(strangers.into_iter().map(|(number, rows)| Finding::UnknownLane { number, rows }));
        let what = lane.map_or_else(|| "rows of no lane".into(), |lane| format!("{}, positions", self.name_of(lane)));
        let position = |key: i64| position_of(key).0.cast_signed();
        let of_lane = |keys: RangeInclusive<i64>| position(*keys.start())..=position(*keys.end());
        self.unreadable(&what, unreadable.into_iter().map(of_lane).collect());
        Ok(())
    }

    fn read_row(&mut self, lane: i64, row: &Row<'_>) -> Result<()> {
        let key: i64 = row.get(0)?;
        let position = position_of(key).0.cast_signed();
        if self.dead.iter().any(|range| range.contains(&key)) {
            if let ValueRef::Integer(body) = row.get_ref(4)? {
                *self.dead_bodies.entry(lane).or_default() += 1;
                if let Some(body) = self.bodies.get_mut(&body) {
                    body.found_refs += 1;
                }
            }
            return Ok(());
        }
        match self.body_bytes(row) {
            Ok(body_bytes) => {
                let counters =
                    self.found.entry(lane).or_insert(LaneCounters { head: position, ..LaneCounters::default() });
                counters.tail = position;
                counters.count += 1;
                counters.body_bytes += body_bytes;
                if let ValueRef::Integer(body) = row.get_ref(4)? {
                    counters.bodies += 1;
                    if let Some(body) = self.bodies.get_mut(&body) {
                        body.found_refs += 1;
                    }
                }
            }
            Err(why) => {
                self.bad_rows.push(key);
                self.findings.push(Finding::NoMessage { lane: self.name_of(lane), position, why });
            }
        }
        Ok(())
    }

    /// The length of a row's body, or why the row is no message.
    fn body_bytes(&self, row: &Row<'_>) -> std::result::Result<i64, &'static str> {
        const NO_MESSAGE: &str = "is no message";
        let head = row.get_ref(3).ok().and_then(|head| head.as_blob().ok()).ok_or(NO_MESSAGE)?;
        let (body, elsewhere) = match row.get_ref(4).map_err(|_| NO_MESSAGE)? {
            ValueRef::Null => (None, 0),
            ValueRef::Blob(body) => (Some(body.to_vec()), 0),
            ValueRef::Integer(id) => {
                let body = self.bodies.get(&id).ok_or("names a body that is not there")?;
                if !body.is_complete() {
                    return Err("names a body of which a part is missing");
                }
                (None, body.bytes)
            }
            _ => return Err("has a body of a kind that there is not"),
        };
        let message = Message::from_stored(head, body).ok_or(NO_MESSAGE)?;
        Ok(message.body_len() as i64 + elsewhere)
    }

    pub(super) fn name_of(&self, number: i64) -> LaneName {
        let lane = self.lanes.get(&number);
        LaneName {
            queue: lane.and_then(|lane| self.queues.get(&lane.queue)).cloned(),
            level: lane.map_or(0, |lane| lane.level),
            number,
        }
    }

    /// The counters that a lane's row should have. Positions are never used twice, so the tail does not fall.
    pub(super) fn should_be(&self, number: i64, lane: &LaneRow) -> LaneCounters {
        let noted = lane.noted;
        let mut counters = match self.found.get(&number) {
            Some(found) => {
                LaneCounters { head: noted.head.min(found.head), tail: noted.tail.max(found.tail), ..*found }
            }
            None => LaneCounters { head: noted.head, tail: noted.tail, ..LaneCounters::default() },
        };
        counters.bodies += self.dead_bodies.get(&number).copied().unwrap_or(0);
        counters
    }

    fn compare_lanes(&mut self) {
        let mut findings = Vec::new();
        for (&number, lane) in self.lanes.iter().filter(|(_, lane)| !lane.is_dropped) {
            let name = self.name_of(number);
            let (noted, found) = (lane.noted, self.should_be(number, lane));
            if name.queue.is_none() {
                findings.push(Finding::UnknownQueue { lane: name, rows: found.count.unsigned_abs() });
                continue;
            }
            let counters = [
                ("the first position", noted.head, found.head),
                ("the last position", noted.tail, found.tail),
                ("the number of messages", noted.count, found.count),
                ("the bytes of bodies", noted.body_bytes, found.body_bytes),
                ("the number of bodies elsewhere", noted.bodies, found.bodies),
            ];
            for (counter, noted, found) in counters.into_iter().filter(|(_, noted, found)| noted != found) {
                findings.push(Finding::Counters { lane: name.clone(), counter, noted, found });
            }
        }
        self.findings.extend(findings);
    }

    fn compare_bodies(&mut self) {
        for (&id, body) in &self.bodies {
            let (noted, found) = (body.refs, body.found_refs);
            if found == 0 {
                self.findings.push(Finding::OrphanBody { body: id });
            } else if noted != found {
                self.findings.push(Finding::BodyRefs { body: id, noted, found });
            }
        }
        let orphans = self.orphan_chunks.iter();
        self.findings.extend(orphans.map(|(&body, &chunks)| Finding::OrphanChunks { body, chunks }));
    }
}

/// The keys of dead rows that are still to be erased, as far as they can be read.
pub(super) fn dead_ranges(connection: &Connection) -> Result<Vec<RangeInclusive<i64>>> {
    let mut dead = Vec::new();
    walk(connection, ERASING, i64::MIN..=i64::MAX, |row| {
        dead.push(row.get(0)?..=row.get(1)?);
        Ok(())
    })?;
    Ok(dead)
}

/// The keys of a lane's rows; `None` for a number that no lane can have.
pub(super) fn keys_of(number: i64) -> Option<(i64, i64)> {
    let number = u32::try_from(number).ok().filter(|number| *number < 1 << 23)?;
    Some(LaneNumber(number).keys().into_inner())
}
