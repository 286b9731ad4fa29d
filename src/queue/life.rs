//! The life of a queue: when it ends by itself, and its answers after that.

use super::command::{Consume, QueueCommand, Requester};
use super::contents::Contents;
use super::context::Context;
use super::effect::{Effects, Pulled, QueueEffect};
use super::event::LocalEvent;
use super::input::QueueInput;
use super::settings::QueueSettings;
use crate::model::{AmqpError, Answer, Holder, LimitId, Monotonic, Notice};

/// The state of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// The queue takes messages.
    Live,
    /// The queue was deleted.
    Ended,
    /// A turn of the queue panicked: the state of its messages is unknown, and it refuses promises.
    Failed,
}

/// The life of one queue.
#[derive(Debug)]
pub(super) struct Lifetime {
    life: Life,
    /// The last moment at which the queue was used, as `expires` counts it.
    last_used: Monotonic,
    /// Whether it was reported that the queue is unused.
    reported_unused: bool,
}

impl Lifetime {
    pub(super) fn begin(now: Monotonic) -> Self {
        Self { life: Life::Live, last_used: now, reported_unused: false }
    }

    pub(super) fn failed(now: Monotonic) -> Self {
        Self { life: Life::Failed, ..Self::begin(now) }
    }

    /// Whether the queue has ended or failed.
    pub(super) fn has_ended(&self) -> bool {
        self.life != Life::Live
    }

    pub(super) fn end(&mut self) {
        self.life = Life::Ended;
    }

    /// Notes that the queue is used: `expires` counts from now on.
    pub(super) fn note_use(&mut self, now: Monotonic) {
        self.last_used = now;
    }

    /// When the queue expires, while it has no consumers.
    pub(super) fn expires_at(&self, settings: &QueueSettings, consumer_count: u32) -> Option<Monotonic> {
        let expires = settings.expires?;
        (consumer_count == 0 && !self.has_ended()).then(|| self.last_used.plus(expires))
    }

    /// The last consumer has left.
    pub(super) fn last_consumer_left(&mut self, cx: &mut Context<'_>) {
        self.note_use(cx.now.monotonic);
        if cx.settings.auto_delete {
            self.report_unused(cx.out);
        }
    }

    pub(super) fn tick(&mut self, consumer_count: u32, cx: &mut Context<'_>) {
        if self.expires_at(cx.settings, consumer_count).is_some_and(|at| at <= cx.now.monotonic) {
            self.report_unused(cx.out);
        }
    }

    fn report_unused(&mut self, out: &mut Effects) {
        if !self.reported_unused {
            self.reported_unused = true;
            out.effects.push(QueueEffect::Unused);
        }
    }

    /// Takes an input of a queue that has ended or failed: every request is answered, every promise kept or refused.
    pub(super) fn apply_ended(&self, input: QueueInput, contents: &mut Contents, cx: &mut Context<'_>) {
        match input {
            QueueInput::Command(command) => self.answer_ended(command, cx),
            QueueInput::Local(event) => self.apply_ended_event(&event, contents, cx),
        }
    }

    fn keeps_promises(&self) -> bool {
        self.life != Life::Failed
    }

    fn answer_ended(&self, command: QueueCommand, cx: &mut Context<'_>) {
        match command {
            QueueCommand::Publish(messages) => {
                for promise in messages.into_iter().filter_map(|message| message.promise) {
                    cx.out.promise(promise, self.keeps_promises());
                }
            }
            QueueCommand::Consume(Consume { requester, .. }) | QueueCommand::Get { requester, .. } => {
                refuse(requester, cx);
            }
            // The queue existed when the request was made, and was deleted since: the answer is that of an empty queue.
            QueueCommand::Status { requester } if self.keeps_promises() => {
                let queue = cx.settings.name.clone();
                cx.out.answer(requester, Answer::QueueDeclared { queue, message_count: 0, consumer_count: 0 });
            }
            QueueCommand::Purge { requester } if self.keeps_promises() => {
                cx.out.answer(requester, Answer::Removed { message_count: 0 });
            }
            QueueCommand::Status { requester } | QueueCommand::Purge { requester } => refuse(requester, cx),
            QueueCommand::Cancel { requester, .. } => cx.out.answer(requester, Answer::Cancelled),
            QueueCommand::Delete { requester, .. } => {
                cx.out.effects.push(QueueEffect::Deleted { requester, message_count: 0 });
            }
            QueueCommand::ChannelLimit { holder, limit } => answer_limit(holder, limit, cx),
            QueueCommand::Grant { limit, permits } => cx.permits.end_grant(limit, permits),
            QueueCommand::Settle { .. }
            | QueueCommand::Bounce { .. }
            | QueueCommand::Written { .. }
            | QueueCommand::Detach { .. }
            | QueueCommand::Copies { .. }
            | QueueCommand::CopySettled { .. } => {}
        }
    }

    fn apply_ended_event(&self, event: &LocalEvent, contents: &mut Contents, cx: &mut Context<'_>) {
        match event {
            LocalEvent::Pull { .. } => contents.pull_nothing(None, cx),
            LocalEvent::Spill { .. } => cx.out.spilled.push(Pulled::default()),
            LocalEvent::Seal { group, promise } => {
                if let Some(promise) = promise {
                    cx.out.promise(*promise, self.keeps_promises());
                }
                contents.pull_nothing(Some(*group), cx);
            }
            LocalEvent::Replaced { group, .. } => contents.pull_nothing(Some(*group), cx),
            LocalEvent::End
            | LocalEvent::Stored { .. }
            | LocalEvent::Spilled { .. }
            | LocalEvent::Loaded { .. }
            | LocalEvent::Tick
            | LocalEvent::Quiesce
            | LocalEvent::Configure(_) => {}
        }
    }
}

fn refuse(requester: Requester, cx: &mut Context<'_>) {
    let error = AmqpError::no_queue(cx.settings.name.as_str(), cx.settings.vhost.as_str());
    cx.out.answer(requester, Answer::Refused(error));
}

/// Answers that every delivery from now on holds a permit of the limit.
pub(super) fn answer_limit(holder: Holder, limit: Option<LimitId>, cx: &mut Context<'_>) {
    if let Some(limit) = limit {
        let notice = Notice::Limited { channel: holder.channel, queue: cx.settings.id, limit };
        cx.out.notices.push((holder.connection, notice));
    }
}
