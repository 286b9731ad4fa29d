//! The state that all connections of a server share.

use super::alarms::Alarms;
use super::clock::Clock;
use super::errors::Errors;
#[cfg(feature = "metrics")]
use super::http::Clients;
use super::log_writer::LogWriter;
use super::memory::ClientMemory;
use super::translate::session_settings;
use crate::broker::Broker;
use crate::config::Settings;
#[cfg(feature = "metrics")]
use crate::exposition::Histogram;
use crate::exposition::bounds::MESSAGE_SIZE_BOUNDS;
use crate::session::SessionSettings;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;

/// Shared by the listeners, the connections and the metrics page.
#[derive(Debug)]
pub(super) struct Shared {
    /// The settings at the start. `current` has the ones that can change.
    pub(super) settings: Settings,
    current: RwLock<Arc<Current>>,
    /// `limits.outbox_bytes_max` of the current settings: every pass of a connection reads it, without a lock.
    outbox_bytes_max: AtomicU64,
    /// `limits.moderation` of the current settings, in microseconds.
    moderation_us: AtomicU64,
    pub(super) identity: Identity,
    pub(super) broker: Arc<Broker>,
    pub(super) clock: Clock,
    /// Set when the server begins to stop.
    pub(super) stopping: watch::Sender<bool>,
    /// Set when the stop no longer waits for clients to close their connections.
    pub(super) cut_off: watch::Sender<bool>,
    pub(super) alarms: Alarms,
    pub(super) memory: ClientMemory,
    pub(super) sizes: MessageSizes,
    pub(super) errors: Errors,
    #[cfg(feature = "metrics")]
    pub(super) http_clients: Clients,
    /// The writers of the process's log.
    #[cfg_attr(not(feature = "metrics"), expect(dead_code, reason = "only the metrics page counts dropped lines"))]
    pub(super) logs: Vec<LogWriter>,
}

/// The settings in force, and the session settings derived from them.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) settings: Settings,
    pub(super) session_settings: Arc<SessionSettings>,
}

/// The names of the node and the cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Identity {
    pub(super) node_name: String,
    pub(super) cluster_name: String,
    pub(super) cluster_id: String,
}

impl Shared {
    pub(super) fn new(
        settings: Settings,
        identity: Identity,
        broker: Arc<Broker>,
        clock: Clock,
        logs: Vec<LogWriter>,
    ) -> Arc<Self> {
        Arc::new(Self {
            current: RwLock::new(Arc::new(Current::new(settings.clone(), &identity))),
            outbox_bytes_max: AtomicU64::new(settings.limits.outbox_bytes_max),
            moderation_us: AtomicU64::new(micros(settings.loops.moderation)),
            identity,
            broker,
            clock,
            stopping: watch::Sender::new(false),
            cut_off: watch::Sender::new(false),
            alarms: Alarms::new(settings.limits.memory_bytes, settings.limits.resident_bytes),
            memory: ClientMemory::default(),
            sizes: MessageSizes::default(),
            errors: Errors::default(),
            #[cfg(feature = "metrics")]
            http_clients: Clients::default(),
            logs,
            settings,
        })
    }

    /// The settings in force.
    pub(super) fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts new settings in force. Only those that can change while the broker runs may differ.
    pub(super) fn apply_settings(&self, settings: Settings) {
        self.outbox_bytes_max.store(settings.limits.outbox_bytes_max, Ordering::Relaxed);
        self.moderation_us.store(micros(settings.loops.moderation), Ordering::Relaxed);
        self.alarms.set_limits(settings.limits.memory_bytes, settings.limits.resident_bytes);
        let current = Arc::new(Current::new(settings, &self.identity));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = current;
    }

    /// Whether the server stops.
    pub(super) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Whether the stop no longer waits for clients to close their connections.
    pub(super) fn is_cut_off(&self) -> bool {
        *self.cut_off.borrow()
    }

    /// What a quick client sends in this time is gathered in its socket.
    pub(super) fn moderation(&self) -> Duration {
        Duration::from_micros(self.moderation_us.load(Ordering::Relaxed))
    }

    /// Largest output that may wait for one socket, in bytes.
    pub(super) fn outbox_bytes_max(&self) -> usize {
        usize::try_from(self.outbox_bytes_max.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl Current {
    fn new(settings: Settings, identity: &Identity) -> Self {
        let session_settings = Arc::new(session_settings(&settings, &identity.cluster_name));
        Self { settings, session_settings }
    }
}

/// Body sizes of all published messages, in the buckets of `MESSAGE_SIZE_BOUNDS`.
#[derive(Debug, Default)]
pub(super) struct MessageSizes {
    buckets: [AtomicU64; MESSAGE_SIZE_BOUNDS.len() + 1],
    sum: AtomicU64,
}

/// Body sizes of the messages of one read; added to `MessageSizes` at its end.
#[derive(Debug, Default)]
pub(super) struct ReadSizes {
    buckets: [u64; MESSAGE_SIZE_BOUNDS.len() + 1],
    sum: u64,
    count: u64,
}

impl ReadSizes {
    pub(super) fn record(&mut self, bytes: usize) {
        let bucket = MESSAGE_SIZE_BOUNDS.iter().position(|bound| bytes as f64 <= *bound);
        self.buckets[bucket.unwrap_or(MESSAGE_SIZE_BOUNDS.len())] += 1;
        self.sum += bytes as u64;
        self.count += 1;
    }
}

impl MessageSizes {
    pub(super) fn fold(&self, read: &mut ReadSizes) {
        if read.count == 0 {
            return;
        }
        for (bucket, count) in self.buckets.iter().zip(read.buckets) {
            if count > 0 {
                bucket.fetch_add(count, Ordering::Relaxed);
            }
        }
        self.sum.fetch_add(read.sum, Ordering::Relaxed);
        *read = ReadSizes::default();
    }

    #[cfg(feature = "metrics")]
    pub(super) fn histogram(&self) -> Histogram {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        Histogram::from_counts(MESSAGE_SIZE_BOUNDS, counts, self.sum.load(Ordering::Relaxed) as f64)
    }
}
