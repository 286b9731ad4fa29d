//! Users and vhosts of the settings: applied at the start, and again at each reload.
//!
//! A user that an earlier start took from the settings, and that they no longer list, is deleted. A vhost that they no
//! longer list cannot be opened, and keeps its queues and messages. The open connections of such a user or vhost are
//! closed.

use super::shared::Shared;
use super::start_error::StartError;
use crate::auth::{Users, users};
use crate::broker::Broker;
use crate::config::entries::{Fault, fault};
use crate::config::{Settings, UserEntry, VhostEntry};
use crate::model::{AmqpError, Name};
use crate::store::{RecoveredState, TopologyChange, UserRecord};

const DEFAULT_VHOST: &str = "/";
const DEFAULT_USER: &str = "guest";
const VHOST_WITHHELD: &str = "the settings no longer list the vhost: it cannot be opened, and keeps its queues";

/// Gives the broker the users and vhosts of the store, changed as the settings demand. An empty store gets the user
/// `guest`, unless the settings list users.
pub(super) fn recover_users(
    settings: &Settings,
    recovered: &RecoveredState,
    broker: &Broker,
) -> Result<(), StartError> {
    check(settings)?;
    let mut known = Users::new(settings.loopback_users.iter().cloned());
    for record in &recovered.users {
        known.put(record.clone());
    }
    let mut changes = Vec::new();
    let is_empty_store = recovered.users.is_empty() && recovered.vhosts.is_empty();
    if is_empty_store && settings.users.is_empty() {
        let record = UserRecord { from_settings: false, ..users::record_of(&guest(), None, salt()?) };
        changes.push(TopologyChange::PutUser(record.clone()));
        known.put(record);
    }
    for record in put_entries(&mut known, &settings.users, &mut changes)? {
        tracing::warn!(user = record.name.as_str(), "the settings no longer list the user: the user is deleted");
    }
    // Users are stored before vhosts: a store with a vhost and without users has lost its users. It does not count as
    // empty.
    store(broker, changes);
    let withheld = recovered.vhosts.iter().map(|vhost| &vhost.name).filter(|name| !is_open(settings, name));
    for name in withheld {
        tracing::warn!(vhost = name.as_str(), "{VHOST_WITHHELD}");
        known.withhold_vhost(name.clone());
    }
    broker.create_vhost(&Name::from(DEFAULT_VHOST));
    create_vhosts(&mut known, broker, &settings.vhosts);
    if known.is_empty() {
        tracing::warn!("nobody can log in: no user is configured, and the store has none");
    }
    *broker.access().users_mut() = known;
    Ok(())
}

/// Applies new lists of users and vhosts, and of the users that may log in from this machine only.
pub(super) fn reload(shared: &Shared, former: &Settings, wanted: &Settings) -> Result<(), StartError> {
    check(wanted)?;
    let mut changes = Vec::new();
    let deleted = {
        let mut known = shared.broker.access().users_mut();
        if wanted.users.is_empty() && known.iter().all(|record| record.from_settings) {
            // A settings file that is just being rewritten looks empty for a moment.
            let problem = "no user could log in any more".to_owned();
            return Err(StartError::Entry { entry: "users".to_owned(), problem });
        }
        let deleted = put_entries(&mut known, &wanted.users, &mut changes)?;
        known.set_loopback_only(wanted.loopback_users.iter().cloned());
        let vhosts = former.vhosts.iter().map(|vhost| Name::from(vhost.name.as_str()));
        for name in vhosts.filter(|name| !is_open(wanted, name)) {
            tracing::warn!(vhost = name.as_str(), "{VHOST_WITHHELD}");
            known.withhold_vhost(name);
        }
        create_vhosts(&mut known, &shared.broker, &wanted.vhosts);
        deleted
    };
    store(&shared.broker, changes);
    for record in &deleted {
        tracing::warn!(user = record.name.as_str(), "user deleted: the configuration no longer lists it");
    }
    close_connections(shared, &deleted);
    Ok(())
}

/// Closes the connections of deleted users and withheld vhosts. A connection is added to the broker while the users are
/// locked, so this finds every connection that was accepted before the change.
fn close_connections(shared: &Shared, deleted: &[UserRecord]) {
    let withheld = shared.broker.access().users().withheld_vhosts();
    for peer in shared.broker.peers() {
        let reason = if deleted.iter().any(|record| record.name == *peer.user()) {
            format!("user '{}' is deleted", peer.user())
        } else if withheld.contains(peer.vhost()) {
            format!("vhost '{}' is not configured any more; its queues are kept", peer.vhost())
        } else {
            continue;
        };
        peer.close(AmqpError::connection_forced(reason));
    }
}

fn check(settings: &Settings) -> Result<(), StartError> {
    match fault(&settings.vhosts, &settings.users) {
        Some(Fault { entry, problem }) => Err(StartError::Entry { entry, problem }),
        None => Ok(()),
    }
}

fn is_open(settings: &Settings, vhost: &Name) -> bool {
    vhost.as_str() == DEFAULT_VHOST || settings.vhosts.iter().any(|entry| entry.name == vhost.as_str())
}

/// Creates and updates the users of the settings. Removes the users that the settings no longer list, and returns them.
fn put_entries(
    known: &mut Users,
    entries: &[UserEntry],
    changes: &mut Vec<TopologyChange>,
) -> Result<Vec<UserRecord>, StartError> {
    for entry in entries {
        let record = users::record_of(entry, known.get(&entry.name), salt()?);
        if known.get(&entry.name) != Some(&record) {
            changes.push(TopologyChange::PutUser(record.clone()));
            known.put(record);
        }
    }
    let is_gone =
        |record: &&UserRecord| record.from_settings && !entries.iter().any(|entry| entry.name == record.name.as_str());
    let gone: Vec<UserRecord> = known.iter().filter(is_gone).cloned().collect();
    for record in &gone {
        known.remove(record.name.as_str());
        changes.push(TopologyChange::DeleteUser(record.name.clone()));
    }
    Ok(gone)
}

fn create_vhosts(known: &mut Users, broker: &Broker, entries: &[VhostEntry]) {
    for entry in entries {
        let name = Name::from(entry.name.as_str());
        broker.create_vhost(&name);
        known.release_vhost(&name);
    }
}

fn store(broker: &Broker, changes: Vec<TopologyChange>) {
    if changes.is_empty() {
        return;
    }
    let on_outcome = |durable: bool| {
        if !durable {
            tracing::error!("the users of the settings could not be stored");
        }
    };
    broker.writer().topology(changes, Box::new(on_outcome));
}

fn guest() -> UserEntry {
    UserEntry {
        name: DEFAULT_USER.to_owned(),
        password: Some(DEFAULT_USER.into()),
        password_hash: None,
        tags: vec!["administrator".to_owned()],
        vhosts: vec![DEFAULT_VHOST.to_owned()],
    }
}

fn salt() -> Result<[u8; 4], StartError> {
    let number = getrandom::u32().map_err(|error| StartError::Random(error.to_string()))?;
    Ok(number.to_le_bytes())
}
