//! Topology that only one channel changes, so that its history knows what is there: an exchange, a queue, and bindings. What was
//! answered decides where messages go at once, and outlives the broker.

use super::super::ledger::ChannelId;
use super::super::wire::{Publish, method, publish, shortstr, table};
use super::History;
use super::client::Mode;
use std::collections::VecDeque;
use std::time::Duration;

/// The routing keys that lead to the queue "work", and to the channel's own queue.
const TO_WORK: &str = "work";
const TO_OWN: &str = "own";

/// Whether something is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fact {
    #[default]
    Absent,
    Present,
    /// A change of it was asked for and is not answered.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    DeclareExchange,
    DeclareQueue,
    DeleteQueue,
    BindWork,
    UnbindWork,
    BindOwn,
    UnbindOwn,
}

/// What one channel has made.
#[derive(Debug, Default)]
pub(super) struct Own {
    exchange: Fact,
    queue: Fact,
    work_binding: Fact,
    own_binding: Fact,
    /// What is not answered, in order.
    asked: VecDeque<Change>,
}

impl Own {
    fn ask(&mut self, change: Change) {
        self.set(change, false);
        self.asked.push_back(change);
    }

    fn answered(&mut self) {
        if let Some(change) = self.asked.pop_front() {
            self.set(change, true);
            // What is asked beyond that may have been done.
            let others = self.asked.clone();
            others.into_iter().for_each(|change| self.set(change, false));
        }
    }

    /// What may be changed next, at random.
    fn next_changes(&self, dice: u64) -> Vec<Change> {
        let is = |fact| fact == Fact::Present;
        match dice {
            _ if !is(self.exchange) => vec![Change::DeclareExchange, Change::DeclareQueue, Change::BindOwn],
            _ if !is(self.queue) => vec![Change::DeclareQueue],
            0 => vec![Change::DeleteQueue],
            1 => vec![Change::DeleteQueue, Change::DeclareQueue],
            2 if is(self.own_binding) => vec![Change::UnbindOwn],
            2 => vec![Change::BindOwn],
            _ if is(self.work_binding) => vec![Change::UnbindWork],
            _ => vec![Change::BindWork],
        }
    }

    /// Notes what a change comes to.
    fn set(&mut self, change: Change, is_answered: bool) {
        let fact = |answered| if is_answered { answered } else { Fact::Unknown };
        match change {
            Change::DeclareExchange => self.exchange = fact(Fact::Present),
            Change::DeclareQueue => self.queue = fact(Fact::Present),
            Change::DeleteQueue => {
                self.queue = fact(Fact::Absent);
                if self.own_binding == Fact::Present || is_answered {
                    self.own_binding = fact(Fact::Absent);
                }
            }
            Change::BindWork => self.work_binding = fact(Fact::Present),
            Change::UnbindWork => self.work_binding = fact(Fact::Absent),
            Change::BindOwn => self.own_binding = fact(Fact::Present),
            Change::UnbindOwn => self.own_binding = fact(Fact::Absent),
        }
    }

    /// Where a message can be sent: to which exchange, with which key, and whether a queue takes it.
    fn destinations(&self, id: ChannelId) -> Vec<(String, String, bool)> {
        let mut all = vec![(self.queue, String::new(), queue_of(id))];
        if self.exchange == Fact::Present {
            all.push((self.work_binding, exchange_of(id), TO_WORK.to_owned()));
            all.push((self.own_binding, exchange_of(id), TO_OWN.to_owned()));
        }
        let known = all.into_iter().filter(|(fact, ..)| *fact != Fact::Unknown);
        known.map(|(fact, exchange, key)| (exchange, key, fact == Fact::Present)).collect()
    }
}

fn exchange_of(id: ChannelId) -> String {
    format!("x-{}-{}", id.connection, id.opened)
}

fn queue_of(id: ChannelId) -> String {
    format!("q-{}-{}", id.connection, id.opened)
}

/// The method's frame.
fn change_frame(number: u16, id: ChannelId, change: Change) -> Vec<u8> {
    let (exchange, queue) = (exchange_of(id), queue_of(id));
    let bound = |queue: &str, key| [vec![0, 0], shortstr(queue), shortstr(&exchange), shortstr(key)].concat();
    match change {
        Change::DeclareExchange => {
            let fields = [vec![0, 0], shortstr(&exchange), shortstr("direct"), vec![2], table(&[])];
            method(number, (40, 10), &fields)
        }
        Change::DeclareQueue => method(number, (50, 10), &[vec![0, 0], shortstr(&queue), vec![2], table(&[])]),
        Change::DeleteQueue => method(number, (50, 40), &[vec![0, 0], shortstr(&queue), vec![0]]),
        Change::BindWork => method(number, (50, 20), &[bound("work", TO_WORK), vec![0], table(&[])]),
        Change::BindOwn => method(number, (50, 20), &[bound(&queue, TO_OWN), vec![0], table(&[])]),
        Change::UnbindWork => method(number, (50, 50), &[bound("work", TO_WORK), table(&[])]),
        Change::UnbindOwn => method(number, (50, 50), &[bound(&queue, TO_OWN), table(&[])]),
    }
}

impl History {
    pub(super) fn use_own(&mut self, at: usize, number: u16) {
        let id = self.channel(at, number).id;
        let own = self.own.entry(id).or_default();
        let destinations = own.destinations(id);
        let mut bytes = Vec::new();
        if !matches!(self.channel(at, number).mode, Mode::Transaction(_)) {
            for (exchange, key, is_taken) in destinations {
                bytes.extend(self.publish_to(at, number, &exchange, &key, is_taken));
            }
        }
        let dice = self.below(4);
        let changes = self.own.entry(id).or_default().next_changes(dice);
        for change in changes {
            self.own.entry(id).or_default().ask(change);
            self.channel(at, number).awaits += 1;
            bytes.extend(change_frame(number, id, change));
        }
        self.send(at, &bytes);
    }

    /// A method of a channel was answered that changes topology.
    pub(super) fn own_changed(&mut self, id: ChannelId) {
        if let Some(own) = self.own.get_mut(&id) {
            own.answered();
        }
    }

    /// A mandatory message, which is returned if no queue takes it.
    fn publish_to(&mut self, at: usize, number: u16, exchange: &str, key: &str, is_taken: bool) -> Vec<u8> {
        let message = self.next;
        self.next += 1;
        let channel = self.channel(at, number);
        if channel.mode == Mode::Confirm {
            channel.published += 1;
            channel.unconfirmed.insert(channel.published, message);
        }
        if !is_taken {
            channel.unroutable.insert(message);
        }
        let id = channel.id;
        let queue = if is_taken && key == TO_WORK { "work" } else { "" };
        self.ledger.publish(message, queue, true, 0, id, None);
        self.note_blocked(at, message);
        let (persistent, priority, size) = (true, 0, 0);
        let fields = Publish {
            channel: number,
            exchange,
            routing_key: key,
            persistent,
            priority,
            number: message,
            size,
            mandatory: true,
        };
        publish(&fields)
    }

    /// After a crash: all that was answered is there, and nothing else.
    pub(super) fn check_own(&mut self) {
        self.connect_as(false);
        let at = self.clients.len() - 1;
        self.open_plain(at);
        let all: Vec<_> = self.own.iter().flat_map(|(id, own)| own.destinations(*id)).collect();
        for (exchange, key, is_taken) in all {
            let bytes = self.publish_to(at, 1, &exchange, &key, is_taken);
            self.send(at, &bytes);
        }
        self.simulation().advance(Duration::from_secs(2));
        self.receive_all();
        let channel = self.clients[at].channels.get(&1).expect("every exchange outlives a crash");
        assert!(channel.unroutable.is_empty(), "seed {}: what is not there took {:?}", self.seed, channel.unroutable);
        let connection = self.clients[at].connection;
        self.simulation().leave(connection);
        self.connection_gone(at);
    }
}
