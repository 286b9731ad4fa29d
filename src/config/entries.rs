//! The lists of a configuration file: `[[vhosts]]` and `[[users]]`.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// A vhost that is created at start if it is missing.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct VhostEntry {
    /// The vhost's name.
    #[serde(deserialize_with = "name")]
    pub name: String,
}

/// A user that is created or changed at start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct UserEntry {
    /// The login name.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// The password in plain text; either this or `password_hash`.
    pub password: Option<Password>,
    /// base64 of salt and SHA-256, as RabbitMQ's definitions carry it.
    pub password_hash: Option<Password>,
    /// Tags such as `administrator` or `impersonator`.
    #[serde(default, deserialize_with = "tags")]
    pub tags: Vec<String>,
    /// The vhosts that the user may open.
    #[serde(default = "default_vhosts", deserialize_with = "vhosts")]
    pub vhosts: Vec<String>,
}

fn default_vhosts() -> Vec<String> {
    vec!["/".to_owned()]
}

// serde's own errors do not name the field that has the wrong type.

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map_err(|_| D::Error::custom("name is a text in quotes"))
}

fn tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Vec::deserialize(deserializer).map_err(|_| D::Error::custom("tags is a list, such as [\"administrator\"]"))
}

fn vhosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Vec::deserialize(deserializer).map_err(|_| D::Error::custom("vhosts is a list, such as [\"/\"]"))
}

/// A fault of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The entry, such as `users[1]`.
    pub entry: String,
    /// The problem.
    pub problem: String,
}

/// The first fault of the lists.
pub(crate) fn fault(vhosts: &[VhostEntry], users: &[UserEntry]) -> Option<Fault> {
    let of_vhost = |(at, vhost): (usize, &VhostEntry)| {
        let problem = vhost.fault(&vhosts[..at])?;
        Some(Fault { entry: format!("vhosts[{at}]"), problem })
    };
    let of_user = |(at, user): (usize, &UserEntry)| {
        let problem = user.fault(&users[..at], vhosts)?;
        Some(Fault { entry: format!("users[{at}]"), problem })
    };
    vhosts.iter().enumerate().find_map(of_vhost).or_else(|| users.iter().enumerate().find_map(of_user))
}

impl UserEntry {
    /// A user with a password, without tags, who may open the vhost `/`.
    pub fn new(name: impl Into<String>, password: &str) -> Self {
        let password = Some(Password::from(password));
        Self { name: name.into(), password, password_hash: None, tags: Vec::new(), vhosts: default_vhosts() }
    }

    fn fault(&self, before: &[Self], vhosts: &[VhostEntry]) -> Option<String> {
        let name = &self.name;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Some(format!("a user's name has 1 to {NAME_BYTES_MAX} bytes"));
        }
        if before.iter().any(|user| user.name == *name) {
            return Some(format!("there is another user {name:?}"));
        }
        self.password_fault().or_else(|| self.tag_fault()).or_else(|| self.vhost_fault(vhosts))
    }

    fn password_fault(&self) -> Option<String> {
        let name = &self.name;
        match (&self.password, &self.password_hash) {
            (Some(_), Some(_)) => Some(format!("user {name:?} has password and password_hash; give one")),
            (None, None) => Some(format!("user {name:?} has neither password nor password_hash; give one")),
            (Some(password), None) if password.reveal().is_empty() => {
                Some(format!("user {name:?} has an empty password, which no login accepts"))
            }
            (None, Some(hash)) => {
                let bytes = BASE64_STANDARD.decode(hash.reveal());
                let is_whole = bytes.is_ok_and(|bytes| bytes.len() == HASH_BYTES);
                (!is_whole).then(|| {
                    format!(
                        "the password_hash of user {name:?} is not the base64 of {HASH_BYTES} bytes: salt and SHA-256"
                    )
                })
            }
            (Some(_), None) => None,
        }
    }

    fn tag_fault(&self) -> Option<String> {
        let name = &self.name;
        if let Some(tag) = self.tags.iter().find(|tag| !TAGS.contains(&tag.as_str())) {
            return Some(format!("user {name:?} has the unknown tag {tag:?}; there are {}", TAGS.join(", ")));
        }
        twice(&self.tags).map(|tag| format!("user {name:?} has tag {tag:?} twice"))
    }

    fn vhost_fault(&self, vhosts: &[VhostEntry]) -> Option<String> {
        let name = &self.name;
        let is_known = |vhost: &String| *vhost == DEFAULT_VHOST || vhosts.iter().any(|entry| entry.name == *vhost);
        if let Some(vhost) = self.vhosts.iter().find(|vhost| !is_known(vhost)) {
            return Some(format!("user {name:?} may open a vhost that is not listed: there is no vhost {vhost:?}"));
        }
        twice(&self.vhosts).map(|vhost| format!("user {name:?} names vhost {vhost:?} twice"))
    }
}

fn twice(names: &[String]) -> Option<&String> {
    names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)).map(|(_, name)| name)
}

impl VhostEntry {
    /// A vhost of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    fn fault(&self, before: &[Self]) -> Option<String> {
        let name = &self.name;
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Some(format!("a vhost's name has 1 to {NAME_BYTES_MAX} bytes"));
        }
        before.contains(self).then(|| format!("there is another vhost {name:?}"))
    }
}

/// The vhost that always exists.
const DEFAULT_VHOST: &str = "/";

/// RabbitMQ's tags of users.
const TAGS: [&str; 5] = ["administrator", "monitoring", "policymaker", "management", "impersonator"];

/// A salt of four bytes and a SHA-256.
const HASH_BYTES: usize = 36;

/// Names travel as short strings.
const NAME_BYTES_MAX: usize = 255;

/// A secret: only [`reveal`](Self::reveal) shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl<'de> Deserialize<'de> for Password {
    /// An error names only the type of a wrong value: serde's own error would show the value.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong_type = |_| D::Error::custom("a password, or its hash, is a text in quotes");
        String::deserialize(deserializer).map(Self).map_err(wrong_type)
    }
}

impl Password {
    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Password {
    fn from(secret: &str) -> Self {
        Self(secret.to_owned())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}
