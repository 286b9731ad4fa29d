//! SASL mechanisms: a client's response to `connection.start` is read and checked.

use super::login_failure::LoginFailure;
use super::users::{User, Users};
use crate::wire::table::{Table, Value};

/// A mechanism that the broker offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// NUL user NUL password.
    Plain,
    /// A field table with LOGIN and PASSWORD.
    AmqPlain,
}

/// The mechanisms as `connection.start` lists them.
pub(crate) const OFFERED: &str = "AMQPLAIN PLAIN";

impl Mechanism {
    /// The mechanism that a client names, if it is offered.
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        match name {
            b"PLAIN" => Some(Self::Plain),
            b"AMQPLAIN" => Some(Self::AmqPlain),
            _ => None,
        }
    }
}

/// Logs in the user that `response` names.
///
/// # Errors
/// A malformed response, or credentials that are refused.
pub(crate) fn authenticate(
    users: &Users,
    mechanism: Mechanism,
    response: &[u8],
    peer_is_loopback: bool,
) -> Result<User, LoginFailure> {
    let credentials = match mechanism {
        Mechanism::Plain => plain(response),
        Mechanism::AmqPlain => amqplain(response),
    };
    let Credentials { user, password } = credentials.ok_or(LoginFailure::Malformed)?;
    users.log_in(user, password, peer_is_loopback)
}

struct Credentials<'a> {
    user: &'a [u8],
    password: &'a [u8],
}

/// NUL, user, NUL, password. An authorisation identity in front of the first NUL is not accepted.
fn plain(response: &[u8]) -> Option<Credentials<'_>> {
    let mut parts = response.strip_prefix(b"\0")?.split(|&byte| byte == 0);
    let (user, password) = (parts.next()?, parts.next()?);
    parts.next().is_none().then_some(Credentials { user, password })
}

/// A field table without the length that tables have elsewhere.
fn amqplain(response: &[u8]) -> Option<Credentials<'_>> {
    let (table, _) = Table::check(response).ok()?;
    let text = |key: &[u8]| match table.get(key)? {
        Value::LongString(bytes) | Value::ByteArray(bytes) => Some(bytes),
        _ => None,
    };
    Some(Credentials { user: text(b"LOGIN")?, password: text(b"PASSWORD")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::users::tests::users;
    use crate::wire::table::TableWriter;

    fn outcome(mechanism: Mechanism, response: &[u8]) -> Result<String, LoginFailure> {
        authenticate(&users(), mechanism, response, true).map(|user| user.name.to_string())
    }

    fn table(entries: &[(&str, Value<'_>)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = TableWriter::new(&mut bytes);
        for (key, value) in entries {
            writer.value(key.as_bytes(), *value);
        }
        bytes
    }

    #[test]
    fn plain_is_nul_user_nul_password_and_nothing_else() {
        assert_eq!(outcome(Mechanism::Plain, b"\0guest\0guest").unwrap(), "guest");
        let malformed: [&[u8]; 6] =
            [b"", b"guest\0guest", b"\0guest", b"id\0guest\0guest", b"\0guest\0guest\0", b"\0a\0b\0c"];
        for response in malformed {
            assert_eq!(outcome(Mechanism::Plain, response), Err(LoginFailure::Malformed), "{response:?}");
        }
    }

    #[test]
    fn a_well_formed_response_with_wrong_credentials_is_not_malformed() {
        for response in [&b"\0guest\0wrong"[..], b"\0guest\0", b"\0\0", b"\0\xff\0x"] {
            assert!(matches!(outcome(Mechanism::Plain, response), Err(LoginFailure::Credentials { .. })));
        }
    }

    #[test]
    fn amqplain_accepts_both_kinds_of_string() {
        for value in [Value::LongString(b"guest"), Value::ByteArray(b"guest")] {
            let response = table(&[("LOGIN", Value::LongString(b"guest")), ("PASSWORD", value)]);
            assert_eq!(outcome(Mechanism::AmqPlain, &response).unwrap(), "guest");
        }
    }

    #[test]
    fn amqplain_without_a_key_or_with_another_type_is_malformed() {
        let malformed = [
            table(&[("LOGIN", Value::LongString(b"guest"))]),
            table(&[("PASSWORD", Value::LongString(b"guest"))]),
            table(&[("LOGIN", Value::LongString(b"guest")), ("PASSWORD", Value::I32(1))]),
            b"\0guest\0guest".to_vec(),
            vec![5, b'L'],
        ];
        for response in malformed {
            assert_eq!(outcome(Mechanism::AmqPlain, &response), Err(LoginFailure::Malformed));
        }
    }

    #[test]
    fn the_mechanisms_offered_are_those_that_are_known() {
        let known: Vec<_> = OFFERED.split(' ').filter_map(|name| Mechanism::from_name(name.as_bytes())).collect();
        assert_eq!(known, [Mechanism::AmqPlain, Mechanism::Plain]);
        assert_eq!(Mechanism::from_name(b"EXTERNAL"), None);
    }
}
