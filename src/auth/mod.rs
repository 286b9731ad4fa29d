//! Who may log in: users, their passwords, and the SASL mechanisms by which a client says who it is.

pub mod mechanism;
pub mod password;
pub mod users;

pub use mechanism::{LoginFailure, Mechanism, authenticate};
pub use users::{User, Users};
