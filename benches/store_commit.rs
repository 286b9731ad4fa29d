//! What a durable row costs: CPU of the committing thread per row (inserted, and later removed in ranges), and how long
//! a commit takes, beside the same transactions through SQLite's C API (`raw_sqlite`) in turns. `cargo bench --bench store_commit`; the files lie in the system's temporary directory, so set `TMPDIR` to
//! measure a certain disk. `-- 1024 100` measures that body and batch alone, `-- 0` what is below the table.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

mod raw_sqlite;

use prontomq::internals::model::{Lane, Message, Position, QueueId};
use prontomq::internals::store::commit::{Contribution, ContributionOutcome, Source, WriterHandle, WriterSettings};
use prontomq::internals::store::sqlite::{SqliteSettings, SqliteStore};
use prontomq::internals::store::{
    Batch, BatchNo, CommitOutcome, LaneChange, LaneState, LoadRequest, PositionRange, Row, Store, SystemClock,
};
use prontomq::internals::wire::properties::Properties;
use raw_sqlite::RawSqlite;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LANE: Lane = Lane { queue: QueueId(1), level: 0, generation: 0 };

/// Bytes and rows that one cell of the table is measured with, about.
const CELL_BYTES: usize = 256 << 20;
const CELL_ROWS: usize = 300_000;
const ROUNDS: usize = 4;
const BATCHES: std::ops::RangeInclusive<usize> = 4..=1_000;

fn main() {
    let wanted: Vec<usize> = std::env::args().filter_map(|argument| argument.parse().ok()).collect();
    println!(
        "CPU in microseconds per row, inserted + removed; commits that insert, in milliseconds; both phases, per second"
    );
    println!(
        "{:>6} {:>6} {:>15} {:>15} {:>6} {:>15} {:>15} {:>10} {:>10}",
        "body", "batch", "store", "raw", "ratio", "store p50/p99", "raw p50/p99", "rows/s", "raw"
    );
    for body in [16, 1_024, 65_536] {
        for batch in [1, 10, 100, 1_000, 5_000] {
            if !wanted.is_empty() && wanted != [body, batch] {
                continue;
            }
            let fits = (CELL_BYTES / (body * batch)).min(CELL_ROWS / batch);
            compare(body, batch, fits.clamp(*BATCHES.start(), *BATCHES.end()));
        }
    }
    if wanted.is_empty() || wanted == [0] {
        reads();
        beside_a_reader();
        round_trips();
    }
}

/// The CPU time of this thread.
fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec.cast_unsigned(), u32::try_from(now.tv_nsec).expect("below a second"))
}

fn message(body: usize) -> Message {
    let properties = Properties::check(&[0x10, 0, 2]).expect("delivery mode 2");
    Message::with_body(b"", b"bench", &properties, vec![b'x'; body])
}

/// Messages with bodies of their own, as publishers send them.
fn messages(body: usize, count: usize) -> Vec<Message> {
    (0..count).map(|_| message(body)).collect()
}

fn rows(first: u64, messages: &[Message]) -> Vec<Row> {
    let row = |(message, position): (&Message, u64)| Row {
        position: Position(position),
        redelivered: false,
        expires_at: None,
        place: None,
        message: message.clone(),
    };
    messages.iter().zip(first..).map(row).collect()
}

fn change(inserts: Vec<Row>, remove_below: Option<Position>) -> LaneChange {
    LaneChange {
        lane: LANE,
        inserts,
        remove_below,
        remove_ranges: Vec::new(),
        removes: Vec::new(),
        state: LaneState::default(),
    }
}

fn open(place: &TempDir) -> SqliteStore {
    let mut store = SqliteStore::open(&SqliteSettings::new(place.path())).expect("the store opens");
    store.recover().expect("the store is read");
    store
}

fn batch_of(number: u64, change: LaneChange) -> Batch {
    Batch { batch_no: BatchNo(number), topology: Vec::new(), lanes: vec![change], drop_lanes: Vec::new() }
}

fn commit(store: &mut SqliteStore, batch: &Batch) {
    assert_eq!(store.commit(batch), CommitOutcome::Committed);
}

fn quantile(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3
}

/// What one side has cost so far.
#[derive(Default)]
struct Cost {
    inserting: Duration,
    removing: Duration,
    wall: Duration,
    commits: Vec<Duration>,
}

impl Cost {
    fn insert(&mut self, run: impl FnOnce()) {
        let (wall, before) = (Instant::now(), cpu());
        run();
        self.inserting += cpu() - before;
        self.commits.push(wall.elapsed());
        self.wall += wall.elapsed();
    }

    fn remove(&mut self, run: impl FnOnce()) {
        let (wall, before) = (Instant::now(), cpu());
        run();
        self.removing += cpu() - before;
        self.wall += wall.elapsed();
    }

    fn per_row(&self, rows: usize) -> String {
        let per_row = |time: Duration| time.as_secs_f64() * 1e6 / rows as f64;
        format!("{:.2} + {:.2}", per_row(self.inserting), per_row(self.removing))
    }

    fn latency(&mut self) -> String {
        format!("{:.2} / {:.2}", quantile(&mut self.commits, 0.5), quantile(&mut self.commits, 0.99))
    }
}

/// Both sides in turns, each round on new files. Never both open at a time: within one process SQLite's connections
/// take pages from each other's caches.
fn compare(body: usize, batch: usize, batches: usize) {
    let (mut ours, mut theirs) = (Cost::default(), Cost::default());
    let batches = (batches / ROUNDS).max(1);
    for round in 0..ROUNDS {
        for side in [round, round + 1] {
            if side % 2 == 0 {
                through_the_store(body, batch, batches, &mut ours);
            } else {
                through_raw_sqlite(body, batch, batches, &mut theirs);
            }
        }
    }
    let batches = batches * ROUNDS;
    let count = batch * batches;
    let rate = |cost: &Cost| count as f64 / cost.wall.as_secs_f64();
    let sum = |cost: &Cost| (cost.inserting + cost.removing).as_secs_f64();
    println!(
        "{body:>6} {batch:>6} {:>15} {:>15} {:>6.2} {:>15} {:>15} {:>10.0} {:>10.0}",
        ours.per_row(count),
        theirs.per_row(count),
        sum(&ours) / sum(&theirs),
        ours.latency(),
        theirs.latency(),
        rate(&ours),
        rate(&theirs),
    );
}

/// Inserts in all batches, then removes in as many.
fn through_the_store(body: usize, batch: usize, batches: usize, cost: &mut Cost) {
    let place = TempDir::new().expect("a directory");
    let mut store = open(&place);
    for at in 0..batches {
        let rows = rows((at * batch) as u64 + 1, &messages(body, batch));
        let inserts = batch_of(at as u64 + 1, change(rows, None));
        cost.insert(|| commit(&mut store, &inserts));
    }
    for at in 0..batches {
        let below = Position(((at + 1) * batch) as u64 + 1);
        let removes = batch_of((batches + at) as u64 + 1, change(Vec::new(), Some(below)));
        cost.remove(|| commit(&mut store, &removes));
    }
    Box::new(store).close().expect("it closes");
}

/// The same.
fn through_raw_sqlite(body: usize, batch: usize, batches: usize, cost: &mut Cost) {
    let place = TempDir::new().expect("a directory");
    Box::new(open(&place)).close().expect("it closes");
    let mut raw = RawSqlite::open(&place.path().join("prontomq.sqlite3"));
    let number = |count: usize| i64::try_from(count).expect("a small number");
    for at in 0..batches {
        let messages = messages(body, batch);
        cost.insert(|| raw.insert(number(at + 1), number(at * batch + 1), &messages));
    }
    for at in 0..batches {
        cost.remove(|| raw.remove_below(number(batches + at + 1), number((at + 1) * batch + 1)));
    }
}

fn reads() {
    let place = TempDir::new().expect("a directory");
    let mut store = open(&place);
    commit(&mut store, &batch_of(1, change(rows(1, &vec![message(1_024); 20_000]), None)));
    let mut reader = store.reader().expect("a reader");
    let began = cpu();
    for at in 0..20 {
        let range = PositionRange { from: Position(at * 1_000 + 1), to: Position(at * 1_000 + 1_000) };
        let loaded = reader.load(LoadRequest::new(LANE, range, 1_000, 4 << 20)).expect("rows are read");
        assert_eq!(loaded.rows.len(), 1_000);
    }
    println!(
        "reading 1 KiB rows, 1,000 at a time: {:.2} us of CPU per row",
        (cpu() - began).as_secs_f64() * 1e6 / 20_000.0
    );
}

/// Inserting at one end of a backlog while another thread's connection reads at the other.
fn beside_a_reader() {
    const BACKLOG: u64 = 100_000;
    const BATCH: usize = 1_000;
    let place = TempDir::new().expect("a directory");
    let mut store = open(&place);
    let mut reader = store.reader().expect("a reader");
    let mut insert = |number: u64, cost: &mut Cost| {
        let rows = rows(number * BATCH as u64 + 1, &messages(1_024, BATCH));
        let batch = batch_of(number + 1, change(rows, None));
        cost.insert(|| commit(&mut store, &batch));
    };
    let mut alone = Cost::default();
    let batches = BACKLOG / BATCH as u64;
    (0..batches).for_each(|number| insert(number, &mut alone));
    let mut beside = Cost::default();
    for at in 0..batches {
        let range = PositionRange { from: Position(at * 1_000 + 1), to: Position(at * 1_000 + 1_000) };
        assert_eq!(
            reader.load(LoadRequest::new(LANE, range, BATCH, 4 << 20)).expect("rows are read").rows.len(),
            BATCH
        );
        insert(batches + at, &mut beside);
    }
    println!(
        "inserting 1 KiB rows, 1,000 at a time: {:.2} us of CPU per row alone, {:.2} beside a reader",
        alone.inserting.as_secs_f64() * 1e6 / BACKLOG as f64,
        beside.inserting.as_secs_f64() * 1e6 / BACKLOG as f64,
    );
}

struct Waiting(Mutex<Sender<ContributionOutcome>>);

impl Source for Waiting {
    fn pull(self: Arc<Self>, _rows_max: usize, _bytes_max: usize) {}

    fn rows_waiting(&self) -> usize {
        0
    }

    fn stored(self: Arc<Self>, outcome: ContributionOutcome) {
        self.0.lock().expect("nobody panics").send(outcome).expect("the bench waits");
    }
}

/// One row at a time through the writer's thread, from the hand-over to the outcome.
fn round_trips() {
    let place = TempDir::new().expect("a directory");
    let writer =
        WriterHandle::start(Box::new(open(&place)), BatchNo(0), WriterSettings::default(), SystemClock::shared())
            .expect("it starts");
    let (sender, outcomes) = channel();
    let source = Arc::new(Waiting(Mutex::new(sender)));
    let message = [message(1_024)];
    let mut times = Vec::new();
    for position in 1..=1_000 {
        let lanes = vec![change(rows(position, &message), Some(Position(position)))];
        let contribution = Contribution { ticket: position, lanes, rows: 2, bytes: 1_024, ..Contribution::default() };
        let began = Instant::now();
        writer.contribute(Arc::clone(&source) as Arc<dyn Source>, contribution);
        assert!(outcomes.recv().expect("the outcome").durable);
        times.push(began.elapsed());
    }
    println!(
        "one 1 KiB row through the writer's thread: p50 {:.3} ms, p99 {:.3} ms",
        quantile(&mut times, 0.5),
        quantile(&mut times, 0.99)
    );
    writer.stop().expect("it closes");
}
