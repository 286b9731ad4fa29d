//! The settings, with their defaults.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::entries::{UserEntry, VhostEntry};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// All settings. `Settings::default()` is a broker that serves only the machine it runs on.
///
/// The names in a configuration file are those of `docs/configuration.md`; they do not follow the groups here.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The directory of the store's files.
    pub data_dir: PathBuf,
    /// The addresses of the AMQP listeners; port 0 picks a free one.
    pub amqp: Vec<SocketAddr>,
    /// The metrics listener.
    pub metrics: MetricsSettings,
    /// Most open connections.
    pub connections_max: u32,
    /// How sockets are served.
    pub loops: LoopSettings,
    /// What each client is offered and allowed.
    pub connection: ConnectionSettings,
    /// Log lines.
    pub logging: LogSettings,
    /// The names under which the broker appears.
    pub identity: IdentitySettings,
    /// Users that may log in from this machine only.
    pub loopback_users: Vec<String>,
    /// The store.
    pub store: StoreSettings,
    /// Limits of memory, disk and buffers.
    pub limits: Limits,
    /// Dead letters.
    pub dead_letter: DeadLetterSettings,
    /// Vhosts that are created at start if they are missing. Only these and `/` can be opened.
    pub vhosts: Vec<VhostEntry>,
    /// Users that are created or changed at start. Users created by earlier settings and not listed here are deleted.
    pub users: Vec<UserEntry>,
}

/// How the sockets of connections are served: the settings `io_threads` and `limits.moderation`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoopSettings {
    /// Most threads that serve connections; 0 is one per processor.
    pub threads: u32,
    /// What a client that sends many small methods sends in this time is gathered and read at once; zero gathers nothing.
    pub moderation: Duration,
}

/// The settings of the metrics listener.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricsSettings {
    /// Address of `/metrics`, `/healthz` and `/readyz`; `None` when off. Without the feature `metrics` it is off, and an address
    /// is refused at the start.
    pub address: Option<SocketAddr>,
    /// Most open connections.
    pub connections_max: u32,
    /// How long a connection may last.
    pub timeout: Duration,
}

/// The settings of one client's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionSettings {
    /// Most open channels, as offered in `connection.tune`.
    pub channels_max: u16,
    /// Largest frame after `tune-ok`, in bytes, frame header and end included.
    pub frame_max: u32,
    /// Largest frame before `tune-ok`, in bytes.
    pub initial_frame_max: u32,
    /// Heartbeat interval as offered in `connection.tune`, of whole seconds; zero offers none.
    pub heartbeat: Duration,
    /// How long a client may take from connecting to `connection.open`.
    pub handshake_timeout: Duration,
    /// Largest body of a message, in bytes.
    pub message_bytes_max: u64,
}

/// The settings of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogSettings {
    /// The format of log lines.
    pub format: LogFormat,
    /// The least important level that is written.
    pub level: LogLevel,
    /// Most bytes of log lines that wait to be written.
    pub queue_bytes_max: u64,
}

/// The names under which the broker appears.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct IdentitySettings {
    /// `product` of the server properties.
    pub product: String,
    /// `version` of the server properties.
    pub version: String,
    /// `cluster_name` of the server properties and in metrics; the node's name when empty.
    pub cluster_name: String,
    /// This node's name in metrics; made of the host's name when empty.
    pub node_name: String,
}

/// The settings of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreSettings {
    /// The implementation.
    pub kind: StoreKind,
    /// Bytes of the page cache.
    pub cache_bytes: u64,
    /// Most rows of one transaction.
    pub batch_rows_max: u32,
    /// Most bytes of one transaction.
    pub batch_bytes_max: u64,
    /// When commits are flushed, and so what a confirm means.
    pub durability: Durability,
    /// With `Durability::Interval`, the longest time between a commit and its flush.
    pub durability_interval: Duration,
    /// Intended largest size of the write-ahead log, in bytes.
    pub wal_bytes_max: u64,
    /// Size of the redo log in bytes; 0 turns it off.
    pub redo_bytes: u64,
    /// While more bytes than this wait to be written, publishers are not read.
    pub unwritten_bytes_max: u64,
    /// How long flushes may keep failing before the store counts as failed.
    pub give_up_after: Duration,
    /// The longest time that the row of a lent message may wait for the message's acknowledgement before it is written.
    pub hold_max: Duration,
    /// Above this average time from delivery to acknowledgement no row waits.
    pub hold_ack_time_max: Duration,
}

/// Limits of memory and disk, and of what is held for one connection, channel, consumer, vhost or queue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of memory for messages. Above it publishers are blocked; 0 is a share of the machine's memory.
    pub memory_bytes: u64,
    /// Bytes of resident memory. Above it publishers are blocked; 0 is `memory_bytes` and an allowance for the broker itself.
    pub resident_bytes: u64,
    /// Bytes of free disk. Below it publishers are blocked.
    pub disk_free_bytes: u64,
    /// Most bytes of contents and transactions of one connection that are not complete.
    pub connection_unfinished_bytes: u64,
    /// Most such bytes of all connections; 0 is half of `memory_bytes`.
    pub unfinished_bytes: u64,
    /// Most consumers of one channel.
    pub channel_consumers_max: u32,
    /// Most unacknowledged deliveries of one consumer. A channel with as many may not use `basic.get`.
    pub channel_unacked_max: u32,
    /// Most queues of one vhost.
    pub vhost_queues_max: u32,
    /// Most exchanges of one vhost.
    pub vhost_exchanges_max: u32,
    /// Most bindings of one vhost.
    pub vhost_bindings_max: u32,
    /// Bytes waiting to be written to a socket. Above it the connection's consumers get no new deliveries.
    pub outbox_bytes_max: u64,
    /// Most gets of one connection that wait for their answers at the same time.
    pub gets_in_flight_max: u32,
    /// Bytes of frames parked behind an unanswered method. Above it the socket is not read.
    pub parked_bytes_max: u64,
    /// Deliveries on their way to one consumer: the settings `consumer_window_*`.
    pub consumer_window: ConsumerWindowSettings,
    /// Ready messages in memory: `windows_bytes`, `transient_bytes` and `window_*`.
    pub windows: WindowSettings,
}

/// Limits of deliveries on their way to one consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerWindowSettings {
    /// Messages, for a new consumer.
    pub messages: u32,
    /// Messages, for a consumer that keeps up.
    pub messages_max: u32,
    /// Body bytes.
    pub bytes_max: u64,
}

/// Limits of ready messages that are kept in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowSettings {
    /// Bytes of the ready messages of all queues that are kept in memory although the store has them.
    pub all_bytes: u64,
    /// Bytes of transient messages. Above it they are spilled to the scratch store; 0 is a quarter of the memory limit, at
    /// most 4 GiB.
    pub transient_bytes: u64,
    /// Messages at the head of one level.
    pub head_entries: u32,
    /// Messages at the head of one level while memory is short.
    pub head_entries_min: u32,
    /// Bytes at the head of one level, and of one read from the store.
    pub head_bytes: u64,
    /// Messages at the tail of one level.
    pub tail_entries: u32,
    /// Bytes at the tail of one level.
    pub tail_bytes: u64,
}

/// How messages are dead-lettered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeadLetterSettings {
    /// Whether the broker adds to an `x-death` header that a publisher sent, as RabbitMQ 3.13 does, or replaces it, as 4.0 does.
    pub trust_published_x_death: bool,
}

/// Implementations of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreKind {
    /// One SQLite file in the data directory.
    Sqlite,
    /// Memory only: nothing outlives the process.
    Memory,
}

/// When commits are flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Durability {
    /// Before the confirm.
    Commit,
    /// After the confirm, within an interval.
    Interval,
    /// When the operating system decides.
    Off,
}

impl Durability {
    /// The value's name in a configuration file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Interval => "interval",
            Self::Off => "off",
        }
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogFormat {
    /// `Human` on a terminal, `Json` otherwise.
    Auto,
    /// Text for people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Which log lines are written: this level and those above it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogLevel {
    /// The broker, or a part of it, cannot go on.
    Error,
    /// Something needs attention.
    Warn,
    /// Connections, topology, start and stop.
    Info,
    /// Details for developers.
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
        Self {
            amqp: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0)],
            metrics: MetricsSettings { address: None, ..MetricsSettings::default() },
            ..Self::default()
        }
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
            metrics: MetricsSettings::default(),
            connections_max: 100_000,
            loops: LoopSettings::default(),
            connection: ConnectionSettings::default(),
            logging: LogSettings::default(),
            identity: IdentitySettings::default(),
            loopback_users: vec!["guest".to_owned()],
            store: StoreSettings::default(),
            limits: Limits::default(),
            dead_letter: DeadLetterSettings::default(),
            vhosts: Vec::new(),
            users: Vec::new(),
        }
    }
}

impl Default for LoopSettings {
    fn default() -> Self {
        Self { threads: 0, moderation: Duration::from_micros(200) }
    }
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self {
            address: cfg!(feature = "metrics").then_some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15692)),
            connections_max: 64,
            timeout: Duration::from_secs(10),
        }
    }
}

impl Default for ConnectionSettings {
    fn default() -> Self {
        Self {
            channels_max: 2047,
            frame_max: 131_072,
            initial_frame_max: 4096,
            heartbeat: Duration::from_secs(60),
            handshake_timeout: Duration::from_secs(10),
            message_bytes_max: 128 * MIB,
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: LogLevel::Info, queue_bytes_max: MIB }
    }
}

impl Default for IdentitySettings {
    fn default() -> Self {
        Self {
            product: "RabbitMQ".to_owned(),
            version: "3.13.7".to_owned(),
            cluster_name: String::new(),
            node_name: String::new(),
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
            consumer_window: ConsumerWindowSettings::default(),
            windows: WindowSettings::default(),
        }
    }
}

impl Default for ConsumerWindowSettings {
    fn default() -> Self {
        Self { messages: 200, messages_max: 4096, bytes_max: 256 * KIB }
    }
}

impl Default for WindowSettings {
    fn default() -> Self {
        Self {
            all_bytes: 16 * MIB,
            transient_bytes: 0,
            head_entries: 1024,
            head_entries_min: 64,
            head_bytes: MIB,
            tail_entries: 4096,
            tail_bytes: 2 * MIB,
        }
    }
}
