//! The shell: sockets, tasks, the clock and the signals of a running broker. No protocol rule and no routing rule lives here.
//!
//! - `start`: from settings to a running `Server`, and its stop.
//! - `listener`: accepts connections. `connection`: one task per connection.
//! - `driver`: what a connection does that needs no socket. `simulation`: a broker of such connections, in virtual time.
//! - `local_socket`: for commands on the same machine, such as `prontomq backup`.
//! - `runner`: where the broker's work is done. `alone`, `watch`: when a connection's thread may wait for the disk, and who
//!   looks after sockets then.
//! - `metrics_page`: `/metrics`, `/healthz`, `/readyz`.
//! - `alarms`: memory and disk that run short. `memory`: what clients take of memory. `trim`: free memory goes back to the system.
//! - `tasks`, `clock`: the only places that spawn tasks and read clocks. `shared`: what connections share.

mod alarms;
mod alone;
pub(crate) mod clock;
mod connection;
mod driver;
mod listener;
mod local_socket;
mod memory;
mod metrics_page;
mod runner;
mod shared;
mod simulation;
mod start;
mod tasks;
mod trim;
#[cfg_attr(not(target_os = "linux"), path = "no_watch.rs")]
mod watch;

pub use local_socket::socket_path;
pub use simulation::{SimulatedConnection, Simulation};
pub use start::{Server, StartError};
