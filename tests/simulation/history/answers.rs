//! What the broker sends, and what the ledger learns from it.

use super::super::ledger::{ChannelId, Given};
use super::super::wire::{Incoming, method};
use super::client::{Channel, Prefetch};
use super::{History, SAFE};
use std::collections::BTreeMap;

/// The reply code for what is not there.
const NOT_FOUND: u16 = 404;

impl History {
    /// What the broker sent, to all clients. Channels that end are seen to first: what they held may be with others already.
    pub(super) fn receive_all(&mut self) {
        let mut received = Vec::new();
        let mut gone = Vec::new();
        for at in 0..self.clients.len() {
            let connection = self.clients[at].connection;
            let bytes = self.simulation().take_output(connection);
            for byte in self.clients[at].number.to_be_bytes().iter().chain(&bytes) {
                self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
            }
            let all = self.clients[at].parser.parse(&bytes);
            let ends = |incoming: &Incoming| match incoming {
                Incoming::Method { channel, class: 20, id: 40 | 41, .. } => Some(*channel),
                _ => None,
            };
            let mut ending: Vec<u16> = all.iter().filter_map(ends).collect();
            if self.simulation().is_closed(connection) {
                self.coverage.missed_heartbeats += u64::from(self.clients[at].has_heartbeats);
                ending.extend(self.clients[at].channels.keys());
                let ids: Vec<ChannelId> = self.clients[at].channels.values().map(|channel| channel.id).collect();
                ids.into_iter().for_each(|id| self.ledger.connection_lost(id));
                gone.push(at);
            }
            for number in ending {
                self.doom(at, number);
            }
            received.push(all);
        }
        let channels = self.clients.iter().flat_map(|client| client.channels.values());
        let ending = channels.filter(|channel| channel.is_closing || channel.is_recovering);
        self.ledger.returning = ending.flat_map(Channel::queues).collect();
        for (at, all) in received.into_iter().enumerate() {
            for incoming in all {
                self.take(at, incoming);
            }
        }
        for at in gone.into_iter().rev() {
            self.connection_gone(at);
        }
    }

    fn take(&mut self, at: usize, incoming: Incoming) {
        let now = self.simulation().elapsed();
        match incoming {
            Incoming::Deliver { channel: number, consumer, tag, redelivered, number: message } => {
                let Some(channel) = self.clients[at].channels.get(&number) else { return };
                let (queue, no_ack) = channel.consumers[&consumer].clone();
                let given = Given { queue: &queue, consumer: &consumer, tag, redelivered, number: message, no_ack };
                assert!(!self.blocked.contains(&message), "seed {}: {message} was read during an alarm", self.seed);
                self.ledger.delivered(channel.id, channel.is_closing || channel.is_recovering, &given, now);
                self.check_prefetch(at, number, &consumer);
            }
            Incoming::GetOk { channel: number, tag, redelivered, number: message } => {
                let Some(channel) = self.clients[at].channels.get_mut(&number) else { return };
                channel.awaits -= 1;
                let (queue, no_ack) = channel.gets.pop_front().expect("a get was asked for");
                let given = Given { queue: &queue, consumer: "", tag, redelivered, number: message, no_ack };
                self.ledger.delivered(channel.id, channel.is_closing || channel.is_recovering, &given, now);
            }
            Incoming::Confirm { channel: number, tag, multiple, kept } => {
                self.confirmed(at, number, tag, multiple, kept);
            }
            Incoming::Method { channel, class, id, fields } => self.method(at, channel, (class, id), &fields),
            Incoming::Heartbeat => {}
        }
    }

    fn confirmed(&mut self, at: usize, number: u16, tag: u64, multiple: bool, kept: bool) {
        let Some(channel) = self.clients[at].channels.get_mut(&number) else { return };
        let tags: Vec<u64> =
            if multiple { channel.unconfirmed.range(..=tag).map(|(tag, _)| *tag).collect() } else { vec![tag] };
        for tag in tags {
            let message = channel.unconfirmed.remove(&tag).expect("a confirm names what is open");
            assert!(!channel.unroutable.contains(&message), "{message} is confirmed, and was not returned");
            assert!(!self.blocked.contains(&message), "{message} was read during an alarm");
            self.ledger.promised(message, kept);
        }
    }

    fn method(&mut self, at: usize, number: u16, method_id: (u16, u16), fields: &[u8]) {
        let now = self.simulation().elapsed();
        match method_id {
            (10, 50) => panic!("seed {}: the connection was closed: {:?}", self.seed, String::from_utf8_lossy(fields)),
            (10, 60) => {
                self.coverage.blocked += 1;
                // A notice that came late is of an alarm that has ended.
                self.clients[at].is_blocked = self.alarm;
            }
            (10, 61) => self.clients[at].is_blocked = false,
            // Closed by the broker; what came before it counts.
            (20, 40) => {
                let code = u16::from_be_bytes([fields[0], fields[1]]);
                let text = String::from_utf8_lossy(fields);
                assert_eq!(code, NOT_FOUND, "seed {}: only what is missing closes a channel: {text:?}", self.seed);
                self.coverage.channels_closed_by_broker += 1;
                self.send(at, &method(number, (20, 41), &[]));
                self.close_here(at, number);
            }
            (20, 41) => self.close_here(at, number),
            (60, 72) => {
                if let Some(channel) = self.clients[at].channels.get_mut(&number) {
                    channel.gets.pop_front();
                    channel.awaits -= 1;
                }
            }
            (60, 111) => {
                let channel = self.channel(at, number);
                channel.is_recovering = false;
                channel.awaits -= 1;
                let (id, queues) = (channel.id, channel.queues());
                self.ledger.end_channel(id, &queues);
            }
            (60, 21) | (50, 11 | 21 | 41 | 51) | (40, 11 | 21) => {
                if let Some(channel) = self.clients[at].channels.get_mut(&number) {
                    channel.awaits = channel.awaits.saturating_sub(1);
                    let id = channel.id;
                    self.own_changed(id);
                }
            }
            // Returned; its number stands for its fields.
            (60, 50) => {
                let message = u64::from_be_bytes(fields.try_into().expect("eight bytes"));
                if let Some(channel) = self.clients[at].channels.get_mut(&number) {
                    assert!(channel.unroutable.remove(&message), "{message} was returned, and its queue is there");
                }
            }
            (90, 21 | 31) => {
                let Some(channel) = self.clients[at].channels.get_mut(&number) else { return };
                let (transaction, is_commit) = channel.commits.pop_front().expect("it was asked for");
                assert_eq!(is_commit, method_id.1 == 21);
                if is_commit {
                    self.ledger.committed(transaction, now);
                } else {
                    self.ledger.rolled_back(transaction, true);
                }
            }
            _ => {}
        }
    }

    /// No consumer holds more than its channel allows.
    fn check_prefetch(&mut self, at: usize, number: u16, consumer: &str) {
        let Some((id, Prefetch { count, is_shared })) =
            self.clients[at].channels.get(&number).and_then(|channel| Some((channel.id, channel.prefetch?)))
        else {
            return;
        };
        let outstanding = self.ledger.outstanding(id, (!is_shared).then_some(consumer));
        assert!(outstanding <= count, "seed {}: {outstanding} of {count} are unacknowledged on {id:?}", self.seed);
    }

    /// All is read, and the store has kept up: nothing is owed to clients.
    pub(super) fn check_nothing_is_owed(&mut self) {
        let ready: BTreeMap<String, u64> = {
            let cells = self.simulation().broker().cells();
            cells.iter().map(|cell| (cell.name().as_str().to_owned(), cell.metrics().ready)).collect()
        };
        let channels = self.clients.iter().flat_map(|client| client.channels.values());
        for channel in channels.filter(|channel| !channel.is_closing) {
            let (seed, id) = (self.seed, channel.id);
            assert!(channel.unconfirmed.is_empty(), "seed {seed}: no confirms of {:?} on {id:?}", channel.unconfirmed);
            assert_eq!(channel.awaits, 0, "seed {seed}: answers are missing on {id:?}");
            assert!(channel.commits.is_empty(), "seed {seed}: commits are not answered on {id:?}");
            // A queue that was deleted has no consumers any more, and another of its name may be there.
            let lasting = channel.consumers.iter().filter(|(_, (queue, _))| SAFE.contains(&queue.as_str()));
            for (consumer, (queue, no_ack)) in lasting {
                // A limit that consumers share stops those as well that need no acknowledgement.
                let has_room = channel.prefetch.is_none_or(|Prefetch { count, is_shared }| {
                    let is_free = *no_ack && !is_shared;
                    is_free || self.ledger.outstanding(id, (!is_shared).then_some(consumer)) < count
                });
                let waits = has_room && !channel.cancelled.contains(consumer);
                let ready = ready.get(queue).copied().unwrap_or_default();
                assert!(!waits || ready == 0, "seed {seed}: {consumer} of {id:?} gets none of {ready} in {queue}");
            }
        }
    }
}
