//! The notices that a connection has taken from its inlet and keeps until its output has room.

use crate::model::Notice;
use std::collections::VecDeque;

/// Notices in order, and their memory as a running sum: to add it up in every pass would cost more than to write the
/// notices.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    notices: VecDeque<Notice>,
    bytes: usize,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.notices.is_empty()
    }

    pub(super) fn extend(&mut self, notices: impl Iterator<Item = Notice>) {
        let Self { notices: kept, bytes } = self;
        kept.extend(notices.inspect(|notice| *bytes += notice.held_bytes()));
    }

    pub(super) fn pop(&mut self) -> Option<Notice> {
        let notice = self.notices.pop_front()?;
        self.bytes -= notice.held_bytes();
        Some(notice)
    }

    /// Bytes of memory that the notices take.
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Frees unused capacity.
    pub(super) fn shrink(&mut self) {
        self.notices.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ChannelKey, ConsumerSlot, Delivery, Message, QueueId};
    use crate::wire::properties::Properties;

    fn delivery(body: usize) -> Notice {
        let properties = Properties::check(&[0, 0]).unwrap();
        let message = Message::new(b"", b"q", &properties, &vec![b'x'; body]);
        let (channel, consumer) = (ChannelKey { number: 1, incarnation: 1 }, ConsumerSlot(1));
        let queue = QueueId(1);
        Notice::Deliver(Delivery { channel, consumer, queue, lend: None, redelivered: false, permit: None, message })
    }

    #[test]
    fn the_memory_of_notices_is_counted_until_they_are_popped() {
        let mut backlog = Backlog::default();
        let sizes = [10, 10_000, 1, 0];
        backlog.extend(sizes.into_iter().map(delivery));
        backlog.extend(std::iter::once(Notice::Ended));
        let mut left: Vec<usize> = sizes.into_iter().map(|size| delivery(size).held_bytes()).collect();
        left.push(Notice::Ended.held_bytes());
        while !left.is_empty() {
            assert_eq!(backlog.held_bytes(), left.iter().sum::<usize>());
            assert_eq!(backlog.pop().unwrap().held_bytes(), left.remove(0));
        }
        assert!(backlog.is_empty() && backlog.pop().is_none());
        assert_eq!(backlog.held_bytes(), 0);
    }
}
