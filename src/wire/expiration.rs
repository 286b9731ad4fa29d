//! The text of the property `expiration`, as RabbitMQ reads it.

use super::erlang::Text;
use std::fmt::{self, Display, Formatter};

/// The longest expiration that RabbitMQ accepts: ten years in milliseconds.
pub const EXPIRATION_MS_MAX: u64 = 315_360_000_000;

/// Why an expiration was refused; displays as RabbitMQ prints the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpirationError {
    /// The text does not begin with a number.
    NoInteger,
    /// These bytes follow the number.
    LeftoverString(Vec<u8>),
    /// The number with these digits is negative.
    ValueNegative(String),
    /// The number with these digits is above [`EXPIRATION_MS_MAX`].
    ValueTooLarge(String),
}

impl Display for ExpirationError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoInteger => f.write_str("no_integer"),
            Self::LeftoverString(rest) => write!(f, "{{leftover_string,{}}}", Text(rest)),
            Self::ValueNegative(digits) => write!(f, "{{value_negative,-{digits}}}"),
            Self::ValueTooLarge(digits) => write!(f, "{{value_too_large,{digits}}}"),
        }
    }
}

impl std::error::Error for ExpirationError {}

/// Reads an expiration's text as RabbitMQ does: an optional sign and decimal digits, nothing else.
///
/// # Errors
/// See [`ExpirationError`].
pub fn parse_expiration(text: &[u8]) -> Result<u64, ExpirationError> {
    let (is_negative, unsigned) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    };
    let digit_count = unsigned.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, leftover) = unsigned.split_at(digit_count);
    if digits.is_empty() {
        return Err(ExpirationError::NoInteger);
    }
    if !leftover.is_empty() {
        return Err(ExpirationError::LeftoverString(leftover.to_vec()));
    }
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    let significant = &digits[zeros..];
    let printed = || significant.iter().copied().map(char::from).collect::<String>();
    if is_negative && !significant.is_empty() {
        return Err(ExpirationError::ValueNegative(printed()));
    }
    significant
        .iter()
        .try_fold(0u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .filter(|ms| *ms <= EXPIRATION_MS_MAX)
        .ok_or_else(|| ExpirationError::ValueTooLarge(printed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expirations_are_read_as_rabbitmq_reads_them() {
        for (text, ms) in
            [("0", 0), ("100", 100), ("0100", 100), ("+5", 5), ("-0", 0), ("315360000000", EXPIRATION_MS_MAX)]
        {
            assert_eq!(parse_expiration(text.as_bytes()), Ok(ms), "{text}");
        }
        for (text, reason) in [
            ("", "no_integer"),
            ("abc", "no_integer"),
            (" 1", "no_integer"),
            ("-", "no_integer"),
            ("10x", "{leftover_string,\"x\"}"),
            ("-1x", "{leftover_string,\"x\"}"),
            ("1\u{1}", "{leftover_string,[1]}"),
            ("-1", "{value_negative,-1}"),
            ("315360000001", "{value_too_large,315360000001}"),
            ("00099999999999999999999999", "{value_too_large,99999999999999999999999}"),
        ] {
            let error = parse_expiration(text.as_bytes()).expect_err(text);
            assert_eq!(error.to_string(), reason, "{text}");
        }
    }
}
