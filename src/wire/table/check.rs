//! Whether bytes are a field table, found in one walk.

use super::value::Table;
use crate::wire::reader::Reader;
use std::fmt::{self, Display, Formatter};

/// How deep tables and arrays may nest. RabbitMQ has no limit; real tables are far below this one.
pub const DEPTH_MAX: usize = 100;

/// A fault of a field table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableError {
    /// A key or value reaches past the end.
    Truncated,
    /// No type has this tag. As in RabbitMQ, `U`, and `s` for a string, are unknown.
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

/// Whether a well-formed table is in the form in which RabbitMQ writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// RabbitMQ would write the same bytes.
    Canonical,
    /// Keys out of order or repeated, or values that are written differently from how they were read.
    Loose,
}

/// The findings of a walk over a table.
struct Walk {
    form: Form,
    /// Every float is a finite number.
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

    /// Like [`check`](Self::check), for a table from the store: floats that are not finite are allowed, as earlier versions
    /// accepted them.
    ///
    /// # Errors
    /// Those of `check`, except for floats.
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
        Ok((Self::from_checked(bytes), walk))
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
pub(super) fn is_normal(bytes: &[u8], has_keys: bool) -> bool {
    let mut walk = Walk::default();
    // Unchecked bytes are not rewritten: writing recurses as deep as the table nests.
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
