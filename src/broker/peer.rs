//! One connection as the broker sees it: an inlet for what it is to be told, and the permits of its channels.

use crate::model::{ChannelKey, ConnectionId, Name, Notice, QueueId};
use ahash::AHashMap;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// A connection.
#[derive(Debug)]
pub struct Peer {
    id: ConnectionId,
    user: Name,
    inlet: Mutex<Inlet>,
    permits: Mutex<AHashMap<ChannelKey, ChannelPermits>>,
}

#[derive(Debug, Default)]
struct Inlet {
    notices: Vec<Notice>,
    /// Of the connection's task.
    waker: Option<Waker>,
    /// It is to be woken.
    sleeps: bool,
}

/// The prefetch limit that the consumers of a channel share.
#[derive(Debug)]
struct ChannelPermits {
    limit: u32,
    used: u32,
    /// Queues with something for the channel, in the order in which they asked.
    waiting: VecDeque<QueueId>,
}

impl Peer {
    /// A connection that has opened a vhost.
    pub fn new(id: ConnectionId, user: Name) -> Self {
        Self { id, user, inlet: Mutex::default(), permits: Mutex::default() }
    }

    /// Which connection.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whose it is.
    pub fn user(&self) -> &Name {
        &self.user
    }

    /// Adds notices behind those that are there, and wakes the connection's task if it sleeps. `notices` is left empty.
    pub fn tell(&self, notices: &mut Vec<Notice>) {
        let waker = {
            let mut inlet = self.inlet.lock().unwrap_or_else(PoisonError::into_inner);
            if inlet.notices.is_empty() {
                std::mem::swap(&mut inlet.notices, notices);
            } else {
                inlet.notices.append(notices);
            }
            if std::mem::take(&mut inlet.sleeps) { inlet.waker.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Adds one notice.
    pub fn tell_one(&self, notice: Notice) {
        self.tell(&mut vec![notice]);
    }

    /// Takes all notices, in order; `into` is left with them and must be empty before.
    pub fn take(&self, into: &mut Vec<Notice>) {
        debug_assert!(into.is_empty(), "the last notices were dealt with");
        let mut inlet = self.inlet.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut inlet.notices, into);
    }

    /// What waits for the connection takes of memory, without what queues count. One look at each notice: a count kept up
    /// to date would cost every delivery.
    pub(super) fn held_bytes(&self) -> u64 {
        let inlet = self.inlet.lock().unwrap_or_else(PoisonError::into_inner);
        inlet.notices.iter().map(|notice| notice.held_bytes() as u64).sum()
    }

    /// The connection's task is awake, and looks at its notices before it sleeps: what it does itself need not wake it.
    pub fn rouse(&self) {
        self.inlet.lock().unwrap_or_else(PoisonError::into_inner).sleeps = false;
    }

    /// Before the connection's task sleeps: whether there is something after all; else the task is woken when there is.
    pub fn is_ready(&self, waker: &Waker) -> bool {
        let mut inlet = self.inlet.lock().unwrap_or_else(PoisonError::into_inner);
        if !inlet.notices.is_empty() {
            return true;
        }
        match &inlet.waker {
            Some(known) if known.will_wake(waker) => {}
            _ => inlet.waker = Some(waker.clone()),
        }
        inlet.sleeps = true;
        false
    }

    /// Sets a channel's limit, counting `outstanding` against it from the start; 0 takes it away. Returns the queues
    /// that waited for a permit.
    pub(super) fn set_limit(&self, channel: ChannelKey, limit: u32, outstanding: u32) -> Vec<QueueId> {
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = permits.remove(&channel).map(|permits| permits.waiting).unwrap_or_default();
        if limit > 0 {
            permits.insert(channel, ChannelPermits { limit, used: outstanding, waiting: VecDeque::new() });
        }
        waiting.into()
    }

    /// Whether the channel may be given one more; remembers the queue when not. One step.
    pub(super) fn take_permit(&self, channel: ChannelKey, queue: QueueId, counted: bool) -> bool {
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(permits) = permits.get_mut(&channel) else { return true };
        if permits.used < permits.limit {
            permits.used += u32::from(counted);
            return true;
        }
        if !permits.waiting.contains(&queue) {
            permits.waiting.push_back(queue);
        }
        false
    }

    /// Gives permits back; returns the queues that waited, in the order in which they asked.
    pub(super) fn release_permits(&self, channel: ChannelKey, count: u32) -> Vec<QueueId> {
        if count == 0 {
            return Vec::new();
        }
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(permits) = permits.get_mut(&channel) else { return Vec::new() };
        permits.used = permits.used.saturating_sub(count);
        if permits.used < permits.limit { std::mem::take(&mut permits.waiting).into() } else { Vec::new() }
    }
}
