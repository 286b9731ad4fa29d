//! The headers exchange: binding arguments against message headers.
//!
//! `x-match` says how: `all` (also when absent) and `any` leave out arguments that begin with `x-`; `all-with-x` and
//! `any-with-x` count them, except `x-match` itself. A publish asks every binding, as there is no key to look it up by.

use ahash::AHashMap;
use amq_protocol::types::AMQPValue;
use smallvec::SmallVec;

use super::binding::Destination;
use crate::model::arguments::{self, keys};
use crate::model::{AmqpError, Arguments};
use crate::wire::erlang::Binary;
use crate::wire::table::{Entry, Table, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MatchKind {
    All,
    Any,
    AllWithX,
    AnyWithX,
}

impl MatchKind {
    fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            b"all" => Some(Self::All),
            b"any" => Some(Self::Any),
            b"all-with-x" => Some(Self::AllWithX),
            b"any-with-x" => Some(Self::AnyWithX),
            _ => None,
        }
    }

    /// Whether an argument of this name is compared.
    fn counts(self, key: &str) -> bool {
        match self {
            Self::All | Self::Any => !key.starts_with("x-"),
            Self::AllWithX | Self::AnyWithX => key != keys::MATCH,
        }
    }
}

/// Whether the arguments of a binding say how to match, or leave it out.
pub(super) fn validate(arguments: &Arguments) -> Result<(), AmqpError> {
    let Some(value) = arguments.get(keys::MATCH) else { return Ok(()) };
    let Some(name) = arguments::long_string(value) else {
        let printed = match value {
            AMQPValue::ByteArray(bytes) => Binary(bytes.as_slice()).to_string(),
            other => arguments::printed(other),
        };
        return Err(AmqpError::precondition_failed(format!(
            "Invalid x-match field type {} (value {printed}); expected longstr",
            arguments::type_name(value)
        )));
    };
    if MatchKind::from_name(name).is_some() {
        return Ok(());
    }
    Err(AmqpError::precondition_failed(format!(
        "Invalid x-match field value {}; expected all, any, all-with-x, or any-with-x",
        Binary(name)
    )))
}

#[derive(Clone, Debug)]
struct Pattern {
    kind: MatchKind,
    arguments: Arguments,
}

impl Pattern {
    fn new(arguments: Arguments) -> Self {
        let named = arguments.get(keys::MATCH).and_then(arguments::long_string);
        // Validated when it was bound; RabbitMQ too reads anything else as `all`.
        let kind = named.and_then(MatchKind::from_name).unwrap_or(MatchKind::All);
        Self { kind, arguments }
    }

    fn matches(&self, headers: &SortedHeaders<'_>) -> bool {
        let mut compared = self.arguments.iter().filter(|(key, _)| self.kind.counts(key));
        let holds = |(key, expected): (&str, &AMQPValue)| {
            headers.get(key.as_bytes()).is_some_and(|found| agrees(expected, found))
        };
        match self.kind {
            MatchKind::All | MatchKind::AllWithX => compared.all(holds),
            MatchKind::Any | MatchKind::AnyWithX => compared.any(holds),
        }
    }
}

/// The headers of one message, sorted by key; of a repeated key the last value counts.
struct SortedHeaders<'m>(SmallVec<[Entry<'m>; 8]>);

impl<'m> SortedHeaders<'m> {
    fn new(headers: Option<Table<'m>>) -> Self {
        let mut entries: SmallVec<[Entry<'m>; 8]> = headers.into_iter().flat_map(|table| table.iter()).collect();
        entries.reverse();
        entries.sort_by_key(|entry| entry.key);
        entries.dedup_by_key(|entry| entry.key);
        Self(entries)
    }

    fn get(&self, key: &[u8]) -> Option<Value<'m>> {
        let at = self.0.binary_search_by_key(&key, |entry| entry.key).ok()?;
        Some(self.0[at].value)
    }
}

/// Whether a header has the value that a binding asks for: void asks for any, otherwise class and value must agree
/// (integers of every width are one class, as are both kinds of float and both kinds of string).
///
/// As in RabbitMQ 4 a timestamp is an integer, of seconds in a binding and of milliseconds in a header.
fn agrees(expected: &AMQPValue, found: Value<'_>) -> bool {
    if let Some(expected) = integer_of_binding(expected) {
        return integer_of_header(found) == Some(expected);
    }
    match (expected, found) {
        (AMQPValue::Void, _) => true,
        (AMQPValue::Float(expected), found) => float_of_header(found) == Some(f64::from(*expected)),
        (AMQPValue::Double(expected), found) => float_of_header(found) == Some(*expected),
        (AMQPValue::LongString(expected), Value::LongString(found) | Value::ByteArray(found)) => {
            expected.as_bytes() == found
        }
        (AMQPValue::ByteArray(expected), Value::LongString(found) | Value::ByteArray(found)) => {
            expected.as_slice() == found
        }
        (expected, found) => is_identical(expected, found),
    }
}

fn integer_of_binding(value: &AMQPValue) -> Option<i128> {
    match value {
        AMQPValue::Timestamp(seconds) => Some((*seconds).into()),
        other => arguments::integer(other).map(i128::from),
    }
}

fn integer_of_header(value: Value<'_>) -> Option<i128> {
    match value {
        Value::Timestamp(seconds) => Some(i128::from(seconds) * 1000),
        other => other.as_integer().map(i128::from),
    }
}

fn float_of_header(value: Value<'_>) -> Option<f64> {
    match value {
        Value::F32(number) => Some(number.into()),
        Value::F64(number) => Some(number),
        _ => None,
    }
}

/// Whether type and value are the same: inside arrays and tables types count. Recurses as deep as the checked header
/// nests.
fn is_identical(expected: &AMQPValue, found: Value<'_>) -> bool {
    match (expected, found) {
        (AMQPValue::Boolean(expected), Value::Bool(found)) => *expected == found,
        (AMQPValue::ShortShortInt(expected), Value::I8(found)) => *expected == found,
        (AMQPValue::ShortShortUInt(expected), Value::U8(found)) => *expected == found,
        (AMQPValue::ShortInt(expected), Value::I16(found)) => *expected == found,
        (AMQPValue::ShortUInt(expected), Value::U16(found)) => *expected == found,
        (AMQPValue::LongInt(expected), Value::I32(found)) => *expected == found,
        (AMQPValue::LongUInt(expected), Value::U32(found)) => *expected == found,
        (AMQPValue::LongLongInt(expected), Value::I64(found)) => *expected == found,
        (AMQPValue::Float(expected), Value::F32(found)) => *expected == found,
        (AMQPValue::Double(expected), Value::F64(found)) => *expected == found,
        (AMQPValue::DecimalValue(expected), Value::Decimal { scale, value }) => {
            expected.scale == scale && expected.value == value
        }
        (AMQPValue::LongString(expected), Value::LongString(found)) => expected.as_bytes() == found,
        (AMQPValue::ByteArray(expected), Value::ByteArray(found)) => expected.as_slice() == found,
        (AMQPValue::Timestamp(expected), Value::Timestamp(found)) => *expected == found,
        (AMQPValue::Void, Value::Void) => true,
        (AMQPValue::FieldArray(expected), Value::Array(found)) => {
            let expected = expected.as_slice();
            expected.len() == found.iter().count()
                && expected.iter().zip(found.iter()).all(|(expected, found)| is_identical(expected, found))
        }
        (AMQPValue::FieldTable(expected), Value::Table(found)) => {
            let expected = expected.inner();
            expected.len() == found.iter().count()
                && found.iter().all(|entry| {
                    let named = std::str::from_utf8(entry.key).ok().and_then(|key| expected.get(key));
                    named.is_some_and(|expected| is_identical(expected, entry.value))
                })
        }
        _ => false,
    }
}

/// The patterns of each destination.
#[derive(Clone, Debug, Default)]
pub(super) struct Headers {
    by_destination: AHashMap<Destination, SmallVec<[Pattern; 1]>>,
}

impl Headers {
    pub(super) fn add(&mut self, destination: Destination, arguments: Arguments) {
        self.by_destination.entry(destination).or_default().push(Pattern::new(arguments));
    }

    /// Removes one pattern with these arguments; those of bindings that differ in their key only are interchangeable.
    pub(super) fn remove(&mut self, destination: &Destination, arguments: &Arguments) {
        let Some(patterns) = self.by_destination.get_mut(destination) else { return };
        if let Some(at) = patterns.iter().position(|pattern| pattern.arguments == *arguments) {
            patterns.swap_remove(at);
        }
        if patterns.is_empty() {
            self.by_destination.remove(destination);
        }
    }

    pub(super) fn route<'a>(&'a self, headers: Option<Table<'_>>, out: &mut impl FnMut(&'a Destination)) {
        if self.by_destination.is_empty() {
            return;
        }
        let headers = SortedHeaders::new(headers);
        for (destination, patterns) in &self.by_destination {
            if patterns.iter().any(|pattern| pattern.matches(&headers)) {
                out(destination);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::binding::tests::{queue, routed};
    use crate::routing::{Binding, Bindings, ExchangeKind};
    use crate::wire::table::TableWriter;
    use amq_protocol::types::{DecimalValue, FieldArray, FieldTable, LongString};

    fn arguments(entries: &[(&str, AMQPValue)]) -> Arguments {
        let mut table = FieldTable::default();
        for (key, value) in entries {
            table.insert((*key).into(), value.clone());
        }
        table.into()
    }

    fn text(value: &str) -> AMQPValue {
        AMQPValue::LongString(LongString::from(value))
    }

    fn goes_through(entries: &[(&str, AMQPValue)], headers: &[(&str, Value<'_>)]) -> bool {
        let mut bindings = Bindings::new(ExchangeKind::Headers);
        let binding = Binding { destination: queue("q"), routing_key: "ignored".into(), arguments: arguments(entries) };
        bindings.validate(&binding).unwrap();
        bindings.bind(binding);
        let mut bytes = Vec::new();
        let mut writer = TableWriter::new(&mut bytes);
        for (key, value) in headers {
            writer.value(key.as_bytes(), *value);
        }
        let table = Table::check(&bytes).unwrap().0;
        !routed(&bindings, "", Some(table)).is_empty()
    }

    const A1: (&str, Value<'_>) = ("a", Value::I32(1));
    const B2: (&str, Value<'_>) = ("b", Value::I32(2));
    const X3: (&str, Value<'_>) = ("x-c", Value::I32(3));

    fn spec(x_match: Option<&str>) -> Vec<(&'static str, AMQPValue)> {
        let mut entries =
            vec![("a", AMQPValue::LongInt(1)), ("b", AMQPValue::LongInt(2)), ("x-c", AMQPValue::LongInt(3))];
        entries.extend(x_match.map(|name| ("x-match", text(name))));
        entries
    }

    #[test]
    fn all_wants_every_argument_but_those_with_x() {
        for named in [None, Some("all")] {
            assert!(goes_through(&spec(named), &[A1, B2]));
            assert!(goes_through(&spec(named), &[B2, ("more", Value::Void), A1]));
            assert!(!goes_through(&spec(named), &[A1]));
            assert!(!goes_through(&spec(named), &[A1, ("b", Value::I32(3))]));
            assert!(!goes_through(&spec(named), &[]));
        }
    }

    #[test]
    fn any_wants_one_argument_but_not_one_with_x() {
        assert!(goes_through(&spec(Some("any")), &[A1]));
        assert!(goes_through(&spec(Some("any")), &[B2, ("a", Value::I32(7))]));
        assert!(!goes_through(&spec(Some("any")), &[X3]));
        assert!(!goes_through(&spec(Some("any")), &[]));
    }

    #[test]
    fn with_x_counts_the_arguments_with_x_except_x_match() {
        assert!(goes_through(&spec(Some("all-with-x")), &[A1, B2, X3]));
        assert!(!goes_through(&spec(Some("all-with-x")), &[A1, B2]));
        assert!(goes_through(&spec(Some("any-with-x")), &[X3]));
        assert!(!goes_through(&[("x-match", text("any-with-x"))], &[("x-match", Value::LongString(b"any-with-x"))]));
    }

    #[test]
    fn all_of_nothing_matches_everything_and_any_of_nothing_matches_nothing() {
        assert!(goes_through(&[], &[]));
        assert!(goes_through(&[("x-only", AMQPValue::Void)], &[A1]));
        assert!(!goes_through(&[("x-match", text("any"))], &[A1]));
        let mut bindings = Bindings::new(ExchangeKind::Headers);
        let binding = Binding { destination: queue("q"), routing_key: "".into(), arguments: arguments(&[]) };
        bindings.bind(binding);
        assert_eq!(routed(&bindings, "", None), ["q"], "a message without headers has none that could differ");
    }

    #[test]
    fn values_agree_within_their_class_only() {
        let agree = |expected: AMQPValue, found: Value<'_>| goes_through(&[("a", expected)], &[("a", found)]);
        let integers =
            [Value::I8(5), Value::U8(5), Value::I16(5), Value::U16(5), Value::I32(5), Value::U32(5), Value::I64(5)];
        for found in integers {
            assert!(agree(AMQPValue::LongInt(5), found));
            assert!(agree(AMQPValue::ShortShortUInt(5), found));
            assert!(!agree(AMQPValue::Double(5.0), found));
            assert!(!agree(text("5"), found));
            assert!(agree(AMQPValue::Void, found));
        }
        assert!(agree(AMQPValue::Float(1.5), Value::F64(1.5)));
        assert!(agree(AMQPValue::Double(1.5), Value::F32(1.5)));
        assert!(!agree(AMQPValue::Double(1.5), Value::F32(2.5)));
        assert!(agree(text("v"), Value::LongString(b"v")));
        assert!(agree(text("v"), Value::ByteArray(b"v")));
        assert!(agree(AMQPValue::ByteArray(b"v".to_vec().into()), Value::LongString(b"v")));
        assert!(!agree(text("v"), Value::LongString(b"V")));
        assert!(agree(AMQPValue::Boolean(true), Value::Bool(true)));
        assert!(!agree(AMQPValue::Boolean(true), Value::I32(1)));
        assert!(!agree(AMQPValue::LongInt(0), Value::Void));
        let decimal = AMQPValue::DecimalValue(DecimalValue { scale: 1, value: 15 });
        assert!(agree(decimal.clone(), Value::Decimal { scale: 1, value: 15 }));
        assert!(!agree(decimal, Value::F64(1.5)));
    }

    #[test]
    fn a_timestamp_of_a_header_counts_in_milliseconds() {
        let agree = |expected: AMQPValue, found: Value<'_>| goes_through(&[("a", expected)], &[("a", found)]);
        assert!(!agree(AMQPValue::Timestamp(5), Value::Timestamp(5)));
        assert!(agree(AMQPValue::LongInt(5000), Value::Timestamp(5)));
        assert!(!agree(AMQPValue::LongInt(-1), Value::Timestamp(u64::MAX)));
    }

    #[test]
    fn inside_arrays_and_tables_types_count() {
        let mut list = FieldArray::default();
        list.push(AMQPValue::LongInt(5));
        let expected = AMQPValue::FieldArray(list);
        let bytes = |value: Value<'_>| {
            let mut bytes = Vec::new();
            TableWriter::new(&mut bytes).array(b"a", |array| array.value(value));
            bytes
        };
        for (value, same) in [(Value::I32(5), true), (Value::I64(5), false), (Value::I32(6), false)] {
            let bytes = bytes(value);
            let table = Table::check(&bytes).unwrap().0;
            assert_eq!(agrees(&expected, table.get(b"a").unwrap()), same, "{value:?}");
        }
        let mut inner = FieldTable::default();
        inner.insert("k".into(), AMQPValue::Boolean(true));
        let expected = AMQPValue::FieldTable(inner);
        for (key, same) in [(b"k", true), (b"l", false)] {
            let mut bytes = Vec::new();
            TableWriter::new(&mut bytes).table(b"a", |table| table.value(key, Value::Bool(true)));
            let table = Table::check(&bytes).unwrap().0;
            assert_eq!(agrees(&expected, table.get(b"a").unwrap()), same);
        }
    }

    #[test]
    fn the_last_of_repeated_headers_counts() {
        let expected = [("a", AMQPValue::LongInt(2))];
        assert!(goes_through(&expected, &[("a", Value::I32(1)), ("a", Value::I32(2))]));
        assert!(!goes_through(&expected, &[("a", Value::I32(2)), ("a", Value::I32(1))]));
    }

    #[test]
    fn an_unknown_x_match_is_refused_in_rabbitmqs_words() {
        let text_of = |value: AMQPValue| validate(&arguments(&[("x-match", value)])).unwrap_err().reply_text();
        assert_eq!(
            text_of(text("x")),
            "PRECONDITION_FAILED - Invalid x-match field value <<\"x\">>; expected all, any, all-with-x, or any-with-x"
        );
        assert_eq!(
            text_of(AMQPValue::LongInt(1)),
            "PRECONDITION_FAILED - Invalid x-match field type signedint (value 1); expected longstr"
        );
        assert_eq!(
            text_of(AMQPValue::ByteArray(b"all".to_vec().into())),
            "PRECONDITION_FAILED - Invalid x-match field type binary (value <<\"all\">>); expected longstr"
        );
    }
}
