//! Values, tables and arrays as they are read, in place.

use crate::wire::reader::Reader;

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

/// The entries of a checked field table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table<'a> {
    bytes: &'a [u8],
}

/// The values of an array inside a checked table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Array<'a> {
    bytes: &'a [u8],
}

impl<'a> Table<'a> {
    /// Takes bytes that have passed [`check`](Self::check) before. With other bytes the iterators end at the first fault.
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
}

impl<'a> Array<'a> {
    /// Takes bytes of an array of a checked table.
    pub(super) fn from_checked(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

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
        b'A' => Value::Array(Array::from_checked(reader.longstr()?)),
        b'T' => Value::Timestamp(reader.long_long()?),
        b'F' => Value::Table(Table::from_checked(reader.longstr()?)),
        b'V' => Value::Void,
        b'x' => Value::ByteArray(reader.longstr()?),
        _ => return None,
    })
}
