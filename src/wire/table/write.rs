//! Field tables written entry by entry.

use super::value::Value;

/// Appends a table with its 32-bit length; `entries` writes its entries.
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
    /// Writes entries without a length before them, as [`Table`](super::Table) holds them.
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
    /// When `key` is longer than a shortstr may be (255 bytes).
    pub fn table(&mut self, key: &[u8], entries: impl FnOnce(&mut TableWriter<'_>)) {
        self.key(key);
        self.out.push(b'F');
        write_table(self.out, entries);
    }

    /// Appends an entry that is an array.
    ///
    /// # Panics
    /// When `key` is longer than a shortstr may be (255 bytes).
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

pub(super) fn write_value(out: &mut Vec<u8>, value: Value<'_>) {
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
