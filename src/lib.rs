//! ProntoMQ: a message broker that speaks AMQP 0-9-1.

pub mod config;
pub mod model;
pub mod queue;
pub mod routing;
pub mod session;
pub mod store;
pub mod wire;
