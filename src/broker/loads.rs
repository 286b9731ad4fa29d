//! Reads back messages that a queue no longer has in memory.

use super::cell::Cell;
use super::counters::Counters;
use super::node::Broker;
use crate::model::Lane;
use crate::queue::{LoadedRows, LocalEvent};
use crate::store::commit::WriterHandle;
use crate::store::{LoadRequest, LoadedRange, ReadError, Row, chain};
use std::sync::Arc;

/// Identifies a load: the queue, the level, and the number of the load.
pub(super) struct LoadId {
    pub(super) cell: Arc<Cell>,
    pub(super) level: u8,
    pub(super) load: u64,
}

impl Broker {
    /// Reads from the store, then from the scratch store, and gives the rows of both to the queue.
    pub(super) fn load(self: &Arc<Self>, load_id: LoadId, durable: Option<LoadRequest>, scratch: Option<LoadRequest>) {
        let broker = Arc::clone(self);
        let on_rows = move |rows: Result<Option<Vec<Row>>, ReadError>| match rows {
            Ok(durable) => broker.load_scratch(load_id, durable, scratch),
            Err(_) => broker.loaded(load_id, None),
        };
        self.read(Some(self.writer()), durable, on_rows);
    }

    fn load_scratch(self: &Arc<Self>, load_id: LoadId, durable: Option<Vec<Row>>, request: Option<LoadRequest>) {
        let broker = Arc::clone(self);
        let on_rows = move |rows: Result<Option<Vec<Row>>, ReadError>| {
            broker.loaded(load_id, rows.ok().map(|scratch| LoadedRows { durable, scratch }));
        };
        self.read(self.scratch().writer(), request, on_rows);
    }

    /// Calls `on_rows` with the rows; with `None` if there is no request.
    fn read(
        self: &Arc<Self>,
        writer: Option<&WriterHandle>,
        request: Option<LoadRequest>,
        on_rows: impl FnOnce(Result<Option<Vec<Row>>, ReadError>) + Send + 'static,
    ) {
        let (Some(writer), Some(request)) = (writer, request) else { return on_rows(Ok(None)) };
        let (broker, Lane { queue, .. }) = (Arc::clone(self), request.lane);
        let on_rows = move |loaded: Result<LoadedRange, ReadError>| {
            let failed = |error: &ReadError| {
                tracing::error!(error = %chain(error), queue = queue.0, "reading messages failed");
            };
            let rows = loaded.map(|loaded| loaded.rows).inspect_err(failed);
            Counters::add(&broker.counters().rows_read, rows.as_ref().map_or(0, |rows| rows.len() as u64));
            on_rows(rows.map(Some));
        };
        writer.load(request, Box::new(on_rows));
    }

    fn loaded(self: &Arc<Self>, load_id: LoadId, rows: Option<LoadedRows>) {
        let (broker, LoadId { cell, level, load }) = (Arc::clone(self), load_id);
        self.runner().run(Box::new(move |now| {
            broker.take_turns(&cell, LocalEvent::Loaded { level, load, rows }, now);
        }));
    }
}
