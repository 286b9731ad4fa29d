//! The store in one SQLite file.
//!
//! sqlx opens and migrates the file and reads topology and lanes at start (`opening`, `topology`). After that the
//! writer's connection is held as a raw handle with prepared statements (`raw`), and readers have connections of their
//! own (`reader`). `store` is what the port asks for.

mod backup;
mod bodies;
mod commit;
mod directory;
mod doctor;
mod erasing;
mod errors;
mod files;
mod flushing;
mod full_disk;
mod growth;
mod inserts;
mod lanes;
mod log;
mod maintenance;
mod opened_file;
mod opening;
mod raw;
mod reader;
mod redo;
mod reserve;
mod runtime;
mod settings;
mod statements;
mod store;
#[cfg(test)]
mod tests;
mod topology;
mod views;

pub use backup::{BackupTarget, back_up};
pub use directory::{database_file, existing_database};
pub use doctor::{Diagnosis, RepairReport, diagnose, repair};
pub use redo::{RedoFile, RedoFiles};
pub use reserve::SpareFiles;
pub use settings::{Layer, SqliteSettings};
pub use store::SqliteStore;
