//! Channels that have something to do at the end of a pass over input and notices, or after the flush.

/// Lists of channel numbers. A channel is on each list at most once; its `Listings` name the lists that it is on.
#[derive(Debug, Default)]
pub(super) struct DueChannels {
    /// Channels with confirms to write at the end of the pass.
    pub(super) to_confirm: Vec<u16>,
    /// Channels with deliveries to report as written after the flush.
    pub(super) to_report: Vec<u16>,
    /// Channels that were active in the pass: their metrics may have changed.
    pub(super) active: Vec<u16>,
}

/// The lists of its connection that a channel is on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Listings {
    /// In `DueChannels::to_confirm`.
    pub(super) to_confirm: bool,
    /// In `DueChannels::to_report`.
    pub(super) to_report: bool,
    /// In `DueChannels::active`.
    pub(super) active: bool,
    /// In `Backpressure`'s list: its parked frames wait for room in the output, or for the answers of gets.
    pub(super) stalled: bool,
}
