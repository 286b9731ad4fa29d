//! The broker: vhosts and what is in them, and the drivers of the pure machines.
//!
//! - `node`: all vhosts, connections and queues of one node, and its store. `numbers`: those that it gives out.
//! - `vhost`, `topology`: exchanges, queues and bindings by name; one truth behind one leaf lock, with read indexes, and the
//!   journal by which the store follows it.
//! - `queue_arguments`: a declaration's arguments, checked and turned into settings.
//! - `cell`: a queue's inbox and its turns; `turns` takes them one after another. `kind`: what they need of a queue, and the
//!   kinds of queues.
//! - `link`: what one connection does to the broker; `routes` says where its messages go, `batches` takes them there, `commit`
//!   a transaction; `declare` its changes of topology; `exclusive` the queues that end with it.
//! - `peer`: what the broker does to one connection: its inlet, and `permits` of its channels' prefetch limits.
//! - `dead_letters`: where dead messages go. `timers`: when queues wake; `armed`: the deadline of one cell.
//! - `scratch`: transient messages beyond their budget. `loads`: messages are read back. `contribution`: what goes to a store. `recovery`: the start.
//! - `access`: who may log in, and open which vhost.
//! - `counters`: what was done so far; `object_metrics`: by each queue, exchange and connection; `gauges`: what is open now;
//!   `snapshot`: all of it at one moment, for everybody who shows it.
//! - `flow`: publishers that are faster than the store wait.
//!
//! Frames and sockets are not known here. Locks are leaf locks: nothing is called, and no other lock taken, inside one. The
//! one exception hands a vhost's journal to the store's writer: it is held while the topology's lock and the writer's are taken.

mod access;
mod armed;
mod batches;
mod cell;
mod commit;
mod contribution;
mod counters;
mod dead_letters;
mod declare;
mod exclusive;
mod flow;
mod gauges;
mod kind;
mod link;
mod loads;
mod node;
mod numbers;
mod object_metrics;
mod peer;
mod permits;
mod queue_arguments;
mod recovery;
mod routes;
mod scratch;
mod snapshot;
#[cfg(test)]
mod tests;
mod timers;
mod topology;
mod turns;
mod vhost;

pub(crate) use counters::{Counters, Publishes};
pub(crate) use gauges::Gauges;
pub(crate) use link::{CommandOutcome, Link, Opening};
pub(crate) use node::{Broker, BrokerSettings, Runner, VhostLimits};
pub(crate) use object_metrics::Traffic;
pub(crate) use peer::Client;
pub(crate) use scratch::OpenScratch;
pub(crate) use snapshot::{BrokerSnapshot, ConnectionSnapshot, QueueSnapshot};
pub(crate) use topology::ExchangeSnapshot;
