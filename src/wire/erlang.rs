//! Bytes printed the way RabbitMQ prints them into reply texts, which clients and tests compare.

use super::table::Value;
use std::fmt::{self, Display, Formatter, Write};

/// Prints `<<1,2,3>>` for any bytes (Erlang's `~w`).
pub(super) struct Octets<'a>(pub(super) &'a [u8]);

impl Display for Octets<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("<<")?;
        write_numbers(f, self.0)?;
        f.write_str(">>")
    }
}

/// Prints `<<"text">>` when all bytes are printable Latin-1 and `<<1,2,3>>` otherwise (Erlang's `~p`, but never broken
/// into several lines).
pub(crate) struct Binary<'a>(pub(crate) &'a [u8]);

impl Display for Binary<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() || !is_printable(self.0) {
            return Octets(self.0).fmt(f);
        }
        f.write_str("<<")?;
        write_quoted(f, self.0)?;
        f.write_str(">>")
    }
}

/// Prints a field value as RabbitMQ holds it (Erlang's `~p`, but never broken into several lines): tables are lists of
/// `{key,type,value}`, arrays are lists of `{type,value}`.
pub(crate) struct Term<'a>(pub(crate) Value<'a>);

impl Display for Term<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Bool(flag) => flag.fmt(f),
            Value::I8(number) => number.fmt(f),
            Value::U8(number) => number.fmt(f),
            Value::I16(number) => number.fmt(f),
            Value::U16(number) => number.fmt(f),
            Value::I32(number) => number.fmt(f),
            Value::U32(number) => number.fmt(f),
            Value::I64(number) => number.fmt(f),
            Value::Timestamp(seconds) => seconds.fmt(f),
            Value::F32(number) => Float(number.into()).fmt(f),
            Value::F64(number) => Float(number).fmt(f),
            Value::Decimal { scale, value } => write!(f, "{{{scale},{value}}}"),
            Value::LongString(bytes) | Value::ByteArray(bytes) => Binary(bytes).fmt(f),
            Value::Void => f.write_str("undefined"),
            Value::Array(array) => {
                write_list(f, array, |f, value| write!(f, "{{{},{}}}", value.type_name(), Term(value)))
            }
            Value::Table(table) => write_list(f, table, |f, entry| {
                write!(f, "{{{},{},{}}}", Binary(entry.key), entry.value.type_name(), Term(entry.value))
            }),
        }
    }
}

fn write_list<T>(
    f: &mut Formatter<'_>,
    items: impl IntoIterator<Item = T>,
    write_item: impl Fn(&mut Formatter<'_>, T) -> fmt::Result,
) -> fmt::Result {
    f.write_char('[')?;
    for (position, item) in items.into_iter().enumerate() {
        if position > 0 {
            f.write_char(',')?;
        }
        write_item(f, item)?;
    }
    f.write_char(']')
}

/// From here on floats cannot hold every whole number, and Erlang prints an exponent.
const WHOLE_FLOAT_MAX: f64 = 9_007_199_254_740_992.0;

/// Prints a float with the fewest digits that give it back, with an exponent where that is shorter (Erlang's `~p`).
struct Float(f64);

impl Display for Float {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let printed = format!("{:e}", self.0.abs());
        let (mantissa, exponent) = printed.split_once('e').unwrap_or((&printed, "0"));
        let digits = mantissa.replace('.', "");
        let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
        // The value is 0.DIGITS times ten to this power.
        let point = exponent.parse().unwrap_or(0) + 1;
        let exponent_length = i32::try_from(exponent.len()).unwrap_or(i32::MAX);
        let exponent_cost = exponent_length + 1 + if count == 1 { 2 } else { 1 };
        if self.0.is_sign_negative() {
            f.write_char('-')?;
        }
        let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or(0));
        if self.0 == 0.0 {
            f.write_str("0.0")
        } else if (0..count).contains(&point) {
            let (whole, fraction) = digits.split_at(usize::try_from(point).unwrap_or(0));
            write!(f, "{}.{fraction}", if whole.is_empty() { "0" } else { whole })
        } else if point < 0 && 2 - point <= exponent_cost {
            write!(f, "0.{}{digits}", zeros(-point))
        } else if point >= count && point - count + 2 <= exponent_cost && self.0.abs() < WHOLE_FLOAT_MAX {
            write!(f, "{digits}{}.0", zeros(point - count))
        } else {
            let (first, others) = digits.split_at(1);
            write!(f, "{first}.{}e{exponent}", if others.is_empty() { "0" } else { others })
        }
    }
}

/// Prints a character list: `"text"`, or `[1,2]` where it is not printable (Erlang's `~p`).
pub(super) struct Text<'a>(pub(super) &'a [u8]);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if is_printable(self.0) {
            return write_quoted(f, self.0);
        }
        f.write_char('[')?;
        write_numbers(f, self.0)?;
        f.write_char(']')
    }
}

fn is_printable(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, 32..=126 | 160..=255 | 8..=13 | 27))
}

fn write_numbers(f: &mut Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for (position, byte) in bytes.iter().enumerate() {
        if position > 0 {
            f.write_char(',')?;
        }
        write!(f, "{byte}")?;
    }
    Ok(())
}

fn write_quoted(f: &mut Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    f.write_char('"')?;
    // RabbitMQ sends bytes above ASCII as they are; a reply text of ours is UTF-8.
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\u{8}' => f.write_str("\\b")?,
            '\t' => f.write_str("\\t")?,
            '\n' => f.write_str("\\n")?,
            '\u{b}' => f.write_str("\\v")?,
            '\u{c}' => f.write_str("\\f")?,
            '\r' => f.write_str("\\r")?,
            '\u{1b}' => f.write_str("\\e")?,
            other => f.write_char(other)?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::table::{Table, TableWriter};

    // The expected texts are what Erlang/OTP prints for the same terms.
    #[test]
    fn bytes_print_as_erlang_prints_them() {
        assert_eq!(Octets(b"ab").to_string(), "<<97,98>>");
        assert_eq!(Binary(b"").to_string(), "<<>>");
        assert_eq!(Binary(b"abc").to_string(), r#"<<"abc">>"#);
        assert_eq!(Binary(&[97, 98, 127]).to_string(), "<<97,98,127>>");
        assert_eq!(Binary(b"ab\"c\\\n\t\x1b\x08\x0c\x0b\r").to_string(), r#"<<"ab\"c\\\n\t\e\b\f\v\r">>"#);
        assert_eq!(Binary("a\u{e9}".as_bytes()).to_string(), "<<\"a\u{e9}\">>");
        assert_eq!(Binary("\u{d6}".as_bytes()).to_string(), "<<195,150>>");
        assert_eq!(Text(b"x").to_string(), r#""x""#);
        assert_eq!(Text(&[0, 1]).to_string(), "[0,1]");
    }

    #[test]
    fn floats_print_as_erlang_prints_them() {
        for (float, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (f64::from(0.1_f32), "0.10000000149011612"),
            (0.0001, "0.0001"),
            (0.000_01, "1.0e-5"),
            (0.000_123_45, "1.2345e-4"),
            (-0.000_012_34, "-1.234e-5"),
            (1.0, "1.0"),
            (100.0, "100.0"),
            (1000.0, "1.0e3"),
            (1234.5, "1234.5"),
            (12_300.0, "1.23e4"),
            (123_456_789.0, "123456789.0"),
            (1e15, "1.0e15"),
            (9_007_199_254_740_991.0, "9007199254740991.0"),
            (9_007_199_254_740_992.0, "9.007199254740992e15"),
            (-2.5e10, "-2.5e10"),
            (5e-324, "5.0e-324"),
            (f64::MAX, "1.7976931348623157e308"),
        ] {
            assert_eq!(Float(float).to_string(), text);
        }
    }

    #[test]
    fn values_print_as_erlang_prints_them() {
        let mut bytes = Vec::new();
        let mut table = TableWriter::new(&mut bytes);
        table.table(b"k", |table| {
            table.value(b"number", Value::I32(-1));
            table.array(b"list", |list| {
                list.value(Value::LongString(b"x"));
                list.value(Value::Void);
                list.value(Value::Decimal { scale: 2, value: 314 });
                list.table(|_| {});
            });
            table.value(b"flag", Value::Bool(true));
        });
        let table = Table::check(&bytes).expect("a table").0;
        let text = "[{<<\"number\">>,signedint,-1},\
                    {<<\"list\">>,array,[{longstr,<<\"x\">>},{void,undefined},{decimal,{2,314}},{table,[]}]},\
                    {<<\"flag\">>,bool,true}]";
        assert_eq!(Term(table.get(b"k").expect("it is there")).to_string(), text);
    }
}
