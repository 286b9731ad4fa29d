//! When a connection that sends many small pieces is read again. Reading each piece as it comes costs a wake-up, a read
//! and a write per message; after a short rest several pieces have come, and share them.

use crate::model::Monotonic;
use std::time::Duration;

/// Reads in a row that came quickly, before the connection rests.
const QUICK_MIN: u32 = 8;
/// A read of at least this size is worth its costs: such a connection needs no rest.
const LARGE: usize = 8 * 1024;

/// The pace of a connection's reads.
#[derive(Debug, Default)]
pub(in crate::server) struct Pace {
    last_read: Monotonic,
    quick: u32,
}

impl Pace {
    /// Notes a read of `bytes` bytes. Returns whether the connection is to rest before the next one.
    pub(in crate::server) fn note_read(&mut self, bytes: usize, may_rest: bool, rest: Duration, now: Monotonic) -> bool {
        let since = now.since(std::mem::replace(&mut self.last_read, now));
        if bytes == 0 || bytes >= LARGE || !may_rest || since > rest * 2 {
            self.quick = 0;
            return false;
        }
        self.quick += 1;
        self.quick >= QUICK_MIN
    }
}
