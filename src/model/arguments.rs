//! Arguments of declarations, bindings and consumers: a field table, compared and printed as RabbitMQ does.

use super::term::Term;
use crate::wire::erlang;
use crate::wire::table::{Entries, Entry, Table, TableWriter, Value};
use std::sync::Arc;

/// Names of the `x-` arguments, here and nowhere else.
pub mod keys {
    /// Exchange: the exchange for messages that this one cannot route.
    pub const ALTERNATE_EXCHANGE: &str = "alternate-exchange";
    /// Queue: milliseconds that a message may wait.
    pub const MESSAGE_TTL: &str = "x-message-ttl";
    /// Queue: milliseconds that an unused queue lives.
    pub const EXPIRES: &str = "x-expires";
    /// Queue: how many ready messages it holds.
    pub const MAX_LENGTH: &str = "x-max-length";
    /// Queue: how many body bytes of ready messages it holds.
    pub const MAX_LENGTH_BYTES: &str = "x-max-length-bytes";
    /// Queue: what happens beyond its limits.
    pub const OVERFLOW: &str = "x-overflow";
    /// Queue: the exchange to which dead messages are published.
    pub const DEAD_LETTER_EXCHANGE: &str = "x-dead-letter-exchange";
    /// Queue: the routing key of dead messages.
    pub const DEAD_LETTER_ROUTING_KEY: &str = "x-dead-letter-routing-key";
    /// Queue: the highest priority, 1 to 255.
    pub const MAX_PRIORITY: &str = "x-max-priority";
    /// Queue: classic, quorum or stream.
    pub const QUEUE_TYPE: &str = "x-queue-type";
    /// Queue: default or lazy; no effect.
    pub const QUEUE_MODE: &str = "x-queue-mode";
    /// Queue: 1 or 2; no effect.
    pub const QUEUE_VERSION: &str = "x-queue-version";
    /// Queue: the node of its leader; no effect on one node.
    pub const QUEUE_LEADER_LOCATOR: &str = "x-queue-leader-locator";
    /// Queue: the node of its master; no effect.
    pub const QUEUE_MASTER_LOCATOR: &str = "x-queue-master-locator";
    /// Consumer: its priority.
    pub const CONSUMER_PRIORITY: &str = "x-priority";
    /// Binding of a headers exchange: how its headers are matched.
    pub const MATCH: &str = "x-match";
}

/// A field table that travels: shared and immutable, its entries sorted by key. Repeated keys are kept.
///
/// Two are equal when RabbitMQ treats them as the same: types matter, the order of entries does not, but the order of entries
/// in nested tables does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Arguments(Arc<[u8]>);

impl Arguments {
    /// The value under `key`; the first one of a repeated key.
    pub fn get(&self, key: &str) -> Option<Value<'_>> {
        self.table().get(key.as_bytes())
    }

    /// All pairs, sorted by key.
    pub fn iter(&self) -> Entries<'_> {
        self.table().iter()
    }

    /// Whether there are no arguments.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The arguments as a table.
    pub fn table(&self) -> Table<'_> {
        Table::from_checked(&self.0)
    }

    /// The bytes for the store: a field table with its length.
    pub fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).expect("arguments are bounded by the frame they came in");
        [&length.to_be_bytes()[..], &self.0].concat()
    }

    /// Reads the bytes of `encode`; none if they are not a field table.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (length, entries) = bytes.split_first_chunk()?;
        if usize::try_from(u32::from_be_bytes(*length)).ok()? != entries.len() {
            return None;
        }
        Some(Self::from(Table::check_stored(entries).ok()?.0))
    }

    /// These arguments and one more.
    ///
    /// # Panics
    /// When `key` is longer than a shortstr may be (255 bytes).
    #[must_use]
    pub fn with(&self, key: &str, value: Value<'_>) -> Self {
        let mut bytes = self.0.to_vec();
        TableWriter::new(&mut bytes).value(key.as_bytes(), value);
        Self::from(Table::from_checked(&bytes))
    }
}

impl From<Table<'_>> for Arguments {
    fn from(table: Table<'_>) -> Self {
        Self(table.sorted().into())
    }
}

impl<'a> IntoIterator for &'a Arguments {
    type Item = Entry<'a>;
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}

/// The bytes of a long string.
pub fn long_string(value: Value<'_>) -> Option<&[u8]> {
    match value {
        Value::LongString(text) => Some(text),
        _ => None,
    }
}

/// Whether two values of an argument are the same when a queue or exchange is declared again.
pub fn equivalent(one: Value<'_>, other: Value<'_>) -> bool {
    Term::of(one) == Term::of(other)
}

/// The value as error texts print it, without its type.
pub fn printed(value: Value<'_>) -> String {
    match value {
        Value::LongString(bytes) | Value::ByteArray(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => erlang::Term(other).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    fn with_length(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag][..], &u32::try_from(content.len()).unwrap().to_be_bytes(), content].concat()
    }

    fn entry(key: &str, value: &[u8]) -> Vec<u8> {
        [&[u8::try_from(key.len()).unwrap()][..], key.as_bytes(), value].concat()
    }

    /// The bytes of values, of few enough different ones that many are equal.
    fn value() -> impl Strategy<Value = Vec<u8>> {
        let number = |tag: u8, bytes: &[u8]| [&[tag][..], bytes].concat();
        let flat = vec![
            number(b'b', &[1]),
            number(b'B', &[1]),
            number(b's', &1_i16.to_be_bytes()),
            number(b'u', &2_u16.to_be_bytes()),
            number(b'I', &1_i32.to_be_bytes()),
            number(b'I', &(-1_i32).to_be_bytes()),
            number(b'i', &2_u32.to_be_bytes()),
            number(b'l', &1_i64.to_be_bytes()),
            number(b'L', &1_i64.to_be_bytes()),
            number(b'T', &1_u64.to_be_bytes()),
            number(b'T', &u64::MAX.to_be_bytes()),
            number(b'f', &1_f32.to_be_bytes()),
            number(b'd', &1_f64.to_be_bytes()),
            number(b'f', &0.1_f32.to_be_bytes()),
            number(b'd', &0.1_f64.to_be_bytes()),
            number(b't', &[1]),
            number(b't', &[7]),
            number(b't', &[0]),
            number(b'V', &[]),
            number(b'D', &[0, 0, 0, 0, 1]),
            number(b'D', &[1, 0, 0, 0, 10]),
            with_length(b'S', b"1"),
            with_length(b'x', b"1"),
            with_length(b'S', b""),
            with_length(b'x', b""),
        ];
        select(flat).prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..3).prop_map(|values| with_length(b'A', &values.concat())),
                vec((select(&["k", "l"][..]), inner), 0..3).prop_map(|entries| {
                    let entries: Vec<_> = entries.iter().map(|(key, value)| entry(key, value)).collect();
                    with_length(b'F', &entries.concat())
                }),
            ]
        })
    }

    fn entries() -> impl Strategy<Value = Vec<Vec<u8>>> {
        vec((select(&["a", "b", "c"][..]), value()).prop_map(|(key, value)| entry(key, &value)), 0..5)
    }

    fn arguments(entries: &[Vec<u8>]) -> Arguments {
        Table::check(&entries.concat()).expect("written above").0.into()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4000))]

        #[test]
        fn arguments_are_equivalent_when_erlang_prints_the_same_term(one in value(), other in value()) {
            let (one, other) = (entry("k", &one), entry("k", &other));
            let value = |bytes| Table::check(bytes).expect("written above").0.get(b"k").expect("written above");
            let printed = |value| erlang::Term(value).to_string();
            let (one, other) = (value(&one), value(&other));
            prop_assert_eq!(equivalent(one, other), printed(one) == printed(other));
            prop_assert!(equivalent(one, one));
        }

        #[test]
        fn arguments_differ_by_everything_but_the_order_of_keys(
            (entries, shuffled) in entries().prop_flat_map(|entries| (Just(entries.clone()), Just(entries).prop_shuffle())),
        ) {
            let by_key = |entries: &[Vec<u8>]| {
                let normal = |entry: &Vec<u8>| Table::from_checked(entry).normalised().into_owned();
                let mut entries: Vec<_> = entries.iter().map(normal).collect();
                entries.sort_by_key(|entry| entry[1]);
                entries
            };
            let same = by_key(&entries) == by_key(&shuffled);
            prop_assert_eq!(arguments(&entries) == arguments(&shuffled), same);
        }

        #[test]
        fn the_store_gives_back_the_same_arguments(entries in entries()) {
            let arguments = arguments(&entries);
            prop_assert_eq!(arguments.iter().count(), entries.len());
            prop_assert_eq!(Arguments::decode(&arguments.encode()), Some(arguments.clone()));
            prop_assert_eq!(Arguments::decode(&arguments.encode()[1..]), None);
        }
    }
}
