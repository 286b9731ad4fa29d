//! The protocol machine of one connection. Pure: bytes, notices and the time go in; bytes and effects come out.
//!
//! The files are in three layers, each of which names those above it in this list.
//!
//! Plain types, which know no session:
//! - `state`, `ending`, `client`, `timers`, `alarm`: parts of a connection.
//! - `channel`: one channel; `channels`: all of a connection. What a channel is made of: `requests` (methods that wait for
//!   answers, frames parked behind them), `content` (a publish's content), `consumers`, `prefetch`, `unacked`, `confirms`,
//!   `transaction`.
//! - `backpressure`: what is held back while the client does not read; `due`: channels with something to do at the end of a
//!   pass; `metrics`: counts.
//! - `effect`: requests to the shell; `outlet`: the way to exchanges and queues; `fault`, `method_ids`, `settings`.
//!
//! The session itself:
//! - `machine`: its state, and what the shell asks of it.
//!
//! What a session does, each file a subject:
//! - `input`: from bytes to the handler of a method; `answers`: what follows an answer.
//! - `handshake`, `connection_methods`, `closing`: the life of a connection.
//! - `channel_methods`, `exchange_methods`, `queue_methods`, `publish_methods`, `basic_methods`, `confirm_methods`,
//!   `tx_methods`: one handler per method.
//! - `unfinished`: bounds the memory of contents and transactions that are not complete; `in_use`: which queues hold
//!   something for a channel.
//!
//! A session does not know the broker: it emits commands, takes notices, and publishes and settles through the `Outlet` that
//! the shell passes in.

mod alarm;
mod answers;
mod backpressure;
mod basic_methods;
mod channel;
mod channel_methods;
mod channels;
mod client;
mod closing;
mod confirm_methods;
mod confirms;
mod connection_methods;
mod consumers;
mod content;
mod due;
mod effect;
mod ending;
mod exchange_methods;
mod fault;
mod handshake;
mod in_use;
mod input;
mod machine;
mod method_ids;
mod metrics;
mod outlet;
mod prefetch;
mod publish_methods;
mod queue_methods;
mod requests;
mod settings;
mod state;
#[cfg(test)]
mod tests;
mod timers;
mod transaction;
mod tx_methods;
mod unacked;
mod unfinished;

pub(crate) use client::{Login, LoginRefusal};
pub(crate) use effect::{Commit, Effect, Failure, Output, Publish, RoutedMessage, Settlement};
pub(crate) use ending::Ending;
pub(crate) use machine::Session;
pub(crate) use metrics::SessionMetrics;
pub(crate) use outlet::Outlet;
pub(crate) use settings::{ServerProperties, SessionSettings};
