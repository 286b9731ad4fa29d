//! Metrics as Prometheus reads them: only aggregates, taken from a [`Snapshot`] at each scrape.
//!
//! [`Snapshot`] is plain data that the caller fills. [`series`] lists every series and takes its value from the
//! snapshot; no other file has names of metrics. [`Exposition`] renders the series. `process` reads the operating
//! system's numbers of this process, [`machine`] those of memory and disk. Without the feature `metrics`, only
//! [`machine`] and [`bounds`] are built. The server serves the result over HTTP.

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
