//! The arguments that every part of a queue gets with an input.

use super::effect::Effects;
use super::permits::Permits;
use super::settings::QueueSettings;
use crate::model::{Lane, Now};

/// The surroundings of one input.
pub(super) struct Context<'a> {
    pub(super) settings: &'a QueueSettings,
    pub(super) now: Now,
    pub(super) permits: &'a mut dyn Permits,
    pub(super) out: &'a mut Effects,
}

impl Context<'_> {
    /// The lane of a level of this queue.
    pub(super) fn lane(&self, level: u8, generation: u32) -> Lane {
        Lane { queue: self.settings.id, level, generation }
    }
}
