//! The sources of settings: which one wins, and the texts of errors.

use std::fmt;

use serde::de::DeserializeOwned;

use super::catalogue::{ENVIRONMENT_PREFIX, PAIRS, SETTINGS, Setting};
use super::entries::{Fault, fault};
use super::kubernetes::is_of_kubernetes;
use super::settings::{LogFormat, Settings};
use super::value::Raw;

/// The source of a setting's value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A configuration file, by its path.
    File(String),
    /// An environment variable.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {path}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// An error in a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SettingError {
    /// The setting; empty when a file cannot be read as TOML at all.
    pub setting: String,
    /// The source of the value.
    pub origin: Origin,
    /// The problem, and which values are allowed.
    pub problem: String,
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.setting.is_empty() {
            return write!(f, "{}: {}", self.origin, self.problem);
        }
        write!(f, "setting {} ({}): {}", self.setting, self.origin, self.problem)
    }
}

impl std::error::Error for SettingError {}

/// A configuration file that the caller has read.
#[derive(Clone, Copy, Debug)]
pub struct File<'a> {
    /// Its path, for error texts.
    pub path: &'a str,
    /// Its content.
    pub text: &'a str,
}

/// A setting given on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The flag as written, `--amqp`.
    pub flag: &'static str,
    /// The setting's name in the catalogue.
    pub setting: &'static str,
    /// Its value; several addresses or names separated by commas.
    pub value: String,
}

/// The sources of settings. Each field overrules those before it.
#[derive(Clone, Debug, Default)]
pub struct Sources<'a> {
    /// The configuration file.
    pub file: Option<File<'a>>,
    /// The environment; names that do not begin with `PRONTOMQ_` are ignored.
    pub environment: Vec<(String, String)>,
    /// The flags that were given.
    pub flags: Vec<Flag>,
}

impl Sources<'_> {
    /// Reads the settings from these sources.
    ///
    /// # Errors
    /// The first unknown name or invalid value, or else the first two values that contradict each other.
    pub fn settings(&self) -> Result<Settings, SettingError> {
        let mut reading = Reading::default();
        if let Some(file) = self.file {
            reading.read_file(file)?;
        }
        for (name, value) in &self.environment {
            reading.read_variable(name, value)?;
        }
        for flag in &self.flags {
            let origin = Origin::Flag(flag.flag.to_owned());
            let setting = find(flag.setting).expect("flags name settings of the catalogue");
            reading.set(setting, &Raw::Text(flag.value.clone()), origin)?;
        }
        reading.check_pairs()?;
        Ok(reading.settings)
    }

    /// The log format for an error of these sources: the one that they set, as far as they can be read, or else the default.
    pub fn log_format(&self) -> LogFormat {
        const NAME: &str = "log_format";
        let setting = find(NAME).expect("it is in the catalogue");
        let variable = setting.environment();
        let of_flag = self.flags.iter().rev().find(|flag| flag.setting == NAME).map(|flag| flag.value.clone());
        let of_environment =
            || self.environment.iter().find(|(name, _)| *name == variable).map(|(_, value)| value.clone());
        let of_file = || {
            let line = self.file?.text.lines().find(|line| line.trim_start().starts_with(NAME))?;
            let table: toml::Table = toml::from_str(line).ok()?;
            table.get(NAME)?.as_str().map(str::to_owned)
        };
        let mut settings = Settings::default();
        if let Some(value) = of_flag.or_else(of_environment).or_else(of_file) {
            // An invalid value leaves the default.
            setting.kind.set(&mut settings, &Raw::Text(value));
        }
        settings.logging.format
    }
}

/// The lists of a file, which are not in the catalogue.
const LISTS: [&str; 2] = ["vhosts", "users"];

fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The settings as far as the sources were read.
#[derive(Debug, Default)]
struct Reading {
    settings: Settings,
    /// The settings that were set, in order.
    origins: Vec<(&'static str, Origin)>,
}

impl Reading {
    fn set(&mut self, setting: &Setting, raw: &Raw, origin: Origin) -> Result<(), SettingError> {
        if setting.kind.set(&mut self.settings, raw) {
            self.origins.push((setting.name, origin));
            return Ok(());
        }
        let problem = format!("{} is not possible; expected {}", raw.printed(), setting.kind.expectation());
        Err(SettingError { setting: setting.name.to_owned(), origin, problem })
    }

    fn read_variable(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let Some(suffix) = name.strip_prefix(ENVIRONMENT_PREFIX) else { return Ok(()) };
        let origin = Origin::Environment(name.to_owned());
        let error = |problem| SettingError { setting: suffix.to_lowercase(), origin: origin.clone(), problem };
        let Some(setting) = SETTINGS.iter().find(|setting| setting.environment() == name) else {
            if is_of_kubernetes(suffix) {
                return Ok(());
            }
            if let Some(list) = LISTS.iter().find(|list| list.to_uppercase() == suffix) {
                return Err(error(format!("it can only be in the file, as entries [[{list}]]")));
            }
            return Err(error(no_such_setting(name, SETTINGS.iter().map(Setting::environment))));
        };
        self.set(setting, &Raw::Text(value.to_owned()), origin)
    }

    fn read_file(&mut self, file: File<'_>) -> Result<(), SettingError> {
        let origin = Origin::File(file.path.to_owned());
        let table: toml::Table = toml::from_str(file.text).map_err(|error| SettingError {
            setting: String::new(),
            origin: origin.clone(),
            problem: without_source(&error, file.text),
        })?;
        for (name, value) in table {
            match (name.as_str(), value) {
                ("vhosts", value) => self.settings.vhosts = entries(&name, value, &origin)?,
                ("users", value) => self.settings.users = entries(&name, value, &origin)?,
                (section, toml::Value::Table(section_values)) => {
                    for (key, value) in section_values {
                        self.read_value(&format!("{section}.{key}"), value, &origin)?;
                    }
                }
                (name, value) => self.read_value(name, value, &origin)?,
            }
        }
        match fault(&self.settings.vhosts, &self.settings.users) {
            Some(Fault { entry, problem }) => Err(SettingError { setting: entry, origin, problem }),
            None => Ok(()),
        }
    }

    fn read_value(&mut self, name: &str, value: toml::Value, origin: &Origin) -> Result<(), SettingError> {
        let Some(setting) = find(name) else { return Err(unknown(name, origin)) };
        self.set(setting, &Raw::Toml(value), origin.clone())
    }

    /// Refuses a pair whose first value is greater than the second; the error names the one that was set.
    fn check_pairs(&self) -> Result<(), SettingError> {
        for pair in PAIRS {
            let [lower, upper] = <[&str; 2]>::from(pair).map(|name| find(name).expect("pairs are of the catalogue"));
            if lower.kind.number(&self.settings) <= upper.kind.number(&self.settings) {
                continue;
            }
            let (at_fault, relation, other, origin) = match self.origin(lower) {
                Some(origin) => (lower, "more", upper, origin),
                None => (upper, "less", lower, self.origin(upper).expect("the defaults do not contradict each other")),
            };
            let [value, limit] = [at_fault, other].map(|setting| setting.kind.get(&self.settings));
            let problem = format!("{value} is {relation} than {}, which is {limit}", other.name);
            return Err(SettingError { setting: at_fault.name.to_owned(), origin, problem });
        }
        Ok(())
    }

    /// The source of the value in force; none for a default.
    fn origin(&self, setting: &Setting) -> Option<Origin> {
        self.origins.iter().rev().find(|(name, _)| *name == setting.name).map(|(_, origin)| origin.clone())
    }
}

/// The message and line of a TOML error, without the source line, which may hold a password.
fn without_source(error: &toml::de::Error, text: &str) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

fn unknown(name: &str, origin: &Origin) -> SettingError {
    let lists = LISTS.map(str::to_owned);
    let problem = no_such_setting(name, SETTINGS.iter().map(|setting| setting.name.to_owned()).chain(lists));
    SettingError { setting: name.to_owned(), origin: origin.clone(), problem }
}

/// The error text of an unknown name, with the nearest setting: the shortest one that begins with the name, with its section or
/// without, or else the one with the fewest typing errors between.
fn no_such_setting(written: &str, known: impl Iterator<Item = String>) -> String {
    let begins_so = |name: &str| {
        name.starts_with(written) || name.split_once('.').is_some_and(|(_, name)| name.starts_with(written))
    };
    let nearest = known.min_by_key(|name| (!begins_so(name), strsim::damerau_levenshtein(name, written)));
    format!("no such setting; the nearest is {}", nearest.unwrap_or_default())
}

fn entries<T: DeserializeOwned>(name: &str, value: toml::Value, origin: &Origin) -> Result<Vec<T>, SettingError> {
    let error = |number: usize, problem: String| SettingError {
        setting: format!("{name}[{number}]"),
        origin: origin.clone(),
        problem,
    };
    let toml::Value::Array(items) = value else {
        return Err(error(0, format!("expected entries; write a line [[{name}]], and below it name = \"...\"")));
    };
    items
        .into_iter()
        .enumerate()
        .map(|(number, item)| {
            if !item.is_table() {
                let problem = format!("expected an entry; write a line [[{name}]], and below it name = \"...\"");
                return Err(error(number, problem));
            }
            // The message alone: a password of the wrong type must not be printed.
            T::deserialize(item).map_err(|cause| error(number, cause.message().trim().to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn file(text: &str) -> Sources<'_> {
        Sources { file: Some(File { path: "p.toml", text }), ..Sources::default() }
    }

    fn error(sources: &Sources<'_>) -> String {
        sources.settings().unwrap_err().to_string()
    }

    fn variable(name: &str, value: &str) -> Sources<'static> {
        Sources { environment: vec![(name.to_owned(), value.to_owned())], ..Sources::default() }
    }

    #[test]
    fn without_sources_the_defaults_apply() {
        assert_eq!(Sources::default().settings().unwrap(), Settings::default());
    }

    #[test]
    fn flags_overrule_the_environment_which_overrules_the_file() {
        let mut sources = file("channels_max = 1\nconnections_max = 1\nframe_max = 5000\n[store]\nkind = \"memory\"");
        sources.environment = vec![
            ("PRONTOMQ_CHANNELS_MAX".into(), "2".into()),
            ("PRONTOMQ_CONNECTIONS_MAX".into(), "2".into()),
            ("HOME".into(), "/".into()),
        ];
        sources.flags = vec![Flag { flag: "--channels-max", setting: "channels_max", value: "3".into() }];
        let settings = sources.settings().unwrap();
        assert_eq!(
            (settings.connection.channels_max, settings.connections_max, settings.connection.frame_max),
            (3, 2, 5000)
        );
        assert_eq!(settings.store.kind, crate::config::StoreKind::Memory);
    }

    #[test]
    fn bytes_and_times_may_carry_units() {
        let settings = file("heartbeat = 30\nhandshake_timeout = \"500 ms\"\nmessage_bytes_max = \"3 MiB\"").settings();
        let settings = settings.unwrap();
        assert_eq!(settings.connection.heartbeat, Duration::from_secs(30));
        assert_eq!(settings.connection.handshake_timeout, Duration::from_millis(500));
        assert_eq!(settings.connection.message_bytes_max, 3 << 20);
        let settings = variable("PRONTOMQ_LIMITS_PARKED_BYTES_MAX", "128KiB").settings().unwrap();
        assert_eq!(settings.limits.parked_bytes_max, 128 << 10);
        let settings = variable("PRONTOMQ_HEARTBEAT", "2min").settings().unwrap();
        assert_eq!(settings.connection.heartbeat, Duration::from_secs(120));
    }

    #[test]
    fn a_heartbeat_that_is_not_a_whole_number_of_seconds_is_refused_not_rounded() {
        for text in ["500 ms", "1500 ms", "0.5 s", "1ms"] {
            let message = error(&variable("PRONTOMQ_HEARTBEAT", text));
            assert!(message.contains("whole seconds") && !message.contains("such as \"500 ms\""), "{message}");
        }
        for (text, seconds) in [("2000 ms", 2), ("0", 0), ("0 ms", 0), ("65535 s", 65_535)] {
            let settings = variable("PRONTOMQ_HEARTBEAT", text).settings().unwrap();
            assert_eq!(settings.connection.heartbeat, Duration::from_secs(seconds), "{text}");
        }
    }

    #[test]
    fn the_error_of_a_fraction_names_the_allowed_form() {
        assert!(error(&file("handshake_timeout = 0.5")).contains("a whole number of seconds, or of a unit"));
        assert!(error(&file("handshake_timeout = \"0.5 s\"")).contains("a whole number of seconds, or of a unit"));
        assert!(error(&file("message_bytes_max = \"1.5 MiB\"")).contains("a whole number, or one of a unit"));
    }

    #[test]
    fn a_least_value_above_its_greatest_is_refused_from_any_source() {
        let pairs = [
            ("limits.window_entries_min", "limits.window_entries"),
            ("limits.consumer_window_messages", "limits.consumer_window_messages_max"),
            ("initial_frame_max", "frame_max"),
        ];
        for (lower, upper) in pairs {
            let [lower_name, upper_name] = [lower, upper].map(|name| find(name).unwrap().environment());
            let both = |low: &str, high: &str| Sources {
                environment: vec![(lower_name.clone(), low.into()), (upper_name.clone(), high.into())],
                ..Sources::default()
            };
            let message = error(&both("10001", "10000"));
            assert!(
                message.starts_with(&format!("setting {lower} (environment variable {lower_name}): ")),
                "{message}"
            );
            assert!(message.contains(&format!("more than {upper}")), "{message}");
            assert!(both("10000", "10000").settings().is_ok(), "{lower}");
        }
        assert_eq!(
            error(&file("[limits]\nwindow_entries = 32")),
            "setting limits.window_entries (file p.toml): 32 is less than limits.window_entries_min, which is 64"
        );
        assert_eq!(
            error(&file("initial_frame_max = \"256 KiB\"")),
            "setting initial_frame_max (file p.toml): \"256 KiB\" is more than frame_max, which is \"128 KiB\""
        );
    }

    #[test]
    fn lists_and_off_can_be_set_in_the_environment() {
        let settings = variable("PRONTOMQ_AMQP", "127.0.0.1:0, [::1]:0").settings().unwrap();
        assert_eq!(settings.amqp.len(), 2);
        assert_eq!(variable("PRONTOMQ_METRICS", "off").settings().unwrap().metrics.address, None);
        assert!(variable("PRONTOMQ_LOOPBACK_USERS", "").settings().unwrap().loopback_users.is_empty());
    }

    #[test]
    fn the_error_of_an_invalid_value_names_setting_source_and_allowed_values() {
        assert_eq!(
            error(&variable("PRONTOMQ_CHANNELS_MAX", "lots")),
            "setting channels_max (environment variable PRONTOMQ_CHANNELS_MAX): \"lots\" is not possible; expected a \
             number from 1 to 65535"
        );
        assert_eq!(
            error(&file("[store]\nkind = \"disk\"")),
            "setting store.kind (file p.toml): \"disk\" is not possible; expected \"sqlite\", \"memory\""
        );
        let flag = Flag { flag: "--metrics", setting: "metrics", value: "15692".into() };
        assert_eq!(
            error(&Sources { flags: vec![flag], ..Sources::default() }),
            "setting metrics (flag --metrics): \"15692\" is not possible; expected an address such as \
             \"127.0.0.1:15692\", or \"off\""
        );
        for text in ["channels_max = 0", "channels_max = 65536", "channels_max = -1", "amqp = []", "amqp = [5672]"] {
            assert!(file(text).settings().is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_the_nearest_setting_alone() {
        let nearest = "no such setting; the nearest is ";
        assert_eq!(
            error(&file("[store]\nkin = \"sqlite\"")),
            format!("setting store.kin (file p.toml): {nearest}store.kind")
        );
        for (written, meant) in [
            ("heart_beat = 1", "heartbeat"),
            ("chanels_max = 1", "channels_max"),
            ("[limit]\nmemory_bytes = 1", "limits.memory_bytes"),
            ("[limits]\nmemory_byte = 1", "limits.memory_bytes"),
            ("user = 1", "users"),
            ("[store]\ncache = 1", "store.cache_bytes"),
            ("[limits]\nwindow = 1", "limits.window_bytes"),
            ("cache_bytes = 1", "store.cache_bytes"),
            ("cache = 1", "store.cache_bytes"),
            ("log-level = 1", "log_level"),
        ] {
            assert!(error(&file(written)).ends_with(&format!("{nearest}{meant}")), "{}", error(&file(written)));
        }
        assert!(error(&variable("PRONTOMQ_HEART_BEAT", "1")).ends_with(&format!("{nearest}PRONTOMQ_HEARTBEAT")));
        assert!(error(&file("store = 1")).starts_with("setting store (file p.toml)"));
    }

    #[test]
    fn the_error_of_users_and_vhosts_in_the_environment_names_the_file() {
        for (name, list) in [("PRONTOMQ_USERS", "users"), ("PRONTOMQ_VHOSTS", "vhosts")] {
            let expected = format!(
                "setting {list} (environment variable {name}): it can only be in the file, as entries [[{list}]]"
            );
            assert_eq!(error(&variable(name, "till")), expected);
        }
    }

    #[test]
    fn the_error_of_one_typing_error_names_the_setting() {
        for setting in SETTINGS {
            let name = setting.environment();
            for at in ENVIRONMENT_PREFIX.len()..name.len() {
                let mut slip = name.clone();
                slip.remove(at);
                if SETTINGS.iter().any(|setting| setting.environment() == slip) || is_of_kubernetes(&slip) {
                    continue;
                }
                assert!(error(&variable(&slip, "1")).ends_with(&format!("the nearest is {name}")), "{slip}");
            }
        }
    }

    #[test]
    fn variables_of_kubernetes_are_ignored_but_settings_of_the_same_form_are_read() {
        let named = ["PRONTOMQ", "PRONTOMQ_HEADLESS", "PRONTOMQ_2"];
        let endings = [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_AMQP",
            "PORT",
            "PORT_5672_TCP",
            "PORT_5672_TCP_PROTO",
            "PORT_5672_TCP_PORT",
            "PORT_5672_TCP_ADDR",
            "PORT_53_UDP",
        ];
        for name in named.iter().flat_map(|name| endings.map(|ending| format!("{name}_{ending}"))) {
            let settings = variable(&name, "tcp://10.0.0.1:5672").settings();
            assert_eq!(settings.as_ref(), Ok(&Settings::default()), "{name}");
        }
        for name in ["PRONTOMQ_PORTS", "PRONTOMQ_PORT_AMQP", "PRONTOMQ_SERVICE", "PRONTOMQ_PORT_5672_TCP_NAME"] {
            assert!(variable(name, "1").settings().is_err(), "{name}");
        }
        // Settings come first: each reads its variable, in whatever form its name is.
        for setting in SETTINGS {
            assert!(variable(&setting.environment(), "\0").settings() != Ok(Settings::default()), "{}", setting.name);
        }
    }

    #[test]
    fn an_error_is_logged_in_the_format_that_the_sources_set() {
        let mut sources = file("heartbeat = [\nlog_format = \"json\"");
        assert!(sources.settings().is_err());
        assert_eq!(sources.log_format(), LogFormat::Json);
        sources.environment = vec![("PRONTOMQ_LOG_FORMAT".into(), "human".into())];
        assert_eq!(sources.log_format(), LogFormat::Human);
        sources.flags = vec![Flag { flag: "--log-format", setting: "log_format", value: "json".into() }];
        assert_eq!(sources.log_format(), LogFormat::Json);
        sources.flags[0].value = "loud".into();
        assert_eq!(sources.log_format(), LogFormat::Auto);
        assert_eq!(Sources::default().log_format(), LogFormat::Auto);
    }

    const HASH: &str = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";

    #[test]
    fn users_and_vhosts_are_read_with_their_defaults() {
        let text = format!(
            "[[vhosts]]\nname = \"shop\"\n[[users]]\nname = \"till\"\npassword = \"secret\"\n\
             [[users]]\nname = \"root\"\npassword_hash = \"{HASH}\"\ntags = [\"administrator\"]\nvhosts = [\"shop\"]"
        );
        let settings = file(&text).settings().unwrap();
        assert_eq!(settings.vhosts[0].name, "shop");
        assert_eq!(settings.users[0].vhosts, ["/"]);
        assert_eq!(settings.users[0].password.as_ref().unwrap().reveal(), "secret");
        assert_eq!(settings.users[1].tags, ["administrator"]);
        assert_eq!(settings.users[1].vhosts, ["shop"]);
    }

    #[test]
    fn a_wrong_entry_is_named_by_its_place_with_what_is_wrong() {
        let till = "[[users]]\nname = \"till\"\npassword = \"secret\"\n";
        let shop = "[[vhosts]]\nname = \"shop\"\n";
        let short_hash = &HASH[..44];
        for (text, place, problem) in [
            (format!("{till}[[users]]\nname = \"b\""), "users[1]", "user \"b\" has neither password"),
            (format!("{till}pasword = \"x\""), "users[0]", "pasword"),
            (format!("{till}{till}"), "users[1]", "there is another user \"till\""),
            (format!("{shop}{shop}"), "vhosts[1]", "there is another vhost \"shop\""),
            (format!("{till}vhosts = [\"/\", \"shop\"]"), "users[0]", "no vhost \"shop\""),
            (format!("{till}vhosts = [\"/\", \"/\"]"), "users[0]", "names vhost \"/\" twice"),
            (format!("{till}tags = [\"adminstrator\"]"), "users[0]", "unknown tag \"adminstrator\""),
            (format!("{till}tags = [\"management\", \"management\"]"), "users[0]", "has tag \"management\" twice"),
            ("[[users]]\nname = \"a\"\npassword_hash = \"kI3G\"".to_owned(), "users[0]", "password_hash"),
            ("[[users]]\nname = \"a\"\npassword_hash = \"\"".to_owned(), "users[0]", "password_hash"),
            (format!("[[users]]\nname = \"a\"\npassword_hash = \"{short_hash}\""), "users[0]", "36 bytes"),
            (format!("[[users]]\nname = \"a\"\npassword_hash = \"{HASH}!\""), "users[0]", "base64"),
            ("[[vhosts]]\nname = \"\"".to_owned(), "vhosts[0]", "1 to 255 bytes"),
            ("vhosts = [\"shop\"]".to_owned(), "vhosts[0]", "write a line [[vhosts]], and below it name = \"...\""),
            ("users = [\"till\"]".to_owned(), "users[0]", "write a line [[users]], and below it name = \"...\""),
            ("[[vhosts]]\nname = 5".to_owned(), "vhosts[0]", "name is a text in quotes"),
            (format!("{till}tags = \"administrator\""), "users[0]", "tags is a list, such as [\"administrator\"]"),
            (format!("{till}vhosts = \"/\""), "users[0]", "vhosts is a list, such as [\"/\"]"),
        ] {
            let message = error(&file(&text));
            assert!(message.starts_with(&format!("setting {place} (file p.toml): ")), "{message}");
            assert!(message.contains(problem), "{message} lacks {problem}");
        }
        assert!(error(&file("users = 1")).contains("[[users]]"));
        let whole = format!("{shop}{till}vhosts = [\"shop\", \"/\"]\ntags = [\"impersonator\", \"monitoring\"]");
        assert!(file(&whole).settings().is_ok());
    }

    #[test]
    fn no_error_and_no_debug_output_shows_a_password() {
        let settings = file("[[users]]\nname = \"a\"\npassword = \"hunter2\"").settings().unwrap();
        assert!(!format!("{settings:?}").contains("hunter2"));
        for text in [
            "[[users]]\nname = \"a\"\npassword = \"hunter2\"\npassword_hash = \"hunter2\"",
            "[[users]]\nname = \"a\"\npassword = [\"hunter2\"]",
            "[[users]]\nname = \"a\"\npassword = \"hunter2",
            "[[users]]\npassword = \"hunter2\"",
        ] {
            let text = error(&file(text));
            assert!(!text.contains("hunter2"), "{text}");
        }
        for number in ["12345678", "12345678.5", "[12345678]", "{ a = 12345678 }"] {
            for key in ["password", "password_hash"] {
                let text = error(&file(&format!("[[users]]\nname = \"a\"\n{key} = {number}")));
                assert!(!text.contains("12345678"), "{text}");
            }
        }
    }
}
