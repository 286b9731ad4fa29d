//! Values of settings: read from text or TOML, checked against their limits, printed in the form in which they can be read.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::settings::Settings;

/// The type of a setting, its field in [`Settings`], and its limits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Any text.
    Text(fn(&mut Settings) -> &mut String),
    /// A path.
    Path(fn(&mut Settings) -> &mut PathBuf),
    /// Names, possibly none.
    Names(fn(&mut Settings) -> &mut Vec<String>),
    /// At least one address with a port.
    Addresses(fn(&mut Settings) -> &mut Vec<SocketAddr>),
    /// An address with a port, or `off`.
    AddressOrOff(fn(&mut Settings) -> &mut Option<SocketAddr>),
    /// A count.
    Count(Integer, Range),
    /// A number of bytes.
    Bytes(Integer, Range),
    /// A length of time, in whole milliseconds.
    Time(fn(&mut Settings) -> &mut Duration, Range),
    /// A short length of time, in whole microseconds; the range is in microseconds as well.
    Micros(fn(&mut Settings) -> &mut Duration, Range),
    /// A length of time, in whole seconds; the range is in milliseconds as well.
    Seconds(fn(&mut Settings) -> &mut Duration, Range),
    /// One of a few words.
    Choice(Choice),
    /// True or false.
    Flag(fn(&mut Settings) -> &mut bool),
}

/// The allowed values, both ends included; in milliseconds for lengths of time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    /// The least value.
    pub min: u64,
    /// The greatest value.
    pub max: u64,
}

/// An integer setting, by its width.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Integer {
    /// 16 bits.
    U16(fn(&mut Settings) -> &mut u16),
    /// 32 bits.
    U32(fn(&mut Settings) -> &mut u32),
    /// 64 bits.
    U64(fn(&mut Settings) -> &mut u64),
}

/// A setting with a few possible values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    /// The words.
    pub words: &'static [&'static str],
    /// The index of the word that is set.
    pub get: fn(&Settings) -> usize,
    /// Sets the word with this index.
    pub set: fn(&mut Settings, usize),
}

/// A value in a source, before its type is checked.
#[derive(Clone, Debug)]
pub(crate) enum Raw {
    /// From the environment or a flag: several values are separated by commas.
    Text(String),
    /// From a file.
    Toml(toml::Value),
}

impl Raw {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::Toml(toml::Value::String(text)) => Some(text.trim()),
            Self::Toml(_) => None,
        }
    }

    fn integer(&self) -> Option<u64> {
        match self {
            Self::Toml(toml::Value::Integer(number)) => u64::try_from(*number).ok(),
            _ => self.text()?.parse().ok(),
        }
    }

    fn flag(&self) -> Option<bool> {
        match self {
            Self::Toml(toml::Value::Boolean(flag)) => Some(*flag),
            _ => self.text()?.parse().ok(),
        }
    }

    fn list(&self) -> Option<Vec<String>> {
        match self {
            Self::Text(text) => {
                Some(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
            }
            Self::Toml(toml::Value::String(text)) => Some(vec![text.clone()]),
            Self::Toml(toml::Value::Array(items)) => {
                items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
            }
            Self::Toml(_) => None,
        }
    }

    /// The value as it stands in its source, for error texts.
    pub(super) fn printed(&self) -> String {
        match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Toml(value) => value.to_string(),
        }
    }
}

impl Kind {
    /// Sets the value. Returns whether it is valid for this setting.
    pub(super) fn set(&self, settings: &mut Settings, raw: &Raw) -> bool {
        self.try_set(settings, raw).is_some()
    }

    fn try_set(&self, settings: &mut Settings, raw: &Raw) -> Option<()> {
        match self {
            Self::Text(at) => *at(settings) = raw.text()?.to_owned(),
            Self::Path(at) => *at(settings) = raw.text().filter(|text| !text.is_empty())?.into(),
            Self::Names(at) => *at(settings) = raw.list()?,
            Self::Addresses(at) => {
                let addresses: Option<Vec<SocketAddr>> = raw.list()?.iter().map(|item| item.parse().ok()).collect();
                *at(settings) = addresses.filter(|addresses| !addresses.is_empty())?;
            }
            Self::AddressOrOff(at) => {
                let text = raw.text()?;
                *at(settings) = if text == "off" { None } else { Some(text.parse().ok()?) };
            }
            Self::Count(integer, range) => integer.set(settings, range.check(raw.integer()?)?)?,
            Self::Bytes(integer, range) => integer.set(settings, range.check(bytes(raw)?)?)?,
            Self::Time(at, range) => *at(settings) = Duration::from_millis(range.check(millis(raw)?)?),
            Self::Micros(at, range) => *at(settings) = Duration::from_micros(range.check(micros(raw)?)?),
            Self::Seconds(at, range) => {
                let millis = range.check(millis(raw)?).filter(|millis| millis.is_multiple_of(1000));
                *at(settings) = Duration::from_millis(millis?);
            }
            Self::Choice(choice) => {
                let text = raw.text()?;
                (choice.set)(settings, choice.words.iter().position(|word| *word == text)?);
            }
            Self::Flag(at) => *at(settings) = raw.flag()?,
        }
        Some(())
    }

    /// The value in force, in the form of a configuration file.
    pub(super) fn get(&self, settings: &Settings) -> String {
        let mut settings = settings.clone();
        match self {
            Self::Text(at) => format!("{:?}", at(&mut settings)),
            Self::Path(at) => format!("{:?}", at(&mut settings)),
            Self::Names(at) => format!("{:?}", at(&mut settings)),
            Self::Addresses(at) => {
                format!("[{}]", joined(at(&mut settings).iter().map(|address| format!("\"{address}\""))))
            }
            Self::AddressOrOff(at) => {
                at(&mut settings).map_or_else(|| "\"off\"".to_owned(), |address| format!("\"{address}\""))
            }
            Self::Count(integer, _) => integer.get(&mut settings).to_string(),
            Self::Bytes(integer, _) => printed_bytes(integer.get(&mut settings)),
            Self::Time(at, _) | Self::Seconds(at, _) => printed_millis(millis_of(*at(&mut settings))),
            Self::Micros(at, _) => printed_micros(micros_of(*at(&mut settings))),
            Self::Choice(choice) => format!("{:?}", choice.words[(choice.get)(&settings)]),
            Self::Flag(at) => at(&mut settings).to_string(),
        }
    }

    /// The value in force, if it is a count or a number of bytes.
    pub(super) fn number(&self, settings: &Settings) -> Option<u64> {
        match self {
            Self::Count(integer, _) | Self::Bytes(integer, _) => Some(integer.get(&mut settings.clone())),
            _ => None,
        }
    }

    /// Copies the value of `from` to `to`.
    pub(super) fn copy(&self, from: &Settings, to: &mut Settings) {
        let mut from = from.clone();
        match self {
            Self::Text(at) => at(to).clone_from(at(&mut from)),
            Self::Path(at) => at(to).clone_from(at(&mut from)),
            Self::Names(at) => at(to).clone_from(at(&mut from)),
            Self::Addresses(at) => at(to).clone_from(at(&mut from)),
            Self::AddressOrOff(at) => *at(to) = *at(&mut from),
            Self::Count(Integer::U16(at), _) | Self::Bytes(Integer::U16(at), _) => *at(to) = *at(&mut from),
            Self::Count(Integer::U32(at), _) | Self::Bytes(Integer::U32(at), _) => *at(to) = *at(&mut from),
            Self::Count(Integer::U64(at), _) | Self::Bytes(Integer::U64(at), _) => *at(to) = *at(&mut from),
            Self::Time(at, _) | Self::Micros(at, _) | Self::Seconds(at, _) => *at(to) = *at(&mut from),
            Self::Choice(choice) => (choice.set)(to, (choice.get)(&from)),
            Self::Flag(at) => *at(to) = *at(&mut from),
        }
    }

    /// The allowed values, for error texts and the manual.
    pub(super) fn expectation(&self) -> String {
        match self {
            Self::Text(_) => "a text".to_owned(),
            Self::Path(_) => "a path".to_owned(),
            Self::Names(_) => "a list of names".to_owned(),
            Self::Addresses(_) => "a list of addresses such as \"127.0.0.1:5672\" or \"[::1]:5672\"".to_owned(),
            Self::AddressOrOff(_) => "an address such as \"127.0.0.1:15692\", or \"off\"".to_owned(),
            Self::Count(_, range) => format!("a number from {} to {}", range.min, range.max),
            Self::Bytes(_, range) => format!(
                "bytes from {} to {}: a whole number, or one of a unit such as \"64 KiB\"",
                printed_bytes(range.min),
                printed_bytes(range.max)
            ),
            Self::Time(_, range) => format!(
                "a time from {} to {}: a whole number of seconds, or of a unit such as \"500 ms\"",
                printed_millis(range.min),
                printed_millis(range.max)
            ),
            Self::Micros(_, range) => format!(
                "a time from {} to {}: a whole number of seconds, or of a unit such as \"50 us\"",
                printed_micros(range.min),
                printed_micros(range.max)
            ),
            Self::Seconds(_, range) => format!(
                "a time from {} to {} in whole seconds, such as \"30 s\"",
                printed_millis(range.min),
                printed_millis(range.max)
            ),
            Self::Choice(choice) => joined(choice.words.iter().map(|word| format!("\"{word}\""))),
            Self::Flag(_) => "true or false".to_owned(),
        }
    }
}

impl Integer {
    fn get(self, settings: &mut Settings) -> u64 {
        match self {
            Self::U16(at) => (*at(settings)).into(),
            Self::U32(at) => (*at(settings)).into(),
            Self::U64(at) => *at(settings),
        }
    }

    fn set(self, settings: &mut Settings, number: u64) -> Option<()> {
        match self {
            Self::U16(at) => *at(settings) = number.try_into().ok()?,
            Self::U32(at) => *at(settings) = number.try_into().ok()?,
            Self::U64(at) => *at(settings) = number,
        }
        Some(())
    }
}

impl Range {
    fn check(self, number: u64) -> Option<u64> {
        (self.min..=self.max).contains(&number).then_some(number)
    }
}

fn joined(items: impl Iterator<Item = impl Display>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

const BYTE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// In milliseconds.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("min", 60_000), ("ms", 1), ("s", 1000)];

/// In microseconds.
const SHORT_TIME_UNITS: [(&str, u64); 3] = [("us", 1), ("ms", 1000), ("s", 1_000_000)];

fn bytes(raw: &Raw) -> Option<u64> {
    raw.integer().or_else(|| with_unit(raw.text()?, &BYTE_UNITS))
}

fn millis(raw: &Raw) -> Option<u64> {
    match raw.integer() {
        Some(seconds) => seconds.checked_mul(1000),
        None => with_unit(raw.text()?, &TIME_UNITS),
    }
}

fn micros(raw: &Raw) -> Option<u64> {
    match raw.integer() {
        Some(seconds) => seconds.checked_mul(1_000_000),
        None => with_unit(raw.text()?, &SHORT_TIME_UNITS),
    }
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find_map(|(unit, factor)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(*factor)
    })
}

fn millis_of(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn micros_of(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn printed_bytes(bytes: u64) -> String {
    BYTE_UNITS
        .iter()
        .find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor) && *factor > 1)
        .map_or_else(|| bytes.to_string(), |(unit, factor)| format!("\"{} {unit}\"", bytes / factor))
}

fn printed_millis(millis: u64) -> String {
    if millis.is_multiple_of(1000) { format!("\"{} s\"", millis / 1000) } else { format!("\"{millis} ms\"") }
}

fn printed_micros(micros: u64) -> String {
    if micros.is_multiple_of(1000) { printed_millis(micros / 1000) } else { format!("\"{micros} us\"") }
}
