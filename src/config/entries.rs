//! The lists of a configuration file: `[[vhosts]]` and `[[users]]`.

use std::fmt;

use serde::Deserialize;

/// A vhost that exists after start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VhostEntry {
    /// Its name.
    pub name: String,
}

/// A user that exists after start, with what is given here.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserEntry {
    /// The login name.
    pub name: String,
    /// The password in plain text; or `password_hash`, not both.
    pub password: Option<Password>,
    /// base64 of salt and SHA-256, as RabbitMQ's definitions carry it.
    pub password_hash: Option<Password>,
    /// Tags such as `administrator` or `impersonator`.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The vhosts that the user may open.
    #[serde(default = "default_vhosts")]
    pub vhosts: Vec<String>,
}

fn default_vhosts() -> Vec<String> {
    vec!["/".to_owned()]
}

impl UserEntry {
    /// What is wrong with the entry, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX {
            return Some(format!("a user's name has 1 to {NAME_BYTES_MAX} bytes"));
        }
        match (&self.password, &self.password_hash) {
            (Some(_), Some(_)) => Some(format!("user {:?} has password and password_hash; give one", self.name)),
            (None, None) => Some(format!("user {:?} has neither password nor password_hash; give one", self.name)),
            (Some(password), None) if password.reveal().is_empty() => {
                Some(format!("user {:?} has an empty password, which no login accepts", self.name))
            }
            _ => None,
        }
    }
}

impl VhostEntry {
    /// What is wrong with the entry, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        let is_short = self.name.len() <= NAME_BYTES_MAX;
        (!is_short).then(|| format!("a vhost's name has at most {NAME_BYTES_MAX} bytes"))
    }
}

/// Names travel as short strings.
const NAME_BYTES_MAX: usize = 255;

/// A secret: shown by nothing but [`reveal`](Self::reveal).
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Password(String);

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
