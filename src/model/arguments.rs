//! Arguments of declarations, bindings and consumers: a field table, compared and printed as RabbitMQ does.

use crate::wire::table;
use amq_protocol::types::generation::gen_field_table;
use amq_protocol::types::parsing::parse_field_table;
use amq_protocol::types::{AMQPValue, FieldTable, ShortString};
use cookie_factory::WriteContext;
use std::sync::Arc;

/// Names of the `x-` arguments, here and nowhere else.
pub mod keys {
    /// Exchange: where messages go that the exchange itself cannot route.
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
    /// Queue: where dead messages are published.
    pub const DEAD_LETTER_EXCHANGE: &str = "x-dead-letter-exchange";
    /// Queue: under which key they are published.
    pub const DEAD_LETTER_ROUTING_KEY: &str = "x-dead-letter-routing-key";
    /// Queue: the highest priority, 1 to 255.
    pub const MAX_PRIORITY: &str = "x-max-priority";
    /// Queue: classic, quorum or stream.
    pub const QUEUE_TYPE: &str = "x-queue-type";
    /// Queue: default or lazy; no effect.
    pub const QUEUE_MODE: &str = "x-queue-mode";
    /// Queue: 1 or 2; no effect.
    pub const QUEUE_VERSION: &str = "x-queue-version";
    /// Queue: where its leader lives; no effect on one node.
    pub const QUEUE_LEADER_LOCATOR: &str = "x-queue-leader-locator";
    /// Queue: where its master lives; no effect.
    pub const QUEUE_MASTER_LOCATOR: &str = "x-queue-master-locator";
    /// Consumer: its priority.
    pub const CONSUMER_PRIORITY: &str = "x-priority";
    /// Binding of a headers exchange: how its headers are matched.
    pub const MATCH: &str = "x-match";
}

/// A field table that travels: shared, immutable, sorted by key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments(Arc<FieldTable>);

impl Arguments {
    /// The value under `key`.
    pub fn get(&self, key: &str) -> Option<&AMQPValue> {
        self.0.inner().get(key)
    }

    /// All pairs, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &AMQPValue)> {
        self.0.inner().iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.inner().is_empty()
    }

    /// The table itself.
    pub fn table(&self) -> &FieldTable {
        &self.0
    }

    /// As a field table on the wire, with its length, for the store.
    pub fn encode(&self) -> Vec<u8> {
        let (bytes, _) = gen_field_table(&self.0)(WriteContext::from(Vec::new()))
            .expect("writing to memory does not fail")
            .into_inner();
        bytes
    }

    /// Reads back what `encode` wrote; none when the bytes are no field table.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        table::check(bytes.get(4..)?).ok()?;
        let (rest, table) = parse_field_table(bytes).ok()?;
        rest.is_empty().then(|| Self::from(table))
    }

    /// These arguments and one more.
    #[must_use]
    pub fn with(&self, key: &str, value: AMQPValue) -> Self {
        let mut table = (*self.0).clone();
        table.insert(ShortString::from(key), value);
        Self(Arc::new(table))
    }
}

impl From<FieldTable> for Arguments {
    fn from(table: FieldTable) -> Self {
        Self(Arc::new(table))
    }
}

/// The name that error texts give to a value's type (`longstr`, `signedint`, ...).
pub fn type_name(value: &AMQPValue) -> &'static str {
    match value {
        AMQPValue::Boolean(_) => "bool",
        AMQPValue::ShortShortInt(_) => "byte",
        AMQPValue::ShortShortUInt(_) => "unsignedbyte",
        AMQPValue::ShortInt(_) => "short",
        AMQPValue::ShortUInt(_) => "unsignedshort",
        AMQPValue::LongInt(_) => "signedint",
        AMQPValue::LongUInt(_) => "unsignedint",
        AMQPValue::LongLongInt(_) => "long",
        AMQPValue::Float(_) => "float",
        AMQPValue::Double(_) => "double",
        AMQPValue::DecimalValue(_) => "decimal",
        AMQPValue::ShortString(_) | AMQPValue::LongString(_) => "longstr",
        AMQPValue::FieldArray(_) => "array",
        AMQPValue::Timestamp(_) => "timestamp",
        AMQPValue::FieldTable(_) => "table",
        AMQPValue::ByteArray(_) => "binary",
        AMQPValue::Void => "void",
    }
}

/// The value as an integer, for the types that count as one class when arguments are compared.
pub fn integer(value: &AMQPValue) -> Option<i64> {
    match *value {
        AMQPValue::ShortShortInt(n) => Some(n.into()),
        AMQPValue::ShortShortUInt(n) => Some(n.into()),
        AMQPValue::ShortInt(n) => Some(n.into()),
        AMQPValue::ShortUInt(n) => Some(n.into()),
        AMQPValue::LongInt(n) => Some(n.into()),
        AMQPValue::LongUInt(n) => Some(n.into()),
        AMQPValue::LongLongInt(n) => Some(n),
        _ => None,
    }
}

/// The bytes of a long string.
pub fn long_string(value: &AMQPValue) -> Option<&[u8]> {
    match value {
        AMQPValue::LongString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// Whether two values of an argument count as the same: integers by value whatever their width, others exactly.
pub fn equivalent(one: &AMQPValue, other: &AMQPValue) -> bool {
    match (integer(one), integer(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => one == other,
        _ => false,
    }
}

/// The value as error texts print it, without its type.
pub fn printed(value: &AMQPValue) -> String {
    if let Some(number) = integer(value) {
        return number.to_string();
    }
    match value {
        AMQPValue::Boolean(flag) => flag.to_string(),
        AMQPValue::Float(number) => number.to_string(),
        AMQPValue::Double(number) => number.to_string(),
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::Timestamp(seconds) => seconds.to_string(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into_owned(),
        AMQPValue::Void => "undefined".to_owned(),
        AMQPValue::DecimalValue(_) | AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) => {
            format!("{value:?}")
        }
        AMQPValue::ShortShortInt(_)
        | AMQPValue::ShortShortUInt(_)
        | AMQPValue::ShortInt(_)
        | AMQPValue::ShortUInt(_)
        | AMQPValue::LongInt(_)
        | AMQPValue::LongUInt(_)
        | AMQPValue::LongLongInt(_) => unreachable!("integers were printed above"),
    }
}
