//! How the next batch comes together: waiting, asking dirty sources, taking what they gave.

use super::settle::Verdict;
use super::{
    Inbox, LAST_PULL_PATIENCE, PULL_PATIENCE, PULL_ROUNDS_MAX, Shared, Source, Then, Writer, WriterSettings, address,
    guarded,
};
use crate::store::{Batch, BatchNo, Lane};
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A source has to be asked for so many rows at least, as long as the batch has room for them.
const ROWS_WORTH_A_PAGE: usize = 32;

/// One batch, and whom to tell of it.
pub(super) struct Gathered {
    /// Nothing to write when only barriers were due.
    pub(super) batch: Option<Batch>,
    pub(super) tickets: Vec<(Arc<dyn Source>, u64)>,
    pub(super) thens: Vec<Then>,
    /// Lanes with parts of groups: nothing of them may be committed before the rest.
    pub(super) bound: HashSet<Lane>,
    /// Rows and bytes as the contributions counted them.
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

/// What is left of the limits of the batch to come.
struct Room {
    rows: usize,
    bytes: usize,
}

impl Room {
    fn left(inbox: &Inbox, settings: &WriterSettings) -> Self {
        let mut room = Self { rows: settings.rows_max, bytes: settings.bytes_max };
        for (_, contribution) in &inbox.contributions {
            room.rows = room.rows.saturating_sub(contribution.rows);
            room.bytes = room.bytes.saturating_sub(contribution.bytes);
            if room.is_used_up() {
                break;
            }
        }
        room
    }

    fn is_used_up(&self) -> bool {
        self.rows == 0 || self.bytes == 0
    }
}

/// What the writer's thread is to do.
pub(super) enum Next<'a> {
    /// Commit a batch, with what became of a first try.
    Batch(Gathered, Option<Verdict>),
    /// Sleep, without the writer, until something is submitted, or for so long.
    Rest(MutexGuard<'a, Inbox>, Option<Duration>),
    /// It is time to stop.
    End,
}

impl Writer {
    /// Gathers the next batch, which may take a while, and sees to what is due while there is none.
    pub(super) fn next<'a>(&mut self, shared: &'a Shared) -> Next<'a> {
        if let Some((gathered, verdict)) = self.unsettled.take() {
            return Next::Batch(gathered, Some(verdict));
        }
        let mut inbox = shared.inbox();
        inbox.busy = false;
        let mut rounds = 0;
        // When the store wants to be tended, once it has been in this idle moment.
        let mut tended: Option<Option<Duration>> = None;
        loop {
            let has_work = !inbox.topology.is_empty() || inbox.has_whole_groups();
            let is_waiting = !inbox.asked.is_empty() && !inbox.asked_too_long(PULL_PATIENCE);
            if !inbox.dirty.is_empty() && rounds < PULL_ROUNDS_MAX && !is_waiting {
                let room = Room::left(&inbox, &self.settings);
                if !room.is_used_up() {
                    rounds += 1;
                    inbox = shared.pull(inbox, &room);
                    continue;
                }
            }
            if has_work && !is_waiting {
                inbox.busy = true;
                return Next::Batch(self.take(&mut inbox), None);
            }
            if has_work {
                inbox = shared.sleep(inbox, Some(PULL_PATIENCE));
                continue;
            }
            rounds = 0;
            if !inbox.dirty.is_empty() {
                if is_waiting {
                    inbox = shared.sleep(inbox, Some(PULL_PATIENCE));
                } else if Room::left(&inbox, &self.settings).is_used_up() {
                    // The first group fills the batch, and its last part is still to be handed over.
                    inbox = shared.sleep(inbox, Some(LAST_PULL_PATIENCE));
                }
                continue;
            }
            if !inbox.asked.is_empty() && inbox.asked_too_long(LAST_PULL_PATIENCE) {
                // Whoever does not answer is waited for no longer; should it answer yet, that is taken all the same.
                inbox.asked.clear();
            }
            if inbox.flushes > 0 && inbox.is_quiet() {
                shared.settled.notify_all();
            }
            if inbox.stopping && inbox.is_quiet() {
                return Next::End;
            }
            if Self::has_copy(&inbox) && inbox.asked.is_empty() {
                drop(inbox);
                self.step_copy();
                inbox = shared.inbox();
                continue;
            }
            if self.may_erase && inbox.asked.is_empty() {
                drop(inbox);
                self.erase();
                inbox = shared.inbox();
                continue;
            }
            if !inbox.asked.is_empty() || !inbox.contributions.is_empty() {
                inbox = shared.sleep(inbox, Some(LAST_PULL_PATIENCE));
                continue;
            }
            match tended.take() {
                None => {
                    drop(inbox);
                    tended = Some(self.tend());
                    inbox = shared.inbox();
                }
                Some(next) => return Next::Rest(inbox, next),
            }
        }
    }
}

impl Shared {
    /// Sleeps until something is submitted, or for `limit`.
    pub(super) fn sleep<'a>(
        &'a self,
        mut inbox: MutexGuard<'a, Inbox>,
        limit: Option<Duration>,
    ) -> MutexGuard<'a, Inbox> {
        inbox.asleep = true;
        inbox.alarm = limit.map(|limit| Instant::now() + limit);
        // While somebody was asked, further rows have to wait for the batch that is being gathered anyway.
        self.idle.store(inbox.asked.is_empty(), Ordering::Release);
        inbox = match limit {
            Some(limit) => self.wake.wait_timeout(inbox, limit).unwrap_or_else(PoisonError::into_inner).0,
            None => self.wake.wait(inbox).unwrap_or_else(PoisonError::into_inner),
        };
        inbox.asleep = false;
        self.idle.store(false, Ordering::Release);
        inbox
    }

    /// Asks dirty sources in rotation, as many as may fill what is left. Each is asked for an equal share of it, yet for
    /// enough to be worth the page and the lane that its rows touch: a few rows of each of a thousand queues cost many
    /// times what the same number costs in a hundred queues now and in the next hundred after. The lock is released for it.
    fn pull<'a>(&'a self, mut inbox: MutexGuard<'a, Inbox>, room: &Room) -> MutexGuard<'a, Inbox> {
        let rows = (room.rows / inbox.dirty.len()).max(ROWS_WORTH_A_PAGE).min(room.rows);
        let mut expected = 0;
        let has_room = |source: &&Arc<dyn Source>| {
            let fits = expected < room.rows;
            expected += source.rows_waiting().clamp(1, rows);
            fits
        };
        let count = inbox.dirty.iter().take_while(has_room).count();
        let sources: Vec<_> = inbox.dirty.drain(..count).collect();
        inbox.asked.extend(sources.iter().map(address));
        inbox.asked_at = Some(Instant::now());
        drop(inbox);
        let bytes = (room.bytes / count).max(1);
        for source in sources {
            guarded("pull", || source.pull(rows, bytes));
        }
        self.inbox()
    }
}

impl Writer {
    /// Takes contributions up to the limits (one at least, and groups as a whole), and the topology that need not wait for those left.
    pub(super) fn take(&self, inbox: &mut Inbox) -> Gathered {
        let batch_no = BatchNo(self.last.0 + 1);
        let mut batch = Batch { batch_no, topology: Vec::new(), lanes: Vec::new(), drop_lanes: Vec::new() };
        let mut gathered =
            Gathered { batch: None, tickets: Vec::new(), thens: Vec::new(), bound: HashSet::new(), rows: 0, bytes: 0 };
        let count = inbox.whole_groups(self.settings.rows_max, self.settings.bytes_max);
        gathered.take(&mut batch, inbox, count);
        let empty = batch.topology.is_empty() && batch.lanes.is_empty() && batch.drop_lanes.is_empty();
        gathered.batch = (!empty).then_some(batch);
        gathered
    }
}

impl Gathered {
    /// Takes so many contributions, and the topology that need not wait for those left.
    fn take(&mut self, batch: &mut Batch, inbox: &mut Inbox, count: usize) {
        for (source, contribution) in inbox.contributions.drain(..count) {
            inbox.taken += 1;
            if !contribution.groups.is_empty() {
                inbox.grouped -= 1;
                self.bound.extend(contribution.lanes.iter().map(|change| change.lane));
            }
            self.rows += contribution.rows;
            self.bytes += contribution.bytes;
            batch.lanes.extend(contribution.lanes);
            batch.drop_lanes.extend(contribution.drop_lanes);
            self.tickets.push((source, contribution.ticket));
        }
        let taken = inbox.taken;
        while let Some(item) = inbox.topology.pop_front_if(|item| item.after <= taken) {
            batch.topology.extend(item.changes);
            self.thens.push(item.then);
        }
    }

    /// Lets a batch that the store has refused, and of which it has nothing, take in what has come meanwhile: the rows that
    /// were acknowledged need no space any more, and others give theirs back.
    pub(super) fn amend(&mut self, shared: &Shared) {
        let mut inbox = shared.inbox();
        if inbox.has_whole_groups() || !inbox.topology.is_empty() {
            let count = inbox.whole_groups(usize::MAX, usize::MAX);
            let mut batch = self.batch.take().expect("a refused batch is not empty");
            self.take(&mut batch, &mut inbox, count);
            batch.join_lanes();
            self.batch = Some(batch);
        }
        // Asked for nothing new, or little of it; the answers come until the next try.
        let count = inbox.dirty.len();
        if count > 0 {
            drop(shared.pull(inbox, &Room { rows: count, bytes: count }));
        }
    }
}
