//! Why a broker could not start.

use crate::store::{OpenError, StoreError, chain};
use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Why a broker could not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// An address cannot be listened on.
    Listen {
        /// The setting that has the address: `amqp` or `metrics`.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// The store cannot be opened.
    Store(OpenError),
    /// A list of the settings is wrong: users, vhosts, or the addresses to listen on.
    Entry {
        /// The setting, and where in the list the fault is.
        entry: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The system has no thread or descriptor left for the connections.
    Threads(io::Error),
    /// The system's source of randomness failed.
    Random(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { setting, address, error } => write!(f, "{setting}: cannot listen on {address}: {error}"),
            Self::Store(OpenError::Locked { pid: Some(pid) }) => {
                write!(f, "data_dir: in use by the process {pid}")
            }
            Self::Store(OpenError::Locked { pid: None }) => write!(f, "data_dir: in use by another process"),
            Self::Store(OpenError::NewerSchema { found, known }) => {
                write!(f, "data_dir: written by a newer version (schema {found}; this one knows {known})")
            }
            Self::Store(OpenError::Store(StoreError::Damaged(cause))) => {
                write!(f, "data_dir: the file is damaged: {}. ", chain(cause.as_source()))?;
                f.write_str(
                    "`prontomq doctor` with this --data-dir shows the damage, and with --repair saves what can be saved",
                )
            }
            Self::Store(error) => write!(f, "data_dir: {}", chain(error)),
            Self::Entry { entry, problem } => write!(f, "{entry}: {problem}"),
            Self::Threads(error) => write!(f, "no thread for connections: {error}"),
            Self::Random(why) => write!(f, "no randomness: {why}"),
        }
    }
}

impl std::error::Error for StartError {}
