//! `kill -9` at random moments under load: what was confirmed is there or was consumed, in order.
//!
//! `PRONTOMQ_KILL_ROUNDS=20 cargo test --test kill -- --nocapture` is the long run; it prints its figures.

#[allow(dead_code, reason = "each test takes from the support what it needs")]
mod support;

use prontomq::internals::model::random::Random;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};
use support::client::{Delivery, Flag, Incoming, persistent};
use support::{Broker, Client, count_from_environment};

const ROUNDS: usize = 2;
const QUEUES: [&str; 4] = ["kill-0", "kill-1", "kill-2", "kill-3"];
/// The first two queues have two consumers each, who share them; the last two have one each.
const CONSUMERS: [&[usize]; 4] = [&[0, 1], &[0, 1], &[2], &[3]];
const PUBLISHERS: u64 = 4;
const UNCONFIRMED_MAX: u64 = 50;
const PREFETCH: u16 = 100;
/// What a consumer keeps in its hands, so that a kill always finds something there.
const HELD: usize = 30;
/// The broker lives so long under load, in milliseconds, from one round to the next.
const LIFE_MILLIS: std::ops::Range<u64> = 150..1150;
/// An acknowledgement that was sent so long before the kill is never forgotten.
const ACK_SAFE_AFTER: Duration = Duration::from_secs(1);

/// A message: who published it, and the how-manieth of that publisher it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Id {
    publisher: u64,
    number: u64,
}

impl Id {
    fn queue(self) -> usize {
        (self.number % QUEUES.len() as u64) as usize
    }

    fn to_body(self) -> Vec<u8> {
        let mut body = [self.publisher.to_be_bytes(), self.number.to_be_bytes()].concat();
        // Some are stored in chunks.
        body.resize(if self.number.is_multiple_of(16) { 70_000 } else { 200 }, b'.');
        body
    }

    fn of(delivery: &Delivery) -> Self {
        let number = |at: usize| u64::from_be_bytes(delivery.body[at..at + 8].try_into().expect("eight bytes"));
        Self { publisher: number(0), number: number(8) }
    }
}

/// What one publisher saw until its connection broke.
struct Published {
    next_number: u64,
    confirmed: Vec<u64>,
}

fn publisher(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.confirm_select();
    client
}

fn publish_until_the_end(mut client: Client, publisher: u64, first: u64) -> Published {
    let mut unconfirmed = BTreeSet::new();
    let mut published = Published { next_number: first, confirmed: Vec::new() };
    loop {
        while (unconfirmed.len() as u64) < UNCONFIRMED_MAX {
            let id = Id { publisher, number: published.next_number };
            client.publish("", QUEUES[id.queue()], &persistent(), &id.to_body());
            unconfirmed.insert(id.number);
            published.next_number += 1;
        }
        match client.next() {
            Ok(Incoming::Confirm { delivery_tag, multiple, kept }) => {
                assert!(kept, "the broker refused a message");
                let number = first + delivery_tag - 1;
                if multiple {
                    let left = unconfirmed.split_off(&(number + 1));
                    published.confirmed.extend(std::mem::replace(&mut unconfirmed, left));
                } else {
                    assert!(unconfirmed.remove(&number), "confirmed twice");
                    published.confirmed.push(number);
                }
            }
            Ok(other) => panic!("{other:?} instead of a confirm"),
            Err(_) => return published,
        }
    }
}

/// A message as one consumer saw it.
#[derive(Clone, Copy, Debug)]
struct Seen {
    id: Id,
    redelivered: bool,
    /// When its acknowledgement had been written to the socket.
    acknowledged: Option<Instant>,
}

fn consumer(address: SocketAddr, queues: &[usize]) -> Client {
    let mut client = Client::connect(address);
    client.qos(PREFETCH);
    for queue in queues {
        client.consume(QUEUES[*queue], &format!("c{queue}"));
    }
    client
}

fn consume_until_the_end(mut client: Client, mut random: Random) -> Vec<Seen> {
    let mut all: Vec<Seen> = Vec::new();
    // Delivery tags count from 1, so that a tag is an index.
    let mut held: VecDeque<u64> = VecDeque::new();
    while let Ok(incoming) = client.next() {
        let Incoming::Delivery(delivery) = incoming else { panic!("{incoming:?} instead of a delivery") };
        let id = Id::of(&delivery);
        assert!(delivery.body == id.to_body(), "the body of {id:?}");
        assert_eq!(delivery.routing_key, QUEUES[id.queue()]);
        all.push(Seen { id, redelivered: delivery.redelivered, acknowledged: None });
        assert_eq!(delivery.delivery_tag, all.len() as u64);
        held.push_back(delivery.delivery_tag);
        if held.len() <= HELD {
            continue;
        }
        // One in the middle, the oldest, or all up to some.
        let acknowledged: Vec<u64> = match random.next_u64() % 8 {
            0 => held.drain(..HELD / 2).collect(),
            1 => held.remove(HELD / 3).into_iter().collect(),
            _ => held.pop_front().into_iter().collect(),
        };
        let last = *acknowledged.last().expect("more than HELD are held");
        client.ack(last, acknowledged.len() > 1);
        if client.flush().is_err() {
            break;
        }
        let now = Instant::now();
        for tag in acknowledged {
            all[tag as usize - 1].acknowledged = Some(now);
        }
    }
    all
}

/// A queue that is filled, and purged or deleted, again and again; what it may hold when the broker dies.
#[derive(Clone, Copy, Debug, Default)]
struct LongQueue {
    sent: u32,
    confirmed: u32,
    /// The purge or deletion was sent and not answered.
    is_emptying: bool,
}

impl LongQueue {
    const NAME: &str = "kill-long";
    const MESSAGES: u32 = 1_500;

    fn may_hold(&self, count: u32) -> bool {
        (self.confirmed..=self.sent).contains(&count) || self.is_emptying && count == 0
    }
}

fn fill_and_empty_until_the_end(mut client: Client, mut long: LongQueue) -> LongQueue {
    let mut first = 1;
    loop {
        if client.try_queue(LongQueue::NAME, &[Flag::Durable], &[]).is_err() {
            return long;
        }
        let before = long.confirmed;
        for _ in 0..LongQueue::MESSAGES {
            client.publish("", LongQueue::NAME, &persistent(), &[b'l'; 500]);
        }
        long.sent += LongQueue::MESSAGES;
        while long.confirmed < before + LongQueue::MESSAGES {
            match client.next() {
                // In the order of publishing, all to one queue.
                Ok(Incoming::Confirm { delivery_tag, kept: true, .. }) => {
                    long.confirmed = long.confirmed.max(before + u32::try_from(delivery_tag + 1 - first).unwrap_or(0));
                }
                Ok(other) => panic!("{other:?} instead of a confirm"),
                Err(_) => return long,
            }
        }
        first += u64::from(LongQueue::MESSAGES);
        if long.confirmed < 3 * LongQueue::MESSAGES {
            continue;
        }
        long.is_emptying = true;
        let deletes = (first / u64::from(LongQueue::MESSAGES)).is_multiple_of(2);
        let emptied =
            if deletes { client.try_delete_queue(LongQueue::NAME) } else { client.try_purge_queue(LongQueue::NAME) };
        let Ok(count) = emptied else { return long };
        assert!(long.may_hold(count), "{count} of {long:?}");
        long = LongQueue::default();
    }
}

/// Everything that was seen, over all rounds.
#[derive(Default)]
struct History {
    confirmed: BTreeSet<Id>,
    delivered: BTreeSet<Id>,
    /// With the time of the last acknowledgement, and of the kill that followed.
    acknowledged: HashMap<Id, (Instant, Instant)>,
    /// Per single-consumer queue and publisher, the highest number delivered so far.
    highest: BTreeMap<(usize, u64), u64>,
    figures: Figures,
}

#[derive(Debug, Default)]
struct Figures {
    deliveries: usize,
    unacknowledged_at_kills: usize,
    came_back: usize,
    acknowledged_yet_back: usize,
    oldest_acknowledgement_lost: Duration,
    longest_start: Duration,
}

impl History {
    /// Takes in what the consumers of one life of the broker saw.
    fn take(&mut self, sessions: &[(&[usize], Vec<Seen>)], killed: Instant) {
        let mut of_this_life = BTreeSet::new();
        for (queues, seen) in sessions {
            let mut last: BTreeMap<(usize, u64), u64> = BTreeMap::new();
            for seen in seen {
                let Id { publisher, number } = seen.id;
                let at = (seen.id.queue(), publisher);
                let before = last.insert(at, number);
                assert!(before < Some(number), "{:?} came after {before:?}", seen.id);
                assert!(of_this_life.insert(seen.id), "{:?} was given to two consumers at a time", seen.id);
                self.check_again(seen);
                let is_new = !self.delivered.contains(&seen.id);
                if is_new && queues.len() == 1 {
                    let highest = self.highest.insert(at, number);
                    assert!(highest < Some(number), "{:?} came for the first time after {highest:?}", seen.id);
                }
            }
        }
        for seen in sessions.iter().flat_map(|(_, seen)| seen) {
            self.figures.deliveries += 1;
            self.delivered.insert(seen.id);
            match seen.acknowledged {
                Some(at) => _ = self.acknowledged.insert(seen.id, (at, killed)),
                None => self.figures.unacknowledged_at_kills += 1,
            }
        }
    }

    fn check_again(&mut self, seen: &Seen) {
        if self.delivered.contains(&seen.id) {
            self.figures.came_back += 1;
            assert!(seen.redelivered, "{:?} came again without redelivered", seen.id);
        }
        if let Some((acknowledged, killed)) = self.acknowledged.get(&seen.id) {
            let age = *killed - *acknowledged;
            assert!(age <= ACK_SAFE_AFTER, "{:?} was acknowledged {age:?} before the kill and came back", seen.id);
            self.figures.acknowledged_yet_back += 1;
            self.figures.oldest_acknowledgement_lost = self.figures.oldest_acknowledgement_lost.max(age);
        }
    }
}

/// Takes everything that is left in the queues.
fn drain(address: SocketAddr) -> Vec<(&'static [usize], Vec<Seen>)> {
    const EACH: [&[usize]; 4] = [&[0], &[1], &[2], &[3]];
    let mut client = Client::connect(address);
    let drained = EACH.map(|queues| {
        let queue = QUEUES[queues[0]];
        let count = client.message_count(queue);
        client.consume_no_ack(queue, queue);
        let mut take = || {
            let delivery = client.delivery();
            Seen { id: Id::of(&delivery), redelivered: delivery.redelivered, acknowledged: Some(Instant::now()) }
        };
        (queues, (0..count).map(|_| take()).collect())
    });
    let left = QUEUES.map(|queue| client.message_count(queue));
    assert_eq!(left, [0; 4], "the counts after the start were right");
    drained.into()
}

#[test]
fn confirmed_messages_survive_kills_in_order_and_acknowledged_ones_stay_away() {
    let rounds = count_from_environment("PRONTOMQ_KILL_ROUNDS", ROUNDS);
    let seed = getrandom::u64().unwrap();
    println!("seed {seed}");
    let mut random = Random::new(seed);
    let data = tempfile::tempdir().unwrap();
    let path = data.path().join("data");
    let mut history = History::default();
    let mut long = LongQueue::default();
    let mut next_numbers = [0; PUBLISHERS as usize];
    for round in 0..rounds {
        let broker = Broker::start(&path);
        history.figures.longest_start = history.figures.longest_start.max(broker.startup);
        let address = broker.amqp;
        let mut client = Client::connect(address);
        for queue in QUEUES {
            client.queue(queue, &[Flag::Durable], &[]);
        }
        let count = client.queue(LongQueue::NAME, &[Flag::Durable], &[]).message_count;
        assert!(long.may_hold(count), "{count} messages after the kill, {long:?}");
        client.close();
        // Each is connected before the moment begins, so that the kill meets nobody who waits for an answer it must have.
        let client = publisher(address);
        let long_before = LongQueue { sent: count, confirmed: count, ..LongQueue::default() };
        let emptier = thread::spawn(move || fill_and_empty_until_the_end(client, long_before));
        let consumers = CONSUMERS.map(|queues| {
            let client = consumer(address, queues);
            let random = Random::new(random.next_u64());
            thread::spawn(move || (queues, consume_until_the_end(client, random)))
        });
        let publishers = [0, 1, 2, 3].map(|number| {
            let client = publisher(address);
            let first = next_numbers[number as usize];
            thread::spawn(move || publish_until_the_end(client, number, first))
        });
        let life = LIFE_MILLIS.start + random.next_u64() % (LIFE_MILLIS.end - LIFE_MILLIS.start);
        // Not to wait for anything: the random moment itself.
        thread::sleep(Duration::from_millis(life));
        let killed = Instant::now();
        broker.kill();

        let sessions: Vec<_> = consumers.map(|consumer| consumer.join().unwrap()).into();
        long = emptier.join().unwrap();
        history.take(&sessions, killed);
        let confirmed_before = history.confirmed.len();
        for (publisher, published) in (0..).zip(publishers.map(|publisher| publisher.join().unwrap())) {
            next_numbers[publisher as usize] = published.next_number;
            history.confirmed.extend(published.confirmed.iter().map(|number| Id { publisher, number: *number }));
        }
        println!(
            "round {round}: killed after {life} ms; {} confirmed, {} delivered",
            history.confirmed.len() - confirmed_before,
            sessions.iter().map(|(_, seen)| seen.len()).sum::<usize>(),
        );
    }
    let broker = Broker::start(&path);
    let drained = drain(broker.amqp);
    let left: usize = drained.iter().map(|(_, seen)| seen.len()).sum();
    history.take(&drained, Instant::now());

    let lost: Vec<_> = history.confirmed.iter().filter(|id| !history.acknowledged.contains_key(id)).collect();
    println!("{} confirmed, {left} left at the end, {:?}", history.confirmed.len(), history.figures);
    assert!(lost.is_empty(), "{} confirmed messages were lost, the first {:?}", lost.len(), lost.first());
    assert!(history.confirmed.len() > rounds * 100, "the broker worked");
}
