//! The protocol machine of one connection. Pure: bytes, notices and the time go in; bytes and effects come out.
//!
//! - `machine`: the whole, and what a shell calls.
//! - `handshake`: from the protocol header to an open vhost.
//! - `timers`: heartbeats and deadlines; `closing`: how a connection ends.
//! - `channel`: one channel: what it waits for, what is parked behind that; `channels`: all of a connection.
//! - `content`: a publish's frames become a message. `restraint`: what waits while the client does not read.
//! - `unacked`, `prefetch`, `confirms`, `transaction`: what a channel keeps count of; `tally` sums it up for gauges;
//!   `unfinished` bounds what waits for its rest; `in_use` names the queues that hold something for it.
//! - `exchange_methods`, `queue_methods`, `basic_methods`, `confirm_methods`, `tx_methods`: one handler per method.
//! - `effect`: what the shell is asked to do; `outlet`: what leaves for exchanges and queues, in order.
//!
//! A session does not know the broker: it emits commands, takes notices, and publishes and settles through the `Outlet` it is given.

mod basic_methods;
mod channel;
mod channels;
mod closing;
mod confirm_methods;
mod confirms;
mod content;
mod effect;
mod exchange_methods;
mod handshake;
mod in_use;
mod machine;
mod outlet;
mod prefetch;
mod queue_methods;
mod restraint;
mod settings;
mod tally;
#[cfg(test)]
mod tests;
mod timers;
mod transaction;
mod tx_methods;
mod unacked;
mod unfinished;

pub(crate) use closing::Ending;
pub(crate) use effect::{Commit, Effect, Failure, Output, Publish, RoutedMessage, Settlement};
pub(crate) use handshake::{Login, LoginRefusal};
pub(crate) use machine::Session;
pub(crate) use outlet::Outlet;
pub(crate) use settings::SessionSettings;
pub(crate) use tally::Tally;
