//! The shell: sockets, tasks, the clock and the signals of a running broker. No protocol rule and no routing rule lives here.
//!
//! - `start`: from settings to a running `Server`, and its stop.
//! - `listener`: accepts connections. `connection`: one task per connection.
//! - `metrics_page`: `/metrics`, `/healthz`, `/readyz`.
//! - `tasks`, `clock`: the only places that spawn tasks and read clocks. `shared`: what connections share.

pub(crate) mod clock;
mod connection;
mod listener;
mod metrics_page;
mod shared;
mod start;
mod tasks;

pub use start::{Server, StartError};
