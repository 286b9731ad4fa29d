//! The messages of one publisher: address, properties, size, and the stamp that identifies each message.

use super::client::PAYLOAD_MAX;
use super::publisher::Job;
use super::scenario::Size;
use crate::wire::properties::{PropertiesWriter, Property};
use crate::wire::table::{Table, TableWriter, Value};
use crate::wire::writer::{Content, write_address, write_publish};

/// Bits of the message's number in the first eight octets of a body; the other bits are the publisher.
const NUMBER_BITS: u32 = 48;
/// Digits of a correlation-id: a number in hexadecimal.
const CORRELATION_DIGITS: usize = 16;

/// The first octets of a body: the publisher, the number of the message, and the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MessageStamp {
    pub(super) publisher: u16,
    pub(super) number: u64,
    /// When the message was sent or due, in microseconds of the run's clock.
    pub(super) at: u64,
}

impl MessageStamp {
    pub(super) const BYTES: usize = 16;

    #[inline]
    fn write(self, body: &mut [u8]) {
        body[..8].copy_from_slice(&(u64::from(self.publisher) << NUMBER_BITS | self.number).to_be_bytes());
        body[8..Self::BYTES].copy_from_slice(&self.at.to_be_bytes());
    }

    #[inline]
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let (first, rest) = body.split_first_chunk()?;
        let (first, at) = (u64::from_be_bytes(*first), u64::from_be_bytes(*rest.first_chunk()?));
        Some(Self { publisher: (first >> NUMBER_BITS) as u16, number: first & ((1 << NUMBER_BITS) - 1), at })
    }
}

/// How a publisher's numbers are distributed: to the queues in turn, and in each queue to the priorities in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Distribution {
    /// Number of queues; 1 if each queue gets all messages.
    pub(super) queues: u64,
    pub(super) priorities: u64,
}

impl Distribution {
    /// The priority of a number, and its place among the numbers of the same queue and priority.
    #[inline]
    pub(super) fn place(self, number: u64) -> (u8, u64) {
        let in_queue = number / self.queues;
        if self.priorities == 1 {
            return (0, in_queue);
        }
        ((in_queue % self.priorities) as u8, in_queue / self.priorities)
    }
}

/// The address of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Envelope {
    /// Exchange and routing key, encoded.
    pub(super) address: Vec<u8>,
    /// The header that a headers exchange matches.
    pub(super) header: Option<(&'static str, String)>,
}

impl Envelope {
    pub(super) fn new(exchange: &str, routing_key: &str) -> Self {
        let mut address = Vec::new();
        write_address(&mut address, exchange.as_bytes(), routing_key.as_bytes());
        Self { address, header: None }
    }

    /// The properties of its messages, with placeholders for priority and correlation-id.
    fn properties(&self, job: &Job, reply_to: Option<&str>) -> Vec<u8> {
        let mut headers = Vec::new();
        let mut properties = PropertiesWriter::new();
        if let Some((name, value)) = &self.header {
            TableWriter::new(&mut headers).value(name.as_bytes(), Value::LongString(value.as_bytes()));
            properties = properties.headers(Table::from_checked(&headers));
        }
        if job.load.persistent {
            properties = properties.delivery_mode(2);
        }
        if job.load.priorities > 1 {
            properties = properties.priority(0);
        }
        if let Some(queue) = reply_to {
            properties = properties
                .shortstr(Property::CorrelationId, &[b'0'; CORRELATION_DIGITS])
                .shortstr(Property::ReplyTo, queue.as_bytes());
        }
        properties.to_vec()
    }
}

/// A number as a correlation-id.
pub(super) fn correlation_id(number: u64) -> String {
    format!("{number:0CORRELATION_DIGITS$x}")
}

/// Writes the messages of one publisher, one after the other.
#[derive(Debug)]
pub(super) struct Messages {
    publisher: u16,
    distribution: Distribution,
    /// Addresses with properties, used in turn.
    envelopes: Vec<(Vec<u8>, Vec<u8>)>,
    turn: usize,
    /// Octets of correlation-id and reply-to, which are at the end of the properties.
    tail: usize,
    sizes: Sizes,
    body: Vec<u8>,
}

impl Messages {
    /// The messages of a job, from its first one. They are requests if there is a queue for replies.
    pub(super) fn new(job: &Job, reply_to: Option<&str>) -> Self {
        let sealed = |envelope: &Envelope| (envelope.address.clone(), envelope.properties(job, reply_to));
        Self {
            publisher: job.publisher,
            distribution: job.load.distribution(),
            envelopes: job.envelopes.iter().map(sealed).collect(),
            turn: (job.first % job.envelopes.len() as u64) as usize,
            tail: reply_to.map_or(0, |queue| 1 + CORRELATION_DIGITS + 1 + queue.len()),
            sizes: Sizes { size: job.load.size, state: job.publisher.into() },
            body: vec![b'x'; job.load.size.most],
        }
    }

    /// Appends the message of this number. Numbers must be consecutive.
    #[inline]
    pub(super) fn write(&mut self, out: &mut Vec<u8>, channel: u16, number: u64, at: u64) {
        let turn = self.turn;
        self.turn = if turn + 1 == self.envelopes.len() { 0 } else { turn + 1 };
        let (address, properties) = &mut self.envelopes[turn];
        let tail = properties.len() - self.tail;
        if self.distribution.priorities > 1 {
            properties[tail - 1] = self.distribution.place(number).0;
        }
        if self.tail > 0 {
            properties[tail + 1..][..CORRELATION_DIGITS].copy_from_slice(correlation_id(number).as_bytes());
        }
        MessageStamp { publisher: self.publisher, number, at }.write(&mut self.body);
        let body = &self.body[..self.sizes.next()];
        write_publish(out, channel, false, Content { address, properties, body }, PAYLOAD_MAX);
    }
}

/// Uniformly distributed sizes between two limits, the same in every run.
#[derive(Debug)]
struct Sizes {
    size: Size,
    state: u64,
}

impl Sizes {
    #[inline]
    fn next(&mut self) -> usize {
        let Size { least, most } = self.size;
        if least == most {
            return most;
        }
        // SplitMix64 (Steele, Lea, Flood 2014): a few multiplications, and good enough in all bits.
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        least + ((u128::from(mixed) * (most - least + 1) as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = MessageStamp { publisher: 65_535, number: (1 << NUMBER_BITS) - 1, at: 7 };
        let mut body = [0; 20];
        stamp.write(&mut body);
        assert_eq!(MessageStamp::read(&body), Some(stamp));
        assert_eq!(MessageStamp::read(&body[..15]), None);
    }

    #[test]
    fn every_queue_gets_every_priority_and_places_have_no_gaps() {
        let distribution = Distribution { queues: 10, priorities: 10 };
        let places: Vec<_> = (0..).step_by(10).take(20).map(|number| distribution.place(number)).collect();
        let expected: Vec<_> = (0..20).map(|number| (number % 10, u64::from(number / 10))).collect();
        assert_eq!(places, expected);
        assert_eq!(Distribution { queues: 3, priorities: 1 }.place(10), (0, 3));
    }

    #[test]
    fn sizes_are_uniform_up_to_both_limits_and_reproducible() {
        let size = Size { least: 16, most: 19 };
        let drawn = || {
            let mut sizes = Sizes { size, state: 3 };
            (0..4000).map(|_| sizes.next()).collect::<Vec<_>>()
        };
        assert_eq!(drawn(), drawn());
        for size in 16..=19 {
            let count = drawn().iter().filter(|drawn| **drawn == size).count();
            assert!((900..1100).contains(&count), "{count} of 4,000 are {size} B");
        }
        assert!(drawn().iter().all(|drawn| (16..=19).contains(drawn)));
    }
}
