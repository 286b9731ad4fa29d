//! Prints rows as a table, as CSV or as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rusqlite::types::ValueRef;
use std::fmt::Write as _;
use std::io::{self, Write};

/// The widest cell of a table, in characters.
const CELL_MAX: usize = 60;

/// Bytes of a blob that a table shows.
const BLOB_SHOWN: usize = 16;

/// The column of the views that holds JSON.
const ARGUMENTS: &str = "arguments";

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Table,
    Csv,
    Json,
}

/// Writes rows. A table is written at the end, when the widths of its columns are known.
pub(super) struct Printer<W> {
    format: Format,
    columns: Vec<String>,
    out: W,
    /// The rows of a table, until it is written.
    kept: Vec<Vec<String>>,
    rows: u64,
}

impl<W: Write> Printer<W> {
    pub(super) fn begin(format: Format, columns: Vec<String>, mut out: W) -> io::Result<Self> {
        match format {
            Format::Table => {}
            Format::Csv => write_csv(&mut out, columns.iter().map(|name| quoted(name)))?,
            Format::Json => out.write_all(b"[")?,
        }
        Ok(Self { format, columns, out, kept: Vec::new(), rows: 0 })
    }

    /// The number of columns of each row.
    pub(super) fn columns(&self) -> usize {
        self.columns.len()
    }

    pub(super) fn row<'v>(&mut self, values: impl Iterator<Item = ValueRef<'v>>) -> io::Result<()> {
        self.rows += 1;
        match self.format {
            Format::Table => self.kept.push(values.map(cell).collect()),
            Format::Csv => write_csv(&mut self.out, values.map(csv))?,
            Format::Json => {
                let before = if self.rows == 1 { "\n{" } else { ",\n{" };
                self.out.write_all(before.as_bytes())?;
                for (at, (name, value)) in self.columns.iter().zip(values).enumerate() {
                    let comma = if at == 0 { "" } else { "," };
                    let value = if name == ARGUMENTS { json_object(value) } else { json(value) };
                    write!(self.out, "{comma}{}:{value}", serde_json::Value::from(name.as_str()))?;
                }
                self.out.write_all(b"}")?;
            }
        }
        Ok(())
    }

    pub(super) fn end(mut self) -> io::Result<()> {
        match self.format {
            Format::Table => self.write_table()?,
            Format::Csv => {}
            Format::Json => self.out.write_all(b"\n]\n")?,
        }
        self.out.flush()
    }

    fn write_table(&mut self) -> io::Result<()> {
        let width = |at: usize| self.kept.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> =
            (0..self.columns.len()).map(|at| width(at).max(self.columns[at].chars().count())).collect();
        let line = |cells: &[String]| {
            let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}", width = *width));
            padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
        };
        self.out.write_all(line(&self.columns).as_bytes())?;
        let rule: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
        self.out.write_all(line(&rule).as_bytes())?;
        self.kept.iter().try_for_each(|row| self.out.write_all(line(row).as_bytes()))
    }
}

/// A cell of a table on a terminal: on one line, without control characters, and not too wide.
fn cell(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) => {
            let text = String::from_utf8_lossy(bytes);
            let shown = text.chars().take(CELL_MAX + 1);
            let mut shown: Vec<char> =
                shown.map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect();
            if shown.len() > CELL_MAX {
                shown[CELL_MAX - 1] = '…';
                shown.truncate(CELL_MAX);
            }
            shown.into_iter().collect()
        }
        ValueRef::Blob(bytes) => {
            let more = if bytes.len() > BLOB_SHOWN { "…" } else { "" };
            format!("x'{}{more}'", hex(&bytes[..bytes.len().min(BLOB_SHOWN)]))
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn write_csv(out: &mut impl Write, fields: impl Iterator<Item = String>) -> io::Result<()> {
    out.write_all((fields.collect::<Vec<_>>().join(",") + "\r\n").as_bytes())
}

fn csv(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => String::new(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => number.to_string(),
        ValueRef::Text(bytes) => quoted(&String::from_utf8_lossy(bytes)),
        ValueRef::Blob(bytes) => hex(bytes),
    }
}

fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\r', '\n']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

fn json(value: ValueRef<'_>) -> serde_json::Value {
    match value {
        ValueRef::Null => serde_json::Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(bytes) => String::from_utf8_lossy(bytes).into(),
        ValueRef::Blob(bytes) => serde_json::json!({ "base64": STANDARD.encode(bytes) }),
    }
}

/// A text that contains a JSON object, as that object; any other value as in [`json`].
fn json_object(value: ValueRef<'_>) -> serde_json::Value {
    let object = value.as_bytes().ok().and_then(|text| serde_json::from_slice(text).ok());
    object.filter(serde_json::Value::is_object).unwrap_or_else(|| json(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: [[ValueRef<'_>; 3]; 2] = [
        [ValueRef::Text(b"a, \"b\"\n\x1b[2J"), ValueRef::Integer(-5), ValueRef::Null],
        [ValueRef::Text(b"\xff"), ValueRef::Real(0.5), ValueRef::Blob(b"\x00\xff")],
    ];

    fn printed(format: Format, rows: &[[ValueRef<'_>; 3]]) -> String {
        let mut out = Vec::new();
        let columns = ["text", "number", "it's"].map(str::to_owned).to_vec();
        let mut printer = Printer::begin(format, columns, &mut out).unwrap();
        for row in rows {
            printer.row(row.iter().copied()).unwrap();
        }
        printer.end().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_table_is_aligned_and_has_no_control_characters() {
        let expected = [
            "text         number  it's",
            "-----------  ------  -------",
            "a, \"b\"\u{FFFD}\u{FFFD}[2J  -5",
            "\u{FFFD}            0.5     x'00ff'",
        ];
        assert_eq!(printed(Format::Table, &ROWS).lines().collect::<Vec<_>>(), expected);
        assert_eq!(printed(Format::Table, &[]), "text  number  it's\n----  ------  ----\n");
    }

    #[test]
    fn a_cell_that_is_too_wide_is_cut_visibly() {
        let long = "ä".repeat(100);
        let row = [ValueRef::Text(long.as_bytes()), ValueRef::Blob(&[1; 40]), ValueRef::Null];
        let line = printed(Format::Table, &[row]).lines().last().map(str::to_owned).unwrap();
        assert_eq!(line, format!("{}…  x'{}…'", "ä".repeat(59), "01".repeat(16)));
    }

    #[test]
    fn csv_quotes_only_where_necessary() {
        let expected = "text,number,it's\r\n\"a, \"\"b\"\"\n\x1b[2J\",-5,\r\n\u{FFFD},0.5,00ff\r\n";
        assert_eq!(printed(Format::Csv, &ROWS), expected);
    }

    #[test]
    fn json_is_an_array_of_objects() {
        let found: serde_json::Value = serde_json::from_str(&printed(Format::Json, &ROWS)).unwrap();
        let expected = serde_json::json!([
            { "text": "a, \"b\"\n\u{1b}[2J", "number": -5, "it's": null },
            { "text": "\u{FFFD}", "number": 0.5, "it's": { "base64": "AP8=" } },
        ]);
        assert_eq!(found, expected);
        assert_eq!(printed(Format::Json, &[]), "[\n]\n");
    }
}
