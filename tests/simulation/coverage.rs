//! What the histories came across.

use super::ledger::Seen;

/// Counters of one history.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) frames: u64,
    pub(crate) connections: u64,
    pub(crate) channels_closed_by_broker: u64,
    pub(crate) connections_lost: u64,
    pub(crate) missed_heartbeats: u64,
    pub(crate) crashes: u64,
    pub(crate) alarms: u64,
    /// Times at which nothing was owed to clients any more.
    pub(crate) rests: u64,
    pub(crate) blocked: u64,
    pub(crate) topology_changes: u64,
    pub(crate) batches: u64,
    pub(crate) refused_batches: u64,
    pub(crate) unknown_batches: u64,
    pub(crate) full_disks: u64,
    pub(crate) loads: u64,
    pub(crate) failed_loads: u64,
    pub(crate) spilled: u64,
    pub(crate) cut_short: u64,
    pub(crate) seen: Seen,
}

/// One of the counters.
type Counter = fn(&Coverage) -> u64;

/// All counters, as they are printed.
pub(crate) const COUNTERS: [(&str, Counter); 26] = [
    ("frames", |it| it.frames),
    ("connections", |it| it.connections),
    ("connections lost", |it| it.connections_lost),
    ("missed heartbeats", |it| it.missed_heartbeats),
    ("channels closed by the broker", |it| it.channels_closed_by_broker),
    ("crashes", |it| it.crashes),
    ("losses of power in the midst of a write", |it| it.cut_short),
    ("alarms", |it| it.alarms),
    ("clients blocked", |it| it.blocked),
    ("rests at which all that is owed was checked", |it| it.rests),
    ("topology changes", |it| it.topology_changes),
    ("batches", |it| it.batches),
    ("batches refused", |it| it.refused_batches),
    ("batches of unknown outcome", |it| it.unknown_batches),
    ("full disks", |it| it.full_disks),
    ("loads", |it| it.loads),
    ("loads that failed", |it| it.failed_loads),
    ("messages spilled to the scratch store", |it| it.spilled),
    ("deliveries", |it| it.seen.deliveries),
    ("redeliveries", |it| it.seen.redeliveries),
    ("confirms", |it| it.seen.confirms),
    ("refusals", |it| it.seen.refusals),
    ("dead letters", |it| it.seen.dead_letters),
    ("transactions committed", |it| it.seen.commits),
    ("transactions rolled back", |it| it.seen.rollbacks),
    ("transactions whose outcome was lost", |it| it.seen.torn_off),
];
