//! Reading rows back, independently of the writer, so that no commit waits for a read.

use super::shared::{WriterShared, catch_panic, lock};
use crate::store::{Cause, LoadRequest, LoadedRange, ReadError, StoreError, StoreReader, chain};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// Called with the rows that were read, on the reader's thread.
pub type LoadCompletion = Box<dyn FnOnce(Result<LoadedRange, ReadError>) + Send>;

type Load = (LoadRequest, LoadCompletion);

/// Requests that wait for a reader. Callers bound them: a queue has one load per level open at a time.
pub(super) struct Loads(Mutex<LoadRoute>);

enum LoadRoute {
    Threads(Sender<Load>),
    Queue(QueuedLoads),
    Closed,
}

impl Loads {
    pub(super) fn queued(queue: QueuedLoads) -> Self {
        Self(Mutex::new(LoadRoute::Queue(queue)))
    }

    pub(super) fn submit(&self, request: LoadRequest, then: LoadCompletion) {
        let route = lock(&self.0);
        let refused = match &*route {
            LoadRoute::Threads(sender) => sender.send((request, then)).err().map(|refused| refused.0.1),
            LoadRoute::Queue(queue) => {
                queue.push((request, then));
                None
            }
            LoadRoute::Closed => Some(then),
        };
        drop(route);
        if let Some(then) = refused {
            then(Err(ReadError::Closed));
        }
    }

    /// Closes the queue of requests: no further one is accepted.
    pub(super) fn close(&self) {
        *lock(&self.0) = LoadRoute::Closed;
    }
}

/// Requests that wait until a caller runs them.
#[derive(Clone, Default)]
pub(super) struct QueuedLoads(Arc<Mutex<VecDeque<Load>>>);

impl QueuedLoads {
    fn push(&self, load: Load) {
        lock(&self.0).push_back(load);
    }

    /// Runs the first request. `false` if there is none.
    pub(super) fn run_one(&self, reader: &mut dyn StoreReader, shared: &WriterShared) -> bool {
        let load = lock(&self.0).pop_front();
        let found = load.is_some();
        if let Some((request, then)) = load {
            run(reader, request, then, shared);
        }
        found
    }
}

/// Starts a thread for each reader.
pub(super) fn start(
    readers: Vec<Box<dyn StoreReader>>,
    shared: &Arc<WriterShared>,
) -> Result<(Loads, Vec<JoinHandle<()>>), StoreError> {
    let (sender, receiver) = channel();
    let receiver = Arc::new(Mutex::new(receiver));
    let mut threads = Vec::new();
    for reader in readers {
        let (receiver, shared) = (Arc::clone(&receiver), Arc::clone(shared));
        let thread = thread::Builder::new()
            .name("pronto-reader".into())
            .spawn(move || run_thread(reader, &receiver, &shared))
            .map_err(|error| StoreError::Unusable(Cause::new("no thread for a reader", error)))?;
        threads.push(thread);
    }
    Ok((Loads(Mutex::new(LoadRoute::Threads(sender))), threads))
}

fn run_thread(mut reader: Box<dyn StoreReader>, requests: &Mutex<Receiver<Load>>, shared: &WriterShared) {
    loop {
        // One reader waits for the next request, the others wait for the lock.
        let load = lock(requests).recv();
        let Ok((request, then)) = load else { return };
        run(&mut *reader, request, then, shared);
    }
}

fn run(reader: &mut dyn StoreReader, request: LoadRequest, then: LoadCompletion, shared: &WriterShared) {
    let answer = catch_unwind(AssertUnwindSafe(|| reader.load(request))).unwrap_or_else(|_| Err(ReadError::Panicked));
    if let Err(error) = &answer {
        let mut stats = shared.stats();
        stats.read_failures += 1;
        stats.last_read_failure = Some((shared.now(), chain(error).to_string()));
    }
    catch_panic("load", || then(answer));
}
