//! One connection as the broker sees it: an inlet for what it is to be told, and the permits of its channels.

use super::object_metrics::SharedTraffic;
use super::permits::{ChannelPermits, Grant, PermitCounts};
use crate::model::{AmqpError, ChannelKey, ConnectionId, Holder, LimitId, LimitKey, Name, Notice, QueueId, WallMillis};
use ahash::AHashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    /// Where it connected from.
    pub address: SocketAddr,
    /// The name that it gave the connection; may be empty.
    pub name: String,
    /// When it opened its vhost.
    pub opened_at: WallMillis,
}

/// A connection.
#[derive(Debug)]
pub struct Peer {
    id: ConnectionId,
    user: Name,
    vhost: Name,
    client: Option<Client>,
    traffic: SharedTraffic,
    inlet: Mutex<Inlet>,
    permits: Mutex<AHashMap<ChannelKey, ChannelPermits>>,
    /// A notice of its end is in the inlet.
    is_to_close: AtomicBool,
}

#[derive(Debug, Default)]
struct Inlet {
    notices: Vec<Notice>,
    /// Of the connection's task.
    waker: Option<Waker>,
    /// It is to be woken.
    sleeps: bool,
}

impl Peer {
    /// A connection that has opened a vhost.
    pub fn new(id: ConnectionId, user: Name) -> Self {
        let vhost = Name::from("");
        Self {
            id,
            user,
            vhost,
            client: None,
            traffic: SharedTraffic::default(),
            inlet: Mutex::default(),
            permits: Mutex::default(),
            is_to_close: AtomicBool::default(),
        }
    }

    /// The same, with the vhost that it has opened.
    #[must_use]
    pub fn in_vhost(self, vhost: Name) -> Self {
        Self { vhost, ..self }
    }

    /// The same, with its client.
    #[must_use]
    pub(super) fn with_client(self, client: Client) -> Self {
        Self { client: Some(client), ..self }
    }

    /// The other end; none in tests that have no socket.
    pub(super) fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// What the connection has done since it opened its vhost. Written by the connection's own passes.
    pub(crate) fn traffic(&self) -> &SharedTraffic {
        &self.traffic
    }

    /// Which connection.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Whose it is.
    pub fn user(&self) -> &Name {
        &self.user
    }

    /// The vhost that it has opened.
    pub fn vhost(&self) -> &Name {
        &self.vhost
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

    /// Closes the connection, however much output waits.
    pub fn close(&self, error: AmqpError) {
        self.is_to_close.store(true, Ordering::Relaxed);
        self.tell_one(Notice::Close(error));
    }

    /// Whether `close` was called.
    pub fn is_to_close(&self) -> bool {
        self.is_to_close.load(Ordering::Relaxed)
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

    /// A channel's limit begins.
    pub(super) fn begin_limit(&self, channel: ChannelKey, permits: ChannelPermits) {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner).insert(channel, permits);
    }

    /// A channel's limit ends, if it has one: all its permits are void.
    pub(super) fn end_limit(&self, channel: ChannelKey) {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner).remove(&channel);
    }

    /// Does something to the permits of a channel's limit, if it has one and it is the one that is meant. One step.
    pub(super) fn with_permits<T>(
        &self,
        channel: ChannelKey,
        limit: Option<LimitId>,
        act: impl FnOnce(&mut ChannelPermits) -> T,
    ) -> Option<T> {
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        let permits = permits.get_mut(&channel).filter(|permits| limit.is_none_or(|limit| permits.id() == limit))?;
        Some(act(permits))
    }

    /// What of a channel's limit is in use, if it has one.
    pub fn permit_counts(&self, channel: ChannelKey) -> Option<PermitCounts> {
        self.with_permits(channel, None, |permits| permits.counts())
    }

    /// A queue has failed: all that it was granted goes back. Returns what others are granted of it, by limits.
    pub(super) fn revoke_grants(&self, queue: QueueId) -> Vec<(LimitKey, Vec<Grant>)> {
        let mut permits = self.permits.lock().unwrap_or_else(PoisonError::into_inner);
        let revoke = |(channel, permits): (&ChannelKey, &mut ChannelPermits)| {
            let mut grants = Vec::new();
            permits.revoke(queue, &mut grants);
            let holder = Holder { connection: self.id, channel: *channel };
            (LimitKey { holder, id: permits.id() }, grants)
        };
        let mut revoked: Vec<_> = permits.iter_mut().map(revoke).collect();
        revoked.sort_unstable_by_key(|(limit, _)| limit.holder);
        revoked
    }
}
