//! Logins: users, their passwords, and the SASL mechanisms that carry a client's credentials.

mod login_failure;
pub(crate) mod mechanism;
pub(crate) mod password;
pub(crate) mod users;

pub(crate) use login_failure::LoginFailure;
pub(crate) use mechanism::{Mechanism, authenticate};
pub(crate) use users::{User, Users};
