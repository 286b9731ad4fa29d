//! Translates the settings into the settings of each layer.

use super::memory::limit_of_memory;
use crate::auth::mechanism;
use crate::broker::{BrokerSettings, VhostLimits};
use crate::config::Settings;
use crate::queue::{ConsumerLimits, HoldLimits, QueueLimits, WindowLimits};
use crate::session::{ServerProperties, SessionSettings};
use crate::store::commit::WriterSettings;
use crate::store::sqlite::SqliteSettings;

pub(super) fn broker_settings(settings: &Settings) -> BrokerSettings {
    let limits = &settings.limits;
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    BrokerSettings {
        queue_limits: QueueLimits {
            hold: HoldLimits { hold_max: settings.store.hold_max, ack_time_max: settings.store.hold_ack_time_max },
            window: WindowLimits {
                head_entries: limits.windows.head_entries as usize,
                head_entries_min: limits.windows.head_entries_min as usize,
                tail_entries: limits.windows.tail_entries as usize,
                tail_bytes: bytes(limits.windows.tail_bytes),
                head_bytes: bytes(limits.windows.head_bytes),
            },
            consumer: ConsumerLimits {
                messages: limits.consumer_window.messages,
                messages_max: limits.consumer_window.messages_max.max(limits.consumer_window.messages),
                bytes_max: limits.consumer_window.bytes_max,
                unacked_max: limits.channel_unacked_max,
            },
        },
        vhost_limits: VhostLimits {
            queues: limits.vhost_queues_max as usize,
            exchanges: limits.vhost_exchanges_max as usize,
            bindings: limits.vhost_bindings_max as usize,
        },
        windows_bytes: limits.windows.all_bytes,
        unwritten_bytes_max: settings.store.unwritten_bytes_max,
        transient_bytes: match limits.windows.transient_bytes {
            0 => (limit_of_memory(limits.memory_bytes) / TRANSIENT_SHARE).min(TRANSIENT_BYTES_MAX),
            bytes => bytes,
        },
        trust_published_x_death: settings.dead_letter.trust_published_x_death,
        batch_rows_max: settings.store.batch_rows_max as usize,
        batch_bytes_max: bytes(settings.store.batch_bytes_max),
    }
}

/// Default memory of transient messages, as a fraction of the memory limit: one part in this many.
const TRANSIENT_SHARE: u64 = 4;
/// Upper bound of that default, in bytes.
const TRANSIENT_BYTES_MAX: u64 = 4 << 30;

pub(super) fn session_settings(settings: &Settings, cluster_name: &str) -> SessionSettings {
    let version = env!("CARGO_PKG_VERSION");
    SessionSettings {
        properties: ServerProperties {
            product: settings.identity.product.clone(),
            version: settings.identity.version.clone(),
            platform: format!("ProntoMQ {version}"),
            information: format!("ProntoMQ {version}, compatible with RabbitMQ clients"),
            cluster_name: cluster_name.to_owned(),
        },
        mechanisms: mechanism::OFFERED.split(' ').map(str::to_owned).collect(),
        channel_max: settings.connection.channels_max,
        frame_max: settings.connection.frame_max,
        frame_min: settings.connection.initial_frame_max,
        heartbeat_seconds: u16::try_from(settings.connection.heartbeat.as_secs()).unwrap_or(u16::MAX),
        handshake_timeout: settings.connection.handshake_timeout,
        message_bytes_max: settings.connection.message_bytes_max,
        gets_in_flight_max: settings.limits.gets_in_flight_max,
        connection_unfinished_bytes_max: settings.limits.connection_unfinished_bytes,
        unfinished_bytes_max: match settings.limits.unfinished_bytes {
            0 => limit_of_memory(settings.limits.memory_bytes) / 2,
            bytes => bytes,
        },
        channel_consumers_max: settings.limits.channel_consumers_max,
        channel_unacked_max: settings.limits.channel_unacked_max,
        parked_bytes_max: usize::try_from(settings.limits.parked_bytes_max).unwrap_or(usize::MAX),
    }
}

pub(super) fn writer_settings(settings: &Settings) -> WriterSettings {
    WriterSettings {
        rows_max: settings.store.batch_rows_max as usize,
        bytes_max: usize::try_from(settings.store.batch_bytes_max).unwrap_or(usize::MAX),
        give_up_after: settings.store.give_up_after,
        ..WriterSettings::default()
    }
}

/// Most rows of one batch of the scratch store. No publisher waits for such a batch, so it is as large as is efficient;
/// a turn that contributes this many rows is still short.
const SCRATCH_BATCH_ROWS_MAX: usize = 8_192;
/// Most bytes of one batch of the scratch store.
const SCRATCH_BATCH_BYTES_MAX: usize = 4 << 20;

pub(super) fn scratch_writer_settings(settings: &Settings) -> WriterSettings {
    WriterSettings { rows_max: SCRATCH_BATCH_ROWS_MAX, bytes_max: SCRATCH_BATCH_BYTES_MAX, ..writer_settings(settings) }
}

pub(super) fn sqlite_settings(settings: &Settings) -> SqliteSettings {
    let mut sqlite = SqliteSettings::new(&settings.data_dir);
    sqlite.cache_bytes = usize::try_from(settings.store.cache_bytes).unwrap_or(usize::MAX);
    sqlite.durability = settings.store.durability;
    sqlite.durability_interval = settings.store.durability_interval;
    sqlite.log_bytes_max = settings.store.wal_bytes_max;
    sqlite.redo_bytes = settings.store.redo_bytes;
    sqlite
}
