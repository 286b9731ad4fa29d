//! Every reason for which a connection wakes without input: heartbeats and the handshake's end.
//!
//! With a heartbeat of T, both directions are looked at every T/2. A client that was silent for 2T when looked at is
//! dead, so it is dropped between 2T and 2.5T after its last byte. The broker sends a heartbeat whenever it has sent
//! nothing since the look before.

use crate::model::Monotonic;
use crate::wire::writer::write_heartbeat;
use std::time::Duration;

/// What a look at the clock found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    /// The client was heard of lately, or need not be.
    Alive,
    /// It was not.
    Dead,
}

impl Pulse {
    pub(super) fn is_dead(self) -> bool {
        self == Self::Dead
    }
}

#[derive(Debug)]
pub(super) struct Timers {
    handshake: Monotonic,
    heartbeat: Duration,
    next_look: Option<Monotonic>,
    heard: Monotonic,
    sent_since_look: bool,
}

impl Timers {
    pub(super) fn new(now: Monotonic, handshake_timeout: Duration) -> Self {
        Self {
            handshake: now.plus(handshake_timeout),
            heartbeat: Duration::ZERO,
            next_look: None,
            heard: now,
            sent_since_look: false,
        }
    }

    pub(super) fn handshake_deadline(&self) -> Monotonic {
        self.handshake
    }

    /// Zero when there are no heartbeats.
    pub(super) fn heartbeat(&self) -> Duration {
        self.heartbeat
    }

    /// Heartbeats begin; zero means none.
    pub(super) fn begin_heartbeats(&mut self, now: Monotonic, heartbeat: Duration) {
        self.heartbeat = heartbeat;
        self.heard = now;
        // The first look always sends.
        self.sent_since_look = false;
        self.next_look = (!heartbeat.is_zero()).then(|| now.plus(heartbeat / 2));
    }

    pub(super) fn heard(&mut self, at: Monotonic) {
        self.heard = self.heard.max(at);
    }

    pub(super) fn sent(&mut self) {
        self.sent_since_look = true;
    }

    pub(super) fn next(&self) -> Option<Monotonic> {
        self.next_look
    }

    pub(super) fn tick(&mut self, now: Monotonic, out: &mut Vec<u8>) -> Pulse {
        let Some(look) = self.next_look.filter(|look| *look <= now) else { return Pulse::Alive };
        if now.since(self.heard) >= self.heartbeat * 2 {
            return Pulse::Dead;
        }
        if !std::mem::take(&mut self.sent_since_look) {
            write_heartbeat(out);
        }
        let half = self.heartbeat / 2;
        // A late look does not make the next one earlier than half a heartbeat from now.
        self.next_look = Some(look.plus(half).max(now));
        Pulse::Alive
    }
}
