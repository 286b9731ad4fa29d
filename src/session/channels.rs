//! The channels of one connection, indexed by number: every frame looks one up.

use super::channel::Channel;
use crate::model::ChannelKey;

/// Open channels, and those that are closing. Grows to the highest number in use.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_number: Vec<Option<Box<Channel>>>,
    count: usize,
    /// How many channels were opened so far.
    opened: u32,
}

impl Channels {
    /// How many channels are open or closing.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn opened(&self) -> u32 {
        self.opened
    }

    pub(super) fn get(&self, number: u16) -> Option<&Channel> {
        self.by_number.get(usize::from(number))?.as_deref()
    }

    pub(super) fn get_mut(&mut self, number: u16) -> Option<&mut Channel> {
        self.by_number.get_mut(usize::from(number))?.as_deref_mut()
    }

    /// Opens a channel under a number that is free.
    pub(super) fn open(&mut self, number: u16) {
        self.opened += 1;
        let key = ChannelKey { number, incarnation: self.opened };
        let at = usize::from(number);
        if self.by_number.len() <= at {
            self.by_number.resize_with(at + 1, || None);
        }
        debug_assert!(self.by_number[at].is_none(), "channel {number} is open");
        self.by_number[at] = Some(Box::new(Channel::new(key)));
        self.count += 1;
    }

    pub(super) fn remove(&mut self, number: u16) -> Option<Box<Channel>> {
        let channel = self.by_number.get_mut(usize::from(number))?.take();
        self.count -= usize::from(channel.is_some());
        channel
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.by_number.iter().filter_map(Option::as_deref)
    }

    /// Forgets all channels; how many were opened is kept.
    pub(super) fn clear(&mut self) {
        *self = Self { opened: self.opened, ..Self::default() };
    }
}
