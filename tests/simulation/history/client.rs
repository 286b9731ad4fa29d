//! The clients of a history, their channels, and how both begin and end.

use super::super::ledger::ChannelId;
use super::super::wire::{Parser, Value, longstr, method, shortstr, table};
use super::History;
use prontomq::internals::server::SimulatedConnection;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What a channel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Plain,
    Confirm,
    Transaction(u64),
}

/// The limit of what a channel's consumers may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefetch {
    pub(super) count: usize,
    /// All consumers share it; else each has it.
    pub(super) is_shared: bool,
}

pub(super) struct Channel {
    pub(super) id: ChannelId,
    pub(super) mode: Mode,
    /// Publishes so far, as confirms count them.
    pub(super) published: u64,
    pub(super) unconfirmed: BTreeMap<u64, u64>,
    /// By tag: the queue, and whether its deliveries need no acknowledgement.
    pub(super) consumers: BTreeMap<String, (String, bool)>,
    /// Gets that wait for their answer: the queue, and whether without acknowledgement.
    pub(super) gets: VecDeque<(String, bool)>,
    /// Transactions that were asked to commit, and what is asked in order.
    pub(super) commits: VecDeque<(u64, bool)>,
    /// A close was sent, or is on its way from the broker: what it holds counts as given back.
    pub(super) is_closing: bool,
    /// basic.recover is not answered: what the broker gave before it is on its way back.
    pub(super) is_recovering: bool,
    /// Methods whose answers have not come. One that fails ends the channel, and nothing behind it is carried out.
    pub(super) awaits: u32,
    pub(super) prefetch: Option<Prefetch>,
    /// Tags of consumers that are cancelled, or are to be.
    pub(super) cancelled: BTreeSet<String>,
    /// Mandatory messages that no queue takes, and that have not been returned.
    pub(super) unroutable: BTreeSet<u64>,
}

impl Channel {
    pub(super) fn new(id: ChannelId, mode: Mode) -> Self {
        Self {
            id,
            mode,
            published: 0,
            unconfirmed: BTreeMap::new(),
            consumers: BTreeMap::new(),
            gets: VecDeque::new(),
            commits: VecDeque::new(),
            is_closing: false,
            is_recovering: false,
            awaits: 0,
            prefetch: None,
            cancelled: BTreeSet::new(),
            unroutable: BTreeSet::new(),
        }
    }

    /// Whose messages it may have been given.
    pub(super) fn queues(&self) -> BTreeSet<String> {
        let consumed = self.consumers.values().map(|(queue, _)| queue);
        consumed.chain(self.gets.iter().map(|(queue, _)| queue)).cloned().collect()
    }
}

pub(super) struct Client {
    pub(super) connection: SimulatedConnection,
    pub(super) number: u64,
    pub(super) parser: Parser,
    pub(super) channels: BTreeMap<u16, Channel>,
    pub(super) opened: u64,
    pub(super) has_heartbeats: bool,
    /// The broker has sent connection.blocked: it reads nothing until the alarm ends.
    pub(super) is_blocked: bool,
}

impl History {
    pub(super) fn connect(&mut self) {
        let has_heartbeats = self.chance(30);
        self.connect_as(has_heartbeats);
    }

    /// With heartbeats, a client that is silent for two seconds is taken for dead.
    pub(super) fn connect_as(&mut self, has_heartbeats: bool) {
        let connection = self.simulation().connect();
        self.connected += 1;
        self.coverage.connections += 1;
        let client = Client {
            connection,
            number: self.connected,
            parser: Parser::default(),
            channels: BTreeMap::new(),
            opened: 0,
            has_heartbeats,
            is_blocked: false,
        };
        self.clients.push(client);
        let at = self.clients.len() - 1;
        let capabilities = table(&[("connection.blocked", Value::True)]);
        let properties = table(&[("capabilities", Value::Table(capabilities))]);
        let login = [properties, shortstr("PLAIN"), longstr(b"\0guest\0guest"), shortstr("en_US")];
        self.send(at, b"AMQP\0\0\x09\x01");
        self.send(at, &method(0, (10, 11), &login));
        let heartbeat = u8::from(has_heartbeats);
        self.send(at, &method(0, (10, 31), &[vec![7, 255, 0, 2, 0, 0, 0, heartbeat]]));
        self.send(at, &method(0, (10, 40), &[shortstr("/"), shortstr(""), vec![0]]));
    }

    pub(super) fn send(&mut self, at: usize, bytes: &[u8]) {
        self.coverage.frames += bytes.iter().filter(|byte| **byte == 0xCE).count().min(8) as u64;
        let connection = self.clients[at].connection;
        self.simulation().receive(connection, bytes);
    }

    pub(super) fn open_channel(&mut self, at: usize, number: u16) {
        let mode = match self.below(4) {
            0 => Mode::Plain,
            1 => {
                self.transactions += 1;
                Mode::Transaction(self.transactions)
            }
            _ => Mode::Confirm,
        };
        let client = &mut self.clients[at];
        client.opened += 1;
        let id = ChannelId { connection: client.number, opened: client.opened };
        let channel = Channel::new(id, mode);
        client.channels.insert(number, channel);
        self.send(at, &method(number, (20, 10), &[shortstr("")]));
        match mode {
            Mode::Plain => {}
            Mode::Confirm => self.send(at, &method(number, (85, 10), &[vec![0]])),
            Mode::Transaction(_) => self.send(at, &method(number, (90, 10), &[])),
        }
        if self.chance(50) {
            let prefetch = 1 + self.below(20) as u8;
            let is_shared = self.chance(40);
            self.channel(at, number).prefetch = Some(Prefetch { count: usize::from(prefetch), is_shared });
            self.send(at, &method(number, (60, 10), &[vec![0, 0, 0, 0, 0, prefetch, u8::from(is_shared)]]));
        }
    }

    /// All that a channel holds is on its way back, whatever the client still receives.
    pub(super) fn channel_gone(&mut self, channel: &Channel) {
        if let Mode::Transaction(transaction) = channel.mode {
            self.ledger.rolled_back(transaction, false);
        }
        for (transaction, _) in &channel.commits {
            self.ledger.rolled_back(*transaction, false);
        }
        self.ledger.end_channel(channel.id, &channel.queues());
    }

    pub(super) fn connection_gone(&mut self, at: usize) {
        let client = self.clients.remove(at);
        for channel in client.channels.values() {
            self.ledger.connection_lost(channel.id);
            self.channel_gone(channel);
        }
    }

    /// A channel ends: what it holds is on its way back, whatever else comes of it.
    pub(super) fn doom(&mut self, at: usize, number: u16) {
        let Some(channel) = self.clients[at].channels.get_mut(&number) else { return };
        channel.is_closing = true;
        let (id, queues, mode) = (channel.id, channel.queues(), channel.mode);
        let asked: Vec<u64> = channel.commits.iter().map(|(transaction, _)| *transaction).collect();
        self.ledger.end_channel(id, &queues);
        if let Mode::Transaction(transaction) = mode {
            self.ledger.rolled_back(transaction, false);
        }
        for transaction in asked {
            self.ledger.release_acks(transaction);
        }
    }

    pub(super) fn close_here(&mut self, at: usize, number: u16) {
        if let Some(channel) = self.clients[at].channels.remove(&number) {
            self.channel_gone(&channel);
        }
    }
}
