//! A running broker, and its stop.

use super::accounts;
use super::shared::Shared;
use super::start_error::StartError;
use super::tasks::{run_blocking, run_within, spawn};
use super::url::Login;
use crate::broker::Broker;
use crate::config::{Reloaded, Settings};
use crate::store::{StoreError, chain};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// How long a stop waits for clients to answer connection.close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// How long it then waits for the tasks of those that did not.
const CUT_OFF_PATIENCE: Duration = Duration::from_millis(500);

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
    pub(super) shared: Arc<Shared>,
    pub(super) amqp: Vec<SocketAddr>,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) connections: TaskTracker,
    pub(super) tasks: Vec<JoinHandle<()>>,
    pub(super) handle: Handle,
    /// The store is closed, or is being closed by a thread that nobody has to wait for.
    pub(super) has_stopped: bool,
}

impl Server {
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
        !self.shared.broker.access().users().is_empty()
    }

    /// Whether a client on this machine could log in so.
    pub(crate) fn accepts_login(&self, user: &str, password: &str) -> bool {
        let users = self.shared.broker.access().users();
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
            let open = self.shared.broker.gauges().connections.load(Ordering::Relaxed);
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
            Ok(Some(Err(error))) => tracing::error!(error = %chain(&error), "the store could not be closed"),
            Ok(None) => tracing::error!("the store is not closed yet; it is no longer waited for"),
            Err(error) => tracing::error!(%error, "there is no thread to close the store"),
        }
    }
}
