//! ProntoMQ: a message broker that speaks AMQP 0-9-1.

pub mod auth;
pub mod broker;
pub mod cli;
pub mod config;
pub mod exposition;
pub mod model;
pub mod queue;
pub mod routing;
pub mod server;
pub mod session;
pub mod store;
pub mod wire;

pub use config::Settings;
pub use server::{Server, StartError};
