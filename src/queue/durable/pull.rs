//! The queue's contributions to the writer's batches.
//!
//! A young entry that is acknowledged before it is pulled never reaches the store. For that reason a lent entry may be passed
//! over for a moment (`HoldLimits`); one that is not lent never is.

use super::{Context, Duration, Promise};
use super::{Due, Durable, Entries, Monotonic, Now, Ready, Storage, SubmittedBatch, Ticket, YoungRef};
use crate::model::PromiseOwner;
use crate::model::stored::{Group, LaneChange, Row};
use crate::queue::command::Origin;
use crate::queue::effect::Pulled;
use crate::queue::entry::EntryState;

/// Which part of the rows to hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    /// Rows that are due, up to about these limits.
    Due { rows_max: usize, bytes_max: usize },
    /// Everything, lent entries included.
    All,
    /// Removals only.
    Removals,
}

impl Share {
    fn is_used_up(self, rows: usize, bytes: usize) -> bool {
        matches!(self, Self::Due { rows_max, bytes_max } if rows >= rows_max || bytes >= bytes_max)
    }
}

/// The rows of one contribution, and the promises that are kept once they are flushed.
#[derive(Debug, Default)]
struct Submission {
    /// By level.
    inserts: Vec<Vec<Row>>,
    rows: usize,
    bytes: usize,
    promises: Vec<Promise>,
    replaces: Vec<Origin>,
    more: bool,
}

/// Whether a young entry is to be written.
enum YoungState {
    /// It left, or was submitted before.
    Gone,
    /// It is lent; an acknowledgement within this time makes the row needless.
    Held(Duration),
    /// It is to be written.
    Due,
}

impl Durable {
    /// Hands the writer what is due: rows, removals, dropped lanes.
    pub(crate) fn pull(
        &mut self,
        rows_max: usize,
        bytes_max: usize,
        entries: &mut Entries,
        ready: &mut Ready,
        cx: &mut Context<'_>,
    ) {
        let submission = self.take_young(Share::Due { rows_max, bytes_max }, entries, ready, cx.now);
        self.hand_out(submission, None, entries, ready, cx);
    }

    /// Hands the writer everything, as one part of a group.
    pub(crate) fn seal(
        &mut self,
        group: Group,
        promise: Option<Promise>,
        entries: &mut Entries,
        ready: &mut Ready,
        cx: &mut Context<'_>,
    ) {
        let mut submission = self.take_young(Share::All, entries, ready, cx.now);
        submission.promises.extend(promise);
        self.hand_out(submission, Some(group), entries, ready, cx);
    }

    /// Hands the writer the removals, as one part of a group; the promises are kept once the group is flushed.
    pub(crate) fn pull_removals(
        &mut self,
        group: Group,
        promises: Vec<Promise>,
        entries: &mut Entries,
        ready: &mut Ready,
        cx: &mut Context<'_>,
    ) {
        let mut submission = self.take_young(Share::Removals, entries, ready, cx.now);
        submission.promises = promises;
        self.hand_out(submission, Some(group), entries, ready, cx);
    }

    /// Contributes nothing, because the queue has ended: the writer may be waiting for its part of a group.
    pub(crate) fn pull_nothing(
        &mut self,
        group: Option<Group>,
        entries: &Entries,
        ready: &mut Ready,
        cx: &mut Context<'_>,
    ) {
        self.hand_out(Submission::default(), group, entries, ready, cx);
    }

    fn hand_out(
        &mut self,
        submission: Submission,
        group: Option<Group>,
        entries: &Entries,
        ready: &mut Ready,
        cx: &mut Context<'_>,
    ) {
        let Submission { inserts, rows, bytes, promises, replaces, more } = submission;
        let ticket = Ticket(self.ticket.0 + 1);
        let removed = std::mem::take(&mut self.rows_to_remove);
        let lanes = self.lane_changes(inserts, ticket, entries, ready, cx);
        let drop_lanes = std::mem::take(&mut self.dropped_lanes);
        if !lanes.is_empty() || !drop_lanes.is_empty() || group.is_some() {
            self.ticket = ticket;
            let purges = std::mem::take(&mut self.purges);
            self.submitted.push_back(SubmittedBatch { ticket, promises, purges, bytes: bytes as u64 });
        }
        cx.out.pulled.push(Pulled { ticket, lanes, drop_lanes, rows, removed, bytes, more, group, replaces });
    }

    /// Takes the young entries that go to the store now.
    fn take_young(&mut self, share: Share, entries: &mut Entries, ready: &mut Ready, now: Now) -> Submission {
        let mut submission = Submission::default();
        submission.inserts.resize_with(ready.levels_end(), Vec::new);
        if share == Share::Removals {
            return submission;
        }
        self.due = Due::default();
        let ticket = Ticket(self.ticket.0 + 1);
        let mut held = Vec::new();
        let hold = self.hold.time().filter(|_| share != Share::All);
        while let Some(young) = self.young.pop_front() {
            match young.state(entries, hold, now.monotonic) {
                YoungState::Gone => continue,
                YoungState::Held(rest) => {
                    held.push(young);
                    self.due.by(now.monotonic.plus(rest));
                    continue;
                }
                YoungState::Due => {}
            }
            if share.is_used_up(submission.rows, submission.bytes) {
                self.young.push_front(young);
                submission.more = true;
                break;
            }
            submission.add(young, ticket, entries, ready);
        }
        for young in held.into_iter().rev() {
            self.young.push_front(young);
        }
        self.due.set_now_if(submission.more);
        submission
    }

    fn lane_changes(
        &self,
        inserts: Vec<Vec<Row>>,
        ticket: Ticket,
        entries: &Entries,
        ready: &mut Ready,
        cx: &Context<'_>,
    ) -> Vec<LaneChange> {
        let ahead = (!self.is_quiesced).then(|| ready.lent_ahead());
        let mut changes = Vec::new();
        for (rows, number) in inserts.into_iter().zip(0u8..=u8::MAX) {
            let Some(level) = ready.find_level(number) else { continue };
            changes.extend(level.submit(cx.settings.id, number, rows, ticket, ahead, entries));
        }
        changes
    }
}

impl Submission {
    fn add(&mut self, young: YoungRef, ticket: Ticket, entries: &mut Entries, ready: &mut Ready) {
        entries.set_storage(young.slot, Storage::Submitted(ticket));
        match entries.take_promise(young.slot) {
            Some(Promise { owner: PromiseOwner::Queue(queue), sequence }) => {
                self.replaces.push(Origin { queue, leaving: sequence });
            }
            promise => self.promises.extend(promise),
        }
        let entry = entries.at(young.slot);
        self.rows += 1;
        self.bytes += entry.message.allocated_bytes();
        let row = Row {
            position: young.position,
            redelivered: entry.redelivered || matches!(entry.state, EntryState::Lent(_)),
            expires_at: entry.expires_at,
            place: None,
            message: entry.message.clone(),
        };
        ready.level(young.level).add_row(entry.message.body_len() as u64);
        self.inserts[usize::from(young.level)].push(row);
    }
}

impl YoungRef {
    fn state(self, entries: &Entries, hold: Option<Duration>, now: Monotonic) -> YoungState {
        let Some(entry) = entries.find(self.slot) else { return YoungState::Gone };
        let same =
            entry.storage == Storage::Young && entry.level == self.level && entry.order.position == self.position;
        match entry.state {
            EntryState::Leaving { .. } => YoungState::Gone,
            _ if !same => YoungState::Gone,
            EntryState::Ready => YoungState::Due,
            EntryState::Lent(lent) => {
                let waited = now.since(lent.since);
                match hold {
                    Some(hold) if waited < hold => YoungState::Held(hold - waited),
                    _ => YoungState::Due,
                }
            }
        }
    }
}
