//! Checks logins, and the right of a user to open a vhost.
//!
//! Users are read at each login and each `connection.open`, and may change while the broker runs. A connection is added
//! to the broker while the users are locked for reading. So a later change that deletes its user or withholds its vhost
//! finds the connection and closes it.

use crate::auth::{LoginFailure, Mechanism, User, Users, authenticate};
use crate::model::AmqpError;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The users of a broker.
#[derive(Debug, Default)]
pub(crate) struct Access {
    users: RwLock<Users>,
}

impl Access {
    /// The users, locked for reading.
    pub(crate) fn users(&self) -> RwLockReadGuard<'_, Users> {
        self.users.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The users, locked for a change.
    pub(crate) fn users_mut(&self) -> RwLockWriteGuard<'_, Users> {
        self.users.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs a user in by a SASL mechanism and the client's response to it.
    ///
    /// # Errors
    /// An unknown mechanism, a malformed response, or refused credentials.
    pub(crate) fn log_in(&self, mechanism: &str, response: &[u8], is_loopback: bool) -> Result<User, LoginFailure> {
        let mechanism = Mechanism::from_name(mechanism.as_bytes()).ok_or(LoginFailure::Malformed)?;
        authenticate(&self.users(), mechanism, response, is_loopback)
    }
}

/// Returns the vhost if it exists and the user may open it. The texts of errors are RabbitMQ's.
///
/// # Errors
/// `not_allowed`: the vhost is missing or withheld, or the user may not open it.
pub(super) fn check_vhost_access<T>(users: &Users, user: &str, name: &str, vhost: Option<T>) -> Result<T, AmqpError> {
    let vhost = vhost.filter(|_| !users.withholds(name));
    let vhost = vhost.ok_or_else(|| AmqpError::not_allowed(format!("vhost {name} not found")))?;
    if !users.may_open_vhost(user, name) {
        return Err(AmqpError::not_allowed(format!("access to vhost '{name}' refused for user '{user}'")));
    }
    Ok(vhost)
}
