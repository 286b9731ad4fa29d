//! Changes of topology by one connection: exchanges and bindings, and the declaration and deletion of queues.

use super::cell::{Cell, MemoryDelta};
use super::counters::Counters;
use super::kind::Kind;
use super::link::{CommandOutcome, Link, count_refusal};
use super::queue_arguments::{self, QueueDeclaration};
use super::topology::{ChangeNo, Changes, QueueEntry, Topology};
use crate::model::command::{QueueDeclare, QueueDelete};
use crate::model::{AmqpError, Answer, ConnectionId, Name, NamedLimit, Now};
use crate::queue::{LocalEvent, QueueCommand, QueueState, Requester};
use crate::store::QueueRecord;
use std::sync::Arc;

/// Prefix of the queue names that the broker generates.
const GENERATED_NAME: &str = "amq.gen-";

/// A queue that was created for a declaration and is not in the topology yet.
struct NewQueue {
    entry: QueueEntry,
    /// The record for the store, if the queue is durable.
    record: Option<QueueRecord>,
    /// Whether the queue expires when it is unused.
    expires: bool,
    /// The memory that the queue uses.
    delta: MemoryDelta,
}

/// A queue of the topology.
struct ExistingQueue {
    cell: Arc<Cell>,
    /// The change with which the queue is durable.
    number: ChangeNo,
}

impl Link {
    /// Changes exchanges or bindings, and answers once the change is durable.
    pub(super) fn change_topology(
        &self,
        requester: Requester,
        change: impl FnOnce(&mut Topology, ConnectionId) -> Result<Changes, AmqpError>,
    ) -> Result<(), AmqpError> {
        let connection = requester.connection;
        let number = self.vhost.change(self.broker.writer(), |topology| change(topology, connection))?;
        self.vhost.move_epoch();
        self.broker.answer_durable(requester, &self.vhost, number, Answer::Done);
        Ok(())
    }

    pub(super) fn declare_queue(
        &mut self,
        requester: Requester,
        declare: QueueDeclare,
        now: Now,
    ) -> Result<(), AmqpError> {
        let connection = requester.connection;
        if declare.passive {
            let known = self.existing_queue(|topology| topology.usable(&declare.queue, connection).map(Some))?;
            return self.answer_counts(requester, known.expect("a missing queue is refused"), now);
        }
        Counters::add(&self.broker.counters().queues_declared, 1);
        let queue = if declare.queue.is_empty() {
            Name::from(self.random.generated_name(GENERATED_NAME))
        } else {
            Topology::check_queue_name(declare.queue.as_str())?;
            declare.queue.clone()
        };
        let declare = QueueDeclare { queue, ..declare };
        match self.existing_queue(|topology| topology.equivalent_queue(&declare, connection))? {
            Some(known) => self.answer_counts(requester, known, now),
            None => self.add_queue(requester, &declare, now),
        }
    }

    /// Finds a queue of the topology, and the change with which it is durable.
    fn existing_queue(
        &self,
        find: impl FnOnce(&Topology) -> Result<Option<&QueueEntry>, AmqpError>,
    ) -> Result<Option<ExistingQueue>, AmqpError> {
        let mut topology = self.vhost.topology();
        let Some(entry) = find(&topology)? else { return Ok(None) };
        let (cell, durable) = (Arc::clone(&entry.cell), entry.durable);
        Ok(Some(ExistingQueue { cell, number: topology.journal().append(Changes::existing(durable)) }))
    }

    /// Answers with the counts of an existing queue; if the queue is durable, only once its record is stored.
    fn answer_counts(&self, requester: Requester, known: ExistingQueue, now: Now) -> Result<(), AmqpError> {
        let ExistingQueue { cell, number } = known;
        if self.vhost.is_durable(number) {
            self.broker.take_turns(&cell, QueueCommand::Status { requester }, now);
            return Ok(());
        }
        let broker = Arc::clone(&self.broker);
        self.vhost.when_durable(number, move |durable| {
            if durable {
                cell.submit(QueueCommand::Status { requester });
            } else {
                broker.answer(requester, Answer::Refused(AmqpError::internal_error()));
            }
        });
        Ok(())
    }

    /// Creates a queue, and answers; if the queue is durable, only once its record is stored. Another connection may
    /// create it first.
    fn add_queue(&mut self, requester: Requester, declare: &QueueDeclare, now: Now) -> Result<(), AmqpError> {
        let NewQueue { entry, record, expires, delta } = self.make_queue(declare, now)?;
        let cell = Arc::clone(&entry.cell);
        let mut other = None;
        let added = self.vhost.change(self.broker.writer(), |topology| {
            if let Some(entry) = topology.equivalent_queue(declare, requester.connection)? {
                other = Some(Arc::clone(&entry.cell));
                return Ok(Changes::existing(entry.durable));
            }
            let checked = topology.check_queue_room(&declare.queue, &self.broker.settings().vhost_limits);
            count_refusal(self.broker.refusals(), NamedLimit::VhostQueuesMax, checked)?;
            Ok(topology.insert_queue(declare.queue.clone(), entry, record))
        });
        if added.is_err() || other.is_some() {
            self.broker.drop_new_cell(cell.id(), delta);
        }
        let number = added?;
        if let Some(cell) = other {
            return self.answer_counts(requester, ExistingQueue { cell, number }, now);
        }
        self.vhost.index(&cell);
        Counters::add(&self.broker.counters().queues_created, 1);
        if declare.exclusive {
            let broker = &self.broker;
            self.exclusive.note(cell.id(), |queue| broker.cell(queue).is_some());
        }
        if expires {
            self.broker.take_turns(&cell, LocalEvent::Tick, now);
        }
        let answer = Answer::QueueDeclared { queue: declare.queue.clone(), message_count: 0, consumer_count: 0 };
        self.broker.answer_durable(requester, &self.vhost, number, answer);
        Ok(())
    }

    fn make_queue(&self, declare: &QueueDeclare, now: Now) -> Result<NewQueue, AmqpError> {
        let QueueDeclare { queue, auto_delete, .. } = declare;
        let (auto_delete, durable) = (*auto_delete, declare.durable && !declare.exclusive);
        let (id, vhost) = (self.broker.next_queue_id(), self.vhost.name());
        let declared = QueueDeclaration { id, name: queue.clone(), vhost: vhost.clone(), durable, auto_delete };
        let settings = queue_arguments::settings(declared, &declare.arguments)?;
        let expires = settings.expires.is_some();
        let state = QueueState::new(settings, self.broker.settings().queue_limits, now);
        let owner = declare.exclusive.then_some(self.peer.id());
        let (cell, delta) = self.broker.add_cell(Kind::Classic(state), owner);
        let entry = QueueEntry { cell, durable, auto_delete, arguments: declare.arguments.clone() };
        let record = durable.then(|| QueueRecord {
            vhost: vhost.clone(),
            name: queue.clone(),
            id,
            auto_delete,
            arguments: declare.arguments.encode(),
        });
        Ok(NewQueue { entry, record, expires, delta })
    }

    pub(super) fn delete_queue(
        &mut self,
        requester: Requester,
        delete: &QueueDelete,
        now: Now,
    ) -> Result<CommandOutcome, AmqpError> {
        let (connection, vhost) = (requester.connection, self.vhost.name());
        let mut found = None;
        let number = self.vhost.change(self.broker.writer(), |topology| {
            if let Some(entry) = topology.queue(delete.queue.as_bytes()) {
                entry.check_owner(&delete.queue, vhost.as_str(), connection)?;
                found = Some(Arc::clone(&entry.cell));
                return Ok(Changes::Nothing);
            }
            Ok(Changes::Earlier)
        })?;
        match found {
            Some(cell) => {
                let QueueDelete { if_unused, if_empty, .. } = *delete;
                self.broker.take_turns(&cell, QueueCommand::Delete { requester, if_unused, if_empty }, now);
                // Another thread may have the queue's turn.
                Ok(if cell.deletion.get().is_some() { CommandOutcome::Accepted } else { CommandOutcome::Undecided })
            }
            None => {
                let removed = Answer::Removed { message_count: 0 };
                self.broker.answer_durable(requester, &self.vhost, number, removed);
                Ok(CommandOutcome::Accepted)
            }
        }
    }
}
