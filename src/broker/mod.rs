//! The broker: vhosts and what is in them, and the drivers of the pure machines.
//!
//! - `node`: all vhosts, connections and queues of one node, and its store.
//! - `vhost`, `topology`: exchanges, queues and bindings by name; one truth behind one leaf lock, with read indexes.
//! - `queue_arguments`: a declaration's arguments, checked and turned into settings.
//! - `cell`: a queue's inbox and its turns; `turns` takes them one after another.
//! - `link`: what one connection does to the broker; `publish` its messages' way to the queues.
//! - `peer`: what the broker does to one connection: its inlet, and the permits of its channels.
//! - `dead_letters`: where dead messages go. `timers`: when queues wake. `recovery`: the start.
//! - `counters`: what was done so far. `flow`: publishers that are faster than the store wait.
//!
//! Frames and sockets are not known here. Locks are leaf locks: nothing is called, and no other lock taken, inside one.

mod cell;
mod counters;
mod dead_letters;
mod flow;
mod link;
mod node;
mod peer;
mod publish;
mod queue_arguments;
mod recovery;
mod scratch;
mod timers;
mod topology;
mod turns;
mod vhost;

pub use cell::{Cell, QueueCounts};
pub use counters::{Counters, CountersSnapshot, Publishes};
pub use flow::Flow;
pub use link::Link;
pub use node::{Broker, BrokerSettings, Runner, VhostLimits};
pub use peer::Peer;
pub use publish::Routed;
pub use scratch::OpenScratch;
pub use vhost::Vhost;
