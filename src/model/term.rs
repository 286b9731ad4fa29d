//! A field value in the form in which RabbitMQ compares it: an Erlang term.
//!
//! Of the outermost type only the class matters: integers of every width and timestamps are integers, both kinds of float are
//! floats, a long string and a byte array are bytes. Inside of arrays and tables types matter, and so does the order of a
//! table's entries. An empty array is equal to an empty table.

use crate::wire::table::Value;
use std::borrow::Cow;

/// A value without its type.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Term<'a> {
    /// A term of a fixed size.
    Scalar(Scalar),
    /// A term of any size, as bytes.
    Run(RunKind, Cow<'a, [u8]>),
}

/// A term of a fixed size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// Any integer, or a timestamp.
    Integer(i128),
    /// The bits of a double; zero has no sign.
    Float(u64),
    /// A boolean.
    Bool(bool),
    /// Erlang's `undefined`.
    Void,
    /// A decimal; equal only if scale and digits are.
    Decimal {
        /// Digits after the decimal point.
        scale: u8,
        /// The digits.
        value: u32,
    },
    /// An empty array or table.
    Empty,
}

/// The kind of bytes in a [`Term::Run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunKind {
    /// A long string or a byte array.
    Bytes,
    /// The values of an array, normalised.
    Array,
    /// The entries of a table, normalised, in their order.
    Table,
}

impl<'a> Term<'a> {
    /// The term that RabbitMQ makes of a value.
    pub fn of(value: Value<'a>) -> Self {
        if let Some(number) = value.as_integer() {
            return Self::Scalar(Scalar::Integer(number.into()));
        }
        match value {
            Value::Timestamp(seconds) => Self::Scalar(Scalar::Integer(seconds.into())),
            Value::F32(number) => Self::float(number.into()),
            Value::F64(number) => Self::float(number),
            Value::Bool(flag) => Self::Scalar(Scalar::Bool(flag)),
            Value::Decimal { scale, value } => Self::Scalar(Scalar::Decimal { scale, value }),
            Value::LongString(bytes) | Value::ByteArray(bytes) => Self::Run(RunKind::Bytes, Cow::Borrowed(bytes)),
            Value::Array(array) if !array.bytes().is_empty() => Self::Run(RunKind::Array, array.normalised()),
            Value::Table(table) if !table.is_empty() => Self::Run(RunKind::Table, table.normalised()),
            Value::Array(_) | Value::Table(_) => Self::Scalar(Scalar::Empty),
            Value::Void
            | Value::I8(_)
            | Value::U8(_)
            | Value::I16(_)
            | Value::U16(_)
            | Value::I32(_)
            | Value::U32(_)
            | Value::I64(_) => Self::Scalar(Scalar::Void),
        }
    }

    fn float(number: f64) -> Self {
        Self::Scalar(Scalar::Float(if number == 0.0 { 0 } else { number.to_bits() }))
    }

    /// The same term, which borrows nothing.
    pub fn into_owned(self) -> Term<'static> {
        match self {
            Self::Scalar(scalar) => Term::Scalar(scalar),
            Self::Run(kind, bytes) => Term::Run(kind, Cow::Owned(bytes.into_owned())),
        }
    }
}
