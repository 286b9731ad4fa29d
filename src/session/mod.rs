//! The protocol machine of one connection. Pure: bytes, notices and the time go in; bytes and effects come out.
//!
//! - `machine`: the whole, and what a shell calls.
//! - `handshake`: from the protocol header to an open vhost.
//! - `timers`: heartbeats and deadlines.
//! - `channel`: one channel: what it waits for, what is parked behind that; `channels`: all of a connection.
//! - `content`: a publish's frames become a message.
//! - `unacked`, `prefetch`, `confirms`, `transaction`: what a channel keeps count of; `tally` sums it up for gauges;
//!   `unfinished` bounds what waits for its rest; `in_use` names the queues that hold something for it.
//! - `exchange_methods`, `queue_methods`, `basic_methods`, `confirm_methods`, `tx_methods`: one handler per method.
//! - `effect`: what the shell is asked to do.
//!
//! A session never learns that a broker exists: it hands out commands and hears notices.

mod basic_methods;
mod channel;
mod channels;
mod confirm_methods;
mod confirms;
mod content;
mod effect;
mod exchange_methods;
mod handshake;
mod in_use;
mod machine;
mod prefetch;
mod queue_methods;
mod settings;
mod tally;
#[cfg(test)]
mod tests;
mod timers;
mod transaction;
mod tx_methods;
mod unacked;
mod unfinished;

pub use effect::{Effect, Output, Publish, Refusals, Settle, SettleOutcome};
pub use handshake::{Login, LoginRefusal};
pub use machine::{Ending, Session};
pub use settings::SessionSettings;
pub use tally::Tally;
