//! What clients do, drawn at random.

use super::super::wire::{Publish, method, publish, shortstr, table};
use super::client::{Channel, Mode};
use super::{EXCHANGES, History, SAFE, VOLATILE};

impl History {
    pub(super) fn act(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let at = self.below(self.clients.len() as u64) as usize;
        let number = 1 + self.below(3) as u16;
        match self.clients[at].channels.get(&number) {
            None => return self.open_channel(at, number),
            // The client waits for answers. A method behind tx.commit would end the connection.
            Some(channel) if channel.is_closing || channel.awaits > 0 || !channel.commits.is_empty() => return,
            Some(_) => {}
        }
        match self.below(44) {
            0..=15 => self.publish_some(at, number),
            16..=18 => self.consume(at, number),
            19 => self.cancel(at, number),
            20..=21 => self.get(at, number),
            22..=28 => self.settle_some(at, number),
            29..=31 => self.end_transaction(at, number),
            32 => self.recover(at, number),
            33 => self.close_channel(at, number),
            34 => self.publish_nowhere(at, number),
            35..=39 => self.use_own(at, number),
            _ => self.change_topology(at, number),
        }
    }

    fn publish_some(&mut self, at: usize, number: u16) {
        let is_transaction = matches!(self.channel(at, number).mode, Mode::Transaction(_));
        let queue = if is_transaction && self.chance(60) {
            // Whether a transaction is whole can be seen where messages leave by acknowledgements only.
            ["work", "other"][self.below(2) as usize]
        } else if self.chance(85) {
            SAFE[self.below(6) as usize]
        } else {
            VOLATILE[self.below(4) as usize]
        };
        let most = if self.chance(15) { 40 } else { 4 };
        let count = 1 + self.below(most);
        let mut bytes = Vec::new();
        for _ in 0..count {
            bytes.extend(self.publish_one(at, number, queue));
        }
        self.send(at, &bytes);
        self.coverage.frames += (count * 3).saturating_sub(8);
    }

    fn publish_one(&mut self, at: usize, number: u16, queue: &str) -> Vec<u8> {
        let (message, persistent) = (self.next, self.chance(70));
        self.next += 1;
        let priority = if queue == "urgent" { self.below(4) as u8 } else { 0 };
        let size = if self.chance(5) { 600 } else { self.below(40) as usize };
        let channel = self.clients[at].channels.get_mut(&number).expect("it is open");
        let transaction = if let Mode::Transaction(transaction) = channel.mode { Some(transaction) } else { None };
        if channel.mode == Mode::Confirm {
            channel.published += 1;
            channel.unconfirmed.insert(channel.published, message);
        }
        self.ledger.publish(message, queue, persistent, priority, channel.id, transaction);
        self.note_blocked(at, message);
        let exchange = if queue == "work" && message % 3 == 0 { "fan" } else { "" };
        publish(&Publish {
            channel: number,
            exchange,
            routing_key: queue,
            persistent,
            priority,
            number: message,
            size,
            mandatory: false,
        })
    }

    /// A message that is published by a blocked client is not read before the alarm ends.
    pub(super) fn note_blocked(&mut self, at: usize, message: u64) {
        if self.clients[at].is_blocked {
            self.blocked.insert(message);
        }
    }

    /// The broker closes the channel for it.
    fn publish_nowhere(&mut self, at: usize, number: u16) {
        if self.chance(70) {
            return;
        }
        let fields = Publish {
            channel: number,
            exchange: "missing",
            routing_key: "",
            persistent: true,
            priority: 0,
            number: u64::MAX,
            size: 0,
            mandatory: false,
        };
        self.send(at, &publish(&fields));
        self.channel(at, number).awaits += 1;
    }

    pub(super) fn channel(&mut self, at: usize, number: u16) -> &mut Channel {
        self.clients[at].channels.get_mut(&number).expect("it is open")
    }

    fn any_queue(&mut self) -> &'static str {
        if self.chance(80) { SAFE[self.below(7) as usize] } else { VOLATILE[self.below(4) as usize] }
    }

    /// What is on its way to a consumer that needs no acknowledgements is lost with its channel. To keep such losses apart,
    /// there are such consumers of a few queues only.
    fn may_no_ack(&self, queue: &str) -> bool {
        queue == "urgent" || VOLATILE.contains(&queue)
    }

    fn consume(&mut self, at: usize, number: u16) {
        let queue = self.any_queue();
        let no_ack = self.chance(15) && self.may_no_ack(queue);
        self.next += 1;
        let tag = format!("c{}", self.next);
        let channel = self.clients[at].channels.get_mut(&number).expect("it is open");
        channel.consumers.insert(tag.clone(), (queue.to_owned(), no_ack));
        channel.awaits += 1;
        let fields = [vec![0, 0], shortstr(queue), shortstr(&tag), vec![u8::from(no_ack) << 1], table(&[])];
        self.send(at, &method(number, (60, 20), &fields));
    }

    fn cancel(&mut self, at: usize, number: u16) {
        let tags: Vec<String> = self.clients[at].channels[&number].consumers.keys().cloned().collect();
        if tags.is_empty() {
            return;
        }
        let tag = &tags[self.below(tags.len() as u64) as usize];
        // Deliveries may still be on their way: the consumer is known until the channel ends.
        self.channel(at, number).cancelled.insert(tag.clone());
        self.send(at, &method(number, (60, 30), &[shortstr(tag), vec![0]]));
    }

    fn get(&mut self, at: usize, number: u16) {
        let queue = self.any_queue();
        let no_ack = self.chance(30) && self.may_no_ack(queue);
        let channel = self.clients[at].channels.get_mut(&number).expect("it is open");
        channel.gets.push_back((queue.to_owned(), no_ack));
        channel.awaits += 1;
        self.send(at, &method(number, (60, 70), &[vec![0, 0], shortstr(queue), vec![u8::from(no_ack)]]));
    }

    fn settle_some(&mut self, at: usize, number: u16) {
        let channel = &self.clients[at].channels[&number];
        let (id, mode) = (channel.id, channel.mode);
        let tags = self.ledger.tags(id);
        if tags.is_empty() {
            return;
        }
        let (tag, multiple) = (tags[self.below(tags.len() as u64) as usize], self.chance(40));
        let transaction = if let Mode::Transaction(transaction) = mode { Some(transaction) } else { None };
        let field = tag.to_be_bytes().to_vec();
        let now = self.simulation().elapsed();
        let bits = u8::from(multiple);
        match self.below(10) {
            0..=6 => {
                self.ledger.ack(id, tag, multiple, now, transaction);
                self.send(at, &method(number, (60, 80), &[field, vec![bits]]));
            }
            // In a transaction only acknowledgements are drawn: what it does on a rollback is simple then.
            _ if transaction.is_some() => {}
            7..=8 => {
                self.ledger.requeue(id, tag, multiple);
                self.send(at, &method(number, (60, 120), &[field, vec![bits | 2]]));
            }
            _ => {
                self.ledger.reject(id, tag, multiple);
                self.send(at, &method(number, (60, 120), &[field, vec![bits]]));
            }
        }
    }

    fn end_transaction(&mut self, at: usize, number: u16) {
        let is_commit = self.chance(75);
        self.transactions += 1;
        let next = self.transactions;
        let channel = self.clients[at].channels.get_mut(&number).expect("it is open");
        let Mode::Transaction(transaction) = channel.mode else { return };
        channel.mode = Mode::Transaction(next);
        channel.commits.push_back((transaction, is_commit));
        if is_commit {
            self.ledger.ask_commit(transaction);
        }
        self.send(at, &method(number, (90, if is_commit { 20 } else { 30 }), &[]));
    }

    fn recover(&mut self, at: usize, number: u16) {
        let channel = &self.clients[at].channels[&number];
        if let Mode::Transaction(_) = channel.mode {
            return;
        }
        let (id, queues) = (channel.id, channel.queues());
        self.ledger.end_channel(id, &queues);
        let channel = self.channel(at, number);
        channel.is_recovering = true;
        channel.awaits += 1;
        self.send(at, &method(number, (60, 110), &[vec![1]]));
    }

    fn close_channel(&mut self, at: usize, number: u16) {
        if self.chance(50) {
            return;
        }
        self.doom(at, number);
        self.send(at, &method(number, (20, 40), &[vec![0, 200], shortstr(""), vec![0; 4]]));
    }

    fn change_topology(&mut self, at: usize, number: u16) {
        self.coverage.topology_changes += 1;
        let (queue, exchange) = (VOLATILE[self.below(4) as usize], EXCHANGES[self.below(3) as usize]);
        let key = ["", "k"][self.below(2) as usize];
        let bind = [vec![0, 0], shortstr(queue), shortstr(exchange), shortstr(key)];
        let frame = match self.below(10) {
            0..=2 => {
                // Durable by its name, so that declarations agree.
                let bits = if queue < "v2" { 2 } else { 0 };
                method(number, (50, 10), &[vec![0, 0], shortstr(queue), vec![bits], table(&[])])
            }
            3..=4 => {
                let fields = [vec![0, 0], shortstr(exchange), shortstr("topic"), vec![2], table(&[])];
                method(number, (40, 10), &fields)
            }
            5..=6 => method(number, (50, 20), &[bind.concat(), vec![0], table(&[])]),
            7 => method(number, (50, 50), &[bind.concat(), table(&[])]),
            8 => method(number, (50, 40), &[vec![0, 0], shortstr(queue), vec![0]]),
            _ => method(number, (40, 20), &[vec![0, 0], shortstr(exchange), vec![0]]),
        };
        self.channel(at, number).awaits += 1;
        self.send(at, &frame);
    }
}
