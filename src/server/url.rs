//! URLs for clients on this machine.

use crate::config::UserEntry;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const DEFAULT_VHOST: &str = "/";

/// The user, password and vhost of a URL, percent-encoded.
pub(super) struct Login {
    user_info: String,
    vhost: String,
}

impl Login {
    /// The first user whose password is given in plain text.
    pub(super) fn of_users(users: &[UserEntry]) -> Option<Self> {
        users.iter().find_map(|user| {
            let password = user.password.as_ref()?.reveal();
            let vhost = vhost_of(user).unwrap_or(DEFAULT_VHOST);
            Some(Self::new(&user.name, password, vhost))
        })
    }

    pub(super) fn new(user: &str, password: &str, vhost: &str) -> Self {
        Self { user_info: format!("{}:{}@", encoded(user), encoded(password)), vhost: encoded(vhost) }
    }

    /// Without a user: the client has to supply one.
    pub(super) fn anonymous() -> Self {
        Self { user_info: String::new(), vhost: encoded(DEFAULT_VHOST) }
    }

    pub(super) fn url(&self, address: SocketAddr) -> String {
        let Self { user_info, vhost } = self;
        format!("amqp://{user_info}{}/{vhost}", reachable(address))
    }
}

/// The first vhost of a user that may not open `/`; `None` if the user may.
fn vhost_of(user: &UserEntry) -> Option<&str> {
    let opens_default = user.vhosts.iter().any(|vhost| vhost == DEFAULT_VHOST);
    user.vhosts.first().map(String::as_str).filter(|_| !opens_default)
}

/// The path of a user's URL. Every client takes a URL without a path to mean the vhost `/`.
#[cfg(feature = "cli")]
pub(crate) fn path_of(user: &UserEntry) -> String {
    vhost_of(user).map(|vhost| format!("/{}", encoded(vhost))).unwrap_or_default()
}

/// The address to which a client on this machine connects. The unspecified address, which listens on all, becomes
/// loopback.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Percent-encodes a name as a part of a URL (RFC 3986).
pub(crate) fn encoded(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte.into());
        } else {
            text += &format!("%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unspecified_address_becomes_loopback() {
        for (listening, shown) in
            [("0.0.0.0:5672", "127.0.0.1:5672"), ("[::]:5672", "[::1]:5672"), ("10.0.0.7:1", "10.0.0.7:1")]
        {
            assert_eq!(reachable(listening.parse().unwrap()).to_string(), shown);
        }
    }

    #[test]
    fn names_are_encoded_as_parts_of_a_url() {
        assert_eq!(encoded("till-1.shop_~"), "till-1.shop_~");
        assert_eq!(encoded("a b/c@d:é"), "a%20b%2Fc%40d%3A%C3%A9");
    }

    #[test]
    fn a_url_contains_the_first_user_with_a_plain_password_and_a_vhost_of_that_user() {
        let address = "0.0.0.0:5672".parse().unwrap();
        let mut hashed = UserEntry::new("hashed", "");
        hashed.password = None;
        let mut till = UserEntry::new("till", "p@ss");
        assert_eq!(
            Login::of_users(&[hashed.clone(), till.clone()]).unwrap().url(address),
            "amqp://till:p%40ss@127.0.0.1:5672/%2F"
        );
        till.vhosts = vec!["shop".to_owned()];
        assert_eq!(Login::of_users(&[till]).unwrap().url(address), "amqp://till:p%40ss@127.0.0.1:5672/shop");
        assert!(Login::of_users(&[hashed]).is_none());
        assert_eq!(Login::anonymous().url(address), "amqp://127.0.0.1:5672/%2F");
    }
}
