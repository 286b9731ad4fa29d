//! Field tables in RabbitMQ's dialect: checked once, then read in place; written entry by entry.
//!
//! A table's bytes here are its entries, without the 32-bit length that precedes them on the wire.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

use super::reader::Reader;

/// How deep tables and arrays may nest. RabbitMQ has no limit; nothing real comes near this one.
pub const DEPTH_MAX: usize = 100;

/// Why bytes are no field table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// A key or value reaches past the end.
    Truncated,
    /// No type has this tag; `U` and `s` as a string belong here too, as with RabbitMQ.
    UnknownTag(u8),
    /// Tables and arrays nest deeper than [`DEPTH_MAX`].
    TooDeep,
    /// A float is infinite or not a number, which RabbitMQ cannot hold.
    NotFinite,
}

impl Display for TableError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("field table is truncated"),
            Self::UnknownTag(tag) => write!(f, "field table has a value of unknown type {tag}"),
            Self::TooDeep => write!(f, "field table nests deeper than {DEPTH_MAX}"),
            Self::NotFinite => f.write_str("field table has a float that is infinite or not a number"),
        }
    }
}

impl std::error::Error for TableError {}

/// One value of a table or array, borrowed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `t`
    Bool(bool),
    /// `b`
    I8(i8),
    /// `B`
    U8(u8),
    /// `s`
    I16(i16),
    /// `u`
    U16(u16),
    /// `I`
    I32(i32),
    /// `i`
    U32(u32),
    /// `l`, and `L` when read
    I64(i64),
    /// `f`
    F32(f32),
    /// `d`
    F64(f64),
    /// `D`
    Decimal {
        /// Digits after the decimal point.
        scale: u8,
        /// The digits.
        value: u32,
    },
    /// `S`, any bytes
    LongString(&'a [u8]),
    /// `A`
    Array(Array<'a>),
    /// `T`, seconds since 1970
    Timestamp(u64),
    /// `F`
    Table(Table<'a>),
    /// `V`
    Void,
    /// `x`
    ByteArray(&'a [u8]),
}

impl Value<'_> {
    /// The name that RabbitMQ's texts give to the type.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::I8(_) => "byte",
            Self::U8(_) => "unsignedbyte",
            Self::I16(_) => "short",
            Self::U16(_) => "unsignedshort",
            Self::I32(_) => "signedint",
            Self::U32(_) => "unsignedint",
            Self::I64(_) => "long",
            Self::F32(_) => "float",
            Self::F64(_) => "double",
            Self::Decimal { .. } => "decimal",
            Self::LongString(_) => "longstr",
            Self::Array(_) => "array",
            Self::Timestamp(_) => "timestamp",
            Self::Table(_) => "table",
            Self::Void => "void",
            Self::ByteArray(_) => "binary",
        }
    }

    /// The value as a whole number, when it is one of the eight integer types.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        Some(match *self {
            Self::I8(number) => number.into(),
            Self::U8(number) => number.into(),
            Self::I16(number) => number.into(),
            Self::U16(number) => number.into(),
            Self::I32(number) => number.into(),
            Self::U32(number) => number.into(),
            Self::I64(number) => number,
            _ => return None,
        })
    }
}

/// The entries of a field table that has been checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table<'a> {
    bytes: &'a [u8],
}

/// The values of an array inside a checked table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Array<'a> {
    bytes: &'a [u8],
}

/// What [`Table::check`] found besides well-formedness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Written again, it would be the same bytes.
    Canonical,
    /// Keys out of order or repeated, or values that are written differently from how they were read.
    Loose,
}

/// What a walk over a table has found.
struct Walk {
    form: Form,
    /// Every float is a number.
    is_finite: bool,
}

impl Default for Walk {
    fn default() -> Self {
        Self { form: Form::Canonical, is_finite: true }
    }
}

impl Walk {
    fn note_float(&mut self, number: Option<f64>) -> bool {
        self.is_finite &= number.is_none_or(f64::is_finite);
        number.is_some()
    }
}

/// Checks that `bytes` are the entries of a field table.
///
/// # Errors
/// The first fault found.
pub fn check(bytes: &[u8]) -> Result<(), TableError> {
    Table::check(bytes).map(|_| ())
}

impl<'a> Table<'a> {
    /// Checks a table in one walk without allocating, to any depth up to [`DEPTH_MAX`].
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(bytes: &'a [u8]) -> Result<(Self, Form), TableError> {
        let (table, walk) = Self::walk(bytes)?;
        if walk.is_finite { Ok((table, walk.form)) } else { Err(TableError::NotFinite) }
    }

    /// As [`check`](Self::check), of what a store has kept: floats that are not finite, which clients could once send, are
    /// let through.
    ///
    /// # Errors
    /// As `check`.
    pub fn check_stored(bytes: &'a [u8]) -> Result<(Self, Form), TableError> {
        Self::walk(bytes).map(|(table, walk)| (table, walk.form))
    }

    fn walk(bytes: &'a [u8]) -> Result<(Self, Walk), TableError> {
        let mut walk = Walk::default();
        let mut reader = Reader::new(bytes);
        let mut previous: Option<&[u8]> = None;
        while !reader.is_empty() {
            let key = reader.shortstr().ok_or(TableError::Truncated)?;
            if previous.is_some_and(|previous| previous >= key) {
                walk.form = Form::Loose;
            }
            previous = Some(key);
            check_value(&mut reader, DEPTH_MAX, &mut walk)?;
        }
        Ok((Self { bytes }, walk))
    }

    /// Takes bytes that an earlier [`check`](Self::check) has passed. Of other bytes the iterators show whatever can be
    /// read before the first fault.
    #[must_use]
    pub fn from_checked(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The entries as on the wire, without their length.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The entries in wire order, repeated keys included.
    #[must_use]
    pub fn iter(&self) -> Entries<'a> {
        Entries { reader: Reader::new(self.bytes) }
    }

    /// The first value under `key`, which is the one RabbitMQ finds.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<Value<'a>> {
        self.iter().find(|entry| entry.key == key).map(|entry| entry.value)
    }

    /// The entries as RabbitMQ 4.2 delivers message headers: sorted by key in byte order, the first of repeated keys
    /// kept (Erlang's `lists:usort` keeps the first), `L` written as `l`, booleans as 0 or 1. Nested tables keep
    /// their order. `None` when that changes nothing, found in one walk without allocating.
    #[must_use]
    pub fn canonical(&self) -> Option<Vec<u8>> {
        // What was never checked is left alone: writing recurses as deep as the table nests.
        if !matches!(Self::check_stored(self.bytes), Ok((_, Form::Loose))) {
            return None;
        }
        let mut entries = self.sorted_entries();
        entries.dedup_by_key(|entry| entry.key);
        Some(self.written(&entries))
    }

    /// The entries sorted by key, repeated keys kept in their order, with values written as in
    /// [`canonical`](Self::canonical): two tables with the same sorted entries are the same arguments to RabbitMQ.
    #[must_use]
    pub fn sorted(&self) -> Vec<u8> {
        match Self::check_stored(self.bytes) {
            Ok((_, Form::Loose)) => self.written(&self.sorted_entries()),
            _ => self.bytes.to_vec(),
        }
    }

    /// The entries in their order, with values written as in [`canonical`](Self::canonical): what a table inside of a
    /// table is compared by.
    #[must_use]
    pub fn normalised(&self) -> Cow<'a, [u8]> {
        if is_normal(self.bytes, true) {
            return Cow::Borrowed(self.bytes);
        }
        Cow::Owned(self.written(&self.iter().collect::<Vec<_>>()))
    }

    fn sorted_entries(&self) -> Vec<Entry<'a>> {
        let mut entries: Vec<Entry<'a>> = self.iter().collect();
        entries.sort_by_key(|entry| entry.key);
        entries
    }

    fn written(&self, entries: &[Entry<'a>]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut writer = TableWriter { out: &mut bytes };
        for entry in entries {
            writer.value(entry.key, entry.value);
        }
        bytes
    }
}

/// As [`Table::canonical`], for the bytes of a table that has been checked.
#[must_use]
pub fn canonical(bytes: &[u8]) -> Option<Vec<u8>> {
    Table::from_checked(bytes).canonical()
}

impl<'a> Array<'a> {
    /// The values in order.
    #[must_use]
    pub fn iter(&self) -> Values<'a> {
        Values { reader: Reader::new(self.bytes) }
    }

    /// The values as on the wire, without their length.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The values as [`Table::canonical`] writes them.
    #[must_use]
    pub fn normalised(&self) -> Cow<'a, [u8]> {
        if is_normal(self.bytes, false) {
            return Cow::Borrowed(self.bytes);
        }
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for value in self.iter() {
            write_value(&mut bytes, value);
        }
        Cow::Owned(bytes)
    }
}

impl<'a> IntoIterator for Table<'a> {
    type Item = Entry<'a>;
    type IntoIter = Entries<'a>;

    fn into_iter(self) -> Entries<'a> {
        self.iter()
    }
}

impl<'a> IntoIterator for Array<'a> {
    type Item = Value<'a>;
    type IntoIter = Values<'a>;

    fn into_iter(self) -> Values<'a> {
        self.iter()
    }
}

/// A key and its value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entry<'a> {
    /// Up to 255 bytes, not necessarily UTF-8.
    pub key: &'a [u8],
    /// The value.
    pub value: Value<'a>,
}

/// Iterates over a table's entries.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let key = self.reader.shortstr()?;
        let value = read_value(&mut self.reader)?;
        Some(Entry { key, value })
    }
}

/// Iterates over an array's values.
#[derive(Clone, Debug)]
pub struct Values<'a> {
    reader: Reader<'a>,
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        read_value(&mut self.reader)
    }
}

fn check_value(reader: &mut Reader<'_>, depth_left: usize, walk: &mut Walk) -> Result<(), TableError> {
    let tag = reader.octet().ok_or(TableError::Truncated)?;
    let skipped = match tag {
        b't' => {
            let octet = reader.octet();
            if octet.is_some_and(|octet| octet > 1) {
                walk.form = Form::Loose;
            }
            octet.is_some()
        }
        b'L' => {
            walk.form = Form::Loose;
            reader.long_long().is_some()
        }
        b'b' | b'B' => reader.octet().is_some(),
        b's' | b'u' => reader.short().is_some(),
        b'I' | b'i' => reader.long().is_some(),
        b'l' | b'T' => reader.long_long().is_some(),
        b'f' => walk.note_float(reader.long().map(f32::from_bits).map(f64::from)),
        b'd' => walk.note_float(reader.long_long().map(f64::from_bits)),
        b'D' => reader.take(5).is_some(),
        b'S' | b'x' => reader.longstr().is_some(),
        b'V' => true,
        b'A' | b'F' => {
            let nested = reader.longstr().ok_or(TableError::Truncated)?;
            let depth_left = depth_left.checked_sub(1).ok_or(TableError::TooDeep)?;
            return check_nested(Reader::new(nested), tag == b'F', depth_left, walk);
        }
        unknown => return Err(TableError::UnknownTag(unknown)),
    };
    if skipped { Ok(()) } else { Err(TableError::Truncated) }
}

/// Whether the values in a nested table or array would be written as they were read.
fn is_normal(bytes: &[u8], has_keys: bool) -> bool {
    let mut walk = Walk::default();
    // What was never checked is left alone: writing recurses as deep as the table nests.
    check_nested(Reader::new(bytes), has_keys, DEPTH_MAX, &mut walk).is_err() || walk.form == Form::Canonical
}

/// Recurses at most [`DEPTH_MAX`] times, a few hundred bytes of stack each.
fn check_nested(mut reader: Reader<'_>, has_keys: bool, depth_left: usize, walk: &mut Walk) -> Result<(), TableError> {
    while !reader.is_empty() {
        if has_keys {
            reader.shortstr().ok_or(TableError::Truncated)?;
        }
        check_value(&mut reader, depth_left, walk)?;
    }
    Ok(())
}

fn read_value<'a>(reader: &mut Reader<'a>) -> Option<Value<'a>> {
    Some(match reader.octet()? {
        b't' => Value::Bool(reader.octet()? != 0),
        b'b' => Value::I8(reader.octet()?.cast_signed()),
        b'B' => Value::U8(reader.octet()?),
        b's' => Value::I16(reader.short()?.cast_signed()),
        b'u' => Value::U16(reader.short()?),
        b'I' => Value::I32(reader.long()?.cast_signed()),
        b'i' => Value::U32(reader.long()?),
        b'l' | b'L' => Value::I64(reader.long_long()?.cast_signed()),
        b'f' => Value::F32(f32::from_bits(reader.long()?)),
        b'd' => Value::F64(f64::from_bits(reader.long_long()?)),
        b'D' => Value::Decimal { scale: reader.octet()?, value: reader.long()? },
        b'S' => Value::LongString(reader.longstr()?),
        b'A' => Value::Array(Array { bytes: reader.longstr()? }),
        b'T' => Value::Timestamp(reader.long_long()?),
        b'F' => Value::Table(Table { bytes: reader.longstr()? }),
        b'V' => Value::Void,
        b'x' => Value::ByteArray(reader.longstr()?),
        _ => return None,
    })
}

/// Appends a table with its 32-bit length; `entries` writes what is in it.
pub fn write_table(out: &mut Vec<u8>, entries: impl FnOnce(&mut TableWriter<'_>)) {
    with_length(out, |out| entries(&mut TableWriter { out }));
}

fn with_length(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    content(out);
    let len =
        u32::try_from(out.len() - start - 4).expect("a table is bounded by the frames it came in, far below 4 GiB");
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

/// Writes the entries of a table; made by [`write_table`] and [`TableWriter::new`].
#[derive(Debug)]
pub struct TableWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> TableWriter<'o> {
    /// Writes entries without a length before them, as [`Table`] holds them.
    #[must_use]
    pub fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Appends one entry.
    ///
    /// # Panics
    /// When `key` is longer than a shortstr may be (255 bytes).
    pub fn value(&mut self, key: &[u8], value: Value<'_>) {
        self.key(key);
        write_value(self.out, value);
    }

    /// Appends an entry that is a table.
    ///
    /// # Panics
    /// As [`value`](Self::value).
    pub fn table(&mut self, key: &[u8], entries: impl FnOnce(&mut TableWriter<'_>)) {
        self.key(key);
        self.out.push(b'F');
        write_table(self.out, entries);
    }

    /// Appends an entry that is an array.
    ///
    /// # Panics
    /// As [`value`](Self::value).
    pub fn array(&mut self, key: &[u8], values: impl FnOnce(&mut ArrayWriter<'_>)) {
        self.key(key);
        self.out.push(b'A');
        with_length(self.out, |out| values(&mut ArrayWriter { out }));
    }

    fn key(&mut self, key: &[u8]) {
        self.out.push(u8::try_from(key.len()).expect("a key is a shortstr: at most 255 bytes"));
        self.out.extend_from_slice(key);
    }
}

/// Writes the values of an array; made by [`TableWriter::array`].
#[derive(Debug)]
pub struct ArrayWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl ArrayWriter<'_> {
    /// Appends one value.
    pub fn value(&mut self, value: Value<'_>) {
        write_value(self.out, value);
    }

    /// Appends a table.
    pub fn table(&mut self, entries: impl FnOnce(&mut TableWriter<'_>)) {
        self.out.push(b'F');
        write_table(self.out, entries);
    }
}

fn write_value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Bool(bool) => out.extend_from_slice(&[b't', u8::from(bool)]),
        Value::I8(number) => out.extend_from_slice(&[b'b', number.cast_unsigned()]),
        Value::U8(number) => out.extend_from_slice(&[b'B', number]),
        Value::I16(number) => write_tagged(out, b's', &number.to_be_bytes()),
        Value::U16(number) => write_tagged(out, b'u', &number.to_be_bytes()),
        Value::I32(number) => write_tagged(out, b'I', &number.to_be_bytes()),
        Value::U32(number) => write_tagged(out, b'i', &number.to_be_bytes()),
        Value::I64(number) => write_tagged(out, b'l', &number.to_be_bytes()),
        Value::F32(number) => write_tagged(out, b'f', &number.to_be_bytes()),
        Value::F64(number) => write_tagged(out, b'd', &number.to_be_bytes()),
        Value::Decimal { scale, value } => {
            out.extend_from_slice(&[b'D', scale]);
            out.extend_from_slice(&value.to_be_bytes());
        }
        Value::LongString(bytes) => write_long(out, b'S', bytes),
        Value::Array(array) => {
            out.push(b'A');
            with_length(out, |out| {
                for value in array {
                    write_value(out, value);
                }
            });
        }
        Value::Timestamp(seconds) => write_tagged(out, b'T', &seconds.to_be_bytes()),
        Value::Table(table) => {
            out.push(b'F');
            write_table(out, |writer| {
                for entry in table {
                    writer.value(entry.key, entry.value);
                }
            });
        }
        Value::Void => out.push(b'V'),
        Value::ByteArray(bytes) => write_long(out, b'x', bytes),
    }
}

fn write_tagged(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    out.extend_from_slice(content);
}

fn write_long(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    with_length(out, |out| out.extend_from_slice(content));
}

#[cfg(test)]
mod tests {
    use amq_protocol::types::generation::gen_field_table;
    use amq_protocol::types::parsing::parse_field_table;
    use amq_protocol::types::{AMQPValue, DecimalValue, FieldTable};

    use super::*;

    /// One entry of every type, keys in order.
    fn every_type(out: &mut TableWriter<'_>) {
        out.array(b"A", |array| {
            array.value(Value::I32(-2));
            array.table(|table| table.value(b"deep", Value::Void));
        });
        out.value(b"A-", Value::Array(Array { bytes: b"" }));
        out.value(b"B", Value::U8(200));
        out.value(b"D", Value::Decimal { scale: 2, value: 314 });
        out.table(b"F", |table| {
            table.value(b"z", Value::Bool(false));
            table.value(b"a", Value::LongString(b"after z"));
        });
        out.value(b"I", Value::I32(-70_000));
        out.value(b"S", Value::LongString(&[0xFF, 0, b'x']));
        out.value(b"T", Value::Timestamp(1_700_000_000));
        out.value(b"V", Value::Void);
        out.value(b"b", Value::I8(-5));
        out.value(b"d", Value::F64(2.5));
        out.value(b"f", Value::F32(-1.5));
        out.value(b"i", Value::U32(4_000_000_000));
        out.value(b"l", Value::I64(i64::MIN));
        out.value(b"s", Value::I16(-300));
        out.value(b"t", Value::Bool(true));
        out.value(b"u", Value::U16(60_000));
        out.value(b"x", Value::ByteArray(b"bytes"));
    }

    fn entries(write: impl FnOnce(&mut TableWriter<'_>)) -> Vec<u8> {
        let mut bytes = Vec::new();
        write(&mut TableWriter::new(&mut bytes));
        bytes
    }

    #[test]
    fn every_type_that_is_written_is_what_amq_protocol_reads() {
        let mut bytes = Vec::new();
        write_table(&mut bytes, every_type);
        let (rest, table) = parse_field_table(&bytes[..]).expect("it is a table");
        assert!(rest.is_empty());
        let get = |key: &str| table.inner().get(key).cloned().expect("the key is there");
        assert_eq!(get("B"), AMQPValue::ShortShortUInt(200));
        assert_eq!(get("D"), AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 314 }));
        assert_eq!(get("I"), AMQPValue::LongInt(-70_000));
        assert_eq!(get("S"), AMQPValue::LongString(vec![0xFF, 0, b'x'].into()));
        assert_eq!(get("T"), AMQPValue::Timestamp(1_700_000_000));
        assert_eq!(get("V"), AMQPValue::Void);
        assert_eq!(get("b"), AMQPValue::ShortShortInt(-5));
        assert_eq!(get("d"), AMQPValue::Double(2.5));
        assert_eq!(get("f"), AMQPValue::Float(-1.5));
        assert_eq!(get("i"), AMQPValue::LongUInt(4_000_000_000));
        assert_eq!(get("l"), AMQPValue::LongLongInt(i64::MIN));
        assert_eq!(get("s"), AMQPValue::ShortInt(-300));
        assert_eq!(get("t"), AMQPValue::Boolean(true));
        assert_eq!(get("u"), AMQPValue::ShortUInt(60_000));
        assert_eq!(get("x"), AMQPValue::ByteArray(b"bytes"[..].into()));
        let AMQPValue::FieldArray(array) = get("A") else { panic!("an array") };
        assert_eq!(array.as_slice()[0], AMQPValue::LongInt(-2));
    }

    #[test]
    fn every_type_is_read_as_it_was_written() {
        let bytes = entries(every_type);
        let (table, form) = Table::check(&bytes).expect("it is a table");
        assert_eq!(form, Form::Canonical, "nested tables may be in any order");
        let again = entries(|out| {
            for entry in table {
                out.value(entry.key, entry.value);
            }
        });
        assert_eq!(again, bytes);
        assert_eq!(table.get(b"T"), Some(Value::Timestamp(1_700_000_000)));
        assert_eq!(table.get(b"missing"), None);
        let Some(Value::Array(array)) = table.get(b"A") else { panic!("an array") };
        assert_eq!(array.into_iter().next(), Some(Value::I32(-2)));
        assert_eq!(array.bytes().len(), 16);
        let integers: Vec<_> = [&b"B"[..], b"I", b"b", b"i", b"l", b"s", b"u", b"S"]
            .map(|key| table.get(key).unwrap().as_integer())
            .into();
        let expected =
            [Some(200), Some(-70_000), Some(-5), Some(4_000_000_000), Some(i64::MIN), Some(-300), Some(60_000), None];
        assert_eq!(integers, expected);
    }

    #[test]
    fn what_amq_protocol_writes_is_read() {
        let mut table = FieldTable::default();
        table.insert("count".into(), AMQPValue::LongLongInt(3));
        table.insert("name".into(), AMQPValue::LongString("queue".into()));
        let write = gen_field_table(&table);
        let (bytes, _) = write(Vec::new().into()).expect("memory can be written").into_inner();
        let (read, _) = Table::check(&bytes[4..]).expect("it is a table");
        assert_eq!(read.get(b"count"), Some(Value::I64(3)));
        assert_eq!(read.get(b"name"), Some(Value::LongString(b"queue")));
        assert!(!read.is_empty());
    }

    #[test]
    fn canonical_form_sorts_keys_and_keeps_the_first_of_repeated_ones() {
        let loose = entries(|out| {
            out.value(b"b", Value::I32(1));
            out.value(b"a", Value::I32(2));
            out.value(b"b", Value::I32(3));
            out.value(b"B", Value::I32(4));
        });
        let sorted = entries(|out| {
            out.value(b"B", Value::I32(4));
            out.value(b"a", Value::I32(2));
            out.value(b"b", Value::I32(1));
        });
        assert_eq!(canonical(&loose), Some(sorted.clone()));
        assert_eq!(canonical(&sorted), None);
        assert_eq!(canonical(b""), None);
    }

    #[test]
    fn canonical_form_writes_values_as_rabbitmq_does_however_deep() {
        let loose = b"\x01aF\x00\x00\x00\x0b\x01xL\x00\x00\x00\x00\x00\x00\x00\x07\x01bA\x00\x00\x00\x02t\x05";
        let (_, form) = Table::check(loose).expect("it is a table");
        assert_eq!(form, Form::Loose);
        let strict = b"\x01aF\x00\x00\x00\x0b\x01xl\x00\x00\x00\x00\x00\x00\x00\x07\x01bA\x00\x00\x00\x02t\x01";
        assert_eq!(canonical(loose).as_deref(), Some(&strict[..]));
    }

    #[test]
    fn bytes_that_are_no_table_are_left_alone_by_canonical() {
        assert_eq!(canonical(b"\x01bV\x01aA\x00\x00\x00\x09"), None);
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = entries(every_type);
        let ends: Vec<usize> = Table::check(&bytes)
            .map(|(table, _)| {
                table
                    .iter()
                    .scan(0, |end, entry| {
                        *end += entries(|out| out.value(entry.key, entry.value)).len();
                        Some(*end)
                    })
                    .collect()
            })
            .unwrap();
        for len in 1..bytes.len() {
            let expected = if ends.contains(&len) { Ok(()) } else { Err(TableError::Truncated) };
            assert_eq!(check(&bytes[..len]), expected, "{len} bytes");
        }
    }

    #[test]
    fn unknown_tags_are_refused() {
        for tag in *b"UZ_\0" {
            assert_eq!(check(&[1, b'k', tag, 0, 0]), Err(TableError::UnknownTag(tag)));
        }
        assert_eq!(TableError::UnknownTag(85).to_string(), "field table has a value of unknown type 85");
        assert_eq!(TableError::Truncated.to_string(), "field table is truncated");
        assert_eq!(TableError::TooDeep.to_string(), "field table nests deeper than 100");
        assert_eq!(Table::from_checked(b"\x01kZ").iter().next(), None);
    }

    #[test]
    fn floats_that_are_no_finite_number_are_refused_however_deep() {
        for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let wide = entries(|out| out.value(b"k", Value::F64(float)));
            #[expect(clippy::cast_possible_truncation, reason = "these keep their kind")]
            let narrow = entries(|out| out.array(b"k", |array| array.value(Value::F32(float as f32))));
            let deep = entries(|out| out.table(b"k", |table| table.array(b"k", |a| a.value(Value::F64(float)))));
            for bytes in [wide, narrow, deep] {
                assert_eq!(check(&bytes), Err(TableError::NotFinite));
            }
        }
        let text = "field table has a float that is infinite or not a number";
        assert_eq!(TableError::NotFinite.to_string(), text);
    }

    #[test]
    fn sorted_entries_keep_repeated_keys_and_the_order_inside_of_tables() {
        let bytes = entries(|out| {
            out.value(b"b", Value::I32(2));
            out.value(b"b", Value::I32(1));
            out.table(b"a", |table| {
                table.value(b"y", Value::Void);
                table.value(b"x", Value::Void);
            });
        });
        let sorted = entries(|out| {
            out.table(b"a", |table| {
                table.value(b"y", Value::Void);
                table.value(b"x", Value::Void);
            });
            out.value(b"b", Value::I32(2));
            out.value(b"b", Value::I32(1));
        });
        assert_eq!(Table::from_checked(&bytes).sorted(), sorted);
        assert_eq!(Table::from_checked(&sorted).sorted(), sorted);
        assert_eq!(Table::from_checked(b"\x01aL\0\0\0\0\0\0\0\x07").sorted(), b"\x01al\0\0\0\0\0\0\0\x07");
    }

    /// `depth` arrays or tables inside one another, under one key.
    fn nested(depth: usize, has_keys: bool) -> Vec<u8> {
        let mut value = vec![b'V'];
        for _ in 0..depth {
            let content = if has_keys { [&[1, b'k'], &value[..]].concat() } else { value };
            let len = u32::try_from(content.len()).unwrap();
            value = vec![if has_keys { b'F' } else { b'A' }];
            value.extend_from_slice(&len.to_be_bytes());
            value.extend_from_slice(&content);
        }
        [&[1, b'k'], &value[..]].concat()
    }

    #[test]
    fn nesting_is_accepted_to_the_limit_and_refused_beyond() {
        for has_keys in [false, true] {
            assert_eq!(check(&nested(DEPTH_MAX, has_keys)), Ok(()));
            assert_eq!(check(&nested(DEPTH_MAX + 1, has_keys)), Err(TableError::TooDeep));
        }
    }
}
