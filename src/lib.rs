//! ProntoMQ: a message broker that speaks AMQP 0-9-1.
//!
//! Bytes come in; a pure protocol machine turns them into commands; a pure router says which queues a message goes to; a
//! pure queue decides who gets it and when; a store makes it durable in batches; and a thin shell owns sockets, tasks and
//! the clock. `docs/ARCHITECTURE.md` follows a publish, a delivery and an acknowledgement through all of it.
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
//! [`Settings::in_directory`] makes one that keeps its messages. A [`Server`] that is dropped stops as well; it says how far that
//! goes without awaiting.
//!
//! # Features
//!
//! | | brings |
//! |---|---|
//! | `cli` (the default) | the program `prontomq`: its commands and its log; and `metrics` |
//! | `metrics` | the page for Prometheus, and `/healthz` and `/readyz` |
//!
//! A program that embeds the broker does without them: `default-features = false`. The log goes to [`tracing`], as the program
//! sets it up.
//!
//! # What is inside
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
    LogLevel, LogSettings, MetricsSettings, Origin, Password, Reloaded, SettingError, Settings, Sources, StoreKind,
    StoreSettings, UserEntry, VhostEntry, WindowSettings,
};
pub use server::{Server, StartError};
pub use store::{Cause, OpenError, StoreError};

/// The inside, for the tests, benchmarks and fuzz targets of this repository, and for its own program. It changes from one
/// version to the next without notice.
#[doc(hidden)]
pub mod internals {
    #[cfg(feature = "cli")]
    pub use crate::cli::run;

    pub mod config {
        //! The page of all settings.
        pub use crate::config::catalogue::manual;
    }

    pub mod model {
        //! Messages, names, commands, notices, errors.
        pub use crate::model::*;
    }

    pub mod queue {
        //! The queue as a machine.
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
