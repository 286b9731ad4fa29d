//! The headers exchange: binding arguments against message headers.
//!
//! `x-match` selects the rule: `all` (the default) and `any` ignore arguments that begin with `x-`; `all-with-x` and
//! `any-with-x` compare them, except `x-match` itself.
//!
//! Each header of a message is looked up in an index. A pattern that requires any of its arguments is indexed by each of them,
//! and one look-up decides. A pattern that requires all is indexed once, by the argument that the fewest other patterns had
//! when it was bound: the other arguments are compared only if that one agrees.

use ahash::{AHashMap, AHashSet};
use smallvec::SmallVec;

use super::header_index::{HeaderIndex, Requirement};
use super::kind::Destination;
use super::slots::{Slot, Slots};
use crate::model::arguments::{self, keys};
use crate::model::term::{Scalar, Term};
use crate::model::{AmqpError, Arguments};
use crate::wire::erlang;
use crate::wire::table::{Table, Value};

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

    /// How these arguments are to be matched.
    fn of(arguments: &Arguments) -> Self {
        let named = arguments.get(keys::MATCH).and_then(arguments::long_string);
        // The binding was validated; RabbitMQ too reads any other text as `all`.
        named.and_then(Self::from_name).unwrap_or(Self::All)
    }

    /// Whether an argument of this name is compared.
    fn counts(self, key: &[u8]) -> bool {
        match self {
            Self::All | Self::Any => !key.starts_with(b"x-"),
            Self::AllWithX | Self::AnyWithX => key != keys::MATCH.as_bytes(),
        }
    }
}

/// Checks that `x-match` of a binding is known, or absent.
pub(super) fn validate(arguments: &Arguments) -> Result<(), AmqpError> {
    let Some(value) = arguments.get(keys::MATCH) else { return Ok(()) };
    let printed = erlang::Term(value);
    let Some(name) = arguments::long_string(value) else {
        return Err(AmqpError::precondition_failed(format!(
            "Invalid x-match field type {} (value {printed}); expected longstr",
            value.type_name()
        )));
    };
    if MatchKind::from_name(name).is_some() {
        return Ok(());
    }
    Err(AmqpError::precondition_failed(format!(
        "Invalid x-match field value {printed}; expected all, any, all-with-x, or any-with-x"
    )))
}

/// The requirements of one binding.
#[derive(Clone, Debug)]
struct Pattern {
    destination: Slot,
    wants_all: bool,
    /// The arguments that are compared, in the order of their keys.
    compared: Box<[Comparison]>,
    /// All arguments; they identify the pattern when it is removed.
    arguments: Arguments,
}

#[derive(Clone, Debug)]
struct Comparison {
    header: Box<[u8]>,
    required: Requirement,
    /// Whether the pattern is in the index under this argument.
    is_indexed: bool,
}

impl Pattern {
    fn new(destination: Slot, arguments: Arguments, index: &HeaderIndex) -> Self {
        let kind = MatchKind::of(&arguments);
        let wants_all = matches!(kind, MatchKind::All | MatchKind::AllWithX);
        let mut compared: Box<[Comparison]> = arguments
            .iter()
            .filter(|entry| kind.counts(entry.key))
            .map(|entry| Comparison {
                header: entry.key.into(),
                required: match entry.value {
                    Value::Void => Requirement::Present,
                    value => Requirement::Value(Term::of(value).into_owned()),
                },
                is_indexed: !wants_all,
            })
            .collect();
        if wants_all {
            let rarest =
                compared.iter_mut().min_by_key(|comparison| index.count(&comparison.header, &comparison.required));
            if let Some(rarest) = rarest {
                rarest.is_indexed = true;
            }
        }
        Self { destination, wants_all, compared, arguments }
    }

    fn indexed(&self) -> impl Iterator<Item = &Comparison> {
        self.compared.iter().filter(|comparison| comparison.is_indexed)
    }

    /// Whether all arguments agree, given that the indexed one does.
    fn others_agree(&self, headers: &Headers<'_>) -> bool {
        self.compared.iter().filter(|comparison| !comparison.is_indexed).all(
            |Comparison { header, required, .. }| match (headers.get(header), required) {
                (None, _) => false,
                (Some(_), Requirement::Present) => true,
                (Some(found), Requirement::Value(required)) => found == required,
            },
        )
    }
}

/// The headers of one message, sorted by key. The last value of a repeated key counts.
struct Headers<'m>(SmallVec<[Header<'m>; 8]>);

struct Header<'m> {
    key: &'m [u8],
    value: Term<'m>,
}

impl<'m> Headers<'m> {
    fn new(headers: Option<Table<'m>>) -> Self {
        let entries = headers.into_iter().flat_map(|table| table.iter());
        let mut headers: SmallVec<[Header<'m>; 8]> =
            entries.map(|entry| Header { key: entry.key, value: term_of_header(entry.value) }).collect();
        headers.reverse();
        headers.sort_by_key(|header| header.key);
        headers.dedup_by_key(|header| header.key);
        Self(headers)
    }

    fn get(&self, key: &[u8]) -> Option<&Term<'m>> {
        let at = self.0.binary_search_by_key(&key, |header| header.key).ok()?;
        Some(&self.0[at].value)
    }
}

/// As in RabbitMQ 4, a timestamp of a header is compared in milliseconds, that of a binding in seconds.
fn term_of_header(value: Value<'_>) -> Term<'_> {
    match value {
        Value::Timestamp(seconds) => Term::Scalar(Scalar::Integer(i128::from(seconds) * 1000)),
        other => Term::of(other),
    }
}

/// The patterns of a headers exchange.
#[derive(Clone, Debug, Default)]
pub(super) struct Patterns {
    patterns: Slots<Pattern>,
    destinations: Slots<Destination>,
    by_destination: AHashMap<Destination, BoundDestination>,
    index: HeaderIndex,
    /// Patterns that require all of no arguments: every message matches them.
    unconditional: AHashSet<Slot>,
}

/// A destination and its patterns.
#[derive(Clone, Debug)]
struct BoundDestination {
    destination: Slot,
    patterns: SmallVec<[Slot; 1]>,
}

impl Patterns {
    pub(super) fn add(&mut self, destination: Destination, arguments: Arguments) {
        let bound = self.by_destination.entry(destination).or_insert_with_key(|destination| BoundDestination {
            destination: self.destinations.insert(destination.clone()),
            patterns: SmallVec::new(),
        });
        let slot = self.patterns.insert(Pattern::new(bound.destination, arguments, &self.index));
        bound.patterns.push(slot);
        let pattern = &self.patterns[slot];
        for Comparison { header, required, .. } in pattern.indexed() {
            self.index.add(header, required, slot);
        }
        if pattern.wants_all && pattern.compared.is_empty() {
            self.unconditional.insert(slot);
        }
    }

    /// Removes one pattern with these arguments; those of bindings that differ in their key only are interchangeable.
    pub(super) fn remove(&mut self, destination: &Destination, arguments: &Arguments) {
        let Some(bound) = self.by_destination.get_mut(destination) else { return };
        let is_wanted = |slot: &Slot| self.patterns[*slot].arguments == *arguments;
        let Some(at) = bound.patterns.iter().position(is_wanted) else { return };
        let slot = bound.patterns.swap_remove(at);
        if bound.patterns.is_empty() {
            self.destinations.remove(bound.destination);
            self.by_destination.remove(destination);
        }
        for Comparison { header, required, .. } in self.patterns.remove(slot).indexed() {
            self.index.remove(header, required, slot);
        }
        self.unconditional.remove(&slot);
    }

    pub(super) fn route<'a>(&'a self, headers: Option<Table<'_>>, out: &mut impl FnMut(&'a Destination)) {
        if self.by_destination.is_empty() {
            return;
        }
        let headers = Headers::new(headers);
        let mut reached = self.destinations.none();
        let found = headers.0.iter().flat_map(|header| self.index.find(header.key, &header.value));
        for slot in found.chain(self.unconditional.iter().copied()) {
            let pattern = &self.patterns[slot];
            if reached.contains(pattern.destination) || pattern.wants_all && !pattern.others_agree(&headers) {
                continue;
            }
            reached.insert(pattern.destination);
            out(&self.destinations[pattern.destination]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::binding::tests::{queue, routed};
    use crate::routing::{Binding, Bindings, ExchangeKind};
    use crate::wire::table::TableWriter;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use std::collections::BTreeSet;

    fn arguments(entries: &[(&str, Value<'_>)]) -> Arguments {
        Table::from_checked(&table(entries)).into()
    }

    fn table(entries: &[(&str, Value<'_>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = TableWriter::new(&mut bytes);
        for (key, value) in entries {
            writer.value(key.as_bytes(), *value);
        }
        bytes
    }

    fn text(value: &str) -> Value<'_> {
        Value::LongString(value.as_bytes())
    }

    fn goes_through(entries: &[(&str, Value<'_>)], headers: &[(&str, Value<'_>)]) -> bool {
        let mut bindings = Bindings::new(ExchangeKind::Headers);
        let binding = Binding { destination: queue("q"), routing_key: "ignored".into(), arguments: arguments(entries) };
        bindings.validate(&binding).unwrap();
        bindings.bind(binding);
        let headers = table(headers);
        let headers = Table::check(&headers).unwrap().0;
        !routed(&bindings, "", Some(headers)).is_empty()
    }

    const A1: (&str, Value<'_>) = ("a", Value::I32(1));
    const B2: (&str, Value<'_>) = ("b", Value::I32(2));
    const X3: (&str, Value<'_>) = ("x-c", Value::I32(3));

    fn spec(x_match: Option<&'static str>) -> Vec<(&'static str, Value<'static>)> {
        let mut entries = vec![A1, B2, X3];
        entries.extend(x_match.map(|name| ("x-match", text(name))));
        entries
    }

    #[test]
    fn all_requires_every_argument_but_those_with_x() {
        for named in [None, Some("all")] {
            assert!(goes_through(&spec(named), &[A1, B2]));
            assert!(goes_through(&spec(named), &[B2, ("more", Value::Void), A1]));
            assert!(!goes_through(&spec(named), &[A1]));
            assert!(!goes_through(&spec(named), &[A1, ("b", Value::I32(3))]));
            assert!(!goes_through(&spec(named), &[]));
        }
    }

    #[test]
    fn any_requires_one_argument_but_not_one_with_x() {
        assert!(goes_through(&spec(Some("any")), &[A1]));
        assert!(goes_through(&spec(Some("any")), &[B2, ("a", Value::I32(7))]));
        assert!(!goes_through(&spec(Some("any")), &[X3]));
        assert!(!goes_through(&spec(Some("any")), &[]));
    }

    #[test]
    fn with_x_compares_the_arguments_with_x_except_x_match() {
        assert!(goes_through(&spec(Some("all-with-x")), &[A1, B2, X3]));
        assert!(!goes_through(&spec(Some("all-with-x")), &[A1, B2]));
        assert!(goes_through(&spec(Some("any-with-x")), &[X3]));
        assert!(!goes_through(&[("x-match", text("any-with-x"))], &[("x-match", Value::LongString(b"any-with-x"))]));
    }

    #[test]
    fn all_of_nothing_matches_everything_and_any_of_nothing_matches_nothing() {
        assert!(goes_through(&[], &[]));
        assert!(goes_through(&[("x-only", Value::Void)], &[A1]));
        assert!(!goes_through(&[("x-match", text("any"))], &[A1]));
        let mut bindings = Bindings::new(ExchangeKind::Headers);
        let binding = Binding { destination: queue("q"), routing_key: "".into(), arguments: arguments(&[]) };
        bindings.bind(binding);
        assert_eq!(routed(&bindings, "", None), ["q"], "a message without headers has none that could differ");
    }

    #[test]
    fn values_agree_within_their_class_only() {
        let agree = |expected: Value<'_>, found: Value<'_>| goes_through(&[("a", expected)], &[("a", found)]);
        let integers =
            [Value::I8(5), Value::U8(5), Value::I16(5), Value::U16(5), Value::I32(5), Value::U32(5), Value::I64(5)];
        for found in integers {
            assert!(agree(Value::I32(5), found));
            assert!(agree(Value::U8(5), found));
            assert!(!agree(Value::F64(5.0), found));
            assert!(!agree(text("5"), found));
            assert!(agree(Value::Void, found));
        }
        assert!(agree(Value::F32(1.5), Value::F64(1.5)));
        assert!(agree(Value::F64(1.5), Value::F32(1.5)));
        assert!(!agree(Value::F64(1.5), Value::F32(2.5)));
        assert!(agree(text("v"), Value::LongString(b"v")));
        assert!(agree(text("v"), Value::ByteArray(b"v")));
        assert!(agree(Value::ByteArray(b"v"), Value::LongString(b"v")));
        assert!(!agree(text("v"), Value::LongString(b"V")));
        assert!(agree(Value::Bool(true), Value::Bool(true)));
        assert!(!agree(Value::Bool(true), Value::I32(1)));
        assert!(!agree(Value::I32(0), Value::Void));
        let decimal = Value::Decimal { scale: 1, value: 15 };
        assert!(agree(decimal, Value::Decimal { scale: 1, value: 15 }));
        assert!(!agree(decimal, Value::F64(1.5)));
    }

    #[test]
    fn a_timestamp_of_a_header_counts_in_milliseconds() {
        let agree = |expected: Value<'_>, found: Value<'_>| goes_through(&[("a", expected)], &[("a", found)]);
        assert!(!agree(Value::Timestamp(5), Value::Timestamp(5)));
        assert!(agree(Value::I32(5000), Value::Timestamp(5)));
        assert!(!agree(Value::I32(-1), Value::Timestamp(u64::MAX)));
    }

    /// The bytes of one value, which `write` writes under the key `a`.
    fn nested(write: impl FnOnce(&mut TableWriter<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut TableWriter::new(&mut bytes));
        bytes
    }

    fn agree(expected: &[u8], found: &[u8]) -> bool {
        let value = |bytes| Table::check(bytes).unwrap().0.get(b"a").unwrap();
        goes_through(&[("a", value(expected))], &[("a", value(found))])
    }

    #[test]
    fn inside_arrays_and_tables_types_count() {
        let list = |value: Value<'_>| nested(|table| table.array(b"a", |array| array.value(value)));
        assert!(agree(&list(Value::I32(5)), &list(Value::I32(5))));
        assert!(!agree(&list(Value::I32(5)), &list(Value::I64(5))));
        assert!(!agree(&list(Value::I32(5)), &list(Value::I32(6))));
        let table = |key: &[u8], value| nested(|table| table.table(b"a", |table| table.value(key, value)));
        assert!(agree(&table(b"k", Value::Bool(true)), &table(b"k", Value::Bool(true))));
        assert!(!agree(&table(b"k", Value::Bool(true)), &table(b"l", Value::Bool(true))));
        let read_as_l = b"\x01aF\0\0\0\x0B\x01kL\0\0\0\0\0\0\0\x05";
        assert!(agree(read_as_l, &table(b"k", Value::I64(5))));
    }

    #[test]
    fn inside_tables_order_and_repeated_keys_count() {
        let table = |entries: &[(&[u8], i32)]| {
            nested(|table| {
                table.table(b"a", |table| entries.iter().for_each(|(key, value)| table.value(key, Value::I32(*value))));
            })
        };
        let twice = table(&[(b"k", 1), (b"k", 2)]);
        assert!(agree(&twice, &twice));
        for other in [&[(&b"k"[..], 2), (b"k", 1)][..], &[(b"k", 1)], &[(b"k", 2)]] {
            assert!(!agree(&twice, &table(other)), "{other:?}");
            assert!(!agree(&table(other), &twice), "{other:?}");
        }
        assert!(!agree(&table(&[(b"k", 1), (b"l", 2)]), &table(&[(b"l", 2), (b"k", 1)])));
    }

    #[test]
    fn an_empty_array_is_an_empty_table_unless_it_lies_in_another() {
        let empty_table = nested(|table| table.table(b"a", |_| {}));
        let empty_array = nested(|table| table.array(b"a", |_| {}));
        let table_inside = nested(|table| table.array(b"a", |array| array.table(|_| {})));
        let inner = Table::from_checked(&empty_array).get(b"a").unwrap();
        let array_inside = nested(|table| table.array(b"a", |array| array.value(inner)));
        assert!(agree(&empty_table, &empty_array));
        assert!(agree(&empty_array, &empty_table));
        assert!(agree(&array_inside, &array_inside));
        assert!(!agree(&array_inside, &table_inside));
    }

    #[test]
    fn the_last_of_repeated_headers_counts() {
        let expected = [("a", Value::I32(2))];
        assert!(goes_through(&expected, &[("a", Value::I32(1)), ("a", Value::I32(2))]));
        assert!(!goes_through(&expected, &[("a", Value::I32(2)), ("a", Value::I32(1))]));
    }

    #[test]
    fn an_unknown_x_match_is_refused_in_rabbitmqs_words() {
        let text_of = |value: Value<'_>| validate(&arguments(&[("x-match", value)])).unwrap_err().reply_text();
        assert_eq!(
            text_of(text("x")),
            "PRECONDITION_FAILED - Invalid x-match field value <<\"x\">>; expected all, any, all-with-x, or any-with-x"
        );
        assert_eq!(
            text_of(Value::I32(1)),
            "PRECONDITION_FAILED - Invalid x-match field type signedint (value 1); expected longstr"
        );
        assert_eq!(
            text_of(Value::ByteArray(b"all")),
            "PRECONDITION_FAILED - Invalid x-match field type binary (value <<\"all\">>); expected longstr"
        );
    }

    const NAMES: [&str; 5] = ["a", "b", "c", "x-a", "x-b"];

    /// Values of every class, chosen so that several agree.
    fn values() -> impl Strategy<Value = Vec<u8>> {
        let of = |value: Value<'_>| nested(|table| table.value(b"a", value));
        let flat = [
            Value::I32(1),
            Value::I64(1),
            Value::U8(2),
            Value::I64(2000),
            Value::Timestamp(2),
            Value::F32(1.5),
            Value::F64(1.5),
            Value::F64(-0.0),
            Value::F64(0.0),
            Value::Bool(true),
            Value::Bool(false),
            Value::Void,
            Value::LongString(b"v"),
            Value::ByteArray(b"v"),
            Value::LongString(b""),
            Value::Decimal { scale: 1, value: 15 },
        ];
        let deep = [
            nested(|table| table.array(b"a", |_| {})),
            nested(|table| table.table(b"a", |_| {})),
            nested(|table| table.array(b"a", |array| array.value(Value::I32(1)))),
            nested(|table| table.array(b"a", |array| array.value(Value::I64(1)))),
            nested(|table| table.table(b"a", |table| table.value(b"k", Value::Void))),
        ];
        select(flat.map(of).into_iter().chain(deep).collect::<Vec<_>>())
    }

    fn entries(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        vec((select(&NAMES[..]), values()), count).prop_map(|entries| {
            let value = |bytes| Table::from_checked(bytes).get(b"a").expect("written above");
            table(&entries.iter().map(|(name, bytes)| (*name, value(bytes))).collect::<Vec<_>>())
        })
    }

    fn spec_of_binding() -> impl Strategy<Value = Arguments> {
        (entries(0..4), proptest::option::of(select(&["all", "any", "all-with-x", "any-with-x"][..]))).prop_map(
            |(entries, kind)| {
                let arguments = Arguments::from(Table::from_checked(&entries));
                kind.map_or(arguments.clone(), |kind| arguments.with("x-match", text(kind)))
            },
        )
    }

    /// RabbitMQ's rule for one binding, without an index.
    fn matches_plainly(arguments: &Arguments, headers: Table<'_>) -> bool {
        let kind = arguments.get("x-match").map_or(&b"all"[..], |kind| arguments::long_string(kind).unwrap());
        let counts = |key: &[u8]| if kind.ends_with(b"-with-x") { key != b"x-match" } else { !key.starts_with(b"x-") };
        let mut compared = arguments.iter().filter(|entry| counts(entry.key)).map(|entry| {
            let last = headers.iter().filter(|header| header.key == entry.key).last();
            last.is_some_and(|header| entry.value == Value::Void || agrees_plainly(entry.value, header.value))
        });
        if kind.starts_with(b"all") { compared.all(|agrees| agrees) } else { compared.any(|agrees| agrees) }
    }

    fn agrees_plainly(required: Value<'_>, found: Value<'_>) -> bool {
        let whole = |value: Value<'_>, scale: u64| match value {
            Value::Timestamp(seconds) => i64::try_from(seconds * scale).ok(),
            other => other.as_integer(),
        };
        let real = |value: Value<'_>| match value {
            Value::F32(number) => Some(f64::from(number)),
            Value::F64(number) => Some(number),
            _ => None,
        };
        let bytes = |value| match value {
            Value::LongString(bytes) | Value::ByteArray(bytes) => Some(bytes),
            _ => None,
        };
        let is_empty = |value| match value {
            Value::Array(array) => array.bytes().is_empty(),
            Value::Table(table) => table.is_empty(),
            _ => false,
        };
        let same = |one: Option<bool>| one == Some(true);
        same(whole(required, 1).zip(whole(found, 1000)).map(|(one, other)| one == other))
            || same(real(required).zip(real(found)).map(|(one, other)| one == other))
            || same(bytes(required).zip(bytes(found)).map(|(one, other)| one == other))
            || is_empty(required) && is_empty(found)
            || !matches!(required, Value::Timestamp(_)) && required == found
    }

    #[derive(Clone, Debug)]
    enum Step {
        Bind(usize, usize),
        Unbind(usize, usize),
        RemoveDestination(usize),
        Route(Vec<u8>),
    }

    fn step() -> impl Strategy<Value = Step> {
        let destination = 0..6usize;
        prop_oneof![
            4 => (destination.clone(), 0..12usize).prop_map(|(to, with)| Step::Bind(to, with)),
            2 => (destination.clone(), 0..12usize).prop_map(|(to, with)| Step::Unbind(to, with)),
            1 => destination.prop_map(Step::RemoveDestination),
            8 => entries(0..6).prop_map(Step::Route),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn the_index_finds_the_same_as_comparing_every_binding(
            specs in vec(spec_of_binding(), 12),
            steps in vec(step(), 1..60),
        ) {
            let mut bindings = Bindings::new(ExchangeKind::Headers);
            let mut bound: BTreeSet<(usize, usize)> = BTreeSet::new();
            let name = |to: usize| format!("q{to}");
            let binding = |to: usize, with: usize| Binding {
                destination: queue(&name(to)),
                routing_key: format!("{with}").into(),
                arguments: specs[with].clone(),
            };
            for step in steps {
                match step {
                    Step::Bind(to, with) => prop_assert_eq!(bindings.bind(binding(to, with)), bound.insert((to, with))),
                    Step::Unbind(to, with) => {
                        prop_assert_eq!(bindings.unbind(&binding(to, with)), bound.remove(&(to, with)));
                    }
                    Step::RemoveDestination(to) => {
                        let before = bound.len();
                        bound.retain(|(known, _)| *known != to);
                        prop_assert_eq!(bindings.remove_destination(&queue(&name(to))).len(), before - bound.len());
                    }
                    Step::Route(headers) => {
                        let headers = Table::from_checked(&headers);
                        let plain: BTreeSet<_> = bound
                            .iter()
                            .filter(|(_, with)| matches_plainly(&specs[*with], headers))
                            .map(|(to, _)| name(*to))
                            .collect();
                        prop_assert_eq!(routed(&bindings, "", Some(headers)), plain.into_iter().collect::<Vec<_>>());
                    }
                }
            }
        }
    }
}
