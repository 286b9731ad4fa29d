//! Reads of messages that a queue has in a store only.

use super::cell::Cell;
use super::counters::Counters;
use super::node::Broker;
use crate::model::Lane;
use crate::queue::{LoadedRows, LocalEvent};
use crate::store::commit::WriterHandle;
use crate::store::{LoadRequest, LoadedRange, ReadError, Row, chain};
use std::sync::Arc;

/// Which load of which queue.
pub(super) struct Load {
    pub(super) cell: Arc<Cell>,
    pub(super) level: u8,
    pub(super) load: u64,
}

impl Broker {
    /// Reads from the store, then from the scratch store, and gives the queue what came of both.
    pub(super) fn load(self: &Arc<Self>, asked: Load, durable: Option<LoadRequest>, scratch: Option<LoadRequest>) {
        let broker = Arc::clone(self);
        let then = move |rows: Result<Option<Vec<Row>>, ReadError>| match rows {
            Ok(durable) => broker.load_scratch(asked, durable, scratch),
            Err(_) => broker.loaded(asked, None),
        };
        self.read(Some(self.writer()), durable, then);
    }

    fn load_scratch(self: &Arc<Self>, asked: Load, durable: Option<Vec<Row>>, request: Option<LoadRequest>) {
        let broker = Arc::clone(self);
        let then = move |rows: Result<Option<Vec<Row>>, ReadError>| {
            broker.loaded(asked, rows.ok().map(|scratch| LoadedRows { durable, scratch }));
        };
        self.read(self.scratch().writer(), request, then);
    }

    /// Nothing, when nothing is asked.
    fn read(
        self: &Arc<Self>,
        writer: Option<&WriterHandle>,
        request: Option<LoadRequest>,
        then: impl FnOnce(Result<Option<Vec<Row>>, ReadError>) + Send + 'static,
    ) {
        let (Some(writer), Some(request)) = (writer, request) else { return then(Ok(None)) };
        let (broker, Lane { queue, .. }) = (Arc::clone(self), request.lane);
        let then = move |loaded: Result<LoadedRange, ReadError>| {
            let failed = |error: &ReadError| {
                tracing::error!(error = %chain(error), queue = queue.0, "reading messages failed");
            };
            let rows = loaded.map(|loaded| loaded.rows).inspect_err(failed);
            Counters::add(&broker.counters().rows_read, rows.as_ref().map_or(0, |rows| rows.len() as u64));
            then(rows.map(Some));
        };
        writer.load(request, Box::new(then));
    }

    fn loaded(self: &Arc<Self>, asked: Load, rows: Option<LoadedRows>) {
        let (broker, Load { cell, level, load }) = (Arc::clone(self), asked);
        self.runner().run(Box::new(move |now| {
            broker.take_turns(&cell, LocalEvent::Loaded { level, load, rows }, now);
        }));
    }
}
