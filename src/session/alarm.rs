//! A resource that runs short blocks the connections that publish.

/// The alarm as one connection knows it, and whether the connection is blocked by it.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    /// Which resource runs short; none while all are plentiful.
    reason: Option<String>,
    /// The client has published during the alarm: its input is not read until the alarm ends.
    is_blocking: bool,
}

impl Alarm {
    pub(super) fn is_raised(&self) -> bool {
        self.reason.is_some()
    }

    pub(super) fn is_blocking(&self) -> bool {
        self.is_blocking
    }

    /// The client has published. Returns the reason if that blocks the connection now.
    pub(super) fn block(&mut self) -> Option<&str> {
        let reason = self.reason.as_deref().filter(|_| !self.is_blocking)?;
        self.is_blocking = true;
        Some(reason)
    }

    /// An alarm begins, goes on for other reasons, or ends. Returns whether a blocked connection is free again.
    pub(super) fn change(&mut self, reason: Option<String>) -> bool {
        self.reason = reason;
        self.reason.is_none() && self.unblock()
    }

    /// Reads on although the alarm lasts. Returns whether the connection was blocked.
    pub(super) fn unblock(&mut self) -> bool {
        std::mem::take(&mut self.is_blocking)
    }
}
