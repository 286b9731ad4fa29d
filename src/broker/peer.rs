//! One connection as the broker sees it: an inlet for its notices, and the permits of its channels.

use super::object_metrics::SharedTraffic;
use super::permits::{ChannelPermits, Grant, PermitCounts};
use crate::model::{AmqpError, ChannelKey, ConnectionId, Holder, LimitId, LimitKey, Name, Notice, QueueId, WallMillis};
use ahash::AHashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// The client of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    /// The client's address.
    pub address: SocketAddr,
    /// The name that the client gave the connection; may be empty.
    pub name: String,
    /// When the client opened its vhost.
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
    /// `close` was called: the notice to close the connection is in the inlet.
    is_to_close: AtomicBool,
}

#[derive(Debug, Default)]
struct Inlet {
    notices: Vec<Notice>,
    /// Wakes the connection's task.
    waker: Option<Waker>,
    /// The task sleeps: the next notice must wake it.
    is_asleep: bool,
}

impl Peer {
    /// A connection, as yet without a vhost.
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

    /// Sets the vhost that the connection has opened.
    #[must_use]
    pub fn in_vhost(self, vhost: Name) -> Self {
        Self { vhost, ..self }
    }

    /// Sets the connection's client.
    #[must_use]
    pub(super) fn with_client(self, client: Client) -> Self {
        Self { client: Some(client), ..self }
    }

    /// The client; `None` in tests that have no socket.
    pub(super) fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Counts of the connection's events since it opened its vhost. Only the connection's own passes write them.
    pub(crate) fn traffic(&self) -> &SharedTraffic {
        &self.traffic
    }

    /// The connection's id.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The user that has logged in.
    pub fn user(&self) -> &Name {
        &self.user
    }

    /// The vhost that the connection has opened.
    pub fn vhost(&self) -> &Name {
        &self.vhost
    }

    /// Appends notices to the inlet, and wakes the connection's task if it sleeps. Leaves `notices` empty.
    pub fn notify(&self, notices: &mut Vec<Notice>) {
        let waker = {
            let mut inlet = self.inlet.lock().unwrap_or_else(PoisonError::into_inner);
            if inlet.notices.is_empty() {
                std::mem::swap(&mut inlet.notices, notices);
            } else {
                inlet.notices.append(notices);
            }
            if std::mem::take(&mut inlet.is_asleep) { inlet.waker.take() } else { None }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Appends one notice to the inlet, and wakes the connection's task if it sleeps.
    pub fn notify_one(&self, notice: Notice) {
        self.notify(&mut vec![notice]);
    }

    /// Moves all notices, in order, to `into`, which must be empty.
    pub fn take(&self, into: &mut Vec<Notice>) {
        debug_assert!(into.is_empty(), "the previous notices were handled");
        let mut inlet = self.inlet.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut inlet.notices, into);
    }

    /// Closes the connection, however much output waits.
    pub fn close(&self, error: AmqpError) {
        self.is_to_close.store(true, Ordering::Relaxed);
        self.notify_one(Notice::Close(error));
    }

    /// Whether `close` was called.
    pub fn is_to_close(&self) -> bool {
        self.is_to_close.load(Ordering::Relaxed)
    }

    /// Bytes of memory that the waiting notices take, without the messages that queues count. Visits each notice: a
    /// running sum would cost time at every delivery.
    pub(super) fn held_bytes(&self) -> u64 {
        let inlet = self.inlet.lock().unwrap_or_else(PoisonError::into_inner);
        inlet.notices.iter().map(|notice| notice.held_bytes() as u64).sum()
    }

    /// Records that the connection's task is awake. The task checks the inlet before it sleeps, so until then notices
    /// need not wake it.
    pub fn note_awake(&self) {
        self.inlet.lock().unwrap_or_else(PoisonError::into_inner).is_asleep = false;
    }

    /// Whether notices are waiting. If not, records that the task sleeps: the next notice calls the waker.
    pub fn has_notices(&self, waker: &Waker) -> bool {
        let mut inlet = self.inlet.lock().unwrap_or_else(PoisonError::into_inner);
        if !inlet.notices.is_empty() {
            return true;
        }
        match &inlet.waker {
            Some(known) if known.will_wake(waker) => {}
            _ => inlet.waker = Some(waker.clone()),
        }
        inlet.is_asleep = true;
        false
    }

    /// Begins a channel's limit.
    pub(super) fn begin_limit(&self, channel: ChannelKey, permits: ChannelPermits) {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner).insert(channel, permits);
    }

    /// Ends a channel's limit, if it has one: all its permits become void.
    pub(super) fn end_limit(&self, channel: ChannelKey) {
        self.permits.lock().unwrap_or_else(PoisonError::into_inner).remove(&channel);
    }

    /// Applies `act` to the permits of a channel's limit, under the lock. Returns `None` if the channel has no limit,
    /// or another than `limit`.
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

    /// The use of a channel's limit, if it has one.
    pub fn permit_counts(&self, channel: ChannelKey) -> Option<PermitCounts> {
        self.with_permits(channel, None, |permits| permits.counts())
    }

    /// Revokes all permits granted to a queue that has failed. Returns the permits that other queues are granted
    /// instead, by limit.
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
