//! One channel of a connection: its parts, and the rule whether a frame may be carried out now.

use super::confirms::Confirms;
use super::consumers::Consumers;
use super::content::Content;
use super::due::Listings;
use super::effect::{Effect, Output};
use super::method_ids::QUEUE_DECLARE;
use super::metrics::SessionMetrics;
use super::outlet::Outlet;
use super::prefetch::Prefetch;
use super::requests::{RequestKind, Requests};
use super::transaction::Transaction;
use super::unacked::Unacked;
use crate::model::{AmqpError, ChannelKey, Command, ConsumerSlot, Name};
use crate::wire::frame::{Frame, FrameKind};
use crate::wire::method::{BasicQos, MethodId};

/// Whether a channel is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Open.
    Open,
    /// channel.close was sent; everything but close and close-ok is discarded.
    Closing,
}

/// One channel of a connection.
#[derive(Debug)]
pub(super) struct Channel {
    pub(super) key: ChannelKey,
    pub(super) stage: Stage,
    pub(super) content: Content,
    pub(super) requests: Requests,
    /// The queue that was declared last; methods with an empty queue name mean it.
    pub(super) last_queue: Option<Name>,
    pub(super) prefetch: Prefetch,
    pub(super) consumers: Consumers,
    pub(super) unacked: Unacked,
    pub(super) confirms: Confirms,
    pub(super) transaction: Option<Transaction>,
    /// The channel has published.
    pub(super) has_published: bool,
    /// Its part of the connection's metrics, as last measured.
    pub(super) measured: SessionMetrics,
    pub(super) listings: Listings,
}

impl Channel {
    pub(super) fn new(key: ChannelKey) -> Self {
        Self {
            key,
            stage: Stage::Open,
            content: Content::default(),
            requests: Requests::default(),
            last_queue: None,
            prefetch: Prefetch::default(),
            consumers: Consumers::default(),
            unacked: Unacked::default(),
            confirms: Confirms::default(),
            transaction: None,
            has_published: false,
            measured: SessionMetrics::default(),
            listings: Listings::default(),
        }
    }

    /// Whether it is this incarnation and not closing.
    pub(super) fn is_live(&self, key: ChannelKey) -> bool {
        self.key == key && self.stage == Stage::Open
    }

    /// Whether a frame has to wait for answers first.
    pub(super) fn must_park(&self, frame: &Frame<'_>) -> bool {
        if self.stage == Stage::Closing || !self.requests.is_busy() {
            return false;
        }
        let may_follow = self.requests.may_be_followed()
            && self.content.is_idle()
            && frame.kind == FrameKind::Method
            && is_topology(frame.payload)
            && (self.knows_last_queue() || !names_last_queue(frame.payload));
        !may_follow
    }

    /// Whether a queue was declared, and no declaration that waits will change which one is the last.
    fn knows_last_queue(&self) -> bool {
        self.last_queue.is_some() && !self.requests.has_queue_declare()
    }

    /// Notes a method whose answer is to come, and emits its command.
    pub(super) fn request(&mut self, method: MethodId, kind: RequestKind, command: Command, out: &mut Output) {
        let request = self.requests.add(method, kind);
        out.command(self.key, request, command);
    }

    /// Whether a consumer's cancellation must wait until a queue.delete of this channel is answered; noted if so.
    pub(super) fn hold_cancel(&mut self, consumer: ConsumerSlot) -> bool {
        let is_deleting = self.requests.has_queue_delete();
        if is_deleting {
            self.consumers.hold_cancelled(consumer);
        }
        is_deleting
    }

    /// The queue that a method names, or the last declared one if it names none.
    pub(super) fn queue_or_last(&self, queue: &str) -> Result<Name, AmqpError> {
        if !queue.is_empty() {
            return Ok(Name::from(queue));
        }
        self.last_queue.clone().ok_or_else(|| AmqpError::not_found("no previously declared queue"))
    }

    /// Sets a prefetch limit. A shared limit that begins counts all that is unacknowledged, gets too, as RabbitMQ does, and
    /// what a transaction has settled but not committed.
    pub(super) fn set_prefetch(&mut self, qos: BasicQos, outlet: &mut dyn Outlet) {
        let Self { prefetch, unacked, transaction, .. } = self;
        let change = prefetch.set(qos, |counted| {
            let held_back = transaction.as_mut().map_or(0, |transaction| transaction.count_settlements(counted));
            unacked.count_all(counted) + held_back
        });
        if let Some(change) = change {
            outlet.change_limit(self.key, change);
        }
    }

    /// Reports to the queues what was flushed, so that they may send more.
    pub(super) fn report_written(&mut self, out: &mut Output) {
        self.listings.to_report = false;
        let (channel, first) = (self.key, out.effects.len());
        for (consumer, entry) in self.consumers.iter_mut() {
            let Some(queue) = entry.queue.filter(|_| entry.unreported > 0) else { continue };
            let count = std::mem::take(&mut entry.unreported);
            let bytes = std::mem::take(&mut entry.unreported_bytes);
            out.effects.push(Effect::Written { channel, consumer, queue, count, bytes });
        }
        // The same order in every run: that of the map differs.
        out.effects[first..].sort_unstable_by_key(|effect| match effect {
            Effect::Written { consumer, .. } => Some(*consumer),
            _ => None,
        });
    }

    /// The memory that its unfinished content and transaction take, in bytes.
    pub(super) fn unfinished_bytes(&self) -> usize {
        self.content.held_bytes() + self.transaction.as_ref().map_or(0, Transaction::held_bytes)
    }

    /// Its part of the connection's metrics, as of now.
    pub(super) fn measure(&self) -> SessionMetrics {
        let len = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
        let transaction = self.transaction.as_ref();
        SessionMetrics {
            publishers: self.has_published.into(),
            unconfirmed: len(self.confirms.waiting()),
            uncommitted: transaction.map_or(0, |transaction| len(transaction.publishes.len())),
            acks_uncommitted: transaction.map_or(0, |transaction| len(transaction.settlements.len())),
            unfinished_bytes: len(self.unfinished_bytes()),
            kept_bytes: len(size_of::<Self>() + self.consumers.held_bytes() + self.confirms.held_bytes()),
        }
    }
}

/// Whether a method declares, binds, unbinds or deletes: it may follow others like it. A purge waits for its queue.
fn is_topology(payload: &[u8]) -> bool {
    matches!(
        MethodId::of(payload),
        Some(MethodId { class_id: 40, .. } | MethodId { class_id: 50, method_id: 10 | 20 | 40 | 50 })
    )
}

/// Whether a queue method other than a declaration names no queue, and so means the one declared last: which one that is
/// must be known. Line ends do not count.
fn names_last_queue(payload: &[u8]) -> bool {
    const NAME: usize = 6;
    let is_declaration = MethodId::of(payload) == Some(QUEUE_DECLARE);
    let name = payload.get(NAME).and_then(|len| payload.get(NAME + 1..)?.get(..usize::from(*len)));
    let is_of_queue = payload.starts_with(&QUEUE_DECLARE.class_id.to_be_bytes());
    is_of_queue && !is_declaration && name.is_none_or(|name| name.iter().all(|byte| matches!(byte, b'\r' | b'\n')))
}
