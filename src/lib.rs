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
//! # Layers
//!
//! A module names only modules below it.
//!
//! | | module | what it is | what it never knows |
//! |---|---|---|---|
//! | commands | `cli` | `prontomq serve` | |
//! | shell | `server` | sockets, tasks, signals, the clock | a rule of the protocol or of routing |
//! | windows | `exposition` | Prometheus | anything but the numbers it is given |
//! | drivers | `broker` | vhosts, topology, queues' turns | frames, sockets |
//! | durable | `store` | batches, and their writer; SQLite, memory | AMQP |
//! | | `auth` | users, SASL mechanisms | |
//! | machines | `session` | the protocol of one connection | that a broker exists |
//! | | `routing` | exchanges and bindings | queues beyond their names |
//! | | `queue` | entries, consumers, their rules | channels, frames, where entries are stored |
//! | nouns | `model` | messages, names, commands, notices, errors | anything mutable |
//! | bytes | `wire` | frames, methods, properties, tables | what a method means |
//! | | `config` | settings, their limits and defaults | files and the environment |
//!
//! From the machines down all is pure: no input or output, no task, no lock, no clock, and no randomness that was not
//! passed in. Input and the time go in, effects come out; so all of it can be tested in no time.
//!
//! # The words at the seams
//!
//! A `model::Command` goes down, from a session to the broker. A `model::Notice` comes up, through a connection's one
//! inlet. An effect (`session::Effect`, `queue::QueueEffect`) is what a pure machine asks its driver to do. All three
//! are plain data.
//!
//! # Where to start reading
//!
//! - How a client is answered: `session::Session`, then `src/session/machine.rs`.
//! - Who gets a message: `queue::QueueState`, whose every input is a `queue::QueueInput`.
//! - Where a message goes: `routing::route`.
//! - How queues run without tasks and locks: `src/broker/cell.rs`, `src/broker/turns.rs`.
//! - When something is durable: `store::writer`.
//! - How it all hangs together: `src/server/driver.rs`, one connection without its socket; `src/server/connection.rs`, its
//!   task. `server::Simulation` is a broker of such connections in virtual time.

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
    DeadLetterSettings, Durability, Limits, LogFormat, LogLevel, Origin, Password, Reloaded, SettingError, Settings,
    Sources, StoreKind, StoreSettings, UserEntry, VhostEntry,
};
pub use server::{Server, StartError};
pub use store::StoreError;

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
        pub use crate::server::{LogWriter, SimulatedConnection, Simulation};
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
