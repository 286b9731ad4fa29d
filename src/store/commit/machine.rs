//! Group commit as a pure machine: its inputs are what queues and topology submit, its output is what to do next.
//!
//! The machine has no lock, no clock and no thread: the time is a parameter, and a driver carries out each [`Action`].
//! `threaded` is the driver with a thread of its own; `inline` lets a caller's thread commit one batch; `stepped` is for
//! virtual time.

use super::Contribution;
use super::groups::GroupRun;
use super::intake::{BatchContents, Intake, TopologyItem};
use super::limits::{ANSWER_PATIENCE_MAX, BatchBudget, Limits};
use super::outcome::BatchRun;
use crate::model::Monotonic;
use crate::store::{Batch, BatchNo, TopologyChange};
use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// How often queues are asked for one batch. The second round asks those that have more rows, while the batch has room.
const ROUNDS_MAX: u32 = 2;

/// While rows of dropped lanes remain, a slice of them is erased at least after this many batches.
const BATCHES_PER_ERASE: u64 = 2;

/// A slice between batches is smaller by this factor than one in an idle moment: the next batch waits for it.
const BUSY_SLICE_DIVISOR: usize = 4;

/// After this many batches the store gets a moment for maintenance, even if nothing was dropped.
const BATCHES_PER_MAINTENANCE: u64 = 256;

/// What the machine needs of a source of rows.
pub(super) trait RowSource {
    /// Identifies the source, as long as it lives.
    fn key(&self) -> usize;

    /// About how many rows the source would contribute.
    fn rows_waiting(&self) -> usize;
}

/// What the driver does next.
#[expect(clippy::large_enum_variant, reason = "one at a time, and moved once: a box would be an allocation per batch")]
pub(super) enum Action<S, C> {
    /// Ask these sources for rows, while no lock is held.
    Ask(RowRequest<S>),
    /// Bring a batch to its outcome, then call [`CommitMachine::finished`].
    Commit(BatchRun<S, C>),
    /// Work of the store beside commits.
    Work(StoreWork),
    /// Sleep until something is submitted.
    Sleep {
        /// Wake at this moment at the latest, if there is one.
        until: Option<Monotonic>,
    },
    /// Close the store.
    Stop,
}

/// Work of the store beside commits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreWork {
    /// Erase a slice of dead rows, then call [`CommitMachine::erased`].
    Erase {
        /// The most rows to erase.
        rows: usize,
    },
    /// Take a copy of the store one step further.
    StepCopy,
    /// Let the store do its maintenance, then call [`CommitMachine::maintained`].
    Maintain,
}

/// Sources to ask, and for how much each.
pub(super) struct RowRequest<S> {
    pub(super) sources: Vec<S>,
    pub(super) rows_max: usize,
    pub(super) bytes_max: usize,
}

/// Sources that have rows, and sources that were asked for rows.
struct DirtySources<S> {
    dirty: VecDeque<S>,
    /// The keys of sources that were asked and have not answered.
    asked: HashSet<usize>,
    asked_at: Option<Monotonic>,
    /// How often sources were asked for the next batch.
    rounds: u32,
}

impl<S> DirtySources<S> {
    fn is_silent_for(&self, patience: Duration, now: Monotonic) -> bool {
        self.asked_at.is_none_or(|at| now.since(at) >= patience)
    }
}

/// When the store has work beside commits.
#[derive(Default)]
struct Upkeep {
    /// Batches since a slice was erased.
    since_erase: u64,
    /// Rows of dropped lanes may remain.
    may_erase: bool,
    /// The store had some when it was last asked.
    has_dead_rows: bool,
    /// A copy is requested or under way.
    has_copy: bool,
    /// Work that comes before the next batch.
    after_batch: AfterBatch,
    /// Set once maintenance was done in this idle moment: when it is due again, if ever.
    maintained: Option<Option<Monotonic>>,
}

/// The work between two batches that is still to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum AfterBatch {
    #[default]
    Nothing,
    Erase,
    StepCopy,
}

/// Whether the writer runs, stops or has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// Everything that was submitted is still committed.
    Stopping,
    /// Nothing is accepted any more.
    Stopped,
}

/// Forms batches. `S` is a source of rows, `C` is called when changes of topology are durable.
pub(super) struct CommitMachine<S, C> {
    limits: Limits,
    intake: Intake<S, C>,
    asking: DirtySources<S>,
    upkeep: Upkeep,
    /// The last batch.
    last: BatchNo,
    /// A batch is being committed, or its outcome is being reported.
    is_busy: bool,
    /// The batch is in the hands of a caller's thread: until that rests, or leaves the batch, nothing else begins.
    is_lent_out: bool,
    /// A batch whose first commit, on a caller's thread, has failed.
    unfinished: Option<BatchRun<S, C>>,
    /// The number of callers that wait until nothing is outstanding.
    flushes: usize,
    stage: Stage,
}

impl<S: RowSource, C> CommitMachine<S, C> {
    /// A machine whose first batch follows `last`.
    pub(super) fn new(last: BatchNo, limits: Limits) -> Self {
        Self {
            limits,
            intake: Intake::default(),
            asking: DirtySources { dirty: VecDeque::new(), asked: HashSet::new(), asked_at: None, rounds: 0 },
            upkeep: Upkeep { may_erase: true, ..Upkeep::default() },
            last,
            is_busy: false,
            is_lent_out: false,
            unfinished: None,
            flushes: 0,
            stage: Stage::Open,
        }
    }

    // ---- inputs of sources and topology

    /// A source has rows. `false` after the end: it is not accepted.
    pub(super) fn dirty(&mut self, source: S) -> bool {
        let is_open = !self.is_stopped();
        if is_open {
            self.asking.dirty.push_back(source);
        }
        is_open
    }

    /// A source hands rows over, asked or unasked. Returned after the end.
    pub(super) fn contribute(&mut self, source: S, contribution: Contribution) -> Result<(), (S, Contribution)>
    where
        S: Clone,
    {
        self.asking.asked.remove(&source.key());
        if self.is_stopped() {
            return Err((source, contribution));
        }
        if contribution.more {
            self.asking.dirty.push_back(source.clone());
        }
        if !contribution.is_empty() {
            self.intake.accepted += 1;
            self.intake.grouped += usize::from(!contribution.groups.is_empty());
            self.intake.contributions.push_back((source, contribution));
        }
        Ok(())
    }

    /// Changes of topology, or a barrier if there are none. Returned after the end.
    pub(super) fn change_topology(&mut self, changes: Vec<TopologyChange>, completion: C) -> Result<(), C> {
        if self.is_stopped() {
            return Err(completion);
        }
        let waits = changes.is_empty() || deletes_queue(&changes);
        let after = if waits { self.intake.accepted } else { 0 };
        self.intake.topology.push_back(TopologyItem { changes, after, completion });
        Ok(())
    }

    /// Sets whether a copy is requested or under way.
    pub(super) fn set_copying(&mut self, is_copying: bool) {
        self.upkeep.has_copy = is_copying;
    }

    pub(super) fn begin_flush(&mut self) {
        self.flushes += 1;
    }

    pub(super) fn end_flush(&mut self) {
        self.flushes -= 1;
    }

    /// Everything that was submitted is committed; then [`Action::Stop`] follows.
    pub(super) fn stop(&mut self) {
        if self.stage == Stage::Open {
            self.stage = Stage::Stopping;
        }
    }

    // ---- questions of the driver

    pub(super) fn is_stopping(&self) -> bool {
        self.stage != Stage::Open
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stage == Stage::Stopped
    }

    /// Whether a caller waits until nothing is outstanding.
    pub(super) fn has_flushes(&self) -> bool {
        self.flushes > 0
    }

    /// Whether everything that was submitted so far has its outcome.
    pub(super) fn is_all_durable(&self) -> bool {
        !self.is_stopped() && !self.is_busy && self.intake.topology.is_empty() && self.intake.contributions.is_empty()
    }

    /// Whether nothing is outstanding, but for sources that have not answered for long.
    pub(super) fn is_idle(&self, now: Monotonic) -> bool {
        !self.is_busy
            && self.intake.topology.is_empty()
            && self.intake.contributions.is_empty()
            && self.asking.dirty.is_empty()
            && (self.asking.asked.is_empty() || self.asking.is_silent_for(ANSWER_PATIENCE_MAX, now))
    }

    /// Whether sources may contribute rows unasked. While sources are asked, further rows wait for the batch that is being
    /// gathered anyway.
    pub(super) fn wants_rows(&self) -> bool {
        self.asking.asked.is_empty()
    }

    /// Whether a batch is in the hands of a caller's thread. Then `next` must not be called.
    pub(super) fn is_lent_out(&self) -> bool {
        self.is_lent_out
    }

    /// What to do now.
    pub(super) fn next(&mut self, now: Monotonic) -> Action<S, C>
    where
        S: Clone,
    {
        debug_assert!(!self.is_lent_out, "batches begin and end in order");
        if let Some(run) = self.unfinished.take() {
            self.is_busy = true;
            return Action::Commit(run);
        }
        if let Some(action) = self.after_batch() {
            return action;
        }
        self.is_busy = false;
        let has_work = !self.intake.topology.is_empty() || self.intake.has_whole_groups(now);
        let is_waiting = !self.asking.asked.is_empty() && !self.asking.is_silent_for(self.limits.patience, now);
        if is_waiting && (has_work || !self.asking.dirty.is_empty()) {
            return Action::Sleep { until: Some(now.plus(self.limits.patience)) };
        }
        if !has_work {
            self.asking.rounds = 0;
        }
        if !self.asking.dirty.is_empty() && self.asking.rounds < ROUNDS_MAX {
            let budget = self.budget();
            if !budget.is_used_up() {
                self.asking.rounds += 1;
                return Action::Ask(self.ask(&budget, now));
            }
        }
        if has_work {
            return Action::Commit(self.take(now));
        }
        if !self.asking.dirty.is_empty() {
            // The first group fills the batch, and its last part has not been contributed yet.
            return Action::Sleep { until: Some(now.plus(ANSWER_PATIENCE_MAX)) };
        }
        self.next_without_work(now)
    }

    fn next_without_work(&mut self, now: Monotonic) -> Action<S, C> {
        if !self.asking.asked.is_empty() && self.asking.is_silent_for(ANSWER_PATIENCE_MAX, now) {
            // Stop waiting for sources that did not answer in time. A late answer is still accepted.
            self.asking.asked.clear();
        }
        if self.is_stopping() && self.is_idle(now) {
            return Action::Stop;
        }
        if self.upkeep.has_copy && self.asking.asked.is_empty() {
            return Action::Work(StoreWork::StepCopy);
        }
        if self.upkeep.may_erase && self.asking.asked.is_empty() {
            return self.erase();
        }
        if !self.asking.asked.is_empty() || !self.intake.contributions.is_empty() {
            return Action::Sleep { until: Some(now.plus(ANSWER_PATIENCE_MAX)) };
        }
        match self.upkeep.maintained.take() {
            None => Action::Work(StoreWork::Maintain),
            Some(until) => Action::Sleep { until },
        }
    }

    fn after_batch(&mut self) -> Option<Action<S, C>> {
        let after = std::mem::take(&mut self.upkeep.after_batch);
        if after == AfterBatch::Erase {
            self.upkeep.after_batch = AfterBatch::StepCopy;
            if self.upkeep.may_erase && self.upkeep.since_erase >= BATCHES_PER_ERASE {
                return Some(self.erase());
            }
            return self.after_batch();
        }
        (after == AfterBatch::StepCopy && self.upkeep.has_copy).then_some(Action::Work(StoreWork::StepCopy))
    }

    fn erase(&mut self) -> Action<S, C> {
        let is_busy = std::mem::take(&mut self.upkeep.since_erase) > 0;
        let rows = self.limits.erase_rows;
        Action::Work(StoreWork::Erase { rows: if is_busy { rows / BUSY_SLICE_DIVISOR } else { rows } })
    }

    fn budget(&self) -> BatchBudget {
        BatchBudget::left(&self.limits, self.intake.contributions.iter().map(|(_, contribution)| contribution))
    }

    /// Asks dirty sources in rotation, as many as may fill the budget. Each is asked for an equal share, but for enough rows
    /// to be worth the page and the lane that they touch: a few rows of each of a thousand queues cost many times what the
    /// same number costs from a hundred queues now and from the next hundred later.
    fn ask(&mut self, budget: &BatchBudget, now: Monotonic) -> RowRequest<S> {
        let dirty = &mut self.asking.dirty;
        let rows_max = (budget.rows / dirty.len()).max(self.limits.rows_worth_asking).min(budget.rows);
        let mut expected = 0;
        let has_room = |source: &&S| {
            let fits = expected < budget.rows;
            expected += source.rows_waiting().clamp(1, rows_max);
            fits
        };
        let count = dirty.iter().take_while(has_room).count();
        let sources: Vec<S> = dirty.drain(..count).collect();
        self.asking.asked.extend(sources.iter().map(RowSource::key));
        self.asking.asked_at = Some(now);
        RowRequest { sources, rows_max, bytes_max: (budget.bytes / count).max(1) }
    }

    /// Takes contributions up to the limits (at least one, and groups as a whole), and the changes of topology that need not
    /// wait for the contributions that are left.
    fn take(&mut self, now: Monotonic) -> BatchRun<S, C> {
        self.is_busy = true;
        self.asking.rounds = 0;
        self.upkeep.maintained = None;
        let GroupRun { count, is_torn } = self.intake.whole_groups(self.limits.rows_max, self.limits.bytes_max, now);
        let batch_no = BatchNo(self.last.0 + 1);
        let mut batch = Batch { batch_no, topology: Vec::new(), lanes: Vec::new(), drop_lanes: Vec::new() };
        let mut contents = BatchContents { is_torn, ..BatchContents::default() };
        contents.take(&mut batch, &mut self.intake, count);
        let is_empty = batch.topology.is_empty() && batch.lanes.is_empty() && batch.drop_lanes.is_empty();
        contents.batch = (!is_empty).then_some(batch);
        self.last = contents.batch.as_ref().map_or(self.last, |batch| batch.batch_no);
        BatchRun::new(contents, self.limits.give_up_after)
    }

    /// A batch for a caller's thread, if there is one now without asking a source. Then `finished` and `rest` follow, or
    /// `leave_unfinished`.
    pub(super) fn take_simple(&mut self, now: Monotonic) -> Option<BatchRun<S, C>> {
        let is_simple = !self.is_busy
            && self.unfinished.is_none()
            && self.asking.dirty.is_empty()
            && self.asking.asked.is_empty()
            && self.intake.has_whole_groups(now);
        self.is_lent_out = is_simple;
        is_simple.then(|| self.take(now))
    }

    /// Adds to a batch that the store has refused, and of which it has stored nothing, what was submitted since: rows
    /// that were acknowledged need no space any more, and removals give some back. Returns the sources to ask for more.
    pub(super) fn amend(&mut self, run: &mut BatchRun<S, C>, now: Monotonic) -> Option<RowRequest<S>> {
        if self.intake.has_whole_groups(now) || !self.intake.topology.is_empty() {
            let GroupRun { count, is_torn } = self.intake.whole_groups(usize::MAX, usize::MAX, now);
            let contents = run.contents_mut();
            let mut batch = contents.batch.take().expect("a refused batch is not empty");
            contents.is_torn |= is_torn;
            contents.take(&mut batch, &mut self.intake, count);
            batch.join_lanes();
            contents.batch = Some(batch);
        }
        // Sources are asked for removals, and few new rows. They answer before the next try.
        let count = self.asking.dirty.len();
        (count > 0).then(|| self.ask(&BatchBudget { rows: count, bytes: count }, now))
    }

    // ---- results of the driver

    /// A batch has its outcome. `last` is its number, or the last of its numbers: removals may have been committed ahead.
    /// Returns the number of the last batch.
    pub(super) fn finished(&mut self, last: Option<BatchNo>, has_dead_rows: bool) -> BatchNo {
        self.last = last.unwrap_or(self.last);
        self.upkeep.since_erase += 1;
        self.upkeep.may_erase |= self.upkeep.since_erase >= BATCHES_PER_MAINTENANCE;
        self.upkeep.after_batch = AfterBatch::Erase;
        self.note_dead_rows(has_dead_rows);
        self.last
    }

    /// A caller's thread has failed to commit a batch once.
    pub(super) fn leave_unfinished(&mut self, run: BatchRun<S, C>) {
        self.unfinished = Some(run);
        self.is_lent_out = false;
    }

    /// A caller's thread has reported the outcome of its batch. Returns whether the driver may sleep on.
    pub(super) fn rest(&mut self) -> bool {
        (self.is_busy, self.is_lent_out) = (false, false);
        let is_quiet = self.intake.contributions.is_empty() && self.intake.topology.is_empty() && self.flushes == 0;
        is_quiet && !self.upkeep.may_erase && !self.upkeep.has_copy && !self.is_stopping()
    }

    /// A slice was erased. `more`: it is worth erasing another one.
    pub(super) fn erased(&mut self, more: bool, has_dead_rows: bool) {
        self.upkeep.may_erase = more;
        self.upkeep.has_dead_rows = has_dead_rows;
    }

    /// Maintenance was done; `again` is when it is due next.
    pub(super) fn maintained(&mut self, again: Option<Monotonic>, has_dead_rows: bool) {
        self.upkeep.maintained = Some(again);
        self.note_dead_rows(has_dead_rows);
    }

    /// The first dead rows are erased at once. If that fails, it is tried again after some batches.
    fn note_dead_rows(&mut self, has_dead_rows: bool) {
        let had_dead_rows = std::mem::replace(&mut self.upkeep.has_dead_rows, has_dead_rows);
        self.upkeep.may_erase |= has_dead_rows && !had_dead_rows;
    }

    /// The store is closed. Returns what was never committed, and the number of the last batch.
    pub(super) fn close(&mut self) -> (Leftover<S, C>, BatchNo) {
        self.stage = Stage::Stopped;
        self.asking.dirty.clear();
        let contributions = std::mem::take(&mut self.intake.contributions).into();
        let completions = std::mem::take(&mut self.intake.topology).into_iter().map(|item| item.completion).collect();
        (Leftover { contributions, completions }, self.last)
    }
}

/// Contributions and changes that were submitted and never committed.
pub(super) struct Leftover<S, C> {
    pub(super) contributions: Vec<(S, Contribution)>,
    pub(super) completions: Vec<C>,
}

fn deletes_queue(changes: &[TopologyChange]) -> bool {
    changes.iter().any(|change| matches!(change, TopologyChange::DeleteQueue(_)))
}
