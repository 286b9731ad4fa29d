//! Why a store does not do what it is asked for.

/// Why a store could not be opened or read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// The data directory or file cannot be used; the text says why.
    Unusable(String),
    /// There is no space left for what it takes; the text says for what.
    DiskFull(String),
    /// Held by another process.
    Locked {
        /// The holder, where it left word.
        pid: Option<u32>,
    },
    /// Written by a newer version.
    NewerSchema {
        /// Found in the file.
        found: i64,
        /// The newest that this binary knows.
        known: i64,
    },
    /// Reading failed.
    Read(String),
    /// What is in the file is not what was written there.
    Damaged(String),
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unusable(text) => write!(f, "the store cannot be used: {text}"),
            Self::DiskFull(text) => write!(f, "there is no space left on the disk: {text}"),
            Self::Locked { pid: Some(pid) } => write!(f, "the data directory is held by process {pid}"),
            Self::Locked { pid: None } => f.write_str("the data directory is held by another process"),
            Self::NewerSchema { found, known } => {
                write!(f, "written by a newer version: its schema is {found}, the newest known here is {known}")
            }
            Self::Read(text) => write!(f, "reading the store failed: {text}"),
            Self::Damaged(text) => write!(f, "the store's file is damaged: {text}"),
        }
    }
}

impl std::error::Error for StoreError {}
