//! Group commit: one thread that gathers what queues and topology want durable, commits it, and tells them.
//!
//! No timer delays a row. When the writer is free it takes topology, then asks dirty queues in rotation for what they
//! hold, and commits the lot in one transaction; what comes up meanwhile is the next batch. The writer never runs
//! queue code: [`Source::pull`] and [`Source::stored`] submit. Reading back happens on a second thread.

mod copying;
mod gather;
mod groups;
mod offer;
mod reading;
mod settle;
mod stats;
#[cfg(test)]
mod tests;

pub use copying::{CopyEvent, CopyHeard};
pub use offer::Offer;
pub use reading::LoadRequest;
pub use stats::{COMMIT_SECONDS_BOUNDS, WriterState, WriterStats};

use super::{BatchNo, Group, Lane, LaneChange, Loaded, Store, StoreError, TopologyChange, Vitals};
use copying::CopySlot;
use gather::{Gathered, Next};
use settle::{Settler, Verdict};
use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long the writer waits for the answers of queues that it asked before it commits what it has. It is no batching
/// timer: an answer comes as soon as the runtime runs the queue's turn.
const PULL_PATIENCE: Duration = Duration::from_millis(1);

/// How long a stop or a flush waits for a queue that was asked and does not answer.
const LAST_PULL_PATIENCE: Duration = Duration::from_secs(5);

/// How often queues are asked for one batch; the second round goes to those that have more, while there is room.
const PULL_ROUNDS_MAX: u32 = 2;

/// While rows of dropped lanes remain, one slice of them is erased at least every so many batches.
const BATCHES_PER_ERASE: u64 = 2;

/// Between batches a slice is by so much smaller than in idle moments: the next batch waits for it.
const BUSY_SLICE_DIVISOR: usize = 4;

/// After so many batches the store is given an idle moment for housekeeping, though nothing was dropped.
const BATCHES_PER_CARE: u64 = 256;

/// Limits of the writer.
#[derive(Clone, Copy, Debug)]
pub struct WriterSettings {
    /// Rows of one batch; soft: a contribution is never cut.
    pub rows_max: usize,
    /// Bytes of one batch; soft likewise.
    pub bytes_max: usize,
    /// Rows of dropped lanes erased in one slice of an idle moment.
    pub erase_rows: usize,
    /// How long the outcome of one batch may stay unknown before the store counts as failed.
    pub give_up_after: Duration,
}

impl Default for WriterSettings {
    fn default() -> Self {
        Self { rows_max: 1_000, bytes_max: 1 << 20, erase_rows: 1_000, give_up_after: Duration::from_secs(60) }
    }
}

/// What a queue is told of a contribution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The contribution's own number.
    pub ticket: u64,
    /// The batch that held it.
    pub batch_no: BatchNo,
    /// Flushed; otherwise the store has failed and it will never be.
    pub durable: bool,
}

/// Something that has rows for the store: a queue's cell. Both calls come from the writer's thread, which holds no lock then;
/// they submit to whoever runs the queue's turns, or take one turn, and must not block.
pub trait Source: Send + Sync + 'static {
    /// Asks for a contribution of about this size at most. It is answered by [`WriterHandle::contribute`], with an
    /// empty contribution when there is nothing.
    fn pull(self: Arc<Self>, rows_max: usize, bytes_max: usize);

    /// How many rows a pull may bring, about. Called on the writer's thread under its lock: it only looks.
    fn rows_waiting(&self) -> usize;

    /// The outcome of one contribution: once for each that is not empty, in their order.
    fn stored(self: Arc<Self>, outcome: Stored);
}

/// What a queue hands over in one turn.
#[derive(Clone, Debug, Default)]
pub struct Contribution {
    /// The queue's number for it, repeated in [`Stored`].
    pub ticket: u64,
    /// Changes of its lanes.
    pub lanes: Vec<LaneChange>,
    /// Lanes it leaves behind.
    pub drop_lanes: Vec<Lane>,
    /// Rows inserted and removed: what counts towards a batch's size.
    pub rows: usize,
    /// Bytes of the rows inserted.
    pub bytes: usize,
    /// There is more that could be written now: the queue stays dirty, and need not say so again.
    pub more: bool,
    /// Groups it is part of: it is committed in one transaction with all their other parts.
    pub groups: Vec<Group>,
}

impl Contribution {
    /// Nothing to write, and nothing to be told: it only answers a pull.
    fn is_empty(&self) -> bool {
        self.lanes.is_empty() && self.drop_lanes.is_empty() && self.groups.is_empty()
    }
}

/// Run when the changes it was submitted with are durable (`true`), or never will be.
pub type Then = Box<dyn FnOnce(bool) + Send>;

/// Receives what was read, on the reader's thread.
pub type LoadThen = Box<dyn FnOnce(Result<Loaded, StoreError>) + Send>;

struct TopologyItem {
    changes: Vec<TopologyChange>,
    /// This many contributions have to be taken first: a barrier waits for all before it, and so does a queue's
    /// deletion, or what the queue contributed before would bring its lanes back.
    after: u64,
    then: Then,
}

/// What was submitted and not yet taken. Behind one leaf lock.
#[derive(Default)]
struct Inbox {
    topology: VecDeque<TopologyItem>,
    contributions: VecDeque<(Arc<dyn Source>, Contribution)>,
    /// How many of them are part of a group.
    grouped: usize,
    /// Since when the first of them waits for the rest of its group.
    incomplete_since: Option<Instant>,
    dirty: VecDeque<Arc<dyn Source>>,
    /// Sources asked and not yet heard, by address.
    asked: HashSet<usize>,
    asked_at: Option<Instant>,
    /// Contributions accepted and taken, ever.
    accepted: u64,
    taken: u64,
    /// The writer's thread waits on `wake`.
    asleep: bool,
    /// When it wakes by itself, if ever.
    alarm: Option<Instant>,
    /// A batch is being committed, or its outcome told.
    busy: bool,
    flushes: usize,
    copy: CopySlot,
    stopping: bool,
    stopped: bool,
}

impl Inbox {
    fn asked_too_long(&self, patience: Duration) -> bool {
        self.asked_at.is_none_or(|at| at.elapsed() >= patience)
    }

    /// Nothing is outstanding that still may come.
    fn is_quiet(&self) -> bool {
        !self.busy
            && self.topology.is_empty()
            && self.contributions.is_empty()
            && self.dirty.is_empty()
            && (self.asked.is_empty() || self.asked_too_long(LAST_PULL_PATIENCE))
    }
}

struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    /// Tells flushes and stops that things have changed.
    settled: Condvar,
    /// The writer has nothing to do: rows are welcome unasked. A hint; contributing and marking are right at any time.
    idle: AtomicBool,
    stats: Mutex<WriterStats>,
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Nothing that could panic runs under this lock.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stats(&self) -> MutexGuard<'_, WriterStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock is given up first: the writer needs it as soon as it is awake.
    fn wake_writer(&self, mut inbox: MutexGuard<'_, Inbox>) {
        if inbox.asleep && offer::is_taken_up(self) {
            return;
        }
        let was_asleep = std::mem::take(&mut inbox.asleep);
        if was_asleep {
            self.idle.store(false, Ordering::Release);
        }
        drop(inbox);
        if was_asleep {
            self.wake.notify_one();
        }
    }
}

fn address(source: &Arc<dyn Source>) -> usize {
    Arc::as_ptr(source).cast::<()>() as usize
}

/// Runs code of others on the writer's thread; a panic of theirs does not end it.
fn guarded(what: &'static str, run: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(run)).is_err() {
        tracing::error!(what, "a caller of the store's writer panicked");
    }
}

/// How queues and topology reach the writer; cheap to clone. When the last one goes, the writer stops as if told to.
#[derive(Clone)]
pub struct WriterHandle {
    life: Arc<Life>,
}

struct Life {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Writer>>,
    loads: Mutex<Option<reading::Loads>>,
    /// Loads asked for and not yet handed over.
    loading: Arc<AtomicUsize>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    outcome: Arc<Mutex<Option<Result<(), StoreError>>>>,
}

impl Drop for Life {
    fn drop(&mut self) {
        let mut inbox = self.shared.inbox();
        inbox.stopping = true;
        self.shared.wake_writer(inbox);
    }
}

impl WriterHandle {
    /// Starts the writer's and the reader's threads on an opened and recovered store; `last` is the last batch that
    /// it recovered.
    pub fn start(store: Box<dyn Store>, last: BatchNo, settings: WriterSettings) -> Result<Self, StoreError> {
        let reader = store.reader()?;
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            wake: Condvar::new(),
            settled: Condvar::new(),
            idle: AtomicBool::new(false),
            stats: Mutex::default(),
        });
        let outcome = Arc::new(Mutex::new(None));
        let (loads, reader_thread) = reading::start(reader, Arc::clone(&shared))?;
        let writer = Writer {
            shared: Arc::clone(&shared),
            settings,
            settler: Settler::new(store, Arc::clone(&shared), settings.give_up_after),
            last,
            since_erase: 0,
            may_erase: true,
            has_dead_rows: false,
            copy: None,
            unsettled: None,
        };
        let writer = Arc::new(Mutex::new(writer));
        let (told, run) = (Arc::clone(&outcome), Arc::clone(&writer));
        let writer_thread = thread::Builder::new()
            .name("pronto-writer".into())
            .spawn(move || {
                let result = run_writer(&run);
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            })
            .map_err(|error| StoreError::Unusable(format!("no thread for the writer: {error}")))?;
        let threads = Mutex::new(vec![writer_thread, reader_thread]);
        Ok(Self {
            life: Arc::new(Life {
                shared,
                writer,
                loads: Mutex::new(Some(loads)),
                loading: Arc::default(),
                threads,
                outcome,
            }),
        })
    }

    /// Marks a source as having something to write. It says so once, then not again until its next contribution that
    /// has no `more`.
    pub fn dirty(&self, source: Arc<dyn Source>) {
        let shared = &self.life.shared;
        let mut inbox = shared.inbox();
        if !inbox.stopped {
            inbox.dirty.push_back(source);
            shared.wake_writer(inbox);
        }
    }

    /// Whether the writer is idle: a turn that has just become dirty may then contribute at once instead of calling
    /// [`WriterHandle::dirty`]. Either is right whatever the answer was; this only saves a round trip.
    pub fn wants_rows(&self) -> bool {
        self.life.shared.idle.load(Ordering::Acquire)
    }

    /// Hands rows over: as the answer to a pull, or unasked. Contributions of one source are committed in their order.
    pub fn contribute(&self, source: Arc<dyn Source>, contribution: Contribution) {
        let shared = &self.life.shared;
        let mut inbox = shared.inbox();
        inbox.asked.remove(&address(&source));
        if inbox.stopped {
            drop(inbox);
            if !contribution.is_empty() {
                source.stored(Stored { ticket: contribution.ticket, batch_no: BatchNo(0), durable: false });
            }
            return;
        }
        if contribution.more {
            inbox.dirty.push_back(Arc::clone(&source));
        }
        if !contribution.is_empty() {
            inbox.accepted += 1;
            inbox.grouped += usize::from(!contribution.groups.is_empty());
            inbox.contributions.push_back((source, contribution));
        }
        shared.wake_writer(inbox);
    }

    /// Makes changes of topology durable in their order of submission, then runs `then` on the writer's thread. A queue
    /// contributes nothing any more once its deletion is submitted. The changes are in the batch of any contribution that is
    /// submitted after them, or in one before it.
    ///
    /// Without changes `then` runs when everything submitted before (topology and contributions) is durable: at once,
    /// on this thread, when nothing is pending.
    pub fn topology(&self, changes: Vec<TopologyChange>, then: Then) {
        if changes.is_empty() && self.is_all_durable() {
            let durable = self.life.shared.stats().state != WriterState::Failed;
            return then(durable);
        }
        if let Err(then) = self.submit_topology(changes, then) {
            then(false);
        }
    }

    fn is_all_durable(&self) -> bool {
        let inbox = self.life.shared.inbox();
        !inbox.stopped && !inbox.busy && inbox.topology.is_empty() && inbox.contributions.is_empty()
    }

    /// As [`WriterHandle::topology`], but never runs `then` on this thread.
    ///
    /// # Errors
    /// Gives `then` back when the writer has stopped: the changes will never be durable.
    pub fn submit_topology(&self, changes: Vec<TopologyChange>, then: Then) -> Result<(), Then> {
        let shared = &self.life.shared;
        let mut inbox = shared.inbox();
        if inbox.stopped {
            return Err(then);
        }
        let waits = changes.is_empty() || deletes_queue(&changes);
        let after = if waits { inbox.accepted } else { 0 };
        inbox.topology.push_back(TopologyItem { changes, after, then });
        shared.wake_writer(inbox);
        Ok(())
    }

    /// Reads rows back on the reader's thread and hands them to `then` there.
    pub fn load(&self, request: LoadRequest, then: LoadThen) {
        let loading = Arc::clone(&self.life.loading);
        loading.fetch_add(1, Ordering::AcqRel);
        let then: LoadThen = Box::new(move |loaded| {
            then(loaded);
            loading.fetch_sub(1, Ordering::AcqRel);
        });
        let loads = self.life.loads.lock().unwrap_or_else(PoisonError::into_inner);
        match loads.as_ref() {
            Some(loads) => loads.submit(request, then),
            None => {
                drop(loads);
                then(Err(StoreError::Read("the store is closed".into())));
            }
        }
    }

    /// Whether nothing is outstanding: no dirty source, no contribution, no topology, no load. Until somebody asks for
    /// something, nothing more comes of the store then.
    pub fn is_settled(&self) -> bool {
        self.life.loading.load(Ordering::Acquire) == 0 && self.life.shared.inbox().is_quiet()
    }

    /// Waits until nothing is outstanding: no dirty source, no contribution, no topology. It is for the moment when
    /// traffic has ended, and blocks; `false` when the store has failed.
    pub fn flush(&self) -> bool {
        let shared = &self.life.shared;
        let mut inbox = shared.inbox();
        inbox.flushes += 1;
        let is_over = |inbox: &Inbox| inbox.stopped || inbox.is_quiet();
        while !is_over(&inbox) {
            shared.wake_writer(inbox);
            let woken = shared.settled.wait_timeout_while(shared.inbox(), LAST_PULL_PATIENCE, |inbox| !is_over(inbox));
            inbox = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        inbox.flushes -= 1;
        drop(inbox);
        shared.stats().state == WriterState::Ok
    }

    /// Commits what is outstanding, closes the store in good order and ends both threads. Blocks; further calls return
    /// the same result. Not to be called from a `then`.
    pub fn stop(&self) -> Result<(), StoreError> {
        {
            let mut inbox = self.life.shared.inbox();
            inbox.stopping = true;
            self.life.shared.wake_writer(inbox);
        }
        let mut threads = self.life.threads.lock().unwrap_or_else(PoisonError::into_inner);
        // The reader ends when nobody can ask it any more; it goes first, so that the writer closes the store alone.
        self.life.loads.lock().unwrap_or_else(PoisonError::into_inner).take();
        for thread in threads.drain(..).rev() {
            if thread.join().is_err() {
                tracing::error!("a thread of the store's writer panicked");
            }
        }
        let outcome = self.life.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        outcome.clone().unwrap_or_else(|| Err(StoreError::Unusable("the writer's thread died".into())))
    }

    /// How the store's files are.
    pub fn vitals(&self) -> Vitals {
        self.life.shared.stats().vitals
    }

    /// A snapshot of the writer's counters.
    pub fn stats(&self) -> WriterStats {
        self.life.shared.stats().clone()
    }
}

struct Writer {
    shared: Arc<Shared>,
    settings: WriterSettings,
    settler: Settler,
    last: BatchNo,
    /// Batches since a slice was erased.
    since_erase: u64,
    /// Rows of dropped lanes may remain.
    may_erase: bool,
    /// There were some when it was looked last.
    has_dead_rows: bool,
    /// Hears of the copy that is under way.
    copy: Option<CopyHeard>,
    /// A batch that was not committed at the first try, which another thread made.
    unsettled: Option<(Gathered, Verdict)>,
}

/// The writer's thread, until it is told to stop. While it rests, others may have the writer.
fn run_writer(writer: &Mutex<Writer>) -> Result<(), StoreError> {
    let lock = || writer.lock().unwrap_or_else(PoisonError::into_inner);
    let shared = Arc::clone(&lock().shared);
    loop {
        let mut writer = lock();
        match writer.next(&shared) {
            Next::Batch(gathered, tried) => {
                writer.commit(gathered, tried);
                writer.after_batch();
            }
            Next::Rest(inbox, limit) => {
                drop(writer);
                drop(shared.sleep(inbox, limit));
            }
            Next::End => return writer.end(),
        }
    }
}

impl Writer {
    /// What comes between two batches.
    fn after_batch(&mut self) {
        if self.may_erase && self.since_erase >= BATCHES_PER_ERASE {
            self.erase();
        }
        self.step_copy();
    }

    fn end(&mut self) -> Result<(), StoreError> {
        self.give_copy_up();
        let closed = self.settler.close();
        let mut inbox = self.shared.inbox();
        inbox.stopped = true;
        let left = (std::mem::take(&mut inbox.contributions), std::mem::take(&mut inbox.topology));
        inbox.dirty.clear();
        drop(inbox);
        self.shared.idle.store(false, Ordering::Release);
        self.shared.settled.notify_all();
        for (source, contribution) in left.0 {
            let refused = Stored { ticket: contribution.ticket, batch_no: self.last, durable: false };
            guarded("stored", || source.stored(refused));
        }
        for item in left.1 {
            guarded("then", || (item.then)(false));
        }
        closed
    }

    /// Commits what was gathered, however often it takes, after a first try if there was one.
    fn commit(&mut self, mut gathered: Gathered, tried: Option<Verdict>) {
        if let Some(batch) = &gathered.batch {
            self.last = batch.batch_no;
        }
        let durable = self.settler.settle(&mut gathered, tried);
        if let Some(batch) = &gathered.batch {
            // Its removals may have gone ahead, under the number that it had.
            self.last = batch.batch_no;
        }
        self.tell(gathered, durable);
    }

    fn tell(&mut self, gathered: Gathered, durable: bool) {
        let Gathered { tickets, thens, .. } = gathered;
        self.since_erase += 1;
        self.may_erase |= self.since_erase >= BATCHES_PER_CARE;
        self.look_for_dead_rows();
        for then in thens {
            guarded("then", || then(durable));
        }
        for (source, ticket) in tickets {
            guarded("stored", || source.stored(Stored { ticket, batch_no: self.last, durable }));
        }
    }

    /// Lets the store do what is due; when it wants to be called again.
    fn tend(&mut self) -> Option<Duration> {
        let next = self.settler.tend();
        self.look_for_dead_rows();
        next
    }

    /// The first of them are erased at once. Where that failed, it is tried again after some batches.
    fn look_for_dead_rows(&mut self) {
        let had_dead_rows = std::mem::replace(&mut self.has_dead_rows, self.settler.has_dead_rows());
        self.may_erase |= self.has_dead_rows && !had_dead_rows;
    }

    fn erase(&mut self) {
        let is_busy = std::mem::take(&mut self.since_erase) > 0;
        let rows = if is_busy { self.settings.erase_rows / BUSY_SLICE_DIVISOR } else { self.settings.erase_rows };
        self.may_erase = self.settler.erase(rows);
        self.has_dead_rows = self.settler.has_dead_rows();
    }
}

fn deletes_queue(changes: &[TopologyChange]) -> bool {
    changes.iter().any(|change| matches!(change, TopologyChange::DeleteQueue(_)))
}
