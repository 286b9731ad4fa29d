//! What all connections of a server share.

use super::alarms::Alarms;
use super::clock::Clock;
use super::memory::ClientMemory;
use super::start::session_settings;
use crate::auth::Users;
use crate::broker::Broker;
use crate::config::Settings;
use crate::exposition::Histogram;
use crate::exposition::histogram::MESSAGE_SIZE_BOUNDS;
use crate::session::SessionSettings;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use tokio::sync::watch;

/// Shared by the listeners, the connections and the metrics page.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) session_settings: Arc<SessionSettings>,
    pub(super) broker: Arc<Broker>,
    pub(super) users: RwLock<Users>,
    pub(super) clock: Clock,
    pub(super) stopping: watch::Sender<bool>,
    pub(super) alarms: Alarms,
    pub(super) memory: ClientMemory,
    pub(super) gauges: Gauges,
    pub(super) sizes: Sizes,
}

impl Shared {
    pub(super) fn new(settings: Settings, broker: Arc<Broker>, users: Users, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            session_settings: Arc::new(session_settings(&settings)),
            broker,
            users: RwLock::new(users),
            clock,
            stopping: watch::Sender::new(false),
            alarms: Alarms::new(settings.limits.memory_bytes, settings.limits.resident_bytes),
            memory: ClientMemory::default(),
            gauges: Gauges::default(),
            sizes: Sizes::default(),
            settings,
        })
    }
}

/// What is open now.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    /// Sockets, from accept to close.
    pub(super) connections: AtomicI64,
    /// Those of them that were let in by connection.open.
    pub(super) admitted: AtomicI64,
    pub(super) channels: AtomicI64,
    pub(super) publishers: AtomicI64,
    pub(super) unconfirmed: AtomicI64,
    pub(super) uncommitted: AtomicI64,
    pub(super) acks_uncommitted: AtomicI64,
    pub(super) reads: AtomicU64,
    pub(super) writes: AtomicU64,
}

/// Body sizes of published messages, by the buckets of `MESSAGE_SIZE_BOUNDS`.
#[derive(Debug, Default)]
pub(super) struct Sizes {
    buckets: [AtomicU64; MESSAGE_SIZE_BOUNDS.len() + 1],
    sum: AtomicU64,
}

/// The sizes of one read's messages, to be folded in at its end.
#[derive(Debug, Default)]
pub(super) struct SizesOfRead {
    buckets: [u64; MESSAGE_SIZE_BOUNDS.len() + 1],
    sum: u64,
    count: u64,
}

impl SizesOfRead {
    pub(super) fn record(&mut self, bytes: usize) {
        let bucket = MESSAGE_SIZE_BOUNDS.iter().position(|bound| bytes as f64 <= *bound);
        self.buckets[bucket.unwrap_or(MESSAGE_SIZE_BOUNDS.len())] += 1;
        self.sum += bytes as u64;
        self.count += 1;
    }
}

impl Sizes {
    pub(super) fn fold(&self, read: &mut SizesOfRead) {
        if read.count == 0 {
            return;
        }
        for (bucket, count) in self.buckets.iter().zip(read.buckets) {
            if count > 0 {
                bucket.fetch_add(count, Ordering::Relaxed);
            }
        }
        self.sum.fetch_add(read.sum, Ordering::Relaxed);
        *read = SizesOfRead::default();
    }

    pub(super) fn histogram(&self) -> Histogram {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        Histogram::from_counts(MESSAGE_SIZE_BOUNDS, counts, self.sum.load(Ordering::Relaxed) as f64)
    }
}
