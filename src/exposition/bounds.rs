//! Bucket bounds of the histograms.

/// Bounds of `rabbitmq_message_size_bytes`, in bytes.
pub(crate) const MESSAGE_SIZE_BOUNDS: &[f64] = &[100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 5e7, 1e8];

/// Bounds of `prontomq_store_commit_seconds`, in seconds: from a fast disk's flush to a stall.
#[cfg(feature = "metrics")]
pub(crate) const COMMIT_SECONDS_BOUNDS: &[f64] = &crate::store::commit::COMMIT_SECONDS_BOUNDS;
