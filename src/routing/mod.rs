//! Which queues a message goes to: exchanges, their bindings, and the walk from one exchange to the next.
//!
//! Pure. Queues are known by name only; the broker knows which exchanges exist, and serves the default exchange.
//!
//! Start with [`binding::Bindings`], the table of one exchange, then [`route::route`], the walk. The index of each
//! [kind](ExchangeKind) of exchange has a file of its own.

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
