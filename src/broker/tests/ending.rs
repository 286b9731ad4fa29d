//! The end of a connection that has many exclusive queues.

use super::histories::{records_of, settings};
use crate::broker::topology::Records;
use crate::broker::{Broker, CommandOutcome, Link, Runner};
use crate::model::command::{BindTo, ExchangeDeclare, QueueDeclare};
use crate::model::{Answer, Arguments, ChannelKey, Command, Name, Notice, Now, RequestNo};
use crate::store::commit::{WriterHandle, WriterSettings};
use crate::store::memory::{MemoryDisk, MemoryStore};
use crate::store::{Store, SystemClock};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

const CHANNEL: ChannelKey = ChannelKey { number: 1, incarnation: 1 };
const QUEUES: usize = 1_000;

type Work = Box<dyn FnOnce(Now) + Send>;

/// Queues broker work, which the test runs piece by piece.
#[derive(Default)]
struct WorkQueue(Mutex<VecDeque<Work>>);

impl WorkQueue {
    fn next(&self) -> Option<Work> {
        self.0.lock().unwrap().pop_front()
    }
}

impl Runner for WorkQueue {
    fn run(&self, work: Work) {
        self.0.lock().unwrap().push_back(work);
    }
}

fn open(broker: &Arc<Broker>) -> Link {
    let vhost = broker.vhost(b"/").unwrap();
    Link::open(broker, vhost, broker.next_connection_id(), Name::from("guest"), 7)
}

fn declare(queue: &str, exclusive: bool) -> Command {
    let (queue, arguments) = (Name::from(queue), Arguments::default());
    Command::QueueDeclare(QueueDeclare {
        queue,
        passive: false,
        durable: false,
        exclusive,
        auto_delete: false,
        arguments,
    })
}

fn notices(link: &Link) -> Vec<Notice> {
    let mut notices = Vec::new();
    link.peer().take(&mut notices);
    notices
}

#[test]
fn many_exclusive_queues_are_deleted_in_slices_between_which_others_are_served() {
    let (disk, pieces) = (MemoryDisk::default(), Arc::new(WorkQueue::default()));
    let mut store = MemoryStore::open(disk.clone());
    let recovered = store.recover().unwrap();
    let writer =
        WriterHandle::start(Box::new(store), recovered.batch_no, WriterSettings::default(), SystemClock::shared())
            .unwrap();
    let runner: Arc<dyn Runner> = Arc::clone(&pieces) as _;
    let broker = Broker::recover(settings(), runner, writer, None, &recovered, Now::default());
    broker.create_vhost(&Name::from("/"));
    let (mut ending, mut other) = (open(&broker), open(&broker));
    // An auto-delete exchange, which is deleted with the last of these queues, in memory and in the store.
    let exchange = ExchangeDeclare {
        exchange: Name::from("auto"),
        kind: Name::from("fanout"),
        passive: false,
        durable: true,
        auto_delete: true,
        internal: false,
        arguments: Arguments::default(),
    };
    let mut commands = vec![Command::ExchangeDeclare(exchange)];
    for number in 0..QUEUES {
        let queue = format!("q{number}");
        commands.push(declare(&queue, true));
        commands.push(Command::QueueBind(BindTo {
            source: Name::from("auto"),
            destination: Name::from(queue),
            routing_key: Name::from(""),
            arguments: Arguments::default(),
        }));
    }
    for command in commands {
        assert_eq!(ending.command(CHANNEL, RequestNo(1), command, Now::default()), CommandOutcome::Accepted);
    }
    assert!(broker.writer().flush());
    assert_eq!(records_of(&broker).0.len(), 1);

    notices(&ending);
    assert!(!ending.end(Now::default()), "deletion takes more than one slice");
    let mut slices = 1;
    while let Some(piece) = pieces.next() {
        assert_eq!(
            other.command(CHANNEL, RequestNo(2), declare("other", false), Now::default()),
            CommandOutcome::Accepted
        );
        assert!(matches!(notices(&other)[..], [Notice::Answer { answer: Answer::QueueDeclared { .. }, .. }]));
        assert!(notices(&ending).is_empty(), "the deletion is not complete");
        let before = broker.cells().len();
        piece(Now::default());
        slices += 1;
        assert!(before - broker.cells().len() <= QUEUES / 10);
    }
    assert!(slices >= 10);
    assert!(matches!(notices(&ending)[..], [Notice::Ended]));
    assert_eq!((broker.cells().len(), broker.peer_count()), (1, 1));
    assert!(broker.writer().flush());
    assert_eq!(Records::of(&MemoryStore::open(disk).recover().unwrap()), records_of(&broker));
    assert_eq!(records_of(&broker), Records::default());
}
