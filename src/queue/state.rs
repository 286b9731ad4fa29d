//! The machine: one queue's entries, consumers and rules.
//!
//! A turn is a run of `apply`, each of which leaves the queue settled: whatever could be lent is lent, whatever had to
//! expire has expired. After the turn the driver asks `deadline` and `due`.

use super::consumers::{Consumers, Taker};
use super::dead_letter::DeadLetterReason;
use super::effect::{Effects, Pulled, QueueEffect};
use super::entry::{Entries, Entry, EntryState, Lent, Slot, Storage};
use super::input::{Consume, Enqueue, Outcome, QueueInput, Requester, Ticket};
use super::level::{Asked, Awaiting, Level, Middle, WindowLimits, YoungRef};
use super::permits::Permits;
use super::settings::{HoldLimits, Overflow, QueueLimits, QueueSettings};
use crate::model::names::queue_in_vhost;
use crate::model::stored::LaneState;
use crate::model::{
    AmqpError, Answer, ConsumerKey, ConsumerSlot, Delivery, Holder, Lane, LendId, LimitId, Message, Monotonic, Name,
    Notice, Now, Position, Promise, WallMillis,
};
use std::collections::VecDeque;
use std::time::Duration;

/// What a message takes in memory beside its body and its entry: address, properties, the allocation itself; about.
const MESSAGE_OVERHEAD_BYTES: u64 = 96;
/// What a channel notes for each delivery that is not acknowledged, with room to grow.
const UNACKED_BYTES: u64 = 64;
/// How long an acknowledgement of a stored entry may wait for a commit to ride along.
pub(super) const REMOVE_WAIT: Duration = Duration::from_millis(20);
/// The smoothed ack time before any was seen.
const ACK_TIME_FIRST_MICROS: u64 = 1000;

/// From here on a lane waits for a moment at which it may begin anew: a quarter of its positions is left.
const RENEWED_FROM: Position = Position(Position::MAX.0 / 4 * 3);

/// How many windows (`WindowLimits::head_entries`) ahead the ceiling of what may have been handed over is written: far enough
/// that the next one is flushed before the fastest consumer is there, near enough that a kill marks little that nobody had.
const LENT_AHEAD_WINDOWS: u64 = 16;

/// A `basic.get` that waits for the head to be loaded.
#[derive(Clone, Copy, Debug)]
struct WaitingGet {
    requester: Requester,
    no_ack: bool,
}

/// What of a queue is in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueMemory {
    /// Ready messages; the others are only in the store.
    pub ready: u64,
    /// Body bytes of all messages, ready or not.
    pub body_bytes: u64,
    /// Bytes of the ready messages that the store has or is to have.
    pub window_bytes: u64,
    /// Bytes of transient messages, and of their entries.
    pub transient_bytes: u64,
    /// Bytes of messages that the store is to have and has not flushed.
    pub unwritten_bytes: u64,
    /// All bytes: the queue itself, its table of entries, its messages.
    pub bytes: u64,
}

/// One queue.
#[derive(Debug)]
pub struct QueueState {
    pub(super) settings: QueueSettings,
    pub(super) window: WindowLimits,
    /// How much of the window is left while memory runs short.
    window_whole: WindowLimits,
    hold: HoldLimits,
    pub(super) entries: Entries,
    pub(super) levels: Vec<Option<Box<Level>>>,
    /// One bit per level that has ready entries.
    ready_levels: [u64; 4],
    pub(super) consumers: Consumers,
    waiting_gets: VecDeque<WaitingGet>,
    pub(super) ready_count: u64,
    pub(super) ready_bytes: u64,
    pub(super) out_count: u64,
    out_bytes: u64,
    pub(super) durable_count: u64,
    pub(super) durable_bytes: u64,
    /// What transient messages take of memory beside their entries.
    pub(super) transient_bytes: u64,
    /// What durable messages take of memory until they are flushed, or leave before.
    pub(super) unwritten_bytes: u64,
    pub(super) young: VecDeque<YoungRef>,
    pub(super) awaiting: VecDeque<Awaiting>,
    /// Purges that are not handed to the store yet: who asked, and how many messages went.
    pub(super) purges: Vec<(Requester, u64)>,
    pub(super) ticket: Ticket,
    pub(super) flushed: Ticket,
    pub(super) dropped_lanes: Vec<Lane>,
    /// Rows that the next pull takes away, one way or another.
    pub(super) rows_to_remove: usize,
    ack_time_micros: u64,
    /// Rows wait for the writer now.
    pub(super) due_now: bool,
    /// Rows wait for the writer at the latest then.
    pub(super) due_at: Option<Monotonic>,
    /// The store could not read; it is asked again then.
    pub(super) load_retry_at: Option<Monotonic>,
    /// The store refused rows for good.
    pub(super) store_failed: bool,
    /// The broker stops: ceilings are exact.
    pub(super) quiesced: bool,
    /// Transient messages take more memory than they may.
    pub(super) pressed: bool,
    /// Some were ever handed to the scratch store.
    pub(super) uses_scratch: bool,
    /// It refused rows for good.
    pub(super) scratch_failed: bool,
    pub(super) scratch_ticket: Ticket,
    pub(super) scratch_flushed: Ticket,
    last_used: Monotonic,
    ended: bool,
    failed: bool,
    unused_said: bool,
}

impl QueueState {
    /// Stands in for a queue whose turn panicked: it refuses promises, since nobody knows what became of its messages.
    pub fn failed(settings: QueueSettings, limits: QueueLimits, now: Now) -> Self {
        Self { ended: true, failed: true, ..Self::new(settings, limits, now) }
    }

    /// A new, empty queue.
    pub fn new(settings: QueueSettings, limits: QueueLimits, now: Now) -> Self {
        Self {
            settings,
            window: limits.window,
            window_whole: limits.window,
            hold: limits.hold,
            entries: Entries::new(),
            levels: Vec::new(),
            ready_levels: [0; 4],
            consumers: Consumers::new(limits.consumer),
            waiting_gets: VecDeque::new(),
            ready_count: 0,
            ready_bytes: 0,
            out_count: 0,
            out_bytes: 0,
            durable_count: 0,
            durable_bytes: 0,
            transient_bytes: 0,
            unwritten_bytes: 0,
            young: VecDeque::new(),
            awaiting: VecDeque::new(),
            purges: Vec::new(),
            ticket: Ticket(0),
            flushed: Ticket(0),
            dropped_lanes: Vec::new(),
            rows_to_remove: 0,
            ack_time_micros: ACK_TIME_FIRST_MICROS,
            due_now: false,
            due_at: None,
            load_retry_at: None,
            store_failed: false,
            quiesced: false,
            pressed: false,
            uses_scratch: false,
            scratch_failed: false,
            scratch_ticket: Ticket(0),
            scratch_flushed: Ticket(0),
            last_used: now.monotonic,
            ended: false,
            failed: false,
            unused_said: false,
        }
    }

    /// Gives a queue that was just made a lane that the store remembers. What is in it was published before, and so has
    /// expired once the queue's time to live has passed from now on.
    pub fn recover_lane(&mut self, lane: Lane, state: LaneState, now: Now) {
        let expires_by = self.settings.message_ttl_ms.map(|ttl| now.wall.plus_millis(ttl));
        let level = Level::recovered(lane.generation, state, expires_by);
        self.ready_count += level.ready_count();
        self.ready_bytes += state.body_bytes;
        self.durable_count += state.count;
        self.durable_bytes += state.body_bytes;
        let at = usize::from(lane.level);
        if self.levels.len() <= at {
            self.levels.resize_with(at + 1, || None);
        }
        // Whatever begins the next generation drops the last one in the same batch, or before (`dropped_lanes`).
        assert!(self.levels[at].is_none(), "a level of {} lives in two lanes", self.settings.name);
        self.levels[at] = Some(Box::new(level));
        self.note_ready(lane.level);
    }

    /// What it was declared to be.
    pub fn settings(&self) -> &QueueSettings {
        &self.settings
    }

    /// Messages ready for delivery.
    pub fn ready_count(&self) -> u64 {
        self.ready_count
    }

    /// Body bytes of these.
    pub fn ready_bytes(&self) -> u64 {
        self.ready_bytes
    }

    /// Messages in consumers' hands.
    pub fn unacked_count(&self) -> u64 {
        self.out_count
    }

    /// Body bytes of these.
    pub fn unacked_bytes(&self) -> u64 {
        self.out_bytes
    }

    /// What of the queue is in memory; nothing once it has ended. One look at each level.
    pub fn memory(&self) -> QueueMemory {
        if self.ended {
            return QueueMemory::default();
        }
        let (mut ready, mut body_bytes) = (self.ready_count, self.ready_bytes + self.out_bytes);
        let (mut window_bytes, mut durable) = (0, self.durable_count);
        for lane in self.levels.iter().flatten() {
            window_bytes += lane.window_bytes() as u64;
            durable = durable.saturating_sub(lane.middle.map_or(0, |middle| middle.count));
            for middle in [lane.middle, lane.scratch.middle].into_iter().flatten() {
                ready -= middle.count;
                body_bytes = body_bytes.saturating_sub(middle.body_bytes);
            }
        }
        let unwritten_bytes = self.unwritten_bytes;
        let transient = (ready + self.out_count).saturating_sub(durable);
        let transient_bytes = self.transient_bytes + transient * Entries::ENTRY_BYTES as u64;
        let own_of_stored = durable as usize * Entries::ENTRY_BYTES + self.young.capacity() * size_of::<YoungRef>();
        let window_bytes = window_bytes.saturating_sub(self.transient_bytes) + own_of_stored as u64;
        let own = (size_of::<Self>() + self.entries.table_bytes() + self.consumers.held_bytes()) as u64;
        let bytes =
            own + body_bytes + (ready + self.out_count) * MESSAGE_OVERHEAD_BYTES + self.out_count * UNACKED_BYTES;
        QueueMemory { ready, body_bytes, window_bytes, transient_bytes, unwritten_bytes, bytes }
    }

    /// Messages that the store has, or is to have.
    pub fn durable_count(&self) -> u64 {
        self.durable_count
    }

    /// Body bytes of these.
    pub fn durable_bytes(&self) -> u64 {
        self.durable_bytes
    }

    /// Registered consumers.
    pub fn consumer_count(&self) -> u32 {
        self.consumers.count()
    }

    /// The tags of the consumers, for listings.
    pub fn consumer_tags(&self) -> Vec<Name> {
        self.consumers.iter().map(|consumer| consumer.tag.clone()).collect()
    }

    /// Whether the writer should pull now.
    pub fn is_due(&self) -> bool {
        self.due_now
    }

    /// When the queue wants a `Tick`: a head expires, the queue itself does, or rows fall due for the writer.
    pub fn deadline(&mut self, now: Now) -> Option<Monotonic> {
        let head = self.head_expiry().map(|at| now.monotonic_at(at).plus(Duration::from_micros(999)));
        let expiry = self.queue_expiry();
        [head, expiry, self.due_at, self.load_retry_at].into_iter().flatten().min()
    }

    fn queue_expiry(&self) -> Option<Monotonic> {
        let expires = self.settings.expires?;
        (self.consumers.count() == 0 && !self.ended).then(|| self.last_used.plus(expires))
    }

    /// Halves the windows so many times, while memory for them runs short.
    pub fn squeeze(&mut self, halvings: u32) {
        let halvings = halvings.min(WindowLimits::SQUEEZE_MAX);
        self.window = self.window_whole.squeezed(halvings, self.consumers.count() > 0);
        self.consumers.squeeze(halvings);
    }

    /// How many rows it may have for the writer: those that consumers hold may not be due yet.
    pub fn unwritten_rows(&self) -> usize {
        self.young.len() + self.rows_to_remove
    }

    /// Takes one input. See `QueueInput` for what each means.
    pub fn apply(&mut self, input: QueueInput, now: Now, permits: &mut dyn Permits, out: &mut Effects) {
        if self.ended {
            return self.apply_ended(input, permits, out);
        }
        self.apply_alive(input, now, permits, out);
        self.consumers.end_grants(permits);
    }

    fn apply_alive(&mut self, input: QueueInput, now: Now, permits: &mut dyn Permits, out: &mut Effects) {
        let may_exceed = input.may_exceed_heads();
        match input {
            QueueInput::Publish(messages) => {
                for message in messages {
                    self.publish(message, now, permits, out);
                }
                return;
            }
            QueueInput::Settle { lends, outcome } => self.settle(&lends, outcome, now, out),
            QueueInput::Bounce { lend } => self.bounce(lend),
            QueueInput::Written { consumer, count, bytes } => self.consumers.written(consumer, count, bytes),
            QueueInput::Consume(consume) => self.consume(&consume, out),
            QueueInput::Cancel { requester, key } => self.cancel(requester, key, now, permits, out),
            QueueInput::Get { requester, no_ack } => self.get(requester, no_ack, now, out),
            QueueInput::Status { requester } => {
                self.last_used = now.monotonic;
                let answer = Answer::QueueDeclared {
                    queue: self.settings.name.clone(),
                    message_count: self.shown_ready_count(),
                    consumer_count: self.consumers.count(),
                };
                answer_to(requester, answer, out);
            }
            QueueInput::Purge { requester } => {
                let was_due = std::mem::take(&mut self.due_now);
                let message_count = self.purge(out);
                if self.due_now {
                    // Answered once it is flushed: nothing of it comes back.
                    self.purges.push((requester, message_count));
                } else {
                    answer_to(requester, Answer::Removed { message_count }, out);
                }
                self.due_now |= was_due;
            }
            QueueInput::Delete { requester, if_unused, if_empty } => {
                self.delete(requester, if_unused, if_empty, permits, out);
                return;
            }
            QueueInput::End => {
                self.end(permits, out);
                return;
            }
            QueueInput::Detach { holder } => self.detach(holder, now, permits, out),
            QueueInput::ChannelLimit { holder, limit } => {
                self.consumers.set_channel_limit(holder, limit);
                self.answer_limit(holder, limit, out);
            }
            QueueInput::Grant { limit, permits: granted } => self.consumers.grant(limit, granted, permits),
            QueueInput::Copies { leaving, copies } => self.copies_made(leaving, copies, now, out),
            QueueInput::CopySettled { leaving } => self.copy_settled(leaving, now, out),
            QueueInput::Pull { rows_max, bytes_max } => self.pull(rows_max, bytes_max, now, out),
            QueueInput::Seal { group, promise } => self.seal(group, promise, now, out),
            QueueInput::Replaced { leaving, group } => self.replaced(&leaving, group, now, out),
            QueueInput::Stored { ticket, durable } => self.stored(ticket, durable, out),
            QueueInput::Spill { rows_max, bytes_max } => self.spill(rows_max, bytes_max, out),
            QueueInput::Spilled { ticket, durable } => self.spilled(ticket, durable),
            QueueInput::Loaded { level, load, rows } => self.loaded(level, load, rows, now, out),
            QueueInput::Tick => self.tick(now, out),
            QueueInput::Quiesce => self.quiesce(),
        }
        // What comes back to a full queue is dropped before anything goes out.
        self.enforce_limits(now, out);
        self.dispatch(now, permits, out);
        if may_exceed {
            self.shrink_heads();
        }
    }

    fn publish(&mut self, enqueue: Enqueue, now: Now, permits: &mut dyn Permits, out: &mut Effects) {
        let Enqueue { message, promise } = enqueue;
        if self.settings.overflow != Overflow::DropHead && self.would_overflow(message.body_len() as u64) {
            self.refuse(message, promise, out);
            return;
        }
        let durable = self.settings.durable && message.is_persistent();
        if self.ready_count == 0 && self.waiting_gets.is_empty() && self.consumers.next_keeps_nothing() {
            return self.pass_on(message, promise, durable, permits, out);
        }
        let level = message.priority().min(self.settings.priority_max);
        if durable && !self.has_position(level, out) {
            if let Some(promise) = promise {
                out.promise(promise, false);
            }
            return;
        }
        let promise = if durable {
            out.counts.durable_in += 1;
            self.durable_count += 1;
            self.durable_bytes += message.body_len() as u64;
            promise
        } else {
            if let Some(promise) = promise {
                out.promise(promise, true);
            }
            None
        };
        let expires_at = self.expiry_of(&message, now.wall);
        let (bytes, size) = (message.body_len() as u64, message.allocated_bytes());
        let kind = if durable { &mut self.unwritten_bytes } else { &mut self.transient_bytes };
        *kind += size as u64;
        self.ready_count += 1;
        self.ready_bytes += bytes;
        let window = self.window;
        let lane = self.level_mut(level);
        let order = lane.next_order(durable);
        let storage = if durable { Storage::Young } else { Storage::Transient };
        let slot = self.entries.insert(Entry {
            message,
            order,
            expires_at,
            promise,
            storage,
            level,
            redelivered: false,
            state: EntryState::Ready,
        });
        self.level_mut(level).push_back(slot, durable, size, &window);
        self.note_ready(level);
        if durable {
            self.young.push_back(YoungRef { slot, level, position: order.position });
        }
        self.give_out(now, permits, out);
        self.enforce_limits(now, out);
        self.expire_head(now, Expired::AtOrBefore, out);
        if durable
            && self
                .entries
                .find(slot)
                .is_some_and(|entry| entry.order == order && entry.level == level && entry.state == EntryState::Ready)
        {
            self.due_now = true;
        }
    }

    /// A message that is given for good the moment it comes never becomes an entry.
    fn pass_on(
        &mut self,
        message: Message,
        promise: Option<Promise>,
        durable: bool,
        permits: &mut dyn Permits,
        out: &mut Effects,
    ) {
        if durable {
            out.counts.durable_in += 1;
            out.counts.never_written += 1;
        }
        if let Some(promise) = promise {
            out.promise(promise, true);
        }
        let taker = self.consumers.next_ready(permits).expect("callers looked");
        self.tell_of(taker, Handed { message, redelivered: false, lend: None }, out);
    }

    /// Lends and gives what can be, in order, until there is nothing ready or nobody to take it.
    pub(super) fn dispatch(&mut self, now: Now, permits: &mut dyn Permits, out: &mut Effects) {
        self.give_out(now, permits, out);
        self.expire_head(now, Expired::AtOrBefore, out);
    }

    /// The same; a message whose time is up now stays, for the length of the queue may be the reason for its end.
    fn give_out(&mut self, now: Now, permits: &mut dyn Permits, out: &mut Effects) {
        loop {
            self.expire_head(now, Expired::Before, out);
            if self.ready_count == 0 {
                while let Some(get) = self.waiting_gets.pop_front() {
                    out.counts.get_empty += 1;
                    answer_to(get.requester, Answer::GetEmpty, out);
                }
                break;
            }
            if !self.is_wanted() {
                break;
            }
            let Some(slot) = self.front(out) else { break };
            if !self.may_hand_over(slot) {
                break;
            }
            if let Some(get) = self.waiting_gets.pop_front() {
                self.serve_get(get, slot, now, out);
                continue;
            }
            let Some(taker) = self.consumers.next_ready(permits) else { break };
            self.deliver(taker, slot, now, out);
        }
    }

    /// Whether somebody waits for a message.
    pub(super) fn is_wanted(&self) -> bool {
        !self.waiting_gets.is_empty() || self.consumers.any_ready()
    }

    fn deliver(&mut self, taker: Taker, slot: Slot, now: Now, out: &mut Effects) {
        self.take_front(slot);
        let no_ack = self.consumers.consumer(taker.at).no_ack;
        let handed = self.hand_over(taker.at, no_ack, slot, now, out);
        self.tell_of(taker, handed, out);
    }

    /// A consumer is told of what it was handed.
    fn tell_of(&mut self, Taker { at, permit }: Taker, handed: Handed, out: &mut Effects) {
        let Handed { message, redelivered, lend } = handed;
        let ConsumerKey { holder, slot: consumer } = self.consumers.consumer(at).key;
        if lend.is_none() {
            out.counts.delivered_auto_ack += 1;
        } else {
            out.counts.delivered_manual_ack += 1;
        }
        let (channel, queue, bytes) = (holder.channel, self.settings.id, message.body_len() as u64);
        let delivery = Delivery { channel, consumer, queue, lend, redelivered, permit, message };
        out.notices.push((holder.connection, Notice::Deliver(delivery)));
        self.consumers.after_delivery(at, bytes);
    }

    fn serve_get(&mut self, get: WaitingGet, slot: Slot, now: Now, out: &mut Effects) {
        self.take_front(slot);
        let at = self.consumers.gets_of(get.requester.holder());
        let Handed { message, redelivered, lend } = self.hand_over(at, get.no_ack, slot, now, out);
        if get.no_ack {
            out.counts.got_auto_ack += 1;
        } else {
            out.counts.got_manual_ack += 1;
        }
        let delivery = Delivery {
            channel: get.requester.channel,
            consumer: ConsumerSlot(0),
            queue: self.settings.id,
            lend,
            redelivered,
            permit: None,
            message,
        };
        // What has expired behind it is not counted.
        self.expire_head(now, Expired::AtOrBefore, out);
        answer_to(get.requester, Answer::Got { delivery, message_count: self.shown_ready_count() }, out);
    }

    /// The message leaves the ready ones: lent, or given for good.
    fn hand_over(&mut self, at: u32, no_ack: bool, slot: Slot, now: Now, out: &mut Effects) -> Handed {
        let redelivered = self.entries.at(slot).redelivered;
        if redelivered {
            out.counts.redelivered += 1;
        }
        if no_ack {
            let message = self.remove(slot, now.monotonic, out);
            return Handed { message, redelivered, lend: None };
        }
        let message = self.entries.at(slot).message.clone();
        self.note_out(slot, now);
        let lend = self.consumers.lend(at, slot, &mut self.entries, now.monotonic);
        self.out_count += 1;
        self.out_bytes += message.body_len() as u64;
        Handed { message, redelivered, lend: Some(lend) }
    }

    /// How far ahead of what is handed over the lanes' ceilings are written, in positions.
    pub(super) fn lent_ahead(&self) -> u64 {
        self.window_whole.head_entries as u64 * LENT_AHEAD_WINDOWS
    }

    /// Whether a restart after a kill would know that the entry was handed over. If not, what makes it known is due, and the
    /// entry waits for it. A row that is still to be written says so itself.
    fn may_hand_over(&mut self, slot: Slot) -> bool {
        let ahead = self.lent_ahead();
        let entry = self.entries.at(slot);
        let Storage::Submitted(row) = entry.storage else { return true };
        if entry.redelivered {
            return true;
        }
        let (position, level) = (entry.order.position, entry.level);
        let lane = self.level_mut(level);
        let may = lane.may_hand_over(position, row, ahead);
        self.due_now |= lane.state_changed;
        // After a refusal nobody knows what the store has.
        may || self.store_failed
    }

    /// A durable entry leaves the ready ones but not the queue.
    fn note_out(&mut self, slot: Slot, now: Now) {
        let entry = self.entries.at(slot);
        if !entry.is_durable() {
            let level = entry.level;
            self.level_mut(level).transient_out += 1;
            return;
        }
        let (position, young, level) = (entry.order.position, entry.storage == Storage::Young, entry.level);
        let lane = self.level_mut(level);
        lane.out.insert(position);
        lane.lent_high = lane.lent_high.max(position);
        if young {
            match self.hold_time() {
                Some(hold) => self.due_by(now.monotonic.plus(hold)),
                None => self.due_now = true,
            }
        }
    }

    /// How long a young entry in a consumer's hands may wait for its acknowledgement.
    pub(super) fn hold_time(&self) -> Option<Duration> {
        let smoothed = Duration::from_micros(self.ack_time_micros);
        (smoothed <= self.hold.ack_time_max && !self.hold.hold_max.is_zero())
            .then(|| (smoothed * 2).min(self.hold.hold_max))
    }

    pub(super) fn due_by(&mut self, at: Monotonic) {
        self.due_at = Some(self.due_at.map_or(at, |due| due.min(at)));
    }

    fn settle(&mut self, lends: &[LendId], outcome: Outcome, now: Now, out: &mut Effects) {
        for lend in lends {
            let Some(slot) = self.entries.lent(*lend) else { continue };
            let lent = self.unlend(slot);
            match outcome {
                Outcome::Acknowledged => {
                    out.counts.acknowledged += 1;
                    let took = u64::try_from(now.monotonic.since(lent.since).as_micros()).unwrap_or(u64::MAX);
                    self.ack_time_micros = (self.ack_time_micros * 7 + took.min(1_000_000)) / 8;
                    self.remove(slot, now.monotonic, out);
                }
                Outcome::Requeued => self.requeue(slot, true),
                Outcome::Rejected => {
                    self.entries.at_mut(slot).state = EntryState::Ready;
                    out.counts.rejected += 1;
                    self.die(slot, DeadLetterReason::Rejected, now, out);
                }
            }
        }
    }

    fn unlend(&mut self, slot: Slot) -> Lent {
        self.out_count -= 1;
        let entry = self.entries.at(slot);
        let (level, durable) = (entry.level, entry.is_durable());
        self.out_bytes = self.out_bytes.saturating_sub(entry.message.body_len() as u64);
        self.level_mut(level).transient_out -= usize::from(!durable);
        self.consumers.unlend(slot, &mut self.entries)
    }

    fn bounce(&mut self, lend: LendId) {
        if let Some(slot) = self.entries.lent(lend) {
            let lent = self.unlend(slot);
            let bytes = self.entries.at(slot).message.body_len() as u64;
            self.consumers.never_written(lent.holding, bytes);
            self.requeue(slot, false);
        }
    }

    /// An entry that is not lent any more goes back to its place.
    fn requeue(&mut self, slot: Slot, redelivered: bool) {
        let entry = self.entries.at_mut(slot);
        entry.state = EntryState::Ready;
        entry.redelivered |= redelivered;
        let (level, bytes) = (entry.level, entry.message.body_len() as u64);
        let (durable, position, young) = (entry.is_durable(), entry.order.position, entry.storage == Storage::Young);
        let lane = self.levels[usize::from(level)].as_mut().expect("an entry's level exists");
        if durable {
            lane.out.remove(position);
        }
        lane.put_back(slot, &self.entries);
        self.due_now |= young;
        self.ready_count += 1;
        self.ready_bytes += bytes;
        self.note_ready(level);
    }

    fn consume(&mut self, consume: &Consume, out: &mut Effects) {
        if self.consumers.exclusive || (consume.exclusive && self.consumers.count() > 0) {
            let queue = queue_in_vhost(self.settings.name.as_str(), self.settings.vhost.as_str());
            let error = AmqpError::access_refused(format!("{queue} in exclusive use"));
            answer_to(consume.requester, Answer::Refused(error), out);
            return;
        }
        self.consumers.register(consume);
        answer_to(consume.requester, Answer::Consuming { queue: self.settings.id }, out);
    }

    fn cancel(
        &mut self,
        requester: Requester,
        key: ConsumerKey,
        now: Now,
        permits: &mut dyn Permits,
        out: &mut Effects,
    ) {
        let was = self.consumers.unregister(key, permits);
        answer_to(requester, Answer::Cancelled, out);
        if was.is_some() {
            self.consumer_left(now, out);
        }
    }

    fn consumer_left(&mut self, now: Now, out: &mut Effects) {
        if self.consumers.count() > 0 {
            return;
        }
        self.last_used = now.monotonic;
        if self.settings.auto_delete {
            self.say_unused(out);
        }
    }

    pub(super) fn say_unused(&mut self, out: &mut Effects) {
        if !self.unused_said {
            self.unused_said = true;
            out.effects.push(QueueEffect::Unused);
        }
    }

    fn get(&mut self, requester: Requester, no_ack: bool, now: Now, out: &mut Effects) {
        self.last_used = now.monotonic;
        self.waiting_gets.push_back(WaitingGet { requester, no_ack });
        self.expire_head(now, Expired::AtOrBefore, out);
    }

    fn detach(&mut self, holder: Holder, now: Now, permits: &mut dyn Permits, out: &mut Effects) {
        self.waiting_gets.retain(|get| get.requester.holder() != holder);
        let keys = self.consumers.of_holder(holder);
        let mut slots = self.consumers.held_by(holder, &self.entries);
        for key in &keys {
            self.consumers.unregister(*key, permits);
        }
        slots.sort_by_key(|slot| std::cmp::Reverse(self.entries.at(*slot).order));
        for slot in slots {
            self.unlend(slot);
            self.requeue(slot, true);
        }
        if !keys.is_empty() {
            self.consumer_left(now, out);
        }
    }

    /// All ready messages go; returns how many.
    fn purge(&mut self, out: &mut Effects) -> u64 {
        let purged = self.shown_ready_count();
        for level in 0..self.levels.len() {
            let Some(lane) = self.levels[level].as_mut() else { continue };
            let (slots, taken) = lane.clear();
            if let Some(middle) = taken.durable {
                self.middle_removed(level as u8, &middle);
                self.due_now = true;
            }
            for slot in slots {
                let LetGo { promise, has_row, .. } = self.let_go(slot, out);
                if let Some(promise) = promise {
                    out.promise(promise, true);
                }
                self.due_now |= has_row;
            }
            self.abandon_lane(level as u8);
        }
        self.ready_count = 0;
        self.ready_bytes = 0;
        self.ready_levels = [0; 4];
        purged
    }

    /// Stored entries that were not in memory live no more.
    pub(super) fn middle_removed(&mut self, level: u8, middle: &Middle) {
        self.level_mut(level).remove_middle(middle);
        self.rows_to_remove += usize::try_from(middle.count).unwrap_or(usize::MAX);
        self.durable_count = self.durable_count.saturating_sub(middle.count);
        self.durable_bytes = self.durable_bytes.saturating_sub(middle.body_bytes);
    }

    /// A lane in which nothing lives is left behind and erased later: cheaper than removing its rows.
    fn abandon_lane(&mut self, level: u8) {
        let lane = self.levels[usize::from(level)].as_mut().expect("callers checked the level");
        if !lane.out.is_empty() || (lane.removed.is_empty() && lane.removed_ranges.is_empty()) {
            return;
        }
        let queue = self.settings.id;
        self.dropped_lanes.push(Lane { queue, level, generation: lane.generation });
        lane.generation += 1;
        lane.removed.clear();
        lane.removed_ranges.clear();
        lane.stored_count = 0;
        lane.stored_bytes = 0;
        self.due_now = true;
    }

    /// Whether a lane has a position for one more entry. Long before there is none, it begins anew at the first moment at
    /// which nothing of it lives.
    fn has_position(&mut self, level: u8, out: &mut Effects) -> bool {
        let (queue, nothing_is_out) = (self.settings.id, self.out_count == 0);
        let lane = self.level_mut(level);
        if lane.tail_position() < RENEWED_FROM {
            return true;
        }
        if nothing_is_out && lane.out.is_empty() && lane.ready_count() == 0 {
            let generation = lane.begin_anew();
            self.dropped_lanes.push(Lane { queue, level, generation });
            self.due_now = true;
            return true;
        }
        if lane.tail_position() < Position::MAX {
            return true;
        }
        if !std::mem::replace(&mut lane.is_full_said, true) {
            let lane = Lane { queue, level, generation: lane.generation };
            out.effects.push(QueueEffect::NoPositions { lane });
        }
        false
    }

    fn delete(
        &mut self,
        requester: Requester,
        if_unused: bool,
        if_empty: bool,
        permits: &mut dyn Permits,
        out: &mut Effects,
    ) {
        let queue = || queue_in_vhost(self.settings.name.as_str(), self.settings.vhost.as_str());
        let refused = if if_empty && self.shown_ready_count() > 0 {
            Some(format!("{} not empty", queue()))
        } else if if_unused && self.consumers.count() > 0 {
            Some(format!("{} in use", queue()))
        } else {
            None
        };
        if let Some(text) = refused {
            answer_to(requester, Answer::Refused(AmqpError::precondition_failed(text)), out);
            return;
        }
        let message_count = self.shown_ready_count();
        self.end(permits, out);
        out.effects.push(QueueEffect::Deleted { requester, message_count });
    }

    /// The queue is no more: promises are kept, consumers told, waiting gets answered.
    fn end(&mut self, permits: &mut dyn Permits, out: &mut Effects) {
        self.ended = true;
        let (mut owed, mut purges): (Vec<Promise>, _) = (Vec::new(), std::mem::take(&mut self.purges));
        for awaiting in self.awaiting.drain(..) {
            owed.extend(awaiting.promises);
            purges.extend(awaiting.purges);
        }
        for (requester, message_count) in purges {
            answer_to(requester, Answer::Removed { message_count }, out);
        }
        let mut orders: Vec<_> = self
            .entries
            .iter()
            .filter_map(|(_, entry)| entry.promise.map(|promise| (promise.sequence, promise)))
            .collect();
        orders.sort_by_key(|(sequence, _)| *sequence);
        owed.extend(orders.into_iter().map(|(_, promise)| promise));
        for promise in owed {
            out.promise(promise, true);
        }
        for key in self.consumers.take_all(permits) {
            let notice = Notice::ConsumerCancelled { channel: key.holder.channel, consumer: key.slot };
            out.notices.push((key.holder.connection, notice));
        }
        while let Some(get) = self.waiting_gets.pop_front() {
            answer_to(get.requester, Answer::Refused(self.not_found()), out);
        }
        self.entries = Entries::new();
        self.levels = Vec::new();
        self.young = VecDeque::new();
        self.ready_levels = [0; 4];
        (self.ready_count, self.ready_bytes, self.out_count, self.out_bytes) = (0, 0, 0, 0);
        (self.durable_count, self.durable_bytes) = (0, 0);
        (self.transient_bytes, self.unwritten_bytes) = (0, 0);
        (self.due_now, self.due_at, self.load_retry_at) = (false, None, None);
    }

    fn not_found(&self) -> AmqpError {
        AmqpError::no_queue(self.settings.name.as_str(), self.settings.vhost.as_str())
    }

    /// Whether the queue has ended; its cell can be let go.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// What the queue delivers from here on holds permits of the limit.
    fn answer_limit(&self, holder: Holder, limit: Option<LimitId>, out: &mut Effects) {
        if let Some(limit) = limit {
            let notice = Notice::Limited { channel: holder.channel, queue: self.settings.id, limit };
            out.notices.push((holder.connection, notice));
        }
    }

    fn apply_ended(&mut self, input: QueueInput, permits: &mut dyn Permits, out: &mut Effects) {
        match input {
            QueueInput::Publish(messages) => {
                for promise in messages.into_iter().filter_map(|message| message.promise) {
                    out.promise(promise, !self.failed);
                }
            }
            QueueInput::Consume(Consume { requester, .. }) | QueueInput::Get { requester, .. } => {
                answer_to(requester, Answer::Refused(self.not_found()), out);
            }
            // It was there when it was asked, and has been deleted since: as if the answer had been given before that.
            QueueInput::Status { requester } if !self.failed => {
                let queue = self.settings.name.clone();
                answer_to(requester, Answer::QueueDeclared { queue, message_count: 0, consumer_count: 0 }, out);
            }
            QueueInput::Purge { requester } if !self.failed => {
                answer_to(requester, Answer::Removed { message_count: 0 }, out);
            }
            QueueInput::Status { requester } | QueueInput::Purge { requester } => {
                answer_to(requester, Answer::Refused(self.not_found()), out);
            }
            QueueInput::Cancel { requester, .. } => answer_to(requester, Answer::Cancelled, out),
            QueueInput::Delete { requester, .. } => {
                out.effects.push(QueueEffect::Deleted { requester, message_count: 0 });
            }
            QueueInput::Pull { .. } => self.pull_nothing(None, out),
            QueueInput::Spill { .. } => out.spilled.push(Pulled::default()),
            QueueInput::Seal { group, promise } => {
                if let Some(promise) = promise {
                    out.promise(promise, !self.failed);
                }
                self.pull_nothing(Some(group), out);
            }
            QueueInput::Replaced { group, .. } => self.pull_nothing(Some(group), out),
            QueueInput::ChannelLimit { holder, limit } => self.answer_limit(holder, limit, out),
            QueueInput::Grant { limit, permits: granted } => permits.end_grant(limit, granted),
            QueueInput::Settle { .. }
            | QueueInput::Bounce { .. }
            | QueueInput::Written { .. }
            | QueueInput::End
            | QueueInput::Detach { .. }
            | QueueInput::Copies { .. }
            | QueueInput::CopySettled { .. }
            | QueueInput::Stored { .. }
            | QueueInput::Spilled { .. }
            | QueueInput::Loaded { .. }
            | QueueInput::Tick
            | QueueInput::Quiesce => {}
        }
    }

    fn tick(&mut self, now: Now, out: &mut Effects) {
        if self.due_at.is_some_and(|due| due <= now.monotonic) {
            self.due_at = None;
            self.due_now = true;
        }
        if self.load_retry_at.is_some_and(|at| at <= now.monotonic) {
            self.load_retry_at = None;
            self.levels.iter_mut().flatten().for_each(|lane| lane.retry_load());
        }
        if self.queue_expiry().is_some_and(|at| at <= now.monotonic) {
            self.say_unused(out);
        }
    }

    // ---- what the other files of this folder share -------------------------------------------------------------

    pub(super) fn level_mut(&mut self, level: u8) -> &mut Level {
        let at = usize::from(level);
        if self.levels.len() <= at {
            self.levels.resize_with(at + 1, || None);
        }
        self.levels[at].get_or_insert_with(Box::default)
    }

    pub(super) fn note_ready(&mut self, level: u8) {
        let any = self.levels[usize::from(level)].as_ref().is_some_and(|lane| lane.ready_count() > 0);
        let (word, bit) = (usize::from(level / 64), 1u64 << (level % 64));
        if any { self.ready_levels[word] |= bit } else { self.ready_levels[word] &= !bit }
    }

    /// The highest level with ready entries.
    pub(super) fn top_level(&self) -> Option<u8> {
        (0..4).rev().find(|word| self.ready_levels[*word] != 0).map(|word| {
            let bit = 63 - self.ready_levels[word].leading_zeros();
            (word as u32 * 64 + bit) as u8
        })
    }

    /// The entry whose turn it is; none while it is being loaded.
    pub(super) fn front(&mut self, out: &mut Effects) -> Option<Slot> {
        let level = self.top_level()?;
        let window = self.window;
        let queue = self.settings.id;
        let lane = self.level_mut(level);
        let generation = lane.generation;
        if let Some(Asked { load, durable, scratch, rows_max }) = lane.begin_load(&window) {
            let lane = Lane { queue, level, generation };
            let bytes_max = window.head_bytes;
            out.effects.push(QueueEffect::Load { lane, load, durable, scratch, rows_max, bytes_max });
        }
        self.level_mut(level).front()
    }

    /// The entry leaves the ready ones.
    pub(super) fn take_front(&mut self, slot: Slot) {
        let entry = self.entries.at(slot);
        let (level, bytes) = (entry.level, entry.message.body_len() as u64);
        let (position, size) = (entry.order.position, entry.message.allocated_bytes());
        self.level_mut(level).pop_front(position, size);
        self.ready_count -= 1;
        self.ready_bytes = self.ready_bytes.saturating_sub(bytes);
        self.note_ready(level);
    }

    /// An entry that is not ready any more leaves the queue for good: its promise is kept and its row, if any, removed.
    pub(super) fn remove(&mut self, slot: Slot, now: Monotonic, out: &mut Effects) -> Message {
        let LetGo { promise, has_row, message } = self.let_go(slot, out);
        if let Some(promise) = promise {
            out.promise(promise, true);
        }
        if has_row {
            self.due_by(now.plus(REMOVE_WAIT));
        }
        message
    }

    /// An entry leaves the queue for good; its promise is still to be kept.
    pub(super) fn let_go(&mut self, slot: Slot, out: &mut Effects) -> LetGo {
        let entry = self.entries.remove(slot);
        let mut has_row = false;
        if entry.is_durable() {
            self.durable_count = self.durable_count.saturating_sub(1);
            self.durable_bytes = self.durable_bytes.saturating_sub(entry.message.body_len() as u64);
            let lane = self.levels[usize::from(entry.level)].as_mut().expect("an entry's level exists");
            if entry.state != EntryState::Ready {
                lane.out.remove(entry.order.position);
            }
            if let Storage::Submitted(_) = entry.storage {
                has_row = true;
                self.rows_to_remove += 1;
                lane.remove_row(entry.order.position, entry.message.body_len() as u64);
            } else {
                out.counts.never_written += 1;
                let bytes = entry.message.allocated_bytes() as u64;
                self.unwritten_bytes = self.unwritten_bytes.saturating_sub(bytes);
            }
        } else {
            self.transient_bytes = self.transient_bytes.saturating_sub(entry.message.allocated_bytes() as u64);
        }
        LetGo { promise: entry.promise, has_row, message: entry.message }
    }

    /// Ends an entry that was taken from the ready ones or from a holder: dead-lettered, or gone.
    pub(super) fn die(&mut self, slot: Slot, reason: DeadLetterReason, now: Now, out: &mut Effects) {
        let Some(leaving) = self.begin_leaving(slot, reason, out) else {
            self.remove_ready(slot, now, out);
            return;
        };
        self.level_mut(leaving.level).out.insert(leaving.position);
    }

    fn remove_ready(&mut self, slot: Slot, now: Now, out: &mut Effects) {
        let entry = self.entries.at(slot);
        if entry.is_durable() {
            let (level, position) = (entry.level, entry.order.position);
            self.level_mut(level).out.remove(position);
        }
        self.remove(slot, now.monotonic, out);
    }
}

/// An entry that has left.
pub(super) struct LetGo {
    /// What is owed for it.
    pub(super) promise: Option<Promise>,
    /// Whether the store has a row of it.
    has_row: bool,
    message: Message,
}

/// What a consumer or a get is handed.
struct Handed {
    message: Message,
    redelivered: bool,
    /// None when it is given for good.
    lend: Option<LendId>,
}

/// Which messages count as expired: those that could not be lent in time, or those whose time is up now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expired {
    /// Their time was up before now: a TTL of zero still reaches a waiting consumer.
    Before,
    /// Their time is up now.
    AtOrBefore,
}

impl Expired {
    pub(super) fn covers(self, at: WallMillis, now: WallMillis) -> bool {
        match self {
            Self::Before => at < now,
            Self::AtOrBefore => at <= now,
        }
    }
}

/// Sends an answer.
pub(super) fn answer_to(requester: Requester, answer: Answer, out: &mut Effects) {
    let notice = Notice::Answer { channel: requester.channel, request: requester.request, answer };
    out.notices.push((requester.connection, notice));
}
