//! Field values: what they are, how they are written and read, how they are shown.
//!
//! The table dialect is RabbitMQ's: `s` is a signed 16-bit integer, there is no `U`.

use crate::spec::Kind;
use std::fmt::{self, Write as _};

/// A field table: order and duplicate keys are kept, because both are visible on the wire.
pub type Table = Vec<(Vec<u8>, Value)>;

/// A value of a method field, a property or a table entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A bit, or a table's `t`.
    Flag(bool),
    /// Any integer.
    Number(i128),
    /// `f` or `d`.
    Float(f64),
    /// `D`.
    Decimal {
        /// Digits behind the point.
        scale: u8,
        /// The number without its point.
        unscaled: u32,
    },
    /// A string of bytes.
    Text(Vec<u8>),
    /// `A`; the members are [`Value::Tagged`].
    Array(Vec<Self>),
    /// A table; the members are [`Value::Tagged`].
    Table(Table),
    /// `V`.
    Void,
    /// A table entry with its tag letter.
    Tagged(u8, Box<Self>),
    /// Bytes written as they are in place of tag and value, to send what no table may contain.
    Raw(Vec<u8>),
}

/// Why bytes are not what they should be.
pub type Malformed = String;

/// Reads from the front of a slice.
#[derive(Debug)]
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        if count > self.0.len() {
            return Err(format!("{count} bytes wanted, {} are left", self.0.len()));
        }
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(taken)
    }

    /// A big-endian unsigned integer of `width` bytes, at most 8.
    pub fn unsigned(&mut self, width: usize) -> Result<u64, Malformed> {
        let bytes = self.take(width)?;
        Ok(bytes.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    fn signed(&mut self, width: usize) -> Result<i64, Malformed> {
        let unused = 64 - 8 * width;
        Ok((self.unsigned(width)? << unused).cast_signed() >> unused)
    }

    fn sized(&mut self, width: usize) -> Result<&'a [u8], Malformed> {
        let length = self.unsigned(width)?;
        self.take(length as usize)
    }

    /// A field of this kind; bits are the business of the method codec.
    pub fn field(&mut self, kind: Kind) -> Result<Value, Malformed> {
        Ok(match kind {
            Kind::Bit | Kind::Octet => Value::Number(self.unsigned(1)?.into()),
            Kind::Short => Value::Number(self.unsigned(2)?.into()),
            Kind::Long => Value::Number(self.unsigned(4)?.into()),
            Kind::LongLong => Value::Number(self.unsigned(8)?.into()),
            Kind::ShortStr => Value::Text(self.sized(1)?.to_vec()),
            Kind::LongStr => Value::Text(self.sized(4)?.to_vec()),
            Kind::Table => Value::Table(self.table()?),
        })
    }

    fn table(&mut self) -> Result<Table, Malformed> {
        let mut inner = Reader(self.sized(4)?);
        let mut table = Table::new();
        while !inner.0.is_empty() {
            let key = inner.sized(1)?.to_vec();
            table.push((key, inner.tagged()?));
        }
        Ok(table)
    }

    fn tagged(&mut self) -> Result<Value, Malformed> {
        let tag = self.take(1)?[0];
        let number = |value: i64| Value::Number(value.into());
        let value = match tag {
            b't' => Value::Flag(self.unsigned(1)? != 0),
            b'b' => number(self.signed(1)?),
            b's' => number(self.signed(2)?),
            b'I' => number(self.signed(4)?),
            b'l' | b'L' => number(self.signed(8)?),
            b'B' => Value::Number(self.unsigned(1)?.into()),
            b'u' => Value::Number(self.unsigned(2)?.into()),
            b'i' => Value::Number(self.unsigned(4)?.into()),
            b'T' => Value::Number(self.unsigned(8)?.into()),
            b'f' => Value::Float(f32::from_bits(self.unsigned(4)? as u32).into()),
            b'd' => Value::Float(f64::from_bits(self.unsigned(8)?)),
            b'D' => Value::Decimal { scale: self.unsigned(1)? as u8, unscaled: self.unsigned(4)? as u32 },
            b'S' | b'x' => Value::Text(self.sized(4)?.to_vec()),
            b'F' => Value::Table(self.table()?),
            b'V' => Value::Void,
            b'A' => {
                let mut inner = Reader(self.sized(4)?);
                let mut members = Vec::new();
                while !inner.0.is_empty() {
                    members.push(inner.tagged()?);
                }
                Value::Array(members)
            }
            other => return Err(format!("no field table tag {:?}", other as char)),
        };
        Ok(Value::Tagged(tag, Box::new(value)))
    }
}

/// Appends `value` as a field of this kind.
pub fn write_field(kind: Kind, value: &Value, out: &mut Vec<u8>) -> Result<(), Malformed> {
    match (kind, value) {
        (Kind::Octet, Value::Number(number)) => write_number(*number, 1, out),
        (Kind::Short, Value::Number(number)) => write_number(*number, 2, out),
        (Kind::Long, Value::Number(number)) => write_number(*number, 4, out),
        (Kind::LongLong, Value::Number(number)) => write_number(*number, 8, out),
        (Kind::ShortStr, Value::Text(text)) if text.len() < 256 => write_sized(text, 1, out),
        (Kind::LongStr, Value::Text(text)) => write_sized(text, 4, out),
        (Kind::Table, Value::Table(table)) => return write_table(table, out),
        _ => return Err(format!("{value} does not travel as {kind:?}")),
    }
    Ok(())
}

fn write_number(number: i128, width: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_be_bytes()[16 - width..]);
}

fn write_sized(bytes: &[u8], width: usize, out: &mut Vec<u8>) {
    write_number(bytes.len() as i128, width, out);
    out.extend_from_slice(bytes);
}

fn write_table(table: &Table, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let bytes = table_bytes(table)?;
    write_sized(&bytes, 4, out);
    Ok(())
}

/// A table without its length, as AMQPLAIN sends it.
pub fn table_bytes(table: &Table) -> Result<Vec<u8>, Malformed> {
    let mut bytes = Vec::new();
    for (key, value) in table {
        write_sized(key, 1, &mut bytes);
        write_tagged(value, &mut bytes)?;
    }
    Ok(bytes)
}

fn write_tagged(value: &Value, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let (tag, inner) = match value {
        Value::Raw(bytes) => {
            out.extend_from_slice(bytes);
            return Ok(());
        }
        Value::Tagged(tag, inner) => (*tag, inner.as_ref()),
        other => return Err(format!("{other} has no tag")),
    };
    out.push(tag);
    match (tag, inner) {
        (b't', Value::Flag(flag)) => out.push((*flag).into()),
        (b'b' | b'B', Value::Number(number)) => write_number(*number, 1, out),
        (b's' | b'u', Value::Number(number)) => write_number(*number, 2, out),
        (b'I' | b'i', Value::Number(number)) => write_number(*number, 4, out),
        (b'l' | b'L' | b'T', Value::Number(number)) => write_number(*number, 8, out),
        (b'f', Value::Float(float)) => out.extend_from_slice(&(*float as f32).to_be_bytes()),
        (b'd', Value::Float(float)) => out.extend_from_slice(&float.to_be_bytes()),
        (b'D', Value::Decimal { scale, unscaled }) => {
            out.push(*scale);
            out.extend_from_slice(&unscaled.to_be_bytes());
        }
        (b'S' | b'x', Value::Text(text)) => write_sized(text, 4, out),
        (b'F', Value::Table(table)) => write_table(table, out)?,
        (b'V', Value::Void) => {}
        (b'A', Value::Array(members)) => {
            let mut bytes = Vec::new();
            for member in members {
                write_tagged(member, &mut bytes)?;
            }
            write_sized(&bytes, 4, out);
        }
        _ => return Err(format!("{inner} does not travel as {:?}", tag as char)),
    }
    Ok(())
}

/// Bytes as a dialogue writes them: quoted text, with what is not printable as `\xHH`, and cut at
/// 300 bytes.
pub fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes.iter().take(300) {
        match byte {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(*byte as char);
            }
            b' '..=b'~' => text.push(*byte as char),
            other => write!(text, "\\x{other:02x}").expect("a String takes all"),
        }
    }
    text.push('"');
    if bytes.len() > 300 {
        write!(text, " ({} bytes)", bytes.len()).expect("a String takes all");
    }
    text
}

impl fmt::Display for Value {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(out, "{flag}"),
            Self::Number(number) => write!(out, "{number}"),
            Self::Float(float) => write!(out, "{float:?}"),
            Self::Decimal { scale, unscaled } => write!(out, "{scale} {unscaled}"),
            Self::Text(text) => out.write_str(&quoted(text)),
            Self::Void => Ok(()),
            Self::Raw(bytes) => write!(out, "raw({bytes:02x?})"),
            Self::Tagged(b'V', _) => out.write_str("V"),
            Self::Tagged(tag, value) => write!(out, "{} {value}", *tag as char),
            Self::Array(members) => {
                let members: Vec<String> = members.iter().map(ToString::to_string).collect();
                write!(out, "[{}]", members.join(", "))
            }
            Self::Table(table) => {
                let entry = |(key, value): &(Vec<u8>, Self)| format!("{}: {value}", String::from_utf8_lossy(key));
                let entries: Vec<String> = table.iter().map(entry).collect();
                write!(out, "{{{}}}", entries.join(", "))
            }
        }
    }
}
