//! Bytes printed the way RabbitMQ prints them into reply texts, which clients and tests compare.

use std::fmt::{self, Display, Formatter, Write};

/// Prints `<<1,2,3>>`, whatever the bytes are (Erlang's `~w`).
pub(super) struct Octets<'a>(pub(super) &'a [u8]);

impl Display for Octets<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("<<")?;
        write_numbers(f, self.0)?;
        f.write_str(">>")
    }
}

/// Prints `<<"text">>` when all bytes are printable ASCII and `<<1,2,3>>` otherwise (Erlang's `~p`, but never broken
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
    bytes
        .iter()
        .all(|byte| matches!(byte, 32..=126 | 8..=13 | 27))
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
    for &byte in bytes {
        match byte {
            b'"' => f.write_str("\\\"")?,
            b'\\' => f.write_str("\\\\")?,
            8 => f.write_str("\\b")?,
            9 => f.write_str("\\t")?,
            10 => f.write_str("\\n")?,
            11 => f.write_str("\\v")?,
            12 => f.write_str("\\f")?,
            13 => f.write_str("\\r")?,
            27 => f.write_str("\\e")?,
            other => f.write_char(char::from(other))?,
        }
    }
    f.write_char('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    // The expected texts are what Erlang/OTP prints for the same terms.
    #[test]
    fn bytes_print_as_erlang_prints_them() {
        assert_eq!(Octets(b"ab").to_string(), "<<97,98>>");
        assert_eq!(Binary(b"").to_string(), "<<>>");
        assert_eq!(Binary(b"abc").to_string(), r#"<<"abc">>"#);
        assert_eq!(Binary(&[97, 98, 127]).to_string(), "<<97,98,127>>");
        assert_eq!(
            Binary(b"ab\"c\\\n\t\x1b\x08\x0c\x0b\r").to_string(),
            r#"<<"ab\"c\\\n\t\e\b\f\v\r">>"#
        );
        assert_eq!(Text(b"x").to_string(), r#""x""#);
        assert_eq!(Text(&[0, 1]).to_string(), "[0,1]");
    }
}
