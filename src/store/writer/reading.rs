//! Reading rows back, on a thread of its own so that no commit waits for a read.

use super::{LoadThen, Shared};
use crate::model::Lane;
use crate::store::{Loaded, PositionRange, StoreError, StoreReader};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Which rows to read.
#[derive(Clone, Copy, Debug)]
pub struct LoadRequest {
    /// The lane.
    pub lane: Lane,
    /// Where in it.
    pub range: PositionRange,
    /// At most so many rows.
    pub rows_max: usize,
    /// And about so many bytes; one row at least.
    pub bytes_max: usize,
}

/// Requests on their way to the reader. Bounded by its callers: a queue has one load open at a time.
pub(super) struct Loads(Sender<(LoadRequest, LoadThen)>);

impl Loads {
    pub(super) fn submit(&self, request: LoadRequest, then: LoadThen) {
        if let Err(refused) = self.0.send((request, then)) {
            (refused.0.1)(Err(StoreError::Read("the reader's thread is gone".into())));
        }
    }
}

pub(super) fn start(reader: Box<dyn StoreReader>, shared: Arc<Shared>) -> Result<(Loads, JoinHandle<()>), StoreError> {
    let (sender, receiver) = channel();
    let thread = thread::Builder::new()
        .name("pronto-reader".into())
        .spawn(move || run(reader, &receiver, &shared))
        .map_err(|error| StoreError::Unusable(format!("no thread for the reader: {error}")))?;
    Ok((Loads(sender), thread))
}

fn run(mut reader: Box<dyn StoreReader>, requests: &Receiver<(LoadRequest, LoadThen)>, shared: &Shared) {
    for (request, then) in requests {
        let answer = load(reader.as_mut(), request);
        if let Err(error) = &answer {
            let mut stats = shared.stats();
            stats.read_failures += 1;
            stats.last_read_failure = Some((Instant::now(), error.to_string()));
        }
        super::guarded("load", || then(answer));
    }
}

fn load(reader: &mut dyn StoreReader, request: LoadRequest) -> Result<Loaded, StoreError> {
    let LoadRequest { lane, range, rows_max, bytes_max } = request;
    catch_unwind(AssertUnwindSafe(|| reader.load(lane, range, rows_max, bytes_max)))
        .unwrap_or_else(|_| Err(StoreError::Read("the reader panicked".into())))
}
