//! Dead letters: how an entry leaves, and what is written into the copies' headers.
//!
//! A durable original is kept as leaving until its copies are safe; whatever else dies is handed out and forgotten.
//! Where copies go is the driver's business.

use super::effect::{Effects, QueueEffect};
use super::entry::{EntryState, Slot, leaving_number};
use super::input::Origin;
use super::state::QueueState;
use crate::model::{Message, Name, Now, Position, WallMillis};
use crate::wire::properties::{Properties, PropertiesWriter, Property};
use crate::wire::table::{Array, Table, TableWriter, Value};

/// Why a message died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadLetterReason {
    /// `basic.reject` or `basic.nack` without requeue.
    Rejected,
    /// Its time to live was over.
    Expired,
    /// The queue was full.
    MaxLength,
}

impl DeadLetterReason {
    /// As `x-death` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
        }
    }
}

/// Where a leaving entry's row lies.
pub(super) struct Leaving {
    pub(super) level: u8,
    pub(super) position: Position,
}

impl QueueState {
    /// Hands a dying message out, if the queue has an exchange for them. Some when the original is kept until its copies are
    /// safe; none when it can go at once.
    pub(super) fn begin_leaving(&mut self, slot: Slot, reason: DeadLetterReason, out: &mut Effects) -> Option<Leaving> {
        self.settings.dead_letter_exchange.as_ref()?;
        let message = self.entries.at(slot).message.clone();
        if !self.entries.at(slot).is_durable() {
            out.effects.push(QueueEffect::DeadLetter { message, reason, leaving: None });
            return None;
        }
        let generation = self.entries.next_generation();
        let entry = self.entries.at_mut(slot);
        entry.state = EntryState::Leaving { generation, copies: None, settled: 0 };
        let leaving = Some(Origin { queue: self.settings.id, leaving: leaving_number(slot, generation) });
        let (level, position) = (entry.level, entry.order.position);
        out.effects.push(QueueEffect::DeadLetter { message, reason, leaving });
        Some(Leaving { level, position })
    }

    /// So many copies were made; with none the original can go.
    pub(super) fn copies_made(&mut self, number: u64, made: u32, now: Now, out: &mut Effects) {
        self.leaving_changed(number, now, out, |copies, _| *copies = Some(made));
    }

    /// One copy is safe.
    pub(super) fn copy_settled(&mut self, number: u64, now: Now, out: &mut Effects) {
        self.leaving_changed(number, now, out, |_, settled| *settled += 1);
    }

    /// One copy will be safe with what is handed to the store next; the original's slot when it was the last one.
    pub(super) fn one_copy_settled(&mut self, number: u64) -> Option<Slot> {
        self.change_leaving(number, |_, settled| *settled += 1)
    }

    fn leaving_changed(
        &mut self,
        number: u64,
        now: Now,
        out: &mut Effects,
        change: impl FnOnce(&mut Option<u32>, &mut u32),
    ) {
        if let Some(slot) = self.change_leaving(number, change) {
            self.remove(slot, now.monotonic, out);
        }
    }

    fn change_leaving(&mut self, number: u64, change: impl FnOnce(&mut Option<u32>, &mut u32)) -> Option<Slot> {
        let slot = self.entries.leaving(number)?;
        let EntryState::Leaving { copies, settled, .. } = &mut self.entries.at_mut(slot).state else { return None };
        change(copies, settled);
        copies.is_some_and(|copies| *settled >= copies).then_some(slot)
    }
}

const DEATHS: &[u8] = b"x-death";
const FIRST: [&[u8]; 3] = [b"x-first-death-exchange", b"x-first-death-queue", b"x-first-death-reason"];
const LAST: [&[u8]; 3] = [b"x-last-death-exchange", b"x-last-death-queue", b"x-last-death-reason"];

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

/// The deaths that brokers wrote into a message; what a publisher wrote there does not count.
fn deaths(message: &Message) -> Vec<Death<'_>> {
    if !message.is_dead_letter() {
        return Vec::new();
    }
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

/// Whether handing the copy to `target` would close a circle that no client had a part in: it died there before, and since
/// then never because a client rejected it.
pub fn would_cycle(copy: &Message, target: &[u8], reason: DeadLetterReason) -> bool {
    if reason == DeadLetterReason::Rejected {
        return false;
    }
    let deaths = deaths(copy);
    let Some(at) = deaths.iter().position(|death| death.queue == target) else { return false };
    deaths[..=at].iter().all(|death| death.reason != DeadLetterReason::Rejected.name().as_bytes())
}

/// The copy of a dead message as it is published to the dead-letter exchange: re-addressed, without expiration, with
/// the death written into its headers. Field order and contents as RabbitMQ 3.13 and later have them.
pub fn dead_letter_copy(
    message: &Message,
    queue: &Name,
    reason: DeadLetterReason,
    now: WallMillis,
    exchange: &Name,
    routing_key: Option<&Name>,
) -> Message {
    let properties = message.properties();
    let mut deaths = deaths(message);
    let reason = reason.name().as_bytes();
    let death = match deaths.iter().position(|death| death.queue == queue.as_bytes() && death.reason == reason) {
        Some(at) => {
            let known = deaths.remove(at);
            Death { count: known.count + 1, ..known }
        }
        None => Death {
            count: 1,
            reason,
            queue: queue.as_bytes(),
            seconds: now.seconds(),
            exchange: message.exchange(),
            routing_keys: RoutingKeys::Own(message.routing_key()),
            original_expiration: properties.expiration(),
        },
    };
    deaths.insert(0, death);

    let died = [message.exchange(), queue.as_bytes(), reason];
    let keeps_first = message.is_dead_letter();
    let mut bytes = Vec::new();
    let mut table = TableWriter::new(&mut bytes);
    for entry in properties.headers().into_iter().flatten() {
        let first = FIRST.contains(&entry.key);
        if entry.key != DEATHS && !LAST.contains(&entry.key) && (!first || keeps_first) {
            table.value(entry.key, entry.value);
        }
    }
    table.array(DEATHS, |list| deaths.iter().for_each(|death| list.table(|table| death.write(table))));
    if !keeps_first {
        FIRST.iter().zip(died).for_each(|(key, text)| table.value(key, Value::LongString(text)));
    }
    LAST.iter().zip(died).for_each(|(key, text)| table.value(key, Value::LongString(text)));

    let raw =
        PropertiesWriter::from(&properties).without(Property::Expiration).headers(Table::from_checked(&bytes)).to_vec();
    let properties = Properties::check(&raw).expect("they were just written");
    let routing_key = routing_key.map_or(message.routing_key(), Name::as_bytes);
    message.with_address(exchange.as_bytes(), routing_key, &properties).into_dead_letter()
}
