//! A running broker, and its stop.

use super::accounts;
use super::reactor::Reactor;
use super::shared::Shared;
use super::start_error::StartError;
use super::tasks::{run_blocking, run_within};
use super::url::Login;
use crate::broker::Broker;
use crate::config::{Reloaded, Settings};
use crate::store::{StoreError, chain};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

/// How long a stop waits for clients to answer connection.close.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// How long the stop then waits for the tasks of clients that did not answer.
const CUT_OFF_PATIENCE: Duration = Duration::from_millis(500);

/// How long dropping a server waits for its store.
const DROP_PATIENCE: Duration = Duration::from_secs(5);

/// A running broker.
///
/// [`Server::stop`] stops it cleanly. Dropping it stops it as well, as far as possible without awaiting:
///
/// - All confirmed messages are stored, and the store is closed: after the drop, the data directory can be opened
///   again. The drop blocks its thread meanwhile, usually for the time of a commit and never for more than five
///   seconds. If the disk takes longer, another thread goes on closing the store.
/// - No client can connect any more. Open connections are sent `connection.close`, and are cut off two seconds later if
///   they do not answer.
/// - If a connection was open, the messages of a queue may be marked `redelivered` after the next start, as after a
///   crash.
#[derive(Debug)]
pub struct Server {
    pub(super) shared: Arc<Shared>,
    pub(super) amqp: Vec<SocketAddr>,
    pub(super) metrics: Option<SocketAddr>,
    pub(super) connections: TaskTracker,
    pub(super) tasks: Vec<JoinHandle<()>>,
    pub(super) reactor: Arc<Reactor>,
    /// The store is closed, or another thread is closing it: dropping the server has nothing left to do.
    pub(super) has_stopped: bool,
}

impl Server {
    /// The AMQP addresses, with the ports that were picked if the settings have port 0.
    pub fn amqp_addresses(&self) -> &[SocketAddr] {
        &self.amqp
    }

    /// A URL with which a client on this machine can connect, such as `amqp://guest:guest@127.0.0.1:5672/%2F`.
    ///
    /// It contains the first user of the settings whose password is given in plain text, and that password. If there is
    /// none, it contains `guest` if that login works; otherwise no user, and the client has to supply one.
    pub fn url(&self) -> String {
        let current = self.shared.current();
        let guest = || self.accepts_login("guest", "guest").then(|| Login::new("guest", "guest", "/"));
        let login = Login::of_users(&current.settings.users).or_else(guest).unwrap_or_else(Login::anonymous);
        login.url(self.amqp[0])
    }

    /// The address of `/metrics`, if there is one.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// The broker, so that tests can read its state.
    #[doc(hidden)]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.shared.broker
    }

    /// Whether the broker has any user.
    #[cfg(feature = "cli")]
    pub(crate) fn has_users(&self) -> bool {
        !self.shared.broker.access().users().is_empty()
    }

    /// Whether a client on this machine could log in with this user and password.
    pub(crate) fn accepts_login(&self, user: &str, password: &str) -> bool {
        let users = self.shared.broker.access().users();
        users.log_in(user.as_bytes(), password.as_bytes(), true).is_ok()
    }

    /// Applies the settings that can change while the broker runs; [`Reloaded`] lists them.
    ///
    /// # Errors
    /// The new settings are wrong; the former ones stay in force.
    pub async fn reload(&self, wanted: &Settings) -> Result<Reloaded, StartError> {
        let former = self.shared.current();
        let reloaded = Reloaded::new(&former.settings, wanted);
        let (shared, settings) = (Arc::clone(&self.shared), reloaded.settings.clone());
        // Hashing passwords takes time.
        run_blocking(move || {
            accounts::reload(&shared, &former.settings, &settings)?;
            shared.apply_settings(settings);
            Ok(())
        })
        .await?;
        Ok(reloaded)
    }

    /// Stops cleanly: accepts no new connections, sends connection.close to the open ones, and flushes everything.
    ///
    /// # Errors
    /// The store could not be closed. Confirmed messages are safe even then.
    pub async fn stop(mut self) -> Result<(), StoreError> {
        self.begin_closing();
        if tokio::time::timeout(CLOSE_PATIENCE, self.connections.wait()).await.is_err() {
            let open = self.shared.broker.gauges().connections.load(Ordering::Relaxed);
            if open > 0 {
                tracing::warn!(open, "clients that did not answer connection.close are cut off");
            }
            self.shared.cut_off.send_replace(true);
            self.reactor.wake_all();
            // The connections' tasks log their ends and requeue their deliveries.
            if tokio::time::timeout(CUT_OFF_PATIENCE, self.connections.wait()).await.is_err() {
                tracing::debug!("connections or backups have not ended");
            }
        }
        self.has_stopped = true;
        self.shared.broker.quiesce(self.shared.clock.now());
        let broker = Arc::clone(&self.shared.broker);
        let closed = run_blocking(move || broker.writer().stop()).await;
        self.abort_tasks();
        self.reactor.end();
        closed
    }

    /// Accepts no more connections, and asks the open ones to close.
    fn begin_closing(&self) {
        self.shared.stopping.send_replace(true);
        self.connections.close();
        self.reactor.wake_all();
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
        self.begin_closing();
        self.abort_tasks();
        if self.connections.is_empty() {
            self.shared.broker.quiesce(self.shared.clock.now());
        }
        let (connections, shared, reactor) =
            (self.connections.clone(), Arc::clone(&self.shared), Arc::clone(&self.reactor));
        // The runtime may have ended.
        let cut_off = run_within(Duration::ZERO, move || {
            std::thread::sleep(CLOSE_PATIENCE);
            if !connections.is_empty() {
                shared.cut_off.send_replace(true);
                reactor.wake_all();
            }
        });
        if let Err(error) = cut_off {
            tracing::error!(%error, "no thread could be started to cut off clients that do not answer");
        }
        let broker = Arc::clone(&self.shared.broker);
        match run_within(DROP_PATIENCE, move || broker.writer().stop()) {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(error))) => tracing::error!(error = %chain(&error), "the store could not be closed"),
            Ok(None) => {
                tracing::error!("the store is not closed after five seconds; closing goes on in the background");
            }
            Err(error) => tracing::error!(%error, "no thread could be started to close the store"),
        }
    }
}
