//! Settings as plain data, their defaults and limits, and the error texts of wrong ones.
//!
//! The rest of the program reads [`Settings`]. [`catalogue`] describes every setting once: its name, type, limits, default,
//! environment variable and meaning; reading, checking and the manual use this description. [`sources`] puts file, environment
//! and flags together; [`reload`] decides which changes a running broker adopts. No file is opened and no variable is read here:
//! callers pass the texts in.

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
    LogLevel, LogSettings, LoopSettings, MetricsSettings, Settings, StoreKind, StoreSettings, WindowSettings,
};
pub use sources::{Origin, SettingError, Sources};
