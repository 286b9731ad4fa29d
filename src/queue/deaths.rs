//! `x-death` and the related headers of dead letters: written into the copies, and read back.
//!
//! A publisher may send `x-death` itself, for example in a message that it took from a dead-letter queue and publishes again.
//! RabbitMQ 3.13 adds to such a header, and 4.0 replaces it; a setting chooses. A publisher's entries never decide whether a
//! message goes in a circle, and at most `PUBLISHED_DEATHS_MAX` of them are kept.

use crate::model::message::OWN_DEATHS_MAX;
use crate::model::{Message, Name, WallMillis};
use crate::wire::properties::{Properties, PropertiesWriter, Property};
use crate::wire::table::{Array, Table, TableWriter, Value};

/// Most entries of `x-death` that are kept of those that a publisher sent; the oldest are dropped.
const PUBLISHED_DEATHS_MAX: usize = 64;

const DEATHS: &[u8] = b"x-death";
const FIRST: [&[u8]; 3] = [b"x-first-death-exchange", b"x-first-death-queue", b"x-first-death-reason"];
const LAST: [&[u8]; 3] = [b"x-last-death-exchange", b"x-last-death-queue", b"x-last-death-reason"];

/// Why a message died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadLetterReason {
    /// `basic.reject` or `basic.nack` without requeue.
    Rejected,
    /// The message's time to live was over.
    Expired,
    /// The queue was full.
    MaxLength,
}

impl DeadLetterReason {
    /// The reason as it stands in `x-death`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
        }
    }
}

/// One entry of `x-death`: the deaths of a message in one queue for one reason.
#[derive(Clone, Copy, Debug)]
struct Death<'a> {
    count: i64,
    reason: &'a [u8],
    queue: &'a [u8],
    seconds: u64,
    exchange: &'a [u8],
    routing_keys: RoutingKeys<'a>,
    original_expiration: Option<&'a [u8]>,
}

#[derive(Clone, Copy, Debug)]
enum RoutingKeys<'a> {
    Own(&'a [u8]),
    Known(Option<Array<'a>>),
}

impl<'a> Death<'a> {
    fn read(table: Table<'a>) -> Self {
        let text = |key: &[u8]| match table.get(key) {
            Some(Value::LongString(text)) => text,
            _ => &[],
        };
        Self {
            count: table.get(b"count").and_then(|count| count.as_integer()).unwrap_or(1),
            reason: text(b"reason"),
            queue: text(b"queue"),
            seconds: match table.get(b"time") {
                Some(Value::Timestamp(seconds)) => seconds,
                _ => 0,
            },
            exchange: text(b"exchange"),
            routing_keys: RoutingKeys::Known(match table.get(b"routing-keys") {
                Some(Value::Array(keys)) => Some(keys),
                _ => None,
            }),
            original_expiration: match table.get(b"original-expiration") {
                Some(Value::LongString(text)) => Some(text),
                _ => None,
            },
        }
    }

    fn write(&self, table: &mut TableWriter<'_>) {
        if let Some(expiration) = self.original_expiration {
            table.value(b"original-expiration", Value::LongString(expiration));
        }
        table.value(b"count", Value::I64(self.count));
        table.value(b"reason", Value::LongString(self.reason));
        table.value(b"queue", Value::LongString(self.queue));
        table.value(b"time", Value::Timestamp(self.seconds));
        table.value(b"exchange", Value::LongString(self.exchange));
        table.array(b"routing-keys", |keys| match self.routing_keys {
            RoutingKeys::Own(key) => keys.value(Value::LongString(key)),
            RoutingKeys::Known(known) => known.into_iter().flatten().for_each(|key| keys.value(key)),
        });
    }
}

/// The deaths of a message, the newest first.
#[derive(Debug, Default)]
struct Deaths<'a> {
    entries: Vec<Death<'a>>,
    /// How many entries, from the front, brokers wrote since the message was published.
    own: usize,
}

impl<'a> Deaths<'a> {
    /// Reads the deaths of a message; those that a publisher sent only if they are trusted.
    fn of(message: &'a Message, trust_published: bool) -> Self {
        if !message.is_dead_letter() {
            return Self { entries: if trust_published { read(message) } else { Vec::new() }, own: 0 };
        }
        let entries = read(message);
        let own = message.own_deaths().map_or(entries.len(), usize::from).min(entries.len());
        Self { entries, own }
    }

    /// Adds a death in front. An entry of the same queue and reason moves to the front, and its count rises.
    fn add(&mut self, death: Death<'a>) {
        let known = self.entries.iter().position(|known| known.queue == death.queue && known.reason == death.reason);
        let death = match known {
            Some(at) => {
                self.own -= usize::from(at < self.own);
                let known = self.entries.remove(at);
                Death { count: known.count.saturating_add(1), ..known }
            }
            None => death,
        };
        self.entries.insert(0, death);
        self.own += 1;
        // If the number of own entries is too large to be kept with the message, all entries must be own.
        let published = if self.own > usize::from(OWN_DEATHS_MAX) { 0 } else { PUBLISHED_DEATHS_MAX };
        self.entries.truncate(self.own + published);
    }

    /// The number of own entries that is kept with the message; none if all are own.
    fn own(&self) -> Option<u8> {
        if self.own == self.entries.len() { None } else { u8::try_from(self.own).ok() }
    }
}

fn read(message: &Message) -> Vec<Death<'_>> {
    match message.properties().headers().and_then(|headers| headers.get(DEATHS)) {
        Some(Value::Array(deaths)) => deaths
            .iter()
            .filter_map(|death| match death {
                Value::Table(death) => Some(Death::read(death)),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Whether a copy for `target` would go in a circle without any client: the message died there before, and no client has
/// rejected it since.
pub fn would_cycle(copy: &Message, target: &[u8], reason: DeadLetterReason) -> bool {
    if reason == DeadLetterReason::Rejected {
        return false;
    }
    let Deaths { entries, own } = Deaths::of(copy, false);
    let own = &entries[..own];
    let Some(at) = own.iter().position(|death| death.queue == target) else { return false };
    own[..=at].iter().all(|death| death.reason != DeadLetterReason::Rejected.name().as_bytes())
}

/// The copy of a dead message as it is published to the dead-letter exchange: re-addressed, without expiration, with
/// the death in its headers, in front of those that a publisher sent if `trust_published`. Order and contents of the fields are
/// those of RabbitMQ 3.13 and later.
pub fn dead_letter_copy(
    message: &Message,
    queue: &Name,
    reason: DeadLetterReason,
    now: WallMillis,
    exchange: &Name,
    routing_key: Option<&Name>,
    trust_published: bool,
) -> Message {
    let properties = message.properties();
    let mut deaths = Deaths::of(message, trust_published);
    let reason = reason.name().as_bytes();
    let died = [message.exchange(), queue.as_bytes(), reason];
    let keeps_first = message.is_dead_letter() || !deaths.entries.is_empty();
    deaths.add(Death {
        count: 1,
        reason,
        queue: queue.as_bytes(),
        seconds: now.seconds(),
        exchange: message.exchange(),
        routing_keys: RoutingKeys::Own(message.routing_key()),
        original_expiration: properties.expiration(),
    });

    let mut has_first = false;
    let mut bytes = Vec::new();
    let mut table = TableWriter::new(&mut bytes);
    for entry in properties.headers().into_iter().flatten() {
        let first = FIRST.contains(&entry.key);
        has_first |= first && keeps_first;
        if entry.key != DEATHS && !LAST.contains(&entry.key) && (!first || keeps_first) {
            table.value(entry.key, entry.value);
        }
    }
    table.array(DEATHS, |list| deaths.entries.iter().for_each(|death| list.table(|table| death.write(table))));
    if !has_first {
        FIRST.iter().zip(died).for_each(|(key, text)| table.value(key, Value::LongString(text)));
    }
    LAST.iter().zip(died).for_each(|(key, text)| table.value(key, Value::LongString(text)));

    let own = deaths.own();
    let raw =
        PropertiesWriter::from(&properties).without(Property::Expiration).headers(Table::from_checked(&bytes)).to_vec();
    let properties = Properties::check_stored(&raw).expect("they were just written");
    let routing_key = routing_key.map_or(message.routing_key(), Name::as_bytes);
    message.with_address(exchange.as_bytes(), routing_key, &properties).into_dead_letter(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: WallMillis = WallMillis(5_000);

    fn published(deaths: impl FnOnce(&mut crate::wire::table::ArrayWriter<'_>)) -> Message {
        let mut bytes = Vec::new();
        TableWriter::new(&mut bytes).array(DEATHS, deaths);
        let raw = PropertiesWriter::default().headers(Table::from_checked(&bytes)).to_vec();
        Message::new(b"", b"key", &Properties::check(&raw).unwrap(), b"m")
    }

    fn death(list: &mut crate::wire::table::ArrayWriter<'_>, queue: &[u8], reason: &[u8], count: i64) {
        list.table(|table| {
            table.value(b"count", Value::I64(count));
            table.value(b"queue", Value::LongString(queue));
            table.value(b"reason", Value::LongString(reason));
        });
    }

    fn die(message: &Message, queue: &str, reason: DeadLetterReason, trust: bool) -> Message {
        dead_letter_copy(message, &Name::from(queue), reason, NOW, &Name::from(""), None, trust)
    }

    fn counts(message: &Message) -> Vec<(String, i64)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        read(message).iter().map(|death| (text(death.queue), death.count)).collect()
    }

    #[test]
    fn deaths_that_a_publisher_sent_are_continued_if_they_are_trusted() {
        let message = published(|list| {
            death(list, b"other", b"expired", 7);
            death(list, b"q", b"rejected", 5);
        });
        let trusted = die(&message, "q", DeadLetterReason::Rejected, true);
        assert_eq!(counts(&trusted), [("q".into(), 6), ("other".into(), 7)]);
        assert_eq!(
            counts(&die(&trusted, "q", DeadLetterReason::Rejected, true)),
            [("q".into(), 7), ("other".into(), 7)]
        );
        assert_eq!(counts(&die(&message, "q", DeadLetterReason::Rejected, false)), [("q".into(), 1)]);
        let most = published(|list| death(list, b"q", b"rejected", i64::MAX));
        assert_eq!(counts(&die(&most, "q", DeadLetterReason::Rejected, true)), [("q".into(), i64::MAX)]);
    }

    #[test]
    fn only_deaths_that_the_broker_wrote_make_a_circle() {
        let message = published(|list| death(list, b"q", b"expired", 1));
        let once = die(&message, "p", DeadLetterReason::Expired, true);
        assert!(!would_cycle(&once, b"q", DeadLetterReason::Expired), "the publisher says that it was there");
        assert!(would_cycle(&once, b"p", DeadLetterReason::Expired));
        let twice = die(&once, "q", DeadLetterReason::Expired, true);
        assert!(
            would_cycle(&twice, b"q", DeadLetterReason::Expired)
                && would_cycle(&twice, b"p", DeadLetterReason::Expired)
        );
        let stored = Message::from_stored(twice.head_bytes(), None).expect("a message");
        assert_eq!(stored.own_deaths(), twice.own_deaths());
    }

    #[test]
    fn forged_deaths_are_cut_and_dropped_when_the_brokers_own_are_many() {
        let mut message =
            published(|list| (0..500).for_each(|n| death(list, format!("f{n}").as_bytes(), b"expired", 1)));
        for own in 1..=40 {
            message = die(&message, &format!("q{own}"), DeadLetterReason::Expired, true);
            let kept = if own > usize::from(OWN_DEATHS_MAX) { 0 } else { PUBLISHED_DEATHS_MAX };
            assert_eq!(read(&message).len(), own + kept);
            assert!((1..=own).all(|own| would_cycle(
                &message,
                format!("q{own}").as_bytes(),
                DeadLetterReason::Expired
            )));
            assert!(!would_cycle(&message, b"f0", DeadLetterReason::Expired));
        }
    }
}
