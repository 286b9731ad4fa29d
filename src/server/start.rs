//! Starts a broker from its settings.

use super::accounts::recover_users;
use super::alarm_watch::watch;
use super::clock::Clock;
#[cfg(feature = "metrics")]
use super::http;
use super::listener::accept;
use super::listeners::{Listeners, Listening, listen};
use super::local_socket::LocalSocket;
use super::log_writer::LogWriter;
#[cfg(feature = "metrics")]
use super::metrics_page;
use super::reactor::Reactor;
use super::running::Server;
use super::shared::{Identity, Shared};
use super::start_error::StartError;
use super::stores::{open_store, scratch_store};
use super::tasks::{run_blocking, run_queue_timers, spawn};
use super::translate::broker_settings;
use crate::broker::Broker;
use crate::config::{Settings, StoreKind};
use crate::store::{RecoveredState, StoreError, chain};
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

impl Server {
    /// Opens the store and the listeners; returns once clients can connect. Runs on the current tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`]; its text names the setting at fault.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        Self::start_logged(settings, Vec::new()).await
    }

    /// As [`start`](Self::start), for a process whose log is written by `logs`: the metrics count the lines that they
    /// drop.
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
        let threads = io_threads(&settings);
        let reactor = match Reactor::start(clock, threads, &writer) {
            Ok(reactor) => reactor,
            Err(error) => {
                stop_store(move || writer.stop()).await;
                return Err(StartError::Threads(error));
            }
        };
        let broker = Broker::recover(
            broker_settings(&settings),
            Arc::clone(&reactor) as _,
            writer,
            scratch,
            &recovered,
            clock.now(),
        );
        let identity = identity(&settings, &recovered);
        log_recovered(&settings, &identity, &recovered);
        let listeners = match recover_users_and_listen(&settings, &recovered, &broker).await {
            Ok(listeners) => listeners,
            Err(error) => {
                stop_store(move || broker.writer().stop()).await;
                return Err(error);
            }
        };
        let shared = Shared::new(settings, identity, broker, clock, logs);
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
                accept(Arc::clone(&shared), Arc::clone(&reactor), listener, connections.clone(), seed),
            ));
        }
        if let Some(socket) = open_local_socket(&shared.settings) {
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
        Ok(Self { shared, amqp, metrics, connections, tasks, reactor, has_stopped: false })
    }
}

/// Closes the store after a failed start: the next one must find the data directory free.
async fn stop_store(stop: impl FnOnce() -> Result<(), StoreError> + Send + 'static) {
    if let Err(error) = run_blocking(stop).await {
        tracing::error!(error = %chain(&error), "the store could not be closed");
    }
}

/// Most threads that serve connections.
fn io_threads(settings: &Settings) -> usize {
    match settings.loops.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads as usize,
    }
}

/// Recovers the users, then opens the listeners, so that no client connects before its user is known.
async fn recover_users_and_listen(
    settings: &Settings,
    recovered: &RecoveredState,
    broker: &Broker,
) -> Result<Listeners, StartError> {
    recover_users(settings, recovered, broker)?;
    listen(settings).await
}

/// The names of the node and the cluster: from the settings, or derived from the host's name.
fn identity(settings: &Settings, recovered: &RecoveredState) -> Identity {
    let or = |name: &str, default: &str| if name.is_empty() { default.to_owned() } else { name.to_owned() };
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let node_name = or(&settings.identity.node_name, &format!("prontomq@{}", or(&host, "localhost")));
    let cluster_name = or(&settings.identity.cluster_name, &node_name);
    Identity { node_name, cluster_name, cluster_id: recovered.cluster_id.clone() }
}

fn log_recovered(settings: &Settings, identity: &Identity, recovered: &RecoveredState) {
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
    let Settings { connections_max, connection, limits, .. } = &shared.settings;
    tracing::info!(
        connections_max,
        channels_max = connection.channels_max,
        frame_max = connection.frame_max,
        message_bytes_max = connection.message_bytes_max,
        memory_bytes = shared.alarms.memory_limit(),
        resident_bytes = shared.alarms.resident_limit(),
        disk_free_bytes = limits.disk_free_bytes,
        open_files_max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
        "limits"
    );
}

/// Opens the local socket. A broker works without it too. A memory store has no directory for it.
fn open_local_socket(settings: &Settings) -> Option<LocalSocket> {
    if settings.store.kind == StoreKind::Memory {
        return None;
    }
    let socket = LocalSocket::bind(&settings.data_dir);
    socket
        .inspect_err(|error| tracing::warn!(%error, "no local socket: prontomq backup will not find this broker"))
        .ok()
}
