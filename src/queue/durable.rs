//! Durable messages: their number, how far each is on its way to the store, and the promises that are kept when it is stored.
//!
//! A durable entry is young, then submitted under a ticket, then flushed. The promise to its publisher is kept with the flush
//! of its ticket, or at once if the message leaves before it was submitted.

mod pull;

use super::command::Requester;
use super::context::Context;
use super::due::{Due, Hold};
use super::entry::{Entries, Slot, Storage};
use super::event::Ticket;
use super::middle::{Middle, Miscount};
use super::ready::Ready;
use super::settings::HoldLimits;
use crate::model::{AmqpError, Answer, Lane, Message, Monotonic, Now, Position, Promise};
use std::collections::VecDeque;
use std::time::Duration;

/// How long the removal of a stored entry may wait for a commit that has another cause.
const REMOVE_WAIT: Duration = Duration::from_millis(20);

/// Spare capacity of lists, in entries, that an idle queue keeps.
const ROOM_KEPT: usize = 64;

/// A durable entry on its way to the store.
#[derive(Clone, Copy, Debug)]
struct YoungRef {
    slot: Slot,
    level: u8,
    position: Position,
}

/// The rows submitted under one ticket, and the promises and answers that are owed once they are flushed.
#[derive(Debug)]
struct SubmittedBatch {
    ticket: Ticket,
    promises: Vec<Promise>,
    /// The requests for purges in the batch, and how many messages each removed.
    purges: Vec<(Requester, u64)>,
    /// The memory that the rows take.
    bytes: u64,
}

/// Durable messages, and the queue's side of the store.
#[derive(Debug)]
pub(super) struct Durable {
    /// Messages that the store has or is to have: ready, lent or leaving.
    count: u64,
    /// Body bytes of these messages.
    body_bytes: u64,
    /// Memory of durable messages that are not flushed.
    unwritten_bytes: u64,
    /// Entries that are not submitted, in order; some may have left.
    young: VecDeque<YoungRef>,
    /// Batches that are submitted and not flushed, by rising ticket.
    submitted: VecDeque<SubmittedBatch>,
    /// Purges that are not submitted: the request, and how many messages it removed.
    purges: Vec<(Requester, u64)>,
    /// The last ticket that was given out.
    ticket: Ticket,
    /// All tickets up to this one are flushed.
    flushed: Ticket,
    /// Lanes that the next pull drops.
    dropped_lanes: Vec<Lane>,
    /// Rows that the next pull removes, one by one or with their range or lane.
    rows_to_remove: usize,
    due: Due,
    hold: Hold,
    /// The store refused rows for good: it is unknown which rows the store has.
    store_failed: bool,
    /// The node stops: ceilings are exact.
    is_quiesced: bool,
}

impl Durable {
    pub(super) fn new(hold: HoldLimits) -> Self {
        Self {
            count: 0,
            body_bytes: 0,
            unwritten_bytes: 0,
            young: VecDeque::new(),
            submitted: VecDeque::new(),
            purges: Vec::new(),
            ticket: Ticket(0),
            flushed: Ticket(0),
            dropped_lanes: Vec::new(),
            rows_to_remove: 0,
            due: Due::default(),
            hold: Hold::new(hold),
            store_failed: false,
            is_quiesced: false,
        }
    }

    // ---- numbers -----------------------------------------------------------------------------------------------

    /// Messages that the store has, or is to have.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Body bytes of these messages.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Memory of durable messages that are not flushed.
    pub(super) fn unwritten_bytes(&self) -> u64 {
        self.unwritten_bytes
    }

    /// How many rows are not submitted; those that consumers hold may not be due yet.
    pub(super) fn unwritten_rows(&self) -> usize {
        self.young.len() + self.rows_to_remove
    }

    /// The memory that the list of young entries takes, in bytes.
    pub(super) fn list_bytes(&self) -> usize {
        self.young.capacity() * size_of::<YoungRef>()
    }

    /// All tickets up to this one are flushed.
    pub(super) fn flushed(&self) -> Ticket {
        self.flushed
    }

    /// After a refusal it is unknown which rows the store has: everything in memory stays there.
    pub(super) fn store_failed(&self) -> bool {
        self.store_failed
    }

    // ---- messages come and go ----------------------------------------------------------------------------------

    /// Adds the messages of a lane from an earlier process.
    pub(super) fn recover(&mut self, count: u64, body_bytes: u64) {
        self.count += count;
        self.body_bytes += body_bytes;
    }

    /// Adds a new message.
    pub(super) fn add(&mut self, message: &Message) {
        self.count += 1;
        self.body_bytes += message.body_len() as u64;
        self.unwritten_bytes += message.allocated_bytes() as u64;
    }

    /// Adds the entry of a new message, which waits for the writer.
    pub(super) fn add_young(&mut self, slot: Slot, level: u8, position: Position) {
        self.young.push_back(YoungRef { slot, level, position });
    }

    /// Removes a message that was never submitted.
    pub(super) fn remove_young(&mut self, message: &Message) {
        self.leave(1, message.body_len() as u64);
        self.unwritten_bytes = self.unwritten_bytes.saturating_sub(message.allocated_bytes() as u64);
    }

    /// Removes a message, and later its row.
    pub(super) fn remove_row(&mut self, message: &Message) {
        self.leave(1, message.body_len() as u64);
        self.rows_to_remove += 1;
    }

    /// Removes messages that only the store holds.
    pub(super) fn remove_middle(&mut self, middle: &Middle) {
        self.leave(middle.count, middle.body_bytes);
        self.rows_to_remove += usize::try_from(middle.count).unwrap_or(usize::MAX);
    }

    fn leave(&mut self, count: u64, body_bytes: u64) {
        self.count = self.count.saturating_sub(count);
        self.body_bytes = self.body_bytes.saturating_sub(body_bytes);
    }

    /// Corrects the counts: the store held more (or fewer) rows than the numbers of its lane.
    pub(super) fn correct(&mut self, miscount: Miscount) {
        self.count = self.count.saturating_add_signed(miscount.rows);
        self.body_bytes = self.body_bytes.saturating_add_signed(miscount.body_bytes);
        self.due.set_now();
    }

    /// The next pull drops a lane in which nothing lives.
    pub(super) fn drop_lane(&mut self, lane: Lane) {
        self.dropped_lanes.push(lane);
        self.due.set_now();
    }

    // ---- when rows are due -------------------------------------------------------------------------------------

    /// Whether rows are due for the writer.
    pub(super) fn is_due(&self) -> bool {
        self.due.is_now()
    }

    /// When rows are due for the writer at the latest.
    pub(super) fn due_at(&self) -> Option<Monotonic> {
        self.due.at()
    }

    pub(super) fn set_due(&mut self) {
        self.due.set_now();
    }

    pub(super) fn set_due_if(&mut self, is_due: bool) {
        self.due.set_now_if(is_due);
    }

    /// A stored row is to be removed, which may wait for a commit that has another cause.
    pub(super) fn removal_due(&mut self, now: Monotonic) {
        self.due.by(now.plus(REMOVE_WAIT));
    }

    /// A young entry was lent: it may wait a moment for its acknowledgement.
    pub(super) fn lent_young(&mut self, now: Monotonic) {
        match self.hold.time() {
            Some(hold) => self.due.by(now.plus(hold)),
            None => self.due.set_now(),
        }
    }

    /// Notes how long after its lending a message was acknowledged.
    pub(super) fn note_ack(&mut self, after: Duration) {
        self.hold.note_ack(after);
    }

    pub(super) fn tick(&mut self, now: Monotonic) {
        self.due.tick(now);
    }

    // ---- purges ------------------------------------------------------------------------------------------------

    /// Ready messages are about to be purged; returns whether rows were due before, for `end_purge`.
    pub(super) fn begin_purge(&mut self) -> bool {
        self.due.take_now()
    }

    /// A purge has removed messages. It is answered once it is flushed, so that no purged message comes back; at once if it
    /// changes nothing in the store.
    pub(super) fn end_purge(&mut self, requester: Requester, message_count: u64, was_due: bool, cx: &mut Context<'_>) {
        if self.due.is_now() {
            self.purges.push((requester, message_count));
        } else {
            cx.out.answer(requester, Answer::Removed { message_count });
        }
        self.due.set_now_if(was_due);
    }

    // ---- outcomes ----------------------------------------------------------------------------------------------

    /// A ticket was flushed, or refused for good: promises are kept or refused. Returns whether the store can be relied on.
    pub(super) fn stored(&mut self, ticket: Ticket, durable: bool, cx: &mut Context<'_>) -> bool {
        while self.submitted.front().is_some_and(|submitted| submitted.ticket <= ticket) {
            let submitted = self.submitted.pop_front().expect("looked at above");
            self.unwritten_bytes = self.unwritten_bytes.saturating_sub(submitted.bytes);
            for promise in submitted.promises {
                cx.out.promise(promise, durable);
            }
            for (requester, message_count) in submitted.purges {
                let removed = Answer::Removed { message_count };
                let answer = if durable { removed } else { Answer::Refused(AmqpError::internal_error()) };
                cx.out.answer(requester, answer);
            }
        }
        self.store_failed |= !durable;
        if !self.store_failed {
            self.flushed = self.flushed.max(ticket);
        }
        !self.store_failed
    }

    /// Whether nothing is on its way to the store.
    pub(super) fn is_idle(&self) -> bool {
        self.young.is_empty() && self.submitted.is_empty()
    }

    /// Gives spare capacity back.
    pub(super) fn shrink_capacity(&mut self, ready: &mut Ready) {
        self.young.shrink_to(self.young.len() + ROOM_KEPT);
        self.submitted.shrink_to(self.submitted.len() + ROOM_KEPT);
        ready.levels_mut().for_each(|(_, level)| level.shrink_capacity(ROOM_KEPT));
    }

    /// The node stops: the ceilings become exact, and everything is due.
    pub(super) fn quiesce(&mut self, ready: &mut Ready) {
        self.is_quiesced = true;
        for (_, level) in ready.levels_mut() {
            self.due.set_now_if(level.make_ceiling_exact());
        }
        let waits = !self.young.is_empty() || ready.levels().any(|level| level.has_removals());
        self.due.set_now_if(waits);
    }

    /// The queue has ended: purges are answered. Returns the promises owed for what was submitted.
    pub(super) fn end(&mut self, cx: &mut Context<'_>) -> Vec<Promise> {
        let mut purges = std::mem::take(&mut self.purges);
        let mut owed = Vec::new();
        for submitted in self.submitted.drain(..) {
            owed.extend(submitted.promises);
            purges.extend(submitted.purges);
        }
        for (requester, message_count) in purges {
            cx.out.answer(requester, Answer::Removed { message_count });
        }
        self.young = VecDeque::new();
        (self.count, self.body_bytes, self.unwritten_bytes) = (0, 0, 0);
        self.due = Due::default();
        owed
    }

    // ---- invariants --------------------------------------------------------------------------------------------

    /// Checks what must hold after every input.
    pub(super) fn assert_invariants(&self) {
        let (first, last) = (self.submitted.front(), self.submitted.back());
        debug_assert!(first.zip(last).is_none_or(|(first, last)| first.ticket <= last.ticket), "tickets rise");
        debug_assert!(last.is_none_or(|last| last.ticket <= self.ticket), "awaited tickets were given out");
        debug_assert!(
            self.count > 0 || self.unwritten_bytes == 0 || !self.submitted.is_empty(),
            "bytes are of messages"
        );
    }

    /// Checks that the bytes are those of young entries and submitted rows, and that every durable entry is counted.
    /// O(entries): for short tables.
    pub(super) fn assert_bytes(&self, entries: &Entries) {
        let young = entries.iter().filter(|(_, entry)| entry.storage == Storage::Young);
        let young: usize = young.map(|(_, entry)| entry.message.allocated_bytes()).sum();
        let submitted: u64 = self.submitted.iter().map(|submitted| submitted.bytes).sum();
        debug_assert_eq!(self.unwritten_bytes, young as u64 + submitted, "unwritten bytes are young or submitted");
        let in_memory = entries.iter().filter(|(_, entry)| entry.is_durable()).count() as u64;
        debug_assert!(in_memory <= self.count, "durable entries are counted");
    }
}
