//! Consumers in the order of their turns: the highest priority first, and first come, first served within one.

use std::collections::VecDeque;

/// One queue of consumers for each priority, by falling priority; some may be empty.
#[derive(Debug, Default)]
pub(super) struct Rings {
    rings: Vec<Ring>,
    len: usize,
}

#[derive(Debug)]
struct Ring {
    priority: i64,
    consumers: VecDeque<u32>,
}

impl Rings {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next consumer.
    pub(super) fn front(&self) -> Option<u32> {
        self.rings.iter().find_map(|ring| ring.consumers.front().copied())
    }

    /// The priority of the next consumer.
    pub(super) fn first_priority(&self) -> Option<i64> {
        self.rings.iter().find(|ring| !ring.consumers.is_empty()).map(|ring| ring.priority)
    }

    pub(super) fn pop_front(&mut self) -> Option<u32> {
        let at = self.rings.iter_mut().find_map(|ring| ring.consumers.pop_front())?;
        self.len -= 1;
        Some(at)
    }

    /// Adds a consumer behind all others of its priority.
    pub(super) fn push_back(&mut self, priority: i64, at: u32) {
        self.len += 1;
        self.ring(priority).push_back(at);
    }

    /// Adds a consumer before all others of its priority.
    pub(super) fn push_front(&mut self, priority: i64, at: u32) {
        self.len += 1;
        self.ring(priority).push_front(at);
    }

    fn ring(&mut self, priority: i64) -> &mut VecDeque<u32> {
        let found = self.rings.iter().position(|ring| ring.priority <= priority).unwrap_or(self.rings.len());
        if self.rings.get(found).is_none_or(|ring| ring.priority != priority) {
            self.rings.insert(found, Ring { priority, consumers: VecDeque::new() });
        }
        &mut self.rings[found].consumers
    }

    /// Removes a consumer that is in its ring, and the rings that are empty.
    pub(super) fn remove(&mut self, priority: i64, at: u32) {
        self.ring(priority).retain(|other| *other != at);
        self.len -= 1;
        self.drop_empty();
    }

    /// Removes the consumers that `leaves` picks; returns them in the order of their turns.
    pub(super) fn take(&mut self, leaves: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut taken = Vec::new();
        for ring in &mut self.rings {
            ring.consumers.retain(|at| {
                let stays = !leaves(*at);
                if !stays {
                    taken.push(*at);
                }
                stays
            });
        }
        self.len -= taken.len();
        taken
    }

    /// Removes empty rings.
    pub(super) fn drop_empty(&mut self) {
        self.rings.retain(|ring| !ring.consumers.is_empty());
    }
}
