//! Metrics as Prometheus reads them: aggregates only, set at scrape from a [`Snapshot`].
//!
//! [`Snapshot`] is plain data that the caller fills; [`series`] names every series and takes its value from there;
//! [`Exposition`] renders them; [`process`] reads what the operating system knows of this process. Names of metrics
//! stand in [`series`] and nowhere else. Serving them over HTTP is the server's.

pub mod histogram;
pub mod process;
mod render;
pub mod series;
pub mod snapshot;

pub use histogram::Histogram;
pub use process::Process;
pub use render::{CONTENT_TYPE, Exposition, Identity};
pub use snapshot::Snapshot;
