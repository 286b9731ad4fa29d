//! The admission of a client: its login, the limit of connections, and the vhost that it opens.

use crate::auth::LoginFailure;
use crate::broker::{Client, Counters, Link, Opening};
use crate::model::{AmqpError, ConnectionId, Name, NamedLimit, Notice, Now};
use crate::server::shared::Shared;
use crate::session::{Login, LoginRefusal};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

/// The state of one connection's admission; it counts against the limit of open connections.
#[derive(Debug)]
pub(super) struct Admission {
    id: ConnectionId,
    client: SocketAddr,
    /// Seed of the connection's random numbers.
    seed: u64,
    /// The connection counts against `connections_max`.
    is_admitted: bool,
    /// The user whose login was refused; for the log.
    refused_user: Box<str>,
    /// The vhost that was refused; for the log.
    refused_vhost: Box<str>,
}

impl Admission {
    /// Counts a connection that was just accepted. `end` must follow.
    pub(super) fn new(shared: &Shared, client: SocketAddr, seed: u64) -> Self {
        Counters::add(&shared.broker.counters().connections_opened, 1);
        shared.broker.gauges().connections.fetch_add(1, Ordering::Relaxed);
        Self {
            id: shared.broker.next_connection_id(),
            client,
            seed,
            is_admitted: false,
            refused_user: Box::default(),
            refused_vhost: Box::default(),
        }
    }

    pub(super) fn id(&self) -> ConnectionId {
        self.id
    }

    pub(super) fn client(&self) -> SocketAddr {
        self.client
    }

    /// The user whose login was refused; empty if none was.
    pub(super) fn refused_user(&self) -> &str {
        &self.refused_user
    }

    /// The vhost that was refused; empty if none was.
    pub(super) fn refused_vhost(&self) -> &str {
        &self.refused_vhost
    }

    /// Checks the response to `connection.start`.
    pub(super) fn log_in(&mut self, shared: &Shared, mechanism: &str, response: &[u8]) -> Result<Login, LoginRefusal> {
        let counters = shared.broker.counters();
        Counters::add(&counters.auth_attempts, 1);
        let is_loopback = self.client.ip().to_canonical().is_loopback();
        let failure = match shared.broker.access().log_in(mechanism, response, is_loopback) {
            Ok(user) => return Ok(Login { may_impersonate: user.is_impersonator(), user: user.name }),
            Err(failure) => failure,
        };
        Counters::add(&counters.auth_failures, 1);
        let (connection, client) = (self.id.0, self.client);
        match failure {
            LoginFailure::Malformed => {
                tracing::warn!(connection, %client, mechanism, "malformed login");
                Err(LoginRefusal::Malformed)
            }
            LoginFailure::Credentials { user, reason } => {
                tracing::warn!(connection, %client, mechanism, user, reason, "login refused");
                self.refused_user = user.into();
                Err(LoginRefusal::Refused)
            }
        }
    }

    /// Opens the vhost that `connection.open` names.
    ///
    /// # Errors
    /// `not_allowed`: the limit of connections is reached, the vhost does not exist, or the user may not open it.
    pub(super) fn open_vhost(
        &mut self,
        shared: &Shared,
        user: &Name,
        name: &str,
        client_name: &str,
        now: Now,
    ) -> Result<Link, AmqpError> {
        let client = Client { address: self.client, name: client_name.to_owned(), opened_at: now.wall };
        let opening = Opening { id: self.id, user: user.clone(), client, seed: self.seed };
        let opened = self
            .admit(shared)
            .and_then(|()| Link::open_vhost(&shared.broker, name, opening))
            .inspect_err(|_| self.refused_vhost = name.into())?;
        let notify = |reason: Option<&str>| opened.peer().notify_one(Notice::Alarm(reason.map(str::to_owned)));
        if let Some(reason) = shared.alarms.reason() {
            notify(Some(reason));
            if shared.alarms.reason().is_none() {
                // The alarm ended meanwhile; the notice of its end may be ahead of the one just sent.
                notify(None);
            }
        }
        Ok(opened)
    }

    /// Counts the connection against `connections_max`.
    fn admit(&mut self, shared: &Shared) -> Result<(), AmqpError> {
        let limit = shared.current().settings.connections_max;
        let admitted = &shared.broker.gauges().admitted;
        if admitted.fetch_add(1, Ordering::Relaxed) >= i64::from(limit) {
            admitted.fetch_sub(1, Ordering::Relaxed);
            shared.broker.refusals().note(NamedLimit::ConnectionsMax);
            let reason = format!("connection refused: node connection limit ({limit}) is reached");
            return Err(AmqpError::not_allowed(reason));
        }
        self.is_admitted = true;
        Ok(())
    }

    /// Ends the connection's part in all counts.
    pub(super) fn end(&mut self, shared: &Shared) {
        Counters::add(&shared.broker.counters().connections_closed, 1);
        shared.broker.gauges().connections.fetch_sub(1, Ordering::Relaxed);
        if std::mem::take(&mut self.is_admitted) {
            shared.broker.gauges().admitted.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
