//! The layout of a method's fields, and the check of bytes against it.

use std::ops::Range;

use crate::wire::reader::Reader;
use crate::wire::table::{self, TableError};

/// The wire types of method fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Octet,
    Short,
    Long,
    LongLong,
    Shortstr,
    Longstr,
    Table,
    /// One octet of consecutive bits; no method has more than eight.
    Bits,
}

/// The fields of a method's payload, after its ids.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) method_id: u16,
    pub(super) fields: &'static [Field],
}

/// How bytes fail to fit a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Shape,
    NotUtf8,
    Table(TableError),
}

pub(super) const fn layout(method_id: u16, fields: &'static [Field]) -> Layout {
    Layout { method_id, fields }
}

impl Layout {
    /// Walks over all fields. A wrong length is reported before a text that is not UTF-8, as RabbitMQ matches the whole
    /// layout first. Returns the place of the field table's entries, if the method has one; no method has two.
    pub(super) fn check(&self, fields: &[u8]) -> Result<Option<Range<usize>>, Fault> {
        let mut reader = Reader::new(fields);
        let mut is_utf8 = true;
        let mut table_fault = None;
        let mut table_at = None;
        for field in self.fields {
            let width = match field {
                Field::Octet | Field::Bits => 1,
                Field::Short => 2,
                Field::Long => 4,
                Field::LongLong => 8,
                Field::Shortstr => {
                    let text = reader.shortstr().ok_or(Fault::Shape)?;
                    is_utf8 &= str::from_utf8(text).is_ok();
                    0
                }
                Field::Longstr => {
                    reader.longstr().ok_or(Fault::Shape)?;
                    0
                }
                Field::Table => {
                    let entries = reader.longstr().ok_or(Fault::Shape)?;
                    let end = fields.len() - reader.rest().len();
                    table_at = Some(end - entries.len()..end);
                    table_fault = table::check(entries).err();
                    0
                }
            };
            reader.take(width).ok_or(Fault::Shape)?;
        }
        if !reader.is_empty() {
            return Err(Fault::Shape);
        }
        if !is_utf8 {
            return Err(Fault::NotUtf8);
        }
        table_fault.map_or(Ok(table_at), |error| Err(Fault::Table(error)))
    }
}
