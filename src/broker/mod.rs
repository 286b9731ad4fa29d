//! The broker: vhosts with their exchanges, queues and bindings, and the drivers of the pure machines.
//!
//! - `node`: all vhosts, connections and queues of one node, and its store. `numbers`: the numbers that the node
//!   assigns.
//! - `vhost`, `topology`: exchanges, queues and bindings by name. One leaf lock guards them; read indexes lie beside
//!   it, and a journal keeps the store up to date.
//! - `queue_arguments`: checks a declaration's arguments and turns them into settings.
//! - `cell`: a queue's inbox and its turns; `turns` takes the turns of several queues. `kind`: the kinds of queues, and
//!   the interface that a cell needs of each.
//! - `link`: the calls of one connection to the broker. `routes` finds the queues of its messages, `batches` collects
//!   messages per queue, `commit` sends a transaction, `declare` changes topology, `exclusive` lists the queues that
//!   end with the connection.
//! - `peer`: one connection as the broker sees it: its inlet, and the `permits` of its channels' prefetch limits.
//! - `dead_letters`: routes dead messages. `timers`: wakes queues at their deadlines; `armed`: the deadline of one
//!   cell.
//! - `scratch`: the store of transient messages beyond their budget. `loads`: reads messages back. `contribution`: rows
//!   for a store. `recovery`: rebuilds the broker at the start.
//! - `access`: checks logins, and the right to open a vhost.
//! - `counters`: events since the start; `object_metrics`: the same per queue, exchange and connection; `gauges`: what
//!   is open now; `snapshot`: all of these numbers at one moment.
//! - `flow`: makes publishers wait that are faster than the store.
//!
//! The broker knows no frames and no sockets. Its locks are leaf locks: no callback runs and no other lock is taken
//! inside one. The one exception is the submission lock of a vhost's journal: the topology's lock and the writer's are
//! taken inside it.

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
#[cfg(feature = "metrics")]
pub(crate) use snapshot::BrokerSnapshot;
pub(crate) use snapshot::{ConnectionSnapshot, QueueSnapshot};
pub(crate) use topology::ExchangeSnapshot;
