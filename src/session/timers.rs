//! The deadlines of a connection without input: heartbeats, and the end of the handshake.
//!
//! With a heartbeat of T, both directions are checked every T/2. A client that has been silent for 2T at a check is dead, so
//! its connection ends between 2T and 2.5T after its last byte. The broker sends a heartbeat whenever it has sent nothing
//! since the check before.

use crate::model::Monotonic;
use crate::wire::writer::write_heartbeat;
use std::time::Duration;

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    /// Bytes came from the client recently enough, or there are no heartbeats.
    Alive,
    /// The client has been silent for too long.
    Dead,
}

impl Pulse {
    pub(super) fn is_dead(self) -> bool {
        self == Self::Dead
    }
}

/// The deadlines of one connection.
#[derive(Debug)]
pub(super) struct Timers {
    handshake_deadline: Monotonic,
    /// Zero when there are no heartbeats.
    heartbeat: Duration,
    next_check: Option<Monotonic>,
    /// When the client was last known to be alive.
    last_alive: Monotonic,
    has_sent_since_check: bool,
}

impl Timers {
    pub(super) fn new(now: Monotonic, handshake_timeout: Duration) -> Self {
        Self {
            handshake_deadline: now.plus(handshake_timeout),
            heartbeat: Duration::ZERO,
            next_check: None,
            last_alive: now,
            has_sent_since_check: false,
        }
    }

    pub(super) fn handshake_deadline(&self) -> Monotonic {
        self.handshake_deadline
    }

    /// Zero when there are no heartbeats.
    pub(super) fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// Begins heartbeats; zero means none.
    pub(super) fn begin_heartbeats(&mut self, now: Monotonic, heartbeat: Duration) {
        self.heartbeat = heartbeat;
        self.last_alive = now;
        // The first check always sends a heartbeat.
        self.has_sent_since_check = false;
        self.next_check = (!heartbeat.is_zero()).then(|| now.plus(heartbeat / 2));
    }

    pub(super) fn client_alive(&mut self, at: Monotonic) {
        self.last_alive = self.last_alive.max(at);
    }

    pub(super) fn sent(&mut self) {
        self.has_sent_since_check = true;
    }

    pub(super) fn next(&self) -> Option<Monotonic> {
        self.next_check
    }

    pub(super) fn tick(&mut self, now: Monotonic, out: &mut Vec<u8>) -> Pulse {
        let Some(due) = self.next_check.filter(|due| *due <= now) else { return Pulse::Alive };
        if now.since(self.last_alive) >= self.heartbeat * 2 {
            return Pulse::Dead;
        }
        if !std::mem::take(&mut self.has_sent_since_check) {
            write_heartbeat(out);
        }
        let half = self.heartbeat / 2;
        // After a late check the next one is due now at the earliest.
        self.next_check = Some(due.plus(half).max(now));
        Pulse::Alive
    }
}
