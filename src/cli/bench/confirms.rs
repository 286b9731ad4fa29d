//! The confirms of one publisher: how many more messages it may publish, and how long each confirm took.

use super::broker_frame::BrokerFrame;
use super::client::Client;
use super::meter::{Meter, PATIENCE, lock};
use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// Slots for times per message that may be unconfirmed. It limits how far confirmed messages can be ahead of an
/// unconfirmed one.
const AHEAD: u64 = 8;

/// The unconfirmed messages, shared by the publisher's writer and reader. Messages go to the channels in turn, and are
/// identified by their place in the order of publishing.
#[derive(Debug)]
pub(super) struct Window {
    in_flight_max: u64,
    channels: u64,
    confirmed: Mutex<Confirmed>,
    more: Condvar,
    /// When each unconfirmed message was sent or due, in microseconds, indexed by its place modulo the length.
    sent_at: Box<[AtomicU64]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Confirmed {
    count: u64,
    /// All messages before this place are confirmed.
    below: u64,
}

impl Window {
    pub(super) fn new(in_flight_max: u64, channels: u16) -> Self {
        let slots = (in_flight_max * AHEAD).next_power_of_two();
        let sent_at = (0..slots).map(|_| AtomicU64::new(0)).collect();
        let (confirmed, more) = (Mutex::default(), Condvar::new());
        Self { in_flight_max, channels: channels.into(), confirmed, more, sent_at }
    }

    fn slot(&self, place: u64) -> &AtomicU64 {
        &self.sent_at[(place & (self.sent_at.len() as u64 - 1)) as usize]
    }

    /// Records when a message was sent or due.
    #[inline]
    pub(super) fn note_sent(&self, place: u64, at: u64) {
        self.slot(place).store(at, Ordering::Relaxed);
    }

    fn room_with(&self, sent: u64, confirmed: Confirmed) -> u64 {
        let slots = self.sent_at.len() as u64;
        (self.in_flight_max + confirmed.count).min(slots + confirmed.below).saturating_sub(sent)
    }

    /// Waits until messages may be published. Returns how many.
    pub(super) fn room(&self, sent: u64, meter: &Meter) -> u64 {
        let mut confirmed = lock(&self.confirmed);
        while self.room_with(sent, *confirmed) == 0 && !meter.is_over() {
            let waited = self.more.wait_timeout(confirmed, PATIENCE);
            confirmed = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        self.room_with(sent, *confirmed)
    }
}

/// The confirmed delivery tags of one channel.
#[derive(Clone, Debug, Default)]
pub(super) struct Tags {
    /// This tag and all before it are confirmed.
    below: u64,
    ahead: BTreeSet<u64>,
}

impl Tags {
    /// The tag up to which all tags are confirmed.
    pub(super) fn below(&self) -> u64 {
        self.below
    }

    /// Applies an acknowledgement. Calls `newly` with each tag that was not confirmed before.
    pub(super) fn acknowledge(&mut self, tag: u64, multiple: bool, mut newly: impl FnMut(u64)) {
        if multiple {
            (self.below + 1..=tag).filter(|tag| !self.ahead.contains(tag)).for_each(newly);
            self.below = self.below.max(tag);
            self.ahead.retain(|ahead| *ahead > self.below);
        } else if tag == self.below + 1 {
            newly(tag);
            self.below = tag;
        } else if tag > self.below && self.ahead.insert(tag) {
            newly(tag);
        }
        while self.ahead.remove(&(self.below + 1)) {
            self.below += 1;
        }
    }
}

/// Reads confirms until the connection is closed.
pub(super) fn read(client: &mut Client, window: Option<&Window>, meter: &Meter) -> io::Result<()> {
    let channels = window.map_or(1, |window| window.channels);
    let mut confirmed = vec![Tags::default(); channels as usize];
    let mut newly = Vec::new();
    loop {
        newly.clear();
        let mut is_closed = false;
        client.next_frames(usize::MAX, |frame| match BrokerFrame::of(frame) {
            BrokerFrame::Ack(tag, multiple) => {
                let channel = u64::from(frame.channel).saturating_sub(1);
                if let Some(tags) = confirmed.get_mut(channel as usize) {
                    tags.acknowledge(tag, multiple, |tag| newly.push((tag - 1) * channels + channel));
                }
            }
            BrokerFrame::CloseOk => is_closed = true,
            _ => {}
        })?;
        if is_closed {
            return Ok(());
        }
        let Some(window) = window else { continue };
        let now = meter.clock.micros();
        let mut latencies = meter.confirm.lock();
        for place in &newly {
            latencies
                .record(now.saturating_sub(window.slot(*place).load(Ordering::Relaxed)))
                .expect("it grows as needed");
        }
        drop(latencies);
        let below = (0..).zip(&confirmed).map(|(channel, tags)| tags.below * channels + channel).min().unwrap_or(0);
        let more = newly.len() as u64;
        let mut shared = lock(&window.confirmed);
        *shared = Confirmed { count: shared.count + more, below };
        drop(shared);
        meter.confirmed.fetch_add(more, Ordering::Relaxed);
        window.more.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_confirmed_once_in_any_order() {
        let mut tags = Tags::default();
        let mut newly = Vec::new();
        for (tag, multiple) in [(1, false), (3, false), (3, false), (5, false), (4, true), (2, false), (9, true)] {
            tags.acknowledge(tag, multiple, |tag| newly.push(tag));
        }
        assert_eq!(newly, [1, 3, 5, 2, 4, 6, 7, 8, 9]);
        assert_eq!((tags.below, tags.ahead.len()), (9, 0));
    }

    #[test]
    fn room_excludes_messages_in_flight_and_too_far_ahead_of_the_first_unconfirmed_one() {
        let window = Window::new(10, 2);
        let room = |sent, count, below| window.room_with(sent, Confirmed { count, below });
        assert_eq!(window.sent_at.len(), 128);
        assert_eq!((room(4, 0, 0), room(10, 0, 0), room(10, 3, 0)), (6, 0, 3));
        assert_eq!((room(127, 126, 0), room(128, 127, 0), room(128, 127, 5)), (1, 0, 5));
    }
}
