//! From settings to a running broker, and its stop.

use super::accounts::{self, known_users};
use super::alarms::{limit_of_memory, watch};
use super::clock::Clock;
#[cfg(feature = "metrics")]
use super::http;
use super::listener::accept;
use super::local_socket::LocalSocket;
use super::log_writer::LogWriter;
use super::lone::TokioRunner;
#[cfg(feature = "metrics")]
use super::metrics_page;
use super::shared::{Identity, Shared};
use super::tasks::{run_blocking, run_queue_timers, run_within, spawn};
use super::url::Login;
use crate::auth::{Users, mechanism};
use crate::broker::{Broker, BrokerSettings, OpenScratch, VhostLimits};
use crate::config::{Durability, Reloaded, Settings, StoreKind, StoreSettings};
use crate::queue::{ConsumerLimits, HoldLimits, QueueLimits, WindowLimits};
use crate::session::SessionSettings;
use crate::store::commit::{WriterHandle, WriterSettings};
use crate::store::memory::{MemoryDisk, MemoryStore};
use crate::store::spool::SpoolStore;
use crate::store::sqlite::{SqliteSettings, SqliteStore};
use crate::store::{Recovered, Store, StoreError};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// How long a stop waits for clients to answer connection.close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// How long it then waits for the tasks of those that did not.
const CUT_OFF_PATIENCE: Duration = Duration::from_millis(500);

/// Why a broker could not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be listened on; names the setting.
    Listen {
        /// `amqp` or `metrics`.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The store cannot be opened.
    Store(StoreError),
    /// A list of the settings is wrong: users, vhosts, or the addresses to listen on.
    Entry {
        /// Which one.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The machine gives no randomness.
    Random(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { setting, address, error } => write!(f, "{setting}: cannot listen on {address}: {error}"),
            Self::Store(StoreError::Locked { pid: Some(pid) }) => {
                write!(f, "data_dir: in use by the process {pid}")
            }
            Self::Store(StoreError::Locked { pid: None }) => write!(f, "data_dir: in use by another process"),
            Self::Store(StoreError::NewerSchema { found, known }) => {
                write!(f, "data_dir: written by a newer version (schema {found}; this one knows {known})")
            }
            Self::Store(StoreError::Unusable(why)) => write!(f, "data_dir: {why}"),
            Self::Store(StoreError::DiskFull(why)) => write!(f, "data_dir: there is no space left on the disk: {why}"),
            Self::Store(StoreError::Read(why)) => write!(f, "data_dir: cannot be read: {why}"),
            Self::Store(StoreError::Damaged(why)) => {
                write!(
                    f,
                    "data_dir: the file is damaged: {why}. `prontomq doctor` with this --data-dir says how, and with "
                )?;
                f.write_str("--repair saves what can be saved")
            }
            Self::Entry { entry, problem } => write!(f, "{entry}: {problem}"),
            Self::Random(why) => write!(f, "no randomness: {why}"),
        }
    }
}

impl std::error::Error for StartError {}

/// How long dropping a server waits for its store.
const DROP_PATIENCE: Duration = Duration::from_secs(5);

/// A running broker.
///
/// [`Server::stop`] ends it in good order. To drop it ends it as well, as far as that goes without awaiting:
///
/// - What was confirmed is stored, and the store is closed: once the drop is over, the data directory can be opened again. The
///   drop blocks its thread meanwhile, for the time of a commit as a rule, and never for more than five seconds: a disk that
///   takes longer is left to a thread of its own.
/// - No client can connect any more. Open connections are sent `connection.close`, and are cut off two seconds later if they do
///   not answer. The runtime's tasks do that, so it happens once they run, and not at all when the runtime ends first.
/// - With a connection open, the messages of a queue may come back marked `redelivered`, as they do after a crash.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    amqp: Vec<SocketAddr>,
    metrics: Option<SocketAddr>,
    connections: TaskTracker,
    tasks: Vec<JoinHandle<()>>,
    handle: Handle,
    /// The store is closed, or is being closed by a thread that nobody has to wait for.
    has_stopped: bool,
}

impl Server {
    /// Opens the store and the listeners; returns once clients can connect. Runs on the current tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`]; the text names the setting to look at.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        Self::start_logged(settings, Vec::new()).await
    }

    /// As [`start`](Self::start), for a process whose log is written by these writers: metrics count what they drop.
    ///
    /// # Errors
    /// See [`StartError`].
    #[doc(hidden)]
    pub async fn start_logged(settings: Settings, logs: Vec<LogWriter>) -> Result<Self, StartError> {
        let clock = Clock::start();
        let handle = Handle::current();
        let (writer, recovered) = {
            let settings = settings.clone();
            run_blocking(move || open_store(&settings, clock.shared())).await.map_err(StartError::Store)?
        };
        let scratch = scratch_store(&settings, clock.shared());
        let runner = Arc::new(TokioRunner::new(clock));
        runner.commit_inline(&writer);
        let broker = Broker::recover(
            broker_settings(&settings),
            Arc::clone(&runner) as _,
            writer,
            scratch,
            &recovered,
            clock.now(),
        );
        let identity = identity(&settings, &recovered);
        log_recovered(&settings, &identity, &recovered);
        let (users, listeners) = match doors(&settings, &recovered, &broker).await {
            Ok(doors) => doors,
            Err(error) => {
                // Whoever tries again finds the data directory free.
                if let Err(error) = run_blocking(move || broker.writer().stop()).await {
                    tracing::error!(%error, "the store could not be closed");
                }
                return Err(error);
            }
        };
        let shared = Shared::new(settings, identity, broker, users, clock, logs);
        log_limits(&shared);
        let connections = TaskTracker::new();
        let mut tasks = vec![
            spawn(&handle, run_queue_timers(Arc::clone(&shared.broker), clock)),
            spawn(&handle, watch(Arc::clone(&shared))),
        ];
        let mut amqp = Vec::new();
        for Listening { listener, address, seed } in listeners.amqp {
            amqp.push(address);
            tasks.push(spawn(
                &handle,
                accept(Arc::clone(&shared), Arc::clone(&runner), listener, connections.clone(), seed),
            ));
        }
        if let Some(socket) = listen_locally(&shared.settings) {
            tasks.push(spawn(&handle, socket.accept(Arc::clone(&shared), connections.clone())));
        }
        let metrics = listeners.metrics.as_ref().and_then(|listener| listener.local_addr().ok());
        #[cfg(feature = "metrics")]
        if let Some(listener) = listeners.metrics {
            let router = metrics_page::router(Arc::clone(&shared));
            tasks.push(spawn(&handle, http::serve(Arc::clone(&shared), listener, router)));
        }
        for (address, speaks) in
            amqp.iter().map(|address| (address, "amqp")).chain(metrics.iter().map(|it| (it, "metrics")))
        {
            tracing::info!(%address, speaks, "listening");
        }
        Ok(Self { shared, amqp, metrics, connections, tasks, handle, has_stopped: false })
    }

    /// The addresses that speak AMQP; with port 0 in the settings, the ports that were picked.
    pub fn amqp_addresses(&self) -> &[SocketAddr] {
        &self.amqp
    }

    /// A URL with which a client on this machine can connect at once, such as `amqp://guest:guest@127.0.0.1:5672/%2F`.
    ///
    /// It names the first user of the settings whose password is there in plain text, and that password; without configured
    /// users it names `guest`. If there is neither, it names nobody, and the client has to.
    pub fn url(&self) -> String {
        let current = self.shared.current();
        let guest = || self.accepts_login("guest", "guest").then(|| Login::new("guest", "guest", "/"));
        let login = Login::of_users(&current.settings.users).or_else(guest).unwrap_or_else(Login::nobody);
        login.url(self.amqp[0])
    }

    /// The address of `/metrics`, if there is one.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// The broker, for reading its state.
    #[doc(hidden)]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.shared.broker
    }

    /// Whether there is a user to log in as.
    #[cfg(feature = "cli")]
    pub(crate) fn has_users(&self) -> bool {
        !self.shared.users.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Whether a client on this machine could log in so.
    pub(crate) fn accepts_login(&self, user: &str, password: &str) -> bool {
        let users = self.shared.users.read().unwrap_or_else(PoisonError::into_inner);
        users.log_in(user.as_bytes(), password.as_bytes(), true).is_ok()
    }

    /// Takes over what can be changed while the broker runs; see [`Reloaded`] for what that is.
    ///
    /// # Errors
    /// When the new settings are wrong; the former ones stay in force.
    pub async fn reload(&self, wanted: &Settings) -> Result<Reloaded, StartError> {
        let former = self.shared.current();
        let reloaded = Reloaded::new(&former.settings, wanted);
        let (shared, settings) = (Arc::clone(&self.shared), reloaded.settings.clone());
        // Hashing passwords takes time.
        run_blocking(move || {
            accounts::reload(&shared, &former.settings, &settings)?;
            shared.put_in_force(settings);
            Ok(())
        })
        .await?;
        Ok(reloaded)
    }

    /// Stops in good order: no new connections, connection.close for those that are open, everything flushed.
    ///
    /// # Errors
    /// When the store could not be closed; whatever was confirmed is safe all the same.
    pub async fn stop(mut self) -> Result<(), StoreError> {
        self.turn_clients_away();
        if tokio::time::timeout(CLOSE_PATIENCE, self.connections.wait()).await.is_err() {
            let open = self.shared.gauges.connections.load(Ordering::Relaxed);
            if open > 0 {
                tracing::warn!(open, "clients that did not answer connection.close are cut off");
            }
            self.shared.cut_off.send_replace(true);
            // Each connection logs its end, and gives back what it held.
            if tokio::time::timeout(CUT_OFF_PATIENCE, self.connections.wait()).await.is_err() {
                tracing::debug!("connections or backups have not ended");
            }
        }
        self.has_stopped = true;
        self.shared.broker.quiesce(self.shared.clock.now());
        let broker = Arc::clone(&self.shared.broker);
        let closed = run_blocking(move || broker.writer().stop()).await;
        self.abort_tasks();
        closed
    }

    /// Lets nobody in any more, and asks open connections to close.
    fn turn_clients_away(&self) {
        self.shared.stopping.send_replace(true);
        self.connections.close();
    }

    fn abort_tasks(&self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::mem::replace(&mut self.has_stopped, true) {
            return;
        }
        self.turn_clients_away();
        self.abort_tasks();
        if self.connections.is_empty() {
            self.shared.broker.quiesce(self.shared.clock.now());
        }
        let (connections, shared) = (self.connections.clone(), Arc::clone(&self.shared));
        drop(spawn(&self.handle, async move {
            if tokio::time::timeout(CLOSE_PATIENCE, connections.wait()).await.is_err() {
                shared.cut_off.send_replace(true);
            }
        }));
        let broker = Arc::clone(&self.shared.broker);
        match run_within(DROP_PATIENCE, move || broker.writer().stop()) {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(error))) => tracing::error!(%error, "the store could not be closed"),
            Ok(None) => tracing::error!("the store is not closed yet; it is no longer waited for"),
            Err(error) => tracing::error!(%error, "there is no thread to close the store"),
        }
    }
}

/// What the process is called: by the settings, or else by the host.
fn identity(settings: &Settings, recovered: &Recovered) -> Identity {
    let or = |name: &str, default: &str| if name.is_empty() { default.to_owned() } else { name.to_owned() };
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let node_name = or(&settings.node_name, &format!("prontomq@{}", or(&host, "localhost")));
    let cluster_name = or(&settings.cluster_name, &node_name);
    Identity { node_name, cluster_name, cluster_id: recovered.cluster_id.clone() }
}

fn log_recovered(settings: &Settings, identity: &Identity, recovered: &Recovered) {
    let Identity { node_name, cluster_name, cluster_id } = identity;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), node_name, cluster_name, cluster_id, "ProntoMQ starts");
    if !settings.keeps_files() {
        return;
    }
    tracing::info!(
        vhosts = recovered.vhosts.len(),
        users = recovered.users.len(),
        exchanges = recovered.exchanges.len(),
        queues = recovered.queues.len(),
        bindings = recovered.bindings.len(),
        messages = recovered.lanes.iter().map(|lane| lane.state.count).sum::<u64>(),
        stopped_in_good_order = recovered.clean,
        "recovered from the store"
    );
}

fn log_limits(shared: &Shared) {
    let Settings { connections_max, channels_max, frame_max, message_bytes_max, limits, .. } = &shared.settings;
    tracing::info!(
        connections_max,
        channels_max,
        frame_max,
        message_bytes_max,
        memory_bytes = shared.alarms.memory_limit(),
        resident_bytes = shared.alarms.resident_limit(),
        disk_free_bytes = limits.disk_free_bytes,
        open_files_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        "limits"
    );
}

fn random() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| StartError::Random(error.to_string()))
}

fn open_store(
    settings: &Settings,
    clock: Arc<dyn crate::model::Clock>,
) -> Result<(WriterHandle, Recovered), StoreError> {
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let mut store: Box<dyn Store> = match settings.store.kind {
        StoreKind::Sqlite => {
            let mut sqlite = SqliteSettings::new(&settings.data_dir);
            sqlite.cache_bytes = bytes(settings.store.cache_bytes);
            sqlite.durability = settings.store.durability;
            sqlite.durability_interval = settings.store.durability_interval;
            sqlite.log_bytes_max = settings.store.wal_bytes_max;
            sqlite.redo_bytes = settings.store.redo_bytes;
            tell_durability(&settings.store);
            Box::new(SqliteStore::open(&sqlite)?)
        }
        StoreKind::Memory => {
            tracing::warn!("store.kind is memory: everything is forgotten when the broker stops");
            Box::new(MemoryStore::open(MemoryDisk::default()))
        }
    };
    let recovered = store.recover()?;
    let writer = WriterHandle::start(store, recovered.batch_no, writer_settings(settings), clock)?;
    Ok((writer, recovered))
}

/// A weaker promise than the usual one is told.
fn tell_durability(store: &StoreSettings) {
    match store.durability {
        Durability::Commit => {
            tracing::info!(durability = "commit", "confirmed persistent messages are flushed to the disk");
        }
        Durability::Interval => tracing::warn!(
            durability = "interval",
            interval = ?store.durability_interval,
            "a power failure may lose confirmed messages of the last interval"
        ),
        Durability::Off => {
            tracing::warn!(durability = "off", "a power failure may lose all confirmed messages and damage the store");
        }
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

/// Rows of one batch of the scratch store: nobody waits for it, so it is as large as pays, and one turn of a queue that
/// hands so many over is still short.
const SCRATCH_BATCH_ROWS_MAX: usize = 8_192;
/// And bytes.
const SCRATCH_BATCH_BYTES_MAX: usize = 4 << 20;

/// How to open the scratch store; none where no file is kept. What an earlier process left there goes first.
fn scratch_store(settings: &Settings, clock: Arc<dyn crate::model::Clock>) -> Option<OpenScratch> {
    if !settings.keeps_files() {
        return None;
    }
    let directory = SpoolStore::directory_below(&settings.data_dir);
    if let Err(error) = SpoolStore::clear(&directory) {
        tracing::warn!(%error, "what an earlier process left in the scratch store cannot be deleted");
    }
    let writer = WriterSettings {
        rows_max: SCRATCH_BATCH_ROWS_MAX,
        bytes_max: SCRATCH_BATCH_BYTES_MAX,
        ..writer_settings(settings)
    };
    Some(Box::new(move || {
        let mut store = SpoolStore::open(&directory)?;
        let recovered = store.recover()?;
        WriterHandle::start(Box::new(store), recovered.batch_no, writer, Arc::clone(&clock))
    }))
}

pub(super) fn broker_settings(settings: &Settings) -> BrokerSettings {
    let limits = &settings.limits;
    let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    BrokerSettings {
        queue_limits: QueueLimits {
            hold: HoldLimits { hold_max: settings.store.hold_max, ack_time_max: settings.store.hold_ack_time_max },
            window: WindowLimits {
                head_entries: limits.window_entries as usize,
                head_entries_min: limits.window_entries_min as usize,
                tail_entries: limits.window_tail_entries as usize,
                tail_bytes: bytes(limits.window_tail_bytes),
                head_bytes: bytes(limits.window_bytes),
            },
            consumer: ConsumerLimits {
                messages: limits.consumer_window_messages,
                messages_max: limits.consumer_window_messages_max.max(limits.consumer_window_messages),
                bytes_max: limits.consumer_window_bytes_max,
                unacked_max: limits.channel_unacked_max,
            },
        },
        vhost_limits: VhostLimits {
            queues: limits.vhost_queues_max as usize,
            exchanges: limits.vhost_exchanges_max as usize,
            bindings: limits.vhost_bindings_max as usize,
        },
        windows_bytes: limits.windows_bytes,
        unwritten_bytes_max: settings.store.unwritten_bytes_max,
        transient_bytes: match limits.transient_bytes {
            0 => (limit_of_memory(limits.memory_bytes) / TRANSIENT_SHARE).min(TRANSIENT_BYTES_MAX),
            bytes => bytes,
        },
        trust_published_x_death: settings.dead_letter.trust_published_x_death,
        batch_rows_max: settings.store.batch_rows_max as usize,
        batch_bytes_max: bytes(settings.store.batch_bytes_max),
    }
}

/// Of the memory limit, what transient messages may take unless a setting says otherwise: one part in so many.
const TRANSIENT_SHARE: u64 = 4;
/// And at most so much.
const TRANSIENT_BYTES_MAX: u64 = 4 << 30;

pub(super) fn session_settings(settings: &Settings, cluster_name: &str) -> SessionSettings {
    let version = env!("CARGO_PKG_VERSION");
    SessionSettings {
        product: settings.product.clone(),
        version: settings.version.clone(),
        platform: format!("ProntoMQ {version}"),
        information: format!("ProntoMQ {version}, compatible with RabbitMQ clients"),
        cluster_name: cluster_name.to_owned(),
        mechanisms: mechanism::OFFERED.split(' ').map(str::to_owned).collect(),
        channel_max: settings.channels_max,
        frame_max: settings.frame_max,
        frame_min: settings.initial_frame_max,
        heartbeat_seconds: u16::try_from(settings.heartbeat.as_secs()).unwrap_or(u16::MAX),
        handshake_timeout: settings.handshake_timeout,
        message_bytes_max: settings.message_bytes_max,
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

/// Why a build without the page refuses an address for it.
const NO_METRICS: &str = "this program was built without the feature `metrics` of the crate prontomq";

struct Listeners {
    /// At least one.
    amqp: Vec<Listening>,
    metrics: Option<TcpListener>,
}

struct Listening {
    listener: TcpListener,
    /// Where it listens, also when port 0 was asked for.
    address: SocketAddr,
    seed: u64,
}

/// Who may come in, and where.
async fn doors(
    settings: &Settings,
    recovered: &Recovered,
    broker: &Arc<Broker>,
) -> Result<(Users, Listeners), StartError> {
    Ok((known_users(settings, recovered, broker)?, listen(settings).await?))
}

async fn listen(settings: &Settings) -> Result<Listeners, StartError> {
    let mut amqp = Vec::new();
    for address in &settings.amqp {
        let bound = TcpListener::bind(address).await;
        match bound.and_then(|listener| listener.local_addr().map(|address| (listener, address))) {
            Ok((listener, address)) => amqp.push(Listening { listener, address, seed: random()? }),
            Err(error) if is_missing_ipv6(address, &error) && settings.amqp.len() > 1 => {
                tracing::warn!(%address, "this machine has no IPv6; not listening there");
            }
            Err(error) => return Err(StartError::Listen { setting: "amqp", address: *address, error }),
        }
    }
    if amqp.is_empty() {
        return Err(StartError::Entry { entry: "amqp".into(), problem: "there is no address to listen on".into() });
    }
    let metrics = match settings.metrics {
        Some(address) => {
            let listener = if cfg!(feature = "metrics") {
                TcpListener::bind(address).await
            } else {
                Err(io::Error::new(io::ErrorKind::Unsupported, NO_METRICS))
            };
            Some(listener.map_err(|error| StartError::Listen { setting: "metrics", address, error })?)
        }
        None => None,
    };
    Ok(Listeners { amqp, metrics })
}

/// A broker does its work without it too; a store in memory has no directory to put it in.
fn listen_locally(settings: &Settings) -> Option<LocalSocket> {
    if settings.store.kind == StoreKind::Memory {
        return None;
    }
    let socket = LocalSocket::bind(&settings.data_dir);
    socket
        .inspect_err(|error| tracing::warn!(%error, "no local socket: prontomq backup will not find this broker"))
        .ok()
}

/// Machines without IPv6 refuse its loopback address; the default settings name it all the same.
fn is_missing_ipv6(address: &SocketAddr, error: &io::Error) -> bool {
    address.is_ipv6()
        && address.ip().is_loopback()
        && matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
}
