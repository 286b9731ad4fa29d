//! The settings themselves, with their defaults.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::entries::{UserEntry, VhostEntry};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Everything that can be set. `Settings::default()` is a broker for the machine it runs on and nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Where the store keeps its files.
    pub data_dir: PathBuf,
    /// Addresses that speak AMQP; port 0 picks a free one.
    pub amqp: Vec<SocketAddr>,
    /// Address of `/metrics`, `/healthz` and `/readyz`; `None` when off. Without the feature `metrics` it is off, and an address
    /// is refused at the start.
    pub metrics: Option<SocketAddr>,
    /// Open connections.
    pub connections_max: u32,
    /// Open channels per connection, as offered in `connection.tune`.
    pub channels_max: u16,
    /// Bytes of a frame after tuning, frame header and end included.
    pub frame_max: u32,
    /// Bytes of a frame before tuning.
    pub initial_frame_max: u32,
    /// Heartbeat interval as offered in `connection.tune`, of whole seconds; zero offers none.
    pub heartbeat: Duration,
    /// How long a client may take from connecting to `connection.open`.
    pub handshake_timeout: Duration,
    /// Body bytes of one message.
    pub message_bytes_max: u64,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written.
    pub log_level: LogLevel,
    /// Bytes of log lines that wait to be written.
    pub log_queue_bytes_max: u64,
    /// Open connections of the metrics listener.
    pub metrics_connections_max: u32,
    /// How long a connection of the metrics listener may last.
    pub metrics_timeout: Duration,
    /// `product` of the server properties.
    pub product: String,
    /// `version` of the server properties.
    pub version: String,
    /// `cluster_name` of the server properties and in metrics; the node's name when empty.
    pub cluster_name: String,
    /// This node's name in metrics; made of the host's name when empty.
    pub node_name: String,
    /// Users that may log in from this machine only.
    pub loopback_users: Vec<String>,
    /// The store.
    pub store: StoreSettings,
    /// Limits of buffers.
    pub limits: Limits,
    /// Dead letters.
    pub dead_letter: DeadLetterSettings,
    /// Vhosts made at start when they are missing; the only ones that can be opened, apart from `/`.
    pub vhosts: Vec<VhostEntry>,
    /// Users made or changed at start; others that were made so before are deleted.
    pub users: Vec<UserEntry>,
}

/// The store's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreSettings {
    /// Which implementation.
    pub kind: StoreKind,
    /// Bytes of the page cache.
    pub cache_bytes: u64,
    /// Rows of one transaction.
    pub batch_rows_max: u32,
    /// Bytes of one transaction.
    pub batch_bytes_max: u64,
    /// When what is committed is flushed, and so what a confirm means.
    pub durability: Durability,
    /// At the level `interval`, how long after its commit at most.
    pub durability_interval: Duration,
    /// Bytes of the write-ahead log that it should not exceed.
    pub wal_bytes_max: u64,
    /// Bytes of the redo log; without any there is none.
    pub redo_bytes: u64,
    /// Bytes that wait to be written, beyond which publishers are not read.
    pub unwritten_bytes_max: u64,
    /// How long flushes may keep failing before the store counts as failed.
    pub give_up_after: Duration,
    /// How long a row in a consumer's hands may wait.
    pub hold_max: Duration,
    /// The average ack time above which none waits.
    pub hold_ack_time_max: Duration,
}

/// Limits of what is held for one connection, consumer or queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of memory for messages, beyond which publishers are blocked; 0 is a share of the machine's.
    pub memory_bytes: u64,
    /// Bytes of memory that are resident, beyond which they are; 0 is `memory_bytes` and an allowance for the broker itself.
    pub resident_bytes: u64,
    /// Bytes of free disk below which they are.
    pub disk_free_bytes: u64,
    /// Bytes of contents and transactions of one connection that are not complete.
    pub connection_unfinished_bytes: u64,
    /// The same of all connections; 0 is half of `memory_bytes`.
    pub unfinished_bytes: u64,
    /// Consumers of one channel.
    pub channel_consumers_max: u32,
    /// Unacknowledged deliveries of one consumer, and of a channel that gets more.
    pub channel_unacked_max: u32,
    /// Queues of one vhost.
    pub vhost_queues_max: u32,
    /// Exchanges of one vhost.
    pub vhost_exchanges_max: u32,
    /// Bindings of one vhost.
    pub vhost_bindings_max: u32,
    /// Bytes waiting to be written to a socket; beyond it its consumers are lent nothing new.
    pub outbox_bytes_max: u64,
    /// Gets of one connection that wait for their answers at the same time.
    pub gets_in_flight_max: u32,
    /// Bytes of frames parked behind an unanswered method; beyond it the socket is not read.
    pub parked_bytes_max: u64,
    /// Messages on their way to one consumer at first.
    pub consumer_window_messages: u32,
    /// Messages on their way to one consumer once it has shown that it keeps up.
    pub consumer_window_messages_max: u32,
    /// Body bytes on their way to one consumer.
    pub consumer_window_bytes_max: u64,
    /// Bytes of the ready messages that all queues together should keep in memory although the store has them.
    pub windows_bytes: u64,
    /// Bytes of transient messages in memory; beyond it they go to the scratch store. 0 is a quarter of the memory
    /// limit, at most 4 GiB.
    pub transient_bytes: u64,
    /// Messages at the head of a level that are kept in memory.
    pub window_entries: u32,
    /// And those that are however short memory runs.
    pub window_entries_min: u32,
    /// Messages behind it that are.
    pub window_tail_entries: u32,
    /// The same in bytes.
    pub window_tail_bytes: u64,
    /// Bytes of the head, and of one read from the store.
    pub window_bytes: u64,
}

/// How messages are dead-lettered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterSettings {
    /// Whether `x-death` that a publisher brings along is counted on, as RabbitMQ 3.13 does it, or replaced, as 4.0 does it.
    pub trust_published_x_death: bool,
}

/// Implementations of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreKind {
    /// One SQLite file in the data directory.
    Sqlite,
    /// Nothing outlives the process.
    Memory,
}

/// When what is committed is flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Before its confirm.
    Commit,
    /// Some time after its confirm.
    Interval,
    /// When the operating system likes.
    Off,
}

impl Durability {
    /// Its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Interval => "interval",
            Self::Off => "off",
        }
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// `Human` on a terminal, `Json` otherwise.
    Auto,
    /// For reading.
    Human,
    /// One JSON object a line.
    Json,
}

/// Which log lines are written: this level and those above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogLevel {
    /// Nobody can work on.
    Error,
    /// Somebody should look.
    Warn,
    /// Connections, topology, start and stop.
    Info,
    /// What a developer wants.
    Debug,
    /// Every frame.
    Trace,
}

impl Settings {
    /// For a broker inside a program or a test that forgets everything when it stops: its store is in memory, it has no metrics
    /// page, and it listens on a free port of 127.0.0.1.
    pub fn in_memory() -> Self {
        let store = StoreSettings { kind: StoreKind::Memory, ..StoreSettings::default() };
        Self { store, ..Self::private() }
    }

    /// For a broker inside a program that keeps everything in this directory: it has no metrics page, and it listens on a free
    /// port of 127.0.0.1.
    pub fn in_directory(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), ..Self::private() }
    }

    fn private() -> Self {
        Self { amqp: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)], metrics: None, ..Self::default() }
    }

    /// Whether anything is written to the data directory.
    pub fn keeps_files(&self) -> bool {
        self.store.kind == StoreKind::Sqlite
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("./prontomq-data"),
            amqp: vec![
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5672),
                SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 5672),
            ],
            metrics: cfg!(feature = "metrics").then_some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15692)),
            connections_max: 100_000,
            channels_max: 2047,
            frame_max: 131_072,
            initial_frame_max: 4096,
            heartbeat: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            message_bytes_max: 128 * MIB,
            log_format: LogFormat::Auto,
            log_level: LogLevel::Info,
            log_queue_bytes_max: MIB,
            metrics_connections_max: 64,
            metrics_timeout: Duration::from_secs(10),
            product: "RabbitMQ".to_owned(),
            version: "3.13.7".to_owned(),
            cluster_name: String::new(),
            node_name: String::new(),
            loopback_users: vec!["guest".to_owned()],
            store: StoreSettings::default(),
            limits: Limits::default(),
            dead_letter: DeadLetterSettings::default(),
            vhosts: Vec::new(),
            users: Vec::new(),
        }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            kind: StoreKind::Sqlite,
            cache_bytes: 12 * MIB,
            batch_rows_max: 1000,
            batch_bytes_max: MIB,
            durability: Durability::Commit,
            durability_interval: Duration::from_secs(1),
            wal_bytes_max: 64 * MIB,
            redo_bytes: MIB,
            unwritten_bytes_max: 32 * MIB,
            give_up_after: Duration::from_secs(60),
            hold_max: Duration::from_millis(4),
            hold_ack_time_max: Duration::from_millis(2),
        }
    }
}

impl Default for DeadLetterSettings {
    fn default() -> Self {
        Self { trust_published_x_death: true }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 0,
            resident_bytes: 0,
            disk_free_bytes: 50 * 1000 * 1000,
            connection_unfinished_bytes: 256 * MIB,
            unfinished_bytes: 0,
            channel_consumers_max: 100_000,
            channel_unacked_max: 10_000_000,
            vhost_queues_max: 1_000_000,
            vhost_exchanges_max: 1_000_000,
            vhost_bindings_max: 10_000_000,
            outbox_bytes_max: MIB,
            gets_in_flight_max: 8,
            parked_bytes_max: 64 * KIB,
            consumer_window_messages: 200,
            consumer_window_messages_max: 4096,
            consumer_window_bytes_max: 256 * KIB,
            windows_bytes: 16 * MIB,
            transient_bytes: 0,
            window_entries: 1024,
            window_entries_min: 64,
            window_tail_entries: 4096,
            window_tail_bytes: 2 * MIB,
            window_bytes: MIB,
        }
    }
}
