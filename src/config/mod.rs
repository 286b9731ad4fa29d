//! Settings as plain data, their defaults and limits, and what is said when one is wrong.
//!
//! [`Settings`] is what the rest of the program reads. [`catalogue`] describes every setting once: its name, type,
//! limits, default, environment variable and meaning; reading, refusing and documenting all go by it. [`sources`] puts
//! file, environment and flags together; [`reload`] says what a running broker takes over. Nothing here opens a file or reads the environment: texts are passed in.

pub(crate) mod catalogue;
pub(crate) mod entries;
mod kubernetes;
pub(crate) mod reload;
pub(crate) mod settings;
pub(crate) mod sources;
pub(crate) mod value;

pub use entries::{Password, UserEntry, VhostEntry};
pub use reload::Reloaded;
pub use settings::{
    ConnectionSettings, ConsumerWindowSettings, DeadLetterSettings, Durability, IdentitySettings, Limits, LogFormat,
    LogLevel, LogSettings, MetricsSettings, Settings, StoreKind, StoreSettings, WindowSettings,
};
pub use sources::{Origin, SettingError, Sources};
