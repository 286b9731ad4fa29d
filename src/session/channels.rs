//! The channels of one connection, by number: a number is where its channel is, since each frame asks for one.

use super::channel::Channel;

/// Open channels, and those that are closing. Grows to the highest number in use.
#[derive(Debug, Default)]
pub(super) struct Channels {
    by_number: Vec<Option<Box<Channel>>>,
    count: usize,
}

impl Channels {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn get(&self, number: u16) -> Option<&Channel> {
        self.by_number.get(usize::from(number))?.as_deref()
    }

    pub(super) fn get_mut(&mut self, number: u16) -> Option<&mut Channel> {
        self.by_number.get_mut(usize::from(number))?.as_deref_mut()
    }

    /// A channel is opened under a number that is free.
    pub(super) fn insert(&mut self, number: u16, channel: Channel) {
        let at = usize::from(number);
        if self.by_number.len() <= at {
            self.by_number.resize_with(at + 1, || None);
        }
        debug_assert!(self.by_number[at].is_none(), "channel {number} is open");
        self.by_number[at] = Some(Box::new(channel));
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

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
