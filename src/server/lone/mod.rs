//! Runs broker work on a thread that is awake, to save wake-ups while the broker serves a single connection.
//!
//! While the runtime is busy, an awake thread soon picks up a new task. When all of its threads sleep, the store's
//! thread, which is awake, runs the queue's turn and serves the connections that get notices from it: waking another
//! thread takes longer than this work. And if a single connection waits for its commits, the connection's own thread
//! makes them.
//!
//! All of this depends on which thread calls, so only this folder has thread-locals that change what a call does. It is
//! off if the store does not commit in place.
//!
//! - `runner`: runs broker work, on the runtime's threads or on the caller's.
//! - `deferred`: connections with new notices, collected until the work that notified them ends.
//! - `offer`: a thread's offer to commit the rows that it submits.
//! - `detector`: predicts whether the broker serves a single connection. `timer`: wakes a thread to poll the sockets if
//!   a commit takes long.

mod deferred;
mod detector;
mod offer;
mod runner;
#[cfg_attr(not(target_os = "linux"), path = "no_timer.rs")]
mod timer;

pub(super) use deferred::{ConnectionWork, defer};
pub(super) use runner::TokioRunner;
