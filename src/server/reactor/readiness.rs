//! What both pollers report.

use std::time::Duration;

/// How long a wait pauses after an error, so that it does not take a whole processor.
pub(super) const ERROR_PAUSE: Duration = Duration::from_millis(10);

/// A socket that is ready, or broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Readiness {
    pub(super) token: u64,
    /// Reading it does not block: bytes have come, or the end, or an error.
    pub(super) readable: bool,
    /// The connection is reset. This is reported whatever the interest is.
    pub(super) is_broken: bool,
}
