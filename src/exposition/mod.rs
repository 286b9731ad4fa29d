//! Metrics as Prometheus reads them: aggregates only, set at scrape from a [`Snapshot`].
//!
//! [`Snapshot`] is plain data that the caller fills; [`series`] names every series and takes its value from there;
//! [`Exposition`] renders them; `process` reads what the operating system knows of this process, and
//! [`machine`] what it knows of memory and disk. Without the feature `metrics` only [`machine`] and [`bounds`] are built. Names of metrics
//! stand in [`series`] and nowhere else. Serving them over HTTP is the server's.

pub(crate) mod bounds;
#[cfg(feature = "metrics")]
mod histogram;
pub(crate) mod machine;
#[cfg(feature = "metrics")]
mod process;
#[cfg(feature = "metrics")]
mod render;
#[cfg(feature = "metrics")]
pub(crate) mod series;
#[cfg(feature = "metrics")]
pub(crate) mod snapshot;

#[cfg(feature = "metrics")]
pub(crate) use {
    histogram::Histogram,
    process::Process,
    render::{CONTENT_TYPE, Exposition, Identity},
    snapshot::Snapshot,
};
