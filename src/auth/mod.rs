//! Who may log in: users, their passwords, and the SASL mechanisms by which a client says who it is.

pub(crate) mod mechanism;
pub(crate) mod password;
pub(crate) mod users;

pub(crate) use mechanism::{LoginFailure, Mechanism, authenticate};
pub(crate) use users::{User, Users};
