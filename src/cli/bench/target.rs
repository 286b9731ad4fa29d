//! The address of a broker and a login, from an AMQP URL; and the connection to that address.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

const SCHEME: &str = "amqp://";
const PORT: &str = "5672";

/// A broker and a login: `amqp://user:password@host:port/vhost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// Host and port.
    pub(super) address: String,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) vhost: String,
    /// The longest time that the broker may take for an answer.
    pub(super) patience: Duration,
}

impl Target {
    /// Parses a URL, whose login and vhost may be percent-encoded. The defaults are guest, guest, port 5672 and the
    /// vhost `/`.
    pub(super) fn parse(url: &str, patience: Duration) -> Result<Self, String> {
        let rest = url.strip_prefix(SCHEME).ok_or_else(|| format!("{url}: expected {SCHEME}..."))?;
        let (rest, vhost) = rest.split_once('/').filter(|(_, vhost)| !vhost.is_empty()).unwrap_or_else(|| {
            // A final slash means the default too.
            (rest.trim_end_matches('/'), "%2f")
        });
        let (login, address) = rest.rsplit_once('@').unwrap_or(("guest:guest", rest));
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let decoded = |part: &str| decode(part).ok_or_else(|| format!("{part}: not a percent-encoded text"));
        Ok(Self {
            address: with_port(address)?,
            user: decoded(user)?,
            password: decode(password).ok_or("the password is not a percent-encoded text")?,
            vhost: decoded(vhost)?,
            patience,
        })
    }

    /// Connects to the first address of the host that accepts.
    pub(super) fn connect(&self) -> io::Result<TcpStream> {
        let failed = |why: String| io::Error::other(why);
        let addresses = self.address.to_socket_addrs();
        let addresses = addresses.map_err(|error| failed(format!("{}: {}", self.address, plain(&error))))?;
        let mut last = failed(format!("{}: no such address", self.address));
        for address in addresses {
            match TcpStream::connect_timeout(&address, self.patience) {
                Ok(stream) => {
                    self.set_options(&stream)?;
                    return Ok(stream);
                }
                Err(error) => last = failed(self.refused(address, &error)),
            }
        }
        Err(last)
    }

    /// Limits reads and writes to the time that the broker may take.
    fn set_options(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.patience))?;
        stream.set_write_timeout(Some(self.patience))
    }

    fn refused(&self, address: SocketAddr, error: &io::Error) -> String {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => format!("no broker listens at {address}: the connection was refused"),
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                format!("{address} has not answered for {:?}", self.patience)
            }
            _ => format!("{address}: {}", plain(error)),
        }
    }
}

/// The system's text of an error, without its number.
pub(super) fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error ").next().unwrap_or_default().to_owned()
}

fn with_port(address: &str) -> Result<String, String> {
    // An IPv6 address is in brackets.
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (address, PORT),
    };
    match port.parse::<u16>() {
        Ok(port) if !host.is_empty() => Ok(format!("{host}:{port}")),
        Ok(_) => Err(format!("{address:?} names no host")),
        Err(_) => Err(format!("{address}: {port:?} is not a port, a number from 0 to 65535")),
    }
}

/// Decodes percent-encoding; `None` if the result is not UTF-8, or a `%` is not followed by two hexadecimal digits.
fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(url: &str) -> Result<Target, String> {
        Target::parse(url, Duration::ZERO)
    }

    fn encode(text: &str) -> String {
        text.bytes().map(|byte| format!("%{byte:02x}")).collect()
    }

    #[test]
    fn missing_parts_of_a_url_have_their_defaults() {
        for (url, address, user, password, vhost) in [
            ("amqp://h", "h:5672", "guest", "guest", "/"),
            ("amqp://h/", "h:5672", "guest", "guest", "/"),
            ("amqp://h:1/%2f", "h:1", "guest", "guest", "/"),
            ("amqp://u@[::1]/v", "[::1]:5672", "u", "", "v"),
            ("amqp://u:p@[::1]:7/v/w", "[::1]:7", "u", "p", "v/w"),
        ] {
            let found = parse(url).unwrap();
            assert_eq!(
                (&*found.address, &*found.user, &*found.password, &*found.vhost),
                (address, user, password, vhost),
                "{url}"
            );
        }
    }

    proptest! {
        #[test]
        fn login_and_vhost_may_hold_any_text(user in "\\PC{0,9}", password in "\\PC{0,9}", vhost in "\\PC{1,9}") {
            let url = format!("amqp://{}:{}@h/{}", encode(&user), encode(&password), encode(&vhost));
            let found = parse(&url).unwrap();
            prop_assert_eq!((found.user, found.password, found.vhost), (user, password, vhost));
        }

        #[test]
        fn no_text_makes_it_panic_and_no_error_shows_the_password(rest in "\\PC{0,20}", password in "[A-Z]{12}") {
            let shown = [parse(&rest), parse(&format!("amqp://{rest}")), parse(&format!("amqp://u:{password}%@{rest}"))];
            for why in shown.into_iter().filter_map(Result::err) {
                prop_assert!(!why.contains(&password), "{}", why);
            }
        }
    }
}
