//! Ready messages: the levels, the number and size of their messages, and the next message.

use super::context::Context;
use super::effect::QueueEffect;
use super::entry::{Entries, EntryView, Slot};
use super::level::{Level, LoadRequest};
use super::middle::Middle;
use super::settings::WindowLimits;
use crate::model::{Lane, Monotonic, Now};
use std::time::Duration;

/// How many windows (`WindowLimits::head_entries`) ahead of the lent messages the ceiling is written: far enough that the next
/// ceiling is flushed before the fastest consumer reaches this one, near enough that a kill marks few messages that no
/// consumer had.
const LENT_AHEAD_WINDOWS: u64 = 16;

/// How long the queue waits after a failed read before the next one.
const LOAD_RETRY_WAIT: Duration = Duration::from_secs(1);

/// The levels of a queue, and the numbers of all ready messages.
#[derive(Debug)]
pub(super) struct Ready {
    levels: Vec<Option<Box<Level>>>,
    /// One bit per level that has ready entries.
    occupied: [u64; 4],
    /// Ready messages, in memory or not.
    count: u64,
    /// Body bytes of the ready messages.
    body_bytes: u64,
    /// The limits of what each level keeps in memory now.
    window: WindowLimits,
    /// These limits while there is enough memory.
    whole_window: WindowLimits,
    /// The store could not read; it is asked again then.
    load_retry_at: Option<Monotonic>,
}

impl Ready {
    pub(super) fn new(window: WindowLimits) -> Self {
        Self {
            levels: Vec::new(),
            occupied: [0; 4],
            count: 0,
            body_bytes: 0,
            window,
            whole_window: window,
            load_retry_at: None,
        }
    }

    /// Adds a level that the store remembers.
    pub(super) fn recover(&mut self, lane: Lane, level: Level, body_bytes: u64) {
        self.count += level.ready_count();
        self.body_bytes += body_bytes;
        let at = usize::from(lane.level);
        self.reach(at);
        // The batch that begins a generation also drops the last one, unless an earlier batch did (`Durable::drop_lane`).
        assert!(self.levels[at].is_none(), "a level of {:?} lives in two lanes", lane.queue);
        self.levels[at] = Some(Box::new(level));
        self.note_occupied(lane.level);
    }

    /// Ready messages.
    #[inline]
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Body bytes of the ready messages.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    pub(super) fn window(&self) -> &WindowLimits {
        &self.window
    }

    /// Shrinks the windows of the levels; see `WindowLimits::shrunk`.
    pub(super) fn shrink_windows(&mut self, steps: u32, is_consumed: bool) {
        self.window = self.whole_window.shrunk(steps, is_consumed);
    }

    /// How far ahead of the lent messages the ceilings of lanes are written, in positions.
    pub(super) fn lent_ahead(&self) -> u64 {
        self.whole_window.head_entries as u64 * LENT_AHEAD_WINDOWS
    }

    // ---- levels ------------------------------------------------------------------------------------------------

    fn reach(&mut self, at: usize) {
        if self.levels.len() <= at {
            self.levels.resize_with(at + 1, || None);
        }
    }

    /// A level, made on first use.
    #[inline]
    pub(super) fn level_or_new(&mut self, level: u8) -> &mut Level {
        let at = usize::from(level);
        self.reach(at);
        self.levels[at].get_or_insert_with(Box::default)
    }

    /// The level of an entry.
    #[inline]
    pub(super) fn level(&mut self, level: u8) -> &mut Level {
        self.levels[usize::from(level)].as_mut().expect("an entry's level exists")
    }

    /// A level that may not exist.
    pub(super) fn find_level(&mut self, level: u8) -> Option<&mut Level> {
        self.levels.get_mut(usize::from(level))?.as_deref_mut()
    }

    /// One more than the number of the last level.
    pub(super) fn levels_end(&self) -> usize {
        self.levels.len()
    }

    pub(super) fn levels(&self) -> impl Iterator<Item = &Level> {
        self.levels.iter().filter_map(Option::as_deref)
    }

    /// The levels with their numbers.
    pub(super) fn levels_mut(&mut self) -> impl Iterator<Item = (u8, &mut Level)> {
        (0..=u8::MAX).zip(&mut self.levels).filter_map(|(number, level)| Some((number, level.as_deref_mut()?)))
    }

    #[inline]
    fn note_occupied(&mut self, level: u8) {
        let any = self.levels[usize::from(level)].as_ref().is_some_and(|level| level.ready_count() > 0);
        let (word, bit) = (usize::from(level / 64), 1u64 << (level % 64));
        if any { self.occupied[word] |= bit } else { self.occupied[word] &= !bit }
    }

    /// The number of the highest level with ready entries.
    #[inline]
    pub(super) fn top_level(&self) -> Option<u8> {
        (0..4).rev().find(|word| self.occupied[*word] != 0).map(|word| {
            let bit = 63 - self.occupied[word].leading_zeros();
            (word as u32 * 64 + bit) as u8
        })
    }

    // ---- the front ---------------------------------------------------------------------------------------------

    /// The front entry; none while it is being loaded.
    #[inline]
    pub(super) fn front(&mut self, cx: &mut Context<'_>) -> Option<Slot> {
        let number = self.top_level()?;
        let Self { levels, window, .. } = self;
        let level = levels[usize::from(number)].as_mut().expect("an occupied level exists");
        if let Some(request) = level.begin_load(window) {
            request_load(number, level, request, window, cx);
        }
        level.front()
    }

    /// The front entry, if it is in memory.
    pub(super) fn front_in_memory(&mut self) -> Option<Slot> {
        let number = self.top_level()?;
        self.level(number).front()
    }

    /// The front entry. If it is not in memory, only its row is read: a start must not read all rows of every queue.
    #[inline]
    pub(super) fn peek(&mut self, cx: &mut Context<'_>) -> Option<Slot> {
        let number = self.top_level()?;
        let Self { levels, window, .. } = self;
        let level = levels[usize::from(number)].as_mut().expect("an occupied level exists");
        if let Some(request) = level.begin_peek() {
            request_load(number, level, request, window, cx);
        }
        level.front()
    }

    /// Takes the front entry out of the ready ones.
    #[inline]
    pub(super) fn take_front(&mut self, entry: EntryView<'_>) {
        let (number, body_bytes) = (entry.level, entry.message.body_len() as u64);
        self.level(number).pop_front(entry.order.position, entry.message.allocated_bytes());
        self.count -= 1;
        self.body_bytes = self.body_bytes.saturating_sub(body_bytes);
        self.note_occupied(number);
    }

    /// Adds a new entry behind all others of its level. Its message takes `size` bytes of memory.
    #[inline]
    pub(super) fn append(&mut self, slot: Slot, number: u8, is_durable: bool, size: usize, body_bytes: u64) {
        let Self { levels, window, .. } = self;
        let level = levels[usize::from(number)].as_mut().expect("an entry's level exists");
        level.push_back(slot, is_durable, size, window);
        self.count += 1;
        self.body_bytes += body_bytes;
        self.occupied[usize::from(number / 64)] |= 1u64 << (number % 64);
    }

    /// Puts an entry back to its place.
    pub(super) fn put_back(&mut self, slot: Slot, entries: &Entries) {
        let entry = entries.at(slot);
        self.level(entry.level).put_back(slot, entries);
        self.count += 1;
        self.body_bytes += entry.message.body_len() as u64;
        self.note_occupied(entry.level);
    }

    /// Removes entries that only a store held.
    pub(super) fn remove_middle(&mut self, level: u8, middle: &Middle) {
        self.count = self.count.saturating_sub(middle.count);
        self.body_bytes = self.body_bytes.saturating_sub(middle.body_bytes);
        self.note_occupied(level);
    }

    /// Notes that all levels were cleared.
    pub(super) fn cleared(&mut self) {
        (self.count, self.body_bytes, self.occupied) = (0, 0, [0; 4]);
    }

    /// The queue has ended: nothing is left.
    pub(super) fn end(&mut self) {
        self.levels = Vec::new();
        self.cleared();
        self.load_retry_at = None;
    }

    // ---- loads -------------------------------------------------------------------------------------------------

    /// Corrects the counts after a load: the level had `before` ready entries by its numbers, and `body_bytes` is the difference
    /// of body bytes that the load has found.
    pub(super) fn loaded(&mut self, level: u8, before: u64, body_bytes: i64) {
        let after = self.level(level).ready_count();
        self.count = self.count + after - before;
        self.body_bytes = self.body_bytes.saturating_add_signed(body_bytes);
        self.note_occupied(level);
    }

    /// Notes that a read failed: the next one waits a while.
    pub(super) fn load_failed(&mut self, level: u8, now: Now) {
        self.level(level).load_failed();
        self.load_retry_at = Some(now.monotonic.plus(LOAD_RETRY_WAIT));
    }

    /// When the next read may begin, after a failed one.
    pub(super) fn load_retry_at(&self) -> Option<Monotonic> {
        self.load_retry_at
    }

    pub(super) fn tick(&mut self, now: Monotonic) {
        if self.load_retry_at.is_some_and(|at| at <= now) {
            self.load_retry_at = None;
            self.levels_mut().for_each(|(_, level)| level.retry_load());
        }
    }

    // ---- invariants --------------------------------------------------------------------------------------------

    /// Checks that the counts are those of the levels. O(levels).
    pub(super) fn assert_invariants(&self) {
        let mut count = 0;
        for (number, level) in (0u8..=u8::MAX).zip(&self.levels) {
            let ready = level.as_ref().map_or(0, |level| level.ready_count());
            let bit = self.occupied[usize::from(number / 64)] >> (number % 64) & 1;
            debug_assert_eq!(bit == 1, ready > 0, "level {number} is listed if it has ready entries");
            count += ready;
        }
        debug_assert_eq!(self.count, count, "ready messages are those of all levels");
        self.levels().for_each(Level::assert_invariants);
    }
}

fn request_load(number: u8, level: &Level, request: LoadRequest, window: &WindowLimits, cx: &mut Context<'_>) {
    let LoadRequest { load, durable, scratch, rows_max } = request;
    let lane = cx.lane(number, level.generation());
    cx.out.effects.push(QueueEffect::Load { lane, load, durable, scratch, rows_max, bytes_max: window.head_bytes });
}
