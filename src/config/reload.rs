//! Which settings can change while the broker runs.

use super::catalogue::{SETTINGS, Setting};
use super::settings::Settings;

/// The settings whose changes a running broker adopts, beside the lists of vhosts and users. Changed limits of one connection
/// apply to connections that open afterwards.
pub(crate) const RELOADABLE: [&str; 19] = [
    "connections_max",
    "channels_max",
    "frame_max",
    "initial_frame_max",
    "heartbeat",
    "handshake_timeout",
    "message_bytes_max",
    "log_level",
    "log_queue_bytes_max",
    "metrics_connections_max",
    "metrics_timeout",
    "loopback_users",
    "limits.memory_bytes",
    "limits.resident_bytes",
    "limits.disk_free_bytes",
    "limits.outbox_bytes_max",
    "limits.gets_in_flight_max",
    "limits.parked_bytes_max",
    "limits.moderation",
];

impl Setting {
    /// Whether a running broker adopts a change of the setting.
    pub(crate) fn is_reloadable(&self) -> bool {
        RELOADABLE.contains(&self.name)
    }
}

/// The effect of new settings on a running broker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reloaded {
    /// The settings that are in force now.
    pub settings: Settings,
    /// Settings that were changed.
    pub changed: Vec<&'static str>,
    /// Settings whose new value takes effect at the next start.
    pub needs_restart: Vec<&'static str>,
}

impl Reloaded {
    /// Compares the settings in force with new ones.
    pub(crate) fn new(in_force: &Settings, wanted: &Settings) -> Self {
        let mut settings = in_force.clone();
        let (mut changed, mut needs_restart) = (Vec::new(), Vec::new());
        for setting in SETTINGS.iter().filter(|setting| setting.kind.get(in_force) != setting.kind.get(wanted)) {
            if setting.is_reloadable() {
                setting.kind.copy(wanted, &mut settings);
                changed.push(setting.name);
            } else {
                needs_restart.push(setting.name);
            }
        }
        if settings.vhosts != wanted.vhosts {
            settings.vhosts.clone_from(&wanted.vhosts);
            changed.push("vhosts");
        }
        if settings.users != wanted.users {
            settings.users.clone_from(&wanted.users);
            changed.push("users");
        }
        Self { settings, changed, needs_restart }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::sources::{File, Sources};
    use crate::config::{UserEntry, VhostEntry};

    #[test]
    fn every_reloadable_setting_exists() {
        for name in RELOADABLE {
            assert!(SETTINGS.iter().any(|setting| setting.name == name), "{name}");
        }
    }

    #[test]
    fn changed_lists_are_adopted_and_equal_settings_change_nothing() {
        let text =
            "[[vhosts]]\nname = \"shop\"\n[[users]]\nname = \"till\"\npassword = \"secret\"\nvhosts = [\"shop\"]";
        let sources = Sources { file: Some(File { path: "p.toml", text }), ..Sources::default() };
        let wanted = sources.settings().unwrap();
        let reloaded = Reloaded::new(&Settings::default(), &wanted);
        assert_eq!((&reloaded.settings, reloaded.changed), (&wanted, vec!["vhosts", "users"]));
        let same = Reloaded::new(&wanted, &wanted);
        assert!(same.changed.is_empty() && same.needs_restart.is_empty());
        assert_eq!(Reloaded::new(&wanted, &Settings::default()).settings.vhosts, Vec::<VhostEntry>::new());
        assert_eq!(Reloaded::new(&wanted, &Settings::default()).settings.users, Vec::<UserEntry>::new());
    }
}
