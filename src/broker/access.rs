//! Who may log in, and who may open which vhost.
//!
//! Users are read for each login and each `connection.open`, and change while the broker runs. A connection is added to the
//! broker while the users are locked for reading: a user or a vhost that is taken away afterwards finds the connection, and
//! closes it.

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
    /// A mechanism that is not offered, a malformed response, or credentials that are refused.
    pub(crate) fn log_in(&self, mechanism: &str, response: &[u8], is_loopback: bool) -> Result<User, LoginFailure> {
        let mechanism = Mechanism::from_name(mechanism.as_bytes()).ok_or(LoginFailure::Malformed)?;
        authenticate(&self.users(), mechanism, response, is_loopback)
    }
}

/// Lets a user into a vhost, if there is one and the user may open it. The texts are RabbitMQ's.
///
/// # Errors
/// `not_allowed`: the vhost is missing or withheld, or the user has no right to it.
pub(super) fn let_into<T>(users: &Users, user: &str, name: &str, vhost: Option<T>) -> Result<T, AmqpError> {
    let vhost = vhost.filter(|_| !users.withholds(name));
    let vhost = vhost.ok_or_else(|| AmqpError::not_allowed(format!("vhost {name} not found")))?;
    if !users.may_open_vhost(user, name) {
        return Err(AmqpError::not_allowed(format!("access to vhost '{name}' refused for user '{user}'")));
    }
    Ok(vhost)
}
