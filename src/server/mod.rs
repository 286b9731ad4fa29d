//! The shell: sockets, tasks, the clock and the signals of a running broker. It contains no rule of the protocol or of
//! routing.
//!
//! - `start`: from settings to a running broker. `stores` opens the store, `listeners` the addresses; `translate`
//!   derives each layer's settings. `running`: the `Server`, and its stop.
//! - `listener`: accepts connections. `connection`: one task per connection. `transport`: its bytes. `socket`: what the
//!   kernel knows about its client.
//! - `driver`: a connection without its socket. `backlog`: the notices that it has yet to handle. `simulation`: a
//!   broker of such connections, in virtual time.
//! - `accounts`: users and vhosts of the settings. `errors`: counts the errors that close channels and connections.
//! - `local_socket`: serves commands on the same machine, such as `prontomq backup`; `listings`: the lists that it
//!   sends.
//! - `lone`: runs broker work, and decides when a connection's thread may commit.
//! - `log_writer`: writes log lines to a stream that may block or fail.
//! - `metrics_page`: `/metrics`, `/healthz`, `/readyz`. `http`: serves them, with limits on clients and time.
//! - `alarms`: the alarms of memory and disk; `alarm_watch` raises them. `memory`: the memory that clients use. `trim`:
//!   gives free memory back to the system.
//! - `url`: URLs for clients on this machine.
//! - `tasks`, `clock`: the only places that spawn tasks and read clocks. `shared`: what connections share.

mod accounts;
mod alarm_watch;
mod alarms;
mod backlog;
pub(crate) mod clock;
mod connection;
mod driver;
mod errors;
#[cfg(feature = "metrics")]
mod http;
mod listener;
mod listeners;
mod listings;
mod local_socket;
mod log_writer;
mod memory;
#[cfg(feature = "metrics")]
mod metrics_page;
mod pace;
mod reactor;
mod running;
mod shared;
mod simulation;
mod socket;
mod start;
mod start_error;
mod stores;
mod tasks;
mod translate;
mod transport;
mod trim;
pub(crate) mod url;

#[cfg(feature = "cli")]
pub(crate) use local_socket::SocketPath;
pub use log_writer::LogWriter;
pub use running::Server;
pub use simulation::{SimulatedClock, SimulatedConnection, Simulation};
pub use start_error::StartError;
