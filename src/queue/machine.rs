//! The machine: one queue, made of the parts that own its numbers.
//!
//! A turn is a series of calls of `apply`. Each leaves the queue at rest: all messages that can be lent are lent, and all that
//! must expire have expired. After the turn the driver asks `deadline` and `is_due`.

use super::command::{Enqueue, QueueCommand, Requester};
use super::contents::{Arrival, Contents};
use super::context::Context;
use super::effect::{Effects, QueueEffect};
use super::event::LocalEvent;
use super::expiry::{Expired, expiry_of};
use super::input::QueueInput;
use super::lending::Lending;
use super::life::{Lifetime, answer_limit};
use super::metrics::{QueueMemory, QueueMetrics};
use super::overflow::refuse;
use super::permits::Permits;
use super::settings::{QueueLimits, QueueSettings, WindowLimits};
use crate::model::names::queue_in_vhost;
use crate::model::stored::LaneState;
use crate::model::{AmqpError, Answer, Lane, Monotonic, Name, Now};
use std::time::Duration;

/// The wall clock counts milliseconds: a deadline at the end of a millisecond never comes too early.
const MILLISECOND_END: Duration = Duration::from_micros(999);

/// One queue.
#[derive(Debug)]
pub struct QueueState {
    settings: QueueSettings,
    parts: Parts,
}

/// The parts of a queue; an input changes them, and only reads the settings.
#[derive(Debug)]
struct Parts {
    contents: Contents,
    lending: Lending,
    lifetime: Lifetime,
}

/// What remains to be done after an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Enforce the limits, and lend what can be lent.
    Dispatch,
    /// Nothing: each message was dispatched as it came, or the queue has ended.
    Rest,
}

impl QueueState {
    /// Replaces a queue whose turn panicked: it refuses promises, because the state of its messages is unknown.
    pub fn failed(settings: QueueSettings, limits: QueueLimits, now: Now) -> Self {
        let mut queue = Self::new(settings, limits, now);
        queue.parts.lifetime = Lifetime::failed(now.monotonic);
        queue
    }

    /// A new, empty queue.
    pub fn new(settings: QueueSettings, limits: QueueLimits, now: Now) -> Self {
        let parts = Parts {
            contents: Contents::new(&limits),
            lending: Lending::new(limits.consumer),
            lifetime: Lifetime::begin(now.monotonic),
        };
        Self { settings, parts }
    }

    /// Adds a lane that the store remembers to a new queue. Its messages were published before now, so all of them have expired
    /// once the declared time to live has passed from now on. No policy makes that time longer (`ChangeableSettings`), so
    /// lanes are added before `LocalEvent::Configure`, which may make it shorter.
    pub fn recover_lane(&mut self, lane: Lane, state: LaneState, now: Now) {
        let expires_by = self.settings.message_ttl_ms.map(|ttl| now.wall.plus_millis(ttl));
        self.parts.contents.recover_lane(lane, state, expires_by);
    }

    /// The queue's settings.
    pub fn settings(&self) -> &QueueSettings {
        &self.settings
    }

    // ---- numbers -----------------------------------------------------------------------------------------------

    /// Messages ready for delivery.
    pub fn ready_count(&self) -> u64 {
        self.parts.contents.ready.count()
    }

    /// Body bytes of the ready messages.
    pub fn ready_bytes(&self) -> u64 {
        self.parts.contents.ready.body_bytes()
    }

    /// Messages ready for delivery, for clients and listings, without those that the length limit drops as soon as their rows are
    /// read. How many a limit of bytes drops is not known before the read.
    pub fn shown_ready_count(&self) -> u64 {
        self.parts.contents.shown_ready_count(&self.settings)
    }

    /// Messages that consumers and gets hold.
    pub fn unacked_count(&self) -> u64 {
        self.parts.lending.count()
    }

    /// Body bytes of the messages that consumers and gets hold.
    pub fn unacked_bytes(&self) -> u64 {
        self.parts.lending.body_bytes()
    }

    /// Messages that the store has, or is to have.
    pub fn durable_count(&self) -> u64 {
        self.parts.contents.durable.count()
    }

    /// Body bytes of the durable messages.
    pub fn durable_bytes(&self) -> u64 {
        self.parts.contents.durable.body_bytes()
    }

    /// Registered consumers.
    pub fn consumer_count(&self) -> u32 {
        self.parts.lending.consumer_count()
    }

    /// The tags of the consumers, for listings.
    pub fn consumer_tags(&self) -> Vec<Name> {
        self.parts.lending.consumer_tags().cloned().collect()
    }

    /// The part of the queue that is in memory; nothing once it has ended.
    pub fn memory(&self) -> QueueMemory {
        if self.has_ended() {
            return QueueMemory::default();
        }
        QueueMemory::of(&self.parts.contents, &self.parts.lending, size_of::<Self>())
    }

    /// All numbers of the queue. O(levels).
    pub fn metrics(&self) -> QueueMetrics {
        let contents = &self.parts.contents;
        QueueMetrics {
            ready: self.shown_ready_count(),
            ready_bytes: self.ready_bytes(),
            unacked: self.unacked_count(),
            unacked_bytes: self.unacked_bytes(),
            durable: self.durable_count(),
            durable_bytes: self.durable_bytes(),
            consumers: self.consumer_count(),
            unwritten_rows: contents.durable.unwritten_rows(),
            unspilled_rows: contents.spill.waiting_rows(&contents.ready),
            memory: self.memory(),
        }
    }

    // ---- questions of the driver after a turn -------------------------------------------------------------------

    /// Whether rows are due for the writer.
    pub fn is_due(&self) -> bool {
        self.parts.contents.durable.is_due()
    }

    /// Whether there is something for the scratch store.
    pub fn wants_scratch(&self) -> bool {
        self.parts.contents.spill.wants_pull(&self.parts.contents.ready)
    }

    /// When the queue needs a `Tick`: a head expires, the queue itself does, or rows fall due for the writer.
    pub fn deadline(&mut self, now: Now) -> Option<Monotonic> {
        let Parts { contents, lending, lifetime } = &mut self.parts;
        let head = contents.head_expiry().map(|at| now.monotonic_at(at).plus(MILLISECOND_END));
        let expiry = lifetime.expires_at(&self.settings, lending.consumer_count());
        [head, expiry, contents.durable.due_at(), contents.ready.load_retry_at()].into_iter().flatten().min()
    }

    /// Whether the queue has ended; its cell can be dropped.
    pub fn has_ended(&self) -> bool {
        self.parts.lifetime.has_ended()
    }

    // ---- memory ------------------------------------------------------------------------------------------------

    /// Shrinks the windows by `steps` while memory for them is short; 0 restores them.
    pub fn shrink_windows(&mut self, steps: u32) {
        let steps = steps.min(WindowLimits::SHRINK_STEPS_MAX);
        let Parts { contents, lending, .. } = &mut self.parts;
        contents.ready.shrink_windows(steps, lending.consumer_count() > 0);
        lending.shrink_windows(steps);
    }

    /// Sets whether transient messages exceed their memory budget.
    pub fn set_memory_pressure(&mut self, is_pressed: bool) {
        self.parts.contents.spill.set_memory_pressure(is_pressed);
    }

    // ---- inputs ------------------------------------------------------------------------------------------------

    /// Takes one input. See `QueueCommand` and `LocalEvent` for what each means.
    pub fn apply(&mut self, input: QueueInput, now: Now, permits: &mut dyn Permits, out: &mut Effects) {
        let Self { settings, parts } = self;
        if parts.lifetime.has_ended() {
            let mut cx = Context { settings, now, permits, out };
            return parts.lifetime.apply_ended(input, &mut parts.contents, &mut cx);
        }
        if let QueueInput::Local(LocalEvent::Configure(changed)) = &input {
            settings.change(changed);
        }
        let mut cx = Context { settings, now, permits, out };
        parts.apply(input, &mut cx);
        parts.lending.end_grants(&mut cx);
        if cfg!(debug_assertions) && !parts.lifetime.has_ended() {
            parts.assert_invariants();
        }
    }
}

impl Parts {
    fn apply(&mut self, input: QueueInput, cx: &mut Context<'_>) {
        let may_exceed_heads = input.may_exceed_heads();
        let then = match input {
            QueueInput::Command(command) => self.apply_command(command, cx),
            QueueInput::Local(event) => self.apply_event(event, cx),
        };
        if then == Then::Rest {
            return;
        }
        // A message that comes back to a full queue is dropped before any message is lent.
        self.contents.enforce_limits(self.lending.is_wanted(), cx);
        self.lending.dispatch(&mut self.contents, cx);
        if may_exceed_heads {
            self.contents.shrink_heads();
        }
    }

    fn apply_command(&mut self, command: QueueCommand, cx: &mut Context<'_>) -> Then {
        let Self { contents, lending, lifetime } = self;
        match command {
            QueueCommand::Publish(messages) => {
                for message in messages {
                    self.publish(message, cx);
                }
                return Then::Rest;
            }
            QueueCommand::Settle { lends, outcome } => lending.settle(&lends, outcome, contents, cx),
            QueueCommand::Bounce { lend } => lending.bounce(lend, contents),
            QueueCommand::Written { consumer, count, bytes } => lending.written(consumer, count, bytes),
            QueueCommand::Consume(consume) => lending.consume(&consume, cx),
            QueueCommand::Cancel { requester, key } => {
                if lending.cancel(requester, key, cx) {
                    lifetime.last_consumer_left(cx);
                }
            }
            QueueCommand::Get { requester, no_ack } => {
                lifetime.note_use(cx.now.monotonic);
                lending.get(requester, no_ack);
                contents.expire_head(Expired::AtOrBefore, true, cx);
            }
            QueueCommand::Status { requester } => self.answer_status(requester, cx),
            QueueCommand::Purge { requester } => self.purge(requester, cx),
            QueueCommand::Delete { requester, if_unused, if_empty } => {
                self.delete(requester, if_unused, if_empty, cx);
                return Then::Rest;
            }
            QueueCommand::Detach { holder } => {
                if lending.detach(holder, contents, cx) {
                    lifetime.last_consumer_left(cx);
                }
            }
            QueueCommand::ChannelLimit { holder, limit } => {
                lending.set_channel_limit(holder, limit);
                answer_limit(holder, limit, cx);
            }
            QueueCommand::Grant { limit, permits } => lending.grant(limit, permits, cx),
            QueueCommand::Copies { leaving, copies } => contents.copies_made(leaving, copies, cx),
            QueueCommand::CopySettled { leaving } => contents.copy_settled(leaving, cx),
        }
        Then::Dispatch
    }

    fn apply_event(&mut self, event: LocalEvent, cx: &mut Context<'_>) -> Then {
        let contents = &mut self.contents;
        match event {
            LocalEvent::Pull { rows_max, bytes_max } => contents.pull(rows_max, bytes_max, cx),
            LocalEvent::Seal { group, promise } => contents.seal(group, promise, cx),
            LocalEvent::Replaced { leaving, group } => contents.replaced(&leaving, group, cx),
            LocalEvent::Stored { ticket, durable } => contents.stored(ticket, durable, cx),
            LocalEvent::Spill { rows_max, bytes_max } => contents.spill(rows_max, bytes_max, cx),
            LocalEvent::Spilled { ticket, durable } => contents.spilled(ticket, durable),
            LocalEvent::Loaded { level, load, rows } => contents.loaded(level, load, rows, cx),
            LocalEvent::Tick => {
                contents.durable.tick(cx.now.monotonic);
                contents.ready.tick(cx.now.monotonic);
                self.lifetime.tick(self.lending.consumer_count(), cx);
            }
            LocalEvent::End => {
                self.end(cx);
                return Then::Rest;
            }
            LocalEvent::Quiesce => contents.durable.quiesce(&mut contents.ready),
            // The new settings are in `cx` already.
            LocalEvent::Configure(_) => self.lifetime.note_use(cx.now.monotonic),
        }
        Then::Dispatch
    }

    fn publish(&mut self, enqueue: Enqueue, cx: &mut Context<'_>) {
        let Enqueue { message, promise } = enqueue;
        let Self { contents, lending, .. } = self;
        if contents.refuses(message.body_len() as u64, cx.settings) {
            return refuse(message, promise, cx);
        }
        cx.out.counts.published += 1;
        let is_durable = cx.settings.durable && message.is_persistent();
        if contents.ready.count() == 0 && lending.next_keeps_nothing() {
            return lending.pass_on(message, promise, is_durable, cx);
        }
        let level = message.priority().min(cx.settings.priority_max);
        if is_durable && !contents.has_position(level, lending.count() == 0, cx) {
            if let Some(promise) = promise {
                cx.out.promise(promise, false);
            }
            return;
        }
        let promise = if is_durable {
            cx.out.counts.durable_in += 1;
            promise
        } else {
            if let Some(promise) = promise {
                cx.out.promise(promise, true);
            }
            None
        };
        let expires_at = expiry_of(&message, cx.settings, cx.now.wall);
        let arrived = contents.enter(Arrival { message, promise, level, is_durable, expires_at });
        lending.give_out(contents, cx);
        contents.enforce_limits(lending.is_wanted(), cx);
        contents.expire_head(Expired::AtOrBefore, lending.is_wanted(), cx);
        if is_durable {
            contents.make_due(arrived);
        }
    }

    fn answer_status(&mut self, requester: Requester, cx: &mut Context<'_>) {
        self.lifetime.note_use(cx.now.monotonic);
        let answer = Answer::QueueDeclared {
            queue: cx.settings.name.clone(),
            message_count: self.contents.shown_ready_count(cx.settings),
            consumer_count: self.lending.consumer_count(),
        };
        cx.out.answer(requester, answer);
    }

    fn purge(&mut self, requester: Requester, cx: &mut Context<'_>) {
        let message_count = self.contents.shown_ready_count(cx.settings);
        let was_due = self.contents.durable.begin_purge();
        self.contents.purge(cx);
        self.contents.durable.end_purge(requester, message_count, was_due, cx);
    }

    fn delete(&mut self, requester: Requester, if_unused: bool, if_empty: bool, cx: &mut Context<'_>) {
        let message_count = self.contents.shown_ready_count(cx.settings);
        let queue = || queue_in_vhost(cx.settings.name.as_str(), cx.settings.vhost.as_str());
        let refused = if if_empty && message_count > 0 {
            Some(format!("{} not empty", queue()))
        } else if if_unused && self.lending.consumer_count() > 0 {
            Some(format!("{} in use", queue()))
        } else {
            None
        };
        if let Some(text) = refused {
            return cx.out.answer(requester, Answer::Refused(AmqpError::precondition_failed(text)));
        }
        self.end(cx);
        cx.out.effects.push(QueueEffect::Deleted { requester, message_count });
    }

    /// Ends the queue: keeps promises, cancels consumers, answers waiting gets.
    fn end(&mut self, cx: &mut Context<'_>) {
        self.lifetime.end();
        self.contents.end(cx);
        self.lending.end(cx);
    }

    /// Checks what must hold after every input of a live queue. O(levels); in debug builds only.
    fn assert_invariants(&self) {
        self.contents.assert_invariants();
        self.lending.assert_invariants(&self.contents);
    }
}
