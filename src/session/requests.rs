//! The methods of one channel that wait for answers, and the frames parked behind them.
//!
//! A method that the broker answers makes its channel wait; frames behind it are parked. Topology methods may follow topology
//! methods (a thousand declarations, bindings or deletions are a few commits) as long as none is refused: a refusal is
//! known at once, and only the answer waits until the change is durable. Answers are written in the order of their methods.

use super::method_ids::{CHANNEL_CLOSE, QUEUE_DECLARE, QUEUE_DELETE};
use crate::model::{Answer, ConsumerSlot, Name, RequestNo};
use crate::wire::frame::{Frame, FrameKind};
use crate::wire::method::MethodId;
use std::collections::VecDeque;

/// A method that waits for its answer.
#[derive(Debug)]
pub(super) struct PendingRequest {
    request: RequestNo,
    pub(super) method: MethodId,
    pub(super) kind: RequestKind,
    pub(super) answer: Option<Answer>,
    /// Whether the broker carries it out is known with its answer only.
    is_undecided: bool,
}

impl PendingRequest {
    /// Whether topology methods behind it can be carried out before it is answered: it was carried out itself.
    fn may_be_followed(&self) -> bool {
        let is_carried_out = match &self.answer {
            None => !self.is_undecided,
            Some(answer) => !matches!(answer, Answer::Refused(_)),
        };
        is_carried_out && matches!(self.kind, RequestKind::Topology { .. })
    }
}

/// Which method waits: what the session does with the answer depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// A declaration, binding, deletion or purge.
    Topology {
        /// Nothing is sent on success.
        nowait: bool,
    },
    /// basic.consume.
    Consume {
        /// The consumer, which was registered in advance.
        consumer: ConsumerSlot,
        /// Nothing is sent on success.
        nowait: bool,
    },
    /// basic.cancel.
    Cancel {
        /// The consumer's tag.
        tag: Name,
        /// Nothing is sent.
        nowait: bool,
    },
    /// basic.get.
    Get,
    /// tx.commit: its promises answer it, not a notice.
    Commit,
}

/// A frame that waits for an answer to a method before it.
#[derive(Debug)]
pub(super) struct ParkedFrame {
    pub(super) kind: FrameKind,
    pub(super) payload: Vec<u8>,
}

impl ParkedFrame {
    /// The memory that it takes, in bytes, its place in the list included.
    pub(super) fn held_bytes(&self) -> usize {
        self.payload.len() + size_of::<Self>()
    }

    pub(super) fn is_channel_close(&self) -> bool {
        self.kind == FrameKind::Method && MethodId::of(&self.payload) == Some(CHANNEL_CLOSE)
    }
}

/// The methods of a channel that wait for answers, in order, and the frames parked behind them.
#[derive(Debug, Default)]
pub(super) struct Requests {
    last: RequestNo,
    waiting: VecDeque<PendingRequest>,
    parked: VecDeque<ParkedFrame>,
}

impl Requests {
    /// Whether a method waits for its answer, or frames wait behind one.
    pub(super) fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || !self.parked.is_empty()
    }

    /// Whether a method waits for its answer.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether a topology method may be carried out now, before those that wait are answered.
    pub(super) fn may_be_followed(&self) -> bool {
        self.parked.is_empty() && self.waiting.iter().all(PendingRequest::may_be_followed)
    }

    /// Whether a queue.declare waits: its answer changes which queue was declared last.
    pub(super) fn has_queue_declare(&self) -> bool {
        self.waiting.iter().any(|pending| pending.method == QUEUE_DECLARE)
    }

    /// Whether a queue.delete waits.
    pub(super) fn has_queue_delete(&self) -> bool {
        self.waiting.iter().any(|pending| pending.method == QUEUE_DELETE)
    }

    /// Whether a commit waits for its promises.
    pub(super) fn has_commit(&self) -> bool {
        self.waiting.iter().any(|pending| pending.kind == RequestKind::Commit)
    }

    /// How many gets wait for their answers.
    pub(super) fn gets_waiting(&self) -> u32 {
        let gets = self.waiting.iter().filter(|pending| pending.kind == RequestKind::Get && pending.answer.is_none());
        gets.count() as u32
    }

    /// Notes a method whose answer is to come.
    pub(super) fn add(&mut self, method: MethodId, kind: RequestKind) -> RequestNo {
        self.last = RequestNo(self.last.0.wrapping_add(1));
        let request = self.last;
        self.waiting.push_back(PendingRequest { request, method, kind, answer: None, is_undecided: false });
        request
    }

    pub(super) fn get_mut(&mut self, request: RequestNo) -> Option<&mut PendingRequest> {
        self.waiting.iter_mut().find(|pending| pending.request == request)
    }

    /// A command was handed to its queue, and only its answer shows whether it is carried out.
    pub(super) fn mark_undecided(&mut self, request: RequestNo) {
        if let Some(pending) = self.get_mut(request) {
            pending.is_undecided = true;
        }
    }

    /// All promises of a commit were kept or refused.
    pub(super) fn complete_commit(&mut self) {
        if let Some(pending) = self.waiting.iter_mut().find(|pending| pending.kind == RequestKind::Commit) {
            pending.answer = Some(Answer::Done);
        }
    }

    /// The commit goes on, and is not answered any more.
    pub(super) fn forget_commit(&mut self) {
        self.waiting.retain(|pending| pending.kind != RequestKind::Commit);
    }

    /// Takes the first method, if it is answered.
    pub(super) fn pop_answered(&mut self) -> Option<PendingRequest> {
        self.waiting
            .front()
            .is_some_and(|pending| pending.answer.is_some())
            .then(|| self.waiting.pop_front().expect("looked at above"))
    }

    /// Keeps a frame for later; returns the memory that it takes, in bytes.
    pub(super) fn park(&mut self, frame: &Frame<'_>) -> usize {
        let parked = ParkedFrame { kind: frame.kind, payload: frame.payload.to_vec() };
        let bytes = parked.held_bytes();
        self.parked.push_back(parked);
        bytes
    }

    /// The first parked frame, if no method waits for an answer.
    pub(super) fn next_parked(&self, channel: u16) -> Option<Frame<'_>> {
        let parked = self.parked.front().filter(|_| self.waiting.is_empty())?;
        Some(Frame { kind: parked.kind, channel, payload: &parked.payload })
    }

    pub(super) fn pop_parked(&mut self) -> Option<ParkedFrame> {
        self.parked.pop_front()
    }

    /// Takes all parked frames away.
    pub(super) fn take_parked(&mut self) -> VecDeque<ParkedFrame> {
        std::mem::take(&mut self.parked)
    }
}
