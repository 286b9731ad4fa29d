//! The threads that serve connections.
//!
//! Each thread runs an event loop: it waits for sockets, notices, deadlines and broker work, and handles them one after
//! another. While one thread is enough, it serves all connections, so that publisher, queue and consumer meet without
//! another thread being woken. A loop that is short of processor time hands half of its busy connections to the next
//! one.
//!
//! - `poller`: the kernel's side. `slots`: the connections of a loop. `event_loop`: the loop itself.
//! - `balance`: how busy a loop is, and when connections move. `processors`: whether the machine has time left.
//! - `commits`: commits on the loop's thread, for a lone publisher. `relief`: another thread goes on with the loop if
//!   such a commit takes long.

mod balance;
mod commits;
mod event_loop;
mod loops;
#[cfg_attr(not(target_os = "linux"), path = "portable_poller.rs")]
mod poller;
#[cfg(all(test, target_os = "linux"))]
#[allow(dead_code, reason = "here only its tests use it")]
mod portable_poller;
mod processors;
mod readiness;
#[cfg_attr(not(target_os = "linux"), path = "no_relief.rs")]
mod relief;
mod slots;

use self::commits::LoneCommits;
use self::loops::Loops;
use super::clock::Clock;
use super::connection::{ConnectionHandle, Home};
use super::shared::Shared;
use super::transport::Transport;
use crate::broker::Runner;
use crate::model::Now;
use crate::store::commit::WriterHandle;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::{fmt, io};
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Broker work, above all the turns of queues to which a thread of the store reports written or read rows.
type Work = Box<dyn FnOnce(Now) + Send>;

/// The event loops of a server.
pub(super) struct Reactor {
    loops: Arc<Loops>,
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("active", &self.loops.active()).finish_non_exhaustive()
    }
}

impl Reactor {
    /// Starts the first thread. There are at most `threads`. If the store commits in place, a loop commits for a lone
    /// publisher.
    ///
    /// # Errors
    /// The system has no thread or no descriptors left.
    pub(super) fn start(clock: Clock, threads: usize, writer: &WriterHandle) -> io::Result<Arc<Self>> {
        let commits = LoneCommits::new(writer.clone());
        Ok(Arc::new(Self { loops: Loops::start(clock, threads, commits)? }))
    }

    /// Serves a client to its end. `token` is dropped then.
    pub(super) fn serve(
        &self,
        shared: Arc<Shared>,
        transport: Transport,
        client: SocketAddr,
        seed: u64,
        token: TaskTrackerToken,
    ) {
        let home: Weak<dyn Home> = Arc::downgrade(&self.loops) as _;
        self.loops.adopt(ConnectionHandle::new(shared, home, transport, client, seed, token));
    }

    /// Makes all connections look whether the server stops.
    pub(super) fn wake_all(&self) {
        self.loops.wake_all();
    }

    /// Ends the threads once all connections have ended and all work is done.
    pub(super) fn end(&self) {
        self.loops.end();
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        self.end();
    }
}

impl Runner for Reactor {
    fn run(&self, work: Work) {
        self.loops.run(work);
    }
}
