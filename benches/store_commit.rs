//! What a durable row costs: CPU of the committing thread per row (inserted and removed again), and how long a commit
//! takes, by batch size. `cargo bench --bench store_commit`; the file lies in the system's temporary directory, so set
//! `TMPDIR` to measure a certain disk.

#![expect(clippy::print_stdout, reason = "a bench prints its table")]

use prontomq::model::{Lane, Message, Position, QueueId};
use prontomq::store::sqlite::{SqliteSettings, SqliteStore};
use prontomq::store::writer::{Contribution, Source, Stored, WriterHandle, WriterSettings};
use prontomq::store::{Batch, BatchNo, CommitOutcome, LaneChange, LaneState, PositionRange, Row, Store};
use prontomq::wire::properties::Properties;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const LANE: Lane = Lane { queue: QueueId(1), level: 0, generation: 0 };

fn main() {
    println!(
        "{:>6} {:>6} {:>14} {:>14} {:>10} {:>10} {:>12}",
        "body", "batch", "insert us/row", "remove us/row", "p50 ms", "p99 ms", "rows/s"
    );
    for (body, batch, batches) in [
        (16, 1, 2_000),
        (16, 1_000, 300),
        (1_024, 1, 2_000),
        (1_024, 10, 1_000),
        (1_024, 100, 500),
        (1_024, 1_000, 200),
        (65_536, 16, 50),
    ] {
        commits(body, batch, batches);
    }
    reads();
    round_trips();
}

/// Nanoseconds that this thread has been on a CPU.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("this bench needs Linux");
    text.split_whitespace().next().and_then(|number| number.parse().ok()).expect("schedstat begins with a number")
}

fn message(body: usize) -> Message {
    let properties = Properties::check(&[0x10, 0, 2]).expect("delivery mode 2");
    Message::with_body(b"", b"bench", &properties, vec![b'x'; body])
}

fn rows(first: u64, count: u64, message: &Message) -> Vec<Row> {
    let row =
        |position| Row { position: Position(position), redelivered: false, expires_at: None, message: message.clone() };
    (first..first + count).map(row).collect()
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

fn commit(store: &mut SqliteStore, number: u64, change: LaneChange) -> Duration {
    let batch = Batch { batch_no: BatchNo(number), topology: Vec::new(), lanes: vec![change], drop_lanes: Vec::new() };
    let began = Instant::now();
    assert_eq!(store.commit(&batch), CommitOutcome::Committed);
    began.elapsed()
}

fn quantile(times: &mut [Duration], part: f64) -> f64 {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3
}

/// Inserts in all batches, then removes in as many.
fn commits(body: usize, batch: u64, batches: u64) {
    let place = TempDir::new().expect("a directory");
    let mut store = open(&place);
    let message = message(body);
    let prepared: Vec<_> = (0..batches).map(|at| rows(at * batch + 1, batch, &message)).collect();
    let began = Instant::now();
    let inserting = cpu_ns();
    let mut times: Vec<_> =
        prepared.into_iter().zip(1..).map(|(rows, number)| commit(&mut store, number, change(rows, None))).collect();
    let removing = cpu_ns();
    for at in 1..=batches {
        times.push(commit(&mut store, batches + at, change(Vec::new(), Some(Position(at * batch + 1)))));
    }
    let done = cpu_ns();
    let count = batch * batches;
    let per_row = |ns: u64| ns as f64 / count as f64 / 1e3;
    let rate = count as f64 / began.elapsed().as_secs_f64();
    println!(
        "{body:>6} {batch:>6} {:>14.2} {:>14.2} {:>10.3} {:>10.3} {rate:>12.0}",
        per_row(removing - inserting),
        per_row(done - removing),
        quantile(&mut times, 0.5),
        quantile(&mut times, 0.99)
    );
}

fn reads() {
    let place = TempDir::new().expect("a directory");
    let mut store = open(&place);
    commit(&mut store, 1, change(rows(1, 20_000, &message(1_024)), None));
    let mut reader = store.reader().expect("a reader");
    let began = cpu_ns();
    for at in 0..20 {
        let range = PositionRange { from: Position(at * 1_000 + 1), to: Position(at * 1_000 + 1_000) };
        let loaded = reader.load(LANE, range, 1_000, 4 << 20).expect("rows are read");
        assert_eq!(loaded.rows.len(), 1_000);
    }
    println!(
        "reading 1 KiB rows, 1,000 at a time: {:.2} us of CPU per row",
        (cpu_ns() - began) as f64 / 20_000.0 / 1e3
    );
}

struct Waiting(Mutex<Sender<Stored>>);

impl Source for Waiting {
    fn pull(self: Arc<Self>, _rows_max: usize, _bytes_max: usize) {}

    fn stored(self: Arc<Self>, outcome: Stored) {
        self.0.lock().expect("nobody panics").send(outcome).expect("the bench waits");
    }
}

/// One row at a time through the writer's thread, from the hand-over to the outcome.
fn round_trips() {
    let place = TempDir::new().expect("a directory");
    let writer = WriterHandle::start(Box::new(open(&place)), BatchNo(0), WriterSettings::default()).expect("it starts");
    let (sender, outcomes) = channel();
    let source = Arc::new(Waiting(Mutex::new(sender)));
    let message = message(1_024);
    let mut times = Vec::new();
    for position in 1..=1_000 {
        let lanes = vec![change(rows(position, 1, &message), Some(Position(position)))];
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
