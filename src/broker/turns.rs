//! Takes turns, one after another. If a turn gives inputs to other queues, these wait on a list of the outermost call.
//!
//! A turn pushes its notices and inputs into inlets and inboxes before it ends, so their order is the queue's order.
//! Only *taking the turn* of the other queues waits. So there is no recursion, no cycle and no lock order.

use super::cell::{Cell, Turn, TurnList, TurnTaker};
use super::contribution::contribution;
use super::kind::{Kind, QueueMachine};
use super::loads::LoadId;
use super::node::Broker;
use super::peer::Peer;
use super::permits::{ChannelPermits, Grant};
use super::topology::ChangeNo;
use crate::model::{AmqpError, Answer, ConnectionId, Lane, LimitKey, Notice, Now, QueueId};
use crate::queue::{Effects, LocalEvent, Origin, Permits, Pulled, QueueCommand, QueueEffect, QueueInput};
use crate::store::Group;
use crate::store::LoadRequest;
use smallvec::SmallVec;
use std::cell::Cell as Scratchpad;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Most rounds over the list in one call. Remaining turns are taken in a new task.
const ROUNDS_MAX: u32 = 8;

/// Most batches of one queue in one call. If other threads keep the queue busy, a new task goes on with it, so that the
/// caller's connection is not held up.
const BATCHES_MAX: u32 = 16;

thread_local! {
    /// Reused by every turn of the thread, which leaves it empty. If each queue had its own, a thousand queues would
    /// keep the capacity of their largest turns.
    static EFFECTS: Scratchpad<Option<Box<Effects>>> = const { Scratchpad::new(None) };
}

impl TurnTaker for Broker {
    fn submit(self: Arc<Self>, cell: Arc<Cell>, input: QueueInput) {
        let runner = Arc::clone(self.runner());
        runner.run(Box::new(move |now: Now| self.take_turns(&cell, input, now)));
    }
}

impl Broker {
    /// Gives an input to a queue, and takes the turns that follow from it.
    pub(super) fn take_turns(self: &Arc<Self>, cell: &Arc<Cell>, input: impl Into<QueueInput>, now: Now) {
        let mut list = TurnList::new();
        if let Some(turn) = cell.push_and_try(input) {
            self.run(cell, turn, now, &mut list);
        }
        self.take_listed(list, now);
    }

    /// Takes the turns on the list and those that follow from them.
    pub(super) fn take_listed(self: &Arc<Self>, mut list: TurnList, now: Now) {
        let mut rounds = 0;
        let mut left_in_round = list.len();
        while let Some(cell) = list.pop_front() {
            if let Some(turn) = cell.try_turn() {
                self.run(&cell, turn, now, &mut list);
            }
            left_in_round = left_in_round.saturating_sub(1);
            if left_in_round == 0 {
                rounds += 1;
                left_in_round = list.len();
                if rounds == ROUNDS_MAX && !list.is_empty() {
                    let broker = Arc::clone(self);
                    self.runner().run(Box::new(move |now| broker.take_listed(list, now)));
                    return;
                }
            }
        }
    }

    fn run(self: &Arc<Self>, cell: &Arc<Cell>, turn: Turn, now: Now, list: &mut TurnList) {
        let mut turn = turn;
        for batches in 0.. {
            if batches == BATCHES_MAX {
                let (broker, cell) = (Arc::clone(self), Arc::clone(cell));
                self.runner().run(Box::new(move |now| {
                    let mut list = TurnList::new();
                    broker.run(&cell, turn, now, &mut list);
                    broker.take_listed(list, now);
                }));
                return;
            }
            let done = catch_unwind(AssertUnwindSafe(|| {
                self.apply_all(cell, &mut turn, now, list);
            }));
            if done.is_err() {
                tracing::error!(
                    queue = cell.name().as_str(),
                    vhost = cell.vhost().as_str(),
                    "the queue failed: its messages in memory are lost"
                );
                turn.inputs.clear();
                turn.machine.fail(self.settings().queue_limits, now);
                self.revoke_grants(cell.id(), list);
            }
            match cell.end_turn(turn) {
                Some(more) => turn = more,
                None => return,
            }
        }
    }

    fn apply_all(self: &Arc<Self>, cell: &Arc<Cell>, turn: &mut Turn, now: Now, list: &mut TurnList) {
        let queue = &mut *turn.machine;
        let mut kept = EFFECTS.take().unwrap_or_default();
        let effects = &mut *kept;
        let mut permits = PeerPermits { broker: self, queue: cell.id(), grants: Vec::new(), list };
        queue.shrink_windows(self.window_shrink_steps());
        queue.set_memory_pressure(self.is_transient_memory_short());
        for input in turn.inputs.drain(..) {
            match input {
                QueueInput::Local(LocalEvent::Pull { .. }) => cell.is_listed.store(false, Ordering::Relaxed),
                QueueInput::Local(LocalEvent::Spill { .. }) => {
                    cell.is_listed_for_scratch.store(false, Ordering::Relaxed);
                }
                _ => {}
            }
            queue.apply(input, now, &mut permits, effects);
            while !effects.effects.is_empty() {
                let mut follow_up = Vec::new();
                for effect in std::mem::take(&mut effects.effects) {
                    if matches!(effect, QueueEffect::Deleted { .. } | QueueEffect::Unused) {
                        // Rows of the queue must not reach the writer after the queue's deletion.
                        effects.pulled.drain(..).for_each(|pulled| self.contribute(cell, pulled, permits.list));
                    }
                    self.carry_out(cell, queue, effect, now, permits.list, &mut follow_up);
                }
                for input in follow_up {
                    queue.apply(input, now, &mut permits, effects);
                }
            }
        }
        if queue.is_due() && !cell.is_listed.load(Ordering::Relaxed) && effects.pulled.is_empty() {
            if self.writer().wants_rows() {
                let (rows_max, bytes_max) = (self.settings().batch_rows_max, self.settings().batch_bytes_max);
                queue.apply(LocalEvent::Pull { rows_max, bytes_max }.into(), now, &mut permits, effects);
            } else {
                cell.is_listed.store(true, Ordering::Relaxed);
                self.writer().dirty(Arc::clone(cell) as _);
            }
        }
        for pulled in effects.pulled.drain(..) {
            self.contribute(cell, pulled, list);
        }
        self.scratch().serve(cell, queue, effects);
        if queue.is_due() && !cell.is_listed.swap(true, Ordering::Relaxed) {
            self.writer().dirty(Arc::clone(cell) as _);
        }
        match cell.deletion.get() {
            None => self.send_notices(&mut effects.notices),
            Some(deletion) => self.send_notices_after(*deletion, cell, std::mem::take(&mut effects.notices)),
        }
        let dead_lettered = queue.settings().dead_letter_exchange.is_some();
        let done = std::mem::take(&mut effects.counts);
        self.counters().fold(&done, dead_lettered);
        cell.add_counts(&done);
        self.note_memory(cell.share_metrics(queue));
        if cell.deletion.get().is_some() {
            // A turn that does not see the deletion yet is followed by one that applies the queue's end.
            self.timers().disarm(cell);
        } else if let Some(deadline) = queue.deadline(now) {
            self.timers().arm(deadline, cell);
        }
        EFFECTS.set(Some(kept));
    }

    /// Sends grants to their queues, and lists the queues for their turns.
    pub(super) fn send_grants(&self, peer: &Peer, limit: LimitKey, mut grants: Vec<Grant>, list: &mut TurnList) {
        let mut at = 0;
        while let Some(&Grant { queue, permits }) = grants.get(at) {
            at += 1;
            if let Some(cell) = self.cell(queue) {
                cell.push(QueueCommand::Grant { limit, permits });
                list.push_back(cell);
            } else {
                peer.with_permits(limit.holder.channel, Some(limit.id), |all| all.revoke(queue, &mut grants));
            }
        }
    }

    /// Revokes all grants of a queue that has failed. After its last deliveries, the queue counts as limited by every
    /// limit.
    fn revoke_grants(&self, queue: QueueId, list: &mut TurnList) {
        for peer in self.peers() {
            for (limit, grants) in peer.revoke_grants(queue) {
                peer.notify_one(Notice::Limited { channel: limit.holder.channel, queue, limit: limit.id });
                self.send_grants(&peer, limit, grants, list);
            }
        }
    }

    fn contribute(&self, cell: &Arc<Cell>, pulled: Pulled, list: &mut TurnList) {
        // The queue's own record must precede its rows.
        self.submit_topology(cell.vhost());
        if pulled.more {
            cell.is_listed.store(true, Ordering::Relaxed);
        }
        let mut groups: Vec<Group> = pulled.group.into_iter().collect();
        let replaced = self.group_with_originals(&pulled.replaces);
        groups.extend(replaced.first().map(|(_, _, group)| *group));
        self.writer().contribute(Arc::clone(cell) as _, contribution(pulled, groups));
        for (source, leaving, group) in replaced {
            source.push(LocalEvent::Replaced { leaving, group });
            list.push_back(source);
        }
    }

    /// Groups copies of dead letters with the removal of their originals, so that the store commits both in one
    /// transaction. Returns the queues of the originals, the numbers of the originals, and the group.
    fn group_with_originals(&self, replaces: &[Origin]) -> Vec<(Arc<Cell>, Vec<u64>, Group)> {
        let mut sources: Vec<(Arc<Cell>, Vec<u64>)> = Vec::new();
        for &Origin { queue, leaving } in replaces {
            match sources.iter_mut().find(|(source, _)| source.id() == queue) {
                Some((_, originals)) => originals.push(leaving),
                None => sources.extend(self.cell(queue).map(|source| (source, vec![leaving]))),
            }
        }
        if sources.is_empty() {
            return Vec::new();
        }
        let group = self.new_group(sources.len() + 1);
        sources.into_iter().map(|(source, originals)| (source, originals, group)).collect()
    }

    /// Sends the notices of a deleted queue once its deletion is durable. If a crash lost the deletion, the queue would
    /// be back without messages that it had confirmed, and with messages that it had purged.
    fn send_notices_after(self: &Arc<Self>, deletion: ChangeNo, cell: &Cell, mut notices: Vec<(ConnectionId, Notice)>) {
        let Some(vhost) = self.vhost(cell.vhost().as_bytes()).filter(|_| !notices.is_empty()) else { return };
        let broker = Arc::clone(self);
        vhost.when_durable(deletion, move |durable| {
            if !durable {
                notices.iter_mut().for_each(|(_, notice)| refuse(notice));
            }
            broker.send_notices(&mut notices);
        });
    }

    /// Sends notices to their connections, with one call per connection.
    fn send_notices(&self, notices: &mut Vec<(ConnectionId, Notice)>) {
        let mut groups: SmallVec<[PeerNotices; 1]> = SmallVec::new();
        let mut last = 0;
        let total = notices.len();
        for (connection, notice) in notices.drain(..) {
            if groups.get(last).is_none_or(|(id, ..)| *id != connection) {
                last = match groups.iter().position(|(id, ..)| *id == connection) {
                    Some(at) => at,
                    None => {
                        let room = if groups.is_empty() { total } else { 1 };
                        groups.push((connection, self.peer(connection), Vec::with_capacity(room)));
                        groups.len() - 1
                    }
                };
            }
            groups[last].2.push(notice);
        }
        for (_, peer, mut notices) in groups {
            if let Some(peer) = peer {
                peer.notify(&mut notices);
            }
        }
    }

    fn carry_out(
        self: &Arc<Self>,
        cell: &Arc<Cell>,
        queue: &Kind,
        effect: QueueEffect,
        now: Now,
        list: &mut TurnList,
        follow_up: &mut Vec<QueueInput>,
    ) {
        match effect {
            QueueEffect::DeadLetter { message, reason, leaving } => {
                let copies = self.dead_letter(queue.settings(), &message, reason, leaving, now, list);
                if let Some(origin) = leaving {
                    follow_up.push(QueueCommand::Copies { leaving: origin.leaving, copies }.into());
                }
            }
            QueueEffect::CopySettled { queue, leaving } => {
                if let Some(source) = self.cell(queue) {
                    source.push(QueueCommand::CopySettled { leaving });
                    list.push_back(source);
                }
            }
            QueueEffect::Load { lane, load, durable, scratch, rows_max, bytes_max } => {
                let load_id = LoadId { cell: Arc::clone(cell), level: lane.level, load };
                let durable = durable.map(|range| LoadRequest { lane, range, rows_max, bytes_max });
                let scratch = scratch.map(|(generation, range)| {
                    let lane = Lane { generation, ..lane };
                    LoadRequest { lane, range, rows_max, bytes_max }
                });
                self.load(load_id, durable, scratch);
            }
            QueueEffect::Miscounted { lane, rows, body_bytes } => {
                let (queue, vhost, level) = (cell.name().as_str(), cell.vhost().as_str(), lane.level);
                tracing::error!(
                    queue,
                    vhost,
                    level,
                    rows,
                    body_bytes,
                    "the store is damaged: the number of stored messages differs from the recorded one"
                );
            }
            QueueEffect::NoPositions { lane } => {
                let (queue, vhost, level) = (cell.name().as_str(), cell.vhost().as_str(), lane.level);
                tracing::error!(
                    queue,
                    vhost,
                    level,
                    "persistent messages are refused: all positions of this level are used; they start again once the level is empty"
                );
            }
            QueueEffect::Deleted { requester, message_count } => {
                self.finish_deletion(cell, Some((requester, message_count)), list);
            }
            QueueEffect::Unused => {
                self.finish_deletion(cell, None, list);
                follow_up.push(LocalEvent::End.into());
            }
        }
    }
}

/// The notices of a turn for one connection, with its peer if the connection still exists.
type PeerNotices = (ConnectionId, Option<Arc<Peer>>, Vec<Notice>);

/// Turns a notice into a refusal, after the store has failed and the notice's change is not durable.
fn refuse(notice: &mut Notice) {
    match notice {
        Notice::Promised { kept, .. } => *kept = false,
        Notice::Answer { answer: answer @ Answer::Removed { .. }, .. } => {
            *answer = Answer::Refused(AmqpError::internal_error());
        }
        _ => {}
    }
}

/// Permits of channels, for a turn of one queue.
struct PeerPermits<'a> {
    broker: &'a Broker,
    queue: QueueId,
    /// Reused by each call, which leaves it empty.
    grants: Vec<Grant>,
    /// Queues that are granted permits in this turn; their turns follow it.
    list: &'a mut TurnList,
}

impl PeerPermits<'_> {
    /// Applies `act` to the permits of a limit. `None` if the connection or the limit is gone: its permits are void
    /// then.
    fn with<T>(
        &mut self,
        limit: LimitKey,
        act: impl FnOnce(&mut ChannelPermits, QueueId, &mut Vec<Grant>) -> T,
    ) -> Option<T> {
        let peer = self.broker.peer(limit.holder.connection)?;
        let (queue, grants) = (self.queue, &mut self.grants);
        let done = peer.with_permits(limit.holder.channel, Some(limit.id), |permits| act(permits, queue, grants));
        if !self.grants.is_empty() {
            self.broker.send_grants(&peer, limit, std::mem::take(&mut self.grants), self.list);
        }
        done
    }
}

impl Permits for PeerPermits<'_> {
    fn request(&mut self, limit: LimitKey) -> u32 {
        // A connection that is gone takes no deliveries; its consumers are about to be detached.
        self.with(limit, |permits, queue, grants| permits.request(queue, grants)).unwrap_or(0)
    }

    fn end_grant(&mut self, limit: LimitKey, unused: u32) {
        self.with(limit, |permits, queue, grants| permits.end_grant(queue, unused, grants));
    }

    fn withdraw(&mut self, limit: LimitKey) -> bool {
        // A limit that is gone sends no grant, so the queue counts as withdrawn.
        self.with(limit, |permits, queue, _| permits.withdraw(queue)).unwrap_or(true)
    }
}
