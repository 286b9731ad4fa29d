//! Which queues a message goes to: exchanges, their bindings, and the walk from one exchange to the next.
//!
//! Pure: a table is asked and answers. Queues are known by name only; which exchanges exist, and the default exchange,
//! are the broker's business.
//!
//! Start with [`binding::Bindings`], the table of one exchange, then [`route::route`], the walk. Each [kind](ExchangeKind) of exchange
//! keeps the index that makes its answer cheap in a file of its own.

pub mod binding;
mod direct;
mod header_index;
mod headers;
mod kind;
pub mod route;
mod slots;
mod topic;

pub use binding::Bindings;
pub use kind::{Binding, Destination, ExchangeKind};
pub use route::{Exchange, Queues, route};
