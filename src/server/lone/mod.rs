//! Work on the thread that is awake: what spares wake-ups when one connection is all that is going on.
//!
//! While the runtime is busy, a task is soon found by a thread that is awake. When all of its threads sleep, the store's own
//! thread, which is awake, runs the queue's turn, and serves the connections that have notices from it: to wake another
//! thread for that takes longer than the work. And where a lone connection waits for its commits, its own thread makes them.
//!
//! All of it rests on which thread calls, so this folder alone has thread-locals that change what a call does. It is off where
//! the store does not commit in place.
//!
//! - `runner`: runs the broker's work, on the runtime's threads or on the caller's.
//! - `deferred`: connections with new notices, collected until the work that woke them is done.
//! - `offer`: a thread that will commit what it hands over.
//! - `detector`: whether a single connection is served. `timer`: wakes a thread for the sockets if a commit takes long.

mod deferred;
mod detector;
mod offer;
mod runner;
#[cfg_attr(not(target_os = "linux"), path = "no_timer.rs")]
mod timer;

pub(super) use deferred::{ConnectionWork, defer};
pub(super) use runner::TokioRunner;
