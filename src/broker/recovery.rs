//! Rebuilds the broker at the start: vhosts, exchanges, queues and bindings from the store. No message is read.

use super::kind::Kind;
use super::node::{Broker, BrokerSettings, Runner};
use super::queue_arguments::{self, QueueDeclaration};
use super::scratch::OpenScratch;
use super::topology::QueueEntry;
use super::vhost::Vhost;
use crate::model::command::BindTo;
use crate::model::{Arguments, ConnectionId, Now, QueueId};
use crate::queue::{LocalEvent, QueueState};
use crate::routing::Destination;
use crate::store::commit::WriterHandle;
use crate::store::{self, BindingRecord, LaneRecord, QueueRecord, RecoveredState, TopologyChange};
use ahash::AHashMap;
use std::sync::Arc;

impl Broker {
    /// A broker with everything that was recovered. Records that cannot be applied are logged and skipped; they stay in
    /// the store.
    pub fn recover(
        settings: BrokerSettings,
        runner: Arc<dyn Runner>,
        writer: WriterHandle,
        scratch: Option<OpenScratch>,
        recovered: &RecoveredState,
        now: Now,
    ) -> Arc<Self> {
        let broker = Self::new(settings, runner, writer, scratch, recovered.boot);
        for vhost in &recovered.vhosts {
            broker.recover_vhost(&vhost.name);
        }
        for record in &recovered.exchanges {
            let vhost = broker.recover_vhost(&record.vhost);
            let arguments = Arguments::decode(&record.arguments).unwrap_or_default();
            if let Err(error) = vhost.topology().recover_exchange(record, arguments) {
                tracing::error!(
                    exchange = record.name.as_str(),
                    vhost = record.vhost.as_str(),
                    error = error.text,
                    "skipped: the record cannot be applied"
                );
            }
        }
        let mut lanes: AHashMap<QueueId, Vec<LaneRecord>> = AHashMap::new();
        for lane in &recovered.lanes {
            lanes.entry(lane.lane.queue).or_default().push(*lane);
        }
        for record in &recovered.queues {
            let vhost = broker.recover_vhost(&record.vhost);
            broker.recover_queue(&vhost, record, lanes.remove(&record.id).unwrap_or_default(), now);
        }
        // If a queue was deleted while its last rows were being written, its lanes may still be in the store.
        let orphans: Vec<_> = lanes.into_keys().map(TopologyChange::DeleteQueue).collect();
        if !orphans.is_empty() {
            tracing::warn!(queues = orphans.len(), "rows of deleted queues are erased");
            broker.writer().topology(orphans, Box::new(|_| {}));
        }
        for record in &recovered.bindings {
            recover_binding(&broker.recover_vhost(&record.vhost), record);
        }
        broker
    }

    fn recover_queue(self: &Arc<Self>, vhost: &Arc<Vhost>, record: &QueueRecord, lanes: Vec<LaneRecord>, now: Now) {
        let arguments = Arguments::decode(&record.arguments).unwrap_or_default();
        let declared = QueueDeclaration {
            id: record.id,
            name: record.name.clone(),
            vhost: record.vhost.clone(),
            durable: true,
            auto_delete: record.auto_delete,
        };
        let settings = match queue_arguments::settings(declared, &arguments) {
            Ok(settings) => settings,
            Err(error) => {
                tracing::error!(
                    queue = record.name.as_str(),
                    vhost = record.vhost.as_str(),
                    error = error.text,
                    "skipped: the record cannot be applied"
                );
                return;
            }
        };
        let timed = settings.expires.is_some();
        let mut queue = QueueState::new(settings, self.settings().queue_limits, now);
        let waiting = lanes.iter().any(|lane| lane.state.count > 0);
        for lane in lanes {
            queue.recover_lane(lane.lane, lane.state, now);
        }
        let (cell, _) = self.add_cell(Kind::Classic(queue), None);
        let auto_delete = record.auto_delete;
        let entry = QueueEntry { cell: Arc::clone(&cell), durable: true, auto_delete, arguments };
        vhost.topology().insert_queue(record.name.clone(), entry, None);
        vhost.index(&cell);
        // Messages expire only at the loaded head; a queue that expires when unused needs its timer. The tick starts
        // both.
        if waiting || timed {
            let broker = Arc::clone(self);
            let wake = move |now: Now| broker.take_turns(&cell, LocalEvent::Tick, now);
            self.runner().run(Box::new(wake));
        }
    }
}

fn recover_binding(vhost: &Vhost, record: &BindingRecord) {
    let destination = match record.destination_kind {
        store::Destination::Queue => Destination::Queue(record.destination.clone()),
        store::Destination::Exchange => Destination::Exchange(record.destination.clone()),
    };
    let bind = BindTo {
        source: record.source.clone(),
        destination: record.destination.clone(),
        routing_key: record.routing_key.clone(),
        arguments: Arguments::decode(&record.arguments).unwrap_or_default(),
    };
    // A durable queue is never exclusive, so any connection will do.
    if let Err(error) = vhost.topology().bind(&bind, destination, ConnectionId(0)) {
        tracing::error!(source = %record.source, destination = %record.destination, error = error.text, "skipped: the record cannot be applied");
    }
}
