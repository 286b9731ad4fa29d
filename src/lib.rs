//! ProntoMQ: a message broker that speaks AMQP 0-9-1.
//!
//! A pure protocol machine turns bytes into commands, a pure router picks the queues of a message, a pure queue decides which
//! consumer gets it and when, and a store makes it durable in batches. A thin shell owns sockets, tasks and the clock.
//! `docs/ARCHITECTURE.md` follows a publish, a delivery and an acknowledgement through the code.
//!
//! # A broker inside a program
//!
//! ```
//! use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions};
//! use lapin::{BasicProperties, Connection, ConnectionProperties, types::FieldTable};
//! use prontomq::{Server, Settings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::start(Settings::in_memory()).await?;
//! let connection = Connection::connect(&server.url(), ConnectionProperties::default()).await?;
//!
//! let channel = connection.create_channel().await?;
//! channel.queue_declare("letters".into(), QueueDeclareOptions::durable(), FieldTable::default()).await?;
//! let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
//! channel.basic_publish("".into(), "letters".into(), options, b"Dear all", properties).await?;
//! let letter = channel.basic_get("letters".into(), BasicGetOptions { no_ack: true }).await?;
//! assert_eq!(letter.expect("it was just sent").data, b"Dear all");
//!
//! server.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! With [`Settings::in_directory`], the broker keeps its messages in files. Dropping a [`Server`] stops it too; its documentation
//! lists the differences to [`Server::stop`].
//!
//! # Features
//!
//! | | brings |
//! |---|---|
//! | `cli` (the default) | the program `prontomq`: its commands and its log; and `metrics` |
//! | `metrics` | the page for Prometheus, and `/healthz` and `/readyz` |
//!
//! A program that embeds the broker can switch them off with `default-features = false`. The broker logs through [`tracing`], for
//! which the program installs a subscriber.
//!
//! # Modules
//!
//! `docs/ARCHITECTURE.md` is the map of the modules, which are private.

mod auth;
mod broker;
#[cfg(feature = "cli")]
mod cli;
mod config;
mod exposition;
mod model;
mod queue;
mod routing;
mod server;
mod session;
mod store;
mod wire;

pub use config::sources::{File, Flag};
pub use config::{
    ConnectionSettings, ConsumerWindowSettings, DeadLetterSettings, Durability, IdentitySettings, Limits, LogFormat,
    LogLevel, LogSettings, LoopSettings, MetricsSettings, Origin, Password, Reloaded, SettingError, Settings, Sources,
    StoreKind, StoreSettings, UserEntry, VhostEntry, WindowSettings,
};
pub use server::{Server, StartError};
pub use store::{Cause, OpenError, StoreError};

/// Internals, for the tests, benchmarks, fuzz targets and the program of this repository. They change between versions without
/// notice.
#[doc(hidden)]
pub mod internals {
    #[cfg(feature = "cli")]
    pub use crate::cli::run;

    pub mod config {
        //! The manual of all settings.
        pub use crate::config::catalogue::manual;
    }

    pub mod model {
        //! Messages, names, commands, notices, errors.
        pub use crate::model::*;
    }

    pub mod queue {
        //! The queue's state machine.
        pub use crate::queue::*;
    }

    pub mod routing {
        //! Exchanges and bindings.
        pub use crate::routing::*;
    }

    pub mod server {
        //! A broker in virtual time, and the log's writer.
        pub use crate::server::{LogWriter, SimulatedClock, SimulatedConnection, Simulation};
    }

    pub mod store {
        //! The stores and their writer.
        pub use crate::store::*;
    }

    pub mod wire {
        //! Frames, methods, properties, tables.
        pub use crate::wire::*;
    }
}
