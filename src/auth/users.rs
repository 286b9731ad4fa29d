//! The users, and the permissions of each.

use ahash::{AHashMap, AHashSet};

use super::login_failure::LoginFailure;
use super::password::{self, Algorithm, Salt};
use crate::config::UserEntry;
use crate::model::Name;
use crate::model::stored::UserRecord;

/// The tag that allows a `user-id` other than the user's own.
const IMPERSONATOR: &str = "impersonator";

/// All users of the broker, and the vhosts that none of them may open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Users {
    by_name: AHashMap<Name, UserRecord>,
    loopback_only: AHashSet<String>,
    withheld_vhosts: AHashSet<Name>,
}

/// A user who has logged in, with the tags of that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    /// The login name.
    pub name: Name,
    /// Tags such as `administrator`.
    pub tags: Vec<String>,
}

impl User {
    /// Whether the user may publish under the `user-id` of others.
    pub(crate) fn is_impersonator(&self) -> bool {
        self.tags.iter().any(|tag| tag == IMPERSONATOR)
    }
}

impl Users {
    /// A list without users; the named users may log in from this machine only.
    pub(crate) fn new(loopback_only: impl IntoIterator<Item = String>) -> Self {
        let mut users = Self::default();
        users.set_loopback_only(loopback_only);
        users
    }

    /// Sets the users that may log in from this machine only.
    pub(crate) fn set_loopback_only(&mut self, loopback_only: impl IntoIterator<Item = String>) {
        self.loopback_only = loopback_only.into_iter().collect();
    }

    /// Forbids all users to open a vhost.
    pub(crate) fn withhold_vhost(&mut self, vhost: Name) {
        self.withheld_vhosts.insert(vhost);
    }

    /// Allows users to open a vhost again.
    pub(crate) fn release_vhost(&mut self, vhost: &Name) {
        self.withheld_vhosts.remove(vhost);
    }

    /// The vhosts that no user may open.
    pub(crate) fn withheld_vhosts(&self) -> AHashSet<Name> {
        self.withheld_vhosts.clone()
    }

    /// Whether no user may open this vhost.
    pub(crate) fn withholds(&self, vhost: &str) -> bool {
        self.withheld_vhosts.contains(vhost.as_bytes())
    }

    /// Whether the user exists and may open this vhost.
    pub(crate) fn may_open_vhost(&self, user: &str, vhost: &str) -> bool {
        self.get(user).is_some_and(|record| record.vhosts.iter().any(|allowed| allowed.as_str() == vhost))
    }

    /// Adds a user, or replaces the one of this name.
    pub(crate) fn put(&mut self, record: UserRecord) {
        self.by_name.insert(record.name.clone(), record);
    }

    /// Removes a user. Returns whether the user existed.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        self.by_name.remove(name.as_bytes()).is_some()
    }

    /// The user of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&UserRecord> {
        self.by_name.get(name.as_bytes())
    }

    /// All users, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &UserRecord> {
        self.by_name.values()
    }

    /// Whether the list has no user.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Logs a user in by password.
    ///
    /// # Errors
    /// `Credentials`, with the reason for the log; the client gets no reason.
    pub(crate) fn log_in(&self, name: &[u8], password: &[u8], peer_is_loopback: bool) -> Result<User, LoginFailure> {
        let refused =
            |reason| Err(LoginFailure::Credentials { user: String::from_utf8_lossy(name).into_owned(), reason });
        let Some(record) = self.by_name.get(name) else { return refused("no such user") };
        let Some(algorithm) = Algorithm::from_name(&record.hashing_algorithm) else {
            return refused("the user's password hash is of an unknown algorithm");
        };
        if !password::verify(algorithm, &record.password_hash, password) {
            return refused("wrong password");
        }
        if !peer_is_loopback && self.loopback_only.contains(record.name.as_str()) {
            return refused("the user may log in from this machine only");
        }
        Ok(User { name: record.name.clone(), tags: record.tags.clone() })
    }
}

/// The record of a configured user. It is equal to `existing` if nothing differs: a password that still matches keeps its
/// salt and hash.
pub(crate) fn record_of(entry: &UserEntry, existing: Option<&UserRecord>, salt: Salt) -> UserRecord {
    let (password_hash, hashing_algorithm) = match (&entry.password_hash, &entry.password) {
        (Some(password_hash), _) => (password_hash.reveal().to_owned(), Algorithm::Sha256.name().to_owned()),
        (None, Some(password)) => {
            let kept = existing.filter(|record| {
                Algorithm::from_name(&record.hashing_algorithm).is_some_and(|algorithm| {
                    password::verify(algorithm, &record.password_hash, password.reveal().as_bytes())
                })
            });
            match kept {
                Some(record) => (record.password_hash.clone(), record.hashing_algorithm.clone()),
                None => {
                    let password_hash = password::hash(Algorithm::Sha256, salt, password.reveal().as_bytes());
                    (password_hash, Algorithm::Sha256.name().to_owned())
                }
            }
        }
        (None, None) => (String::new(), Algorithm::Sha256.name().to_owned()),
    };
    UserRecord {
        name: Name::from(entry.name.as_str()),
        password_hash,
        hashing_algorithm,
        tags: entry.tags.clone(),
        from_settings: true,
        vhosts: entry.vhosts.iter().map(|vhost| Name::from(vhost.as_str())).collect(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::config::Password;

    pub(in super::super) fn entry(name: &str, password: &str) -> UserEntry {
        UserEntry {
            name: name.to_owned(),
            password: Some(Password::from(password)),
            password_hash: None,
            tags: Vec::new(),
            vhosts: vec!["/".to_owned()],
        }
    }

    pub(in super::super) fn users() -> Users {
        let mut users = Users::new(["guest".to_owned()]);
        users.put(record_of(&entry("guest", "guest"), None, [1, 2, 3, 4]));
        users.put(record_of(&entry("anna", "secret"), None, [5, 6, 7, 8]));
        users
    }

    fn reason(result: Result<User, LoginFailure>) -> &'static str {
        match result {
            Err(LoginFailure::Credentials { reason, .. }) => reason,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    #[test]
    fn a_loopback_user_logs_in_from_this_machine_only() {
        let users = users();
        assert_eq!(users.log_in(b"guest", b"guest", true).unwrap().name.as_str(), "guest");
        assert!(reason(users.log_in(b"guest", b"guest", false)).contains("this machine only"));
        assert!(users.log_in(b"anna", b"secret", false).is_ok());
    }

    #[test]
    fn wrong_empty_and_unknown_are_refused() {
        let mut users = users();
        assert_eq!(reason(users.log_in(b"anna", b"Secret", true)), "wrong password");
        assert_eq!(reason(users.log_in(b"anna", b"", true)), "wrong password");
        assert_eq!(reason(users.log_in(b"nobody", b"secret", true)), "no such user");
        let mut record = users.get("anna").unwrap().clone();
        record.hashing_algorithm = "unknown".to_owned();
        users.put(record);
        assert!(reason(users.log_in(b"anna", b"secret", true)).contains("unknown algorithm"));
        assert!(users.remove("anna"));
        assert_eq!(reason(users.log_in(b"anna", b"secret", true)), "no such user");
    }

    #[test]
    fn a_user_opens_the_vhosts_listed_and_no_others() {
        let mut users = users();
        let limited =
            UserEntry { vhosts: vec!["shop".to_owned()], tags: vec!["impersonator".to_owned()], ..entry("till", "x") };
        users.put(record_of(&limited, None, [0; 4]));
        assert!(users.may_open_vhost("till", "shop"));
        assert!(!users.may_open_vhost("till", "/"));
        assert!(!users.may_open_vhost("nobody", "shop"));
        let user = users.log_in(b"till", b"x", true).unwrap();
        assert!(user.is_impersonator());
        assert!(!users.log_in(b"anna", b"secret", true).unwrap().is_impersonator());
    }

    #[test]
    fn applying_the_same_entry_again_changes_nothing_and_a_new_password_does() {
        let first = record_of(&entry("anna", "secret"), None, [1, 1, 1, 1]);
        assert_eq!(record_of(&entry("anna", "secret"), Some(&first), [2, 2, 2, 2]), first);
        let changed = record_of(&entry("anna", "other"), Some(&first), [2, 2, 2, 2]);
        assert_ne!(changed.password_hash, first.password_hash);
    }

    #[test]
    fn a_configured_hash_is_kept_as_it_is() {
        let vector = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";
        let hashed =
            UserEntry { password: None, password_hash: Some(Password::from(vector)), ..entry("imported", "unused") };
        let mut users = Users::default();
        users.put(record_of(&hashed, None, [0; 4]));
        assert_eq!(users.get("imported").unwrap().password_hash, vector);
        assert!(users.log_in(b"imported", b"test12", false).is_ok());
    }
}
